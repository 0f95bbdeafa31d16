"""`for batch in loader`: iterates over one epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from kloaders.core.threads import exiting
from kloaders.keras_api.tickets import Tickets

__all__ = ["iterate"]


class _Sequence(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def on_epoch_begin(self) -> None: ...
    def on_epoch_end(self) -> None: ...


def iterate(loader: _Sequence, tickets: Tickets) -> Iterator[Any]:
    """The batches of the epoch that `on_epoch_begin()` has just begun; without one, of the next epoch.

    Raises:
        RuntimeError: the body of the loop ended the epoch, or began another one.
    """
    ours = not tickets.opened_by_hand
    if ours:
        loader.on_epoch_begin()
    mark, done = tickets.mark, 0
    # Bound now: if the interpreter closes this generator at its exit, modules are empty already.
    program_ends = exiting.is_set
    try:
        for index in range(len(loader)):
            if tickets.mark != mark:
                raise RuntimeError(_ANOTHER_EPOCH)
            made = [loader[index]]  # popped below: this frame keeps no reference to the batch
            done += 1
            yield made.pop()
    except BaseException:  # also when the loop is left early: that closes this generator
        if ours and not program_ends():
            tickets.leave(mark, done)
        raise
    if ours and tickets.mark == mark:
        loader.on_epoch_end()


_ANOTHER_EPOCH = (
    "the body of this loop began another epoch of the same loader: in a second loop, in fit, evaluate "
    "or predict, or with on_epoch_begin(). A loader has one position: let one of the two use a second "
    "loader over the same data, loader.view()."
)
