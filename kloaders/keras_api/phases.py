"""A state machine that finds out from Keras' calls which pass and which batch a request belongs to.

Keras asks a Sequence for `loader[i]`, and `fit` asks in a random order of i. If i chose the batch,
the loader could not prefetch, and could not read neighbouring samples together. So inside a Keras
epoch i is a *ticket*: a new i gets the next planned batch, and the same i gets the same batch again.
tests/support/recorded_keras.py has recordings of Keras' calls on every supported version and backend:

    B     on_epoch_begin        E   on_epoch_end; an E with no B before it starts a fit
    #     num_batches is read   i   loader[i]

    tensorflow fit                  # # # 0 1 # E   B # # 4 3 1 5 2 0 E   B # # 5 2 ...
    torch, jax fit, model unbuilt   # # B # # 5 # E   B # # 3 4 5 0 2 1 # E   ...
    steps_per_epoch=4 of 6          # # # E   B # # 0 5 2 1 E   B 4 3 # E   B # 2 4 1 5 E
    stopped in mid-epoch, new fit   B # # 5 3   # # # E   B # # 1 2 0 4 3 5 # E

A `#` inside an epoch starts a new pass over all batches. After an E without a `#`, the old pass
continues. This table has the next phase for each event (`Phase` describes the phases; the tests read
the table):

    phase    | B        | E                | #        | i
    IDLE     | OPENED   | IDLE             | IDLE     | IDLE: batch i of the coming epoch
    OPENED   | OPENED   | IDLE             | OPENED   | READING: the first batch of a new pass
    READING  | OPENED   | IDLE, or PAUSED  | OPENED   | READING: the next batch of the pass
    PAUSED   | READING  | PAUSED           | PAUSED   | PAUSED: as in IDLE, or in READING

An E in READING ends the pass if all its batches were requested, or if the pass began without a `#`, as
in a loop written by hand. Otherwise the pass is PAUSED. In PAUSED, a request from another thread than
the one that called E comes from TensorFlow, which reads ahead in the pass. While a callback reports
that fit trains on the current pass, B, `#` and E do not change the phase: they come from an evaluate in
the middle of the pass.

`private.asker` usually finds the caller of the loader. Then a pass whose fit, evaluate or predict has
ended in the middle is interrupted (its phase becomes IDLE) before the next event is handled, and calls
by the user, such as a loop, are not mistaken for Keras'. If the caller is unknown, only the table
applies.
"""

from __future__ import annotations

import enum
import threading

from kloaders.keras_api.fit_events import FitEvents
from kloaders.keras_api.passes import IndexReads, Pass, Position, Request, Seen
from kloaders.plan.epoch import Order

__all__ = ["Phase", "Phases"]


class Phase(enum.Enum):
    """The state between two events."""

    IDLE = "no epoch has begun, and no pass will be continued"
    OPENED = "an epoch has begun, and its next read begins a pass"
    READING = "an epoch has begun, and a pass is being read"
    PAUSED = "an epoch has ended in the middle of a pass, which the next one continues"


# Looked up for each batch, and attributes of an Enum are slow.
_IN_EPOCH, _PASS_DUE = (Phase.OPENED, Phase.READING), (Phase.IDLE, Phase.OPENED)


class Phases:
    """The phase, the pass, and their transitions; without a lock.

    Args:
        batches: the number of batches in an epoch.
        shuffle: True, False, or None to follow the order of the requests (see `SequenceLoader`).
        by_index: whether shuffle=False serves batch i for index i in any order of requests. A
            two-level loader turns this off and serves its own order.
    """

    def __init__(self, batches: int, shuffle: bool | None, by_index: bool = True) -> None:
        self.batches = batches
        self.shuffle = shuffle
        self.by_index = by_index
        #: Whether a request came out of order in spite of shuffle=False.
        self.permuted = False
        #: Whether another pass of this loader began in the middle of a fit. Without a callback,
        #: the rest of the fit's pass then looks like a new pass.
        self.interrupted = False
        self._phase = Phase.IDLE
        self._seen = Seen()
        self._index_reads = IndexReads()
        self._fit = FitEvents()
        self._pass = Pass(self._order_of_epoch(0), batches)  # the current or the last one
        self._broken = False  # Keras began another pass before it had finished one
        # Where the next pass begins, if not at the start of an epoch.
        self._resume: Position | None = None
        self._next_epoch = 0
        # The last interrupted pass, and how many of its batches were used, if known. Cleared when
        # another epoch begins.
        self._left: tuple[Pass, int | None] | None = None

    # ------------------------------------------------------------------ events

    def _epoch_begins(self) -> None:
        """Handle B."""
        seen = self._seen
        seen.sizes, seen.size_in_epoch = 0, False
        seen.begun_after_reset, seen.reset = seen.reset, False
        self._index_reads.clear()
        self._left = None
        if self._phase is Phase.PAUSED or self._mid_training:
            self._phase = Phase.READING
        else:
            self._phase = Phase.OPENED
        self._fit.armed = self._fit.due and not seen.other

    def _epoch_ends(self) -> None:
        """Handle E."""
        if self._mid_training:
            return
        seen = self._seen
        seen.sizes = 0
        if not self._in_epoch and self._broken and not seen.other:
            self.interrupted = True  # no read came before it: it ends the pass of a surrounding fit
        # An E without a B comes from an evaluate that is about to begin; any other E ends a pass.
        seen.other = not self._in_epoch
        if self._in_epoch:
            seen.ender = threading.get_ident()
            self._leave_epoch()
            return
        seen.reset = True
        if len(self._index_reads) == self.batches:  # a loop by index, with no on_epoch_begin
            self._next_epoch += 1
            self._left = None
        self._index_reads.clear()

    def _leave_epoch(self) -> None:
        current = self._pass
        # A # came after the last read: this E may begin another fit.
        if self._phase is Phase.OPENED:
            self._phase = Phase.IDLE
            self._seen.reset = True
            probed = not current.complete or self.batches == 1
            if current.memo and not current.after_reset and probed:
                # Keras read a batch only to build the model, and did not train on it.
                self._next_epoch = current.order.epoch
                self._resume = self._resume or current.resumed
        elif current.complete or not current.by_keras:  # or a hand-written loop was left early
            self._phase = Phase.IDLE
        else:
            current.paused = True
            self._phase = Phase.PAUSED

    def _size_read(self) -> int:
        """Handle #. -> the number of batches of the pass that it begins."""
        seen, current = self._seen, self._pass
        seen.sizes += 1
        seen.size_in_epoch = True
        self._index_reads.clear()
        if not self._in_epoch:
            seen.reset, seen.other = False, True
        elif not self._mid_training:
            # A single # may also follow the read that builds a model.
            if current.by_keras and current.unfinished:
                reading = self._phase is Phase.READING
                self._broken |= seen.sizes > 1 or (current.paused and reading)
            self._phase = Phase.OPENED
            seen.size_of_pass = True
        due = self._position_due() if self._pass_due else None
        return self.batches if due is None else due.size

    def _batch_read(self, index: int) -> Request:
        """Handle i within an epoch, where it is a ticket."""
        self._seen.sizes = 0
        if self._pass_due:
            self._begin_pass()
        current = self._pass
        first_ask, in_order = index not in current.memo, index == len(current.memo)
        request = current.request(index, self.shuffle, self.by_index)
        if first_ask and not in_order:
            if current.after_reset:
                self._broken = False  # only fit asks out of order, so a new fit has begun
            self.permuted |= self.shuffle is False
        return request

    def _number_read(self, index: int) -> Request:
        """Handle i outside an epoch, where it is the number of a batch."""
        seen, reads = self._seen, self._index_reads
        seen.sizes = 0
        if self._broken and not seen.other and self._pass.complete:
            self.interrupted = True  # right after an evaluate, without the # that begins a call
        reads.add(index)
        return Request(self._order_of_epoch(self._next_epoch), index, reads.looping)

    # ------------------------------------------------------------------ passes

    def _begin_pass(self) -> None:
        seen, fit = self._seen, self._fit
        if self._broken and not seen.size_in_epoch:  # the interrupted fit continues, without a #
            self.interrupted = True
        if fit.armed:  # an evaluate or predict since then may have moved _next_epoch
            self._next_epoch = fit.epoch_due
        position = self._position_due()
        begins = position or Position(self._order_of_epoch(self._next_epoch), 0, self.batches)
        if position is not None:
            self._resume = None
        self._pass = Pass(
            begins.order,
            begins.size,
            begins.first,
            by_keras=seen.size_of_pass,
            after_reset=seen.begun_after_reset,
            training=fit.armed,
            resumed=position,
        )
        self._phase = Phase.READING
        self._next_epoch = begins.order.epoch + 1
        seen.size_of_pass = seen.begun_after_reset = False
        if fit.armed:
            fit.due = fit.armed = False
            fit.consumed = 0

    def _break_off(self, done: int | None) -> None:
        """The current epoch is left, possibly in the middle of its pass.

        Args:
            done: the number of batches of the pass that were used; None if unknown.
        """
        current = self._pass
        if not self._pass_due and current.memo:
            self._left = current, done
        self._phase = Phase.IDLE
        self._seen.size_of_pass = False
        # TensorFlow's late requests must not count as a loop together with its reads before the fit.
        self._index_reads.end_loop()

    def _drop_pass(self) -> None:
        """Make the next read in an epoch begin a new pass."""
        self._phase = Phase.OPENED if self._in_epoch else Phase.IDLE

    def _position_due(self) -> Position | None:
        """The position at which the pass that begins now resumes; None for the start of an epoch."""
        if self._in_epoch and (self._fit.armed or not self._fit.running):
            return self._resume
        return None

    def _order_of_epoch(self, epoch: int) -> Order:
        shuffle = self.shuffle
        if shuffle is None and self._fit.armed:
            shuffle = self._fit.shuffle
        return Order(epoch, 0 if shuffle else self.batches)

    # ------------------------------------------------------------------ phases

    @property
    def _in_epoch(self) -> bool:
        return self._phase in _IN_EPOCH

    @property
    def _pass_due(self) -> bool:
        return self._phase in _PASS_DUE

    @property
    def _mid_training(self) -> bool:
        return self._fit.running and self._pass.training
