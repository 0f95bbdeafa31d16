"""Rows of several files as one array: the files are mapped side by side in the address space.

NumPy gathers rows of one array in one call, without Python's lock; rows that lie in several arrays
take a call and a copy more for each of these, or a call for each row.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from kloaders.formats.mapped_rows import check_size

__all__ = ["JoinedFiles"]

Array = np.ndarray[Any, np.dtype[Any]]

# <asm-generic/mman-common.h>: to map just there, in place of what is there.
_MAP_FIXED = 0x10
# Addresses that may be taken for nothing, beside as many as the files themselves take.
_SPARE_ADDRESSES = 2**30


class _Layout(NamedTuple):
    """Where files lie in one range of addresses.

    A file can only be mapped to begin with a page. So between the last row of a file and the first
    of the next lie as many rows of nothing as it takes until a row falls on the right byte of a
    page again: addresses, and no memory.

    places: where each file begins, and where the last one's room ends. ends: the bytes of
    each file, and counts: its rows. stop: the end of the last whole row.
    """

    header: int
    row_bytes: int
    places: list[int]
    ends: list[int]
    counts: list[int]
    stop: int

    @classmethod
    def of(cls, rows: list[int], row_bytes: int, header: int) -> _Layout | None:
        """None where it takes many times the addresses that the files take: they may be limited."""
        if not row_bytes:
            return None
        ends = [header + count * row_bytes for count in rows]
        unit = math.lcm(row_bytes, mmap.PAGESIZE)  # whole rows and whole pages
        room = [-(-end // unit) * unit for end in ends]
        if sum(room) > _SPARE_ADDRESSES + 2 * sum(ends):
            return None
        places = list(itertools.accumulate(room, initial=0))
        stop = header + (places[-1] - header) // row_bytes * row_bytes
        return cls(header, row_bytes, places, ends, rows, stop)


class JoinedFiles:
    """Files of rows of one shape and dtype, all behind a header of one length.

    Threads may share it.
    """

    def __init__(
        self,
        paths: list[str],
        layout: _Layout,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        addresses: mmap.mmap,
        calls: _Calls,
    ) -> None:
        self.paths, self._layout, self._calls = paths, layout, calls
        self._places = layout.places[:-1]
        # When nobody refers to it any more, all that is mapped in it goes with it.
        self._space = addresses
        space = np.frombuffer(addresses, np.uint8)
        self._descriptors: list[int] = []
        weakref.finalize(self, _close_all, self._descriptors).atexit = False
        for path, place, end in zip(paths, self._places, layout.ends, strict=True):
            self._descriptors.append(os.open(path, os.O_RDONLY))
            self._map(space[place : place + end], self._descriptors[-1], path)
        #: All rows, and those of nothing between them.
        self.rows: Array = space[layout.header : layout.stop].view(dtype).reshape(-1, *shape)
        #: The row of `rows` that is the first of each file.
        self.firsts = np.array(self._places) // layout.row_bytes

    @classmethod
    def of(
        cls,
        paths: list[str],
        rows: list[int],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        header: int,
    ) -> JoinedFiles | None:
        """For these files, of so many rows each; None where they can't be joined, or at a price.

        Raises:
            OSError: a file cannot be opened or mapped.
        """
        layout, calls = _Layout.of(rows, math.prod(shape) * dtype.itemsize, header), _calls()
        if layout is None or calls is None:
            return None
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            addresses = mmap.mmap(-1, layout.places[-1], flags=flags, prot=mmap.PROT_READ)
        except OSError:  # ulimit -v
            return None
        return cls(paths, layout, shape, dtype, addresses, calls)

    def _map(self, space: Array, descriptor: int, path: str) -> None:
        """Map a file, from its beginning, over this part of memory that is mapped already."""
        address = space.ctypes.data
        shared = mmap.MAP_SHARED | _MAP_FIXED
        if self._calls.mmap(address, len(space), mmap.PROT_READ, shared, descriptor, 0) != address:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)

    def check_whole(self, files: Iterable[int]) -> None:
        """Raise DecodeError where one of these files was cut short; see `mapped_rows.check_whole`."""
        seek = self._calls.lseek
        for file in files:
            size = seek(self._descriptors[file], 0, os.SEEK_END)
            if size < self._layout.ends[file]:  # asked here, since this is done for every batch
                check_size(size, self.paths[file], self._layout.ends[file])

    def part(self, file: int) -> Array:
        """The rows of one file, which is whole."""
        self.check_whole((file,))
        first = int(self.firsts[file])
        return self.rows[first : first + self._layout.counts[file]]

    def advise(self, file: int, start: int, stop: int, advice: int) -> None:
        """Tell the kernel about bytes of a file, from a page's start on; as `mmap.madvise` does."""
        self._space.madvise(advice, self._places[file] + start, stop - start)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Calls(NamedTuple):
    """The system's mmap, which can be told where to, and its lseek.

    lseek keeps Python's lock, which takes less than half a microsecond. os.fstat gives it away, and
    gets it back when another thread has had it: with two threads, 8 % fewer batches of 5 MB.
    """

    mmap: Callable[..., int | None]
    lseek: Callable[[int, int, int], int]


@functools.cache
def _calls() -> _Calls | None:
    """None on systems where this is not known to work."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    integer, offset = ctypes.c_int, ctypes.c_int64
    maps = ctypes.CDLL(None, use_errno=True).mmap
    maps.argtypes = [ctypes.c_void_p, ctypes.c_size_t, integer, integer, integer, offset]
    maps.restype = ctypes.c_void_p
    seeks = ctypes.PyDLL(None).lseek
    seeks.argtypes = [integer, offset, integer]
    seeks.restype = offset
    return _Calls(maps, seeks)
