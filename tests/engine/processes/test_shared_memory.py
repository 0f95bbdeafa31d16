"""Batches lie in shared memory, which comes back when nobody holds it, and only then."""

import errno
import mmap
import sys

import numpy as np
import pytest

from kloaders.engine.processes import shared_memory
from kloaders.engine.processes.shared_memory import SharedBlocks, arrays_at
from tests.engine.processes.hooks import (
    BATCH,
    assert_exact,
    epoch_of,
    loader_of,
    memory_files,
    wide,
)
from tests.support.marks import only_recycling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")


def test_arrays_are_the_callers(files):
    """A batch that is held, or written to, is never written again (memory is reused otherwise)."""
    with loader_of(files, transform=wide, max_queue_size=1) as loader:
        batches = [batch for epoch in range(12) for batch in epoch_of(loader, epoch, shuffle=False)]
        blocks = len(loader.runner._processes.memory.numbers())
        assert blocks <= loader.runner._processes.memory.limit + 3
        for k, (x, y) in enumerate(batches):
            assert x.ctypes.data % 64 == 0
            np.testing.assert_array_equal(x[:, 0], y)
            assert y[0] == BATCH * (k % len(loader))
            x[:] = -1
        loader.close()
        assert all((x == -1).all() for x, _ in batches)  # they outlive the loader's processes
        assert len(memory_files()) < 2 * len(batches)


@only_recycling
def test_memory_is_reused(files):
    """Blocks come back when their batch is dropped: no more of them than are in flight."""
    with loader_of(files, transform=wide, max_queue_size=2) as loader:
        for epoch in range(5):
            for _ in loader.epoch_batches(epoch):
                pass
        assert len(loader.runner._processes.memory.numbers()) <= 8
        for each in loader.runner._processes._group.all:
            assert each._known <= loader.runner._processes.memory.numbers()


def test_batches_lie_in_shared_memory(files):
    """Arrays are not pickled: what the caller gets is the block that the worker wrote to."""
    with loader_of(files, transform=wide) as loader:
        x, _ = loader[0]
        assert loader.runner._processes.memory.locate([x]) is not None


NEEDS = [((4, 3), np.dtype(np.int16)), ((4,), np.dtype(np.float64))]


def taken(blocks, value):
    """Arrays of a block, each filled with a value."""
    arrays = blocks.take(NEEDS)
    for array in arrays:
        array[...] = value
    return arrays


def test_another_process_finds_the_same_arrays():
    """By the number of the block and its layout; what it writes is there."""
    blocks = SharedBlocks()
    arrays = taken(blocks, 7)
    place = blocks.locate(arrays)
    mapped = np.frombuffer(mmap.mmap(place.block.fd, place.block.nbytes), np.uint8)
    found = arrays_at(place.layout, {place.block.number: mapped})
    for array, there in zip(arrays, found, strict=True):
        assert array.ctypes.data % 64 == 0
        np.testing.assert_array_equal(there, array)
        there[...] = 8
        assert (array == 8).all()


def test_what_lies_elsewhere_is_not_located():
    """Ordinary arrays, arrays of two blocks, and a view that is not contiguous."""
    blocks = SharedBlocks()
    one, two = blocks.take(NEEDS), blocks.take(NEEDS)
    assert blocks.locate([np.zeros(3)]) is None
    assert blocks.locate([np.zeros(6)[2:]]) is None
    assert blocks.locate([one[0], two[1]]) is None
    assert blocks.locate([one[0][:, ::2]]) is None
    assert blocks.locate([one[0][1:]]) is not None


@pytest.mark.parametrize("counted", [True, False])
def test_no_block_is_given_out_twice(monkeypatch, counted):
    """Where references are not counted, each block goes with its last array."""
    monkeypatch.setattr(shared_memory, "references_are_counted", lambda: counted)
    blocks, files = SharedBlocks(), memory_files()
    held = [taken(blocks, value) for value in range(5)]
    assert [int(array.max()) for arrays in held for array in arrays] == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4,
    ]  # fmt: skip
    numbers = blocks.numbers()
    assert len(numbers) == 5
    view = held[2][0][1:]
    held.clear()
    assert len(blocks.numbers()) == (5 if counted else 1)
    new = taken(blocks, 9)
    assert (view == 2).all()
    assert blocks.locate([view]).block.number != blocks.locate(new).block.number
    assert (blocks.locate(new).block.number in numbers) == counted
    del view, new, blocks
    assert memory_files() <= files


def test_beyond_the_limit_arrays_are_copied_out():
    """A user who keeps every batch keeps ordinary memory; small arrays are always copied."""
    blocks = SharedBlocks(limit=2)
    needs = [((1 << 16,), np.dtype(np.uint8)), ((4,), np.dtype(np.uint8))]
    held = []
    for value in range(4):
        arrays = blocks.take(needs)
        for array in arrays:
            array[...] = value
        held.append(blocks.keep(arrays))
        del arrays, array
    inside = [[blocks.locate([array]) is not None for array in arrays] for arrays in held]
    assert inside == [[True, False], [True, False], [False, False], [False, False]]
    assert [int(array.max()) for arrays in held for array in arrays] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(blocks.numbers()) <= 3


def test_a_lack_of_shared_memory_says_what_to_do(monkeypatch):
    def full(fd, start, nbytes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared_memory.os, "posix_fallocate", full, raising=False)
    files = memory_files()
    with pytest.raises(OSError, match=r"no shared memory for 1.0 MiB more .*smaller batch_size"):
        shared_memory.anonymous_file(1 << 20)
    assert memory_files() <= files


@pytest.mark.parametrize("counted", [True, False])
def test_epochs_are_exact_either_way(monkeypatch, files, counted):
    """With blocks that are given out again, and with blocks that are not."""
    monkeypatch.setattr(shared_memory, "references_are_counted", lambda: counted)
    with loader_of(files, transform=wide, max_queue_size=2) as loader:
        for epoch in range(3):
            batches = epoch_of(loader, epoch)
            assert_exact(batches)
        del batches
        assert len(loader.runner._processes.memory.numbers()) <= 8
