"""`Ray(cpus=32)`: the option value that moves decoding to a Ray cluster. Ray is not imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kloaders.core.checks import checked_count

__all__ = ["Ray", "checked_engine"]


@dataclass(frozen=True)
class Ray:
    """Read, decode and transform batches with actors of a Ray cluster: `processes=Ray(cpus=32)`.

    The batches and their order are the same as with threads. One actor uses one CPU of the
    cluster. Needs `pip install ray`; see docs/distributed.md.

    Args:
        cpus: the maximum number of actors.
        address: the address of the cluster, as for `ray.init`: "auto", "ray://host:10001" or
            "host:6379". None: the cluster that this program is connected to, or the one of
            RAY_ADDRESS, or a new one on this machine.
        min_cpus: the number of actors to start with, and to keep. More start while batches wait for
            a free actor; an actor that is idle for a minute ends. None: all start at once.
        patience: seconds. If no actor answers for this long, this process makes the batches itself,
            and logs a warning; in a conversion, if none of its tasks runs for this long.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or is out of range.
    """

    cpus: int
    address: str | None = None
    min_cpus: int | None = None
    patience: float = 60.0

    def __post_init__(self) -> None:
        checked_count(self.cpus, "cpus", 1)
        least = self.cpus if self.min_cpus is None else checked_count(self.min_cpus, "min_cpus", 1)
        if least > self.cpus:
            raise ValueError(f"min_cpus={least} is more than cpus={self.cpus}, the maximum.")
        if self.address is not None and not isinstance(self.address, str):
            raise TypeError(
                f"address={self.address!r:.80} is {type(self.address).__name__}, expected a string such as "
                '"auto" or "ray://host:10001", or None.'
            )
        if isinstance(self.patience, bool) or not isinstance(self.patience, (int, float)):
            raise TypeError(f"patience={self.patience!r:.80}, expected a number of seconds.")
        if not self.patience > 0:
            raise ValueError(f"patience={self.patience!r:.80}, expected more than 0 seconds.")

    @property
    def least(self) -> int:
        """The number of actors to start with."""
        return self.cpus if self.min_cpus is None else self.min_cpus


def checked_engine(engine: Any) -> Ray | None:
    """Return None or a Ray; raise TypeError for anything else."""
    if engine is None or isinstance(engine, Ray):
        return engine
    raise TypeError(f"engine={engine!r:.80}, expected None (this process) or kl.Ray(cpus=...).")
