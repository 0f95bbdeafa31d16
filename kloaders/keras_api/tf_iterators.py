"""Frees tf.data's finished iterators in another thread, so that no epoch waits for it.

On the tensorflow backend Keras makes a Dataset of a Sequence, with tf.data's tuner on, and drops its
iterator when the next epoch's first step begins. The tuner sleeps for 10 ms, then for twice as long,
up to a minute. It is woken to be told of the end; but the cancellation that it looks for is set after
it was woken: TensorFlow's `CancellationManager` runs its callbacks first, among them the one that wakes
`Model::OptimizeLoop`. Where that is the quicker, as on busy cores, it sleeps on, and the thread that
dropped the iterator waits for it: in `fit` on two cores that read ahead, at every third epoch's end,
for nearly as long as the epoch had taken.
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
    """Have another thread wait, once the method of Keras around this call drops its iterator.

    To be called when that iterator has been read to its end: nothing may come from it any more.
    """
    found = private.take_iterator()
    if found is None:
        return
    iterator, holds = found
    dropped: SimpleQueue[list[Any]] = SimpleQueue()  # a put from a finalizer is safe
    finalizer = weakref.finalize(iterator, dropped.put, holds)
    finalizer.atexit = False
    thread = threading.Thread(
        target=_free, args=(dropped,), name="tf.data's finished iterator", daemon=True
    )
    _waiting[thread] = finalizer
    if not started(thread):  # who drops it waits, as without all this
        del _waiting[thread]
        finalizer.detach()


def _free(dropped: SimpleQueue[list[Any]]) -> None:
    held = dropped.get()
    while held:
        held.pop()  # the iterator first; waits here
    del _waiting[threading.current_thread()]


@atexit.register
def _finish() -> None:
    # A thread that the end of the program overtakes inside of TensorFlow may end it with a crash.
    for thread, finalizer in list(_waiting.items()):
        if not finalizer.alive:  # dropped, and so about to be freed
            thread.join()
