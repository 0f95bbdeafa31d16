"""Loaders whose samples carry their numbers, and ways to sample from them."""

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import numbers_of, row_of


def _by_value():
    """A function that is sent to a worker process as it is: this file need not be imported there."""

    def noisy(x, y, rng):
        return x + np.array([0, rng.random()], np.float32), y

    return noisy


def served_by(loader, epochs):
    """Batches of a custom loop, with the hooks called as Keras calls them."""
    found = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        found += [numbers_of(loader[k][0]) for k in range(len(loader))]
        loader.on_epoch_end()
    return found


def rows(n, first=0):
    return np.stack([row_of(k) for k in range(first, first + n)])


def numbered(n, batch=4, first=0, **options):
    """A loader whose samples carry their numbers, and whose labels are these."""
    y = np.arange(first, first + n, dtype=np.float32)
    return kl.ArraySequenceLoader(rows(n, first), y, batch, **{"seed": 7, **options})


def epochs_of(loader, epochs):
    """Sample numbers of the batches of some epochs, x with its own y."""
    found = []
    for epoch in range(epochs):
        for x, y, *_ in loader.epoch_batches(epoch):
            assert numbers_of(x) == y.astype(int).tolist()
            found.append(numbers_of(x))
    return found


def flat(batches):
    return [number for batch in batches for number in batch]


LABELS = np.arange(23, dtype=np.float32)


CLASSES = np.array([0] * 15 + [1] * 6 + [2] * 2)


OPTIONS = {
    "length": {"epoch_batches": 3},
    "long": {"epoch_batches": 9},
    "balanced": {"class_balance": CLASSES},
    "weights": {"sampling_weights": np.arange(23.0), "epoch_batches": 4},
    "drawn": {"sampling_weights": np.arange(23.0), "replacement": True},
}


options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


class Numbered(kl.SequenceLoader):
    def load_sample(self, index):
        return row_of(index), np.float32(index)


class Whole(kl.SequenceLoader):
    def load_batch(self, indices):
        return np.stack([row_of(k) for k in indices]), indices.astype(np.float32)


LOADERS = {
    "array": lambda npy, **o: kl.ArraySequenceLoader(rows(23), LABELS, 4, **o),
    "paths": lambda npy, **o: kl.PathSequenceLoader(npy, LABELS, 4, **o),
    "ram": lambda npy, **o: kl.RamBatchSequenceLoader(npy, LABELS, 4, ram_batch_size=8, **o),
    "resident": lambda npy, **o: kl.RamBatchSequenceLoader(npy, LABELS, 4, **o),
    "index": lambda npy, **o: Numbered(23, 4, **o),
    "batch": lambda npy, **o: Whole(23, 4, **o),
    "preloaded": lambda npy, **o: kl.preload(LOADERS["paths"](npy, **o), progress=False),
    "subset": lambda npy, **o: kl.subset(LOADERS["index"](npy, **o), slice(None)),
}


noisy = _by_value()
