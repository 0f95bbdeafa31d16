"""Computes the position of a loader in its data, if it is known."""

from __future__ import annotations

from kloaders.keras_api.passes import Pass
from kloaders.keras_api.phases import Phases
from kloaders.plan.epoch import Order

__all__ = ["Positions"]

_READ_AHEAD = (
    "how much of this pass the model has trained on is not known: Keras reads ahead of it. Pass "
    "callbacks=[LoaderCallback(loader)] to fit; then state_dict() counts the batches trained on."
)
_SCATTERED = (
    "with shuffle=False the loader serves batch i for index i, and fit() asks in a random order: a "
    "position in the middle of such an epoch is not a single number. Pass shuffle=None or "
    "shuffle=True to the loader, or shuffle=False to fit()."
)
_BY_NUMBER = (
    "batches were read by number, outside an epoch, which does not change the loader's position: call "
    "loader.on_epoch_begin() before the loop and loader.on_epoch_end() after it."
)


class Positions(Phases):
    """Adds to the phases which batch comes next; without a lock."""

    def _next_batch(self) -> tuple[Order, int]:
        """The next batch of an order.

        Raises:
            ValueError: the next batch is not known.
        """
        current, fit = self._pass, self._fit
        if self._left is not None and not fit.running:
            left, used = self._left
            if used is None:
                raise ValueError(_READ_AHEAD)
            return self._position_in(left, used)
        if fit.running:
            done, under_way = fit.consumed, current.training
        else:
            done, under_way = len(current.memo), bool(current.memo) and not self._pass_due
            reads = self._index_reads
            if not self._in_epoch and reads.looping and 0 < len(reads) < self.batches:
                raise ValueError(_BY_NUMBER)
            if under_way and current.by_keras:
                raise ValueError(_READ_AHEAD)
        if under_way:
            return self._position_in(current, done)
        if self._resume is not None:
            return self._resume.order, self._resume.first
        return self._order_of_epoch(fit.epoch_due if fit.running else self._next_epoch), 0

    def _position_in(self, current: Pass, done: int) -> tuple[Order, int]:
        if 0 < done < current.size:
            if current.scattered:
                raise ValueError(_SCATTERED)
            return current.order, current.first + done
        if done:
            return self._order_of_epoch(current.order.epoch + 1), 0
        return current.order, current.first
