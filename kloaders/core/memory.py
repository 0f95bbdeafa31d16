"""Memory for batches: aligned, delivered without a copy, and reused only when nobody holds it."""

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
    "parse_bytes",
    "references_are_counted",
]

# TensorFlow and JAX use an array on this boundary without a copy.
ALIGNMENT = 64
# Below this, malloc is as fast as looking for a free buffer, and nothing is kept.
_SMALL = 1 << 16
# ... and below this a copy costs less than to find the boundary.
_TINY = 1 << 12
# From here on, blocks are whole pages of their own.
_MAPPED = 1 << 20
# ... and from here on of huge ones, as NumPy has them.
_HUGE = 1 << 22

_UNITS = {"b": 1, "byte": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def references_are_counted() -> bool:
    """Whether `sys.getrefcount` says if anybody else holds an object.

    In CPython with the GIL it does. Without the GIL, threads count in places of their own, and other
    implementations count nothing: what would be given out again may be in use.
    """
    if sys.implementation.name != "cpython":
        return False
    gil = getattr(sys, "_is_gil_enabled", None)  # from Python 3.13 on
    if gil is not None and not (gil() and not sysconfig.get_config_var("Py_GIL_DISABLED")):
        return False
    held = [np.empty(0)]
    return sys.getrefcount(held[0]) == 2  # the list's and getrefcount's own


def aligned(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`nbytes` fresh bytes on a 64-byte boundary; the whole block is its `.base`."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def _block(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Fresh memory; large blocks go back to the system when they are freed.

    malloc would keep what a thread of ours allocates and another thread frees.
    """
    if nbytes < _MAPPED:
        return np.empty(nbytes, np.uint8)
    private = getattr(mmap, "MAP_PRIVATE", None)  # not on Windows
    flags = {} if private is None else {"flags": private | mmap.MAP_ANONYMOUS}
    block = mmap.mmap(-1, nbytes, **flags)
    if nbytes >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without
            block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, np.uint8)


class BufferPool:
    """Batch arrays whose memory comes back when the last reference to it is gone.

    Fresh memory costs a page fault every 4 KiB, which for a large batch takes longer than
    filling it. An array that `take` gives is an ordinary one: whoever holds it, or a view of
    it, or a tensor that shares its memory, holds a reference to the block below. Only a block
    that nobody but the pool refers to is given out again: the very condition under which
    Python itself would free it. Threads may share a pool.

    Where references are not counted (`references_are_counted`), each array has fresh memory.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.recycles = references_are_counted()
        # Each block, and where in it the boundary is.
        self._blocks: list[tuple[Array, int]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array to fill, C-contiguous, from 4 KiB on aligned; its content is whatever was there."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < _TINY or dtype.hasobject:  # references are no bytes to be used again
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
            # Referring to the block while the lock is held is what takes it.
            return np.ndarray(shape, dtype, *found)

    def _free(self, nbytes: int) -> tuple[Array, int] | None:
        for k in reversed(range(len(self._blocks))):
            # The pair in the list and getrefcount's own argument: 2 references, and nobody else.
            if (
                nbytes + ALIGNMENT <= self._blocks[k][0].nbytes <= 2 * nbytes + ALIGNMENT
                and sys.getrefcount(self._blocks[k][0]) == 2
            ):
                found = self._blocks.pop(k)
                self._blocks.append(found)
                return found
        return None

    def clear(self) -> None:
        """Forget all blocks; arrays in use keep theirs."""
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
            # Files read before count as used, and give way.
            lines = Path(f"{folder}/memory.stat").read_text().splitlines()
            left += int(dict(line.split() for line in lines).get(cached, 0))
        free = min(free, max(0, left))
    return free


def parse_bytes(value: int | str, name: str) -> int:
    """A byte count from a number or a text such as "4GiB" or "500 MB".

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
                f'{name}={value!r:.80} is no size: give bytes as an integer, or a text such as "4GiB" '
                'or "500MB".'
            ) from None
    else:
        try:
            size = 0 if isinstance(value, (bool, np.bool_)) else int(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f'{name}={value!r:.80} is no size: give bytes as an integer, or a text such as "4GiB".'
            ) from None
    if size <= 0:
        raise ValueError(f"{name}={value!r:.80} must be more than 0 bytes.")
    return size


def format_bytes(size: float, round_up: bool = False) -> str:
    """A byte count for people, in binary units.

    round_up: never less than `size`, for what a user has to provide.

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
