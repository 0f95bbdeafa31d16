"""Partners: of which class, how often, and anew in each epoch."""

import pickle

import numpy as np
import pytest

from kloaders.core.options import TransformOptions
from kloaders.plan.rng import Moment
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.pairs import PairSource
from kloaders.sources.pipeline import SamplePipeline

N = 61
CODES = np.arange(N) % 5


def source(same, transform=None, codes=CODES, seed=3):
    columns = (ArrayColumn(np.arange(len(codes))), ArrayColumn(codes))
    pipeline = SamplePipeline(ColumnSource(columns), TransformOptions(transform), seed)
    return PairSource(pipeline, codes, same)


def epoch_of(pairs, epoch):
    return [pairs.sample(k, Moment(epoch)) for k in range(len(pairs))]


@pytest.mark.parametrize("same", [0.0, 0.3, 0.5, 1.0])
def test_the_share_is_exact_in_each_epoch(same):
    pairs = source(same)
    seen = []
    for epoch in range(3):
        found = epoch_of(pairs, epoch)
        for k, ((first, partner), y) in enumerate(found):
            assert first == k
            assert partner != k
            assert y == (CODES[k] == CODES[int(partner)])
        assert sum(int(y) for _, y in found) == round(same * N)
        seen.append([int(partner) for (_, partner), _ in found])
    assert len(set(map(tuple, seen))) == 3
    assert seen[1] == [int(p) for (_, p), _ in epoch_of(pickle.loads(pickle.dumps(pairs)), 1)]


def test_all_others_are_partners_in_time():
    """Each of the class but the sample itself, and each of the other classes."""
    pairs = source(0.5)
    like, unlike = set(), set()
    for epoch in range(1500):
        (_, partner), y = pairs.sample(7, Moment(epoch))
        (like if y else unlike).add(int(partner))
    assert like == set(np.flatnonzero(CODES == 2).tolist()) - {7}
    assert unlike == set(np.flatnonzero(CODES != 2).tolist())


def test_triplets():
    for k, ((first, like, unlike),) in enumerate(epoch_of(source(None), 0)):
        assert first == k
        assert like != k
        assert CODES[int(like)] == CODES[k] != CODES[int(unlike)]


def test_each_of_a_pair_is_transformed_with_random_numbers_of_its_own():
    pairs = source(1.0, lambda x, y, rng: (np.append(x, rng.integers(2**31)), y))
    for found in (epoch_of(pairs, 0), epoch_of(pairs, 1)):
        drawn = [int(part[1]) for (a, b), _ in found for part in (a, b)]
        assert len(set(drawn)) == 2 * N
    first, again = (pairs.sample(4, Moment(2, 0))[0][1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = pairs.sample(4, Moment(2, 1))[0][0]
    assert other[1] != pairs.sample(4, Moment(2, 0))[0][0][1]


def test_parts_of_pairs_would_share_samples():
    with pytest.raises(ValueError, match="split or select first"):
        source(0.5).take(np.arange(3))
