"""Keeps decoded samples, so that later epochs need not read and decode them again.

`RamCache` and `FolderCache` are stores of one array a sample; `CachedColumn` puts one in front of
a column of files. What is stored is known by its file's size and modification time: a file that
changed is read again, at the latest CHECK_SECONDS later.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import mmap
import os
import secrets
import shutil
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any, Protocol

import numpy as np

from kloaders import forks
from kloaders.columns import Indices, Odd, PathColumn, Report
from kloaders.keras_base import WORKER
from kloaders.memory import available_bytes, format_bytes
from kloaders.messages import say
from kloaders.structure import Structure, flatten, map_structure, pack, same_structure

__all__ = [
    "Budget",
    "CachedColumn",
    "FolderCache",
    "HookCache",
    "Place",
    "RamCache",
    "Store",
    "key_of",
    "leaf_store",
    "paused",
    "spare_ram",
    "store_at",
    "stores_in",
]

Array = np.ndarray[Any, Any]

# Size in bytes and modification time in nanoseconds of a file; None where it can't be looked at.
Stamp = tuple[int, int] | None

# A stored file is looked at again before it is served, unless it was so many seconds ago.
CHECK_SECONDS = 2.0
# How often it is looked whether memory has become short.
_MEMORY_SECONDS = 1.0
# Of the memory that is free, all caches with cache="auto" together take at most this share ...
_SPARE_SHARE = 0.25
# ... and give back what they hold where less than this share of it is left.
_SHORT_SHARE = 0.1
# Of the memory that is free, cache="ram" takes at most this share.
_RAM_SHARE = 0.8
# A folder cache leaves this much of a disk free.
_DISK_RESERVE = 2**30


class Store(Protocol):
    """Arrays by sample number. All methods may be called from several threads at once."""

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        """Row r of `out` becomes the array of sample indices[r]; the rows that are not here."""

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """A fresh copy of one sample's array, if it is here."""

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        """Keep an array, if there is room. `stamp` was taken before its file was read."""

    def use(self, loader: Any) -> None:
        """A loader begins to read through it."""

    def release(self, loader: Any) -> None:
        """A loader does so no longer: memory and files go with the last one. Folders stay."""

    #: While more than 0, nothing new is kept.
    paused: int

    def __str__(self) -> str:
        """What is held, in words."""


# ---------------------------------------------------------------------------------------------
# In RAM


class Budget:
    """Bytes that one or several caches may use together.

    total: how many; None for a share of what is free when the first of them begins. floor: where
    less than this share of that is left free later, caches give back.
    """

    def __init__(self, total: int | None, share: float = _RAM_SHARE, floor: float = 0.0) -> None:
        self._given, self._share, self._floor_share = total, share, floor
        self._forked()
        forks.watch(self)
        self._used = 0
        self.total = total or 0
        self._floor = 0.0

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        if self is spare_ram:
            return _spare_ram, ()
        return Budget, (self._given, self._share, self._floor_share)

    def reserve(self, wanted: int, unit: int, beside: int = 0) -> int:
        """As much of `wanted` as is left, in whole units.

        beside: bytes that go with each unit, and will be reserved by others: room is left for them.
        """
        with self._lock:
            if not self._used:
                free = available_bytes()
                self.total = int(self._share * free) if self._given is None else self._given
                self._floor = self._floor_share * free
            units = min(wanted // unit, max(0, self.total - self._used) // (unit + beside))
            granted = units * unit
            self._used += granted
            return granted

    def release(self, nbytes: int) -> None:
        """Give back what `reserve` gave."""
        with self._lock:
            self._used -= nbytes

    def short(self) -> bool:
        """Whether memory is to be given back."""
        return bool(self._floor) and available_bytes() < self._floor


#: One budget for all loaders of this process that were given none.
spare_ram = Budget(None, _SPARE_SHARE, _SHORT_SHARE)


def _spare_ram() -> Budget:
    return spare_ram


class _Shared:
    """What several views of a loader use: cleared when the last one is closed."""

    def __init__(self) -> None:
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()

    def use(self, loader: Any) -> None:
        self._users.add(loader)

    def release(self, loader: Any) -> None:
        self._users.discard(loader)
        if not self._users:
            self.clear()

    def clear(self) -> None:
        raise NotImplementedError


class RamCache(_Shared):
    """Arrays of one shape and dtype, that of the first one, in memory that is used as it fills.

    Nothing is thrown out for something newer: an epoch asks for each sample once, so any part of
    the data is as good as any other. Where memory gets short, half of what is held goes.

    beside: bytes of a sample that are kept elsewhere and of no use without the others.
    """

    def __init__(self, samples: int, budget: Budget, beside: int = 0) -> None:
        super().__init__()
        self.samples = samples
        self.budget = budget
        self.beside = beside
        self.paused = 0
        self._off = bool(os.environ.get(WORKER))  # each process would keep its own
        self._forked()
        self._reset()
        forks.watch(self)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def _reset(self) -> None:
        self._rows: Array | None = None
        self._map: mmap.mmap | None = None
        self._slots = np.zeros(0, np.int32)  # of each sample: 1 + its row, 0 for none
        self._capacity = self._count = self._reserved = 0
        # What was copied out of a row counts only if this is the same before and after.
        self._generation = 0
        self._memory_looked_at = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {"samples": self.samples, "budget": self.budget, "beside": self.beside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RamCache.__init__(self, **state)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        rows = self._rows
        return 0 if rows is None else self._count * rows[0].nbytes

    def __str__(self) -> str:
        held = f"{self._count:,} of {self.samples:,} samples in RAM"
        most = f"{format_bytes(self.nbytes)}, at most {format_bytes(self.budget.total)}"
        return f"{held} ({most})" if self._rows is not None else "nothing in RAM yet"

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        self._look_at_memory()
        rows, slots, generation = self._rows, self._slots, self._generation
        if rows is None or rows.shape[1:] != out.shape[1:] or rows.dtype != out.dtype:
            return np.arange(len(indices))
        at = slots[indices] - 1
        there = at >= 0
        self._check(indices, at, there, stamp)
        if there.all() and out.flags.c_contiguous:
            np.take(rows, at, axis=0, out=out, mode="clip")
        else:
            for row in np.flatnonzero(there).tolist():
                out[row] = rows[at[row]]
        if generation != self._generation:
            return np.arange(len(indices))
        return np.flatnonzero(~there)

    def _check(
        self, indices: Indices, at: Array, there: Array, stamp: Callable[[int], Stamp]
    ) -> None:
        """Take out of `there` the rows whose file has changed."""
        now = time.monotonic()
        old = np.flatnonzero(there)
        old = old[now - self._looked_at[at[old]] > CHECK_SECONDS]
        for row in old.tolist():
            index, slot = int(indices[row]), int(at[row])
            if stamp(index) == tuple(self._stamps[slot].tolist()):
                self._looked_at[slot] = now
            else:
                there[row] = False

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        rows = self._rows
        if rows is None:
            return None
        out = np.empty((1, *rows.shape[1:]), rows.dtype)
        missing = self.serve(np.array([index]), out, stamp)
        return None if len(missing) else out[0, ...]

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        if self._off or self.paused or stamp is None:
            return
        with self._lock:
            if self._rows is None and not self._begin(array):
                return
            rows, generation = self._rows, self._generation
            if rows is None or rows.shape[1:] != array.shape or rows.dtype != array.dtype:
                return
            slot = int(self._slots[index]) - 1
            if slot >= 0:  # changed since: nobody may copy from the row while it is written
                self._slots[index] = 0
                self._generation = generation = generation + 1
            elif self._count < self._capacity:
                slot = self._count
                self._count += 1
            else:
                return
        rows[slot] = array
        with self._lock:
            if generation == self._generation or (slot < self._capacity and rows is self._rows):
                self._stamps[slot] = stamp
                self._looked_at[slot] = time.monotonic()
                self._slots[index] = slot + 1

    def _begin(self, array: Array) -> bool:
        """Reserve room for arrays like this one."""
        each = max(1, array.nbytes)
        if self._capacity < 0:
            return False
        self._reserved = self.budget.reserve(each * self.samples, each, self.beside)
        self._capacity = self._reserved // each
        if not self._capacity:
            self._capacity = -1  # not asked for again
            return False
        try:
            self._map = _mapped(self._reserved)
        except (OSError, ValueError):
            self.budget.release(self._reserved)
            self._reserved, self._capacity = 0, -1
            return False
        shape = (self._capacity, *array.shape)
        memory = np.frombuffer(self._map, np.uint8, self._reserved)
        # Zeros take no memory before they are written to.
        self._slots = np.zeros(self.samples, np.int32)
        self._stamps = np.zeros((self._capacity, 2), np.int64)
        self._looked_at = np.zeros(self._capacity)
        self._rows = memory.view(array.dtype).reshape(shape)
        return True

    def _look_at_memory(self) -> None:
        now = time.monotonic()
        if now - self._memory_looked_at > _MEMORY_SECONDS:
            self._memory_looked_at = now
            if self.budget.short():
                self.shrink()

    def shrink(self) -> None:
        """Give back half of what is held, and grow no more."""
        with self._lock:
            rows, memory = self._rows, self._map
            if rows is None or memory is None:
                return
            self._generation += 1
            keep = self._count // 2
            self._slots[self._slots > keep] = 0
            self._count = self._capacity = keep
            start = -(-keep * rows[0].nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
            if start < len(memory) and hasattr(memory, "madvise"):
                memory.madvise(mmap.MADV_DONTNEED, start)
            left = keep * rows[0].nbytes
            self.budget.release(self._reserved - left)
            self._reserved = left
        say(f"memory is short: the cache gives half of it back, and keeps {self}", once="short")

    def clear(self) -> None:
        with self._lock:
            self.budget.release(self._reserved)
            self._reset()


def _mapped(nbytes: int) -> mmap.mmap:
    """Zeroed memory that goes back to the system when it is freed."""
    if hasattr(mmap, "MAP_PRIVATE"):  # shared memory, the default, could not be given back in part
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, nbytes)


# ---------------------------------------------------------------------------------------------
# In a folder

# A segment is a file that one process appends to: entries, each a head, a description of the
# array ("|u1 224 224 3"), and its bytes. Who reads checks all of it, so that the entry which a
# killed process leaves half-written, or a disk damages, is never served.
_HEAD = struct.Struct("<4s16sIQI")  # magic, key, bytes of description and of array, their checksum
_SUM = struct.Struct("<I")  # checksum of the head itself
_HEAD_SIZE = _HEAD.size + _SUM.size
_MAGIC = b"kle1"
_SUFFIX = ".segment"
# Raise it when the same options begin to give other pixels.
_FORMAT = 1
# A place is the number of a segment and, in so many bits (16 TiB), the offset of the entry in it.
_OFFSET_BITS = 44
# Other processes' entries are looked for when something is missing, at most so often.
_REFRESH_SECONDS = 5.0
# The disk is asked what is free after so many bytes written.
_DISK_STEP = 2**26


class FolderCache(_Shared):
    """Arrays in a folder, where they outlive the process; several processes may share it.

    folder: made if missing. key: what besides the file decides the array, hashed. names: a
    sample's file, by number. budget: most bytes in the folder; None: until the disk has less than
    1 GiB left.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(
        self, folder: str, key: str, samples: int, names: Any, budget: int | None = None
    ) -> None:
        super().__init__()
        self.folder = os.path.join(os.path.abspath(folder), key)
        self.samples = samples
        self.budget = budget
        self.paused = 0
        self._names = names
        try:
            os.makedirs(self.folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f"cache={folder!r} is or lies in a file, expected a folder: choose another name."
            ) from None
        self._set_up()

    def _set_up(self) -> None:
        self._forked()
        forks.watch(self)
        self._pid = os.getpid()
        self._files: list[int] = []  # descriptors, by number of segment
        self._close = weakref.finalize(self, _close_all, self._files)
        self._close.atexit = False
        self._seen: dict[str, tuple[int, int]] = {}  # segment -> its number, bytes looked at
        self._hashes = np.zeros(0, np.uint64)  # sorted: the first 8 bytes of keys
        self._places = np.zeros(0, np.int64)  # of their entries
        # Of each sample, once looked up. Zeros take no memory before they are written to.
        self._where = np.zeros(self.samples, np.int64)  # 1 + the place
        self._keys = np.zeros((self.samples, 16), np.uint8)
        self._looked_at = np.zeros(self.samples)
        self._sound = np.zeros(self.samples, bool)  # the checksum was compared
        self._own: int | None = None  # number of the segment that this process writes
        self._end = 0
        self._used = self._added = 0
        self._full = False
        self._refreshed = -_REFRESH_SECONDS
        self._until_asked = 0

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "samples", "budget", "paused", "_names")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state)
        self._set_up()

    def __str__(self) -> str:
        held = len(self._places) + self._added
        return f"{held:,} arrays in {self.folder} ({format_bytes(self._used)})"

    # ------------------------------------------------------------------ reading

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        if not out.flags.c_contiguous:
            return np.arange(len(indices))
        about = _about(out.dtype, out.shape[1:])
        served = [
            self._read(index, about, out[row, ...], stamp)
            for row, index in enumerate(indices.tolist())
        ]
        return np.flatnonzero(~np.array(served, bool))

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        place = self._find(index, stamp)
        found = None if place < 0 else self._about_at(place)
        if found is None:
            return None
        about, out = found
        return out if self._read(index, about, out, stamp) else None

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
            self._where[index] = 0
        return right

    def _load(
        self, place: int, front: bytearray, body: memoryview, key: bytes, about: bytes
    ) -> int | None:
        """Read an entry, and its checksum, if it is the one expected."""
        file, offset = self._files[place >> _OFFSET_BITS], place & (1 << _OFFSET_BITS) - 1
        try:
            if _read_at(file, [memoryview(front), body], offset) != len(front) + len(body):
                return None
        except OSError:
            return None
        magic, stored, length, nbytes, checksum = _HEAD.unpack_from(front)
        expected = (_MAGIC, key, len(about), len(body))
        if (magic, stored, length, nbytes) != expected or not front.endswith(about):
            return None
        return int(checksum)

    def _find(self, index: int, stamp: Callable[[int], Stamp]) -> int:
        """The place of a sample's entry, -1 for none."""
        if self._pid != os.getpid():  # a fork: each process writes a segment of its own
            self.clear()
        now = time.monotonic()
        place = int(self._where[index]) - 1
        if place >= 0 and now - self._looked_at[index] < CHECK_SECONDS:
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
        what = f"{self._names[index]}\0{stamp[0]}\0{stamp[1]}"
        return hashlib.blake2b(os.fsencode(what), digest_size=16).digest()

    def _place_of(self, key: bytes, now: float) -> int:
        place = self._looked_up(key)
        if place < 0 and now - self._refreshed > _REFRESH_SECONDS:
            with self._lock:  # a second thread waits for what the first one finds
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
        """Look at what other processes, now or earlier, have written."""
        hashes, places = [], []
        for entry in sorted(Path(self.folder).glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                if entry.name not in self._seen:
                    self._files.append(os.open(entry, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
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
            # In this order: who looks meanwhile finds nothing, or an entry that its key refutes.
            self._places, self._hashes = both[order], merged[order]

    def _about_at(self, place: int) -> tuple[bytes, Array] | None:
        """The description of an entry, and an array like it to read into."""
        file, offset = self._files[place >> _OFFSET_BITS], place & (1 << _OFFSET_BITS) - 1
        head = bytearray(_HEAD_SIZE)
        with suppress(OSError, ValueError, TypeError):  # a damaged description is none
            if _read_at(file, [memoryview(head)], offset) == _HEAD_SIZE and _is_head(head):
                _, _, length, nbytes, _ = _HEAD.unpack_from(head)
                about = bytearray(length)
                if _read_at(file, [memoryview(about)], offset + _HEAD_SIZE) == length:
                    name, *shape = about.decode("ascii").split()
                    dtype, sides = np.dtype(name), tuple(map(int, shape))
                    if math.prod(sides) * dtype.itemsize == nbytes and not dtype.hasobject:
                        return bytes(about), np.empty(sides, dtype)
        return None

    # ------------------------------------------------------------------ writing

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        key = self._key(index, stamp)
        if key is None or self.paused or self._full or self._pid != os.getpid():
            return
        values = np.asarray(array, order="C")  # ascontiguousarray makes a list of a number
        about, body = _about(values.dtype, values.shape), values.reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(body, zlib.crc32(about))
        head = _HEAD.pack(_MAGIC, key, len(about), len(body), checksum)
        front = head + _SUM.pack(zlib.crc32(head)) + about
        with self._lock:
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
        """Whether so many bytes more may be written."""
        if self.budget is not None and self._used + size > self.budget:
            self._full = True  # as asked for: nothing to say
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
        say(f"{why}: nothing more goes into the cache in {self.folder}, training goes on.")

    def clear(self) -> None:
        self._close()
        self._set_up()


def _close_all(files: list[int]) -> None:
    for file in files:
        with suppress(OSError):
            os.close(file)
    files.clear()


def _about(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The description of an array: its dtype and shape."""
    return " ".join([dtype.str, *map(str, shape)]).encode("ascii")


def _is_head(head: bytes | bytearray) -> bool:
    return (
        len(head) == _HEAD_SIZE
        and head.startswith(_MAGIC)
        and zlib.crc32(head[: _HEAD.size]) == _SUM.unpack_from(head, _HEAD.size)[0]
    )


def _entries(file: int, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Key, offset and end of the whole entries of a segment, up to the first that is not."""
    size, at = os.fstat(file).st_size, start
    while at + _HEAD_SIZE <= size:
        head = bytearray(_HEAD_SIZE)
        if _read_at(file, [memoryview(head)], at) != _HEAD_SIZE or not _is_head(head):
            return
        _, key, length, nbytes, _ = _HEAD.unpack_from(head)
        end = at + _HEAD_SIZE + length + nbytes
        if end > size:
            return
        yield key, at, end
        at = end


def _read_at(file: int, parts: list[memoryview], offset: int) -> int:
    """Fill `parts` from a place in a file; the bytes that were there."""
    got = os.preadv(file, parts, offset)
    wanted = sum(map(len, parts))
    while 0 < got < wanted:  # a signal, or more than 2 GiB
        more = os.preadv(file, _rest(parts, got), offset + got)
        if not more:
            break
        got += more
    return got


def _write_at(file: int, parts: list[memoryview], offset: int) -> int:
    """Write `parts` to a place in a file; the bytes that it took."""
    done, wanted = 0, sum(map(len, parts))
    while done < wanted:
        more = os.pwritev(file, _rest(parts, done), offset + done)
        if not more:
            break
        done += more
    return done


def _rest(parts: list[memoryview], done: int) -> list[memoryview]:
    """What is left of `parts` after so many bytes."""
    left = []
    for part in parts:
        left.append(part[done:])
        done = max(0, done - len(part))
    return [part for part in left if len(part)]


# ---------------------------------------------------------------------------------------------
# In front of what reads


class CachedColumn:
    """A column of files, of which a store keeps the arrays."""

    def __init__(self, column: PathColumn, store: Store) -> None:
        self.column = column
        self.store = store

    def __len__(self) -> int:
        return len(self.column)

    def _stamp(self, index: int) -> Stamp:
        return stamp_of(self.column.paths[index])

    def read(self, index: int) -> Array:
        kept = self.store.get(index, self._stamp)
        if kept is None:
            stamp = self._stamp(index)
            kept = self.column.read(index)
            self.store.put(index, stamp, kept)
        return kept

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        def read(wanted: Indices, rows: list[Array], report: Report) -> None:
            self.column.fill(wanted, rows[0], leaf, report)

        _fill([self.store], self._stamp, indices, [out], report, read)

    def name(self, index: int) -> str:
        return self.column.name(index)


# What reads samples into rows of arrays: its arguments are those of a loader's `_fill_stored`.
Read = Callable[[Indices, list[Array], Report], None]


def _fill(
    stores: list[Store],
    stamp: Callable[[int], Stamp],
    indices: Indices,
    out: list[Array],
    report: Report,
    read: Read,
) -> None:
    """Row r of the arrays `out` becomes sample indices[r]: as it is kept, or by `read`, and kept."""
    served = [store.serve(indices, leaf, stamp) for store, leaf in zip(stores, out, strict=True)]
    missing = functools.reduce(np.union1d, served)
    if not len(missing):
        return
    some = len(missing) < len(indices)
    wanted = indices[missing]
    rows = [np.empty((len(missing), *a.shape[1:]), a.dtype) for a in out] if some else out
    stamps = [stamp(index) for index in wanted.tolist()]
    failed = set()

    def noted(row: int, error: Exception) -> None:
        failed.add(row)
        row = int(missing[row])
        if isinstance(error, Odd):
            error.row = row
        report(row, error)

    read(wanted, rows, noted)
    for store, lacked, leaf, made in zip(stores, served, out, rows, strict=True):
        if some:
            leaf[missing] = made
        for row in np.flatnonzero(np.isin(missing, lacked)).tolist():
            if row not in failed:
                store.put(int(wanted[row]), stamps[row], made[row])


class HookCache:
    """Whole samples that a hook makes: a store for each of their arrays.

    make: `make(k, beside)`, the store of array k, where those behind it have so many bytes. paths:
    the samples' files, None where they have none.
    """

    def __init__(self, make: Callable[[int, int], Store], paths: Any) -> None:
        self.make = make
        self.paths = paths
        self.stores: list[Store] = []
        self._form: Structure = None
        self._forked()
        forks.watch(self)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"make": self.make, "paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        HookCache.__init__(self, **state)

    def _stamp(self, index: int) -> Stamp:
        return (0, 0) if self.paths is None else stamp_of(self.paths[index])

    def remember(self, index: int, load: Callable[[], Structure]) -> Structure:
        """The sample of this number: as it was kept, or loaded and kept."""
        arrays = [store.get(index, self._stamp) for store in self.stores]
        if arrays and all(array is not None for array in arrays):
            return pack(self._form, arrays)
        stamp = self._stamp(index)
        sample = load()
        self._begin(sample, [array.nbytes for array in flatten(sample)])
        if same_structure(sample, self._form):
            kept = arrays or [None] * len(self.stores)
            for store, array, old in zip(self.stores, flatten(sample), kept, strict=True):
                if old is None:
                    store.put(index, stamp, array)
        return sample

    def fill(
        self, form: Structure, indices: Indices, out: list[Array], report: Report, read: Read
    ) -> None:
        """Row r of `out`, the arrays of samples of this form, becomes sample indices[r].

        What is not kept comes from `read`, and is kept.
        """
        self._begin(form, [array[:1].nbytes for array in out])
        _fill(self.stores, self._stamp, indices, out, report, read)

    def _begin(self, form: Structure, sizes: list[int]) -> None:
        """Make the stores, for samples whose arrays have so many bytes."""
        with self._lock:
            if not self.stores:
                self._form = map_structure(lambda _: None, form)
                self.stores = [self.make(k, sum(sizes[k + 1 :])) for k in range(len(sizes))]


# Where a cache lies: a budget of RAM, or a folder and how many bytes it may hold.
Place = Budget | tuple[str, "int | None"]


def store_at(place: Place, key: str, samples: int, names: Any, beside: int = 0) -> Store:
    """A store of so many arrays; `FolderCache` says what key and names are, `RamCache` beside."""
    if isinstance(place, Budget):
        return RamCache(samples, place, beside)
    folder, budget = place
    return FolderCache(folder, key, samples, names, budget)


def leaf_store(place: Place, key: str, samples: int, names: Any, leaf: int, beside: int) -> Store:
    """The store of array `leaf`, for `HookCache`."""
    return store_at(place, f"{key}-{leaf}", samples, names, beside)


def stamp_of(path: str) -> Stamp:
    """Size and modification time of a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def key_of(*parts: Any) -> str:
    """A name for what decides an array besides its file: options, and the code of functions.

    Of a function its own code counts, and not that of what it calls.
    """
    described = json.dumps([_FORMAT, *map(_described, parts)], sort_keys=True)
    return hashlib.blake2b(described.encode(), digest_size=8).hexdigest()


def _described(part: Any) -> Any:
    function = getattr(part, "__func__", part)
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        return [function.__module__, function.__qualname__, *_code(code)]
    if callable(part):
        return [type(part).__module__, type(part).__qualname__, getattr(part, "__qualname__", "")]
    return repr(part)


def _code(code: CodeType) -> list[Any]:
    consts = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), consts, list(code.co_names)]


def stores_in(columns: Structure) -> list[Store]:
    """The stores in front of columns, and of what columns are made of."""
    found = []
    for column in flatten(columns):
        inner = column
        while inner is not None:
            if isinstance(inner, CachedColumn):
                found.append(inner.store)
            inner = getattr(inner, "column", None)
    return found


@contextmanager
def paused(stores: list[Store]) -> Iterator[None]:
    """Keep nothing new meanwhile."""
    with _pausing:
        for store in stores:
            store.paused += 1
    try:
        yield
    finally:
        with _pausing:
            for store in stores:
                store.paused -= 1


_pausing = threading.Lock()
