"""Shards written by tasks of a Ray cluster instead of threads. Tasks and nodes may die.

A task writes a whole shard from its number and the shared inputs: another task can write it again with
the same bytes. The caller keeps the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kloaders.convert.journal import Advance
from kloaders.core.errors import SampleError, WorkerPoolError
from kloaders.core.messages import warn
from kloaders.core.ray import Ray
from kloaders.engine.ray import actor, cluster

__all__ = ["RemoteShards"]

# Seconds between checks whether another shard has failed.
_LOOK_SECONDS = 0.25
# After this many lost tasks a shard is not tried again.
_DEATHS = 3


class RemoteShards:
    """Writes shards on the cluster: `write_shards` calls it from one thread per shard in progress.

    Args:
        engine: the cluster.
        write: writes a shard, as for `write_shards`. It is pickled.
        journal: path of the conversion's journal.
        samples: number of samples of each shard.
    """

    def __init__(
        self, engine: Ray, write: Callable[..., Any], journal: str, samples: list[int]
    ) -> None:
        self.ray = ray = cluster.connect(engine)
        self.samples = samples
        try:
            self.given = cluster.package(ray), cluster.put(ray, write), journal
        except Exception as error:  # pickling a user's objects may raise anything
            raise TypeError(
                f"engine=Ray(...): the loader cannot be sent to the cluster ({error}). Open files and "
                "locks where they are first used, or convert in this process, without engine=."
            ) from error
        self.task = cluster.sent_by_value(ray, actor.write_shard, max_retries=0)

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        for death in range(1, _DEATHS + 1):
            ref = self.task.remote(*self.given, shard)
            try:
                while not self.ray.wait([ref], timeout=_LOOK_SECONDS)[0]:
                    advance(0)  # raises where another shard has failed
                well, found = self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:
                raise WorkerPoolError(f"shard {shard} was not written on Ray:\n\n{error}") from None
            except self.ray.exceptions.RayError as error:
                said = str(error).strip().partition("\n")[0]
                if death == _DEATHS:
                    raise WorkerPoolError(
                        f"{death} Ray workers died while they wrote shard {shard} ({said}). Make the same "
                        "call again to continue; without engine= this process writes the shard."
                    ) from None
                warn(
                    f"a Ray worker died while it wrote shard {shard} ({said}): another one takes over."
                )
            except BaseException:
                self.ray.cancel(ref, force=True)
                raise
            else:
                if not well:
                    raise SampleError(*found)
                advance(self.samples[shard])
                names, note = found
                return names, note
        raise AssertionError("not reached")
