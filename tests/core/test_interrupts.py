"""Ctrl-C that is put off comes at the end, once, to whom it would have come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from kloaders.core.interrupts import held


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Python's own; the one that was there comes back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_it_comes_at_the_end(times: int) -> None:
    done = []

    @held()
    def work() -> None:
        for k in range(times):
            press()
            done.append(k)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == list(range(times))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_it_nothing_comes() -> None:
    with held():
        pass
    with pytest.raises(KeyboardInterrupt):
        press()


def test_one_inside_another() -> None:
    done = []

    @held()
    def work() -> None:
        with held():
            press()
        done.append("inner")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner"]


def test_a_handler_of_the_users_gets_it() -> None:
    got = []
    signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    with held():
        press()
        assert got == []
    assert got == [signal.SIGINT]


def test_an_error_inside_goes_first_and_is_known() -> None:
    @held()
    def work() -> None:
        press()
        raise OSError("no")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, OSError)


def test_where_it_is_ignored_nothing_is_changed() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_are_never_interrupted() -> None:
    seen = []

    def work() -> None:
        with held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
