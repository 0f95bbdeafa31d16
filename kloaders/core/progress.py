"""Progress bars, and how far the last one came. In a notebook without widgets they are text."""

from __future__ import annotations

import warnings
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # Without ipywidgets tqdm prints text, which is fine, and a red warning.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["Progress", "so_far"]

_last: list[Progress] = []


class Progress(tqdm):  # type: ignore[type-arg]  # generic in the stubs only
    """A bar of tqdm's that counts where it is not shown, too.

    Attributes:
        done: how much is done, in the unit of the bar.
        goal: how much there is; None: unknown.
        what: the unit, such as "files".
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.done = float(options.get("initial", 0))
        self.goal: float | None = options.get("total")
        self.what = str(options.get("unit", "it")).strip()
        _last[:] = [self]

    def update(self, n: float | None = 1) -> bool | None:
        """Count this much as done."""
        self.done += n or 0
        return super().update(n)


def so_far() -> str | None:
    """How far the last bar of this process came, such as "120 of 400 files"; None without one."""
    if not _last:
        return None
    bar = _last[0]
    goal = "" if bar.goal is None else f" of {bar.goal:,.0f}"
    return f"{bar.done:,.0f}{goal} {'bytes' if bar.what == 'B' else bar.what}"
