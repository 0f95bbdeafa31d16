"""Progress bars, and how far the last one came. In a notebook without widgets they are text."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from typing import Any, ClassVar

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # Without ipywidgets tqdm prints text, which is fine, and a red warning.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["Progress", "so_far"]

_last: list[Progress] = []


class Progress(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
    """A bar of tqdm's that counts where it is not shown, too.

    tqdm's own lock is shared by all processes that were forked from one: had a child been killed
    while it held that lock, the next bar would wait for ever. So these bars have a lock of this
    process, and no thread that looks after slow bars (which is what `miniters` is for here).

    Attributes:
        done: how much is done, in the unit of the bar.
        goal: how much there is; None: unknown.
        what: the unit, such as "files".
    """

    monitor_interval = 0
    # With a lock of their own, bars are counted apart from others.
    _instances: ClassVar[weakref.WeakSet[Progress]] = weakref.WeakSet()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"miniters": 1, **options})
        self.done = float(options.get("initial", 0))
        self.goal: float | None = options.get("total")
        self.what = str(options.get("unit", "it")).strip()
        _last[:] = [self]

    def update(self, n: float | None = 1) -> bool | None:
        """Count this much as done."""
        self.done += n or 0
        return super().update(n)


def _new_lock() -> None:
    Progress.set_lock(threading.RLock())


_new_lock()
if hasattr(os, "register_at_fork"):  # another thread may hold the parent's
    os.register_at_fork(after_in_child=_new_lock)


def so_far() -> str | None:
    """How far the last bar of this process came, such as "120 of 400 files"; None without one."""
    if not _last:
        return None
    bar = _last[0]
    goal = "" if bar.goal is None else f" of {bar.goal:,.0f}"
    return f"{bar.done:,.0f}{goal} {'bytes' if bar.what == 'B' else bar.what}"
