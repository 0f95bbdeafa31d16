"""Report work on a cluster that takes long, and where it runs.

No work is ended, because nothing shows how long a user's data may take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kloaders.core.environment import seconds_from
from kloaders.core.messages import warn
from kloaders.core.stall_watch import DEFAULT, INTERVAL

__all__ = ["Overdue", "Turn"]

# Report only after this multiple of the time that the longest finished work took.
_LONG = 3.0


@dataclass(eq=False)
class Turn:
    """One piece of work: when it began, and how often it was reported."""

    begun: float = field(default_factory=time.monotonic)
    reports: int = 0


class Overdue:
    """Decides when a piece of work is reported, for all pieces of one call.

    The first report comes after KLOADERS_STALL_SECONDS, the next after two, four, ... times as long.

    Args:
        times: a multiple of that time, for pieces of many samples.

    Threads: several may share one.

    Raises:
        ValueError: the environment variable is not a number above 0.
    """

    def __init__(self, times: float = 1.0) -> None:
        self._least = times * seconds_from(INTERVAL, DEFAULT)
        self._longest = 0.0
        self._lock = threading.Lock()

    def look(self, turn: Turn, what: Callable[[], str], where: str) -> None:
        """Report the work if it is due.

        Args:
            turn: the work.
            what: returns the name of the work, as the beginning of a sentence.
            where: its node and process.
        """
        waited = time.monotonic() - turn.begun
        if waited > max(self._least, _LONG * self._longest) * 2**turn.reports:
            turn.reports += 1
            warn(
                f"{what()} has taken {waited:.0f} seconds so far on {where}, and continues. If that process "
                "hangs, end it there (`kill -9`): another process takes over."
            )

    def done(self, turn: Turn) -> None:
        """Record that the work has finished."""
        with self._lock:
            self._longest = max(self._longest, time.monotonic() - turn.begun)
