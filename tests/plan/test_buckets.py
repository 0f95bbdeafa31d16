"""Batches of samples of like length: every sample once, few batches mixed, and frozen per seed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kloaders.plan.buckets import BucketPlan, Buckets
from kloaders.plan.epoch import Order


@st.composite
def plans(draw):
    lengths = np.array(draw(st.lists(st.integers(1, 40), min_size=1, max_size=90)))
    boundaries = np.array([*sorted(draw(st.sets(st.integers(1, 39), max_size=6))), 40])
    shards = draw(st.integers(1, 3))
    options = {
        "samples": len(lengths),
        "batch_size": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 99)),
        "buckets": Buckets(lengths, boundaries),
    }
    head = draw(st.integers(0, 4))
    return lengths, [BucketPlan(shard=(k, shards), **options) for k in range(shards)], head


@given(plans(), st.integers(0, 3))
def test_every_sample_comes_once_whatever_the_head_and_the_shards(drawn, epoch):
    lengths, parts, head = drawn
    order = Order(epoch, min(head, parts[0].batches))
    batches = [
        np.concatenate([part.indices(order, b) for part in parts]) for b in range(parts[0].batches)
    ]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    size = parts[0].global_batch
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    for number, batch in enumerate(batches):
        needs = {part.planned(order, number)[1] for part in parts}
        assert len(needs) == 1
        boundaries = parts[0].buckets.boundaries
        assert needs.pop() == boundaries[np.searchsorted(boundaries, lengths[batch].max())]


@given(plans())
def test_few_batches_hold_samples_of_several_buckets(drawn):
    """What is left of each bucket is less than a batch: no more batches than buckets are mixed."""
    _, (plan, *_), _ = drawn
    order = plan.shuffled_order(0)
    codes = plan.buckets.codes
    mixed = 0
    for batch in range(plan.batches):
        mixed += len(set(codes[plan._everyone(order, batch)].tolist())) > 1
    assert mixed <= plan.buckets.shapes


def test_order_of_a_seed_is_frozen():
    plan = BucketPlan(
        samples=12,
        batch_size=3,
        seed=7,
        buckets=Buckets(np.array([1, 9, 2, 8, 3, 7, 4, 6, 5, 5, 1, 9]), np.array([3, 6, 9])),
    )
    got = [plan.indices(plan.shuffled_order(e), b).tolist() for e in range(2) for b in range(4)]
    assert got == GOLDEN


def test_every_epoch_pairs_other_samples():
    plan = BucketPlan(
        samples=400,
        batch_size=10,
        seed=1,
        buckets=Buckets(np.arange(400) % 40 + 1, np.array([10, 20, 40])),
    )
    first, second = (
        {tuple(sorted(plan.indices(plan.shuffled_order(e), b))) for b in range(40)}
        for e in range(2)
    )
    assert not first & second


def test_no_length_is_favoured_by_drop_last():
    """The short batch is cut from another place in every epoch."""
    lengths = np.repeat([1, 2, 3, 4], [23, 24, 26, 25])
    plan = BucketPlan(
        samples=98,
        batch_size=10,
        seed=3,
        drop_last=True,
        buckets=Buckets(lengths, np.arange(1, 5)),
    )
    left_out = np.zeros(4, int)
    for epoch in range(60):
        order = plan.shuffled_order(epoch)
        seen = np.concatenate([plan.indices(order, b) for b in range(plan.batches)])
        codes = plan.buckets.codes[np.setdiff1d(np.arange(98), seen)]
        left_out += np.bincount(codes, minlength=4)
    assert np.all(left_out > 10)


GOLDEN = [
    [9, 7, 6],
    [10, 8, 5],
    [1, 3, 11],
    [4, 0, 2],
    [3, 11, 1],
    [7, 8, 9],
    [0, 2, 10],
    [4, 6, 5],
]
