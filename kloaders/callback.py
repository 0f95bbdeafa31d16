"""Tells a loader what only Keras' callbacks know: the epoch, what was trained on, and the end."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from kloaders.sequence import SequenceLoader, check_loader

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

    Args:
        loader: the loader given to `fit`.

    Raises:
        TypeError: not one of our loaders.
    """

    def __init__(self, loader: SequenceLoader) -> None:
        super().__init__()
        check_loader(loader, "LoaderCallback")
        self.loader = loader

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Whatever the loader did before is over."""
        self.loader._tickets.fit_begin(int(self.params.get("epochs") or 0), _Fit().over)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The epoch's true number."""
        steps = self.params.get("steps") or len(self.loader)
        self.loader._tickets.epoch_begin(int(epoch), int(steps))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """So many batches more have been trained on."""
        self.loader._tickets.consumed(int(getattr(self.model, "steps_per_execution", 1) or 1))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Free what only training needs."""
        self.loader._fit_end()


class _Fit:
    """The call of fit that is under way; made in `on_train_begin`.

    Keras calls no callback when a fit ends in an error. Its frame is then no longer on the stack
    of its thread; the frame is known by its address, which is its own as long as the list of
    callbacks, a local variable of fit, is alive. Neither is kept alive by this.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.callbacks: Callable[[], Any] = lambda: True
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
