"""Rows of a mapped file, read by positioned reads: where the file is cut short, an error.

To touch a page of a map behind the file's new end is SIGBUS, which ends the process without a
word. A positioned read of the same row just gives fewer bytes. Rows of a few pages or more take no
longer that way; smaller ones come from the map, and the file's size is looked at first.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.formats.errors import DecodeError
from kloaders.formats.positioned_reads import Buffers, read_at, read_many

__all__ = ["FileRows", "check_size", "check_whole", "place_in_file"]

Array = np.ndarray[Any, Any]

# From so many bytes on, a read costs what a copy costs: 2.1 us for 48 KiB, 4.7 us for 150 KB. At
# 12 KiB it takes 1.0 us instead of 0.65, at 784 bytes 0.5 instead of 0.05.
_LARGE_ROW = 1 << 14


def place_in_file(array: Array) -> tuple[str, int] | None:
    """File and offset of a C-contiguous memory map whose file holds its values; None for others."""
    if type(array) is not np.memmap or array.filename is None or array.base is None:
        return None
    if not array.flags.c_contiguous:
        return None
    # A view keeps its parent's offset: where it begins in the file shows in its address.
    mapped = np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    return str(array.filename), begin + array.ctypes.data - mapped


def check_whole(mapped: mmap.mmap, path: str, end: int) -> None:
    """Raise DecodeError where a mapped file does not reach to byte `end` any more.

    Takes 0.3 us. Where it is cut short between this and the copy, the process ends all the same.
    """
    check_size(
        mapped.size(), path, end
    )  # of the file that is mapped, whatever has that name by now


def check_size(size: int, path: str, end: int) -> None:
    """Raise DecodeError where the size of a mapped file shows that it does not reach to `end`."""
    if size < end:
        raise _cut(path, size, end)


def _cut(path: str, size: int, end: int) -> DecodeError:
    return DecodeError(
        f"{path} was cut short since it was mapped: it has {size:,} bytes, and the array ends at "
        f"{end:,}. Write it under another name and rename it, and make the loader again."
    )


class FileRows:
    """The rows of an array that is mapped from a file; reads what the map shows, without it.

    Threads may share it.
    """

    def __init__(self, array: Array, path: str, offset: int, descriptor: int | None) -> None:
        self.path, self.offset = path, offset
        self.row_bytes = array.nbytes // len(array)
        self.end = offset + array.nbytes
        self._mapped: mmap.mmap = array._mmap  # type: ignore[attr-defined]
        self._descriptor = descriptor
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor).atexit = False

    @classmethod
    def of(cls, array: Array) -> FileRows | None:
        """For a memory map with rows; None for other arrays."""
        place = place_in_file(array)
        if place is None or not array.size:
            return None
        large = array.nbytes // len(array) >= _LARGE_ROW
        # Changes to a copy-on-write map are in memory only.
        readable = large and hasattr(os, "preadv") and array.mode != "c"  # type: ignore[attr-defined]
        return cls(array, *place, _opened(place[0], array) if readable else None)

    @property
    def readable(self) -> bool:
        """Whether `fill` can be used, and takes no longer than to copy rows."""
        return self._descriptor is not None

    def check(self, row: int | None = None) -> None:
        """Raise DecodeError where the file is shorter than the array, or ends before a row does."""
        end = self.end if row is None else self.offset + (row + 1) * self.row_bytes
        check_whole(self._mapped, self.path, end)

    def fill(self, rows: Array, out: Array) -> Iterator[tuple[int, Exception]]:
        """out[k] becomes row rows[k] of the array; gives each k that does not, and why.

        out: C-contiguous, and of the array's dtype.
        """
        assert self._descriptor is not None
        count = len(rows)
        if not count:
            return
        places = self.offset + rows * self.row_bytes
        buffers, sizes = Buffers(count), np.full(count, self.row_bytes)
        buffers.add(np.arange(count), [(out, None)])
        descriptors = [self._descriptor] * count
        whole = read_many(descriptors, places, sizes, np.arange(count + 1), buffers)
        for k in np.flatnonzero(~whole).tolist():
            try:
                self._read(int(places[k]), out[k])
            except (DecodeError, OSError) as error:
                yield k, error

    def _read(self, place: int, out: Array) -> None:
        assert self._descriptor is not None
        if read_at(self._descriptor, [out], place, self.row_bytes) < self.row_bytes:
            raise _cut(self.path, os.fstat(self._descriptor).st_size, self.end)


def _opened(path: str, array: Array) -> int | None:
    """A descriptor of the file that is mapped; None where the name means another one by now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    if _is_mapped_at(array.ctypes.data, os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _is_mapped_at(address: int, status: os.stat_result) -> bool:
    """Whether this file is what lies in memory there."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                span, _, _, mapped, inode, *_ = line.split(maxsplit=5)
                begin, end = (int(part, 16) for part in span.split("-"))
                if begin <= address < end:
                    return (mapped, int(inode)) == (device, status.st_ino)
    except OSError:  # not Linux
        pass
    return False
