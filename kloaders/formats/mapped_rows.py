"""Truncated memory-mapped files: an error, if their size reveals it.

Touching a page of a map beyond the file's new end raises SIGBUS, which ends the process without a
message. So the size is checked before rows are copied.
"""

from __future__ import annotations

import mmap

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError

__all__ = ["FileRows", "check_whole", "place_in_file"]


def place_in_file(array: Array) -> tuple[str, int] | None:
    """File and offset of a C-contiguous memory map whose file holds its values; None for others."""
    if type(array) is not np.memmap or array.filename is None or array.base is None:
        return None
    if not array.flags.c_contiguous:
        return None
    # A view keeps its parent's offset: where it begins in the file shows in its address.
    mapped = np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]  # noqa: SLF001  NumPy tells it by no other name
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    return str(array.filename), begin + array.ctypes.data - mapped


def check_whole(mapped: mmap.mmap, path: str, end: int) -> None:
    """Raise DecodeError where a mapped file does not reach to byte `end` any more.

    Takes 0.3 us. Where it is truncated between this and the copy, the process ends all the same.
    """
    size = mapped.size()  # of the file that is mapped, whatever has that name by now
    if size < end:
        raise DecodeError(
            f"{path} was cut short since it was mapped: it has {size:,} bytes, and the array ends at "
            f"{end:,}. Write it under another name and rename it, and make the loader again."
        )


class FileRows:
    """Where the rows of a mapped array lie in its file, to look at its size before they are copied.

    Safe for threads.
    """

    def __init__(self, array: Array, path: str, offset: int) -> None:
        self.path, self.offset = path, offset
        self.row_bytes = array.nbytes // len(array)
        self.end = offset + array.nbytes
        self._mapped: mmap.mmap = array._mmap  # type: ignore[attr-defined]  # noqa: SLF001  as above

    @classmethod
    def of(cls, array: Array) -> FileRows | None:
        """For a memory map with rows; None for other arrays."""
        place = place_in_file(array)
        return None if place is None or not array.size else cls(array, *place)

    def check(self, row: int | None = None) -> None:
        """Raise DecodeError where the file is shorter than the array, or ends before a row does."""
        end = self.end if row is None else self.offset + (row + 1) * self.row_bytes
        check_whole(self._mapped, self.path, end)
