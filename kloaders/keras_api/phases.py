"""How Keras' calls change a loader's tickets: the phases of an epoch, and their grammar.

Keras asks a Sequence for `loader[i]`, and `fit` asks in a random order of i. If i picked the
batch, look-ahead and locality would be lost. So inside a Keras epoch i is a *ticket*: the first
new i gets the next planned batch, and the same i gets the same batch again. What Keras does
around that, on every version and backend that we promise, is recorded in tests/support/recorded_keras.py:

    B     on_epoch_begin        E   on_epoch_end; an E with no B before it starts a fit
    #     num_batches is read   i   loader[i]

    tensorflow fit                  # # # 0 1 # E   B # # 4 3 1 5 2 0 E   B # # 5 2 ...
    torch, jax fit, model unbuilt   # # B # # 5 # E   B # # 3 4 5 0 2 1 # E   ...
    steps_per_epoch=4 of 6          # # # E   B # # 0 5 2 1 E   B 4 3 # E   B # 2 4 1 5 E
    stopped in mid-epoch, new fit   B # # 5 3   # # # E   B # # 1 2 0 4 3 5 # E

A `#` inside an epoch is the start of a new pass over all batches: that is what tells a new pass
from one that continues after an E. Each event leads from one phase to another (`Phase` says what
they are; the tests read this table):

    phase    | B        | E                | #        | i
    IDLE     | OPENED   | IDLE             | IDLE     | IDLE: batch i of the coming epoch
    OPENED   | OPENED   | IDLE             | OPENED   | READING: the first batch of a new pass
    READING  | OPENED   | IDLE, or PAUSED  | OPENED   | READING: the next batch of the pass
    PAUSED   | READING  | PAUSED           | PAUSED   | PAUSED: as in IDLE, or in READING

An E in READING ends the pass if all its batches were asked for, or if it began with no `#`, as in a
loop written by hand; otherwise the pass is PAUSED. There a thread other than that of the E is
TensorFlow's, which reads ahead in the pass. While a callback says that fit trains on the pass under
way, B, `#` and E leave the phase as it is: they belong to an evaluate in the middle of it.

Where it can be seen who calls (`private.asker`), a pass whose fit, evaluate or predict has ended in the
middle of it is broken off, from any phase to IDLE, before the next event is looked at; and calls of the
user's own, such as a loop, are not taken for Keras'. The table alone holds where it cannot.
"""

from __future__ import annotations

import enum
import threading

from kloaders.keras_api.fit_events import FitEvents
from kloaders.keras_api.passes import IndexReads, Pass, Position, Request, Seen
from kloaders.plan.epoch import Order

__all__ = ["Phase", "Phases"]


class Phase(enum.Enum):
    """Where the tickets stand between two events."""

    IDLE = "no epoch has begun, and no pass is to be continued"
    OPENED = "an epoch has begun, and its next read begins a pass"
    READING = "an epoch has begun, and a pass is under way"
    PAUSED = "an epoch has ended in the middle of a pass, which the next one continues"


# Each batch asks, and an Enum looks its members up slowly.
_IN_EPOCH, _PASS_DUE = (Phase.OPENED, Phase.READING), (Phase.IDLE, Phase.OPENED)


class Phases:
    """The phase, the pass, and their transitions; without a lock.

    Args:
        batches: how many an epoch has.
        shuffle: True, False, or None to do what the requests ask for (see `SequenceLoader`).
        by_index: shuffle=False serves batch i for i, in whatever order it is asked; a two-level
            loader turns this off and serves its own order.
    """

    def __init__(self, batches: int, shuffle: bool | None, by_index: bool = True) -> None:
        self.batches = batches
        self.shuffle = shuffle
        self.by_index = by_index
        #: Set once a permuted request met shuffle=False.
        self.permuted = False
        #: Set once another pass of this loader came in the middle of a fit: without a callback
        #: what is left of the fit's pass cannot be told from a new one.
        self.interrupted = False
        self._phase = Phase.IDLE
        self._seen = Seen()
        self._index_reads = IndexReads()
        self._fit = FitEvents()
        self._pass = Pass(self._order_of_epoch(0), batches)  # the current or the last one
        self._broken = False  # a pass by Keras was left unfinished for another one
        self._resume: Position | None = (
            None  # where the next pass begins, if not at an epoch's start
        )
        self._next_epoch = 0
        # The pass that was broken off last, and how many of its batches were used, if that is known;
        # until another epoch begins.
        self._left: tuple[Pass, int | None] | None = None

    # ------------------------------------------------------------------ events

    def _epoch_begins(self) -> None:
        """B."""
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
        """E."""
        if self._mid_training:
            return
        seen = self._seen
        seen.sizes = 0
        if not self._in_epoch and self._broken and not seen.other:
            self.interrupted = True  # no look came before: it ends the pass of a fit around
        # An E alone belongs to an evaluate that is about to begin, any other ends a pass.
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
        # A # since the last read: another fit may begin with this E.
        if self._phase is Phase.OPENED:
            self._phase = Phase.IDLE
            self._seen.reset = True
            probed = not current.complete or self.batches == 1
            if current.memo and not current.after_reset and probed:
                # Keras read a batch to build the model, and no training saw it.
                self._next_epoch = current.order.epoch
                self._resume = self._resume or current.resumed
        elif current.complete or not current.by_keras:  # or a hand-written loop, left early
            self._phase = Phase.IDLE
        else:
            current.paused = True
            self._phase = Phase.PAUSED

    def _size_read(self) -> int:
        """#: -> how many batches the pass has that begins with it."""
        seen, current = self._seen, self._pass
        seen.sizes += 1
        seen.size_in_epoch = True
        self._index_reads.clear()
        if not self._in_epoch:
            seen.reset, seen.other = False, True
        elif not self._mid_training:
            # One # alone may follow the read that builds a model.
            if current.by_keras and current.unfinished:
                reading = self._phase is Phase.READING
                self._broken |= seen.sizes > 1 or (current.paused and reading)
            self._phase = Phase.OPENED
            seen.size_of_pass = True
        due = self._position_due() if self._pass_due else None
        return self.batches if due is None else due.size

    def _batch_read(self, index: int) -> Request:
        """i, as a ticket."""
        self._seen.sizes = 0
        if self._pass_due:
            self._begin_pass()
        current = self._pass
        first_ask, in_order = index not in current.memo, index == len(current.memo)
        request = current.request(index, self.shuffle, self.by_index)
        if first_ask and not in_order:
            if current.after_reset:
                self._broken = False  # no evaluate or predict asks so: a new fit has begun
            self.permuted |= self.shuffle is False
        return request

    def _number_read(self, index: int) -> Request:
        """i, as a number: outside of an epoch."""
        seen, reads = self._seen, self._index_reads
        seen.sizes = 0
        if self._broken and not seen.other and self._pass.complete:
            self.interrupted = True  # right after an evaluate, with no # as before a look
        reads.add(index)
        return Request(self._order_of_epoch(self._next_epoch), index, reads.looping)

    # ------------------------------------------------------------------ passes

    def _begin_pass(self) -> None:
        seen, fit = self._seen, self._fit
        if self._broken and not seen.size_in_epoch:  # the interrupted fit continues, without #
            self.interrupted = True
        if fit.armed:  # whatever was predicted since the callback said so
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
        """The epoch under way is left, in the middle of its pass perhaps.

        Args:
            done: how many batches of the pass were used; None where that is not known.
        """
        current = self._pass
        if not self._pass_due and current.memo:
            self._left = current, done
        self._phase = Phase.IDLE
        self._seen.size_of_pass = False
        # What tensorflow still asks for is no loop that continues the looks before the fit.
        self._index_reads.end_loop()

    def _drop_pass(self) -> None:
        """The next read in an epoch begins a pass."""
        self._phase = Phase.OPENED if self._in_epoch else Phase.IDLE

    def _position_due(self) -> Position | None:
        """Where the pass resumes that begins now."""
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
