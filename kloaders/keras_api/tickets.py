"""Which planned batch a request of Keras means. Bookkeeping only: no arrays, no files, no Keras.

`phases.py` says what a ticket is, and what each call of Keras makes of the tickets. Here are the calls
themselves, from any thread, what callbacks add to them, and the position in the data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kloaders.keras_api.passes import Position, Request
from kloaders.keras_api.phases import Phase, Phases
from kloaders.plan.epoch import Order

__all__ = ["Position", "Request", "Tickets"]

_READ_AHEAD = (
    "how much of this pass the model has consumed is not known: Keras reads ahead of it. Give "
    "fit(callbacks=[LoaderCallback(loader)]), after which state_dict() counts what was trained on."
)
_SCATTERED = (
    "shuffle=False serves the batches that are asked for, and fit() asks for them in a random order: "
    "a position in the middle of such an epoch is no number. Use shuffle=None or True on the loader, "
    "or fit(shuffle=False)."
)
_BY_NUMBER = (
    "batches were read by their number, outside of an epoch, which moves no position: call "
    "loader.on_epoch_begin() before the loop and loader.on_epoch_end() behind it."
)


class Tickets(Phases):
    """Turns Keras' requests into planned batches, each exactly once per pass.

    All methods may be called from any thread.

    Args:
        batches: how many an epoch has.
        shuffle: True, False, or None to do what the requests ask for (see `SequenceLoader`).
        by_index: shuffle=False serves batch i for i, in whatever order it is asked; a two-level
            loader turns this off and serves its own order.
    """

    def __init__(self, batches: int, shuffle: bool | None, by_index: bool = True) -> None:
        super().__init__(batches, shuffle, by_index)
        self._lock = threading.Lock()

    def forked(self) -> None:
        """A thread that this process does not have may have held the lock."""
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ what Keras calls

    @property
    def in_order(self) -> int:
        """How many requests of the current pass came in order before any that did not."""
        return self._pass.in_order

    def asked_for_all(self) -> bool:
        """Whether Keras has asked for every batch of the current pass."""
        with self._lock:
            return self._in_epoch and self._pass.by_keras and self._pass.complete

    def begin(self) -> None:
        """on_epoch_begin."""
        with self._lock:
            self._look_at_fit()
            self._epoch_begins()

    def end(self) -> None:
        """on_epoch_end."""
        with self._lock:
            self._look_at_fit()
            self._epoch_ends()

    def starting(self) -> int:
        """num_batches was read: how many batches the pass has that begins with it."""
        with self._lock:
            self._look_at_fit()
            return self._size_read()

    def length(self) -> int:
        """Batches of an epoch; less in one that was resumed in the middle."""
        with self._lock:
            if self._phase is Phase.READING:
                return self._pass.size
            now = self._position_due() if self._phase is Phase.OPENED else None
            return self.batches if now is None else now.size

    def locate(self, index: int) -> Request:
        """What `loader[index]` means now."""
        with self._lock:
            if self._in_epoch or self._reads_on():
                return self._batch_read(index)
            return self._number_read(index)

    def _reads_on(self) -> bool:
        # steps_per_epoch < len on tensorflow: its thread reads ahead between the E of one epoch
        # and the B of the next, which both come from the main thread, as probes do.
        return self._phase is Phase.PAUSED and threading.get_ident() != self._seen.ender

    # ------------------------------------------------------------------ positions

    def resume_at(self, position: Position) -> None:
        """The next pass begins here: the next one that fit trains on, if a callback knows it."""
        with self._lock:
            whole = position.first == 0 and position.order.rest is None
            self._resume = None if whole else position
            self._next_epoch = self._fit.epoch_due = position.order.epoch
            self._drop_pass()
            self._pass.memo.clear()

    def position(self) -> tuple[Order, int]:
        """What comes next: a batch of an order. What was read but not trained on comes again.

        Raises:
            ValueError: that cannot be told.
        """
        with self._lock:
            self._look_at_fit()
            current, fit = self._pass, self._fit
            if fit.running:
                done, under_way = fit.consumed, current.training
            else:
                done, under_way = len(current.memo), bool(current.memo) and not self._pass_due
                reads = self._index_reads
                if not self._in_epoch and reads.looping and 0 < len(reads) < self.batches:
                    raise ValueError(_BY_NUMBER)
                if under_way and current.by_keras:
                    raise ValueError(_READ_AHEAD)
            if under_way and 0 < done < current.size:
                if current.scattered:
                    raise ValueError(_SCATTERED)
                return current.order, current.first + done
            if under_way and done:
                return self._order_of_epoch(current.order.epoch + 1), 0
            if under_way:
                return current.order, current.first
            if self._resume is not None:
                return self._resume.order, self._resume.first
            return self._order_of_epoch(fit.epoch_due if fit.running else self._next_epoch), 0

    # ------------------------------------------------------------------ what a callback reports

    @property
    def training(self) -> bool:
        """Whether the current pass is known to be the one that fit trains on."""
        return self._mid_training

    @property
    def last_epoch(self) -> int | None:
        """The last epoch that the fit under way will ask for, where that is known."""
        return self._fit.last_epoch

    def fit_begin(
        self,
        epochs: int,
        ended: Callable[[], bool] | None = None,
        shuffle: bool | None = None,
    ) -> None:
        """A fit up to epoch number `epochs` - 1 begins: whatever came before is over.

        Args:
            epochs: as fit was given them.
            ended: asked later whether this fit has ended without `fit_end`, in an error.
            shuffle: what fit was given, where that is known.
        """
        with self._lock:
            self._fit.begin(epochs, ended, shuffle, self._next_epoch)
            self._pass.training = False
            self._drop_pass()

    def fit_resumes(self, epoch: int, trained: bool) -> None:
        """Where `resume_at` said is in this epoch of Keras'; or after it, if it is trained already."""
        with self._lock:
            self._fit.resume(epoch, trained)
            if trained:  # an epoch without a batch, for what Keras does at the end of one
                order = self._order_of_epoch(self._fit.epoch_due - 1)
                self._resume = Position(order, self.batches, 0)

    def used_up(self) -> bool:
        """Whether the pass that fit trains on has no batch left for another step."""
        with self._lock:
            if self._resume is not None:
                return self._resume.size == 0
            return self._fit.consumed > 0 and not self._pass.training

    def was_read(self) -> bool:
        """Whether this fit asked for a batch, or resumed after the last one of an epoch.

        A fit that trains on this loader does.
        """
        with self._lock:
            trained = self._resume is not None and self._resume.size == 0
            return self._pass.training or self._fit.consumed > 0 or trained

    def epoch_begin(self, epoch: int, steps: int) -> None:
        """Keras' epoch number, and how many batches it takes per epoch."""
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
        """The model has taken this many more batches."""
        with self._lock:
            if self._pass.training:
                self._fit.consumed += batches
                if self._fit.consumed >= self._pass.size:
                    self._pass.training = False
                    self._drop_pass()
                    self._fit.epoch_due = self._pass.order.epoch + 1

    def fit_end(self) -> None:
        """The fit is over, in mid-epoch or not."""
        with self._lock:
            self._end_fit()
            self._phase = Phase.IDLE
            # What tensorflow still asks for is no loop that continues the looks before the fit.
            self._index_reads.end_loop()

    def _end_fit(self) -> None:
        self._fit.end()
        self._pass.training = False

    def _look_at_fit(self) -> None:
        # Keras tells callbacks nothing when a fit ends in an error.
        if self._fit.running and self._fit.ended is not None and self._fit.ended():
            self._end_fit()
