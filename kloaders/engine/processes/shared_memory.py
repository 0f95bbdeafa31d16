"""Memory that this process and its workers share: a block per batch, each a file without a name."""

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
    "processes=True, and samples have texts, which processes cannot share: leave processes out, or "
    "let transform= make numbers of the texts."
)
# Arrays below this are copied when a batch is whole: labels that a user collects hold no block.
_SMALL = 1 << 16


class SharedBlocks:
    """Memory for batches that workers fill; like `memory.BufferPool`, a block per batch.

    A block is given out again when nobody holds an array of it; where that is not known
    (`memory.references_are_counted`), it is dropped with its last array. Each is a file without a
    name, so that nothing is left whatever happens to the processes.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.recycles = references_are_counted()
        self._blocks: dict[int, Block] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def take(self, needs: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[Array]:
        """Arrays of these shapes and types in one block, each on a 64-byte boundary.

        Raises:
            TypeError: texts, which are objects of one process.
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
            # The block itself and getrefcount's own argument: 2 references, and nobody else.
            free = [b for b in self._blocks.values() if sys.getrefcount(b.kept) == 2]
            for block in free:
                if nbytes <= block.nbytes <= 2 * nbytes + mmap.PAGESIZE and not block.spare:
                    assert block.kept is not None
                    return block.kept
            for block in free:  # of another size
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
        """Where these arrays lie; None if not in one of these blocks."""
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
        """Of all blocks that there are."""
        # A copy, since a block that is not kept goes whenever its last array does.
        return {block.number for block in list(self._blocks.values())}

    def keep(self, leaves: list[Array]) -> list[Array]:
        """The arrays as they are handed over: small ones are copied, so that they hold no block.

        So are all of a block beyond the limit: a user who keeps every batch of an epoch keeps
        ordinary memory, and not a file descriptor for each.
        """
        return [self._kept(leaf) for leaf in leaves]

    def _kept(self, leaf: Array) -> Array:
        block = self._blocks.get(id(leaf.base))
        if block is None or not (block.spare or leaf.nbytes < _SMALL):
            return leaf
        copy = aligned(leaf.nbytes).view(leaf.dtype).reshape(leaf.shape)
        copy[...] = leaf
        return copy


#: Number of a block, and (offset, (shape, dtype)) of the arrays in it.
Layout = tuple[int, list[tuple[int, tuple[tuple[int, ...], np.dtype[Any]]]]]


class Place(NamedTuple):
    """Where arrays lie: a block, and the layout by which another process finds them."""

    block: Block
    layout: Layout


def arrays_at(layout: Layout, blocks: dict[int, Array]) -> list[Array]:
    """The arrays of a layout, in blocks that were mapped by their numbers; nothing is copied."""
    number, arrays = layout
    return [
        np.ndarray(shape, dtype, buffer=blocks[number], offset=offset)
        for offset, (shape, dtype) in arrays
    ]


class Block:
    """Memory that other processes can map by its file descriptor.

    Attributes:
        number: what processes call it.
        nbytes: its size.
        spare: it is one beyond the limit, and never given out again.
        fd: the file descriptor.
        kept: the array over all of it, where that is kept to be given out again.
    """

    def __init__(self, number: int, nbytes: int, spare: bool) -> None:
        self.number, self.spare = number, spare
        self.nbytes = max(1, nbytes)
        self.kept: Array | None = None
        with held():
            self.fd = anonymous_file(self.nbytes)
            weakref.finalize(self, os.close, self.fd).atexit = False

    def map(self) -> Array:
        """An array over all of it."""
        return np.frombuffer(mmap.mmap(self.fd, self.nbytes), np.uint8)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def anonymous_file(nbytes: int) -> int:
    """A file in memory that has no name, and is gone with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("kloaders")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, nbytes)
        # All of it now: memory that is lacking is an error here, and SIGBUS where it is written to.
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
