"""Detects truncated memory-mapped files by their size.

Accessing a page of a memory map beyond the file's new end raises SIGBUS, which ends the process
without a message. Therefore the size is checked before rows are copied.
"""

from __future__ import annotations

import mmap

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError

__all__ = ["FileRows", "check_whole", "place_in_file"]


def place_in_file(array: Array) -> tuple[str, int] | None:
    """The file and offset of a C-contiguous memory map whose file has its values; None for others."""
    if type(array) is not np.memmap or array.filename is None or array.base is None:
        return None
    if not array.flags.c_contiguous:
        return None
    # A view keeps its parent's offset; its real position in the file follows from its address.
    mapped = np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]  # noqa: SLF001  no public name
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    return str(array.filename), begin + array.ctypes.data - mapped


def check_whole(mapped: mmap.mmap, path: str, end: int) -> None:
    """Raise DecodeError if a mapped file no longer reaches to byte `end`.

    Takes 0.3 microseconds. If the file is truncated between this check and the copy, the process
    still ends.
    """
    size = mapped.size()  # of the mapped file, even if another file has its name by now
    if size < end:
        raise DecodeError(
            f"{path} was cut short since it was mapped: it has {size:,} bytes, but the array ends at "
            f"{end:,}. Write it under another name and rename it, and make a new loader."
        )


class FileRows:
    """The position of a mapped array's rows in its file, to check its size before they are copied.

    Thread-safe.
    """

    def __init__(self, array: Array, path: str, offset: int) -> None:
        self.path, self.offset = path, offset
        self.row_bytes = array.nbytes // len(array)
        self.end = offset + array.nbytes
        self._mapped: mmap.mmap = array._mmap  # type: ignore[attr-defined]  # noqa: SLF001  as above

    @classmethod
    def of(cls, array: Array) -> FileRows | None:
        """The FileRows of a memory map with rows; None for other arrays."""
        place = place_in_file(array)
        return None if place is None or not array.size else cls(array, *place)

    def check(self, row: int | None = None) -> None:
        """Raise DecodeError if the file is shorter than the array, or ends before the end of a row."""
        end = self.end if row is None else self.offset + (row + 1) * self.row_bytes
        check_whole(self._mapped, self.path, end)
