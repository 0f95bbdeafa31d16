"""What only Keras' callbacks know about a fit. No Keras here: `LoaderCallback` reports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FitEvents"]


@dataclass
class FitEvents:
    """A fit as callbacks see it: whether it runs, its epoch, and the batches trained on.

    Attributes:
        running: a fit with a `LoaderCallback` is under way.
        ended: called to find out whether it ended in an error, which callbacks do not see.
        shuffle: what fit was called with, where that is known.
        due: the next pass is the one that fit trains on, if it begins as fit begins its own.
        armed: what begins now is that pass.
        consumed: batches of it that the model has taken.
        epoch_due: the epoch of the order that fit trains on next.
        last_epoch: the last one that this fit will ask for.
    """

    running: bool = False
    ended: Callable[[], bool] | None = None
    shuffle: bool | None = None
    due: bool = False
    armed: bool = False
    consumed: int = 0
    epoch_due: int = 0
    last_epoch: int | None = None
    _epochs: int = 0  # up to which number Keras counts
    _first: int = 0  # the epoch of the order that came next when the fit began
    _offset: int | None = None  # from Keras' epochs to those of the order

    def begin(
        self, epochs: int, ended: Callable[[], bool] | None, shuffle: bool | None, next_epoch: int
    ) -> None:
        """A fit up to epoch number `epochs` - 1 begins."""
        self.running, self._offset = True, None
        self.ended, self.shuffle = ended, shuffle
        self.consumed = 0
        self._first = self.epoch_due = next_epoch
        self._epochs, self.last_epoch = epochs, None

    def resume(self, epoch: int, trained: bool) -> None:
        """The epoch that is due is this one of Keras'; or the one after it, if that is trained."""
        self._offset = self.epoch_due - epoch - trained

    def epoch_begin(self, epoch: int, passes: int, resumed: int | None) -> int:
        """-> the epoch of the order that Keras' epoch means.

        Args:
            epoch: Keras' number.
            passes: how many of Keras' epochs share a pass over the data.
            resumed: the epoch of the order that is resumed, if one is.
        """
        if self._offset is None:
            # A fit that starts at 0 continues after the epochs already served; one that starts
            # later (initial_epoch, a restored run) means that very epoch.
            self._offset = 0 if epoch else self._first
            if resumed is not None:
                self._offset = resumed - epoch // passes
        if self.last_epoch is None:
            self.last_epoch = self._offset + -(-self._epochs // passes) - 1
        return self._offset + epoch // passes

    def end(self) -> None:
        """The fit is over, in mid-epoch or not."""
        self.running = self.due = self.armed = False
        self.ended = None
        self.last_epoch = None
