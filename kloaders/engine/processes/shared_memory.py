"""Memory shared by this process and its workers: one block per batch, each an unnamed file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import sys
import tempfile
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.interrupts import held
from kloaders.core.memory import ALIGNMENT, aligned, format_bytes, references_are_counted

__all__ = ["Block", "Layout", "SharedBlocks", "anonymous_file", "arrays_at"]

NO_TEXTS = (
    "processes=True, but samples contain texts, which processes cannot share: leave processes out, or "
    "let transform= turn the texts into numbers."
)
# Smaller arrays are copied when a batch is complete, so that labels that a user keeps hold no block.
_SMALL = 1 << 16


class SharedBlocks:
    """Memory for batches that workers fill; like `memory.BufferPool`, with one block per batch.

    A block is reused once nothing refers to an array of it. If this cannot be determined
    (`memory.references_are_counted`), it is dropped with its last array. Each block is an unnamed
    file, so that nothing is left behind however the processes end.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.recycles = references_are_counted()
        self._blocks: dict[int, Block] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def take(self, needs: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[Array]:
        """Arrays of these shapes and dtypes in one block, each on a 64-byte boundary.

        Raises:
            TypeError: a dtype is object, such as for texts, which exist in one process only.
        """
        if any(dtype.hasobject for _, dtype in needs):
            raise TypeError(NO_TEXTS)
        sizes = [int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in needs]
        starts = [0, *itertools.accumulate(size + -size % ALIGNMENT for size in sizes)]
        with self._lock:
            array = self._free(starts[-1])
            return [
                array[start : start + size].view(dtype).reshape(shape)
                for start, size, (shape, dtype) in zip(starts, sizes, needs, strict=False)
            ]

    def _free(self, nbytes: int) -> Array:
        if self.recycles:
            # Only the block itself and getrefcount's argument may refer to it.
            free = [b for b in self._blocks.values() if sys.getrefcount(b.kept) == 2]
            for block in free:
                if nbytes <= block.nbytes <= 2 * nbytes + mmap.PAGESIZE and not block.spare:
                    assert block.kept is not None
                    return block.kept
            for block in free:  # blocks of another size
                if block.spare or len(self._blocks) >= self.limit:
                    del self._blocks[id(block.kept)]
        block = Block(next(self._numbers), nbytes, len(self._blocks) >= self.limit)
        array = block.map()
        self._blocks[id(array)] = block
        if self.recycles:
            block.kept = array
        else:
            weakref.finalize(array, self._blocks.pop, id(array), None).atexit = False
        return array

    def locate(self, leaves: list[Array]) -> Place | None:
        """The location of these arrays; None if they are not in one of these blocks."""
        with self._lock:
            base: Any = leaves[0].base
            block = self._blocks.get(id(base))
        if block is None or not all(
            leaf.base is base and leaf.flags.c_contiguous for leaf in leaves
        ):
            return None
        start = _address(base)
        offsets = [_address(leaf) - start for leaf in leaves]
        shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        return Place(block, (block.number, list(zip(offsets, shapes, strict=True))))

    def numbers(self) -> set[int]:
        """The numbers of all blocks."""
        # A copy, because a dropped block disappears with its last array.
        return {block.number for block in list(self._blocks.values())}

    def keep(self, leaves: list[Array]) -> list[Array]:
        """The arrays to deliver. Small ones are copied, so that they hold no block.

        Arrays of a block beyond the limit are also copied: if a user keeps every batch of an epoch, each
        holds ordinary memory instead of a file descriptor.
        """
        return [self._kept(leaf) for leaf in leaves]

    def _kept(self, leaf: Array) -> Array:
        block = self._blocks.get(id(leaf.base))
        if block is None or not (block.spare or leaf.nbytes < _SMALL):
            return leaf
        copy = aligned(leaf.nbytes).view(leaf.dtype).reshape(leaf.shape)
        copy[...] = leaf
        return copy


#: The number of a block, and (offset, (shape, dtype)) of its arrays.
Layout = tuple[int, list[tuple[int, tuple[tuple[int, ...], np.dtype[Any]]]]]


class Place(NamedTuple):
    """The location of arrays: a block, and the layout with which another process finds them."""

    block: Block
    layout: Layout


def arrays_at(layout: Layout, blocks: dict[int, Array]) -> list[Array]:
    """The arrays of a layout, as views of mapped blocks by number."""
    number, arrays = layout
    return [
        np.ndarray(shape, dtype, buffer=blocks[number], offset=offset)
        for offset, (shape, dtype) in arrays
    ]


class Block:
    """Memory that other processes can map by its file descriptor.

    Attributes:
        number: identifies it in all processes.
        nbytes: its size.
        spare: whether it is beyond the limit, and never reused.
        fd: the file descriptor.
        kept: the array over the whole block, if the block is reused.
    """

    def __init__(self, number: int, nbytes: int, spare: bool) -> None:
        self.number, self.spare = number, spare
        self.nbytes = max(1, nbytes)
        self.kept: Array | None = None
        with held():
            self.fd = anonymous_file(self.nbytes)
            weakref.finalize(self, os.close, self.fd).atexit = False

    def map(self) -> Array:
        """An array over the whole block."""
        return np.frombuffer(mmap.mmap(self.fd, self.nbytes), np.uint8)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def anonymous_file(nbytes: int) -> int:
    """An unnamed file in memory, which disappears with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("kloaders")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, nbytes)
        # Allocate now: a lack of memory is an error here, but would be SIGBUS at a later write.
        with contextlib.suppress(AttributeError):  # not on macOS
            os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return fd
        os.close(fd)
        raise OSError(
            error.errno,
            f"no shared memory for {format_bytes(nbytes)} more ({error.strerror}): processes=True "
            "passes batches through it. Use a smaller batch_size or max_queue_size, or threads",
        ) from error
    return fd
