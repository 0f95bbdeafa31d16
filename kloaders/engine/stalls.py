"""Says which sample a batch waits for, where it waits for long. Ends nothing: a thread cannot be ended.

A disk that went to sleep, a network drive that is gone, a hook with a deadlock: the training stands
still, and nothing says why. So who waits for a batch looks from time to time at what the threads do.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from types import FrameType
from typing import Any

from kloaders.core.messages import say

__all__ = ["wait"]

# A batch that is waited for so long is told of, and again after twice the time, and so on.
SECONDS = 60.0


def wait(done: threading.Event) -> None:
    """Block until it is set; say meanwhile, now and then, what the loaders' threads are at."""
    waited = 0.0
    while not done.wait(max(SECONDS, waited)):
        waited += max(SECONDS, waited)
        at = "; ".join(_samples()) or "its threads wait, perhaps for worker processes"
        say(
            f"a batch has not come for {waited:g} seconds: {at}. Training goes on when it does; "
            "with processes=True a worker that hangs is ended, and its sample is an error."
        )


def _samples() -> list[str]:
    """The sample that each of our threads works on, and the line of code."""
    frames = sys._current_frames()
    ours = [t.ident for t in threading.enumerate() if t.name.startswith("kloaders")]
    found = [_sample(frames[ident]) for ident in ours if ident in frames]
    return sorted({said for said in found if said})


def _sample(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    line = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    while frame is not None:
        # Looking here costs nothing while all is well; taking notes would cost a little each sample.
        local = frame.f_locals
        said = _named(local.get("self"), local.get("index"))
        if said:
            return f"{said} is still being loaded, {line}"
        frame = frame.f_back
    return ""


def _named(owner: Any, index: Any) -> str:
    """Sample `index` of a column, a loader or files of records, in words."""
    if type(index) is not int:
        return ""
    for kind in ("_name", "name"):  # of a loader, of a column
        with contextlib.suppress(Exception):  # another kind of object, which has these too
            return f"sample {index} ({getattr(owner, kind)(index)})"
    return ""
