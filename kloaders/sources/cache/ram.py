"""A cache of decoded samples in free RAM, and the memory budget that loaders share for it."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import available_bytes, format_bytes, mapped
from kloaders.core.messages import warn
from kloaders.keras_api.base import WORKER
from kloaders.sources.cache import store as stores
from kloaders.sources.cache.store import SharedStore, Stamp, check_kept

__all__ = ["Budget", "RamCache", "spare_ram"]


_NONE: Indices = np.zeros(0, np.int64)
# Check this often whether memory has become short.
_MEMORY_SECONDS = 1.0
# The maximum share of the free memory for all caches with cache="auto" together.
_SPARE_SHARE = 0.25
# These caches release memory when less than this share of it is left.
_SHORT_SHARE = 0.1
# The maximum share of the free memory for cache="ram".
_RAM_SHARE = 0.8


class Budget:
    """A number of bytes that one or several caches share.

    total: the number of bytes; None: a share of the memory that is free when the first cache begins.
    floor: when less than this share of that memory is free, the caches release memory.
    """

    def __init__(self, total: int | None, share: float = _RAM_SHARE, floor: float = 0.0) -> None:
        self._given, self._share, self._floor_share = total, share, floor
        self.after_fork()
        forks.watch(self)
        self._used = 0
        self.total = total or 0
        self._floor = 0.0

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        if self is spare_ram:
            return _spare_ram, ()
        return Budget, (self._given, self._share, self._floor_share)

    def reserve(self, wanted: int, unit: int, beside: int = 0) -> int:
        """Reserve as many of the `wanted` bytes as are left, in whole units; return the number of bytes.

        beside: bytes per unit that other stores will reserve later; room is left for them.
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
        """Return bytes that `reserve` granted."""
        with self._lock:
            self._used -= nbytes

    def left(self, free_bytes: int) -> int:
        """The number of bytes that may still be reserved if this much RAM is free."""
        if self._used:
            return max(0, self.total - self._used)
        return int(self._share * free_bytes) if self._given is None else self._given

    def short(self) -> bool:
        """Whether caches should release memory."""
        return bool(self._floor) and available_bytes() < self._floor


#: One budget for all loaders of this process that were given none.
spare_ram = Budget(None, _SPARE_SHARE, _SHORT_SHARE)


def _spare_ram() -> Budget:
    return spare_ram


class RamCache(SharedStore):
    """A cache of arrays in RAM, which takes memory as it fills up.

    While all arrays have the shape and dtype of the first one, they are rows of one large array, and
    its size is reserved at once. After the first array that differs, room is reserved for each array
    separately.

    Nothing is evicted to make room for newer samples: each epoch uses every sample once, so any part of
    the data is as good as any other. When memory gets short, half of the cached data is released.

    beside: bytes per sample that other stores keep, and that are useless without this store's part.
    """

    def __init__(self, samples: int, budget: Budget, beside: int = 0) -> None:
        super().__init__()
        self.samples = samples
        self.budget = budget
        self.beside = beside
        self._off = bool(os.environ.get(WORKER))  # in a worker, which would keep its own copy
        self._reset()

    def after_fork(self) -> None:
        super().after_fork()
        # The samples whose rows are being written.
        self._writing: set[int] = set()

    def _reset(self) -> None:
        self._rows: Array | None = None
        self._map: mmap.mmap | None = None
        self._slots = np.zeros(0, np.int32)  # for each sample: its row + 1, or 0
        self._capacity = self._count = self._reserved = 0
        # A copy of rows is valid only if this number is the same before and after copying.
        self._generation = 0
        self._memory_looked_at = 0.0
        # Arrays outside the rows, by sample: the array, its stamp, and when that was last checked.
        self._others: dict[int, tuple[Array, Stamp, float]] = {}
        self._others_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"samples": self.samples, "budget": self.budget, "beside": self.beside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RamCache.__init__(self, **state)

    @property
    def nbytes(self) -> int:
        """The size of the cached arrays in bytes."""
        rows = self._rows
        return self._others_bytes + (0 if rows is None else self._count * rows[0].nbytes)

    def __str__(self) -> str:
        count = self._count + len(self._others)
        held = f"{count:,} of {self.samples:,} samples in RAM"
        most = f"{format_bytes(self.nbytes)}, at most {format_bytes(self.budget.total)}"
        return f"{held} ({most})" if count or self._rows is not None else "nothing in RAM yet"

    def expected_share(self, sample_bytes: int, free_bytes: int) -> float:
        """See `Store.expected_share`."""
        if self._others:
            held = self._count + len(self._others)
            return (held + self.budget.left(free_bytes) / sample_bytes) / self.samples
        if self._capacity:
            return max(0, self._capacity) / self.samples
        return self.budget.left(free_bytes) / (sample_bytes * self.samples)

    def missing(self, indices: Indices, stamp: Callable[[int], Stamp]) -> Indices:
        """See `Store.missing`."""
        slots, others = self._slots, self._others
        if self.bypassed:
            return indices
        lacking: Indices = indices[slots[indices] == 0] if len(slots) else indices
        if others:
            lacking = lacking[[index not in others for index in lacking.tolist()]]
        return lacking

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        missing = self._serve(indices, out, stamp)
        self._note(len(indices) - len(missing), len(indices))
        return missing

    def _serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        if self.bypassed:
            return np.arange(len(indices))
        self._look_at_memory()
        rows, slots, generation = self._rows, self._slots, self._generation
        if rows is None or rows.shape[1:] != out.shape[1:] or rows.dtype != out.dtype:
            return np.arange(len(indices))
        at = slots[indices] - 1
        there = at >= 0
        self._check(indices, at, there, stamp)
        whole = there.all()
        if whole and out.flags.c_contiguous:
            rows.take(at, axis=0, out=out, mode="clip")
        else:
            for row in np.flatnonzero(there).tolist():
                out[row] = rows[at[row]]
        if generation != self._generation:
            return np.arange(len(indices))
        return _NONE if whole else np.flatnonzero(~there)

    def _check(
        self, indices: Indices, at: Array, there: Array, stamp: Callable[[int], Stamp]
    ) -> None:
        """Clear `there` for rows whose file has changed."""
        now = time.monotonic()
        # For rows that are not cached, `at` is -1 and gives the last row's time; `there` masks it.
        old = there & (self._looked_at.take(at, mode="wrap") < now - stores.CHECK_SECONDS)
        for row in old.nonzero()[0].tolist():
            index, slot = int(indices[row]), int(at[row])
            if stamp(index) == self._stamps[slot].tobytes():
                self._looked_at[slot] = now
            else:
                there[row] = False

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        other = self.other(index, stamp)
        if other is not None:
            self._note(0, 1)  # `other` has counted a hit
            return other
        rows = self._rows
        if rows is None:
            self._note(0, 1)
            return None
        out = np.empty((1, *rows.shape[1:]), rows.dtype)
        missing = self.serve(np.array([index]), out, stamp)
        return None if len(missing) else out[0, ...]

    def other(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """See `Store.other`."""
        kept = None if self.bypassed else self._others.get(index)
        if kept is None:
            return None
        self._look_at_memory()
        array, was, looked_at = kept
        now = time.monotonic()
        if now - looked_at > stores.CHECK_SECONDS:
            if stamp(index) != was:
                return None
            with self._lock:
                if index in self._others:
                    self._others[index] = array, was, now
        self._note(1, 0)
        return array.copy()

    def _put_other(self, index: int, stamp: Stamp, array: Array) -> None:
        """Keep an array outside the rows. The caller holds the lock."""
        self._end_rows()
        before = self._others.pop(index, None)
        if before is not None:
            self._give_back(before[0])
        slots = self._slots
        if len(slots) and slots[index]:  # an outdated row of this sample
            slots[index] = 0
            self._generation += 1
        each = max(1, array.nbytes)
        if self.budget.reserve(each, each, self.beside) == each:
            self._others_bytes += each
            self._others[index] = np.array(array), stamp, time.monotonic()

    def _end_rows(self) -> None:
        """Release the reserved room for further rows."""
        rows = self._rows
        if rows is not None and self._capacity > self._count:
            unused = (self._capacity - self._count) * rows[0].nbytes
            self._capacity = self._count
            self._reserved -= unused
            self.budget.release(unused)

    def _give_back(self, array: Array) -> None:
        each = max(1, array.nbytes)
        self._others_bytes -= each
        self.budget.release(each)

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        if self._off or self.paused or self.bypassed or stamp is None:
            return
        check_kept(array.dtype)
        with self._lock:
            if self._rows is None and not self._begin(array):
                if self._others:
                    self._put_other(index, stamp, array)
                return
            rows, generation = self._rows, self._generation
            if rows is None:
                return
            if self._others or rows.shape[1:] != array.shape or rows.dtype != array.dtype:
                self._put_other(index, stamp, array)
                return
            if index in self._writing:  # batches of two epochs read the sample at the same time
                return
            slot = int(self._slots[index]) - 1
            if slot >= 0 and self._stamps[slot].tobytes() == stamp:
                self._looked_at[slot] = time.monotonic()
                return
            if slot >= 0:  # outdated: no thread may copy from this row while it is written
                self._slots[index] = 0
                self._generation = generation = generation + 1
            elif self._count < self._capacity:
                slot = self._count
                self._count += 1
            else:
                return
            self._writing.add(index)
        try:
            rows[slot] = array
            with self._lock:
                if generation == self._generation or (slot < self._capacity and rows is self._rows):
                    self._stamps[slot] = np.frombuffer(stamp, np.uint8)
                    self._looked_at[slot] = time.monotonic()
                    self._slots[index] = slot + 1
        finally:
            self._writing.discard(index)

    def _begin(self, array: Array) -> bool:
        """Reserve room for rows like this array; return whether there is any."""
        each = array.nbytes
        # The size of an empty array, such as an image's boxes, says nothing about other samples.
        if self._capacity < 0 or not each:
            return False
        self._reserved = self.budget.reserve(each * self.samples, each, self.beside)
        self._capacity = self._reserved // each
        if not self._capacity:
            self._capacity = -1  # do not try again
            return False
        try:
            self._map = mapped(self._reserved)
        except (OSError, ValueError):
            self.budget.release(self._reserved)
            self._reserved, self._capacity = 0, -1
            return False
        shape = (self._capacity, *array.shape)
        memory = np.frombuffer(self._map, np.uint8, self._reserved)
        # Pages of zeros take no memory until they are written to.
        self._slots = np.zeros(self.samples, np.int32)
        self._stamps = np.zeros((self._capacity, stores.STAMP_BYTES), np.uint8)
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
        """Release half of the cached data, and stop growing."""
        with self._lock:
            rows, memory = self._rows, self._map
            for index in list(self._others)[len(self._others) // 2 :]:
                self._give_back(self._others.pop(index)[0])
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
        warn(
            f"memory is short: the cache releases half of its samples, and keeps {self}",
            once="short",
        )

    def look_again(self) -> None:
        self.clear()  # afterwards there is room for arrays of another size

    def clear(self) -> None:
        with self._lock:
            reserved = self._reserved + self._others_bytes
            self._reset()  # first: if Ctrl-C comes in between, nothing is released twice
            self.budget.release(reserved)
