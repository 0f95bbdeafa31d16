"""The state of a fit that only Keras' callbacks know; `LoaderCallback` reports it. Imports no Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FitEvents"]


@dataclass
class FitEvents:
    """A fit as callbacks see it: whether it runs, its epoch, and the batches trained on.

    Attributes:
        running: whether a fit with a `LoaderCallback` is running.
        ended: returns whether that fit ended in an error, which callbacks do not see.
        shuffle: fit's argument of that name, if known.
        due: whether the next pass is fit's training pass, if it begins as fit begins its own.
        armed: whether the pass that begins now is fit's training pass.
        consumed: the number of batches of that pass that the model has trained on.
        epoch_due: the epoch of the order that fit trains on next.
        last_epoch: the last epoch of the order that this fit will ask for.
    """

    running: bool = False
    ended: Callable[[], bool] | None = None
    shuffle: bool | None = None
    due: bool = False
    armed: bool = False
    consumed: int = 0
    epoch_due: int = 0
    last_epoch: int | None = None
    _epochs: int = 0  # fit's argument of that name: Keras' last epoch is this minus 1
    _first: int = 0  # the next epoch of the order when the fit began
    _offset: int | None = None  # added to Keras' epoch it gives the epoch of the order

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
        """`epoch_due` is Keras' epoch `epoch`, or the one after it if that epoch is already trained."""
        self._offset = self.epoch_due - epoch - trained

    def epoch_begin(self, epoch: int, passes: int, resumed: int | None) -> int:
        """-> the epoch of the order for an epoch of Keras.

        Args:
            epoch: Keras' number of the epoch.
            passes: the number of Keras epochs that share a pass over the data.
            resumed: the epoch of the order that is resumed; None if none is.
        """
        if self._offset is None:
            # A fit that starts at epoch 0 continues after the epochs already served. A fit that
            # starts later (initial_epoch, a restored run) gets exactly that epoch of the order.
            self._offset = 0 if epoch else self._first
            if resumed is not None:
                self._offset = resumed - epoch // passes
        if self.last_epoch is None:
            self.last_epoch = self._offset + -(-self._epochs // passes) - 1
        return self._offset + epoch // passes

    def end(self) -> None:
        """The fit is over, whether or not it finished its epoch."""
        self.running = self.due = self.armed = False
        self.ended = None
        self.last_epoch = None
