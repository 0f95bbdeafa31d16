"""Recognizes and splits URLs of data. Nothing is read."""

from __future__ import annotations

import glob
import os
import re
import urllib.parse
from typing import NamedTuple

from kloaders.core.messages import shortened, visible
from kloaders.core.places import check_place

__all__ = ["OBJECT_STORES", "Url", "is_url", "join", "local_path", "parsed", "without_pattern"]

# At least two letters, so that a Windows drive does not match.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

#: Schemes that obstore reads; all others go to fsspec.
OBJECT_STORES = ("s3", "gs", "az", "https", "http")
_WEB = ("https", "http")


class Url(NamedTuple):
    """The parts of a URL.

    Attributes:
        scheme: "s3", "gs", "az", "https", "http", or one that fsspec knows.
        root: the bucket or container; for a web server its name and port.
        name: the name of the object in it.
    """

    scheme: str
    root: str
    name: str

    @property
    def place(self) -> str:
        """The URL of the whole bucket or server."""
        return f"{self.scheme}://{self.root}"


def is_url(path: object) -> bool:
    """Whether a path is a URL rather than a local path.

    >>> is_url("s3://bucket/a.jpg"), is_url("C:/a.jpg"), is_url("a.jpg")
    (True, False, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def parsed(url: str) -> Url:
    """Split a URL.

    Names in buckets are taken as written; those on web servers are percent-encoded, as in a
    browser.

    Raises:
        ValueError: the URL has no bucket or server, or contains credentials, which would end up in
            states and messages. The message leaves them out.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    root, _, name = rest.partition("/")
    if scheme in OBJECT_STORES:
        if "@" in root:
            raise ValueError(
                f"a URL contains a user name or password ({scheme}://...@{root.rpartition('@')[2]}), which "
                f'would end up in states and messages: call kloaders.storage("{scheme}", ...) instead.'
            )
        if not root:
            where = "server" if scheme in _WEB else "bucket"
            raise ValueError(
                f"{shortened(url, 80)!r:.80} has no {where}, expected {scheme}://{where}/name."
            )
    if scheme in _WEB:
        name, question, _ = name.partition("?")
        if question:
            shown = shortened(f"{scheme}://{root}/{name}", 80)
            raise ValueError(
                f"{visible(shown)} is followed by a query (?...), as in signed "
                "URLs: it would end up in states and messages, and expire. For a bucket use its "
                "s3://, gs:// or az:// URL, and kloaders.storage(...) or the environment for credentials."
            )
        name = urllib.parse.unquote(name)
    return Url(scheme, root, name)


def local_path(path: str | os.PathLike[str], what: str) -> str:
    """Return a local path as a string; `what` is the argument's name.

    Raises:
        ValueError: it is a URL, which cannot be used here (and is never taken for a folder's name).
    """
    return check_place(os.fspath(path), what)


def join(folder: str, name: str) -> str:
    """The URL of an object below another URL; `name` is its name in the store."""
    if folder.startswith(("https://", "http://")):
        name = urllib.parse.quote(name)
    return f"{folder.rstrip('/')}/{name}"


def without_pattern(url: str) -> tuple[str, str] | None:
    """Split a pattern of URLs into its fixed folder and the pattern below it; None if it has none.

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
