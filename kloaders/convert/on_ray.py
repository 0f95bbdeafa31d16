"""Shards written by tasks of a Ray cluster, in place of threads. They may die, with their node too.

A task writes a whole shard, from its number and what all share: it may be made again, by another
one, to the same bytes. The journal is the caller's.
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

# Seconds between two looks whether another shard has failed.
_LOOK_SECONDS = 0.25
# A shard of which so many tasks died is not tried again.
_DEATHS = 3


class RemoteShards:
    """Writes a shard on the cluster: what `write_shards` calls, from a thread for each at a time.

    Args:
        engine: which cluster.
        write: what writes a shard, as `write_shards` takes it. It is pickled.
        journal: the path of the conversion's journal.
        samples: how many each shard has.
    """

    def __init__(
        self, engine: Ray, write: Callable[..., Any], journal: str, samples: list[int]
    ) -> None:
        self.ray = ray = cluster.connect(engine)
        self.samples = samples
        try:
            self.given = cluster.package(ray), cluster.put(ray, write), journal
        except Exception as error:  # whatever pickling a user's objects raises
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
