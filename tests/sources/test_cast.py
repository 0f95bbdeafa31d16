"""dtype= holds for a source of a user's own, however its samples are read."""

import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.plan.rng import Moment


class Numbers(kl.Source):
    """Row k is k; sample `broken` does not load."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return 12

    def read(self, index):
        if index == self.broken:
            raise OSError("no such number")
        return {"a": np.full(3, index, np.float32), "b": np.int64(index)}, np.int64(index)


def shift(x, y, rng):
    assert x["a"].dtype == np.float16
    return {"a": x["a"] + 1, "b": x["b"]}, y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transform": shift},
        {"cache": "ram"},
        {"workers": 0},
        {"shuffle": True, "seed": 1},
    ],
    ids=["plain", "transform", "cache", "inline", "shuffled"],
)
def test_inputs_are_cast_and_labels_are_not(keep, options):
    """All of x, whatever else is done to it, and each row stays with its label."""
    loader = keep(kl.SequenceLoader(Numbers(), 5, dtype="float16", **options))
    seen = []
    for _ in range(2):
        for x, y in loader.epoch_batches():
            assert (x["a"].dtype, x["b"].dtype, y.dtype) == (np.float16, np.float16, np.int64)
            moved = 1 if "transform" in options else 0
            assert x["a"][:, 0].tolist() == (y + moved).tolist()
            seen += y.tolist()
    assert sorted(seen) == sorted([*range(12)] * 2)


def test_what_is_made_from_it_is_cast_as_well(keep):
    loader = keep(kl.SequenceLoader(Numbers(), 5, dtype="float16"))
    for made, first in (
        (kl.subset(loader, [7, 3]), 7),
        (pickle.loads(pickle.dumps(loader)), 0),
        (kl.preload(loader, progress=False), 0),
        (loader.view(), 0),
    ):
        x, y = keep(made)[0]
        assert x["a"].dtype == np.float16
        assert x["a"][0, 0] == y[0] == first


def test_a_sample_that_does_not_load_is_reported_for_its_row(keep):
    """The others of its batch are there."""
    loader = keep(kl.SequenceLoader(Numbers(broken=3), 6, dtype="float16", on_error="skip"))
    assert loader[0][1].tolist() == [0, 1, 2, 4, 5]
    (error,) = loader.errors
    assert error.index == 3
    assert "no such number" in str(error)


def test_random_samples_are_cast(keep):
    """The moment reaches the source that draws."""

    class Noise(kl.Source):
        random = True

        def __len__(self):
            return 4

        def sample(self, index, moment):
            return (moment.rng(1, index).random(2),)

    loader = keep(kl.SequenceLoader(Noise(), 4, dtype="float32"))
    x = next(iter(loader.epoch_batches(epoch=2)))
    want = [Moment(2).rng(1, k).random(2).astype(np.float32) for k in range(4)]
    np.testing.assert_array_equal(x, want)


def test_without_dtype_nothing_is_wrapped(keep):
    source = Numbers()
    assert keep(kl.SequenceLoader(source, 5)).source is source
