"""Threads or the caller's thread: told by a clock that the test moves."""

from __future__ import annotations

import pytest

from kloaders.engine.inline_trial import CHEAP_SECONDS, DEAR_SECONDS, Choice

BETWEEN = (CHEAP_SECONDS * DEAR_SECONDS) ** 0.5


class Run:
    """Batches handed out one after another, each way at its own speed."""

    def __init__(
        self, threads: float, here: float, cost: float = BETWEEN, waking: float = 0.0
    ) -> None:
        self.choice, self.now = Choice(), 0.0
        self.threads, self.here, self.cost = threads, here, cost
        self.waking, self.woken = waking, 0.0  # seconds in which threads that woke are slow
        self.tried: set[bool] = set()

    def batches(self, count: int, gap_every: int = 0) -> Run:
        for k in range(count):
            inline = self.choice.inline(self.cost)
            self.tried.add(inline)
            self.now += self.here if inline else self.threads
            if inline:
                self.woken = self.now
            elif self.now < self.woken + self.waking:
                self.now += self.threads
            if gap_every and k % gap_every == 0:  # an epoch ends
                self.now += 0.1
            self.choice.record_delivery(self.now, self.cost)
        return self


@pytest.mark.parametrize(("threads", "here"), [(3e-4, 2e-4), (2e-4, 3e-4)])
def test_the_faster_way_is_taken(threads: float, here: float) -> None:
    """Both ways are tried, and then the one that hands out batches faster stays."""
    run = Run(threads, here).batches(2500)
    assert run.tried == {False, True}
    assert run.choice.inline(BETWEEN) is (here < threads)
    assert run.choice.seconds == pytest.approx((threads, here))


def test_threads_stay_where_nothing_is_gained() -> None:
    """A training that waits for its model sees both ways alike: the look-ahead is worth having."""
    assert not Run(1e-2, 1e-2).batches(2500).choice.inline(BETWEEN)


def test_what_is_clearly_slower_is_not_tried_twice() -> None:
    """It costs as few batches as it can."""
    run = Run(2e-4, 5e-4)
    ways = []
    for _ in range(3000):
        ways.append(run.choice.inline(BETWEEN))
        run.batches(1)
    assert sum(ways) < 50


def test_threads_have_time_to_wake() -> None:
    """For their first hundredths of a second, which may be many batches, they are not themselves."""
    assert not Run(2e-4, 3e-4, waking=0.03).batches(2500).choice.inline(BETWEEN)
    assert Run(2e-4, 3e-4, waking=1.0).batches(2500).choice.inline(BETWEEN)


def test_a_slow_model_decides_nothing() -> None:
    """Steps of 20 ms differ by more than what a small batch costs, and hide it."""
    assert not Run(21e-3, 20e-3).batches(2500).choice.inline(BETWEEN)


@pytest.mark.parametrize("every", [60, 90, 157, 360])
def test_the_end_of_an_epoch_decides_nothing(every: int) -> None:
    """A pause of 0.1 s between two epochs counts for neither way."""
    assert Run(3e-4, 2e-4).batches(4000, gap_every=every).choice.inline(BETWEEN)
    if every > 300:  # while threads are tried, an epoch ends once at most
        assert not Run(2e-4, 3e-4).batches(4000, gap_every=every).choice.inline(BETWEEN)


def test_what_is_cheap_or_dear_is_not_tried() -> None:
    """Cheap batches are made where they are asked for, dear ones ahead, from the first on."""
    assert Run(1e-3, 1e-5, CHEAP_SECONDS / 2).batches(500).tried == {True}
    assert Run(1e-3, 1e-5, DEAR_SECONDS * 2).batches(500).tried == {False}


def test_another_speed_is_another_trial() -> None:
    """An epoch out of a cache is tried anew: what was true while files were decoded is not any more."""
    run = Run(2e-4, 3e-4).batches(2500)
    assert not run.choice.inline(BETWEEN)
    run.threads, run.here = 9e-4, 1e-4
    assert run.batches(3000).choice.inline(BETWEEN)


def test_what_a_batch_seems_to_cost_differs_with_the_way() -> None:
    """A cost that jumps with the way it is measured in does not start the trial over and over."""
    choice, now = Choice(), 0.0
    for _ in range(2500):
        inline = choice.inline(BETWEEN)
        now += 2e-4 if inline else 3e-4
        choice.record_delivery(now, CHEAP_SECONDS * 0.6 if inline else DEAR_SECONDS * 2)
    assert choice.seconds is None  # that dear, no trial begins at all
    for _ in range(2500):
        inline = choice.inline(BETWEEN)
        now += 2e-4 if inline else 3e-4
        choice.record_delivery(now, CHEAP_SECONDS * 0.6 if inline else DEAR_SECONDS * 0.9)
    assert choice.seconds is not None
    assert choice.inline(CHEAP_SECONDS * 0.6)
