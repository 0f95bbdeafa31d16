"""Samples that did not load: recorded once, told, listed in the quarantine, and too many are an error."""

import pickle
import threading

import pytest

from kloaders.core.errors import SampleError
from kloaders.core.options import FaultOptions
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.quarantine import Quarantine

SAMPLES = 2000


def log_of(**options):
    return ErrorLog(FaultOptions(**options), SAMPLES, lambda index: f"file {index}")


def fail(log, index, error=None):
    log.record(log.explained(index, error or ValueError(f"bad {index}")))


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged, as `messages`."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    caplog.set_level("INFO", "kloaders")
    return caplog


def test_an_error_names_its_sample():
    error = log_of().explained(3, OSError("gone"))
    assert (error.index, error.name, error.cause) == (3, "file 3", "OSError: gone")
    assert log_of().explained(5, error) is error


def test_a_sample_is_recorded_once_however_often_it_is_met(said):
    log = log_of(on_error="skip")
    for index in (4, 2, 4, 4):
        fail(log, index)
    assert [error.index for error in log.errors] == [4, 2]
    assert len(said.messages) == 2


def test_kept_errors_hold_no_traceback():
    """Its frames hold the arrays of a batch."""
    log = log_of(on_error="skip")
    with pytest.raises(ValueError, match=r"bad") as caught:
        raise ValueError("bad")
    assert caught.value.__traceback__ is not None
    fail(log, 1, caught.value)
    assert log.errors[0].__traceback__ is None
    assert log.errors[0].__cause__.__traceback__ is None
    assert pickle.loads(pickle.dumps(log.errors[0])).cause == log.errors[0].cause


def test_threads_that_meet_the_same_samples():
    log = log_of(on_error="replace")
    gate = threading.Barrier(4)

    def record():
        gate.wait()
        for index in range(200):
            fail(log, index)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(error.index for error in log.errors) == list(range(200))


def test_nothing_is_said_where_an_error_is_raised_anyway(said):
    log = log_of()
    fail(log, 1)
    assert said.messages == []
    assert [error.index for error in log.errors] == [1]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("skip", "It is skipped, and its batch is one sample shorter"),
        ("replace", "It is replaced."),
    ],
)
def test_what_becomes_of_it_is_said(policy, words, said):
    fail(log_of(on_error=policy), 7)
    (message,) = said.messages
    assert "sample 7 (file 7): ValueError: bad 7" in message
    assert words in message


def test_many_are_told_at_milestones(said):
    """The first ten, the hundredth and the thousandth."""
    log = log_of(on_error="replace", max_errors=SAMPLES)
    for index in range(1500):
        fail(log, index)
    assert len(said.messages) == 12
    assert "only the 100th, 1000th, ... are logged" in said.messages[9]
    assert "the 100th of 2,000 samples" in said.messages[10]
    assert "the 1,000th of 2,000 samples" in said.messages[11]


def test_too_many_are_an_error_and_stay_one():
    """A batch made ahead that failed is made once more for who asks: that meets known samples."""
    log = log_of(on_error="skip", max_errors=2)
    fail(log, 0)
    fail(log, 1)
    for index in (2, 2, 0):
        with pytest.raises(SampleError, match=r"max_errors"):
            fail(log, index)
    assert len(log.errors) == 3


# ---------------------------------------------------------------- quarantine


def test_bad_samples_are_listed_in_the_quarantine(tmp_path):
    path = tmp_path / "bad.txt"
    log = log_of(on_error="skip", quarantine=path)
    for index in (3, 3, 8):
        fail(log, index)
    text = path.read_text()
    assert text.count("file 3") == text.count("file 8") == 1
    assert isinstance(log.quarantine, Quarantine)


def test_memory_that_is_short_is_no_fault_of_a_sample(tmp_path, said):
    """It is recorded and told, and not listed: it may load another time."""
    path = tmp_path / "bad.txt"
    log = log_of(on_error="skip", quarantine=path)
    fail(log, 1)
    fail(log, 3, MemoryError())
    assert "file 3" not in path.read_text()
    assert "not listed as bad: it may load when the disk" in said.messages[-1]
    assert [error.index for error in log.errors] == [1, 3]


def test_a_quarantine_that_cannot_be_written_ends_nothing(tmp_path, said):
    log = log_of(on_error="skip", quarantine=tmp_path / "bad.txt")
    (tmp_path / "bad.txt").unlink()
    (tmp_path / "bad.txt").mkdir()
    fail(log, 3)
    fail(log, 4)
    assert [error.index for error in log.errors] == [3, 4]
    assert sum("cannot be written" in message for message in said.messages) == 1


# ---------------------------------------------------------------- whole batches


def test_a_batch_of_which_nothing_is_left():
    log = log_of(on_error="skip")
    fail(log, 3)
    error = log.nothing_left(3)
    assert (error.index, error.name) == (3, "file 3")
    assert "ValueError: bad 3 (and so did every other sample of this batch" in error.cause
    assert "did not load" in log.nothing_left(4).cause
