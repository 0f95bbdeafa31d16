"""What takes long is reported, more and more rarely, and only if the rest did not take as long."""

import time

import pytest

from kloaders.core.stall_watch import INTERVAL
from kloaders.engine.ray.overdue import Overdue, Turn


def reports(overdue, turn, caplog, seconds):
    """How many there are, looked for so many seconds after it began."""
    turn.begun = time.monotonic() - seconds
    overdue.look(turn, lambda: "shard 7", "one (10.0.0.1, process 12)")
    return caplog.text.count("shard 7 has taken")


def test_once_and_then_after_twice_the_time(caplog):
    overdue, turn = Overdue(), Turn()
    found = [reports(overdue, turn, caplog, s) for s in (59, 61, 100, 121, 239, 241)]
    assert found == [0, 1, 1, 2, 2, 3]
    assert "shard 7 has taken 61 seconds so far on one (10.0.0.1, process 12)" in caplog.text


def test_not_while_it_takes_as_long_as_others(caplog):
    overdue, done = Overdue(), Turn()
    done.begun -= 100
    overdue.done(done)
    assert [reports(overdue, Turn(), caplog, s) for s in (299, 302)] == [0, 1]


def test_the_time_is_set_by_the_environment(caplog, monkeypatch):
    monkeypatch.setenv(INTERVAL, "2")
    assert [reports(Overdue(10), Turn(), caplog, s) for s in (19, 21)] == [0, 1]
    monkeypatch.setenv(INTERVAL, "soon")
    with pytest.raises(ValueError, match=INTERVAL):
        Overdue()
