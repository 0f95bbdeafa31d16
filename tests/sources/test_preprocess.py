"""`preprocess=`: the same sample for whoever reads it, in whatever epoch."""

import numpy as np
import pytest

from kloaders.core.checks import call_of
from kloaders.core.rows import Rows
from kloaders.plan.rng import Moment
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.preprocess import PreprocessedSource
from kloaders.sources.weights import WeightedSource

N = 8


def source(function, weights=False):
    columns = (ArrayColumn(np.arange(N)), ArrayColumn(np.arange(N) * 10))
    inner = ColumnSource(columns)
    if weights:
        inner = WeightedSource(inner, ArrayColumn(np.arange(N, dtype=np.float32)))
    return PreprocessedSource(inner, call_of(function, "preprocess"))


def noisy(x, y, rng):
    return x + rng.random(), y + 1


def test_a_sample_is_the_same_in_each_epoch_and_for_each_seed():
    made = source(noisy)
    first = made.sample(3, Moment(0))
    assert made.with_seed(9).sample(3, Moment(7)) == first
    assert first[1] == 31
    fractions = {round(float(made.read(k)[0] - k), 6) for k in range(N)}
    assert len(fractions) == N


def test_parts_of_it_keep_their_numbers():
    made = source(noisy)
    assert made.take(np.array([5, 3])).read(1) == made.read(3)


def test_it_may_do_without_random_numbers_and_may_take_weights():
    assert source(lambda x, y: (x * 2, y)).read(4) == (8, 40)
    assert source(lambda x, y, w, rng: (x, y, w * 2), True).read(4) == (4, 40, 8)
    assert source(lambda x, y, rng: (x, y), True).read(4) == (4, 40, 4)
    assert source(lambda x, y: (x, None)).read(4) == (4,)


def test_many_at_once_are_those_of_one_by_one():
    made = source(noisy)
    rows = Rows((0, 0), [np.empty(3, np.float32), np.empty(3, np.int64)])
    indices = np.array([6, 1, 4])
    made.fill(indices, rows, lambda row, error: pytest.fail(str(error)), Moment(2))
    want = [made.read(int(k)) for k in indices]
    assert rows.arrays[0].tolist() == [x for x, _ in want]
    assert rows.arrays[1].tolist() == [y for _, y in want]


def test_what_fails_is_its_sample():
    def failing(x, y):
        if x == 1:
            raise ValueError("one")
        return x, y

    wrong = []
    rows = Rows((0, 0), [np.empty(3, np.int64), np.empty(3, np.int64)])
    source(failing).fill(
        np.array([0, 1, 2]), rows, lambda row, error: wrong.append((row, str(error))), Moment()
    )
    assert wrong == [(1, "one")]
    assert rows.arrays[0][[0, 2]].tolist() == [0, 2]


def test_labels_are_changed_before_it():
    made = source(lambda x, y: (x, y * 2)).with_labels(lambda c: ArrayColumn(np.arange(N)))
    assert made.read(5) == (5, 10)
    assert made.lengths() is None
