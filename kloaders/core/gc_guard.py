"""Postpones garbage collection where a destructor could wait for a lock that is held."""

from __future__ import annotations

import gc
import threading

from kloaders.core import forks

__all__ = ["held_off"]


class _HeldOff:
    """No cyclic garbage is collected inside, in any thread.

    An iterator of TensorFlow that a stopped fit left behind is such garbage, and its destructor waits
    for its thread. That thread may be asking a loader for one more batch: were it collected in a
    thread that holds the loader's lock, both would wait for ever.

    Threads may be inside several at once, and one several times.
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
