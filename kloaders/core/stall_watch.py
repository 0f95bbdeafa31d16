"""Reports which sample a batch waits for, where it waits for long. Ends nothing: a thread cannot be.

A disk that went to sleep, a network drive that is gone, a hook with a deadlock: the training stands
still, and nothing says why. So each thread of a loader notes which sample it is at (`at`), and who
waits for a batch (`wait`) logs these notes from time to time.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, SupportsIndex, TypeVar

from kloaders.core.arrays import Indices
from kloaders.core.environment import seconds_from
from kloaders.core.messages import warn

__all__ = ["INTERVAL", "Named", "at", "at_each", "done", "wait", "watched"]

#: The environment variable with the seconds until the first report, 60 by default. The next one
#: comes after as long again, the one after that after twice the time, and so on.
INTERVAL = "KLOADERS_STALL_SECONDS"
_DEFAULT = 60.0

T = TypeVar("T")


class Named(Protocol):
    """A source, as far as names are concerned."""

    def name(self, index: int) -> str:
        """The name of this sample."""


# The current sample of each watched thread. Only a thread itself writes its slot, and each write
# is one operation on the dict, which needs no lock.
_slots: dict[int, tuple[Named, SupportsIndex] | None] = {}
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


def at_each(owner: Named, indices: Indices, items: list[T]) -> Iterable[T]:
    """The items of these samples, one after another: the calling thread is at the one it took last.

    Its slot is written once for all: how many were taken, the iterator knows.
    """
    ident = threading.get_ident()
    if ident not in _slots:
        return items
    each = iter(items)
    _slots[ident] = owner, _Taken(indices, each)
    return each


class _Taken(NamedTuple):
    """Samples, and an iterator over something of each."""

    indices: Indices
    each: Iterator[Any]

    def __index__(self) -> int:
        taken = len(self.indices) - operator.length_hint(self.each)
        return int(self.indices[max(0, taken - 1)])


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
    interval, waited = seconds_from(INTERVAL, _DEFAULT), 0.0
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
            owner, index = slot[0], operator.index(slot[1])
            with contextlib.suppress(Exception):  # a user's function, in a place that ends nothing
                found.add(f"sample {index} ({owner.name(index)})")
    return sorted(found)
