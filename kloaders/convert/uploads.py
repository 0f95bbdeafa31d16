"""Runs conversions to a URL: files are written to a local disk first, then uploaded.

The conversion itself knows nothing about URLs: it writes to a staging folder, whose journal lets a killed
call resume. Then each file is uploaded as one object; the file that makes the others valid is the last.
Meanwhile an object with the name of the journal claims the destination, so that no other process writes
there. Writing the claim also shows at once, and not after hours of decoding, whether the destination is
writable.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import inspect
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec

from kloaders.convert.journal import Journal, Written, checked_if_exists, done_of
from kloaders.core.memory import format_bytes
from kloaders.core.messages import inform, visible
from kloaders.core.threads import ThreadPool
from kloaders.formats.atomic import whole_file
from kloaders.places import access
from kloaders.places.place import Entry
from kloaders.places.urls import is_url, join, local_path, parsed

__all__ = ["Target", "to_urls"]

P = ParamSpec("P")
# The number of files uploaded at the same time; each upload has several concurrent requests.
_FILES_AT_A_TIME = 2
_CLAIM_FILE = "claim"


class Target(NamedTuple):
    """The output of a conversion to a URL.

    Attributes:
        folder: the URL of the folder for its files.
        name: the conversion's argument, relative to the folder: "" for the folder itself, "/" for a
            folder in which the conversion chooses the names, otherwise the prefix of the names.
        files: a regular expression that matches its files, as for `Journal`.
        journal: the name of its journal.
        last: the file that makes the others valid; None if all are valid on their own.
    """

    folder: str
    name: str
    files: str
    journal: str
    last: str | None


def to_urls(
    argument: str, target: Callable[[str, dict[str, Any]], Target]
) -> Callable[[Callable[P, Written]], Callable[P, Written]]:
    """A decorator that makes a conversion to local files also write to URLs.

    Args:
        argument: the name of the argument with the destination. The conversion must also have the
            arguments `staging`, `if_exists`, `overwrite`, `part` and `engine`.
        target: returns the description of the output for the URL and the other arguments.
    """

    def decorate(convert: Callable[P, Written]) -> Callable[P, Written]:
        signature = inspect.signature(convert)

        @functools.wraps(convert)
        def converted(*args: P.args, **kwargs: P.kwargs) -> Written:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return convert(*args, **kwargs)  # raises Python's own TypeError
            given = bound.arguments
            staging = given.pop("staging", None)
            url: Any = given.get(argument)
            if not is_url(url) or url.lower().startswith("file://"):
                if staging is not None:
                    raise ValueError(
                        f"staging={staging!r:.80} is only for uploads, but {argument}={url!r:.80} "
                        "is not a URL: leave staging= out."
                    )
                return convert(*args, **kwargs)
            _check(argument, url, given, staging)

            def local(folder: str, **changed: Any) -> Written:
                given.update({argument: folder, **changed})
                return convert(*bound.args, **bound.kwargs)

            keep = given.get("if_exists", "keep")
            _, replace = checked_if_exists(keep, given.get("overwrite", False))
            return _Upload(target(url, given), staging).run(local, keep, replace)

        return converted

    return decorate


def _check(argument: str, url: str, given: dict[str, Any], staging: Any) -> None:
    """Raise ValueError for arguments with which a URL cannot be written."""
    if parsed(url).scheme in ("https", "http"):
        raise ValueError(
            f"{argument}={url!r:.80}: web servers are read-only. Write to a local folder, or to "
            "the s3://, gs:// or az:// URL of the bucket behind this server."
        )
    if given.get("part") is not None:
        raise ValueError(
            f"part={given['part']!r:.80} with {argument}={url!r:.80}: parts need a folder that all "
            "processes share. Write and finish them in such a folder, and copy its content to the "
            "bucket; or leave part= out, so that one process writes everything."
        )
    if given.get("engine") is not None and staging is None:
        raise ValueError(
            f"engine={given['engine']!r:.80} with {argument}={url!r:.80}: the nodes of the cluster write to "
            "a folder that they share. Pass it as staging=; its content is uploaded from there."
        )


class _Upload:
    """A conversion whose output goes to a URL."""

    def __init__(self, target: Target, staging: Any) -> None:
        self.target = target
        self.pattern = re.compile(target.files)
        self.place = f"{target.folder}/{target.name.strip('/')}".rstrip("/")
        digest = hashlib.blake2b(self.place.encode("utf-8", "surrogateescape"), digest_size=8)
        root = _default_staging() if staging is None else local_path(staging, "staging")
        self.folder = os.path.join(os.path.abspath(root), digest.hexdigest())
        # The folder for new files, and the folder for empty stand-ins of a finished conversion's files.
        self.data = os.path.join(self.folder, "data")
        self.stand_ins = os.path.join(self.folder, "as-listed")
        self.claim = join(target.folder, target.journal)
        self.done = os.path.basename(done_of(target.journal))

    def run(self, local: Callable[..., Written], if_exists: str, replace: bool) -> Written:
        """Upload the files that `local(folder)` writes."""
        there = self._there()  # first, so that an unreachable destination is an error at once
        journal = Journal(
            os.path.join(self.folder, "upload.jsonl"),
            "(?!)",
            {"url": self.place},
            overwrite=True,
            current=lambda _, note: self._is_there(note, there),
        )
        entered = False
        try:
            with self._explained(), journal:
                entered = True
                written = self._run(journal, local, there, if_exists, replace)
        finally:
            if entered and not os.path.isdir(self.data):  # nothing to resume
                self._forget(journal)
        files, others = ([self._url(path) for path in paths] for paths in written[:2])
        return written._replace(files=files, validation=others)

    def _run(
        self,
        journal: Journal,
        local: Callable[..., Written],
        there: dict[str, Entry],
        if_exists: str,
        replace: bool,
    ) -> Written:
        token = self._token()
        held = self._held()
        ours = held is not None and held.get("token") == token
        if there and not ours and not replace:
            if held is not None:
                raise self._claimed(held)
            written = self._compared(local, there, if_exists)
        else:
            self._take(token, replace)
            inform(
                f"{self.place}: files are written to {self.data} first, where "
                f"{format_bytes(shutil.disk_usage(self.folder).free)} are free, and are removed from "
                "there after the upload."
            )
            written = self._made(local, replace)
            self._publish(journal, there, token)
        shutil.rmtree(self.data, ignore_errors=True)
        return written

    def _forget(self, journal: Journal) -> None:
        """Remove the rest of the staging folder, unless another process uses it."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, _CLAIM_FILE))
        for path in (journal.path, done_of(journal.path)):
            with contextlib.suppress(OSError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)

    def _url(self, path: str) -> str:
        return join(self.target.folder, os.path.basename(path))

    def _local(self, folder: str) -> str:
        return folder + "/" if self.target.name == "/" else os.path.join(folder, self.target.name)

    # ------------------------------------------------------------------------ the destination

    def _there(self) -> dict[str, Entry]:
        """The existing files of such conversions at the URL, and the journal of a finished one."""
        found = {
            entry.name.rpartition("/")[2]: entry for entry in access.inside(self.target.folder)
        }
        return {
            name: entry
            for name, entry in found.items()
            if self.pattern.fullmatch(name) or name == self.done
        }

    def _is_there(self, note: Any, there: dict[str, Entry]) -> bool:
        """Whether an uploaded file still exists unchanged."""
        entry = there.get(note["name"])
        return entry is not None and [entry.size, entry.etag] == note["object"]

    def _held(self) -> dict[str, Any] | None:
        """The owner of the claim; None if there is no claim."""
        try:
            found = json.loads(access.read(self.claim))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _claimed(self, held: dict[str, Any]) -> FileExistsError:
        return FileExistsError(
            f"{self.claim} exists: process {held.get('process', '?')!r:.80} on "
            f"{held.get('host', '?')!r:.80} is writing there, or was interrupted. Wait until it has finished, "
            "or make the same call on that machine to resume; overwrite=True (--overwrite) starts again."
        )

    def _take(self, token: str, replace: bool) -> None:
        """Claim the destination."""
        text = {"process": os.getpid(), "host": socket.gethostname(), "token": token}
        content = json.dumps(text).encode()
        try:
            access.put(self.claim, [content], only_if_absent=True)
        except FileExistsError:
            held = self._held() or {}
            if held.get("token") != token and not replace:
                raise self._claimed(held) from None
            access.put(self.claim, [content])

    # ----------------------------------------------------------------------------- the staging folder

    def _token(self) -> str:
        """A random id by which a resumed call recognises its own claim."""
        path = os.path.join(self.folder, _CLAIM_FILE)
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            return file.read()
        token = secrets.token_hex(16)
        with whole_file(path) as new:
            new.write(token.encode())
        return token

    def _compared(
        self, local: Callable[..., Written], there: dict[str, Entry], if_exists: str
    ) -> Written:
        """Call `local` for a finished conversion. Raises FileExistsError if it is a different one.

        Names, lengths and the journal are compared, with sparse files in place of the objects.
        """
        shutil.rmtree(self.stand_ins, ignore_errors=True)
        os.makedirs(self.stand_ins)
        try:
            for name, entry in there.items():
                with open(os.path.join(self.stand_ins, name), "wb") as file:
                    if name == self.done:
                        file.write(access.read(join(self.target.folder, name)))
                    else:
                        file.truncate(entry.size)
            return local(self._local(self.stand_ins), if_exists=if_exists, overwrite=False)
        finally:
            shutil.rmtree(self.stand_ins, ignore_errors=True)

    def _made(self, local: Callable[..., Written], replace: bool) -> Written:
        """Write all files to the staging folder. Files of a killed call with the same job are kept."""
        os.makedirs(self.data, exist_ok=True)
        path = self._local(self.data)
        try:
            return local(path, if_exists="keep", overwrite=False)
        except FileExistsError:
            if not replace:
                raise
        return local(path, if_exists="keep", overwrite=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """In error messages, replace the staging folder by the URL, and add advice for a full disk."""
        try:
            yield
        except (FileExistsError, BlockingIOError) as error:
            if error.filename is not None:
                raise
            text = str(error)
            for folder in (self.data, self.stand_ins, self.folder):
                text = text.replace(visible(folder), self.target.folder)
            raise type(error)(text) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or errno.ENOSPC)} in the folder where the files of {self.place} "
                "are written before the upload: free some space and make the same call again, or pass "
                "staging=, a folder on a larger disk",
                error.filename,
            ) from error

    # ------------------------------------------------------------------------------- the upload

    def _publish(self, journal: Journal, there: dict[str, Entry], token: str) -> None:
        """Upload the missing files; the file that makes the others valid is the last."""
        names = sorted(filter(self.pattern.fullmatch, os.listdir(self.data)))
        first = [name for name in names if name != self.target.last]
        numbers = {name: k for k, name in enumerate([*first, self.done])}
        kept = {
            name
            for name in numbers
            if (note := journal.finished.get(numbers[name])) is not None
            and note["name"] == name
            and note["file"] == self._stamp(name)
        }
        # Delete objects of another conversion or of a killed call; first the one that makes them valid.
        old = sorted(
            there.keys() - kept, key=lambda name: name not in (self.target.last, self.done)
        )
        for name in old:
            access.delete(join(self.target.folder, name))

        def upload(name: str) -> None:
            url = join(self.target.folder, name)
            access.put_file(url, os.path.join(self.data, name), only_if_absent=True)
            entry = access.head(url)
            note = {"name": name, "object": [entry.size, entry.etag], "file": self._stamp(name)}
            journal.add(numbers[name], [], note)

        with ThreadPool(_FILES_AT_A_TIME, "kloaders-upload") as pool:
            futures = [pool.submit(upload, name) for name in first if name not in kept]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if (held := self._held()) is None or held.get("token") != token:
            raise self._claimed(held or {})
        if self.done not in kept:
            upload(self.done)
        if self.target.last is not None:
            path = os.path.join(self.data, self.target.last)
            access.put_file(join(self.target.folder, self.target.last), path, only_if_absent=True)
        access.delete(self.claim)

    def _stamp(self, name: str) -> list[int]:
        status = os.stat(os.path.join(self.data, name))
        return [status.st_size, status.st_mtime_ns, status.st_ino]


def _default_staging() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "kloaders", "uploads")
