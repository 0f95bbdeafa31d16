"""Records which requests of a pass were served. Bookkeeping only: no arrays, no files, no Keras."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kloaders.plan.epoch import Order

__all__ = ["IndexReads", "Pass", "Position", "Request", "Seen"]


class Request(NamedTuple):
    """The batch that a request gets.

    Attributes:
        order: the order that the batch belongs to.
        batch: its number in that order.
        sequential: whether the batches after it are expected next, so that they can be prefetched.
    """

    order: Order
    batch: int
    sequential: bool


class Position(NamedTuple):
    """The position at which a pass resumes.

    Attributes:
        order: the order of the pass.
        first: the next batch.
        size: the number of batches left, from `first` on.
    """

    order: Order
    first: int
    size: int


@dataclass
class Pass:
    """One pass over the batches of an order: which batch was delivered for which index.

    Attributes:
        order: the order that its batches come from.
        first: the first batch; not 0 in a resumed pass.
        size: the number of batches of the pass.
        memo: index -> batch, for all requests so far.
        by_keras: whether it began with a read of `num_batches`.
        after_reset: whether it began as a pass of fit or evaluate does, not as a probe that builds a model.
        paused: whether an `on_epoch_end` came in the middle of it.
        scattered: whether shuffle=False and its batches were requested out of order.
        in_order: the number of requests before the first that was out of order.
        training: whether a callback reported that fit trains on it.
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
        """Whether every batch was requested."""
        return len(self.memo) == self.size

    @property
    def unfinished(self) -> bool:
        """Whether some batches were requested, but not all."""
        return 0 < len(self.memo) < self.size

    def request(self, index: int, shuffle: bool | None, by_index: bool) -> Request:
        """The batch for `loader[index]` in this pass.

        Raises:
            IndexError: the pass has fewer batches left.
        """
        known = self.memo.get(index)
        if known is not None:
            return Request(self.order, known, False)
        ticket = len(self.memo)
        if ticket >= self.size or index >= self.size:
            raise IndexError(
                f"batch {index} was requested, but this epoch was resumed in the middle and has only "
                f"{self.size} batches left: call len(loader) after on_epoch_begin()."
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
    """The events since the last request, or since the epoch began.

    Attributes:
        sizes: the number of reads of `num_batches` since the last event of another kind.
        size_in_epoch: whether `num_batches` was read since `on_epoch_begin`.
        size_of_pass: whether `num_batches` was read since the last pass began.
        reset: whether the last event was an `on_epoch_end` outside an epoch: a fit or evaluate begins.
        begun_after_reset: whether this epoch began after such an `on_epoch_end`.
        other: whether an evaluate or predict has begun since the epoch of a fit began.
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
    """The batches that were read by number, outside an epoch."""

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._last, self._in_a_row = -1, 0

    def __len__(self) -> int:
        return len(self._read)

    @property
    def looping(self) -> bool:
        """Whether a loop reads them. Two in a row are not a loop: before a pass Keras reads 0 and 1."""
        return self._in_a_row > 2

    def add(self, index: int) -> None:
        self._in_a_row = self._in_a_row + 1 if index == self._last + 1 else 1
        self._last = index
        self._read.add(index)

    def clear(self) -> None:
        """Begin another pass; the loop that reads may continue."""
        self._read.clear()

    def end_loop(self) -> None:
        self._last, self._in_a_row = -1, 0
