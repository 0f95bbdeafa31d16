"""Progress bars, and how far the last one came. In a notebook without widgets they are plain text."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from typing import Any, ClassVar

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # Without ipywidgets tqdm prints text, which is fine, but also a red warning.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["Progress", "so_far"]

_last: list[Progress] = []


class Progress(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
    """A tqdm bar that counts even when it is not shown.

    All processes forked from one process share tqdm's lock. If a child is killed while it holds that
    lock, the next bar waits forever. Therefore these bars use a lock of their own process, and do
    without tqdm's monitor thread for slow bars (which is why `miniters` is set).

    Attributes:
        done: how much is done, in the unit of the bar.
        goal: the total; None if it is unknown.
        what: the unit, such as "files".
    """

    monitor_interval = 0
    # With their own lock, these bars are numbered apart from other tqdm bars.
    _instances: ClassVar[weakref.WeakSet[Progress]] = weakref.WeakSet()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"miniters": 1, **options})
        self.done = float(options.get("initial", 0))
        self.goal: float | None = options.get("total")
        self.what = str(options.get("unit", "it")).strip()
        _last[:] = [self]

    def update(self, n: float | None = 1) -> bool | None:
        """Add `n` to what is done."""
        self.done += n or 0
        return super().update(n)


def _new_lock() -> None:
    Progress.set_lock(threading.RLock())


_new_lock()
if hasattr(os, "register_at_fork"):  # another thread of the parent may hold the lock
    os.register_at_fork(after_in_child=_new_lock)


def so_far() -> str | None:
    """The progress of this process's last bar, such as "120 of 400 files"; None if there was no bar."""
    if not _last:
        return None
    bar = _last[0]
    goal = "" if bar.goal is None else f" of {bar.goal:,.0f}"
    return f"{bar.done:,.0f}{goal} {'bytes' if bar.what == 'B' else bar.what}"
