"""Hooks that run in worker processes, which import this module: nothing here imports Keras."""

import contextlib
import os
import signal
import sys
import time

import numpy as np

import kloaders as kl

SAMPLES, BATCH = 30, 8


def loader_of(files, **options):
    options = {"seed": 4, "workers": 2, "processes": True, **options}
    return kl.PathSequenceLoader(files, np.arange(len(files)), BATCH, **options)


def epoch_of(loader, epoch=0, shuffle=True):
    return list(loader.epoch_batches(epoch, shuffle))


def assert_exact(batches, samples=SAMPLES):
    """Every sample once, every x with its own y."""
    x, y = (np.concatenate([batch[k] for batch in batches]) for k in (0, 1))
    assert sorted(y.tolist()) == list(range(samples))
    np.testing.assert_array_equal(x, np.repeat(y[:, None], x.shape[1], axis=1))


def assert_same(a, b):
    for p, q in zip(a, b, strict=True):
        for left, right in zip(p, q, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def memory_files():
    with contextlib.suppress(FileNotFoundError):
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return {link for link in links if os.path.islink(link) and "kloaders" in os.readlink(link)}
    return set()


def noisy(x, y, rng):
    return x + rng.random(x.shape), y + rng.integers(100)


def slow(x, y, rng):
    time.sleep(0.01)
    return x, y


def witness(x, y, rng):
    import cv2

    heavy = ("keras", "tensorflow", "torch", "jax", "tf_keras")
    time.sleep(0.01)
    return np.array([os.getpid(), sum(m in sys.modules for m in heavy), cv2.getNumThreads()]), y


def ends_at_19(x, y, rng):
    if y == 19:
        assert "pytest" not in sys.modules, "the tests' own process would end"
        os._exit(3)
    return x, y


def killed_at_first(x, y, rng):
    if y == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return x, y


def hangs_at_19(x, y, rng):
    if y == 19:
        time.sleep(1000)
    return x, y


def fails_at_19(x, y, rng):
    if y == 19:
        raise KeyError("no such class")
    return x, y


class Odd(Exception):
    """Does not pickle: its arguments are not those of Exception."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fails_oddly_at_19(x, y, rng):
    if y == 19:
        raise Odd(1, 2)
    return x, y


def leaves_at_19(x, y, rng):
    if y == 19:
        sys.exit("enough")
    return x, y


def grows(x, y, rng):
    return np.zeros((int(y) // BATCH + 1, 2), np.float32) + y, y


def wide(x, y, rng):
    return np.full(20_000, y, np.int64), y


def where(x, y, rng):
    return np.array([os.getpid(), x[0]]), y


def as_row(x, y, rng):
    return x[:2].astype(np.float32), np.float32(y)


class ByBatch(kl.SequenceLoader):
    """Counts its calls in what it delivers; ends its process at sample `bad`."""

    bad = -1

    def load_batch(self, indices):
        if self.bad in indices:
            os._exit(1)
        return np.repeat(indices[:, None], 3, axis=1), indices


class BySample(kl.SequenceLoader):
    def load_sample(self, index):
        return np.full(3, index), index
