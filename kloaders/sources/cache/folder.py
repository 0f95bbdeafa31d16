"""A cache of decoded samples in a folder. It outlives the process, and processes may share it."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
import struct
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import format_bytes
from kloaders.core.messages import visible, warn
from kloaders.formats.files import open_to_read
from kloaders.formats.pack import dtype_named
from kloaders.formats.positioned_reads import read_at
from kloaders.places.urls import local_path
from kloaders.sources.cache import store as stores
from kloaders.sources.cache.store import SharedStore, Stamp, check_kept

__all__ = ["FolderCache"]


# A segment is a file that a single process appends to. It consists of entries: a head, a
# description of the array ("|u1 224 224 3"), and the array's bytes. A reader checks all parts, so
# that an entry that a killed process left half-written, or a disk damaged, is never served.
_HEAD = struct.Struct("<4s16sIQI")  # magic, key, sizes of description and array, checksum of both
_SUM = struct.Struct("<I")  # checksum of the head
_HEAD_SIZE = _HEAD.size + _SUM.size
_MAGIC = b"kle1"
_SUFFIX = ".segment"
# A place combines the number of a segment and the offset of an entry, in the low 44 bits (16 TiB).
_OFFSET_BITS = 44
# A folder cache leaves this much free space on the disk.
_DISK_RESERVE = 2**30
# If a sample is missing, look for new entries of other processes, but at most this often.
_REFRESH_SECONDS = 5.0
# The free disk space is checked after this many written bytes.
_DISK_STEP = 2**26


class FolderCache(SharedStore):
    """A cache of arrays in a folder, which outlives the process. Several processes may share it.

    folder: created if missing. key: identifies everything except files that determines an array
    (`keys.key_of`). names: the names of the samples' files, by sample number (`SampleFiles`). budget: the
    maximum size in bytes of the folder; None: until less than 1 GiB of the disk is free.

    Raises:
        OSError: the folder cannot be created or read.
    """

    def __init__(
        self, folder: str, key: str, samples: int, names: Any, budget: int | None = None
    ) -> None:
        super().__init__()
        self.folder = os.path.join(os.path.abspath(local_path(folder, "cache")), key)
        self.samples = samples
        self.budget = budget
        self._names = names
        try:
            os.makedirs(self.folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f"cache='{visible(folder)}' is a file or inside one, expected a folder: choose another name."
            ) from None
        self._set_up()

    _pid: int
    _files: list[int]  # open descriptors, by segment number
    _close: weakref.finalize[..., Any]  # closes the descriptors
    _seen: dict[str, tuple[int, int]]  # segment name -> its number, and the bytes read so far
    _hashes: Array  # the first 8 bytes of all keys, sorted
    _places: Array  # the places of their entries
    # For each sample that was looked up:
    _where: Array  # its place + 1
    _keys: Array
    _looked_at: Array
    _sound: Array  # whether the checksum was compared
    _own: int | None  # the number of the segment that this process writes
    _end: int
    _used: int
    _added: int
    _full: bool
    _refreshed: float
    _until_asked: int

    def _set_up(self) -> None:
        files: list[int] = []
        close = weakref.finalize(self, _close_all, files)
        close.atexit = False
        fresh: dict[str, Any] = {
            "_pid": os.getpid(),
            "_files": files,
            "_close": close,
            "_seen": {},
            "_hashes": np.zeros(0, np.uint64),
            "_places": np.zeros(0, np.int64),
            # Pages of zeros take no memory until they are written to.
            "_where": np.zeros(self.samples, np.int64),
            "_keys": np.zeros((self.samples, 16), np.uint8),
            "_looked_at": np.zeros(self.samples),
            "_sound": np.zeros(self.samples, bool),
            "_own": None,
            "_end": 0,
            "_used": 0,
            "_added": 0,
            "_full": False,
            "_refreshed": -_REFRESH_SECONDS,
            "_until_asked": 0,
        }
        # A single update: after a Ctrl-C here, no place may refer to a closed file.
        self.__dict__.update(fresh)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "samples", "budget", "paused", "bypassed", "made_by", "_names")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state)
        self._set_up()

    def __str__(self) -> str:
        held = len(self._places) + self._added
        return f"{held:,} arrays in {self.folder} ({format_bytes(self._used)})"

    def expected_share(self, sample_bytes: int, free_bytes: int) -> float:
        """See `Store.expected_share`."""
        room = shutil.disk_usage(self.folder).free + self._used
        return min(room, self.budget or room) / (sample_bytes * self.samples)

    # ------------------------------------------------------------------ reading

    def missing(self, indices: Indices, stamp: Callable[[int], Stamp]) -> Indices:
        """See `Store.missing`."""
        if self.bypassed:
            return indices
        lacking = [index for index in indices.tolist() if self._find(index, stamp) < 0]
        return np.array(lacking, np.int64)

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        if self.bypassed or not out.flags.c_contiguous:
            self._note(0, len(indices))
            return np.arange(len(indices))
        about = _about(out.dtype, out.shape[1:])
        served = [
            self._read(index, about, out[row, ...], stamp)
            for row, index in enumerate(indices.tolist())
        ]
        self._note(sum(served), len(served))
        return np.flatnonzero(~np.array(served, bool))

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        found = self.other(index, stamp)
        self._note(0, 1)  # `other` has counted a hit
        return found

    def other(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """See `Store.other`."""
        place = -1 if self.bypassed else self._find(index, stamp)
        found = None if place < 0 else self._about_at(place)
        if found is None or not self._read(index, *found, stamp):
            return None
        self._note(1, 0)
        return found[1]

    def _read(self, index: int, about: bytes, out: Array, stamp: Callable[[int], Stamp]) -> bool:
        place = self._find(index, stamp)
        if place < 0:
            return False
        front = bytearray(_HEAD_SIZE + len(about))
        body = out.reshape(-1).view(np.uint8).data
        key = self._keys[index].tobytes()
        checksum = self._load(place, front, body, key, about)
        right = checksum is not None
        if checksum is not None and not self._sound[index]:
            right = zlib.crc32(body, zlib.crc32(about)) == checksum
            self._sound[index] = right
        if not right:
            found = self._about_at(place)
            if found is None or found[0] == about:  # damaged, rather than an array of another shape
                self._where[index] = 0
        return right

    def _load(
        self, place: int, front: bytearray, body: memoryview, key: bytes, about: bytes
    ) -> int | None:
        """Read an entry; return its checksum, or None if it is not the expected entry."""
        offset = place & (1 << _OFFSET_BITS) - 1
        size = len(front) + len(body)
        try:
            file = self._files[place >> _OFFSET_BITS]
            if read_at(file, [front, body], offset, size) != size:
                return None
        except (OSError, IndexError):  # another thread closed the loader
            return None
        magic, stored, length, nbytes, checksum = _HEAD.unpack_from(front)
        expected = (_MAGIC, key, len(about), len(body))
        if (magic, stored, length, nbytes) != expected or not front.endswith(about):
            return None
        return int(checksum)

    def _find(self, index: int, stamp: Callable[[int], Stamp]) -> int:
        """The place of a sample's entry; -1 if there is none."""
        if self._pid != os.getpid():  # after a fork: each process writes its own segment
            self.clear()
        now = time.monotonic()
        place = int(self._where[index]) - 1
        if place >= 0 and now - self._looked_at[index] < stores.CHECK_SECONDS:
            return place
        key = self._key(index, stamp(index))
        if key is None:
            return -1
        if place < 0 or self._keys[index].tobytes() != key:
            place = self._place_of(key, now)
            if place < 0:
                return -1
            self._keys[index] = np.frombuffer(key, np.uint8)
            self._sound[index] = False
            self._where[index] = place + 1
        self._looked_at[index] = now
        return place

    def _key(self, index: int, stamp: Stamp) -> bytes | None:
        if stamp is None:
            return None
        name = self._names[index].encode("utf-8", "surrogateescape")
        return hashlib.blake2b(name + b"\0" + stamp, digest_size=16).digest()

    def _place_of(self, key: bytes, now: float) -> int:
        place = self._looked_up(key)
        if place < 0 and now - self._refreshed > _REFRESH_SECONDS:
            with self._lock:  # other threads wait, and use what the first thread finds
                if now - self._refreshed > _REFRESH_SECONDS:
                    self._refresh()
                    self._refreshed = now
            place = self._looked_up(key)
        return place

    def _looked_up(self, key: bytes) -> int:
        hashes, places = self._hashes, self._places
        wanted = np.frombuffer(key, np.uint64, 1)[0]
        at = int(np.searchsorted(hashes, wanted))
        found = at < len(hashes) and at < len(places) and hashes[at] == wanted
        return int(places[at]) if found else -1

    def _refresh(self) -> None:
        """Read the index of entries that other processes have written since the last call."""
        hashes, places = [], []
        for entry in sorted(Path(self.folder).glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                if entry.name not in self._seen:
                    self._files.append(open_to_read(str(entry)))
                    self._seen[entry.name] = len(self._files) - 1, 0
                number, start = self._seen[entry.name]
                if number == self._own:
                    continue
                end = start
                for key, offset, after in _entries(self._files[number], start):
                    hashes.append(int.from_bytes(key[:8], "little"))
                    places.append(number << _OFFSET_BITS | offset)
                    end = after
                self._seen[entry.name] = number, end
                self._used += end - start
        if hashes:
            merged = np.concatenate([self._hashes, np.array(hashes, np.uint64)])
            order = np.argsort(merged, kind="stable")
            both = np.concatenate([self._places, np.array(places, np.int64)])
            # Keep this order: a thread that searches meanwhile finds nothing, or an entry whose key
            # does not match.
            self._places, self._hashes = both[order], merged[order]

    def _about_at(self, place: int) -> tuple[bytes, Array] | None:
        """The description of an entry, and an empty array with its shape and dtype."""
        offset = place & (1 << _OFFSET_BITS) - 1
        head = bytearray(_HEAD_SIZE)
        # A damaged description is treated as missing.
        with suppress(OSError, ValueError, TypeError, IndexError, AttributeError, ImportError):
            file = self._files[place >> _OFFSET_BITS]
            if read_at(file, [head], offset, _HEAD_SIZE) == _HEAD_SIZE and _is_head(head):
                _, _, length, nbytes, _ = _HEAD.unpack_from(head)
                about = bytearray(length)
                if read_at(file, [about], offset + _HEAD_SIZE, length) == length:
                    name, *shape = about.decode("ascii").split()
                    dtype, sides = dtype_named(name), tuple(map(int, shape))
                    if math.prod(sides) * dtype.itemsize == nbytes and not dtype.hasobject:
                        return bytes(about), np.empty(sides, dtype)
        return None

    # ------------------------------------------------------------------ writing

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        key = self._key(index, stamp)
        if key is None or self.paused or self.bypassed or self._full or self._pid != os.getpid():
            return
        check_kept(array.dtype)
        values = np.asarray(array, order="C")  # ascontiguousarray turns a scalar into a 1-D array
        about, body = _about(values.dtype, values.shape), values.reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(body, zlib.crc32(about))
        head = _HEAD.pack(_MAGIC, key, len(about), len(body), checksum)
        front = head + _SUM.pack(zlib.crc32(head)) + about
        with self._lock:
            if self._where[index] and self._keys[index].tobytes() == key:
                return  # batches of two epochs have read the sample at the same time
            place = self._append(front, body)
            if place is not None:
                self._keys[index] = np.frombuffer(key, np.uint8)
                self._sound[index] = True
                self._looked_at[index] = time.monotonic()
                self._where[index] = place + 1

    def _append(self, front: bytes, body: memoryview) -> int | None:
        size = len(front) + len(body)
        try:
            if self._full or not self._room(size):
                return None
            if self._own is None:
                self._open_own()
            assert self._own is not None
            file, offset = self._files[self._own], self._end
            written = _write_at(file, [memoryview(front), body], offset)
            if written != size:
                self._stop("the disk is full", file)
                return None
        except OSError as error:
            own = None if self._own is None else self._files[self._own]
            self._stop(error.strerror or str(error), own)
            return None
        self._end += size
        self._used += size
        self._added += 1
        return self._own << _OFFSET_BITS | offset

    def _open_own(self) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._files.append(os.open(os.path.join(self.folder, name), flags, 0o666))
        self._own, self._end = len(self._files) - 1, 0
        self._seen[name] = self._own, 0

    def _room(self, size: int) -> bool:
        """Whether this many more bytes may be written."""
        if self.budget is not None and self._used + size > self.budget:
            self._full = True  # the user's own limit: no warning
            return False
        self._until_asked -= size
        if self._until_asked < 0:
            self._until_asked = _DISK_STEP
            if shutil.disk_usage(self.folder).free < _DISK_RESERVE + size:
                self._stop(f"the disk has less than {format_bytes(_DISK_RESERVE)} left", None)
        return not self._full

    def _stop(self, why: str, file: int | None) -> None:
        self._full = True
        if file is not None:
            with suppress(OSError):
                os.ftruncate(file, self._end)
        warn(f"{why}: the cache in {self.folder} stores no more samples; training continues.")

    def clear(self) -> None:
        files, close = self._files, self._close
        self._set_up()
        _close_all(files)
        close.detach()  # last: if Ctrl-C interrupts _close_all, the finalizer closes the rest


def _close_all(files: list[int]) -> None:
    while files:
        with suppress(OSError):
            os.close(files.pop())


def _about(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The description of an array: its dtype and shape."""
    # dtype.str of registered types such as bfloat16 is only their size ("|V2").
    name = dtype.name if dtype.isbuiltin == 2 else dtype.str
    return " ".join([name, *map(str, shape)]).encode("ascii")


def _is_head(head: bytes | bytearray) -> bool:
    return (
        len(head) == _HEAD_SIZE
        and head.startswith(_MAGIC)
        and zlib.crc32(head[: _HEAD.size]) == _SUM.unpack_from(head, _HEAD.size)[0]
    )


def _entries(file: int, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Key, offset and end of each entry of a segment, up to the first incomplete or damaged one."""
    size, at = os.fstat(file).st_size, start
    while at + _HEAD_SIZE <= size:
        head = bytearray(_HEAD_SIZE)
        if read_at(file, [head], at, _HEAD_SIZE) != _HEAD_SIZE or not _is_head(head):
            return
        _, key, length, nbytes, _ = _HEAD.unpack_from(head)
        end = at + _HEAD_SIZE + length + nbytes
        if end > size:
            return
        yield key, at, end
        at = end


def _write_at(file: int, parts: list[memoryview], offset: int) -> int:
    """Write `parts` at an offset of a file; return the number of bytes written."""
    done, wanted = 0, sum(map(len, parts))
    while done < wanted:
        more = os.pwritev(file, _rest(parts, done), offset + done)
        if not more:
            break
        done += more
    return done


def _rest(parts: list[memoryview], done: int) -> list[memoryview]:
    """What remains of `parts` after the first `done` bytes."""
    left = []
    for part in parts:
        left.append(part[done:])
        done = max(0, done - len(part))
    return [part for part in left if len(part)]
