"""Tells a loader what only Keras' callbacks know: the epoch, what was trained on, and the end."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from kloaders.sequence import SequenceLoader, _flag, check_loader
from kloaders.telemetry import Meter

if TYPE_CHECKING:
    from keras.callbacks import Callback
elif os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
    from tf_keras.callbacks import Callback
else:
    from keras.callbacks import Callback

__all__ = ["LoaderCallback"]


class LoaderCallback(Callback):
    """Give it to `fit` beside the loader that `fit` trains on.

    The loader is exact without it. With it, the loader also knows the true epoch number
    (`initial_epoch`, `BackupAndRestore`), stays exact when a callback calls `evaluate` on the
    same loader in mid-epoch, does not read ahead past the last epoch, and frees its threads and
    the batches made ahead when training ends.

    And it tells Keras what loading was like: each epoch's logs, and so History, CSVLogger and
    TensorBoard (listed before or after this callback), have `samples_per_s`, of training without
    validation; `data_wait_s`, seconds in which the model had nothing to train on;
    `batches_ahead`, how many batches lay ready when one was taken, on average; `cache_hits`, the
    share of arrays from the cache, 0 to 1 (of this process: 0 with processes=True); and
    `sample_errors`, how many samples have not loaded so far. `loader.explain()` uses them after fit.

    Args:
        loader: the loader given to `fit`.
        log: whether to add to the logs.

    Raises:
        TypeError: not one of our loaders.
    """

    def __init__(self, loader: SequenceLoader, *, log: bool = True) -> None:
        super().__init__()
        check_loader(loader, "LoaderCallback")
        self.loader = loader
        self.log = _flag(log, "log")
        self._meter: Meter | None = None
        self._first: _First | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Whatever the loader did before is over."""
        fit = _Fit()
        self.loader._tickets.fit_begin(int(self.params.get("epochs") or 0), fit.over)
        if self.log:
            self._meter = self.loader._meter = Meter(self.loader)
            self.loader._last_fit = self._meter.fit
            self._first = _First(self._meter)
            self._first.join(fit.callbacks())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The epoch's true number."""
        if self._meter is not None:
            self._meter.epoch_begin(new_pass=not self.loader._tickets.training)
        steps = self.params.get("steps") or len(self.loader)
        self.loader._tickets.epoch_begin(int(epoch), int(steps))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """So many batches more have been trained on."""
        batches = int(getattr(self.model, "steps_per_execution", 1) or 1)
        self.loader._tickets.consumed(batches)
        if self._meter is not None:
            self._meter.step_end(batches)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add to the logs, where that was not done before all other callbacks."""
        if self._first is not None:
            self._first.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Free what only training needs."""
        if self._first is not None:
            self._first.leave()
        self._meter = self._first = self.loader._meter = None
        self.loader._fit_end()


class _First(Callback):
    """Adds to an epoch's logs before any other callback reads them.

    Keras hands one dict to all callbacks, in the order of their list; CSVLogger and TensorBoard may
    stand before ours there.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.async_safe = True  # it does nothing at batches
        self._measured = meter
        self._callbacks: Any = None
        self._epoch: int | None = None

    def join(self, callbacks: Any) -> None:
        """Stand first among a fit's callbacks; nowhere if they were not found."""
        if getattr(callbacks, "callbacks", None):
            self._callbacks = callbacks
            # A new list: whoever is walking over the old one calls nobody twice.
            callbacks.callbacks = [self, *callbacks.callbacks]

    def leave(self) -> None:
        if self._callbacks is not None:
            rest = [callback for callback in self._callbacks.callbacks if callback is not self]
            self._callbacks.callbacks, self._callbacks = rest, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch != self._epoch and logs is not None:
            self._epoch = epoch
            logs.update(self._measured.epoch_end().logs())


class _Fit:
    """The call of fit that is under way; made in `on_train_begin`.

    Keras calls no callback when a fit ends in an error. Its frame is then no longer on the stack
    of its thread; the frame is known by its address, which is its own as long as the list of
    callbacks, a local variable of fit, is alive. Neither is kept alive by this.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.callbacks: Callable[[], Any] = lambda: True  # the list, None once it is gone
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != "fit":
            caller = frame.f_locals.get("self")
            if type(caller).__name__ == "CallbackList":
                self.callbacks = weakref.ref(caller)
            frame = frame.f_back
        self.address = id(frame) if frame is not None else 0

    def over(self) -> bool:
        """Whether it has ended. What another thread asks is not known to be."""
        if not self.address or threading.get_ident() != self.thread:
            return False
        if self.callbacks() is None:
            return True
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and id(frame) != self.address:
            frame = frame.f_back
        return frame is None
