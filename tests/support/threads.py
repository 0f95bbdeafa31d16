"""Threads of tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a function in a thread; the list gets its result or exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # looked at by the test
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def in_threads(function: Callable[[int], Any], count: int) -> None:
    """Call a function with 0, 1, ... in one thread each, all at once, and wait for them.

    Exceptions are lost: the function records what is wrong.
    """
    threads = [threading.Thread(target=function, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
