"""Rows in RAM: within a budget, given back where memory is short, and never torn."""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.cache import ram as ram_cache
from kloaders.sources.cache.ram import Budget, RamCache
from tests.sources.cache.pictures import SAMPLES

STAMP = bytes(16)


def test_one_budget_for_all_loaders(pictures, monkeypatch, keep):
    """A quarter of what is free, together; it comes back with the loaders."""
    gc.collect()
    monkeypatch.setattr(ram_cache, "available_bytes", lambda: 4 * 48 * 15)
    budget = Budget(None, 0.25)
    monkeypatch.setattr(ram_cache, "spare_ram", budget)
    stores = [RamCache(SAMPLES, budget) for _ in range(2)]
    for store in stores:
        for number in range(SAMPLES):
            store.put(number, STAMP, np.full((4, 4, 3), number, np.uint8))
    assert [store.nbytes for store in stores] == [12 * 48, 3 * 48]
    stores[0].clear()
    assert budget.reserve(10**6, 1) == 12 * 48


def test_memory_is_given_back_where_it_is_short(monkeypatch):
    """Half of the rows go; what is left is right, what went is missing."""
    free = [10**9]
    monkeypatch.setattr(ram_cache, "available_bytes", lambda: free[0])
    monkeypatch.setattr(ram_cache, "_MEMORY_SECONDS", -1.0)
    store = RamCache(SAMPLES, Budget(None, 0.25, 0.1))
    for number in range(SAMPLES):
        store.put(number, STAMP, np.full(10_000, number, np.uint8))
    out = np.empty((SAMPLES, 10_000), np.uint8)
    everything = np.arange(SAMPLES)
    assert not len(store.serve(everything, out, lambda _: STAMP))
    free[0] = 10**7
    missing = store.serve(everything, out, lambda _: STAMP)
    assert missing.tolist() == list(range(6, SAMPLES))
    assert (out[:6] == np.arange(6)[:, None]).all()
    assert store.nbytes == 6 * 10_000
    store.put(9, STAMP, np.full(10_000, 9, np.uint8))  # it does not grow again
    assert store.nbytes == 6 * 10_000


def test_never_a_torn_row(monkeypatch):
    """Rows that change or go while others are copied are never served mixed."""
    store = RamCache(64, Budget(10**8))
    stop, wrong = threading.Event(), []
    stamps = [STAMP] * 64

    def serve():
        out = np.empty((64, 4096), np.uint16)
        everything = np.arange(64)
        while not stop.is_set():
            missing = set(store.serve(everything, out, lambda k: stamps[k]).tolist())
            for row in range(64):
                assert row in missing or len(np.unique(out[row])) == 1, wrong.append(row)

    def change(seed):
        generator = random.Random(seed)
        for _ in range(1500):
            k = generator.randrange(64)
            value = generator.randrange(2**16)
            stamp = generator.randbytes(16)  # the file has changed
            store.put(k, stamp, np.full(4096, value, np.uint16))
            if generator.random() < 0.002:
                store.shrink()
            if generator.random() < 0.002:
                store.clear()

    threads = [threading.Thread(target=serve) for _ in range(2)]
    changers = [threading.Thread(target=change, args=(seed,)) for seed in range(2)]
    for thread in [*threads, *changers]:
        thread.start()
    for thread in changers:
        thread.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_sample_that_two_epochs_read_at_once_disturbs_nobody(monkeypatch):
    """What is kept already is not written again: whoever reads other rows meanwhile would read them anew."""
    monkeypatch.setattr(ram_cache.stores, "CHECK_SECONDS", -1.0)
    store = RamCache(3, Budget(10**6))
    rows = [np.full(4, k) for k in range(3)]
    for k in range(3):
        store.put(k, STAMP, rows[k])

    def stamp(index):
        store.put(2, STAMP, rows[2])  # another batch ends, in the middle of this one
        return STAMP

    out = np.empty((2, 4), rows[0].dtype)
    assert store.serve(np.arange(2), out, stamp).tolist() == []
    np.testing.assert_array_equal(out, rows[:2])


def test_a_sample_that_two_threads_put_takes_one_row():
    """Otherwise another one finds no room, and is read in each epoch."""
    store = RamCache(3, Budget(10**6))
    rows = [np.full(4, k) for k in range(3)]
    store.put(0, STAMP, rows[0])

    class Slow(np.ndarray):
        """Rows of a store; while one is written, the second thread puts the same sample."""

        def __setitem__(self, slot, array):
            if array is rows[1]:
                store.put(1, STAMP, rows[1].copy())
            super().__setitem__(slot, array)

    store._rows = store._rows.view(Slow)
    for k in (1, 2):
        store.put(k, STAMP, rows[k])
    assert store.missing(np.arange(3), lambda k: STAMP).tolist() == []
    assert [store.get(k, lambda k: STAMP)[0] for k in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("where", ["ram", "folder"])
@pytest.mark.parametrize("empty", [0, 5], ids=["first", "later"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_empty_arrays(tmp_path, keep, where, empty, dtype):
    """A sample without boxes, be it the first: each epoch has all samples, none of them is wrong."""
    reads = []

    class Boxes(kl.PathSequenceLoader):
        def load_sample(self, path):
            number = int(Path(path).stem)
            reads.append(number)
            return np.full((0 if number == empty else 2, 4), number, dtype), np.int32(number)

    paths = [tmp_path / f"{number}.bin" for number in range(SAMPLES)]
    for path in paths:
        path.write_bytes(b"\0")
    cache = "ram" if where == "ram" else str(tmp_path / "cache")
    loader = keep(Boxes(paths, batch_size=1, cache=cache, shuffle=False, workers=0))
    for _ in range(3):
        batches = list(loader)
        assert [int(y[0]) for _, y in batches] == list(range(SAMPLES))
        for number, (x, _) in enumerate(batches):
            assert x.shape == (1, 0 if number == empty else 2, 4)
            assert (x == number).all()
    assert 3 * SAMPLES - len(reads) >= SAMPLES  # of the others most were kept
