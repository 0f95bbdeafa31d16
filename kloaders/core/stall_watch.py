"""Reports which sample a batch waits for, where it waits for long. Ends nothing: a thread cannot be.

A disk that went to sleep, a network drive that is gone, a hook with a deadlock: the training stands
still, and nothing says why. So each thread of a loader notes which sample it is at (`at`), and who
waits for a batch (`wait`) logs these notes from time to time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from kloaders.core.environment import seconds_from
from kloaders.core.messages import warn

__all__ = ["DEFAULT", "INTERVAL", "Named", "at", "at_each", "done", "wait", "watched"]

#: The environment variable with the seconds until the first report, 60 by default. The next one
#: comes after as long again, the one after that after twice the time, and so on.
INTERVAL = "KLOADERS_STALL_SECONDS"
#: ... and what it is where the variable is not set.
DEFAULT = 60.0


class Named(Protocol):
    """A source, as far as names are concerned."""

    def name(self, index: int) -> str:
        """The name of this sample."""


# The current sample of each watched thread. Only a thread itself writes its slot, and each write
# is one operation on the dict, which needs no lock.
_slots: dict[int, tuple[Named, int] | None] = {}
if hasattr(os, "register_at_fork"):  # the other threads stayed with the parent
    os.register_at_fork(after_in_child=_slots.clear)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside, the calling thread's current sample is recorded: others may wait for it."""
    ident = threading.get_ident()
    _slots[ident] = None
    try:
        yield
    finally:
        _slots.pop(ident, None)


def at(owner: Named, index: int) -> None:
    """The calling thread begins to read this sample, if it is a watched one.

    Its slot refers to the owner until the next sample or `done`. Takes about 0.1 microseconds.
    """
    ident = threading.get_ident()
    if ident in _slots:
        _slots[ident] = owner, index


def at_each(owner: Named, indices: list[int]) -> Iterable[int]:
    """These samples, one after another, each noted as by `at` when the calling thread takes it.

    Half the cost of calling `at` for each, and none where the thread is not watched.
    """
    ident = threading.get_ident()
    return _noted(ident, owner, indices) if ident in _slots else indices


def _noted(ident: int, owner: Named, indices: list[int]) -> Iterator[int]:
    for index in indices:
        _slots[ident] = owner, index
        yield index


def done() -> None:
    """The calling thread has no current sample any more."""
    ident = threading.get_ident()
    if ident in _slots:
        _slots[ident] = None


def wait(event: threading.Event) -> None:
    """Block until it is set; log meanwhile, now and then, which samples the threads are at.

    Raises:
        ValueError: the environment variable KLOADERS_STALL_SECONDS is no number above 0.
    """
    interval, waited = seconds_from(INTERVAL, DEFAULT), 0.0
    while not event.wait(max(interval, waited)):
        waited += max(interval, waited)
        found = "; ".join(_samples())
        at_what = (
            f"still loading {found}" if found else "its threads wait, perhaps for worker processes"
        )
        warn(
            f"a batch has not come for {waited:g} seconds: {at_what}. Training continues when it does; "
            "with processes=True a worker that hangs is ended, and its sample becomes an error."
        )


def _samples() -> list[str]:
    """The current sample of each watched thread."""
    found = set()
    for slot in list(_slots.values()):
        if slot is not None:
            owner, index = slot
            with contextlib.suppress(Exception):  # a user's function, in a place that ends nothing
                found.add(f"sample {index} ({owner.name(index)})")
    return sorted(found)
