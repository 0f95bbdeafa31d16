"""A pass over the data as requests go through it. Bookkeeping only: no arrays, no files, no Keras."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kloaders.plan.epoch import Order

__all__ = ["IndexReads", "Pass", "Position", "Request", "Seen"]


class Request(NamedTuple):
    """The meaning of a request.

    Attributes:
        order: the order that the batch is part of.
        batch: its number there.
        sequential: whether the batches after it will be asked for next.
    """

    order: Order
    batch: int
    sequential: bool


class Position(NamedTuple):
    """Where a pass resumes.

    Attributes:
        order: of the pass.
        first: the batch that comes next.
        size: how many batches are left from there.
    """

    order: Order
    first: int
    size: int


@dataclass
class Pass:
    """One pass over the batches of an order: which of them were handed out, for which index.

    Attributes:
        order: whose batches are handed out.
        first: the first of them; not 0 in a pass that was resumed.
        size: how many batches the pass has.
        memo: index -> batch, of all that was asked for.
        by_keras: it began with a read of `num_batches`.
        after_reset: it began as fit and evaluate begin theirs, not as a probe that builds a model.
        paused: an `on_epoch_end` came in the middle of it.
        scattered: shuffle=False, and its batches were asked for in no order.
        in_order: how many requests came in order before any that did not.
        training: a callback has said that fit trains on it.
        resumed: the position where it began, if not at the beginning of an epoch.
    """

    order: Order
    size: int
    first: int = 0
    memo: dict[int, int] = field(default_factory=dict)
    by_keras: bool = False
    after_reset: bool = False
    paused: bool = False
    scattered: bool = False
    in_order: int = 0
    training: bool = False
    resumed: Position | None = None

    @property
    def complete(self) -> bool:
        """Whether every batch was asked for."""
        return len(self.memo) == self.size

    @property
    def unfinished(self) -> bool:
        """Whether some batches were asked for, and some were not."""
        return 0 < len(self.memo) < self.size

    def request(self, index: int, shuffle: bool | None, by_index: bool) -> Request:
        """The meaning of `loader[index]` in this pass.

        Raises:
            IndexError: the pass has no such batch left.
        """
        known = self.memo.get(index)
        if known is not None:
            return Request(self.order, known, False)
        ticket = len(self.memo)
        if ticket >= self.size or index >= self.size:
            raise IndexError(
                f"batch {index} of an epoch that went on in the middle, with {self.size} batches "
                "left: ask len(loader) after on_epoch_begin()."
            )
        in_order = index == ticket
        self.in_order += in_order and self.in_order == ticket
        batch = self.first + ticket
        if shuffle is None and not in_order and self.order.head >= self.first + self.size:
            self.order = self.order._replace(head=batch)
        if shuffle is False and by_index:
            self.scattered |= not in_order
            batch = self.first + index
            self.memo[index] = batch
            return Request(self.order, batch, in_order)
        self.memo[index] = batch
        return Request(self.order, batch, True)


@dataclass
class Seen:
    """Events since the last request, or since the epoch began.

    Attributes:
        sizes: how many reads of `num_batches`, since any other event.
        size_in_epoch: whether one came since `on_epoch_begin`.
        size_of_pass: whether one came since the last pass began.
        reset: an `on_epoch_end` outside of an epoch came last: a fit or evaluate begins.
        begun_after_reset: and then this epoch began.
        other: an evaluate or predict has begun since the epoch of a fit did.
        ender: the thread that called `on_epoch_end` last.
    """

    sizes: int = 0
    size_in_epoch: bool = False
    size_of_pass: bool = False
    reset: bool = False
    begun_after_reset: bool = False
    other: bool = False
    ender: int = 0


class IndexReads:
    """Batches read by their number, outside of an epoch."""

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._last, self._in_a_row = -1, 0

    def __len__(self) -> int:
        return len(self._read)

    @property
    def looping(self) -> bool:
        """Whether they come from a loop: Keras looks at batches 0 and 1 before it begins."""
        return self._in_a_row > 2

    def add(self, index: int) -> None:
        self._in_a_row = self._in_a_row + 1 if index == self._last + 1 else 1
        self._last = index
        self._read.add(index)

    def clear(self) -> None:
        """Begin another pass; a loop may continue."""
        self._read.clear()

    def end_loop(self) -> None:
        self._last, self._in_a_row = -1, 0
