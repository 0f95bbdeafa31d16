"""Frees tf.data's finished iterators in another thread, so that no epoch waits for that.

On the TensorFlow backend Keras makes a Dataset from a Sequence, with tf.data's autotuner on, and drops
the iterator of an epoch when the first step of the next epoch begins. The tuner (`Model::OptimizeLoop`)
sleeps for 10 ms, then twice as long each time, up to a minute. At the end of the iterator it is woken,
so that it sees the cancellation and stops. But TensorFlow's `CancellationManager` runs its callbacks,
one of which wakes the tuner, before it sets the cancelled state. If the tuner runs first, as it may on
busy cores, it sees no cancellation and sleeps again, and the thread that dropped the iterator waits for
it. In `fit` on two cores with prefetching this happened at the end of every third epoch, and took
nearly as long as the epoch itself.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from queue import SimpleQueue
from typing import Any

from kloaders.core.threads import started
from kloaders.keras_api import private

__all__ = ["free_beside"]

_waiting: dict[threading.Thread, weakref.finalize[..., Any]] = {}


def free_beside() -> None:
    """Free the iterator of the surrounding fit, evaluate or predict in another thread, once Keras drops it.

    Call this only when the iterator has been read to its end.
    """
    found = private.take_iterator()
    if found is None:
        return
    iterator, holds = found
    dropped: SimpleQueue[list[Any]] = SimpleQueue()  # a finalizer may call its put safely
    finalizer = weakref.finalize(iterator, dropped.put, holds)
    finalizer.atexit = False
    thread = threading.Thread(
        target=_free, args=(dropped,), name="tf.data's finished iterator", daemon=True
    )
    _waiting[thread] = finalizer
    if not started(thread):  # then the thread that drops the iterator waits, as without kloaders
        del _waiting[thread]
        finalizer.detach()


def _free(dropped: SimpleQueue[list[Any]]) -> None:
    held = dropped.get()
    while held:
        held.pop()  # the iterator's resource first, then its dataset; this may wait
    del _waiting[threading.current_thread()]


@atexit.register
def _finish() -> None:
    # If the program ends while a thread is inside TensorFlow, the process may crash.
    for thread, finalizer in list(_waiting.items()):
        if not finalizer.alive:  # Keras dropped the iterator, so the thread is about to free it
            thread.join()
