"""What has batches made: in order, ahead, again after a release, and in the child of a fork."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

from kloaders.engine.runner import key_of, keys_of
from kloaders.keras_api.tickets import Request
from kloaders.plan.epoch import Order
from tests.support.sources import Numbered, steps_of

SAMPLES = 22  # five batches of four, and one of two


def labels(batches: Any) -> list[list[int]]:
    """The labels of each batch; x holds the same."""
    found = []
    for x, y in batches:
        assert x[:, 0].tolist() == y.tolist()
        found.append(y.tolist())
    return found


STORED = [list(range(k, min(k + 4, SAMPLES))) for k in range(0, SAMPLES, 4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_order_from_a_batch_on(runner, workers):
    made = runner(Numbered(SAMPLES), workers=workers)
    assert labels(made.batches(made.order_of(0, False), 0)) == STORED
    assert labels(made.batches(made.order_of(5, None), 3)) == STORED[3:]
    shuffled = labels(made.batches(made.order_of(1, True), 0))
    assert sorted(itertools.chain(*shuffled)) == list(range(SAMPLES))
    assert shuffled != STORED
    assert labels(made.batches(made.order_of(1, True), 2)) == shuffled[2:]


def test_batches_are_made_ahead(runner):
    """While batch 0 is looked at, as many as may lie ahead are read, without another request."""
    reached = threading.Event()

    def make(number: int) -> Any:
        if number == 15:
            reached.set()
        return steps_of(number)

    source = Numbered(SAMPLES, make=make)
    made = runner(source, workers=1, max_queue_size=3)
    batches = made.batches(made.order_of(0, False), 0)
    assert labels([next(batches)]) == STORED[:1]
    assert reached.wait(30)
    assert set(source.reads) == set(range(16))
    assert labels(batches) == STORED[1:]
    assert sorted(source.reads[1:]) == list(range(SAMPLES))  # the first one is the specs'


def test_a_release_frees_all_and_the_next_request_starts_it_again(runner):
    source = Numbered(SAMPLES)
    closed = []
    source.close = lambda: closed.append(1)  # type: ignore[method-assign]
    made = runner(source, workers=1)
    order = made.order_of(0, False)
    assert labels(made.batches(order, 0)) == STORED
    assert made.engine is not None
    made.release()
    assert (made.engine, made.resting, len(closed)) == (None, True, 1)
    assert labels(made.batches(order, 0)) == STORED
    assert made.engine is not None


def test_who_asked_before_a_release_wakes_no_threads(runner):
    """TensorFlow reads on for a moment when a fit has ended."""
    made = runner(Numbered(SAMPLES), workers=1)
    request = Request(made.order_of(0, False), 1, True)
    before = made.released
    made.release()
    assert labels([made.batch(request, before)]) == [STORED[1]]
    assert made.engine is None
    assert labels([made.batch(request, made.released)]) == [STORED[1]]
    assert made.engine is not None


def test_a_lone_look_at_rest_wakes_no_threads(runner):
    made = runner(Numbered(SAMPLES), workers=1)
    made.release()
    lone = Request(made.order_of(0, False), 5, False)
    assert labels([made.batch(lone, made.released)]) == [STORED[5]]
    assert made.engine is None


def test_after_a_fork_nothing_of_the_parent_runs(runner):
    made = runner(Numbered(SAMPLES), workers=1)
    order = made.order_of(0, False)
    assert labels(made.batches(order, 0)) == STORED
    engine, pool, lock = made.engine, made.pool, made.specs.lock
    with lock:  # by a thread that the child does not have
        made.after_fork()
        assert made.specs.lock is not lock
    assert made.engine is None
    assert made.pool is not pool
    assert labels(made.batches(order, 0)) == STORED
    engine.close()


def test_another_seed(runner):
    """Order and random numbers are those of a loader that had it from the beginning."""

    def noisy(x: Any, y: Any, rng: Any) -> Any:
        return x + np.float32(rng.random()), y

    def of(made: Any) -> Any:
        return [
            part.tolist() for batch in made.batches(made.order_of(0, True), 0) for part in batch
        ]

    first, second = (runner(Numbered(SAMPLES), seed=k, transform=noisy) for k in (1, 2))
    assert of(first) != of(second)
    first.release()
    first.reseed(2, None)
    assert of(first) == of(second)


def test_a_row_is_known_before_any_batch(runner):
    """batch_transform is tried once, on a batch of the real size."""
    sizes = []

    def twice(x: Any, y: Any, rng: Any) -> Any:
        sizes.append(len(x))
        return np.concatenate([x, x], axis=1), {"label": y}

    source = Numbered(SAMPLES)
    made = runner(source, batch_transform=twice)
    for _ in range(2):
        x, y = made.delivered_spec
        assert (x.shape, y["label"].shape) == ((4,), ())
    assert sizes == [4]
    assert set(source.reads) == {0}


def test_dimensions_that_vary_are_not_fixed(runner):
    """Of a source that says so; a transform may have made them one."""
    source = Numbered(SAMPLES, make=lambda k: steps_of(k, 1 + k % 3))
    source.delivered = lambda spec: ("unknown", spec[1])  # type: ignore[method-assign]
    assert runner(source).delivered_spec[0] == "unknown"
    fixed = runner(source, transform=lambda x, y, rng: (x[:1], y))
    assert fixed.delivered_spec[0].shape == (1,)


@pytest.mark.parametrize(("bytes_each", "depth"), [(1, 10), (2**26, 4), (2**28, 1), (2**40, 1)])
def test_few_large_batches_are_made_ahead(runner, bytes_each, depth):
    """At most max_queue_size of them, 256 MiB, and at least one."""
    assert runner(Numbered(SAMPLES)).depth(bytes_each) == depth


def test_orders_of_an_epoch(runner):
    made = runner(Numbered(SAMPLES))
    assert made.order_of(2, True) == Order(2, 0)
    assert made.order_of(2, False) == made.order_of(2, None) == Order(2, 6)


def test_one_name_for_a_batch_of_storage_order():
    """Where an order begins in storage order its first batches are those of any such order."""
    left, stored = Order(1, 2), Order(1, 6)
    assert key_of(left, 1) == key_of(stored, 1)
    assert key_of(left, 2) == (left, 2)
    assert list(keys_of(left, 0, 4)) == [key_of(left, k) for k in range(4)]
    assert list(keys_of(left, 3, 5)) == [(left, 3), (left, 4)]
    assert list(keys_of(stored, 4, 6)) == [key_of(stored, k) for k in (4, 5)]
