"""Which planned batch a request of Keras means. Bookkeeping only: no arrays, no files, no Keras.

Keras asks a Sequence for `loader[i]`, and `fit` asks in a random order of i. If i picked the
batch, look-ahead and locality would be lost. So inside a Keras epoch i is a *ticket*: the first
new i gets the next planned batch, and the same i gets the same batch again. What Keras does
around that, on every version and backend that we promise, is recorded in tests/keras_api/test_tickets.py:

    B     on_epoch_begin        E   on_epoch_end; an E with no B before it starts a fit
    #     num_batches is read   i   loader[i]

    tensorflow fit                  # # # 0 1 # E   B # # 4 3 1 5 2 0 E   B # # 5 2 ...
    torch, jax fit, model unbuilt   # # B # # 5 # E   B # # 3 4 5 0 2 1 # E   ...
    steps_per_epoch=4 of 6          # # # E   B # # 0 5 2 1 E   B 4 3 # E   B # 2 4 1 5 E
    stopped in mid-epoch, new fit   B # # 5 3   # # # E   B # # 1 2 0 4 3 5 # E

A `#` inside an epoch is the start of a new pass over all batches: that is what tells a new pass
from one that goes on over an E.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from kloaders.plan.epoch import Order

__all__ = ["Position", "Request", "Tickets"]


class Request(NamedTuple):
    """What a request means: a batch of an order, and whether the ones after it will be asked."""

    order: Order
    batch: int
    sequential: bool


class Position(NamedTuple):
    """Where a pass goes on: at batch `first` of an order; `size` batches are left from there."""

    order: Order
    first: int
    size: int


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


class Tickets:
    """Turns Keras' requests into planned batches, each exactly once a pass.

    batches: how many an epoch has.
    shuffle: True, False, or None to do what the requests ask for (see `SequenceLoader`).
    by_index: shuffle=False serves batch i for i, in whatever order it is asked; a two-level
        loader turns this off and serves its own order.

    All methods may be called from any thread.
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
        #: How many requests of the current pass came in order before any that did not.
        self.in_order = 0
        self._lock = threading.Lock()
        self._memo: dict[int, int] = {}  # index -> batch of the current pass
        self._shuffles: bool | None = None  # the word of a fit with a callback, where it is known
        self._armed = False  # what comes now is the pass that this fit trains on
        self._order = self._begin_order(0)
        self._first_batch, self._size = 0, batches  # of the current pass
        self._goes_on: Position | None = None  # where the next pass does, if not at its beginning
        self._went_on: Position | None = None  # where the current one did
        self._scattered = False  # batches of the current pass were asked for in no order
        self._next_epoch = 0
        self._inside = False  # between B and E
        self._pass_due = True  # the next read begins a new pass
        self._started = False  # a # came since the last pass began
        self._by_keras = False  # the current pass began with a #
        self._reset_seen = False  # an E without a B came last: a fit or evaluate begins
        self._after_reset = False  # ... and then the B of this epoch
        self._trained = False  # the current pass began so: it is no probe that builds the model
        self._ender = 0  # the thread that called E last
        self._broken = False  # a pass by Keras was left unfinished for another one
        self._left = False  # an E came in the middle of the current pass
        self._asked = 0  # how many # since the last B, E or read
        self._numbered = False  # a # came since the last B
        self._plain: set[int] = set()  # indices read outside Keras, for loops without a B
        self._last_plain, self._run = -1, 0
        # What only a callback can tell
        self._in_fit = False
        self._over: Callable[[], bool] | None = None  # whether that fit has ended, in an error
        self._training = False  # the current pass is the one that fit trains on
        self._training_due = False  # the next pass is, if it begins as fit begins its own
        self._other = False  # an evaluate or predict has begun since the epoch
        self._consumed = 0
        self._offset: int | None = None
        self._epochs = self._first = self._due = 0
        #: The last epoch that this fit will ask for.
        self.last_epoch: int | None = None

    def forked(self) -> None:
        """A thread that this process does not have may have held the lock."""
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ what Keras calls

    def asked_for_all(self) -> bool:
        """Whether Keras has asked for every batch of the current pass."""
        with self._lock:
            return self._inside and self._by_keras and len(self._memo) == self._size

    def begin(self) -> None:
        """on_epoch_begin."""
        with self._lock:
            self._look_at_fit()
            self._asked, self._numbered = 0, False
            self._plain.clear()
            self._inside = True
            self._after_reset, self._reset_seen = self._reset_seen, False
            self._armed = self._training_due and not self._other

    def end(self) -> None:
        """on_epoch_end."""
        with self._lock:
            self._look_at_fit()
            if self._mid_training():
                return
            self._asked = 0
            if not self._inside and self._broken and not self._other:
                self.interrupted = True  # no look came before: it ends the pass of a fit around
            # An E alone belongs to an evaluate that is about to begin, any other ends a pass.
            self._other = not self._inside
            if not self._inside:
                self._reset_seen = True
                if len(self._plain) == self.batches:  # a loop by index, with no on_epoch_begin
                    self._next_epoch += 1
                self._plain.clear()
                return
            self._inside = False
            self._ender = threading.get_ident()
            whole = len(self._memo) == self._size
            if self._pass_due:  # a # since the last read: this E may be the start of another fit
                self._reset_seen = True
                if self._memo and not self._trained and (not whole or self.batches == 1):
                    # Keras read a batch to build the model, and no training saw it.
                    self._next_epoch = self._order.epoch
                    self._goes_on = self._goes_on or self._went_on
            elif whole or not self._by_keras:  # or a hand-written loop, left early
                self._pass_due = True
            else:
                self._left = True

    def starting(self) -> int:
        """num_batches was read: how many batches the pass has that begins with it."""
        with self._lock:
            self._look_at_fit()
            self._asked += 1
            self._numbered = True
            self._plain.clear()
            if not self._inside:
                self._reset_seen = False
                self._other = True
            elif not self._mid_training():
                # One # alone may follow the read that builds a model.
                if self._by_keras and 0 < len(self._memo) < self._size:
                    self._broken |= self._asked > 1 or (self._left and not self._pass_due)
                self._pass_due = self._started = True
            due = self._position_due() if self._pass_due else None
            return self.batches if due is None else due.size

    def length(self) -> int:
        """Batches of an epoch; less in one that goes on in the middle."""
        with self._lock:
            if not self._inside:
                return self.batches
            now = self._position_due() if self._pass_due else self._went_on
            return self.batches if now is None else now.size

    def locate(self, index: int) -> Request:
        """What `loader[index]` means now."""
        with self._lock:
            self._asked = 0
            if not self._inside and not self._read_on():
                return self._ordinary(index)
            if self._pass_due:
                self._begin_pass()
            ticket = self._memo.get(index)
            if ticket is not None:
                return Request(self._order, ticket, False)
            ticket = len(self._memo)
            if ticket >= self._size or index >= self._size:
                raise IndexError(
                    f"batch {index} of an epoch that went on in the middle, with {self._size} batches "
                    "left: ask len(loader) after on_epoch_begin()."
                )
            in_order = index == ticket
            self.in_order += in_order and self.in_order == ticket
            if self._trained and not in_order:
                self._broken = False  # no evaluate or predict asks so: a new fit has begun
            batch = self._first_batch + ticket
            if (
                self.shuffle is None
                and not in_order
                and self._order.head >= self._first_batch + self._size
            ):
                self._order = self._order._replace(head=batch)
            if self.shuffle is False and not in_order:
                self.permuted = True
            if self.shuffle is False and self.by_index:
                self._scattered |= not in_order
                batch = self._first_batch + index
                self._memo[index] = batch
                return Request(self._order, batch, in_order)
            self._memo[index] = batch
            return Request(self._order, batch, True)

    def _read_on(self) -> bool:
        # steps_per_epoch < len on tensorflow: its thread reads ahead between the E of one epoch
        # and the B of the next, which both come from the main thread, as probes do.
        unfinished = self._by_keras and not self._pass_due
        return unfinished and threading.get_ident() != self._ender

    def _ordinary(self, index: int) -> Request:
        if self._broken and not self._other and len(self._memo) == self._size:
            self.interrupted = True  # right after an evaluate, with no # as before a look
        # Keras looks at batches 0 and 1 before it begins: only the third in a row is a loop.
        self._run = self._run + 1 if index == self._last_plain + 1 else 1
        self._last_plain = index
        self._plain.add(index)
        return Request(self._begin_order(self._next_epoch), index, self._run > 2)

    def _begin_order(self, epoch: int) -> Order:
        shuffle = self.shuffle
        if shuffle is None and self._armed:
            shuffle = self._shuffles
        return Order(epoch, 0 if shuffle else self.batches)

    def _begin_pass(self) -> None:
        self._pass_due = False
        self._by_keras, self._started = self._started, False
        self._left = False
        if self._broken and not self._numbered:  # the fit that was left goes on, with no #
            self.interrupted = True
        self._memo.clear()
        self.in_order = 0
        self._scattered = False
        if self._armed:  # whatever was predicted since the callback said so
            self._next_epoch = self._due
        position = self._position_due()
        self._went_on = position
        if position is None:
            position = Position(self._begin_order(self._next_epoch), 0, self.batches)
        else:
            self._goes_on = None
        self._order, self._first_batch, self._size = position.order, position.first, position.size
        self._next_epoch = self._order.epoch
        self._next_epoch += 1
        self._trained, self._after_reset = self._after_reset, False
        self._training = self._armed
        if self._training:
            self._training_due = self._armed = False
            self._consumed = 0

    # ------------------------------------------------------------------ positions

    def go_on(self, position: Position) -> None:
        """The next pass begins here: the next one that fit trains on, if a callback knows it."""
        with self._lock:
            whole = position.first == 0 and position.order.rest is None
            self._goes_on = None if whole else position
            self._next_epoch = self._due = position.order.epoch
            self._pass_due = True
            self._memo.clear()

    def position(self) -> tuple[Order, int]:
        """What comes next: a batch of an order. What was read but not trained on comes again.

        Raises:
            ValueError: that cannot be told.
        """
        with self._lock:
            self._look_at_fit()
            if self._in_fit:
                done, under_way = self._consumed, self._training
            else:
                done, under_way = len(self._memo), bool(self._memo) and not self._pass_due
                if not self._inside and self._run > 2 and 0 < len(self._plain) < self.batches:
                    raise ValueError(_BY_NUMBER)
                if under_way and self._by_keras:
                    raise ValueError(_READ_AHEAD)
            if under_way and 0 < done < self._size:
                if self._scattered:
                    raise ValueError(_SCATTERED)
                return self._order, self._first_batch + done
            if under_way and done:
                return self._begin_order(self._order.epoch + 1), 0
            if under_way:
                return self._order, self._first_batch
            if self._goes_on is not None:
                return self._goes_on.order, self._goes_on.first
            return self._begin_order(self._due if self._in_fit else self._next_epoch), 0

    def _position_due(self) -> Position | None:
        """Where the pass goes on that begins now."""
        if self._inside and (self._armed or not self._in_fit):
            return self._goes_on
        return None

    def upcoming(self) -> Order | None:
        """The order of the next pass as far as can be told; None while one is under way."""
        with self._lock:
            if not self._pass_due or not self._memo:
                return None
            shuffled = self._order.head < self.batches
            return Order(self._next_epoch, 0 if shuffled else self.batches)

    # ------------------------------------------------------------------ what a callback tells

    @property
    def training(self) -> bool:
        """Whether the current pass is known to be the one that fit trains on."""
        return self._in_fit and self._training

    def fit_begin(
        self,
        epochs: int,
        over: Callable[[], bool] | None = None,
        shuffle: bool | None = None,
    ) -> None:
        """A fit up to epoch number `epochs` - 1 begins: whatever came before is over.

        over: asked later whether this fit has ended without `fit_end`, in an error.
        shuffle: what fit was told, where that is known.
        """
        with self._lock:
            self._in_fit, self._training, self._offset = True, False, None
            self._over, self._shuffles = over, shuffle
            self._consumed = 0
            self._first = self._due = self._next_epoch
            self._epochs, self.last_epoch = epochs, None
            self._pass_due = True

    def fit_goes_on(self, epoch: int, trained: bool) -> None:
        """Where `go_on` said is in this epoch of Keras'; or behind it, if it is trained already."""
        with self._lock:
            self._offset = self._due - epoch - trained
            if trained:  # an epoch without a batch, for what Keras does at the end of one
                order = self._begin_order(self._due - 1)
                self._goes_on = Position(order, self.batches, 0)

    def used_up(self) -> bool:
        """Whether the pass that fit trains on has no batch left for another step."""
        with self._lock:
            if self._goes_on is not None:
                return self._goes_on.size == 0
            return self._consumed > 0 and not self._training

    def was_read(self) -> bool:
        """Whether this fit asked for a batch, or went on behind one, as it does if it trains on it."""
        with self._lock:
            trained = self._goes_on is not None and self._goes_on.size == 0
            return self._training or self._consumed > 0 or trained

    def epoch_begin(self, epoch: int, steps: int) -> None:
        """Keras' epoch number, and how many batches it takes an epoch."""
        with self._lock:
            each = max(1, -(-self.batches // max(steps, 1)))  # Keras' epochs a pass
            if self._offset is None:
                # A fit that starts at 0 goes on after the epochs already served; one that starts
                # later (initial_epoch, a restored run) means that very epoch.
                self._offset = 0 if epoch else self._first
                if self._goes_on is not None:
                    self._offset = self._goes_on.order.epoch - epoch // each
            if self.last_epoch is None:
                self.last_epoch = self._offset + -(-self._epochs // each) - 1
            if not self._mid_training():
                self._next_epoch = self._due = self._offset + epoch // each
                if self._goes_on is not None and self._goes_on.order.epoch != self._due:
                    self._goes_on = None
                self._pass_due = self._training_due = True
                self._other = False

    def consumed(self, batches: int) -> None:
        """The model has taken this many more batches."""
        with self._lock:
            if self._training:
                self._consumed += batches
                if self._consumed >= self._size:
                    self._training = False
                    self._pass_due = True
                    self._due = self._order.epoch + 1

    def fit_end(self) -> None:
        """The fit is over, in mid-epoch or not."""
        with self._lock:
            self._end_fit()
            self._inside = False
            self._pass_due = True
            # What tensorflow still asks for is no loop that goes on from the looks before the fit.
            self._last_plain, self._run = -1, 0

    def _end_fit(self) -> None:
        self._in_fit = self._training = self._training_due = self._armed = False
        self._over = None
        self.last_epoch = None

    def _look_at_fit(self) -> None:
        # Keras tells callbacks nothing when a fit ends in an error.
        if self._in_fit and self._over is not None and self._over():
            self._end_fit()

    def _mid_training(self) -> bool:
        return self._in_fit and self._training
