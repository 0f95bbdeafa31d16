"""Delays Ctrl-C while something is created that would be left behind. Other signals are not changed."""

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
    """Ctrl-C that comes inside is dealt with at the end, as it would have been.

    For what takes moments: a descriptor or a process between its making and its being known, and the
    end of such. Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, or the end of the process
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main interpreter
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[-1])
