"""Several samples from each file: each once, a file in one RAM batch, and frozen per seed."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from kloaders.plan.epoch import Order
from kloaders.plan.shared_reads import SharedReadsPlan


@st.composite
def plans(draw):
    """Plans of all shards, the head of an order, and an epoch."""
    copies, size = draw(st.integers(2, 5)), draw(st.integers(1, 7))
    shards = draw(st.integers(1, 3))
    step = int(np.lcm(copies, size * shards))
    options = {
        "samples": copies * draw(st.integers(shards, 40)),
        "batch_size": size,
        "seed": draw(st.integers(0, 99)),
        "copies": copies,
        "draw": draw(st.sampled_from(["files", "windows"])),
        "window": draw(st.sampled_from([None, step, 3 * step])),
    }
    tail = options["samples"] % (size * shards)
    assume(not 0 < tail < shards)  # which a loader refuses
    head, epoch = draw(st.sampled_from([0, 0, 1, 3, 10**6])), draw(st.integers(0, 3))
    return [SharedReadsPlan(shard=(k, shards), **options) for k in range(shards)], head, epoch


def served(parts, order, first=0):
    """(file, which sample of it) of all shards, batch after batch."""
    return [
        (int(file), int(sample))
        for batch in range(first, parts[0].count(order))
        for part in parts
        for file, sample in zip(part.indices(order, batch), part.use(order, batch), strict=True)
    ]


@given(plans())
def test_every_sample_of_every_file_comes_once(drawn):
    parts, head, epoch = drawn
    order = Order(epoch, min(head, parts[0].batches))
    found = served(parts, order)
    every = [(k // parts[0].copies, k % parts[0].copies) for k in range(parts[0].samples)]
    assert sorted(found) == every
    if order.head == parts[0].batches:
        assert found == every


@given(plans())
def test_a_ram_batch_has_the_files_of_its_batches_each_once(drawn):
    parts, head, epoch = drawn
    for part in parts:
        if part.window is None:
            continue
        order = Order(epoch, min(head, part.batches))
        for number in range(part.windows(order)):
            window = part.read_window(order, number)
            assert len(set(window.samples.tolist())) == len(window.samples)
            batches = range(window.first_batch, window.first_batch + len(window.starts) - 1)
            for batch in batches:
                assert part.window_of(order, batch) == number
                files = window.samples[window.rows_of(batch)]
                np.testing.assert_array_equal(files, part.indices(order, batch))


@given(plans())
def test_a_file_is_in_one_ram_batch(drawn):
    """Of a shuffled epoch, and of one in storage order, in each shard."""
    parts, head, epoch = drawn
    for part in parts:
        if part.window is None:
            continue
        order = Order(epoch, part.batches if head else 0)
        read = [part.read_window(order, number).samples for number in range(part.windows(order))]
        files = np.concatenate(read).tolist()
        # Neighbours that are cut from where storage order ends go on at its beginning.
        twice = len(files) - len(set(files))
        assert twice <= (part.draw == "windows")


@given(plans(), st.data())
def test_an_epoch_goes_on_at_the_very_sample(drawn, data):
    """At any batch, cut into other batches and shards; the samples that are left come in order."""
    parts, head, epoch = drawn
    order = Order(epoch, min(head, parts[0].batches))
    first = data.draw(st.integers(0, parts[0].batches - 1))
    left = served(parts, order, first)
    state = parts[0].state(order, first)
    again = [SharedReadsPlan(**arguments(part)) for part in parts]
    going_on, batch = again[0].position(state)
    assert served(again, going_on, batch) == left
    other = arguments(parts[0])
    size = data.draw(st.integers(1, 5))
    other |= {"batch_size": size, "shard": (0, 1)}
    if other["window"] is not None:
        other["window"] = 2 * int(np.lcm(size, parts[0].copies))
    one = [SharedReadsPlan(**other)]
    going_on, batch = one[0].position(state)
    assert served(one, going_on, batch) == left


def arguments(plan):
    names = ("samples", "batch_size", "seed", "shard", "window", "draw", "copies")
    return {name: getattr(plan, name) for name in names}


def test_samples_of_a_file_lie_apart():
    """A shuffled RAM batch is as mixed as one of independent samples."""
    plan = SharedReadsPlan(4000, 20, seed=1, copies=4, draw="files", window=1000)
    order = plan.shuffled_order(0)
    both = sum(20 - len(set(plan.indices(order, batch).tolist())) for batch in range(plan.batches))
    # Of the 190 pairs in a batch three in 999 are of one file: 114 in 200 batches.
    assert 60 < both < 180
    first = [set(plan.read_window(Order(epoch, 0), 0).samples.tolist()) for epoch in range(2)]
    assert len(first[0] & first[1]) < 120  # files are drawn from all, anew in each epoch


def test_the_order_is_frozen():
    """A seed gives the same samples in every later version."""
    plan = SharedReadsPlan(24, 6, seed=7, copies=3, draw="files", window=12)
    found = served([plan], plan.shuffled_order(2))
    assert [10 * file + sample for file, sample in found] == [
        32,
        30,
        61,
        62,
        40,
        41,
        42,
        52,
        31,
        50,
        51,
        60,
        20,
        72,
        12,
        71,
        1,
        70,
        10,
        0,
        2,
        22,
        11,
        21,
    ]


def test_another_number_of_samples_is_another_order():
    """A saved position tells plans apart."""
    plans = [SharedReadsPlan(24, 4, seed=7, copies=k, draw="files", window=24) for k in (2, 3)]
    assert plans[0].made_for() != plans[1].made_for()
    assert plans[0].made_for()["samples_per_file"] == 2
