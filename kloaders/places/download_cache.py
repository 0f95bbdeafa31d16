"""A cache of fetched objects on a local disk, in a folder with a maximum size that processes share.

Large objects with many samples are stored in blocks of 4 MiB, others as a whole. An epoch reads each object
once, so a least-recently-used cache would never have a hit. Instead, a hash of the URLs selects a fixed set
of objects, which is as large a share of the data as the budget permits. Every epoch then finds the same
objects, and objects of one data set never evict each other.

Objects are appended to segments. Each process writes its own segments, under a lock on the folder, and
checks the total size first, so that the budget holds however a process ends. Entries have a checksum and the
object's ETag. Only files ending in `.objects`, in a folder with this package's marker, are ever deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kloaders.core import forks
from kloaders.core.memory import format_bytes
from kloaders.core.messages import visible, warn
from kloaders.places.fetching import Span, read_once
from kloaders.places.registry import place_of
from kloaders.places.segments import (
    HEAD_BYTES,
    MARKER,
    SUFFIX,
    At,
    append,
    content_of,
    delete_unused,
    entries,
    entry_of,
    lock_shared,
    read_all,
    segments_of,
)
from kloaders.places.urls import local_path, parsed

try:
    import fcntl
except ImportError:  # Windows: processes do not wait for each other
    fcntl = None  # type: ignore[assignment]  # on Windows

__all__ = ["BLOCK_BYTES", "DownloadCache"]

#: The minimum budget, and the block size for objects that are read by ranges.
BLOCK_BYTES = 4 * 2**20
_REFRESH_SECONDS = 2.0
# Free disk space that is never used.
_DISK_RESERVE = 2**30


@dataclass(frozen=True)
class _Settings:
    folder: str
    budget: int | None
    share: float
    data: str


class DownloadCache:
    """The cache of one data set, in a folder that others may share.

    Args:
        folder: created if missing; it must be empty, or a download cache.
        budget: the maximum size in bytes of all segments in the folder; None: the disk except 1 GiB.
        total: the approximate size in bytes of the data set.
        data: a short text that identifies the data set.

    Raises:
        ValueError: the budget is below `BLOCK_BYTES`, or the folder contains other files.
        NotADirectoryError: the folder is a file.

    Threads: several may call all methods at once.
    """

    def __init__(self, folder: str, budget: int | None, total: int, data: str) -> None:
        if budget is not None and budget < BLOCK_BYTES:
            raise ValueError(
                f"download_budget={format_bytes(budget)} is less than one block of "
                f"{format_bytes(BLOCK_BYTES)}: pass more, or leave download_cache= out."
            )
        share = 1.0 if budget is None else min(1.0, budget / max(1, total))
        self._begin(
            _Settings(os.path.abspath(local_path(folder, "download_cache")), budget, share, data)
        )
        _made_folder(self.folder)

    def _begin(self, settings: _Settings) -> None:
        self.settings = settings
        self.folder, self.budget = settings.folder, settings.budget
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """Start with no open segment: this process will write its own."""
        self.close()

    def close(self) -> None:
        """Close all segments; they are opened again when an object is read."""
        self._closings = getattr(self, "_closings", 0) + 1
        _close(getattr(self, "_files", {}))
        self._lock = threading.RLock()
        self._files: dict[str, int] = {}
        self._index: dict[bytes, At] = {}
        self._looked: dict[str, int] = {}
        self._checked: set[str] = set()
        # The entries whose checksum was compared.
        self._sound: set[At] = set()
        self._own: str | None = None
        self._refreshed = -_REFRESH_SECONDS
        self._stopped = self._full = False
        self.hits = self.asked = 0
        weakref.finalize(self, _close, self._files).atexit = False

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state["settings"])

    def read(self, url: str, etag: str, span: Span = ()) -> bytes:
        """Read an object or block from the cache, or fetch it, and store it if it is in the fixed set.

        If no listing gave its ETag, the ETag is requested when the object is first used, so that an
        outdated entry is never served.
        """
        found = self._kept(url, etag, span)
        if found is not None:
            return found
        data, etag = self._fetched(url, etag, span)
        if self.belongs(url, span):
            self._keep(url, etag, span, data)
        return data

    def belongs(self, url: str, span: Span = ()) -> bool:
        """Whether an object or block is in the fixed set."""
        digest = hashlib.blake2b(_named(url, ()), digest_size=8, key=b"kept")
        at = int.from_bytes(digest.digest(), "little") / 2**64
        if span:  # spread evenly: the share of each object is exact to one block
            at = (at + span[0] // BLOCK_BYTES * self.settings.share) % 1.0
        return self.settings.share >= 1.0 or at < self.settings.share

    def keeps(self, url: str, etag: str, span: Span) -> bool:
        """Whether a block is stored, or is in the fixed set and there is room for it."""
        return self.holds(url, etag, span) or (
            not (self._full or self._stopped) and self.belongs(url, span)
        )

    def holds(self, url: str, etag: str, span: Span = ()) -> bool:
        """Whether an object or block is stored, as far as is known without reading."""
        with self._lock:
            at = self._at(_key(url, span))
        return at is not None and self._is_of(at, url, etag)

    def _is_of(self, at: At, url: str, etag: str) -> bool:
        """Whether an entry has this ETag; without an ETag, whether the entry's was compared before."""
        return at.etag == etag if etag else url in self._checked

    def part(
        self, url: str, etag: str, span: Span = (), start: int = 0, stop: int | None = None
    ) -> bytes | None:
        """Read a stored object or block, or bytes of it, without a request; None if it is not stored.

        The first read verifies the checksum of the whole block; later ones read only these bytes.
        """
        key = _key(url, span)
        with self._lock:
            at = self._at(key)
            file = None if at is None else self._open(at.segment)
            closings = self._closings
        if at is None or file is None or not self._is_of(at, url, etag):
            return None
        first, last = span or (0, at.size)
        if at.size != last - first:
            return None
        stop = last if stop is None else stop
        if at in self._sound:
            begin, raw = at.offset + HEAD_BYTES + len(at.etag.encode()) + start - first, b""
            with contextlib.suppress(OSError):
                raw = read_all(file, stop - start, begin)
            # If the descriptor was closed meanwhile, it may now belong to another file.
            if len(raw) == stop - start and closings == self._closings:
                self.asked, self.hits = self.asked + 1, self.hits + 1
                return raw
            self._sound.discard(at)
        whole = self._kept(url, etag, span)
        if whole is None:
            return None
        self._sound.add(at)
        return whole[start - first : stop - first]

    def _fetched(self, url: str, etag: str, span: Span) -> tuple[bytes, str]:
        if span:
            return read_once(url, etag, span), etag
        where = parsed(url)
        return place_of(where).read(where.name, etag)

    # ------------------------------------------------------------------ reading

    def _at(self, key: bytes) -> At | None:
        """The position of an entry. The caller holds the lock."""
        if key not in self._index and time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refresh()
        return self._index.get(key)

    def note_asked(self) -> None:
        """Count a request for bytes that are not stored."""
        with self._lock:
            self.asked += 1

    def _kept(self, url: str, etag: str, span: Span) -> bytes | None:
        key = _key(url, span)
        with self._lock:
            self.asked += 1
            at = self._at(key)
            file = None if at is None else self._open(at.segment)
        if at is None or file is None:
            return None
        if etag or url not in self._checked:
            if (etag or self._etag_now(url)) != at.etag:
                return None
            self._checked.add(url)
        body = content_of(file, at, key)
        if body is not None:
            with self._lock:
                self.hits += 1
            return body
        warn(
            f"{self.folder}: the cached copy of {url} is damaged, and is fetched again.",
            once=f"download cache {self.folder}",
        )
        with self._lock:
            self._index.pop(key, None)
        return None

    def _etag_now(self, url: str) -> str:
        where = parsed(url)
        return place_of(where).head(where.name).etag

    def _open(self, segment: str) -> int | None:
        """The descriptor of a segment. The caller holds the lock."""
        if segment not in self._files:
            try:
                path = os.path.join(self.folder, segment)
                self._files[segment] = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            except OSError:
                return None
            lock_shared(self._files[segment])
        return self._files[segment]

    def _refresh(self) -> None:
        """Read the index of entries that other processes wrote. The caller holds the lock."""
        self._refreshed = time.monotonic()
        for segment in segments_of(self.folder):
            file = self._open(segment.name)
            if file is None or segment.name == self._own:
                continue
            for key, at in entries(file, segment.name, self._looked.get(segment.name, 0)):
                self._index[key] = at
                self._looked[segment.name] = (
                    at.offset + HEAD_BYTES + len(at.etag.encode()) + at.size
                )

    # ------------------------------------------------------------------ writing

    def _keep(self, url: str, etag: str, span: Span, data: bytes) -> None:
        if self._stopped or not etag:
            return
        key = _key(url, span)
        entry = entry_of(key, etag, data)
        with self._lock:
            try:
                with _locked(self.folder):
                    if not self._room(len(entry)):
                        self._full = True
                        return
                    file, offset = self._own_segment()
                    append(file, entry, offset)
            except OSError as error:
                self._stopped = True
                warn(
                    f"{error.strerror or error}: the download cache in {self.folder} stores no more "
                    "objects; training continues."
                )
                return
            assert self._own is not None
            self._index[key] = At(self._own, offset, etag, len(data))
            self._checked.add(url)

    def _own_segment(self) -> tuple[int, int]:
        """The segment that this process writes, and its end. The folder is locked."""
        if self._own is None:
            name = f"{self.settings.data}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._files[name] = os.open(os.path.join(self.folder, name), flags, 0o666)
            lock_shared(self._files[name])
            self._own = name
        file = self._files[self._own]
        return file, os.fstat(file).st_size

    def _room(self, size: int) -> bool:
        """Whether this many more bytes may be written. The folder is locked."""
        used = sum(segment.size for segment in segments_of(self.folder))
        if self.budget is not None and size > self.budget:
            return False  # deleting other segments would not help
        if self.budget is not None and used + size > self.budget:
            used -= self._push_out(used + size - self.budget)
            if used + size > self.budget:
                return False
        return shutil.disk_usage(self.folder).free > _DISK_RESERVE + size

    def _push_out(self, wanted: int) -> int:
        """Delete unused segments of other data sets; return the number of bytes freed."""
        freed = 0
        for segment in sorted(segments_of(self.folder), key=lambda one: one.used):
            if freed >= wanted or segment.name.startswith(f"{self.settings.data}-"):
                continue
            with self._lock:
                file = self._files.pop(segment.name, None)
                if file is not None:
                    self._closings += 1
                    os.close(file)
            if delete_unused(os.path.join(self.folder, segment.name)):
                freed += segment.size
                self._index = {k: at for k, at in self._index.items() if at.segment != segment.name}
            elif file is not None:
                self._open(segment.name)
        return freed


def _named(url: str, span: Span) -> bytes:
    """The key of an object or block."""
    name = url.encode("utf-8", "surrogateescape")
    return b"%b\0%d-%d" % (name, *span) if span else name


def _key(url: str, span: Span) -> bytes:
    return hashlib.blake2b(_named(url, span), digest_size=16).digest()


def _close(files: dict[str, int]) -> None:
    for file in files.values():
        with contextlib.suppress(OSError):
            os.close(file)
    files.clear()


def _made_folder(folder: str) -> None:
    """Create the folder of a cache, or check that it is one."""
    try:
        os.makedirs(folder, exist_ok=True)
        others = os.listdir(folder)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"download_cache='{visible(folder)}' is a file or inside one, expected a folder: choose another name."
        ) from None
    if MARKER not in others:
        if others:
            raise ValueError(
                f"download_cache='{visible(folder)}' contains other files, such as {min(others)!r:.80}: choose a "
                "separate folder, which is created if missing."
            )
        Path(folder, MARKER).touch()


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """A context in which no other process writes to the folder."""
    with open(os.path.join(folder, MARKER), "rb+") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
