"""What the garbage collector finds may wait for a thread that waits for a loader."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.gc_guard import held_off


class Left:
    """Cyclic garbage whose destructor waits for its thread, as TensorFlow's iterators do."""

    def __init__(self, thread):
        self.thread, self.itself = thread, self

    def __del__(self):
        if threading.current_thread() is not self.thread:
            self.thread.join(20)
            Left.waited = self.thread.is_alive()
        else:  # found by the very thread
            Left.waited = False


def litter(runner, asking):
    """Have such garbage left while the next RAM batch begins, and then enough allocated to collect."""
    begin = runner._begin

    def littering(slot):
        runner._begin = begin
        asking.start()
        Left(asking)
        [[] for _ in range(5000)]
        return begin(slot)

    runner._begin = littering


@pytest.mark.parametrize("workers", [0, 2])
def test_garbage_that_waits_for_a_loader_does_not_stop_it(tmp_path, workers):
    """Found where a fit was stopped and begun anew: two threads waited for each other for ever."""
    paths = []
    for number in range(32):
        path = tmp_path / f"{number:02}.npy"
        np.save(path, np.float32([number]))
        paths.append(str(path))
    before = gc.get_threshold()
    options = {"ram_batch_size": 16, "seed": 1, "workers": workers}
    with kl.RamBatchSequenceLoader(paths, None, 4, **options) as loader:
        loader.on_epoch_begin()
        loader[0]
        late = []
        loader.close()
        asking = threading.Thread(target=lambda: late.append(loader[0]), daemon=True)
        litter(loader.runner, asking)
        Left.waited = None
        gc.set_threshold(50, 2, 2)
        try:
            for k in range(1, len(loader)):
                loader[k]
        finally:
            gc.set_threshold(*before)
        gc.collect()
    assert Left.waited is False
    assert len(late) == 1


def test_collecting_goes_on_afterwards():
    """Nested and in several threads; who had turned it off finds it so."""
    assert gc.isenabled()
    with held_off, held_off:
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with held_off:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
