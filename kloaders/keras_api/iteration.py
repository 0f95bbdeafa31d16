"""`for batch in loader` is an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from kloaders.keras_api.tickets import Tickets

__all__ = ["iterate"]


class _Sequence(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def on_epoch_begin(self) -> None: ...
    def on_epoch_end(self) -> None: ...


def iterate(loader: _Sequence, tickets: Tickets) -> Iterator[Any]:
    """The batches of an epoch: of the one that `on_epoch_begin()` has just begun, or of the next.

    Raises:
        RuntimeError: the body of the loop ended the epoch, or began another one.
    """
    ours = not tickets.opened_by_hand
    if ours:
        loader.on_epoch_begin()
    mark, done = tickets.mark, 0
    try:
        for index in range(len(loader)):
            if tickets.mark != mark:
                raise RuntimeError(_ANOTHER_EPOCH)
            made = [loader[index]]  # a list, so that nothing here holds the batch while it is used
            done += 1
            yield made.pop()
    except BaseException:  # or the loop was left early, which closes this generator
        if ours:
            tickets.leave(mark, done)
        raise
    if ours and tickets.mark == mark:
        loader.on_epoch_end()


_ANOTHER_EPOCH = (
    "this loop is in the middle of an epoch, and in its body another one of the same loader was begun: "
    "by a second loop, by fit, evaluate or predict, or by on_epoch_begin(). A loader has one position: "
    "let one of the two use a second loader over the same data, loader.view()."
)
