"""Has the batches of a plan made ahead of their request: threads or processes, buffers, locks.

A batch is identified by a key, (order, batch number), and made by a `BatchBuild`. Threads and processes
live while batches are requested: `release` stops them, and the next request starts them again.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.gc_guard import held_off
from kloaders.core.memory import BufferPool
from kloaders.core.options import WorkOptions
from kloaders.core.ray import Ray
from kloaders.core.structure import ArraySpec, Structure, flatten, map_structure, unflatten
from kloaders.core.threads import usable_cores
from kloaders.engine.batches import BatchBuild, Pool
from kloaders.engine.delivery import Delivery
from kloaders.engine.fetching import FetchingEngine
from kloaders.engine.lookahead import AHEAD_BYTES, Build, Engine, build_inline
from kloaders.engine.padding import Padding
from kloaders.engine.processes.pool import ProcessPool
from kloaders.engine.ragged import RaggedPadding
from kloaders.engine.ray.pool import RayPool
from kloaders.engine.specs import Look, SampleSpecs
from kloaders.keras_api.telemetry import Fit, Meter
from kloaders.keras_api.tickets import Position, Request, Tickets
from kloaders.places.fetching import Claim
from kloaders.plan.epoch import EpochPlan, Order
from kloaders.plan.rng import Moment
from kloaders.plan.streams import Stream
from kloaders.sources.cache.store import renew
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["Key", "Runner", "key_of", "keys_of"]

#: A batch: the order of an epoch, and the batch number in it.
Key = tuple[Order, int]


class Runner:
    """Makes the batches of one loader.

    Args:
        pipeline: loads samples.
        specs: shapes and dtypes of the samples.
        log: records samples that do not load.
        plan: assigns samples to batches.
        tickets: interpret Keras' requests.
        delivery: the last step of a batch.
        work: threads, processes, and the number of prefetched batches.
        padding: pads samples of unequal length; None: no padding.

    Attributes:
        engine: prefetches batches; None while nothing is requested.
        meter: measures the current fit, if a LoaderCallback does.
        last_fit: the last result of it.
        loaded: the position of the state loaded last; None if none was loaded.

    Threads: all methods may be called from several at once.
    """

    #: Whether batches are made from RAM batches.
    #: Number of calls of `release`.
    two_levels = False

    def __init__(
        self,
        pipeline: SamplePipeline,
        specs: SampleSpecs,
        log: ErrorLog,
        plan: EpochPlan,
        tickets: Tickets,
        delivery: Delivery,
        work: WorkOptions,
        padding: Padding | RaggedPadding | None = None,
    ) -> None:
        self.pipeline, self.specs, self.log = pipeline, specs, log
        self.plan, self.tickets, self.delivery = plan, tickets, delivery
        self.work, self.padding = work, padding
        self.batch_size = delivery.batch_size
        self.meter: Meter | None = None
        self.last_fit: Fit | None = None
        self.loaded: Position | None = None
        self.resting = False
        #: How often `release` was called.
        self.released = 0
        self._renewed: Order | None = None
        self._batch_spec: Structure = None
        specs.look_by(self._looker)
        self._reset_after_fork()
        forks.watch(self)

    def _reset_after_fork(self) -> None:
        """Start with no threads, no processes, no prefetched batches and new locks."""
        self.engine: Engine | None = None
        self.pool = BufferPool()
        self._processes: Pool | None = None
        self._process_lock = threading.Lock()
        self._engine_lock = threading.Lock()
        self._rest_lock = threading.RLock()

    def after_fork(self) -> None:
        """In the child of os.fork: keep the position in the epoch, drop the jobs of threads."""
        self.tickets.forked()
        self.specs.after_fork()
        self.log.after_fork()
        self._reset_after_fork()

    def reseed(self, seed: int, stream: Stream | None) -> None:
        """Use another seed, before anything is requested. stream: the samples to draw from."""
        source = self.pipeline.source.with_seed(seed)
        self.pipeline = self.specs.pipeline = replace(self.pipeline, seed=seed, source=source)
        self.plan = replace(self.plan, seed=seed, stream=stream)

    def adopt(self, other: Runner) -> None:
        """Make the batches of another runner from now on, at this one's position in the data."""
        self.release()
        self.pipeline, self.specs, self.plan = other.pipeline, other.specs, other.plan
        self.delivery, self.padding = other.delivery, other.padding
        self.log.name = other.log.name
        self.specs.log = self.log
        self._batch_spec = None
        self.specs.look_by(self._looker)

    def resume_at(self, position: Position) -> None:
        """The next pass begins at this position."""
        self.loaded = position
        self.tickets.resume_at(position)
        self.release()

    @property
    def loaded_at(self) -> tuple[Order, int] | None:
        """Order and batch at which the state loaded last resumes."""
        return None if self.loaded is None else (self.loaded.order, self.loaded.first)

    # ------------------------------------------------------------------ batches

    def batch(self, request: Request, released: int) -> Any:
        """The requested batch.

        Args:
            request: which batch.
            released: `self.released` at the time of the request. Requests of a fit that has ended start
                no threads.
        """
        if request.batch == 0 or not request.sequential or request.order != self._renewed:
            self._renewed = request.order
            released = self._renew(released)
        key = key_of(request.order, request.batch)
        engine = None if self.resting or self.two_levels else self.engine
        if engine is None:
            engine = self._engine_for(request, released)
        if engine is None:
            return build_inline(self.make_alone(key, True))
        if request.sequential:
            batch = engine.get(key, self._upcoming(request), self.make)
        else:
            batch = engine.get(key, None, self.make_alone)
        if self.meter is not None:
            self.meter.handed(batch, engine.ready)
        return batch

    def batches(self, order: Order, first: int) -> Iterator[Any]:
        """All batches of an order from this one on."""
        count = self.plan.count(order)
        self._renew(self.released)
        for batch in range(first, count):
            self.resting = False
            upcoming = keys_of(order, batch + 1, count)
            yield self.running().get(key_of(order, batch), upcoming, self.make)

    def _renew(self, released: int) -> int:
        """Begin a pass: drop cached results of hooks that are older than an assignment.

        -> `self.released`, if it was `released`.
        """
        if not renew(self.pipeline.source.stores()):
            return released
        before, resting = self.released, self.resting
        self.release()  # prefetched batches, and the hooks that worker processes hold
        self.resting = resting
        return self.released if released == before else released

    def order_of(self, epoch: int, shuffled: bool | None) -> Order:
        """The order of an epoch."""
        return self.plan.shuffled_order(epoch) if shuffled else self.plan.storage_order(epoch)

    def wider(self) -> Any:
        """Batch 0 padded one step longer, if Keras has to see that lengths vary; else None."""
        if self.padding is None:
            return None
        build = self.padding.look(self, self.plan)
        return None if build is None else build_inline(build)

    def make(self, key: Key, wait: bool) -> Build | None:
        """A batch of a pass; None if it cannot begin without waiting."""
        return self.make_alone(key, wait)

    def make_alone(self, key: Key, wait: bool) -> Build:
        """A batch without prefetching its neighbours."""
        order, batch = key
        if self.padding is not None:
            return self.padding.build(self, self.plan, order, batch)
        moment = Moment(order.epoch, self.plan.use(order, batch))
        number = self.plan.number(order, batch)
        return BatchBuild(self, self.plan.indices(order, batch), moment, batch=number)

    def _upcoming(self, request: Request) -> Iterator[Key]:
        order, batch = request.order, request.batch
        yield from keys_of(order, batch + 1, self.plan.count(order))
        shuffled = not self.plan.is_stored(order)
        another = shuffled or self.tickets.training  # storage order may belong to predict
        if another and order.epoch != self.tickets.last_epoch:
            # The first batches of the next epoch are made while this one ends and validation runs.
            yield from keys_of(self.order_of(order.epoch + 1, shuffled), 0, self.plan.batches)

    def _asked(self, request: Request) -> None:
        """A batch of a pass was requested: with two levels, prepare its RAM batch."""

    # ------------------------------------------------------------------ specs

    def _looker(self) -> Look:
        processes = self.process_pool()
        if processes is None:
            return self.pipeline.look
        return functools.partial(processes.look, self.pipeline)

    @property
    def row_spec(self) -> Structure:
        """The spec of a row of a batch after batch_transform, which is tried on one sample."""
        if self.pipeline.transforms.batch_transform is None:
            return self.specs.delivered
        if self._batch_spec is None:
            form = self.specs.delivered  # finds a sample that loads
            with self.specs.lock:
                if self._batch_spec is None:
                    build = BatchBuild(self, np.array([self.specs.model_sample]), Moment())
                    build.fill(0, 1)
                    _, leaves = build.finish_leaves()
                    rows = [np.repeat(leaf, self.batch_size, axis=0) for leaf in leaves]
                    indices = np.repeat(build.indices, self.batch_size)
                    made = self.pipeline.batch_transformed(unflatten(form, rows), 0, 0, indices)
                    self._batch_spec = map_structure(
                        lambda leaf: ArraySpec(leaf.shape[1:], leaf.dtype), made
                    )
        return self._batch_spec

    @property
    def delivered_spec(self) -> Structure:
        """`row_spec`, with None for the dimensions in which samples may differ."""
        return self.pipeline.twin(self._known_spec())

    def _known_spec(self) -> Any:
        transforms = self.pipeline.transforms
        if transforms.batch_transform is not None:
            return self.row_spec
        if self.padding is not None:
            return self.padding.delivered(self, self.specs.delivered)
        if transforms.transform is not None:
            return self.specs.delivered
        return self.pipeline.source.delivered(self.specs.delivered)

    # ------------------------------------------------------------------ what runs

    def running(self) -> Engine:
        """The engine, started if it is not running."""
        engine = self.engine
        if engine is None:
            specs = self.specs.delivered, self.row_spec
            each = max(sum(spec.nbytes for spec in flatten(form)) for form in specs)
            with self._engine_lock:
                if self.engine is None:
                    for store in self.pipeline.source.stores():
                        store.use(self)
                    self.engine = self._make_engine(max(1, each * self.batch_size))
                engine = self.engine
        return engine

    def _engine_for(self, request: Request, released: int) -> Engine | None:
        """The build of this batch. None: closed and only peeked at, or closed since the request.

        TensorFlow reads on for a moment after a fit has ended: that starts no threads.
        """
        with held_off, self._rest_lock:
            if released != self.released or (self.resting and not request.sequential):
                return None
            self.resting = False
            if request.sequential:
                self._asked(request)
            return self.running()

    def _make_engine(self, batch_bytes: int) -> Engine:
        depth = self.depth(batch_bytes)
        # The fixed cost of a call is paid once per batch.
        whole = self.pipeline.source.whole_batches
        # Blocks in use: prefetched, being made, and still held by the framework.
        self.pool.limit = depth * len(flatten(self.specs.delivered)) + 16
        if (processes := self.process_pool()) is not None:
            # One thread per process or actor job: it only waits for the answer.
            count, kind = processes.count, processes.kind
            if kind == RayPool.kind:
                depth = max(depth, min(count, AHEAD_BYTES // max(1, batch_bytes)))
            processes.memory.limit = depth + 8
            return Engine(count, count, depth, kind=kind, whole=whole or kind == RayPool.kind)
        if self.pipeline.source.fetches:
            return FetchingEngine(
                self.work.workers,
                usable_cores(),
                depth,
                whole=whole,
                announce=self._fetch_ahead,
                batch_rows=self.batch_size,
            )
        return Engine(self.work.workers, usable_cores(), depth, whole=whole)

    def _fetch_ahead(self, key: Key) -> Sequence[Claim]:
        """Begin to fetch what a batch reads."""
        return self.pipeline.source.fetch_ahead(self.plan.indices(*key))

    def depth(self, batch_bytes: int) -> int:
        """The maximum number of prefetched batches of this size."""
        return min(self.work.max_queue_size, max(1, AHEAD_BYTES // max(1, batch_bytes)))

    def process_pool(self) -> Pool | None:
        """The worker processes; None if this process reads the samples itself."""
        if not self.work.processes or self.resting:
            return None
        with self._process_lock:
            if self._processes is None or not self._processes.usable:
                self._processes = self._new_pool()
            return self._processes

    def _new_pool(self) -> Pool:
        if isinstance(self.work.processes, Ray):
            return RayPool(self.pipeline, self.work.processes)
        return ProcessPool(self.pipeline, self.work.workers or usable_cores())

    def release(self) -> None:
        """Release everything that is only needed while batches are requested."""
        with self._rest_lock:
            self.resting = True
            self.released += 1
            engine = self.engine
            self.engine = None
        if engine is not None:
            engine.cancel()
        self._close_processes()
        if engine is not None:
            engine.close()
        self._close_processes()  # a thread may have requested them again
        self.pool.clear()
        self.pipeline.source.close()

    def fit_end(self) -> None:
        """A fit that a LoaderCallback measured has ended."""
        self.tickets.fit_end()
        self.release()

    def close(self) -> None:
        """Release everything, including the RAM cache; it is rebuilt at the next request."""
        self.release()
        for store in self.pipeline.source.stores():
            store.release(self)

    def _close_processes(self) -> None:
        with self._process_lock:
            processes, self._processes = self._processes, None
        if processes is not None:
            processes.close()


def key_of(order: Order, batch: int) -> Key:
    """The key of a batch: in the head of an order it is the key of storage order."""
    return (_in_storage_order(order), batch) if batch < order.head else (order, batch)


def keys_of(order: Order, start: int, stop: int) -> Iterator[Key]:
    """`key_of` for batches start to stop."""
    others = range(max(start, order.head), stop)
    keys = zip(itertools.repeat(order), others, strict=False)
    if start >= order.head:
        return keys
    stored = itertools.repeat(_in_storage_order(order))
    return itertools.chain(zip(stored, range(start, min(stop, order.head)), strict=False), keys)


@functools.lru_cache(maxsize=16)
def _in_storage_order(order: Order) -> Order:
    return order._replace(head=_STORAGE)


# More batches than any loader has: the order of an epoch that is never shuffled.
_STORAGE = 2**62
