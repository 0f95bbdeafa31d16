"""Maps Keras' requests to planned batches. Bookkeeping only: no arrays, no files, no Keras.

`phases.py` explains tickets, and what each call of Keras does to them. This module has the calls
themselves, from any thread, the reports of callbacks, and the position in the data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kloaders.keras_api import private
from kloaders.keras_api.callers import Callers
from kloaders.keras_api.passes import Position, Request
from kloaders.keras_api.phases import Phase
from kloaders.keras_api.positions import Positions
from kloaders.plan.epoch import Order

__all__ = ["Position", "Request", "Tickets"]

_READ_BY_KERAS = (
    "another epoch of this loader was begun while fit, evaluate or predict is reading from it. A loader "
    "has one position, so both would get wrong samples: loop over loader.view() instead."
)


class Tickets(Positions):
    """Turns Keras' requests into planned batches, each exactly once per pass.

    All methods may be called from any thread.

    Args:
        batches: the number of batches in an epoch.
        shuffle: True, False, or None to follow the order of the requests (see `SequenceLoader`).
        by_index: whether shuffle=False serves batch i for index i in any order of requests. A
            two-level loader turns this off and serves its own order.
        asker: returns the caller.
    """

    def __init__(
        self,
        batches: int,
        shuffle: bool | None,
        by_index: bool = True,
        asker: Callable[..., private.Asker] = private.asker,
    ) -> None:
        super().__init__(batches, shuffle, by_index)
        self._asker = asker
        self._callers = Callers()
        self._mark = 0
        self.forked()

    def forked(self) -> None:
        """Make a new lock after a fork: a thread that does not exist here may have held the old one."""
        # Reentrant: a garbage collection may close an iteration in the thread that holds the lock.
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ what Keras calls

    @property
    def in_order(self) -> int:
        """The number of requests of Keras' current pass before the first that was out of order."""
        current = self._pass
        return current.in_order if current.by_keras else 0

    def asked_for_all(self) -> bool:
        """Whether Keras has requested every batch of the current pass."""
        with self._lock:
            return self._in_epoch and self._pass.by_keras and self._pass.complete

    def begin(self) -> None:
        """Handle `on_epoch_begin`.

        Raises:
            RuntimeError: a call of Keras is reading from this loader.
        """
        asked = self._asker()
        with self._lock:
            self._look_at_calls()
            if asked.by_keras:
                self._callers.epoch_begins(asked.call, self._mid_training)
            elif asked.by_keras is False:
                if self._phase is not Phase.IDLE and self._callers.in_epoch:
                    raise RuntimeError(_READ_BY_KERAS)
                self._callers.epoch_begins(None, training=False)
            self._mark += 1
            self._epoch_begins()

    def end(self) -> None:
        """Handle `on_epoch_end`."""
        asked = self._asker()
        with self._lock:
            self._look_at_calls()
            if asked.by_keras is False and self._in_epoch and self._callers.in_epoch:
                return  # from a loop in a callback; the epoch of that loop has already ended
            self._mark += 1
            self._epoch_ends()
            if self._phase is Phase.IDLE:
                self._callers.epoch_ends(self._pass.by_keras and self._pass.complete)

    def starting(self) -> int:
        """Handle a read of `num_batches`. -> the number of batches of the pass that it begins.

        Raises:
            RuntimeError: another call of Keras is reading from this loader.
        """
        asked = self._asker()
        if asked.by_keras is False:  # the user reads it
            return self.length()
        with self._lock:
            self._look_at_calls()
            self._callers.size_read(asked)
            return self._size_read()

    def between_epochs(self) -> bool:
        """Whether no epoch has begun, and none will be continued."""
        with self._lock:
            self._look_at_calls()
            return self._phase is Phase.IDLE and not self._mid_training

    def length(self) -> int:
        """The number of batches of the epoch; fewer if it was resumed in the middle."""
        with self._lock:
            self._look_at_calls()
            if self._phase is Phase.READING:
                return self._pass.size
            now = self._position_due() if self._phase is Phase.OPENED else None
            return self.batches if now is None else now.size

    def locate(self, index: int) -> Request:
        """The batch that `loader[index]` gets now."""
        with self._lock:
            if self._callers.watched:
                asked = self._asker(with_call=False)
                if self._callers.is_stray(asked):
                    return Request(self._order_of_epoch(self._next_epoch), index, False)
                if asked.by_keras is False:
                    self._look_at_calls()
                    if not self._in_epoch:
                        return self._number_read(index)
            if self._in_epoch or self._reads_on():
                return self._batch_read(index)
            return self._number_read(index)

    def _reads_on(self) -> bool:
        # With steps_per_epoch below len on TensorFlow, a background thread reads ahead between the E of
        # one epoch and the B of the next. Those, like probes, come from the main thread.
        return self._phase is Phase.PAUSED and threading.get_ident() != self._seen.ender

    def _look_at_calls(self) -> None:
        """Find out whether a call of Keras has ended in the middle of a pass."""
        # Keras calls no callback when a fit ends in an error.
        fit = self._fit
        if fit.running and fit.ended is not None and fit.ended():
            self._end_fit()
        if self._phase is not Phase.IDLE and self._callers.broken_off:
            if self._mid_training:
                self._end_fit()
            else:
                self._break_off_call(None)

    def _break_off_call(self, done: int | None) -> None:
        self._callers.abandon()
        self._broken = self._broken and self._callers.in_fit
        self._break_off(done)

    # ------------------------------------------------------------------ loops over the loader

    @property
    def opened_by_hand(self) -> bool:
        """Whether a loop of the user has begun an epoch, and has read no batch of it yet."""
        with self._lock:
            self._look_at_calls()
            return self._phase is Phase.OPENED and not self._callers.in_epoch

    @property
    def mark(self) -> int:
        """A number that changes when an epoch begins or ends, or a position is loaded."""
        return self._mark

    def leave(self, mark: int, done: int) -> None:
        """Handle a loop that was left early.

        Args:
            mark: the mark of its epoch; a loop of an older epoch changes nothing.
            done: the number of batches that it has read.
        """
        with self._lock:
            if mark == self._mark and self._in_epoch:
                self._mark += 1
                self._break_off(done)

    # ------------------------------------------------------------------ positions

    def resume_at(self, position: Position) -> None:
        """Begin the next pass at this position; with a callback, the next pass that fit trains on."""
        with self._lock:
            whole = position.first == 0 and position.order.rest is None
            self._resume = None if whole else position
            self._next_epoch = self._fit.epoch_due = position.order.epoch
            self._drop_pass()
            self._pass.memo.clear()
            self._left = None
            self._mark += 1

    def position(self) -> tuple[Order, int]:
        """The next batch of an order. Batches that were read but not trained on are delivered again.

        Raises:
            ValueError: the next batch is not known.
        """
        with self._lock:
            self._look_at_calls()
            return self._next_batch()

    # ------------------------------------------------------------------ what a callback reports

    @property
    def training(self) -> bool:
        """Whether the current pass is known to be the one that fit trains on."""
        return self._mid_training

    @property
    def last_epoch(self) -> int | None:
        """The last epoch that the running fit will ask for, if known."""
        return self._fit.last_epoch

    def fit_begin(
        self,
        epochs: int,
        ended: Callable[[], bool] | None = None,
        shuffle: bool | None = None,
    ) -> None:
        """A fit up to epoch number `epochs` - 1 begins, and any earlier pass is over.

        Args:
            epochs: fit's argument of that name.
            ended: returns whether this fit has ended without `fit_end`, in an error.
            shuffle: fit's argument of that name, if known.
        """
        with self._lock:
            self._fit.begin(epochs, ended, shuffle, self._next_epoch)
            self._pass.training = False
            self._drop_pass()

    def fit_resumes(self, epoch: int, trained: bool) -> None:
        """`resume_at`'s position is in Keras' epoch `epoch`; or after it, if that epoch is trained."""
        with self._lock:
            self._fit.resume(epoch, trained)
            if trained:  # an epoch without batches, so that Keras runs its end-of-epoch code
                order = self._order_of_epoch(self._fit.epoch_due - 1)
                self._resume = Position(order, self.batches, 0)

    def used_up(self) -> bool:
        """Whether the pass that fit trains on has no batches left."""
        with self._lock:
            if self._resume is not None:
                return self._resume.size == 0
            return self._fit.consumed > 0 and not self._pass.training

    def was_read(self) -> bool:
        """Whether this fit trains on this loader.

        It has requested a batch, or resumed after the last batch of an epoch.
        """
        with self._lock:
            trained = self._resume is not None and self._resume.size == 0
            return self._pass.training or self._fit.consumed > 0 or trained

    def epoch_begin(self, epoch: int, steps: int) -> None:
        """An epoch of fit begins.

        Args:
            epoch: Keras' number of the epoch.
            steps: the number of batches that Keras takes per epoch.
        """
        with self._lock:
            passes = max(1, -(-self.batches // max(steps, 1)))  # Keras' epochs per pass
            resumed = None if self._resume is None else self._resume.order.epoch
            due = self._fit.epoch_begin(epoch, passes, resumed)
            if not self._mid_training:
                self._next_epoch = self._fit.epoch_due = due
                if resumed is not None and resumed != due:
                    self._resume = None
                self._drop_pass()
                self._fit.due = True
                self._seen.other = False

    def consumed(self, batches: int) -> None:
        """The model has trained on this many more batches."""
        with self._lock:
            if self._pass.training:
                self._fit.consumed += batches
                if self._fit.consumed >= self._pass.size:
                    self._pass.training = False
                    self._drop_pass()
                    self._fit.epoch_due = self._pass.order.epoch + 1

    def fit_end(self) -> None:
        """The fit is over, whether or not it finished its epoch."""
        with self._lock:
            self._end_fit()

    def _end_fit(self) -> None:
        if self._mid_training:
            self._break_off_call(self._fit.consumed)
        else:  # between two epochs
            self._break_off(None)
            self._left = None
        self._fit.end()
        self._pass.training = False
