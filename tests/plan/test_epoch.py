"""Which samples go into which batch: exact for every size, and frozen for every seed."""

import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.plan.epoch import EpochPlan, Order
from kloaders.plan.permutation import Permutation
from tests.support.threads import in_threads

DRAWS = ["windows", "global"]


def batches_of(plan, order):
    """All batches of an epoch, as lists."""
    return [plan.indices(order, batch).tolist() for batch in range(plan.batches)]


def joined(batches):
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 4095, 4096, 4097, 8193, 65_537])
def test_around_the_blocks_of_the_plan(n):
    """A plan's epoch is exact where the rounds change (1,024) and where blocks end (4,096)."""
    plan = EpochPlan(n, 7, seed=1)
    assert sorted(joined(batches_of(plan, Order(3, 0)))) == list(range(n))


def kendall_tau(order):
    """Rank correlation with storage order: 1 for storage order itself, 0 for a full shuffle."""
    order = np.asarray(order)
    n = len(order)
    later = order[None, :] > order[:, None]
    agree = np.triu(later, 1).sum()
    return 4 * agree / (n * (n - 1)) - 1


def test_how_random_a_window_shuffle_is():
    """Kendall's tau of an epoch of RAM windows is near that of a full shuffle, for few windows too.

    The idea is `quantify_randomness` of Squirrel (merantix-momentum/squirrel-core). A shuffle
    buffer of the same size, which never reaches far ahead, stays near storage order.
    """
    n, window, epochs = 1024, 128, 40
    full = EpochPlan(n, 16, seed=3)
    drawn = {
        draw: EpochPlan(n, 16, seed=3, window=window, draw=draw) for draw in ("windows", "global")
    }

    def spread(plan):
        taus = [kendall_tau(joined(batches_of(plan, Order(e, 0)))) for e in range(epochs)]
        return abs(np.mean(taus)), np.std(taus)

    rng = np.random.default_rng(0)
    buffered = []
    for _ in range(5):
        buffer, out = list(range(window)), []
        for k in range(window, n):
            place = rng.integers(window)
            out.append(buffer[place])
            buffer[place] = k
        buffered.append(kendall_tau(out + buffer))
    assert np.mean(buffered) > 0.7
    # tau of n random ranks has the standard deviation 2 / (3 sqrt(n)); 8 windows have 8 ranks.
    assert spread(full)[0] < 0.02
    assert spread(full)[1] < 0.04
    assert spread(drawn["global"])[1] < 0.04
    assert spread(drawn["windows"])[0] < 0.2
    assert spread(drawn["windows"])[1] < 0.45


# ---------------------------------------------------------------- plans


@st.composite
def plans(draw, *, shards=1, echo=1):
    """A plan of any size and form, small enough to be counted out."""
    n = draw(st.integers(shards, 120))
    size = draw(st.integers(1, 12))
    drop_last = draw(st.booleans())
    shard = (0, shards)
    if drop_last and n < size * shards:
        drop_last = False
    window = draw(st.none() | st.integers(1, 6).map(lambda k: k * size * shards))
    return EpochPlan(
        n,
        size,
        seed=draw(st.integers(0, 5)),
        drop_last=drop_last,
        shard=shard,
        window=window,
        draw=draw(st.sampled_from(DRAWS)),
        echo=draw(st.integers(1, 3)) if echo > 1 and window else 1,
    )


def with_shard(plan, k, n, **changes):
    """The same plan for shard k of n."""
    fields = {
        "samples": plan.samples,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "drop_last": plan.drop_last,
        "window": plan.window,
        "draw": plan.draw,
        "echo": plan.echo,
        **changes,
    }
    return EpochPlan(**fields, shard=(k, n))


@given(plan=plans(), epoch=st.integers(0, 9))
def test_an_epoch_has_every_sample_once(plan, epoch):
    """Shuffled, one level or two, short last batch or none: exact."""
    batches = batches_of(plan, Order(epoch, 0))
    numbers = joined(batches)
    assert all(len(batch) == plan.batch_size for batch in batches[:-1])
    if plan.drop_last:
        assert len(batches[-1]) == plan.batch_size
        assert len(numbers) == plan.samples // plan.batch_size * plan.batch_size
        assert len(set(numbers)) == len(numbers)
        assert 0 <= min(numbers) <= max(numbers) < plan.samples
    else:
        assert sorted(numbers) == list(range(plan.samples))


@given(plan=plans(), epoch=st.integers(0, 9), data=st.data())
def test_an_epoch_that_began_in_order(plan, epoch, data):
    """Order(epoch, head): head batches as stored, then exactly the samples that remain."""
    head = data.draw(st.integers(0, plan.batches))
    batches = batches_of(plan, Order(epoch, head))
    stored = batches_of(plan, plan.storage_order(epoch))
    assert batches[:head] == stored[:head]
    rest = joined(batches[head:])
    remaining = range(min(head * plan.batch_size, plan.samples), plan.samples)
    if plan.drop_last:
        assert len(set(rest)) == len(rest)
        assert set(rest) <= set(remaining)
        assert [len(batch) for batch in batches] == [plan.batch_size] * plan.batches
    else:
        assert sorted(rest) == list(remaining)


@given(plan=plans())
def test_storage_order(plan):
    """storage_order is what the name says, batch by batch."""
    numbers = joined(batches_of(plan, plan.storage_order(4)))
    assert numbers == list(range(len(numbers)))
    assert len(numbers) == plan.samples or plan.drop_last


@given(shards=st.integers(2, 4), data=st.data(), epoch=st.integers(0, 3))
def test_shards_together_are_one(shards, data, epoch):
    """Batch by batch, the shards' parts are the batch of one plan with n times the batch size."""
    plan = data.draw(plans(shards=shards))
    head = data.draw(st.integers(0, plan.batches))
    parts = [with_shard(plan, k, shards) for k in range(shards)]
    whole = with_shard(plan, 0, 1, batch_size=plan.batch_size * shards)
    assert {part.batches for part in parts} == {whole.batches}
    order = Order(epoch, head)
    for batch in range(whole.batches):
        found = [part.indices(order, batch).tolist() for part in parts]
        assert joined(found) == whole.indices(order, batch).tolist()
        assert max(map(len, found)) - min(map(len, found)) <= 1


@given(plan=plans(echo=3), epoch=st.integers(0, 3))
def test_echo_serves_each_sample_that_often(plan, epoch):
    """With echo, each RAM batch is served so many times, in a new order each time."""
    order = Order(epoch, 0)
    numbers = joined(batches_of(plan, order))
    counts = np.bincount(numbers, minlength=plan.samples)
    if not plan.drop_last:
        assert set(counts.tolist()) == {plan.echo}
    uses = [plan.use(order, batch) for batch in range(plan.batches)]
    assert set(uses) <= set(range(plan.echo))
    seen = {}
    for batch, use in enumerate(uses):
        for sample in plan.indices(order, batch).tolist():
            assert seen.setdefault((sample, use), batch) == batch, "the same draw twice"


def test_echoes_differ_in_order():
    """The second serving of a RAM batch is not a replay of the first."""
    plan = EpochPlan(64, 4, seed=1, window=32, echo=2)
    batches = batches_of(plan, Order(0, 0))
    assert sorted(joined(batches[:8])) == sorted(joined(batches[8:16]))
    assert batches[:8] != batches[8:16]


@pytest.mark.parametrize("draw", DRAWS)
def test_echo_over_shards(draw):
    """With shards, each shard repeats its own samples, and no others."""
    parts = [EpochPlan(60, 3, seed=2, shard=(k, 2), window=24, draw=draw, echo=2) for k in range(2)]
    found = [joined(batches_of(part, Order(1, 0))) for part in parts]
    assert len(found[0]) == len(found[1]) == 60
    assert not set(found[0]) & set(found[1])
    assert sorted(found[0] + found[1]) == sorted([*range(60), *range(60)])


# ---------------------------------------------------------------- RAM batches


@given(plan=plans(echo=3).filter(lambda p: p.window), epoch=st.integers(0, 3), data=st.data())
def test_batches_come_out_of_their_ram_batch(plan, epoch, data):
    """read_window holds what its batches serve, no more, and windows follow one another."""
    head = data.draw(st.integers(0, plan.batches)) if plan.echo == 1 else 0
    order = Order(epoch, head)
    which = [plan.window_of(order, batch) for batch in range(plan.batches)]
    assert which == sorted(which)
    assert which[0] == 0
    assert plan.windows(order) == which[-1] + 1
    for number in set(which):
        window = plan.read_window(order, number)
        served = []
        for batch in [b for b, w in enumerate(which) if w == number]:
            numbers = window.samples[window.rows_of(batch)].tolist()
            assert numbers == plan.indices(order, batch).tolist()
            served += numbers
        assert set(served) == set(window.samples.tolist())
        assert len(window.samples) == len(set(window.samples.tolist())) <= plan.window


def test_windows_read_runs_of_neighbours():
    """draw="windows" reads storage order in runs; draw="global" reads from everywhere."""
    for draw, longest in (("windows", 3), ("global", 1000)):
        plan = EpochPlan(1000, 10, seed=5, window=100, draw=draw)
        for number in range(plan.windows(Order(0, 0))):
            samples = plan.read_window(Order(0, 0), number).samples
            runs = 1 + int((np.diff(samples) != 1).sum())
            assert runs <= longest
            if draw == "global":
                assert runs > 50


def test_windows_are_cut_elsewhere_each_epoch():
    """The samples of one RAM batch are not together again in the next epoch."""
    plan = EpochPlan(100, 5, seed=5, window=25)
    cuts = [
        {frozenset(plan.read_window(Order(epoch, 0), w).samples.tolist()) for w in range(4)}
        for epoch in range(6)
    ]
    assert len(set.union(*cuts)) > 20


def test_a_window_must_hold_whole_batches():
    """This would be a bug in kloaders, so it is an assertion."""
    with pytest.raises(AssertionError, match="whole global batches"):
        EpochPlan(100, 8, seed=0, window=20)


# ---------------------------------------------------------------- frozen


def golden_plans():
    """One plan of each form."""
    return {
        "one level": EpochPlan(10, 4, seed=0),
        "another seed": EpochPlan(10, 4, seed=1),
        "windows": EpochPlan(20, 2, seed=0, window=6),
        "global": EpochPlan(20, 2, seed=0, window=6, draw="global"),
        "echo": EpochPlan(8, 2, seed=0, window=4, echo=2),
        "shard 1 of 2": EpochPlan(10, 2, seed=0, shard=(1, 2)),
        "large": EpochPlan(10**12, 4, seed=0),
    }


FROZEN = {
    ("one level", (0, 0)): [7, 9, 3, 8, 1, 0, 2, 6, 4, 5],
    ("one level", (1, 0)): [9, 4, 7, 3, 8, 5, 1, 0, 6, 2],
    ("one level", (1, 2)): [0, 1, 2, 3, 4, 5, 6, 7, 9, 8],
    ("another seed", (0, 0)): [4, 9, 3, 1, 8, 2, 0, 6, 5, 7],
    ("another seed", (1, 0)): [6, 3, 8, 9, 7, 5, 2, 4, 1, 0],
    ("another seed", (1, 2)): [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ("windows", (0, 0)): [6, 7, 4, 8, 3, 5],
    ("windows", (1, 0)): [3, 2, 4, 0, 1, 19],
    ("windows", (1, 2)): [0, 1, 2, 3, 7, 8],
    ("global", (0, 0)): [3, 17, 0, 12, 9, 14],
    ("global", (1, 0)): [5, 14, 7, 8, 9, 18],
    ("global", (1, 2)): [0, 1, 2, 3, 14, 6],
    ("echo", (0, 0)): [1, 7, 2, 0, 0, 1],
    ("echo", (1, 0)): [1, 4, 2, 3, 4, 2],
    ("echo", (1, 2)): [0, 1, 2, 3, 7, 5],
    ("shard 1 of 2", (0, 0)): [3, 8, 2, 6, 5],
    ("shard 1 of 2", (1, 0)): [7, 3, 1, 0, 2],
    ("shard 1 of 2", (1, 2)): [2, 3, 6, 7, 8],
    ("large", (0, 0)): [
        387507113825,
        455454860136,
        490478342488,
        650788401064,
        379908030218,
        223572938219,
        477538615991,
        251325074734,
        675101175630,
        497833972852,
        572650971093,
        967960273702,
    ],
    ("large", (1, 0)): [
        614469448247,
        72719556515,
        361134328274,
        701896232921,
        410164808219,
        910846766380,
        749505953087,
        768445248536,
        925308284298,
        125783385464,
        678684374545,
        739037329509,
    ],
    ("large", (1, 2)): [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        528970990670,
        581473184546,
        583387042923,
        418080115935,
    ],
}


@pytest.mark.parametrize(("name", "order"), list(FROZEN))
def test_frozen_orders(name, order):
    """The first three batches of each form never change.

    After Grain's golden order test. Whoever changes these numbers breaks the repetition of
    every training that was done before.
    """
    plan = golden_plans()[name]
    found = joined(plan.indices(Order(*order), b).tolist() for b in range(min(3, plan.batches)))
    assert found == FROZEN[name, order]


# ---------------------------------------------------------------- pure, small, fast enough


@given(plan=plans(echo=3), data=st.data())
def test_indices_are_pure(plan, data):
    """The same batch again, from another plan object, after any other calls: the same numbers."""
    calls = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 3), st.integers(0, plan.batches), st.integers(0, plan.batches - 1)
            ),
            min_size=1,
            max_size=12,
        )
    )
    if plan.echo > 1:
        calls = [(epoch, 0, batch) for epoch, _, batch in calls]
    first = [plan.indices(Order(epoch, head), batch).tolist() for epoch, head, batch in calls]
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    again = [
        copy.indices(Order(epoch, head), batch).tolist() for epoch, head, batch in reversed(calls)
    ]
    assert again[::-1] == first


def test_writing_into_indices_harms_nobody():
    """A caller that writes into the answer, where it may, does not change the next one."""
    for plan in (EpochPlan(100, 8, seed=0), EpochPlan(100, 8, seed=0, window=16)):
        for order in (Order(0, 0), plan.storage_order(0), Order(0, 3)):
            expected = batches_of(plan, order)
            for batch in range(plan.batches):
                found = plan.indices(order, batch)
                if found.flags.writeable:
                    found[...] = -1
            assert batches_of(plan, order) == expected


def test_threads_share_a_plan():
    """Eight threads that request the same epoch all get the right order."""
    plan = EpochPlan(20_000, 64, seed=2, window=640)
    order = Order(5, 0)
    expected = batches_of(EpochPlan(20_000, 64, seed=2, window=640), order)
    found = [None] * 8

    def ask(k):
        mine = list(range(plan.batches))
        np.random.default_rng(k).shuffle(mine)
        got = {batch: plan.indices(order, batch).tolist() for batch in mine}
        found[k] = [got[batch] for batch in range(plan.batches)]

    in_threads(ask, 8)
    assert all(one == expected for one in found)


@pytest.mark.parametrize("draw", [None, *DRAWS])
def test_a_billion_samples_need_no_memory(draw):
    """A batch from the middle of 10**9 samples costs less than a megabyte."""
    window = 320_000 if draw else None
    plan = EpochPlan(10**9, 32, seed=1, window=window, draw=draw or "windows")
    tracemalloc.start()
    try:
        for batch in (0, plan.batches // 2, plan.batches - 1):
            numbers = plan.indices(Order(0, 0), batch).tolist()
            assert len(set(numbers)) == 32
            assert 0 <= min(numbers) <= max(numbers) < 10**9
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**20


def test_any_batch_without_the_others(monkeypatch):
    """A batch asks the permutation for one block of positions, not for an epoch of them."""
    asked = []
    inner = Permutation.__call__

    def counting(self, positions):
        asked.append(len(positions))
        return inner(self, positions)

    monkeypatch.setattr(Permutation, "__call__", counting)
    for window in (None, 32_000):
        asked.clear()
        plan = EpochPlan(10**8, 32, seed=12345, window=window)
        plan.indices(Order(0, 0), plan.batches // 3)
        assert sum(asked) <= 2 * 4096


def test_seeds_and_epochs_give_different_orders():
    """Epochs of one seed, and one epoch of several seeds, are all different orders."""
    orders = {
        tuple(joined(batches_of(EpochPlan(30, 5, seed=seed), Order(epoch, 0))))
        for seed in range(8)
        for epoch in range(8)
    }
    assert len(orders) == 64
