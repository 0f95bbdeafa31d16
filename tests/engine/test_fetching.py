"""The engine that announces what batches will read: which, when, and that all of it is let go."""

import threading

import numpy as np
import pytest

from kloaders.engine import fetching
from kloaders.engine.fetching import FetchingEngine


class Claim:
    def __init__(self, owner, key):
        self.owner, self.key = owner, key

    def release(self):
        self.owner.released.append(self.key)


class Announced:
    """What was announced, and released."""

    def __init__(self):
        self.keys, self.released = [], []

    def __call__(self, key):
        self.keys.append(key)
        return [Claim(self, key)]


class Build:
    rows = 2

    def __init__(self, key):
        self.key = key

    def fill(self, start, stop):
        pass

    def finish(self):
        return self.key


def make(key, wait):
    return Build(key)


@pytest.fixture
def announced():
    return Announced()


def engine_of(announced, workers=2, rows=2, depth=2):
    return FetchingEngine(workers, 2, depth, announce=announced, batch_rows=rows)


def test_more_is_announced_than_is_made(announced, monkeypatch):
    """A network needs many requests in flight, whatever few batches lie ready."""
    monkeypatch.setattr(fetching, "AHEAD_SAMPLES", 10)
    engine = engine_of(announced)
    assert engine.get(0, iter(range(1, 100)), make) == 0
    assert announced.keys == [0, 1, 2, 3, 4, 5]
    assert announced.released == [0]
    assert engine.get(1, iter(range(2, 100)), make) == 1
    assert announced.keys == [0, 1, 2, 3, 4, 5, 6]
    engine.close()
    assert sorted(announced.released) == [0, 1, 2, 3, 4, 5, 6]


def test_what_nobody_will_ask_for_is_let_go(announced, monkeypatch):
    """A validation begins, or another epoch."""
    monkeypatch.setattr(fetching, "AHEAD_SAMPLES", 4)
    engine = engine_of(announced)
    engine.get("a", iter(["b", "c", "d"]), make)
    engine.get("x", iter(["y", "z"]), make)
    assert sorted(announced.released) == ["a", "b", "c", "x"]
    engine.close()


def test_nothing_is_announced_without_threads(announced):
    """workers=0: nothing is made ahead, and nothing fetched."""
    engine = engine_of(announced, workers=0)
    assert engine.get(0, iter(range(1, 9)), make) == 0
    assert engine.get(5, None, make) == 5
    assert announced.keys == []
    engine.close()


def test_a_batch_that_is_not_in_a_row_announces_nothing(announced):
    engine = engine_of(announced)
    assert engine.get(7, None, make) == 7
    assert announced.keys == []
    engine.close()


def test_an_announcement_that_fails_is_left_to_the_batch(announced):
    def fail(key):
        raise ValueError(key)

    engine = engine_of(fail)
    assert engine.get(0, iter([1]), make) == 0
    engine.close()


def test_who_fills_a_row_gives_up_when_the_engine_is_closed():
    """A batch that waits for a place that is away does not keep the engine from closing."""
    waiting, gave_up = threading.Event(), threading.Event()

    class Waiting(Build):
        def fill(self, start, stop):
            wanted = vars(fetching_state())["wanted"]
            waiting.set()
            while wanted():
                pass
            gave_up.set()

    def fetching_state():
        from kloaders.places import fetching as stage

        return stage._waiter

    engine = engine_of(Announced(), workers=1)
    engine.prepare(iter([0]), lambda key, wait: engine._fetching(Waiting(key)))
    assert waiting.wait(20)
    engine.close()
    assert gave_up.wait(20)


def test_batches_are_those_of_a_plain_engine(announced):
    engine = engine_of(announced)
    got = [engine.get(k, iter(range(k + 1, 50)), make) for k in range(50)]
    np.testing.assert_array_equal(got, range(50))
    engine.close()
    assert sorted(announced.released) == sorted(announced.keys)
