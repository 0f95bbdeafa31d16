"""Batches made ahead: how many, in which order, by whom, and what happens when one fails.

Builds here are numbers that wait at a gate where the test says so; nothing is timed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.engine import lookahead
from kloaders.engine.lookahead import Engine
from tests.support.recording import our_threads
from tests.support.threads import in_thread

DEAR, CHEAP = 1.0, 1e-9  # seconds a row, as they are reported to `Engine.measured`


class Asked:
    """The `make` of an engine. Batch k is "batch k", made of `rows` rows.

    gates: batches that are filled once their event is set. broken: batches that fail, and where
    ("make", "fill" or "finish"). not_yet: batches that cannot be begun ahead.
    """

    def __init__(self, rows: int = 1) -> None:
        self.rows = rows
        self.begun: list[Any] = []
        self.filled: list[Any] = []
        self.parts: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.makers: dict[Any, str] = {}
        self.gates: dict[Any, threading.Event] = {}
        self.broken: dict[Any, str] = {}
        self.not_yet: set[Any] = set()
        self.changed = threading.Condition()

    def __call__(self, key: Any, wait: bool) -> Build | None:
        if not wait and key in self.not_yet:
            return None
        self.fail(key, "make")
        self.begun.append(key)
        return Build(self, key)

    def fail(self, key: Any, where: str) -> None:
        if self.broken.get(key) == where:
            raise LookupError(f"batch {key} fails in {where}")

    def gate(self, key: Any) -> threading.Event:
        self.gates[key] = threading.Event()
        return self.gates[key]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=30)


class Build:
    """What the engine works on."""

    def __init__(self, asked: Asked, key: Any) -> None:
        self.asked, self.key, self.rows = asked, key, asked.rows

    def fill(self, start: int, stop: int) -> None:
        asked = self.asked
        with asked.changed:
            asked.filled.append(self.key)
            asked.parts.append((start, stop))
            asked.threads.add(threading.current_thread().name)
            asked.makers[self.key] = threading.current_thread().name
            asked.changed.notify_all()
        if self.key in asked.gates:
            assert asked.gates[self.key].wait(30)
        asked.fail(self.key, "fill")

    def finish(self) -> str:
        self.asked.fail(self.key, "finish")
        return f"batch {self.key}"


@pytest.fixture
def engine() -> Iterator[Callable[..., Engine]]:
    """engine(workers, depth) -> an Engine, closed when the test ends."""
    made: list[Engine] = []

    def _engine(workers: int | None = 1, depth: int = 3, cores: int = 2) -> Engine:
        made.append(Engine(workers, cores, depth))
        return made[-1]

    yield _engine
    for one in made:
        one.close()


# ---------------------------------------------------------------- which batches, in which order


@pytest.mark.parametrize("workers", [0, 1, 3, None])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_each_request_gets_its_batch(engine: Any, workers: int | None, depth: int) -> None:
    """Requests in the order foretold, out of it, and twice: always the batch of that key."""
    asked, made = Asked(rows=5), engine(workers, depth)
    order = [0, 1, 2, 7, 3, 4, 4, 0, 8, 9]
    for place, key in enumerate(order):
        assert made.get(key, order[place + 1 :], asked) == f"batch {key}"
    assert made.batches == len(order)


@pytest.mark.parametrize("depth", [1, 3])
def test_look_ahead_is_bounded(engine: Any, depth: int) -> None:
    """No more than `depth` batches are begun ahead of the one asked for, step by step."""
    asked, made = Asked(), engine(2, depth)
    for key in range(20):
        made.get(key, range(key + 1, 20), asked)
        assert asked.begun == list(range(min(key + depth + 1, 20)))


def test_look_ahead_looks_no_further(engine: Any) -> None:
    """Of what is foretold only `depth` keys are drawn: an epoch may have millions of batches."""
    asked, made = Asked(), engine(1, 3)
    drawn = []

    def upcoming() -> Iterator[int]:
        for key in itertools.count(1):
            assert key < 100, "all of an epoch is drawn for each batch"
            drawn.append(key)
            yield key

    assert made.get(0, upcoming(), asked) == "batch 0"
    assert len(drawn) <= 4


def test_batches_are_made_in_the_order_foretold(engine: Any) -> None:
    """One thread fills the batch asked for first, then those ahead, in their order."""
    asked, made = Asked(), engine(1, 4)
    made.get(5, [9, 2, 7, 1, 3], asked)
    asked.wait_until(lambda: len(asked.filled) == 5)
    assert asked.filled == [5, 9, 2, 7, 1]


def test_what_will_not_be_asked_for_is_dropped(engine: Any) -> None:
    """When the order changes, batches of the old one are not made any more."""
    asked, made = Asked(), engine(1, 3)
    gate = asked.gate(1)
    made.get(0, [1, 2, 3], asked)
    asked.wait_until(lambda: 1 in asked.filled)  # the only thread stands at the gate
    waiting, outcome = in_thread(lambda: made.get(10, [11, 12], asked))
    gate.set()
    waiting.join(30)
    assert outcome == ["batch 10"]
    asked.wait_until(lambda: 12 in asked.filled)
    assert not {2, 3} & set(asked.filled)
    assert made.get(2, [], asked) == "batch 2"


def test_none_leaves_what_lies_ahead(engine: Any) -> None:
    """A batch asked for out of turn does not cost those that are made already."""
    asked, made = Asked(), engine(1, 3)
    made.get(0, [1, 2, 3], asked)
    assert made.get(20, None, asked) == "batch 20"
    for key in (1, 2, 3):
        made.get(key, None, asked)
    assert sorted(asked.begun) == [0, 1, 2, 3, 20]


def test_what_cannot_be_begun_is_not_jumped(engine: Any) -> None:
    """Where a batch cannot be begun yet, those behind it wait too; asked for, it is made."""
    asked, made = Asked(), engine(1, 3)
    asked.not_yet = {2}
    made.get(0, [1, 2, 3], asked)
    assert asked.begun == [0, 1]
    assert made.get(2, [3], asked) == "batch 2"
    assert 3 in asked.begun


@given(
    requests=st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9)))),
    workers=st.sampled_from([0, 1, 3, None]),
    depth=st.integers(0, 4),
)
def test_any_requests(requests: Any, workers: int | None, depth: int) -> None:
    """Whatever is foretold, true or not, each request gets its own batch."""
    asked, made = Asked(rows=3), Engine(workers, 2, depth)
    for key, upcoming in requests:
        assert made.get(key, upcoming, asked) == f"batch {key}"
    made.close()


def test_callers_share_an_engine(engine: Any) -> None:
    """Four threads ask at once: each gets what it asked for."""
    asked, made = Asked(rows=2), engine(2, 3)

    def ask(first: int) -> list[str]:
        return [made.get(k, range(k + 4, k + 12, 4), asked) for k in range(first, 80, 4)]

    running = [in_thread(lambda first=first: ask(first)) for first in range(4)]
    for first, (thread, outcome) in enumerate(running):
        thread.join(60)
        assert outcome == [[f"batch {k}" for k in range(first, 80, 4)]]


def test_callers_are_counted_together(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gets its batch while another one adds up its waiting time counts too."""
    asked, made, here = Asked(), engine(0), threading.current_thread()
    seconds, looks = itertools.count(), itertools.count()

    def clock() -> float:
        """A second per look; the fourth look of this thread is when it has its batch."""
        if threading.current_thread() is here and next(looks) == 3:
            other, _ = in_thread(lambda: made.get(1, None, asked))
            other.join(30)
        return float(next(seconds))

    monkeypatch.setattr(lookahead, "time", SimpleNamespace(perf_counter=clock))
    assert made.get(0, None, asked) == "batch 0"
    assert made.batches == 2
    assert made.wait_seconds == (7 - 0) + (6 - 3)


# ---------------------------------------------------------------- in which thread


@given(rows=st.integers(1, 200), workers=st.integers(1, 8), seconds=st.floats(1e-9, 1))
def test_each_row_is_filled_once(rows: int, workers: int, seconds: float) -> None:
    """However a batch is cut among the threads, the parts are all of it, and none is empty."""
    asked, made = Asked(rows), Engine(workers, 2, 0)
    made.measured(seconds * rows, rows)
    assert made.get(0, None, asked) == "batch 0"
    filled = sorted(row for start, stop in asked.parts for row in range(start, stop))
    assert filled == list(range(rows))
    assert all(start < stop for start, stop in asked.parts)
    assert len(asked.parts) <= workers
    made.close()


def test_without_threads(engine: Any, nothing_running: None) -> None:
    """workers=0: each batch when it is asked for, in the caller's thread, and nothing ahead."""
    asked, made = Asked(rows=4), engine(0, 5)
    for key in range(4):
        assert made.get(key, range(key + 1, 9), asked) == f"batch {key}"
        assert asked.begun == list(range(key + 1))
    assert asked.threads == {"MainThread"}
    assert asked.parts == [(0, 4)] * 4
    assert not our_threads()
    assert "workers=0" in made.why(4)


def test_cheap_batches_are_made_where_they_are_asked_for(engine: Any) -> None:
    """Left to itself, an engine stops using threads once batches cost less than handing over."""
    asked, made = Asked(rows=4), engine(None, 3)
    assert not made.inline(4)  # nothing measured yet: the first batch must not block what follows
    made.measured(4 * CHEAP, 4)
    assert made.inline(4)
    assert made.get(0, [1, 2, 3], asked) == "batch 0"
    assert asked.threads == {"MainThread"}
    assert asked.begun.count(0) == 1
    assert asked.filled == [0]
    assert "caller's thread" in made.why(4)


def test_dear_batches_are_made_by_threads(engine: Any) -> None:
    """When batches become dear again, look-ahead comes back: the newest costs count most."""
    asked, made = Asked(rows=4), engine(None, 3)
    made.measured(4 * CHEAP, 4)
    assert made.inline(4)
    assert not made.inline(10**9)  # so many rows would take long
    made.measured(4 * DEAR, 4)
    assert not made.inline(4)
    assert made.get(0, [1, 2, 3], asked) == "batch 0"
    assert asked.begun == [0, 1, 2, 3]
    assert asked.threads == {"kloaders"}
    for _ in range(200):
        made.measured(4 * CHEAP, 4)
    assert made.inline(4)


def test_who_asks_for_threads_gets_them(engine: Any) -> None:
    """With workers= given, batches are made ahead however cheap they are."""
    asked, made = Asked(rows=4), engine(2, 3)
    made.measured(4 * CHEAP, 4)
    assert not made.inline(4)
    made.get(0, [1, 2, 3], asked)
    assert asked.begun == [0, 1, 2, 3]
    assert "MainThread" not in asked.threads


def sharing(made: Engine) -> None:
    """Batches seem to be so cheap that who asks for one works as well."""
    made.measured = lambda seconds, rows: None  # not what these batches really take
    made._row_seconds = 1e-4


def test_who_waits_for_a_cheap_batch_makes_the_next(engine: Any) -> None:
    """One thread fewer, and the caller instead: it makes what is queued until its own is there."""
    asked, made = Asked(), engine(None, 3)
    sharing(made)
    opened = asked.gate(0)

    class Opening(Build):
        def finish(self) -> str:
            if self.key == 1:
                opened.set()
            return super().finish()

    def make(key: Any, wait: bool) -> Any:
        asked(key, wait)
        return Opening(asked, key)

    made.prepare([0], make)
    asked.wait_until(lambda: 0 in asked.makers)
    assert made.get(0, [1], make) == "batch 0"
    assert asked.makers == {0: "kloaders", 1: "MainThread"}
    assert made.get(1, [], make) == "batch 1"
    assert asked.begun == [0, 1]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 3)])
def test_who_asks_counts_as_one_of_the_threads(
    engine: Any, cores: int, threads: int, nothing_running: None
) -> None:
    """Of cheap batches no more are made at a time than there are cores."""
    asked, made = Asked(), engine(None, 10, cores)
    sharing(made)
    gates = [asked.gate(key) for key in range(1, cores + 2)]
    assert made.get(0, [], asked) == "batch 0"
    made.prepare(range(1, cores + 2), asked)
    asked.wait_until(lambda: len(asked.makers) == 1 + threads)
    assert made.workers._state.busy == threads
    said = "including the calling thread" in made.why(1)
    assert said == (cores > 1)
    for gate in gates:
        gate.set()
    for key in range(1, cores + 2):
        assert made.get(key, None, asked) == f"batch {key}"


def test_who_waits_for_a_dear_batch_only_waits(engine: Any) -> None:
    """It would hold up the model for as long as the next one takes."""
    asked, made = Asked(), engine(None, 3)
    made.measured = lambda seconds, rows: None
    made._row_seconds = DEAR
    for key in range(6):
        assert made.get(key, range(key + 1, 9), asked) == f"batch {key}"
    assert asked.threads == {"kloaders"}


def test_an_interrupt_while_another_batch_is_made(engine: Any) -> None:
    """Ctrl-C ends the request during which it came, and that batch is made anew."""
    asked, made = Asked(), engine(None, 3)
    sharing(made)
    opened = asked.gate(0)

    class Interrupted(Build):
        def finish(self) -> str:
            if self.key == 1 and asked.begun.count(1) == 1:
                opened.set()
                raise KeyboardInterrupt
            return super().finish()

    def make(key: Any, wait: bool) -> Any:
        asked(key, wait)
        return Interrupted(asked, key)

    made.prepare([0], make)
    asked.wait_until(lambda: 0 in asked.makers)
    with pytest.raises(KeyboardInterrupt):
        made.get(0, [1], make)
    assert made.get(1, [], make) == "batch 1"
    assert made.get(0, [], make) == "batch 0"


@pytest.mark.parametrize(("cores", "few"), [(1, 2), (2, 3), (4, 5), (64, 10)])
def test_few_cheap_batches_are_made_ahead(engine: Any, cores: int, few: int) -> None:
    """One more than there are threads; all that are allowed as soon as a batch takes long."""
    asked, made = Asked(rows=4), engine(None, 10, cores)
    made.measured = lambda seconds, rows: None  # what these batches really take
    made._row_seconds = DEAR
    made.get(0, range(1, 100), asked)
    assert asked.begun == list(range(11))
    made._row_seconds = 1e-4  # so cheap that threads are tried
    made.get(11, range(12, 100), asked)
    assert asked.begun == list(range(12 + few))
    assert f"{few} batches ahead" in made.why(4)
    made._row_seconds = DEAR
    made.get(12, range(13, 100), asked)
    assert asked.begun == list(range(23))


def test_what_lies_ahead_stays_when_batches_turn_out_cheap(engine: Any) -> None:
    """No batch is made twice because fewer are to be ahead."""
    asked, made = Asked(rows=4), engine(None, 10)
    made.measured = lambda seconds, rows: None
    made._row_seconds = DEAR
    made.get(0, range(1, 100), asked)
    made._row_seconds = 1e-4
    for key in range(1, 30):
        assert made.get(key, range(key + 1, 100), asked) == f"batch {key}"
    assert asked.begun == list(range(33))


@pytest.mark.parametrize("workers", [1, 3])
def test_who_asks_for_threads_gets_all_ahead(engine: Any, workers: int) -> None:
    """With workers= given, max_queue_size is what it says."""
    asked, made = Asked(rows=4), engine(workers, 10)
    made.measured(4 * CHEAP, 4)
    made.get(0, range(1, 100), asked)
    assert asked.begun == list(range(11))


def test_empty_measurements_change_nothing(engine: Any) -> None:
    """A batch of which no row was made says nothing about costs."""
    made = engine(None)
    made.measured(4 * CHEAP, 4)
    made.measured(1.0, 0)
    assert made.inline(4)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("where", ["make", "fill", "finish"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_reaches_who_asks(engine: Any, where: str, workers: int) -> None:
    """Whatever goes wrong in a batch is raised where it is asked for, each time, and only there."""
    asked, made = Asked(rows=3), engine(workers, 2)
    asked.broken = {2: where}
    assert made.get(0, [1, 2], asked) == "batch 0"
    assert made.get(1, [2, 3], asked) == "batch 1"
    for _ in range(2):
        with pytest.raises(LookupError, match=f"batch 2 fails in {where}"):
            made.get(2, [3, 4], asked)
    assert made.get(3, [4, 5], asked) == "batch 3"


@pytest.mark.parametrize("where", ["make", "fill", "finish"])
def test_an_error_met_ahead_is_tried_again(engine: Any, where: str) -> None:
    """A batch that failed before it was asked for may load by now."""
    asked, made = Asked(), engine(1, 2)
    asked.broken = {1: where}
    made.get(0, [1, 2], asked)
    if where != "make":
        asked.wait_until(lambda: 2 in asked.filled)  # then batch 1 has failed
    asked.broken.clear()
    assert made.get(1, [2], asked) == "batch 1"


def test_the_other_parts_of_a_failed_batch_are_not_made(engine: Any) -> None:
    """After the first part of a batch has failed, the rest is not worth the work."""
    asked, made = Asked(rows=4), engine(1, 0)
    made.workers.count, made.count = 1, 4  # cut in four, one after another
    asked.broken = {0: "fill"}
    with pytest.raises(LookupError):
        made.get(0, None, asked)
    assert asked.parts == [(0, 1)]


# ---------------------------------------------------------------- cancel and close


def test_cancel_drops_what_lies_ahead(engine: Any) -> None:
    """After cancel, batches are made anew when they are asked for."""
    asked, made = Asked(), engine(1, 2)
    made.get(0, [1, 2], asked)
    asked.wait_until(lambda: 2 in asked.filled)
    made.cancel()
    assert made.get(1, [], asked) == "batch 1"
    assert asked.begun == [0, 1, 2, 1]


def test_close_ends_the_threads(engine: Any, nothing_running: None) -> None:
    """After close no thread is left, and the next request starts them again."""
    asked, made = Asked(), engine(2, 3)
    made.get(0, [1, 2, 3], asked)
    assert our_threads()
    made.close()
    assert not our_threads()
    made.close()
    assert made.get(1, [2], asked) == "batch 1"


@pytest.mark.parametrize("ask", [1, 2], ids=["under way", "queued"])
def test_close_while_somebody_waits(engine: Any, ask: int) -> None:
    """Who waits for a batch when the engine is closed gets it all the same, and nobody hangs."""
    asked, made = Asked(), engine(1, 3)
    gate = asked.gate(1)
    made.get(0, [1, 2], asked)
    asked.wait_until(lambda: 1 in asked.filled)  # batch 2 is queued behind it
    waiting, outcome = in_thread(lambda: made.get(ask, None, asked))
    while not made._awaited:  # until it waits
        threading.Event().wait(0.001)
    closing, _ = in_thread(made.close)
    gate.set()
    for thread in (waiting, closing):
        thread.join(30)
        assert not thread.is_alive()
    assert outcome == [f"batch {ask}"]


def test_a_batch_can_close_its_engine(engine: Any) -> None:
    """A job that closes the engine it runs on does not wait for itself."""
    asked, made = Asked(), engine(1, 0)

    class Closing(Build):
        def finish(self) -> str:
            made.close()
            return super().finish()

    waiting, outcome = in_thread(lambda: made.get(0, None, lambda key, wait: Closing(asked, key)))
    waiting.join(30)
    assert not waiting.is_alive()
    assert outcome == ["batch 0"]


@pytest.mark.parametrize(
    ("cpu_seconds", "transform", "words", "advice"),
    [
        (0.5, None, "kept 1.0 cores busy", False),  # a disk, or others use the machine
        (0.5, "python", "kept 1.0 cores busy", True),
        (0.95, "python", "kept 1.9 cores busy", False),
    ],
)
def test_summary_says_when_threads_do_not_help(
    cpu_seconds: float, transform: str | None, words: str, advice: bool, keep: Any
) -> None:
    """Two threads that keep one core busy wait for something; plain Python may be it."""
    function = None if transform is None else lambda x, y, rng: (x, y)
    loader = keep(kl.ArraySequenceLoader(np.arange(8), transform=function, workers=2))
    engine = loader.runner.running()
    assert "cores busy" not in loader.summary()
    for _ in range(10):
        engine.worked(1.0, cpu_seconds, 100)
    assert words in loader.summary()
    assert ("processes=True" in loader.summary()) == advice
