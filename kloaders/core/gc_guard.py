"""Postpones garbage collection while a destructor could wait for a lock that this process holds."""

from __future__ import annotations

import gc
import threading

from kloaders.core import forks

__all__ = ["held_off"]


class _HeldOff:
    """A context in which no thread collects cyclic garbage.

    A TensorFlow iterator left behind by a stopped fit is cyclic garbage, and its destructor waits
    for the iterator's thread. That thread may be asking a loader for one more batch. If a thread that
    holds the loader's lock collected the iterator, both threads would wait forever.

    Several threads may be inside at once, and one thread may enter several times.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._was_on = False
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_on:
                gc.enable()


held_off = _HeldOff()
