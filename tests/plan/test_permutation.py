"""Permutations: one to one at every size, as random as they should be, and frozen."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.plan.permutation import Permutation, mixed, permutation_of, permuted, permuted_span
from tests.support.chi_squared import bound, chi_squared


@pytest.mark.parametrize("key", [b"one", b"two"])
def test_every_small_size_is_a_permutation(key):
    """Sizes 1 to 400: every number once. After Grain's index_shuffle_test."""
    for n in range(1, 401):
        found = Permutation(n, key)(np.arange(n))
        assert found.dtype == np.int64
        assert np.array_equal(np.sort(found), np.arange(n)), n


@pytest.mark.parametrize("k", range(1, 10))
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_around_powers_of_four(k, off):
    """Sizes 4**k - 1 to 4**k + 1, for which Grain's and TensorFlow's index shuffles have bugs.

    At 65,537 (k = 8) and 262,145 (k = 9) they lose one number and give another twice.
    """
    n = 2 ** (2 * k) + off
    found = Permutation(n, b"key")(np.arange(n))
    assert np.array_equal(np.sort(found), np.arange(n))


@given(n=st.integers(1, 5000), key=st.binary(max_size=40), data=st.data())
def test_a_part_is_a_part_of_the_whole(n, key, data):
    """The result for a position does not depend on the other positions of the call."""
    permutation = Permutation(n, key)
    whole = permutation(np.arange(n))
    some = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    assert permutation(np.array(some)).tolist() == whole[some].tolist()
    assert np.array_equal(np.sort(whole), np.arange(n))


@pytest.mark.parametrize("n", [10**9, 2**40 + 15, 2**62])
def test_huge_sizes_stay_in_range_and_differ(n):
    """A thousand positions out of a billion and more: different numbers, all in range."""
    positions = np.arange(1000) * (n // 1000)
    found = Permutation(n, b"key")(positions)
    assert len(set(found.tolist())) == 1000
    assert found.min() >= 0
    assert found.max() < n
    # Spread over the whole range, as random numbers would be.
    counts, _ = np.histogram(found / n, bins=10, range=(0, 1))
    assert chi_squared(counts) < 27.9  # 9 degrees of freedom: exceeded once in 1,000


# ---------------------------------------------------------------- is it random?


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_permutations_come_up_equally_often(n):
    """Over many keys each of the n! permutations of a few samples is as frequent as the others."""
    every = {order: k for k, order in enumerate(itertools.permutations(range(n)))}
    counts = np.zeros(len(every), int)
    for key in range(max(1000, 12 * len(every))):
        found = Permutation(n, b"%d" % key)(np.arange(n))
        counts[every[tuple(found.tolist())]] += 1
    assert chi_squared(counts) < bound(len(every) - 1)


@pytest.mark.parametrize("n", [13, 100, 1000, 1025])
@pytest.mark.parametrize("place", ["first", "last"])
def test_any_sample_may_come_first(n, place):
    """Over many epochs every sample is at the first, and at the last, position equally often."""
    keys = 20 * n if n < 1000 else 10 * n
    position = np.array([0 if place == "first" else n - 1])
    found = [int(Permutation(n, b"%d" % key)(position)[0]) for key in range(keys)]
    assert chi_squared(np.bincount(found, minlength=n)) < bound(n - 1)


@pytest.mark.parametrize("n", [64, 1000, 5000])
def test_neighbours_are_parted(n):
    """Samples that lie side by side in storage come out as far apart as by chance."""
    far = []
    for key in range(30):
        where = np.argsort(Permutation(n, b"%d" % key)(np.arange(n)))
        far.append(np.abs(np.diff(where)).mean())
    # Two random positions are n / 3 apart on average.
    assert abs(np.mean(far) / (n / 3) - 1) < 0.05


# ---------------------------------------------------------------- many at once


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 2**31)), min_size=1, max_size=4))
def test_many_permutations_at_once_are_permutations(domains):
    """Each domain is permuted one to one, with any other domains in the call."""
    ranks = np.concatenate([np.arange(n) for n, _ in domains])
    ns = np.concatenate([np.full(n, n) for n, _ in domains])
    keys = np.concatenate([np.full(n, seed, np.uint64) for n, seed in domains])
    found = permuted(ranks, ns, keys)
    begin = 0
    for n, seed in domains:
        alone = permuted(np.arange(n), n, np.uint64(seed))
        np.testing.assert_array_equal(found[begin : begin + n], alone)
        assert sorted(alone.tolist()) == list(range(n))
        begin += n


def test_small_domains_reach_every_permutation_alike():
    """All 24 orders of four come equally often, by a chi-squared test at one in a thousand."""
    trials = 24 * 200
    ranks = np.tile(np.arange(4), trials)
    keys = np.repeat(np.arange(trials, dtype=np.uint64), 4)
    found = Counter(map(tuple, permuted(ranks, 4, keys).reshape(-1, 4).tolist()))
    assert len(found) == 24
    assert sum((count - 200) ** 2 / 200 for count in found.values()) < 49.7


# ---------------------------------------------------------------- by seed and purpose


@given(n=st.integers(1, 20_000), data=st.data())
def test_a_span_is_cut_from_the_permutation(n, data):
    """Within a block, across blocks, and up to the end."""
    low = data.draw(st.integers(0, n - 1))
    high = data.draw(st.integers(low + 1, n))
    whole = Permutation(n, mixed(5, "order", 3, 0))(np.arange(n))
    found = permuted_span(low, high, n, 5, "order", 3, 0)
    assert found.tolist() == whole[low:high].tolist()
    assert found.dtype == np.int64


def test_a_span_cannot_be_written_to_where_others_have_it():
    """All callers share a block."""
    found = permuted_span(3, 9, 5000, 1, "order")
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_purposes_never_meet():
    """Another seed, purpose or number: another permutation; the same: the same."""
    keys = [(seed, what, epoch) for seed in range(3) for what in ("a", "b") for epoch in range(3)]
    orders = [tuple(permutation_of(50, *key)(np.arange(50))) for key in keys]
    assert len(set(orders)) == len(keys)
    assert orders == [tuple(permutation_of(50, *key)(np.arange(50))) for key in keys]


def test_frozen_permutations():
    """Both algorithms, and the hash that keys them, are what they were."""
    assert mixed(7, "order", 2).hex() == MIXED
    assert Permutation(10, b"key")(np.arange(10)).tolist() == ONE
    assert permuted(np.arange(10), 10, np.uint64(5)).tolist() == MANY


MIXED = "dd2841d778eeba05ea9064b844f82d13"
ONE = [2, 7, 8, 6, 1, 5, 4, 9, 3, 0]
MANY = [2, 6, 8, 5, 7, 0, 4, 3, 9, 1]
