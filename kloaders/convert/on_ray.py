"""Writes shards in tasks of a Ray cluster instead of threads. Tasks and nodes may die.

A task writes a whole shard from its number and the shared inputs, so another task can write the same
bytes again. The caller keeps the journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from kloaders.convert.journal import Advance
from kloaders.core.errors import WorkerPoolError
from kloaders.core.messages import warn
from kloaders.core.ray import Ray
from kloaders.engine.ray import actor, cluster
from kloaders.engine.ray.overdue import Overdue, Turn

__all__ = ["RemoteShards"]

# The interval, in seconds, at which a waiting thread checks whether another shard has failed.
_LOOK_SECONDS = 0.25
# A shard is reported after this multiple of the time after which a batch is.
_LONG = 10.0
# A shard is given up after this many of its tasks have died.
_DEATHS = 3


class RemoteShards:
    """Writes shards on the cluster. `write_shards` calls it in one thread for each shard in progress.

    Args:
        engine: the cluster.
        write: the function that writes a shard, as for `write_shards`. It is pickled.
        journal: the path of the conversion's journal.
        samples: the number of samples of each shard.
    """

    def __init__(
        self, engine: Ray, write: Callable[..., Any], journal: str, samples: list[int]
    ) -> None:
        self.ray = ray = cluster.connect(engine)
        self.samples = samples
        try:
            self.given = cluster.package(ray), cluster.put(ray, write), journal
        except Exception as error:  # pickling a user's objects may raise any exception
            raise TypeError(
                f"engine=Ray(...): the loader cannot be sent to the cluster ({error}). Open files and "
                "locks when they are first used, or leave engine= out to convert in this process."
            ) from error
        self.task = cluster.sent_by_value(
            ray, actor.write_shard, max_retries=0, num_returns="streaming"
        )
        self.engine, self.write = engine, write
        #: Whether this process writes the shards itself, since no task began.
        self.local = False
        self._overdue = Overdue(_LONG)
        self._lock = threading.Lock()  # held while this process writes a shard
        self._change = threading.Lock()
        self._running = 0
        self._idle = time.monotonic()  # since when no task runs, if none does

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        for death in range(1, _DEATHS + 1):
            if self.local:
                return self._here(shard, advance)
            task = self.task.remote(*self.given, shard)
            node = ""
            try:
                if not self._begun(task, advance):
                    self.ray.cancel(task, force=True)
                    continue
                try:
                    node = self.ray.get(next(task))
                    turn = Turn()
                    while not self.ray.wait([task], timeout=_LOOK_SECONDS)[0]:
                        advance(0)  # raises if another shard has failed
                        self._overdue.look(turn, lambda: f"shard {shard}", node)
                    self._overdue.done(turn)
                    well, found = self.ray.get(next(task))
                finally:
                    self._count(-1)
            except self.ray.exceptions.RayTaskError as error:
                raise WorkerPoolError(f"shard {shard} was not written on Ray:\n\n{error}") from None
            except self.ray.exceptions.RayError as error:
                said = str(error).strip().partition("\n")[0]
                where = f", the last on {node}" if node else ""
                if death == _DEATHS:
                    raise WorkerPoolError(
                        f"{death} Ray workers died while they wrote shard {shard}{where} ({said}). Make the "
                        "same call again to continue; without engine= this process writes the shard."
                    ) from None
                where = f" on {node}" if node else ""
                warn(
                    f"a Ray worker died while it wrote shard {shard}{where} ({said}): another worker "
                    "writes it again."
                )
            except BaseException:
                self.ray.cancel(task, force=True)
                raise
            else:
                if not well:
                    raise found
                advance(self.samples[shard])
                names, note = found
                return names, note
        return self._here(shard, advance)  # waiting was given up at the last attempt

    def _begun(self, task: Any, advance: Advance) -> bool:
        """Wait until the task runs. -> False if no task has run for the engine's patience."""
        while not self.ray.wait([task], timeout=_LOOK_SECONDS)[0]:
            advance(0)
            with self._change:
                idle = 0.0 if self._running else time.monotonic() - self._idle
                gives_up = idle > self.engine.patience and not self.local
                self.local = self.local or gives_up
            if gives_up:
                warn(
                    f"no Ray worker has been free for {self.engine.patience:g} seconds: this process "
                    f"writes the remaining shards itself. {cluster.offers(self.ray)} Stop other work on "
                    "the cluster, or make the same call again later: it resumes."
                )
            if self.local:
                return False
        self._count(1)
        return True

    def _count(self, more: int) -> None:
        with self._change:
            self._running += more
            self._idle = time.monotonic()

    def _here(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        with self._lock:  # one shard after another, as without an engine
            advance(0)
            names, note = self.write(shard, advance)
            return names, note
