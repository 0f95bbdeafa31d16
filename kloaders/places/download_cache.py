"""Objects kept on a local disk once they are fetched, in a folder of bounded size that processes share.

Of objects that hold many samples, blocks of 4 MiB are kept, else whole objects. An epoch asks for each
once, so keeping what was used last would keep nothing: which are kept is fixed instead, by their URLs, as
large a share of the data as the budget is. Every epoch then finds the same ones, and nothing is thrown
out for something else of the same data.

What is kept is appended to segments. Each process writes segments of its own, under a lock on the
folder, and looks at their sizes first: the budget holds whatever ends a process. Entries have a checksum
and the ETag of the object. Only files that end in `.objects` in a folder with our marker are ever deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kloaders.core import forks
from kloaders.core.memory import format_bytes
from kloaders.core.messages import warn
from kloaders.places.fetching import Span, read_once
from kloaders.places.registry import place_of
from kloaders.places.urls import local_path, parsed

try:
    import fcntl
except ImportError:  # Windows: processes do not wait for each other
    fcntl = None  # type: ignore[assignment]

__all__ = ["BLOCK_BYTES", "MARKER", "DownloadCache", "Segment", "clear", "segments_of"]

#: The least that a budget may be, and what is kept at a time of objects that are read by ranges.
BLOCK_BYTES = 4 * 2**20
#: What a folder has in it that is ours.
MARKER = "kloaders-download-cache"
_SUFFIX = ".objects"
_MAGIC = b"KLO1"
# Magic, key of the URL, length of the ETag and of the content, checksum of both; then that of these.
_HEAD = struct.Struct("<4s16sIQI")
_SUM = struct.Struct("<I")
_HEAD_SIZE = _HEAD.size + _SUM.size
_REFRESH_SECONDS = 2.0
# So much of the disk is left alone.
_DISK_RESERVE = 2**30


class _At(NamedTuple):
    segment: str
    offset: int
    etag: str
    size: int


@dataclass(frozen=True)
class _Settings:
    folder: str
    budget: int | None
    share: float
    data: str


class DownloadCache:
    """What was fetched of one data set, and of others in the same folder.

    Args:
        folder: made if it is not there; an empty one, or one of a download cache.
        budget: bytes that all segments in the folder may have; None: as much as the disk has, but 1 GiB.
        total: bytes of the data set, or about as many.
        data: a short text that tells the data set from others.

    Raises:
        ValueError: the budget is below `BLOCK_BYTES`, or the folder holds other files.
        NotADirectoryError: the folder is a file.

    Threads: all methods may be called from several at once.
    """

    def __init__(self, folder: str, budget: int | None, total: int, data: str) -> None:
        if budget is not None and budget < BLOCK_BYTES:
            raise ValueError(
                f"download_budget={format_bytes(budget)} is less than one block of "
                f"{format_bytes(BLOCK_BYTES)}: give more, or leave download_cache= out."
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
        """Nothing is open: this process writes a segment of its own."""
        self.close()

    def close(self) -> None:
        """Let go of all segments; they are opened again when an object is read."""
        self._closings = getattr(self, "_closings", 0) + 1
        _close(getattr(self, "_files", {}))
        self._lock = threading.RLock()
        self._files: dict[str, int] = {}
        self._index: dict[bytes, _At] = {}
        self._looked: dict[str, int] = {}
        self._checked: set[str] = set()
        # Entries whose checksum was compared.
        self._sound: set[_At] = set()
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
        """An object, or a block of one: as it is kept, or fetched, and kept if it belongs to what is.

        Where no listing had its ETag, that is asked for when the object is first met: a new version of it
        is never taken for an old one.
        """
        found = self._kept(url, etag, span)
        if found is not None:
            return found
        data, etag = self._fetched(url, etag, span)
        if self.belongs(url, span):
            self._keep(url, etag, span, data)
        return data

    def belongs(self, url: str, span: Span = ()) -> bool:
        """Whether an object, or a block of one, is one of those that are kept."""
        digest = hashlib.blake2b(_named(url, ()), digest_size=8, key=b"kept")
        at = int.from_bytes(digest.digest(), "little") / 2**64
        if span:  # every so manyth of the blocks of an object: the share of them, to one block
            at = (at + span[0] // BLOCK_BYTES * self.settings.share) % 1.0
        return self.settings.share >= 1.0 or at < self.settings.share

    def keeps(self, url: str, etag: str, span: Span) -> bool:
        """Whether a block is here, or is one of those that are kept and would find room."""
        return self.holds(url, etag, span) or (
            not (self._full or self._stopped) and self.belongs(url, span)
        )

    def holds(self, url: str, etag: str, span: Span = ()) -> bool:
        """Whether an object, or a block of one, is here, as far as can be told without a look or a request."""
        with self._lock:
            at = self._at(_key(url, span))
        return at is not None and self._is_of(at, url, etag)

    def _is_of(self, at: _At, url: str, etag: str) -> bool:
        """Whether an entry is known to be of this version; without an ETag, of one that was asked for."""
        return at.etag == etag if etag else url in self._checked

    def part(
        self, url: str, etag: str, span: Span = (), start: int = 0, stop: int | None = None
    ) -> bytes | None:
        """Bytes of an object that lie in this block of it, or in all of it, if that is here; by no request.

        The first time all of the block is compared with its checksum, then only these are read.
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
            begin, raw = at.offset + _HEAD_SIZE + len(at.etag.encode()) + start - first, b""
            with contextlib.suppress(OSError):
                raw = _pread(file, stop - start, begin)
            # A descriptor that was closed meanwhile may be that of another file.
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

    def _at(self, key: bytes) -> _At | None:
        """Where an entry is. The lock is held."""
        if key not in self._index and time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refresh()
        return self._index.get(key)

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
        wanted = _HEAD_SIZE + len(at.etag.encode()) + at.size
        raw = _pread(file, wanted, at.offset)
        if len(raw) == wanted:
            body = raw[wanted - at.size :]
            _, stored, _, _, checksum = _HEAD.unpack_from(raw)
            if stored == key and zlib.crc32(body, zlib.crc32(at.etag.encode())) == checksum:
                self.hits += 1
                return body
        warn(
            f"{self.folder}: what is kept of {url} is damaged, and is fetched again.",
            once=f"download cache {self.folder}",
        )
        with self._lock:
            self._index.pop(key, None)
        return None

    def _etag_now(self, url: str) -> str:
        where = parsed(url)
        return place_of(where).head(where.name).etag

    def _open(self, segment: str) -> int | None:
        """The descriptor of a segment. The lock is held."""
        if segment not in self._files:
            try:
                path = os.path.join(self.folder, segment)
                self._files[segment] = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            except OSError:
                return None
            _lock_shared(self._files[segment])
        return self._files[segment]

    def _refresh(self) -> None:
        """Look at what other processes, now or earlier, have written. The lock is held."""
        self._refreshed = time.monotonic()
        for segment in segments_of(self.folder):
            file = self._open(segment.name)
            if file is None or segment.name == self._own:
                continue
            for key, at in _entries(file, segment.name, self._looked.get(segment.name, 0)):
                self._index[key] = at
                self._looked[segment.name] = (
                    at.offset + _HEAD_SIZE + len(at.etag.encode()) + at.size
                )

    # ------------------------------------------------------------------ writing

    def _keep(self, url: str, etag: str, span: Span, data: bytes) -> None:
        if self._stopped or not etag:
            return
        tag, key = etag.encode(), _key(url, span)
        head = _HEAD.pack(_MAGIC, key, len(tag), len(data), zlib.crc32(data, zlib.crc32(tag)))
        entry = head + _SUM.pack(zlib.crc32(head)) + tag + data
        with self._lock:
            try:
                with _locked(self.folder):
                    if not self._room(len(entry)):
                        self._full = True
                        return
                    file, offset = self._own_segment()
                    _append(file, entry, offset)
            except OSError as error:
                self._stopped = True
                warn(
                    f"{error.strerror or error}: nothing more goes into the download cache in "
                    f"{self.folder}, training goes on."
                )
                return
            assert self._own is not None
            self._index[key] = _At(self._own, offset, etag, len(data))
            self._checked.add(url)

    def _own_segment(self) -> tuple[int, int]:
        """The segment that this process writes, and its end. The folder is locked."""
        if self._own is None:
            name = f"{self.settings.data}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._files[name] = os.open(os.path.join(self.folder, name), flags, 0o666)
            _lock_shared(self._files[name])
            self._own = name
        file = self._files[self._own]
        return file, os.fstat(file).st_size

    def _room(self, size: int) -> bool:
        """Whether so many bytes more may be written. The folder is locked."""
        used = sum(segment.size for segment in segments_of(self.folder))
        if self.budget is not None and size > self.budget:
            return False  # whatever is deleted for it
        if self.budget is not None and used + size > self.budget:
            used -= self._push_out(used + size - self.budget)
            if used + size > self.budget:
                return False
        return shutil.disk_usage(self.folder).free > _DISK_RESERVE + size

    def _push_out(self, wanted: int) -> int:
        """Delete segments of other data sets that nobody uses; how many bytes they had."""
        freed = 0
        for segment in sorted(segments_of(self.folder), key=lambda one: one.used):
            if freed >= wanted or segment.name.startswith(f"{self.settings.data}-"):
                continue
            with self._lock:
                file = self._files.pop(segment.name, None)
                if file is not None:
                    self._closings += 1
                    os.close(file)
            if _delete_unused(os.path.join(self.folder, segment.name)):
                freed += segment.size
                self._index = {k: at for k, at in self._index.items() if at.segment != segment.name}
            elif file is not None:
                self._open(segment.name)
        return freed


def _named(url: str, span: Span) -> bytes:
    """What tells objects, and blocks of them, apart."""
    name = url.encode("utf-8", "surrogateescape")
    return b"%b\0%d-%d" % (name, *span) if span else name


def _key(url: str, span: Span) -> bytes:
    return hashlib.blake2b(_named(url, span), digest_size=16).digest()


def _close(files: dict[str, int]) -> None:
    for file in files.values():
        with contextlib.suppress(OSError):
            os.close(file)
    files.clear()


def _append(file: int, entry: bytes, offset: int) -> None:
    """Write an entry, of any size, as a whole or not at all."""
    left = memoryview(entry)
    try:
        while left:
            left = left[os.pwrite(file, left, offset + len(entry) - len(left)) :]
    except OSError:
        os.ftruncate(file, offset)
        raise


def _pread(file: int, size: int, offset: int) -> bytes:
    """So many bytes, fewer at the end; the system reads no more than 2 GiB at a time."""
    data = os.pread(file, size, offset)
    while len(data) < size and (more := os.pread(file, size - len(data), offset + len(data))):
        data += more
    return data


def _made_folder(folder: str) -> None:
    """Make the folder of a cache, or see that it is one."""
    try:
        os.makedirs(folder, exist_ok=True)
        others = os.listdir(folder)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"download_cache={folder!r:.80} is or lies in a file, expected a folder: choose another name."
        ) from None
    if MARKER not in others:
        if others:
            raise ValueError(
                f"download_cache={folder!r:.80} holds other files, such as {min(others)!r:.80}: choose a folder "
                "of its own, which is made if it is not there."
            )
        Path(folder, MARKER).touch()


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Inside, no other process writes to the folder."""
    with open(os.path.join(folder, MARKER), "rb+") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_shared(file: int) -> None:
    """Note that a segment is in use, for as long as it is open."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _delete_unused(path: str) -> bool:
    """Delete a segment that no process has open; whether it was deleted."""
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_size and os.pread(file, len(_MAGIC), 0) != _MAGIC:
            return False  # of that name, and not ours
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _entries(file: int, segment: str, start: int) -> Iterator[tuple[bytes, _At]]:
    """Keys and positions of the whole entries of a segment, up to the first that is not."""
    size, at = os.fstat(file).st_size, start
    while at + _HEAD_SIZE <= size:
        head = os.pread(file, _HEAD_SIZE, at)
        if len(head) < _HEAD_SIZE or not head.startswith(_MAGIC):
            return
        if zlib.crc32(head[: _HEAD.size]) != _SUM.unpack_from(head, _HEAD.size)[0]:
            return
        _, key, tag, length, _ = _HEAD.unpack_from(head)
        end = at + _HEAD_SIZE + tag + length
        if end > size:
            return
        etag = os.pread(file, tag, at + _HEAD_SIZE).decode("utf-8", "replace")
        yield key, _At(segment, at, etag, length)
        at = end


class Segment(NamedTuple):
    """A file of a download cache.

    Attributes:
        name: in its folder.
        size: in bytes.
        used: when it was last written to, in seconds since 1970.
        data: which data set it was written for.
    """

    name: str
    size: int
    used: float
    data: str


def segments_of(folder: str) -> list[Segment]:
    """The segments of a download cache; none of a folder that is no such."""
    found = []
    if not os.path.exists(os.path.join(folder, MARKER)):
        return []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):  # deleted meanwhile
                    about = entry.stat()
                    data = entry.name.partition("-")[0]
                    found.append(Segment(entry.name, about.st_size, about.st_mtime, data))
    return found


def damaged_in(folder: str, segment: Segment) -> tuple[int, int]:
    """How many objects of a segment are whole, and how many are damaged."""
    whole = damaged = 0
    file = os.open(os.path.join(folder, segment.name), os.O_RDONLY)
    try:
        for _, at in _entries(file, segment.name, 0):
            head = os.pread(file, _HEAD_SIZE, at.offset)
            tag = at.etag.encode()
            body = _pread(file, at.size, at.offset + _HEAD_SIZE + len(tag))
            right = zlib.crc32(body, zlib.crc32(tag)) == _HEAD.unpack_from(head)[4]
            whole, damaged = whole + right, damaged + (not right)
    finally:
        os.close(file)
    return whole, damaged


def clear(folder: str) -> tuple[int, int]:
    """Delete the segments that no process uses; how many bytes are gone, and how many stay."""
    gone = stay = 0
    for segment in segments_of(folder):
        if _delete_unused(os.path.join(folder, segment.name)):
            gone += segment.size
        else:
            stay += segment.size
    return gone, stay
