"""How long worker processes may take: environment variables, read when their pool is made."""

from __future__ import annotations

from typing import NamedTuple

from kloaders.core.environment import seconds_from

__all__ = ["IDLE", "SAMPLE", "START", "Timeouts"]

SAMPLE = "KLOADERS_WORKER_TIMEOUT"
START = "KLOADERS_WORKER_START_TIMEOUT"
IDLE = "KLOADERS_WORKER_IDLE_TIMEOUT"


class Timeouts(NamedTuple):
    """Seconds for the workers of one pool.

    Attributes:
        sample: a worker that works on one sample for so long is ended, and the sample tried once more.
        start: a worker may take so long to start: it imports the modules of the user's functions.
        idle: a worker that is asked for nothing for so long ends itself: what Keras keeps alive after
            `fit` is light. A new one takes a fraction of a second.
    """

    sample: float = 60.0
    start: float = 300.0
    idle: float = 60.0

    @classmethod
    def from_environment(cls) -> Timeouts:
        """As the environment variables have them.

        Raises:
            ValueError: one of them is no number of seconds above 0.
        """
        default = cls()
        return cls(
            seconds_from(SAMPLE, default.sample),
            seconds_from(START, default.start),
            seconds_from(IDLE, default.idle),
        )
