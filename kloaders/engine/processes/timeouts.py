"""Time limits of worker processes: environment variables, read when a pool is created."""

from __future__ import annotations

from typing import NamedTuple

from kloaders.core.environment import seconds_from

__all__ = ["IDLE", "SAMPLE", "START", "Timeouts"]

SAMPLE = "KLOADERS_WORKER_TIMEOUT"
START = "KLOADERS_WORKER_START_TIMEOUT"
IDLE = "KLOADERS_WORKER_IDLE_TIMEOUT"


class Timeouts(NamedTuple):
    """Time limits of one pool, in seconds.

    Attributes:
        sample: a worker that works on one sample for longer is killed, and the sample is tried again.
        start: the maximum time for a worker to start, including imports of the user's modules.
        idle: a worker without a job for this long exits, so that a loader that Keras keeps after
            `fit` uses few resources. Starting a new one takes a fraction of a second.
    """

    sample: float = 60.0
    start: float = 300.0
    idle: float = 60.0

    @classmethod
    def from_environment(cls) -> Timeouts:
        """Read the environment variables.

        Raises:
            ValueError: one of them is not a number of seconds above 0.
        """
        default = cls()
        return cls(
            seconds_from(SAMPLE, default.sample),
            seconds_from(START, default.start),
            seconds_from(IDLE, default.idle),
        )
