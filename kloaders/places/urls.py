"""URLs of data: which texts are one, and what they name. Nothing is read."""

from __future__ import annotations

import glob
import os
import re
import urllib.parse
from typing import NamedTuple

from kloaders.core.messages import shortened, visible
from kloaders.core.places import check_place

__all__ = ["OBJECT_STORES", "Url", "is_url", "join", "local_path", "parsed", "without_pattern"]

# Two letters at least, so that a Windows drive is none.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

#: Schemes that obstore reads; all others go to fsspec.
OBJECT_STORES = ("s3", "gs", "az", "https", "http")
_WEB = ("https", "http")


class Url(NamedTuple):
    """What a URL names.

    Attributes:
        scheme: "s3", "gs", "az", "https", "http", or one that fsspec knows.
        root: the bucket or container; of a web server its name and port.
        name: the object in it, as the store calls it.
    """

    scheme: str
    root: str
    name: str

    @property
    def place(self) -> str:
        """The URL of all that lies in the same bucket, or on the same server."""
        return f"{self.scheme}://{self.root}"


def is_url(path: object) -> bool:
    """Whether this is the URL of something, and not the path of a local file.

    >>> is_url("s3://bucket/a.jpg"), is_url("C:/a.jpg"), is_url("a.jpg")
    (True, False, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def parsed(url: str) -> Url:
    """The parts of a URL.

    Names in buckets are taken as they are written; those on web servers are percent-encoded, as in a
    browser.

    Raises:
        ValueError: the URL names no bucket or server, or holds credentials, which would end up in
            states and messages. The message leaves them out.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    root, _, name = rest.partition("/")
    if scheme in OBJECT_STORES:
        if "@" in root:
            raise ValueError(
                f"a URL holds a user name or password ({scheme}://...@{root.rpartition('@')[2]}), which "
                f'would end up in states and messages: call kloaders.storage("{scheme}", ...) instead.'
            )
        if not root:
            where = "server" if scheme in _WEB else "bucket"
            raise ValueError(
                f"{shortened(url, 80)!r:.80} names no {where}, expected {scheme}://{where}/name."
            )
    if scheme in _WEB:
        name, question, _ = name.partition("?")
        if question:
            shown = visible(shortened(f"{scheme}://{root}/{name}", 80))
            raise ValueError(
                f"{shown} is followed by a query (?...), as signed "
                "URLs have: it would end up in states and messages, and expire. For a bucket use its "
                "s3://, gs:// or az:// URL, and kloaders.storage(...) or the environment for credentials."
            )
        name = urllib.parse.unquote(name)
    return Url(scheme, root, name)


def local_path(path: str | os.PathLike[str], what: str) -> str:
    """A path of this machine, as text; `what` is what the user calls it.

    Raises:
        ValueError: it is a URL, which is not read or written there: never a folder of that name.
    """
    return check_place(os.fspath(path), what)


def join(folder: str, name: str) -> str:
    """The URL of what lies below another one; `name` as a store calls it."""
    if folder.startswith(("https://", "http://")):
        name = urllib.parse.quote(name)
    return f"{folder.rstrip('/')}/{name}"


def without_pattern(url: str) -> tuple[str, str] | None:
    """The folder that a pattern of URLs begins with, and the pattern below it; None if it is none.

    >>> without_pattern("s3://bucket/photos/*/[ab].jpg")
    ('s3://bucket/photos', '*/[ab].jpg')
    """
    start = url.index("://") + 3
    found = next((k for k in range(start, len(url)) if url[k] in "*?["), None)
    if found is None or not glob.has_magic(url[start:]):
        return None
    cut = url.rfind("/", start, found)
    if cut < 0:
        return None
    return url[:cut], url[cut + 1 :]
