"""Reports which samples are loading when a batch takes long. It stops nothing: threads cannot be ended.

If a disk is asleep, a network drive is gone or a hook deadlocks, training stops without a message.
Therefore each loading thread records its current sample (`at`), and a thread that waits for a batch
(`wait`) logs these samples from time to time.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex, TypeVar

from kloaders.core.environment import seconds_from
from kloaders.core.messages import warn

if TYPE_CHECKING:  # `kloaders --help` imports this module, and NumPy would make it slow
    from kloaders.core.arrays import Indices

__all__ = ["DEFAULT", "INTERVAL", "Named", "at", "at_each", "done", "wait", "watched"]

#: The environment variable for the number of seconds until the first report, 60 by default. The
#: second report follows after the same time, and each later one after twice the time before.
INTERVAL = "KLOADERS_STALL_SECONDS"
#: Its default.
DEFAULT = 60.0

T = TypeVar("T")


class Named(Protocol):
    """The part of a source that has names."""

    def name(self, index: int) -> str:
        """The name of this sample."""


# The current sample of each watched thread. A thread writes only its own slot, and each write is
# a single dict operation, which needs no lock.
_slots: dict[int, tuple[Named, SupportsIndex] | None] = {}
if hasattr(os, "register_at_fork"):  # the other threads exist only in the parent
    os.register_at_fork(after_in_child=_slots.clear)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """A context that records the calling thread's current sample, because others may wait for it."""
    ident = threading.get_ident()
    _slots[ident] = None
    try:
        yield
    finally:
        _slots.pop(ident, None)


def at(owner: Named, index: int) -> None:
    """Record that the calling thread begins to read this sample, if the thread is watched.

    The slot keeps a reference to the owner until the next sample or `done`. Takes about 0.1 microseconds.
    """
    ident = threading.get_ident()
    if ident in _slots:
        _slots[ident] = owner, index


def at_each(owner: Named, indices: Indices, items: list[T]) -> Iterable[T]:
    """Iterate over `items`, one per sample; the current sample is the one whose item was taken last.

    The slot is written once for all of them, because the iterator knows how many items were taken.
    """
    ident = threading.get_ident()
    if ident not in _slots:
        return items
    each = iter(items)
    _slots[ident] = owner, _Taken(indices, each)
    return each


class _Taken(NamedTuple):
    """Samples, and an iterator over one item per sample; its index is the current sample."""

    indices: Indices
    each: Iterator[Any]

    def __index__(self) -> int:
        taken = len(self.indices) - operator.length_hint(self.each)
        return int(self.indices[max(0, taken - 1)])


def done() -> None:
    """Record that the calling thread has no current sample any more."""
    ident = threading.get_ident()
    if ident in _slots:
        _slots[ident] = None


def wait(event: threading.Event) -> None:
    """Block until the event is set. Meanwhile, log from time to time which samples are loading.

    Raises:
        ValueError: the environment variable KLOADERS_STALL_SECONDS is not a number above 0.
    """
    interval, waited = seconds_from(INTERVAL, DEFAULT), 0.0
    while not event.wait(max(interval, waited)):
        waited += max(interval, waited)
        found = "; ".join(_samples())
        at_what = (
            f"still loading {found}" if found else "its threads wait, perhaps for worker processes"
        )
        warn(
            f"a batch has not arrived for {waited:g} seconds: {at_what}. Training continues when it does; "
            "with processes=True a worker that hangs is ended, and its sample becomes an error."
        )


def _samples() -> list[str]:
    """The current sample of each watched thread."""
    found = set()
    for slot in list(_slots.values()):
        if slot is not None:
            owner, index = slot[0], operator.index(slot[1])
            with contextlib.suppress(Exception):  # name() is user code, and a report must not fail
                found.add(f"sample {index} ({owner.name(index)})")
    return sorted(found)
