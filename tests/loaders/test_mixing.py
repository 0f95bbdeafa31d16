"""Loaders whose batches are mixed from several loaders."""

from collections import Counter

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import numbers_of, recording_model
from tests.support.sampled import CLASSES, LOADERS, epochs_of, flat, noisy, numbered, served_by


def test_a_mixture_keeps_its_proportions(keep):
    """In any number of batches to within one; each loader in passes of its own."""
    a, b = numbered(50, seed=1), numbered(9, first=100, seed=2)
    loader = keep(kl.mix([a, b], [0.7, 0.3], 8))
    assert len(loader) == 8
    found = flat(epochs_of(loader, 30))
    for k in range(8, len(found) + 1, 8):
        assert abs(sum(n < 100 for n in found[:k]) - 0.7 * k) < 1
    ours = [n for n in found if n < 100]
    theirs = [n - 100 for n in found if n >= 100]
    for stream, n in [(ours, 50), (theirs, 9)]:
        for k in range(0, len(stream) - n, n):
            assert sorted(stream[k : k + n]) == list(range(n))


def test_a_mixture_keeps_what_its_loaders_do(npy, keep):
    """Transforms, hooks, weights, names and class balance are those of each loader."""

    def lifted(x, y, rng):
        return x, y + 100

    a = LOADERS["paths"](npy, seed=1, class_balance=CLASSES)
    b = LOADERS["index"](npy, seed=2, transform=lifted, sample_weights=np.full(23, 5.0))
    loader = keep(kl.mix([a, b], [1, 1], 6, epoch_batches=50, seed=4))
    counts = Counter()
    for x, y, w in loader.epoch_batches(3):
        assert y.tolist() == [n + 100 * (k >= 3) for k, n in enumerate(numbers_of(x))]
        assert w.tolist() == [1, 1, 1, 5, 5, 5]
        counts += Counter(CLASSES[numbers_of(x)[:3]].tolist())
    assert max(counts.values()) - min(counts.values()) <= 3


def test_a_mixture_in_fit_in_threads_processes_and_shards(npy, keep):
    model, received = recording_model((2,), "float32")

    def make(**options):
        a = numbered(12, seed=1, transform=noisy)
        return keep(kl.mix([a, numbered(9, first=12, seed=2)], [2, 1], 6, **options))

    model.fit(make(workers=2), epochs=2, verbose=0)
    assert received.trained == epochs_of(make(workers=0), 2)
    assert received.trained == epochs_of(make(processes=True, workers=1), 2)
    parts = [make(shard=(k, 2)) for k in range(2)]
    wide = keep(kl.mix([numbered(12, seed=1), numbered(9, first=12, seed=2)], [2, 1], 12))
    for whole, *some in zip(*(epochs_of(one, 1) for one in (wide, *parts)), strict=True):
        assert sorted(whole) == sorted(flat(some))


def test_a_mixture_without_proportions_is_of_all_samples(keep):
    loader = keep(kl.mix([numbered(10), numbered(30, first=10)]))
    counts = Counter(n < 10 for n in flat(epochs_of(loader, 1)))
    assert counts == {True: 10, False: 30}


@pytest.mark.parametrize(
    ("loaders", "arguments", "error", "words"),
    [
        (lambda: [numbered(5)], {}, ValueError, "got 1 loader"),
        (lambda: [numbered(5), 3], {}, TypeError, "expected a loader"),
        (
            lambda: [numbered(5), numbered(5)],
            {"proportions": [1]},
            ValueError,
            "1 numbers for 2 loaders",
        ),
        (lambda: [numbered(5)] * 2, {"proportions": [1, 0]}, ValueError, "positive numbers"),
        (lambda: [numbered(5)] * 2, {"proportions": 0.5}, TypeError, r"as in \[0.7, 0.3\]"),
        (lambda: [numbered(5)] * 2, {"transform": noisy}, ValueError, "pass transform= to the"),
        (lambda: [numbered(5)] * 2, {"epoch_batch": 3}, TypeError, "did you mean epoch_batches"),
        (
            lambda: [numbered(5), kl.ArraySequenceLoader(np.zeros((5, 3), np.float32), np.ones(5))],
            {},
            ValueError,
            r"loader 1 \(float32\[3\].*loader 0 \(float32\[2\]",
        ),
        (lambda: [numbered(8, shard=(0, 2)), numbered(8)], {}, ValueError, "pass shard= to mix"),
        (lambda: [kl.mix([numbered(5)] * 2), numbered(5)], {}, ValueError, "got a mixture"),
    ],
)
def test_what_cannot_be_mixed(loaders, arguments, error, words):
    with pytest.raises(error, match=words):
        kl.mix(loaders(), **arguments)


def test_ram_batches_are_not_mixed_nor_mixtures_cut(npy):
    with pytest.raises(ValueError, match=r"RAM batches.*mix loaders without RAM batches"):
        kl.mix([LOADERS["ram"](npy), numbered(5)])
    mixture = kl.mix([numbered(5, transform=noisy), numbered(5)])
    with pytest.raises(ValueError, match="split, take or preload its loaders first"):
        kl.take(mixture, 3)
    with pytest.raises(ValueError, match="preload or pack the loaders first"):
        kl.preload(mixture, progress=False)


def test_a_mixture_goes_on(keep):
    def make(seed=2):
        a, b = numbered(50, seed=1), numbered(9, first=100, seed=seed)
        return keep(kl.mix([a, b], [0.7, 0.3], 8, epoch_batches=5))

    one, other = make(), make()
    one.on_epoch_begin()
    for k in range(3):
        one[k]
    other.load_state_dict(one.state_dict())
    assert served_by(other, 2) == epochs_of(make(), 2)[3:]
    with pytest.raises(ValueError, match="stream was"):
        make(seed=5).load_state_dict(one.state_dict())
