"""Calls one function for many independent jobs, on actors of a Ray cluster.

If an actor or its node dies, other actors do its jobs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kloaders.core.errors import WorkerPoolError
from kloaders.core.messages import warn
from kloaders.core.ray import Ray
from kloaders.engine.ray import actor, cluster
from kloaders.engine.ray.overdue import Overdue, Turn

__all__ = ["called"]

# The number of jobs assigned to an actor: the current one and the next.
_EACH = 2
# A job that killed this many actors is not tried again.
_DEATHS = 3
# Seconds between checks whether any actor is alive.
_LOOK_SECONDS = 0.5


@dataclass(eq=False)
class _Worker:
    handle: Any
    ready: Any
    node: str = ""
    jobs: int = 0
    turn: Turn = field(default_factory=Turn)


def called(
    engine: Ray,
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    name: Callable[[Any], str] = "the job {!r:.80}".format,
) -> Iterator[tuple[Any, Any]]:
    """Yield each job and its result, in the order of completion; warn about a job that takes long.

    Args:
        engine: the cluster and the number of actors, each with one CPU.
        function: pickled; called again for a job whose actor died.
        jobs: the function's arguments; pickled as well.
        name: returns a job's name for that warning.

    Raises:
        ImportError: Ray is not installed.
        TypeError: the function cannot be pickled.
        WorkerPoolError: there is no cluster, the function raised an error, or one job killed three
            actors.
    """
    ray = cluster.connect(engine)
    try:
        given = cluster.package(ray), cluster.put(ray, function)
    except Exception as error:  # pickling a user's objects may raise anything
        raise TypeError(
            f"engine=Ray(...): the function cannot be sent to the cluster ({error}). Open files "
            "and locks when they are first used, or leave engine= out."
        ) from error
    make = cluster.sent_by_value(ray, actor.Worker, max_restarts=0, max_task_retries=0)
    running = _Running(ray, engine, lambda: make.remote(*given), deque(jobs), name)
    try:
        yield from running.answers()
    finally:  # also after Ctrl-C
        running.close()
    yield from ((job, function(job)) for job in running.left())


class _Running:
    """Actors and their jobs."""

    def __init__(
        self,
        ray: Any,
        engine: Ray,
        make: Callable[[], Any],
        jobs: deque[Any],
        name: Callable[[Any], str],
    ) -> None:
        self.ray, self.engine, self.make, self.name = ray, engine, make, name
        self.waiting = jobs
        self.workers: list[_Worker] = []
        self.refs: dict[Any, tuple[_Worker, Any]] = {}
        self.deaths: dict[int, int] = {}
        self.given_up = False
        self.overdue = Overdue()

    def answers(self) -> Iterator[tuple[Any, Any]]:
        lived = time.monotonic()
        while (self.waiting or self.refs) and not self.given_up:
            self._give()
            starting = [worker.ready for worker in self.workers if not worker.node]
            done, _ = self.ray.wait([*self.refs, *starting], num_returns=1, timeout=_LOOK_SECONDS)
            for ref in done:
                if ref in self.refs:
                    if (found := self._answer(ref)) is not None:
                        yield found
                else:
                    self._started(ref)
            self._look()
            if any(worker.node for worker in self.workers):
                lived = time.monotonic()
            elif time.monotonic() - lived > self.engine.patience:
                self.given_up = True
                warn(
                    f"no Ray actor has answered for {self.engine.patience:g} seconds: this process does "
                    "the rest of the work itself. `ray status` shows the state of the cluster."
                )

    def left(self) -> list[Any]:
        """The unfinished jobs."""
        return [*(job for _, job in self.refs.values()), *self.waiting] if self.given_up else []

    def close(self) -> None:
        for worker in self.workers:
            self.ray.kill(worker.handle, no_restart=True)

    def _give(self) -> None:
        """Assign jobs to all actors; create as many actors as there are jobs for."""
        while len(self.workers) < min(self.engine.cpus, len(self.waiting) + len(self.refs)):
            handle = self.make()
            self.workers.append(_Worker(handle, handle.ready.remote()))
        for worker in self.workers:
            while worker.node and worker.jobs < _EACH and self.waiting:
                job = self.waiting.popleft()
                if not worker.jobs:
                    worker.turn = Turn()
                worker.jobs += 1
                self.refs[worker.handle.call.remote(job)] = worker, job

    def _started(self, ref: Any) -> None:
        (worker,) = (one for one in self.workers if one.ready == ref)
        try:
            worker.node = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise self._broken(error) from None
        except self.ray.exceptions.RayActorError as error:
            if cluster.cannot_load(error):
                raise self._broken(error) from None
            self._lost(worker)

    def _answer(self, ref: Any) -> tuple[Any, Any] | None:
        worker, job = self.refs.pop(ref)
        try:
            found = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise self._broken(error) from None
        except self.ray.exceptions.RayError as error:
            self.waiting.appendleft(job)
            deaths = self.deaths[id(job)] = self.deaths.get(id(job), 0) + 1
            if deaths == _DEATHS:
                said = str(error).strip().partition("\n")[0]
                raise WorkerPoolError(
                    f"{deaths} Ray actors died while they did the same job, the last one on {worker.node} "
                    f"({said:.200}). `ray status` "
                    "shows the state of the cluster; without engine= this process does the work."
                ) from None
            warn(f"a Ray actor on {worker.node} died: other actors do its jobs.")
            self._lost(worker)
            return None
        worker.jobs -= 1
        self.overdue.done(worker.turn)
        worker.turn = Turn()
        return job, found

    def _look(self) -> None:
        """Report jobs that take long. An actor works on the first of its jobs."""
        current = dict(reversed(self.refs.values()))
        for worker, job in current.items():
            self.overdue.look(worker.turn, partial(self.name, job), worker.node)

    def _lost(self, worker: _Worker) -> None:
        """Give all its jobs to other actors, without counting a death for them."""
        self.workers = [one for one in self.workers if one is not worker]
        for ref in [ref for ref, (owner, _) in self.refs.items() if owner is worker]:
            self.waiting.appendleft(self.refs.pop(ref)[1])

    def _broken(self, error: Exception) -> WorkerPoolError:
        return WorkerPoolError(
            "a Ray actor could not do its work. Each node needs the packages that the function uses "
            f"(kloaders itself is sent along). The actor's message:\n\n{error}"
        )
