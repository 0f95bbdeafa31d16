"""A loader's parts put together: its plan, the stream that it draws from, and what runs."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import RamOptions
from kloaders.engine.padding import Padding
from kloaders.engine.ram_batches import RamRunner
from kloaders.engine.runner import Runner
from kloaders.loaders.assembly import plan_of, runner_of, stream_of
from kloaders.loaders.options import LoaderOptions
from kloaders.plan.buckets import BucketPlan
from kloaders.plan.streams import (
    Balanced,
    InOrder,
    ShuffledPasses,
    WeightedSystematic,
    WeightedWithReplacement,
)
from tests.support.sources import Numbered

SAMPLES = 10


def options_of(batch_size=4, samples=SAMPLES, ram=None, echo=1, padding=None, **given):
    given = {"seed": 3, "workers": 0, **given}
    return LoaderOptions.of(samples, batch_size, given, ram=ram, echo=echo, padding=padding)


def numbers(plan, order):
    return [plan.indices(order, batch).tolist() for batch in range(plan.batches)]


@pytest.fixture
def made():
    """made(source, options) -> runner, closed when the test ends."""
    kept = []

    def _made(source, options):
        kept.append(runner_of(source, options, "Mine"))
        return kept[-1]

    yield _made
    for runner in kept:
        runner.close()


# ---------------------------------------------------------------- plans


def test_a_plan_has_the_size_and_the_seed():
    plan = plan_of(options_of(), SAMPLES)
    assert (plan.batches, plan.batch_size, plan.seed, plan.tail) == (3, 4, 3, 2)
    assert numbers(plan, plan.storage_order(0)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert plan_of(options_of(drop_last=True), SAMPLES).batches == 2


def test_shards_share_a_batch():
    plans = [plan_of(options_of(2, shard=(k, 2), shuffle=True), SAMPLES) for k in range(2)]
    whole = plan_of(options_of(4, shuffle=True), SAMPLES)
    for batch in range(3):
        order = whole.shuffled_order(0)
        together = [n for plan in plans for n in plan.indices(order, batch).tolist()]
        assert sorted(together) == sorted(whole.indices(order, batch).tolist())


def test_echo_serves_each_sample_so_often():
    plan = plan_of(options_of(echo=3), SAMPLES)
    found = [n for batch in numbers(plan, plan.shuffled_order(0)) for n in batch]
    assert np.bincount(found, minlength=SAMPLES).tolist() == [3] * SAMPLES


def test_lengths_make_buckets():
    padding = Padding(np.arange(1, SAMPLES + 1), np.array([4, 16]), 0, None, False)
    assert isinstance(plan_of(options_of(padding=padding), SAMPLES), BucketPlan)


def test_a_plan_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"^3 samples do not make a full batch of 8 .batch_size"):
        plan_of(options_of(4, 3, drop_last=True, shard=(0, 2)), 3)


def test_a_shard_without_a_part_of_the_last_batch_is_refused():
    with pytest.raises(ValueError, match=r"last batch of an epoch has 1 samples for 2 shards"):
        plan_of(options_of(2, 9, shard=(0, 2)), 9)
    assert plan_of(options_of(2, 9, shard=(0, 2), drop_last=True), 9).batches == 2


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, type(None)),
        ({"epoch_batches": 2}, ShuffledPasses),
        ({"epoch_batches": 2, "shuffle": False}, InOrder),
        ({"class_balance": [0, 1] * 5}, Balanced),
        ({"sampling_weights": np.ones(SAMPLES)}, WeightedSystematic),
        ({"sampling_weights": np.ones(SAMPLES), "replacement": True}, WeightedWithReplacement),
    ],
)
def test_the_stream_follows_from_the_options(given, kind):
    assert type(stream_of(options_of(**given), SAMPLES)) is kind


def test_balance_is_that_of_the_batch_of_all_shards():
    """Each global batch has as many of each class, whatever part of it a host gets."""
    codes = np.arange(SAMPLES) % 2
    plans = [
        plan_of(options_of(2, class_balance=codes, shuffle=True, shard=(k, 2)), SAMPLES)
        for k in range(2)
    ]
    for batch in range(plans[0].batches - 1):
        order = plans[0].shuffled_order(0)
        together = np.concatenate([plan.indices(order, batch) for plan in plans])
        assert np.bincount(codes[together]).tolist() == [2, 2]


# ---------------------------------------------------------------- what runs


def test_one_level_reads_what_it_serves(made):
    source = Numbered(SAMPLES)
    runner = made(source, options_of())
    assert type(runner) is Runner
    batches = list(runner.batches(runner.order_of(0, shuffled=False), 0))
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    np.testing.assert_array_equal(batches[1][0][:, 0], [4, 5, 6, 7])


@pytest.mark.parametrize("draw", ["windows", "global"])
def test_two_levels_serve_each_sample_once(made, draw):
    runner = made(Numbered(SAMPLES), options_of(2, ram=RamOptions(ram_batch_size=6, draw=draw)))
    assert type(runner) is RamRunner
    batches = list(runner.batches(runner.order_of(0, shuffled=True), 0))
    assert sorted(n for _, y in batches for n in y.tolist()) == list(range(SAMPLES))


def test_weights_and_padding_are_delivered(made):
    weights = np.arange(SAMPLES, dtype=np.float32)
    runner = made(Numbered(SAMPLES), options_of(sample_weights=weights, pad_last=True))
    *_, last = runner.batches(runner.order_of(0, shuffled=False), 0)
    assert last[2].tolist() == [8, 9, 0, 0]


def test_the_policy_of_faults_is_the_options(made):
    runner = made(Numbered(SAMPLES, broken=[1]), options_of(on_error="skip"))
    first, *_ = runner.batches(runner.order_of(0, shuffled=False), 0)
    assert first[1].tolist() == [0, 2, 3]
    runner = made(Numbered(SAMPLES, broken=[1]), options_of())
    with pytest.raises(kl.SampleError, match="number 1 is broken"):
        next(runner.batches(runner.order_of(0, shuffled=False), 0))


# ---------------------------------------------------------------- RAM batches and sampling


@pytest.mark.parametrize(
    ("ram", "more", "words"),
    [
        (RamOptions(ram_batch_size=4, draw="windows"), {}, r'draw="windows" reads runs'),
        (RamOptions(ram_batch_size=4, draw="front to back"), {}, r"read only from start to end"),
        (RamOptions(ram_batch_size=4), {"echo": 2}, r"echo=2 serves a RAM batch several times"),
    ],
    ids=["windows", "front to back", "echo"],
)
def test_ram_batches_that_cannot_be_sampled_are_refused(ram, more, words):
    options = options_of(2, ram=ram, sampling_weights=np.arange(1, SAMPLES + 1), **more)
    with pytest.raises(ValueError, match=words):
        runner_of(Numbered(SAMPLES), options, "Mine")


@pytest.mark.parametrize(
    "ram",
    [RamOptions(ram_batch_size=4), RamOptions(ram_budget="1GB", draw="windows")],
    ids=["global", "resident"],
)
def test_ram_batches_are_sampled_where_all_is_at_hand(made, ram):
    weights = np.array([1.0] * 5 + [0.0] * 5)
    runner = made(Numbered(SAMPLES), options_of(2, ram=ram, sampling_weights=weights))
    found = [n for _, y in runner.batches(runner.order_of(0, shuffled=True), 0) for n in y.tolist()]
    assert set(found) <= set(range(5))
    assert len(found) == SAMPLES
