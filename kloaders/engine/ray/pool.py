"""Actors of a Ray cluster that fill rows instead of worker processes. They may die, hang or never start.

A thread of the engine passes a batch to an actor and waits. The result depends only on the arguments,
so another actor can repeat it. Ray's own retries are off, because they wait for the dead actor or its node.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.errors import Recovery, WorkerPoolError, with_recovery
from kloaders.core.memory import BufferPool
from kloaders.core.messages import warn
from kloaders.core.ray import Ray
from kloaders.core.rows import Report, Rows, report_at
from kloaders.core.structure import Structure, without_specs
from kloaders.engine.processes.timeouts import SAMPLE, Timeouts
from kloaders.engine.ray import cluster
from kloaders.engine.ray.rows import Needs, put_pieces, put_stored, trouble_of
from kloaders.plan.rng import Moment
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["RayPool"]

# The number of batches assigned to an actor: the current one and the next.
_EACH = 2
# A batch that killed this many actors is read sample by sample; a sample that did so is at fault.
_DEATHS = 3
# A batch is also given to a second actor after this multiple of the recent median time, in seconds.
_SLOW, _SLOW_SECONDS = 3.0, 2.0
_MEASURED = 64
# The interval of these checks.
_LOOK_SECONDS = 0.25
# The number of seconds after which an unused actor is ended.
_IDLE_SECONDS = 60.0


# These references must outlive a fork: releasing one in the child would use the parent's connection to
# the cluster, and break it.
_open: set[_Actors] = set()


class _NoAnswer(Exception):
    """No actor has answered for `patience` seconds."""


class _Deadly(Exception):
    """Every actor that got this job died, or did not finish it."""

    def __init__(self, times: int, how: str, hangs: bool) -> None:
        super().__init__(how)
        self.times, self.hangs = times, hangs


@dataclass(eq=False)
class _Actor:
    """An actor, and its number of jobs."""

    handle: Any
    ready: Any
    jobs: int = 0
    gone: bool = False
    used: float = field(default_factory=time.monotonic)


class _Memory:
    """Allocates arrays for batches, like the shared memory of worker processes."""

    def __init__(self) -> None:
        self.limit = 16
        self._pool = BufferPool()

    def take(self, needs: Needs) -> list[Array]:
        self._pool.limit = self.limit * max(1, len(needs))
        return [self._pool.take(shape, dtype) for shape, dtype in needs]

    def keep(self, leaves: list[Array]) -> list[Array]:
        return leaves


class RayPool:
    """Actors that hold a pipeline; corresponds to `ProcessPool`.

    They are created for the first batch, up to `Ray.cpus` of them, and end with `close`.

    Threads: several may call all methods at once.
    """

    kind = "Ray actors"

    def __init__(self, pipeline: SamplePipeline, wanted: Ray) -> None:
        self.wanted = wanted
        self.count = wanted.cpus * _EACH
        self.memory = _Memory()
        self.timeouts = Timeouts.from_environment()
        self.ray = cluster.connect(wanted)
        self._group = _Actors(self.ray, pipeline, wanted)
        self._seconds: deque[float] = deque(maxlen=_MEASURED)
        self._answered = time.monotonic()
        #: Whether no actor answered, so that this process makes the batches itself.
        self.local = False
        #: The total number of seconds that actors took for the delivered batches.
        self.worked = 0.0
        weakref.finalize(self, _Actors.close, self._group)

    @property
    def usable(self) -> bool:
        """Whether it is open and this process is not a fork of the one that created it."""
        return not self._group.closed and self._group.pid == os.getpid()

    def fill(
        self,
        pipeline: SamplePipeline,
        indices: Indices,
        out: Rows,
        report: Report,
        moment: Moment,
        raw: bool,
        stored: Rows | None = None,
    ) -> None:
        """Run `pipeline.fill` on an actor; see `ProcessPool.fill`."""
        if self.local:
            self._here(pipeline, indices, out, report, moment, raw, stored)
            return
        needs = [(leaf.shape, leaf.dtype) for leaf in out.arrays]
        job = self.ray.cloudpickle.dumps(
            (indices, needs, without_specs(out.form), moment, raw), protocol=5
        )
        given = None if stored is None else (without_specs(stored.form), list(stored.arrays))
        try:
            found = self._ask("fill", job, given)
        except _NoAnswer:
            self._fall_back()
            self._here(pipeline, indices, out, report, moment, raw, stored)
            return
        except _Deadly as end:
            if len(indices) == 1:
                report(0, self._as_error(end))
                return
            warn(
                f"{end.times} Ray actors {end} while they made a batch of {len(indices)} samples: they "
                "are read one by one."
            )
            for row in range(len(indices)):
                part = slice(row, row + 1)
                self.fill(
                    pipeline,
                    indices[part],
                    out.part(part),
                    report_at(report, row),
                    moment.part(part),
                    raw,
                    None if stored is None else stored.part(part),
                )
            return
        arrays, troubles, seconds = found
        self.worked += seconds
        # A copy: Ray's arrays are read-only, and a batch_transform may write.
        for leaf, pieces in zip(out.arrays, arrays, strict=True):
            put_pieces(pieces, leaf)
        for trouble in troubles:
            report(*trouble_of(trouble))

    def look(self, pipeline: SamplePipeline, index: int, raw: bool) -> Structure:
        """The specs of one sample; raises the sample's error."""
        if self.local:
            return pipeline.look(index, raw)
        try:
            well, found = self._ask("look", index, raw)
        except _NoAnswer:
            self._fall_back()
            return pipeline.look(index, raw)
        except _Deadly as end:
            raise self._as_error(end) from None
        if not well:
            raise trouble_of((0, None, found))[1]
        return found

    def close(self) -> None:
        """End the actors. Running jobs fail."""
        self._group.close()

    # ------------------------------------------------------------------ one job, with retries

    def _ask(self, method: str, *job: Any) -> Any:
        """The result of an actor's method for this job.

        Raises:
            _NoAnswer: no actor answers.
            _Deadly: three actors died of it, or none finishes it.
        """
        begun = time.monotonic()
        tries: dict[Any, tuple[_Actor, float]] = {}
        deaths, how, hangs = 0, "", False
        try:
            while True:
                if not tries or self._slow(tries):
                    self._start(tries, method, job, begun)
                ready, _ = self.ray.wait(list(tries), num_returns=1, timeout=_LOOK_SECONDS)
                if self._group.closed:
                    raise WorkerPoolError("the loader was closed while it made a batch.")
                if ready:
                    actor, since = tries.pop(ready[0])
                    try:
                        found = self.ray.get(ready[0])
                    except self.ray.exceptions.RayTaskError as error:
                        self._group.give_back(actor)
                        raise self._broken(error) from None
                    except self.ray.exceptions.RayError as error:
                        if cluster.cannot_load(error):
                            self._group.drop(actor)
                            raise self._broken(error) from None
                        where = f"on {self._group.node(actor)} ({_first_line(error)})"
                        if self._group.drop(actor):
                            warn(f"a Ray actor died {where}: other actors make its batches.")
                        deaths, how, hangs = deaths + 1, f"died {where}", False
                    else:
                        self._answered = time.monotonic()
                        self._seconds.append(self._answered - since)
                        self._group.give_back(actor)
                        return found
                elif (late := self._late(tries)) is not None:
                    actor, _ = tries.pop(late)
                    where = f"on {self._group.node(actor)}"
                    how = f"did not answer for {self.timeouts.sample:g} seconds {where}"
                    if self._group.drop(actor):
                        warn(f"a Ray actor {how}: other actors make its batches.")
                    deaths, hangs = deaths + 1, True
                if deaths >= _DEATHS - hangs:
                    raise _Deadly(deaths, how, hangs)
                if time.monotonic() - max(begun, self._answered) > self.wanted.patience:
                    raise _NoAnswer
        finally:
            for ref, (actor, _) in tries.items():
                self._group.leave(actor, ref)

    def _start(
        self, tries: dict[Any, Any], method: str, job: tuple[Any, ...], begun: float
    ) -> None:
        """Give the job to one more actor if one is free; the first try waits for a free one."""
        taken = {id(actor) for actor, _ in tries.values()}
        while True:
            actor = self._group.take(taken, 0.0 if tries else _LOOK_SECONDS)
            if actor is not None:
                ref = getattr(actor.handle, method).remote(*job)
                tries[ref] = actor, time.monotonic()
                return
            if tries:
                return
            if time.monotonic() - max(begun, self._answered) > self.wanted.patience:
                raise _NoAnswer

    def _slow(self, tries: dict[Any, Any]) -> bool:
        """Whether to give the job to a second actor."""
        if len(tries) > 1 or len(self._seconds) < 3:
            return False
        limit = max(_SLOW_SECONDS, _SLOW * statistics.median(self._seconds))
        (since,) = (since for _, since in tries.values())
        return bool(time.monotonic() - since > limit)

    def _late(self, tries: dict[Any, Any]) -> Any:
        """The try whose time is over, if other actors have answered since it began."""
        now = time.monotonic()
        for ref, (_, since) in tries.items():
            if now - since > self.timeouts.sample and self._answered > since:
                return ref
        return None

    def _as_error(self, end: _Deadly) -> Exception:
        """The error for a sample that killed actors."""
        if end.hangs:
            slow: Exception = TimeoutError(
                f"not loaded after {self.timeouts.sample:g} seconds on a Ray actor, {end.times} times. If "
                f"a sample may take longer, set the environment variable {SAMPLE}, in seconds."
            )
            return with_recovery(slow, None)
        died = RuntimeError(f"the Ray actor that loaded it {end}, {end.times} times.")
        return with_recovery(died, Recovery.LOST)

    def _broken(self, error: Exception) -> Exception:
        """The error if an actor could not load the pipeline, or for a bug of this package."""
        return WorkerPoolError(
            "a Ray actor could not do its work. Each node needs the packages that the loader uses "
            "(kloaders itself is sent along): install them there, or start Ray with "
            f"ray.init(runtime_env={{'pip': [...]}}). The actor's message:\n\n{error}"
        )

    # ------------------------------------------------------------------ without actors

    def _fall_back(self) -> None:
        if not self.local:
            self.local = True
            warn(
                f"no Ray actor has answered for {self.wanted.patience:g} seconds: this process makes the "
                f"batches itself, on threads. {cluster.offers(self.ray)}"
            )

    def _here(
        self,
        pipeline: SamplePipeline,
        indices: Indices,
        out: Rows,
        report: Report,
        moment: Moment,
        raw: bool,
        stored: Rows | None,
    ) -> None:
        if stored is None:
            pipeline.fill(indices, out, report, moment, raw)
            return
        put_stored(pipeline, indices, out, report, moment, stored)


class _Actors:
    """The actors of a pool: as many as there is work for."""

    def __init__(self, ray: Any, pipeline: SamplePipeline, wanted: Ray) -> None:
        self.ray, self.wanted = ray, wanted
        self.closed = False
        self.pid = os.getpid()
        self._make = cluster.decoder_class(ray)
        self._package = cluster.package(ray)
        self._pickled = cluster.pickled(ray, pipeline)
        self._change = threading.Condition()
        self._all: list[_Actor] = []
        self._strays: dict[Any, _Actor] = {}
        self._timer: threading.Timer | None = None
        _open.add(self)

    def take(self, other_than: set[int], seconds: float) -> _Actor | None:
        """Reserve an actor that has room for a job; None if there is none."""
        end = time.monotonic() + seconds
        with self._change:
            while not self.closed:
                self._settle()
                free = [a for a in self._all if a.jobs < _EACH and id(a) not in other_than]
                best = min(free, key=lambda actor: actor.jobs, default=None)
                wants_more = best is None or best.jobs > 0
                if wants_more and len(self._all) < self.wanted.cpus:
                    for _ in range(1 if self._all else self.wanted.least):
                        self._all.append(self._started())
                    continue
                if best is not None:
                    best.jobs += 1
                    best.used = time.monotonic()
                    return best
                if not self._change.wait(max(0.0, end - time.monotonic())):
                    return None
            raise WorkerPoolError("the loader was closed while it made a batch.")

    def give_back(self, actor: _Actor) -> None:
        """Release an actor whose job is done."""
        with self._change:
            actor.jobs -= 1
            self._look_for_idle()
            self._change.notify_all()

    def leave(self, actor: _Actor, ref: Any) -> None:
        """Drop a job that an actor may still be working on."""
        with self._change:
            if not actor.gone:
                self._strays[ref] = actor

    def drop(self, actor: _Actor) -> bool:
        """Remove an actor that died or must end, to be replaced by another. Return whether it was listed."""
        with self._change:
            if actor.gone:
                return False
            actor.gone = True
            self._all.remove(actor)
            self._strays = {ref: a for ref, a in self._strays.items() if a is not actor}
            self._change.notify_all()
        self._kill(actor)
        return True

    def close(self) -> None:
        """End all actors."""
        if self.pid != os.getpid():  # in a fork, actors and connection belong to the parent
            self.closed = True
            return
        with self._change:
            if self.closed:
                return
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
            actors, self._all = self._all, []
            self._strays.clear()
            _open.discard(self)
            self._change.notify_all()
        for actor in actors:
            actor.gone = True
            self._kill(actor)

    def _started(self) -> _Actor:
        handle = self._make.remote(self._package, self._pickled)
        return _Actor(handle, handle.ready.remote())

    def node(self, actor: _Actor) -> str:
        """Where it runs, as it reported when it was ready."""
        try:
            return str(self.ray.get(actor.ready, timeout=0))
        except Exception:  # it was never ready
            return "an unknown node"

    def _settle(self) -> None:
        """Release actors whose dropped jobs have finished."""
        if not self._strays:
            return
        done, _ = self.ray.wait(list(self._strays), num_returns=len(self._strays), timeout=0)
        for ref in done:
            self._strays.pop(ref).jobs -= 1

    def _look_for_idle(self) -> None:
        """Schedule a check whether all actors are needed."""
        if self._timer is None and not self.closed and len(self._all) > self.wanted.least:
            self._timer = threading.Timer(_IDLE_SECONDS, self._retire)
            self._timer.daemon = True
            self._timer.start()

    def _retire(self) -> None:
        """End actors that were idle for a while, down to the minimum."""
        with self._change:
            self._timer = None
            if self.closed:
                return
            self._end_idle()
            self._look_for_idle()

    def _end_idle(self) -> None:
        self._settle()
        old = time.monotonic() - _IDLE_SECONDS
        idle = [a for a in self._all if not a.jobs and a.used < old]
        for actor in idle[: max(0, len(self._all) - self.wanted.least)]:
            actor.gone = True
            self._all.remove(actor)
            self._kill(actor)

    def _kill(self, actor: _Actor) -> None:
        if self.ray.is_initialized():
            self.ray.kill(actor.handle, no_restart=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
