"""Memory for batches: aligned, delivered without a copy, and reused once nothing refers to it."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kloaders.core.arrays import Array

__all__ = [
    "ALIGNMENT",
    "BufferPool",
    "aligned",
    "available_bytes",
    "format_bytes",
    "mapped",
    "parse_bytes",
    "references_are_counted",
]

# TensorFlow and JAX use an array that starts on this boundary without copying it.
ALIGNMENT = 64
# Below this size, malloc is as fast as looking for a free buffer, and no memory is kept.
_SMALL = 1 << 16
# Below this size, a copy is cheaper than aligning the array.
_TINY = 1 << 12
# From this size on, blocks are mapped as whole pages of their own.
_MAPPED = 1 << 20
# From this size on, mapped memory uses huge pages, as NumPy's arrays do.
_HUGE = 1 << 22

_UNITS = {"b": 1, "byte": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def references_are_counted() -> bool:
    """Whether `sys.getrefcount` shows if anything else refers to an object.

    In CPython with the GIL it does. Without the GIL, each thread has counts of its own, and other
    implementations do not count references: memory that looks free may still be in use.
    """
    if sys.implementation.name != "cpython":
        return False
    gil = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    if gil is not None and not (gil() and not sysconfig.get_config_var("Py_GIL_DISABLED")):
        return False
    held = [np.empty(0)]
    return sys.getrefcount(held[0]) == 2  # the list and getrefcount's argument


def aligned(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`nbytes` of new memory on a 64-byte boundary; the whole block is its `.base`."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def mapped(nbytes: int) -> mmap.mmap:
    """Zeroed memory on pages of its own, returned to the system when it is freed; at least one byte.

    Pages take memory when they are written to: 4 KiB each, or 2 MiB of a large block, whose rows are
    copied in a seventh less time (W7).
    """
    private = getattr(mmap, "MAP_PRIVATE", None)  # not on Windows
    # The default, shared memory, has no huge pages and cannot be released in part.
    flags = {} if private is None else {"flags": private | mmap.MAP_ANONYMOUS}
    block = mmap.mmap(-1, max(1, nbytes), **flags)
    if nbytes >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _block(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """New memory. Large blocks are returned to the system when they are freed.

    malloc would keep memory that one of our threads allocates and another thread frees.
    """
    return (
        np.empty(nbytes, np.uint8) if nbytes < _MAPPED else np.frombuffer(mapped(nbytes), np.uint8)
    )


class BufferPool:
    """Batch arrays whose memory is reused once nothing refers to it any more.

    New memory costs a page fault every 4 KiB, which for a large batch takes longer than filling it.
    `take` returns an ordinary array: the array, its views and tensors that share its memory all hold a
    reference to the block. The pool reuses a block only if nothing but the pool refers to it, which is
    when Python itself would free it. Threads may share a pool.

    If references are not counted (`references_are_counted`), each array gets new memory.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.recycles = references_are_counted()
        # Each block, and the offset of the boundary in it.
        self._blocks: list[tuple[Array, int]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A C-contiguous array to fill, aligned from 4 KiB on; its content is arbitrary."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < _TINY or dtype.hasobject:  # memory with object references cannot be reused
            return np.empty(shape, dtype)
        if nbytes < _SMALL:
            return aligned(nbytes).view(dtype).reshape(shape)
        with self._lock:
            found = self._free(nbytes)
            if found is None:
                block = _block(nbytes + ALIGNMENT)
                found = block, -block.ctypes.data % ALIGNMENT
                if self.recycles:
                    self._blocks.append(found)
                    del self._blocks[: -self.limit]
            # The new reference, made while the lock is held, marks the block as used.
            return np.ndarray(shape, dtype, *found)

    def _free(self, nbytes: int) -> tuple[Array, int] | None:
        for k in reversed(range(len(self._blocks))):
            # 2 references: the pair in the list, and getrefcount's argument.
            if (
                nbytes + ALIGNMENT <= self._blocks[k][0].nbytes <= 2 * nbytes + ALIGNMENT
                and sys.getrefcount(self._blocks[k][0]) == 2
            ):
                found = self._blocks.pop(k)
                self._blocks.append(found)
                return found
        return None

    def clear(self) -> None:
        """Forget all blocks; arrays in use keep their memory."""
        with self._lock:
            self._blocks.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return BufferPool, (self.limit,)


def available_bytes() -> int:
    """Bytes that can be allocated now without swapping, within the container's limit (cgroup)."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cached in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        try:
            bound = Path(f"{folder}/{limit}").read_text().strip()
            if bound == "max":
                continue
            left = int(bound) - int(Path(f"{folder}/{used}").read_text())
        except (OSError, ValueError):
            continue
        with contextlib.suppress(OSError, ValueError):
            # Cached file pages count as used, but the kernel gives them up.
            lines = Path(f"{folder}/memory.stat").read_text().splitlines()
            left += int(dict(line.split() for line in lines).get(cached, 0))
        free = min(free, max(0, left))
    return free


def parse_bytes(value: int | str, name: str) -> int:
    """A byte count from a number or a string such as "4GiB" or "500 MB".

    >>> parse_bytes("4GiB", "ram_budget"), parse_bytes("1.5 MB", "ram_budget")
    (4294967296, 1500000)
    """
    if isinstance(value, str):
        text = value.strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        try:
            size = int(float(number) * _UNITS[text[len(number) :].strip() or "b"])
        except (ValueError, KeyError, OverflowError):
            raise ValueError(
                f"{name}={value!r:.80} is not a size: give bytes as an integer, or a string such as "
                '"4GiB" or "500MB".'
            ) from None
    else:
        try:
            size = 0 if isinstance(value, (bool, np.bool_)) else int(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f'{name}={value!r:.80} is not a size: give bytes as an integer, or a string such as "4GiB".'
            ) from None
    if size <= 0:
        raise ValueError(f"{name}={value!r:.80} must be more than 0 bytes.")
    return size


def format_bytes(size: float, round_up: bool = False) -> str:
    """A byte count for people, in binary units.

    round_up: never return less than `size`; for memory or disk space that a user must provide.

    >>> format_bytes(1536), format_bytes(5 * 2**30)
    ('1.5 KiB', '5.0 GiB')
    """
    if size < 1024:
        return f"{math.ceil(size) if round_up else round(size)} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        tenths = math.ceil(size * 10) / 10 if round_up else round(size, 1)
        if tenths < 1024 or unit == "TiB":
            break
    return f"{tenths:.1f} {unit}"
