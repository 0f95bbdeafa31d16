"""Reads, lists and writes objects by URL, and retries while the storage does not answer."""

from __future__ import annotations

import fnmatch
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from kloaders.core import forks
from kloaders.core.messages import inform, warn
from kloaders.core.threads import exiting
from kloaders.places.errors import (
    BrokenTransferError,
    ChangedError,
    OutageError,
    TransientError,
)
from kloaders.places.place import PART_BYTES, Entry, Place
from kloaders.places.registry import place_of
from kloaders.places.urls import join, parsed, without_pattern

__all__ = [
    "delete",
    "exists",
    "head",
    "inside",
    "list_below",
    "listed_pattern",
    "patiently",
    "put",
    "put_file",
    "read",
    "read_range",
    "read_with_etag",
]

T = TypeVar("T")

# The number of seconds before the second try, and the maximum before a later one.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 15.0
# The number of seconds between checks whether a thread still waits.
_LOOK_SECONDS = 0.25
# An outage longer than this is reported.
_REPORT_SECONDS = 10.0
# An object whose transfer breaks off this often, while others arrive, is itself at fault.
_TRANSFERS = 8


class _Outages:
    """For each place that does not answer, the time since when."""

    def __init__(self) -> None:
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._reported: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether any place does not answer."""
        return bool(self._since)

    def failed(self, place: str, said: str, patience: float) -> None:
        """Record that a request was not answered."""
        now = time.monotonic()
        with self._lock:
            since = self._since.setdefault(place, now)
            if now - since < _REPORT_SECONDS or place in self._reported:
                return
            self._reported.add(place)
        warn(
            f"{place} has not answered for {now - since:.0f} seconds ({said}). Each request is retried "
            f"for up to {patience:g} seconds in total; training continues when it answers."
        )

    def answered(self, place: str) -> None:
        """Record that a request was answered."""
        if place in self._since:
            with self._lock:
                since = self._since.pop(place, None)
                reported = place in self._reported
                self._reported.discard(place)
            if reported and since is not None:
                inform(f"{place} answers again, after {time.monotonic() - since:.0f} seconds.")


_outages = _Outages()


def patiently(
    attempt: Callable[[], T],
    url: str,
    patience: float | None = None,
    *,
    failed: Callable[[TransientError], None] | None = None,
    wanted: Callable[[], bool] | None = None,
) -> T:
    """Call `attempt()` until it raises no TransientError; return its result.

    Args:
        attempt: makes one request.
        url: the requested URL.
        patience: the number of seconds to keep trying; None: the setting of the URL's place.
        failed: called with each TransientError.
        wanted: returns False once no thread waits for the result; then the last error is raised.

    Raises:
        OutageError: it failed for that long.
        BrokenTransferError: the transfer broke off each time.
    """
    begin, wait, transfers = time.monotonic(), _FIRST_WAIT, 0
    while True:
        try:
            found = attempt()
        except TransientError as error:
            if failed is not None:
                failed(error)
            transfers += error.transfer
            where = parsed(url)
            place = where.place
            if patience is None:
                patience = place_of(where).patience
            waited = time.monotonic() - begin
            if transfers >= _TRANSFERS:
                raise BrokenTransferError(
                    f"{url} never arrives completely: its transfer broke off {transfers} times"
                ) from None
            if waited + wait > patience:
                raise OutageError(
                    f"{place} has not answered a request for {url} for {waited:.0f} seconds ({error}). "
                    "Check the network and the endpoint, and resume; kloaders.storage(..., patience=) "
                    "sets how long requests are retried."
                ) from None
            if not error.transfer:
                _outages.failed(place, str(error), patience)
            if not _paused(wait * random.uniform(0.5, 1.0), wanted):  # noqa: S311  jitter
                raise OutageError(f"{place}: no thread waits for {url} any more.") from None
            wait = min(2 * wait, _LONGEST_WAIT)
        except Exception as error:
            error.__context__ = None  # the client's message may contain keys
            raise
        else:
            if _outages.any:
                _outages.answered(parsed(url).place)
            return found


def _paused(seconds: float, wanted: Callable[[], bool] | None) -> bool:
    """Wait, as long as a thread still wants the result; return whether one does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if exiting.wait(min(left, _LOOK_SECONDS)) or not (wanted is None or wanted()):
            return False
    return True


def _place(url: str) -> tuple[Place, str]:
    found = parsed(url)
    return place_of(found), found.name


def read(url: str, etag: str = "") -> bytes:
    """Read a whole object; with an ETag, only if the object still has it."""
    place, name = _place(url)
    return patiently(lambda: place.read(name, etag)[0], url, place.patience)


def read_with_etag(url: str) -> tuple[bytes, str]:
    """Read a whole object; return it and its ETag, or "" if the storage has no ETags."""
    place, name = _place(url)
    return patiently(lambda: place.read(name), url, place.patience)


def read_range(url: str, start: int, stop: int, etag: str = "") -> bytes:
    """Read bytes start to stop of an object, fewer at its end."""
    place, name = _place(url)
    if stop <= start:
        return b""
    return patiently(lambda: place.read_range(name, start, stop, etag), url, place.patience)


def head(url: str) -> Entry:
    """The size and ETag of an object."""
    place, name = _place(url)
    return patiently(lambda: place.head(name), url, place.patience)


def exists(url: str) -> bool:
    """Whether the object exists."""
    try:
        head(url)
    except FileNotFoundError:
        return False
    return True


def delete(url: str) -> None:
    """Delete an object, if it exists."""
    place, name = _place(url)
    patiently(lambda: place.delete(name), url, place.patience)


def put(url: str, parts: Sequence[bytes], only_if_absent: bool = False, etag: str = "") -> None:
    """Write an object atomically.

    Args:
        url: the URL of the object.
        parts: its content.
        only_if_absent: raise FileExistsError if it exists.
        etag: raise ChangedError if the existing object has another ETag.
    """
    place, name = _place(url)
    tries: list[TransientError] = []
    try:
        patiently(
            lambda: place.put(name, parts, only_if_absent, etag),
            url,
            place.patience,
            failed=tries.append,
        )
    except (FileExistsError, ChangedError):
        # An earlier try may have succeeded, with only its answer lost.
        if not tries or read(url) != b"".join(parts):
            raise


def put_file(url: str, path: str, only_if_absent: bool = False) -> None:
    """Upload a local file as one object, atomically.

    Large files are sent in parts; whether the object exists is then checked beforehand.
    """
    if os.path.getsize(path) <= PART_BYTES:
        with open(path, "rb") as file:
            put(url, [file.read()], only_if_absent)
        return
    place, name = _place(url)
    if only_if_absent and exists(url):
        raise FileExistsError(f"{url} already exists.")
    patiently(lambda: place.put_file(name, path), url, place.patience)


def inside(folder: str) -> list[Entry]:
    """The objects directly in a folder."""
    place, prefix = _place(folder)
    return patiently(lambda: list(place.inside(prefix.strip("/"))), folder, place.patience)


def list_below(folder: str) -> list[tuple[str, Entry]]:
    """All objects below a folder's URL, by relative name, sorted.

    Folder markers are left out.
    """
    place, prefix = _place(folder)
    prefix = prefix.strip("/")
    found = patiently(lambda: list(place.list(prefix)), folder, place.patience)
    names = {entry.name for entry in found}
    folders = {name[:k] for name in names for k, letter in enumerate(name) if letter == "/"}
    cut = len(prefix) + 1 if prefix else 0
    return sorted(
        (entry.name[cut:], entry)
        for entry in found
        if entry.name not in folders and entry.name[cut:] and not entry.name.endswith("/")
    )


def listed_pattern(pattern: str) -> list[tuple[str, Entry]] | None:
    """URLs that match a pattern, with their metadata, sorted; None if it is not a pattern.

    `*` and `?` match inside a name, `**` any folders, as for local files. Names and folders that begin
    with a dot need one in the pattern.
    """
    cut = without_pattern(pattern)
    if cut is None:
        return None
    folder, below = cut
    parts = below.split("/")
    return [
        (join(folder, name), entry)
        for name, entry in list_below(folder)
        if _matches(parts, name.split("/"))
    ]


def _matches(parts: list[str], names: list[str]) -> bool:
    """Whether a path matches a pattern, both split at slashes."""
    if not parts or not names:
        return not names and all(part == "**" for part in parts)
    part, name = parts[0], names[0]
    shown = part.startswith(".") or not name.startswith(".")
    if part == "**":
        return _matches(parts[1:], names) or (shown and _matches(parts, names[1:]))
    return shown and fnmatch.fnmatchcase(name, part) and _matches(parts[1:], names[1:])
