"""Delays Ctrl-C while something is created that would otherwise leak. Other signals are unaffected."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["held"]


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Postpone a Ctrl-C that arrives inside this context until its end.

    Use it for short operations: between the creation of a descriptor or process and its registration,
    and while one is released. Only the main thread is ever interrupted; in other threads this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):  # SIGINT is ignored, or ends the process
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main interpreter
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[-1])
