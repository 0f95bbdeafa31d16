"""A source with stores in front of it: each sample is read once, and is the same ever after."""

import functools
import pickle

import numpy as np
import pytest

from kloaders.core.rows import Rows
from kloaders.plan.rng import Moment
from kloaders.sources.cache.columns import HookCache, bypassed, leaf_store, paused
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.keys import watched
from kloaders.sources.cache.ram import Budget
from kloaders.sources.cache.source import CachedSource
from tests.support.sources import Numbered

COUNT = 8


class Many(Numbered):
    """Fills many rows at once, and notes each call."""

    reads_many = True

    def fill(self, indices, out, report, moment):
        self.reads.append(indices.tolist())
        for row, index in enumerate(indices.tolist()):
            if index in self.broken:
                report(row, ValueError(f"number {index} is broken"))
                continue
            out.put(row, (self.make(index), np.int64(index)), report)


def cached(source, budget=10**6, key="", key_of=None):
    make = functools.partial(leaf_store, Budget(budget), len(source), None)
    return CachedSource(source, HookCache(make, SampleFiles([]), key), key_of)


def filled(source, indices):
    arrays = [np.zeros((len(indices), 2), np.float32), np.zeros(len(indices), np.int64)]
    reports = []
    source.fill(
        np.array(indices),
        Rows((None, None), arrays),
        lambda *found: reports.append(found),
        Moment(),
    )
    return arrays, reports


@pytest.mark.parametrize("kind", [Numbered, Many])
def test_a_sample_is_read_once(kind):
    inner = kind(COUNT)
    source = cached(inner)
    for indices in ([3, 1], [1, 3], [3]):
        (x, y), reports = filled(source, indices)
        assert (x[:, 0].tolist(), y.tolist(), reports) == (indices, indices, [])
    assert inner.reads == ([3, 1] if kind is Numbered else [[3, 1]])


def test_only_what_is_missing_is_read_of_many():
    inner = Many(COUNT)
    source = cached(inner)
    filled(source, [3, 1])
    (_, y), _ = filled(source, [0, 3, 5, 1])
    assert y.tolist() == [0, 3, 5, 1]
    assert inner.reads == [[3, 1], [0, 5]]


@pytest.mark.parametrize("kind", [Numbered, Many])
def test_a_failure_is_not_kept(kind):
    """It has its own row, among those that are kept and those that are read."""
    inner = kind(COUNT, broken=[5])
    source = cached(inner)
    filled(source, [1])
    for _ in range(2):
        (_, y), reports = filled(source, [1, 2, 5])
        assert [(row, str(error)) for row, error in reports] == [(2, "number 5 is broken")]
        assert y[:2].tolist() == [1, 2]
    inner.broken.clear()
    (_, y), reports = filled(source, [5])
    assert (y.tolist(), reports) == ([5], [])


def test_samples_rows_and_readers_share_what_is_kept():
    inner = Numbered(COUNT)
    source = cached(inner)
    source.sample(2, Moment())
    filled(source, [2])
    ((_, read),) = source.readers(np.array([2]), Moment())
    assert read()[1] == 2
    assert inner.reads == [2]


def test_what_is_served_is_a_copy():
    source = cached(Numbered(COUNT))
    for _ in range(3):
        (x, _) = source.sample(2, Moment())
        assert x.tolist() == [2, 2]
        x[...] = 99


def test_no_room_means_reading_again():
    inner = Numbered(COUNT)
    source = cached(inner, budget=0)
    for _ in range(2):
        assert source.sample(2, Moment())[1] == 2
    assert inner.reads == [2, 2]


def test_the_key_is_asked_for_once_before_the_first_sample():
    asked = []

    def key(inner):
        asked.append(inner)
        return watched(list, lambda: "key")

    inner = Numbered(COUNT)
    source = cached(inner, key=None, key_of=key)
    assert asked == []
    source.sample(1, Moment())
    source.prepare()
    filled(source, [2])
    assert asked == [inner]
    worker = pickle.loads(pickle.dumps(source.for_worker()))  # which need not have the function
    assert worker.key is None
    assert worker.cache.key == "key"


def test_stores_can_be_paused_and_bypassed():
    inner = Numbered(COUNT)
    source = cached(inner)
    source.sample(1, Moment())
    assert len(source.stores()) == 2  # of x and of y
    with bypassed(source.stores()):
        source.sample(1, Moment())
    with paused(source.stores()):
        source.sample(1, Moment())
        source.sample(2, Moment())
    source.sample(2, Moment())
    assert inner.reads == [1, 1, 2, 2]
