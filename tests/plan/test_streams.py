"""Endless orders: how often samples come, whatever the length of an epoch."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kloaders.plan.epoch import EpochPlan
from kloaders.plan.streams import (
    Balanced,
    InOrder,
    Mixture,
    ShuffledPasses,
    WeightedSystematic,
    WeightedWithReplacement,
    pattern_of,
)
from tests.support.sampled import flat

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31)


def stream_of(kind, n, size, seed):
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 5, n), return_inverse=True)[1].reshape(-1)
    weights = rng.random(n) + 0.01
    return {
        "passes": lambda: ShuffledPasses(n, seed),
        "balanced": lambda: Balanced(codes, size, seed),
        "shares": lambda: WeightedSystematic(weights, seed),
        "draws": lambda: WeightedWithReplacement(weights, seed),
        "mixture": lambda: Mixture(
            [(ShuffledPasses(n, seed), n), (ShuffledPasses(3, seed), 3)], pattern_of([0.8, 0.2])
        ),
    }[kind]()


KINDS = ["passes", "balanced", "shares", "draws", "mixture"]


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=sizes, size=st.integers(1, 9), length=st.integers(1, 30), epochs=st.integers(1, 5), seed=seeds
)
def test_epochs_are_pieces_of_one_stream(kind, n, size, length, epochs, seed):
    """Whatever the length of an epoch, batches follow one another as in one endless epoch."""
    options = {"samples": n, "batch_size": size, "seed": seed}
    short = EpochPlan(**options, stream=stream_of(kind, n, size, seed), length=length)
    endless = EpochPlan(**options, stream=stream_of(kind, n, size, seed), length=epochs * length)
    assert short.batches == length
    for epoch in range(epochs):
        for batch in range(length):
            found = short.indices(short.shuffled_order(epoch), batch)
            whole = endless.indices(endless.shuffled_order(0), epoch * length + batch)
            assert found.tolist() == whole.tolist()
            assert len(found) == size
            assert found.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
@given(n=sizes, size=st.integers(1, 6), shards=st.integers(1, 4), seed=seeds)
def test_shards_make_up_the_global_batch(kind, n, size, shards, seed):
    """Together they deliver what one loader of a batch as large does, in equal parts."""
    stream = stream_of(kind, n, size * shards, seed)
    options = {"samples": n, "seed": seed, "stream": stream, "length": 3}
    whole = EpochPlan(batch_size=size * shards, **options)
    parts = [EpochPlan(batch_size=size, shard=(k, shards), **options) for k in range(shards)]
    for batch in range(3):
        order = whole.shuffled_order(2)
        found = [part.indices(order, batch).tolist() for part in parts]
        assert {len(one) for one in found} == {size}
        assert sorted(flat(found)) == sorted(whole.indices(order, batch).tolist())


@given(n=sizes, seed=seeds, start=st.integers(0, 200), stop=st.integers(0, 200))
def test_every_pass_has_every_sample_once(n, seed, start, stop):
    stream = ShuffledPasses(n, seed)
    for k in range(4):
        assert sorted(stream.samples(k * n, (k + 1) * n).tolist()) == list(range(n))
    whole = stream.samples(0, 200).tolist()
    assert stream.samples(start, stop).tolist() == whole[start:stop]


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=9), size=st.integers(1, 20), seed=seeds
)
def test_classes_are_balanced_in_every_batch_and_in_any_part_of_it(counts, size, seed):
    """To within one; and in each class every sample comes once before any comes again."""
    codes = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(codes)
    stream = Balanced(codes, size, seed)
    seen = [Counter() for _ in counts]
    for batch in range(40):
        members = stream.samples(batch * size, (batch + 1) * size)
        for part in (members, members[: size // 2], members[size // 2 :]):
            per_class = np.bincount(codes[part], minlength=len(counts))
            assert per_class.max() - per_class.min() <= 1
        for sample in members.tolist():
            seen[codes[sample]][sample] += 1
        for code, count in enumerate(counts):
            often = [seen[code][k] for k in np.flatnonzero(codes == code).tolist()]
            assert len(often) == count
            # Within a batch a pass may end: then some are one ahead, never two.
            assert max(often) - min(often) <= 1


def test_classes_have_other_company_each_time():
    """With more classes than a batch holds, which of them share a batch changes."""
    stream = Balanced(np.arange(64) // 2, 8, seed=1)  # 32 classes of two samples
    batches = [frozenset((stream.samples(8 * k, 8 * k + 8) // 2).tolist()) for k in range(40)]
    assert all(len(batch) == 8 for batch in batches)
    assert len(set(batches)) > 30


@given(
    weights=st.lists(st.integers(0, 6) | st.floats(0.125, 9), min_size=1, max_size=30).filter(any),
    seed=seeds,
)
def test_every_sample_comes_as_often_as_its_weight_says(weights, seed):
    """In every pass of n draws to within one; weight 0 never."""
    weights = np.array(weights, np.float64)
    n = len(weights)
    stream = WeightedSystematic(weights, seed)
    due = n * weights / weights.sum()
    for k in range(6):
        counts = np.bincount(stream.samples(k * n, (k + 1) * n), minlength=n)
        assert np.all(np.abs(counts - due) < 1 + 1e-5)
        assert not counts[weights == 0].any()


def test_over_passes_shares_stay_exact():
    """Remainders rotate: after 1,000 passes no sample is more than a few draws off."""
    weights = np.random.default_rng(1).random(50)
    counts = np.bincount(WeightedSystematic(weights, 5).samples(0, 50_000), minlength=50)
    assert np.abs(counts - 50_000 * weights / weights.sum()).max() < 5


def test_equal_weights_are_a_shuffle():
    stream = WeightedSystematic(np.full(1000, 0.1), 3)
    first, second = (stream.samples(k * 1000, k * 1000 + 1000).tolist() for k in range(2))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second


def test_draws_with_replacement_are_independent():
    """Counts scatter as those of a multinomial: 40,000 draws, four standard deviations."""
    weights = np.array([1, 2, 0, 3, 4.0])
    counts = np.bincount(WeightedWithReplacement(weights, 3).samples(0, 40_000), minlength=5)
    p = weights / weights.sum()
    assert counts[2] == 0
    assert np.all(np.abs(counts - 40_000 * p) <= 4 * np.sqrt(40_000 * p * (1 - p)) + 1e-9)
    pairs = WeightedWithReplacement(weights, 3).samples(0, 40_000).reshape(-1, 2)
    again = np.mean(pairs[:, 0] == pairs[:, 1])  # 0.3 expected
    assert abs(again - np.sum(p**2)) < 4 * np.sqrt(0.21 / 20_000)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20) | st.floats(0.01, 5), min_size=1, max_size=6))
def test_a_pattern_gives_each_part_its_share_at_every_place(shares):
    """After any number of places to within one (Tijdeman)."""
    pattern = pattern_of(shares)
    counts = np.bincount(pattern, minlength=len(shares))
    np.testing.assert_allclose(counts / len(pattern), np.array(shares) / sum(shares), atol=2e-4)
    had = np.cumsum(pattern[:, None] == np.arange(len(shares)), axis=0)
    due = np.arange(1, len(pattern) + 1)[:, None] * (counts / len(pattern))
    assert np.abs(had - due).max() < 1


def test_a_golden_order_for_each_stream():
    """The order of a seed never changes."""
    codes = np.array([0, 0, 0, 0, 1, 1, 2])
    assert ShuffledPasses(7, 1).samples(0, 10).tolist() == GOLDEN["passes"]
    assert Balanced(codes, 4, 1).samples(0, 10).tolist() == GOLDEN["balanced"]
    assert WeightedSystematic(np.arange(7.0), 1).samples(0, 10).tolist() == GOLDEN["shares"]
    assert WeightedWithReplacement(np.arange(7.0), 1).samples(0, 10).tolist() == GOLDEN["draws"]


GOLDEN = {
    "passes": [6, 3, 5, 2, 4, 1, 0, 4, 1, 2],
    "balanced": [6, 1, 4, 6, 0, 5, 6, 3, 4, 6],
    "shares": [5, 5, 6, 6, 3, 2, 4, 2, 5, 4],
    "draws": [3, 4, 6, 4, 6, 6, 5, 6, 3, 6],
}


def test_storage_order_goes_round():
    assert InOrder(3).samples(2, 9).tolist() == [2, 0, 1, 2, 0, 1, 2]


def test_texts_of_streams_are_frozen():
    """A saved position holds the text of its stream, and is an error for another stream."""
    codes = np.array([0, 0, 0, 0, 1, 1, 2])
    found = [
        InOrder(7),
        ShuffledPasses(7, 1),
        Balanced(codes, 4, 1),
        WeightedSystematic(np.arange(7.0), 1),
        WeightedWithReplacement(np.arange(7.0), 1),
        Mixture([(ShuffledPasses(7, 1), 7), (InOrder(3), 3)], pattern_of([0.7, 0.3])),
    ]
    assert [str(stream) for stream in found] == TEXTS


TEXTS = [
    "InOrder(7)",
    "Passes(7, seed=1)",
    "Balanced(3 classes, 7 samples, size=4, seed=1, 81bad8919436283e)",
    "Shares(7, seed=1, d1ccc6065b522548)",
    "Draws(7, seed=1, d1ccc6065b522548)",
    "Mixture([Passes(7, seed=1), InOrder(3)], cea03f1742725dcf)",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_pickles_without_its_blocks(kind):
    """A pickled copy for a worker serves the same samples, and is as small as an unused one."""
    stream = stream_of(kind, 23, 4, 1)
    before = len(pickle.dumps(stream))
    served = stream.samples(0, 9000)
    data = pickle.dumps(stream)
    assert len(data) == before
    assert pickle.loads(data).samples(0, 9000).tolist() == served.tolist()
