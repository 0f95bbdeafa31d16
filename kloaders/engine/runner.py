"""Makes the batches of a plan before they are requested; owns threads, processes, buffers and locks.

A batch is identified by a key, (order, batch number), and made by a `BatchBuild`. Threads and processes
exist while batches are requested: `release` stops them, and the next request starts them again.
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

#: The key of a batch: the order of an epoch, and the batch number in it.
Key = tuple[Order, int]


class Runner:
    """Makes the batches of one loader.

    Args:
        pipeline: loads samples.
        specs: shapes and dtypes of the samples.
        log: records samples that fail to load.
        plan: assigns samples to batches.
        tickets: interpret Keras' requests.
        delivery: the last step of making a batch.
        work: threads, processes, and the number of prefetched batches.
        padding: pads samples of different lengths; None: no padding.

    Attributes:
        engine: prefetches batches; None while nothing is requested.
        meter: measures the current fit, if there is a LoaderCallback.
        last_fit: the meter's last result.
        loaded: the position of the state that was loaded last; None if none was.

    Threads: several may call all methods at once.
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
        #: The number of calls of `release`.
        self.released = 0
        self._renewed: Order | None = None
        self._batch_spec: Structure = None
        specs.look_by(self._looker)
        self._reset_after_fork()
        forks.watch(self)

    def _reset_after_fork(self) -> None:
        """Start with no threads, no processes, no prefetched batches, and new locks."""
        self.engine: Engine | None = None
        self.pool = BufferPool()
        self._processes: Pool | None = None
        self._process_lock = threading.Lock()
        self._engine_lock = threading.Lock()
        self._rest_lock = threading.RLock()

    def after_fork(self) -> None:
        """In the child of os.fork: keep the position in the epoch, and drop the threads' jobs."""
        self.tickets.forked()
        self.specs.after_fork()
        self.log.after_fork()
        self._reset_after_fork()

    def reseed(self, seed: int, stream: Stream | None) -> None:
        """Use another seed, before anything is requested. stream: the order of samples that are drawn."""
        source = self.pipeline.source.with_seed(seed)
        self.pipeline = self.specs.pipeline = replace(self.pipeline, seed=seed, source=source)
        self.plan = replace(self.plan, seed=seed, stream=stream)

    def adopt(self, other: Runner) -> None:
        """From now on, make the batches of another runner, at this runner's position in the data."""
        self.release()
        self.pipeline, self.specs, self.plan = other.pipeline, other.specs, other.plan
        self.delivery, self.padding = other.delivery, other.padding
        self.log.name = other.log.name
        self.specs.log = self.log
        self._batch_spec = None
        self.specs.look_by(self._looker)

    def resume_at(self, position: Position) -> None:
        """Begin the next pass at this position."""
        self.loaded = position
        self.tickets.resume_at(position)
        self.release()

    @property
    def loaded_at(self) -> tuple[Order, int] | None:
        """The order and batch at which the state that was loaded last resumes."""
        return None if self.loaded is None else (self.loaded.order, self.loaded.first)

    # ------------------------------------------------------------------ batches

    def batch(self, request: Request, released: int) -> Any:
        """The requested batch.

        Args:
            request: which batch.
            released: the value of `self.released` when the request was made. Requests of a fit that has
                ended start no threads.
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
        """All batches of an order, beginning with batch `first`."""
        count = self.plan.count(order)
        self._renew(self.released)
        for batch in range(first, count):
            self.resting = False
            upcoming = keys_of(order, batch + 1, count)
            yield self.running().get(key_of(order, batch), upcoming, self.make)

    def _renew(self, released: int) -> int:
        """At the start of a pass, drop cached results that hooks made before a variable was reassigned.

        Returns:
            The new `self.released`, if `released` was the current one; otherwise `released`.
        """
        if not renew(self.pipeline.source.stores()):
            return released
        before, resting = self.released, self.resting
        self.release()  # drops prefetched batches, and the hooks that worker processes hold
        self.resting = resting
        return self.released if released == before else released

    def order_of(self, epoch: int, shuffled: bool | None) -> Order:
        """The order of an epoch."""
        return self.plan.shuffled_order(epoch) if shuffled else self.plan.storage_order(epoch)

    def wider(self) -> Any:
        """Batch 0 padded by one more step, if Keras has to see that lengths vary; else None."""
        if self.padding is None:
            return None
        build = self.padding.look(self, self.plan)
        return None if build is None else build_inline(build)

    def make(self, key: Key, wait: bool) -> Build | None:
        """A batch of a pass; None if it cannot begin without waiting."""
        return self.make_alone(key, wait)

    def make_alone(self, key: Key, wait: bool) -> Build:
        """A batch, made without prefetching the following ones."""
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
        another = shuffled or self.tickets.training  # storage order may be that of predict
        if another and order.epoch != self.tickets.last_epoch:
            # Prefetch the next epoch's first batches while this one ends and validation runs.
            yield from keys_of(self.order_of(order.epoch + 1, shuffled), 0, self.plan.batches)

    def _asked(self, request: Request) -> None:
        """Called when a batch of a pass is requested; with RAM batches, prepares its RAM batch."""

    # ------------------------------------------------------------------ specs

    def _looker(self) -> Look:
        processes = self.process_pool()
        if processes is None:
            return self.pipeline.look
        return functools.partial(processes.look, self.pipeline)

    @property
    def row_spec(self) -> Structure:
        """The spec of a row of a batch after batch_transform, found by applying it to one sample."""
        if self.pipeline.transforms.batch_transform is None:
            return self.specs.delivered
        if self._batch_spec is None:
            form = self.specs.delivered  # reads a sample that loads
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
        """`row_spec`, with None for dimensions that may vary between samples."""
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

    # ------------------------------------------------------------------ engine and processes

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
        """The engine for this request. None if it is closed and this is a single access, or closed since.

        TensorFlow requests batches for a moment after a fit has ended; this must not start threads.
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
        # A call of load_batch has a fixed cost, so make each batch with one call.
        whole = self.pipeline.source.whole_batches
        # Blocks in use: of batches that are prefetched, being made, or still held by the framework.
        self.pool.limit = depth * len(flatten(self.specs.delivered)) + 16
        if (processes := self.process_pool()) is not None:
            # One thread per process or per actor's job; it only waits for the answer.
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
        """Begin to fetch the data of a batch."""
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
        """Release everything that is needed only while batches are requested."""
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
        self._close_processes()  # again, because a thread may have started them meanwhile
        self.pool.clear()
        self.pipeline.source.close()

    def fit_end(self) -> None:
        """Called when a fit that a LoaderCallback measured has ended."""
        self.tickets.fit_end()
        self.release()

    def close(self) -> None:
        """Release everything, including the cache in RAM; the next request creates it again."""
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


# More than the number of batches of any loader; marks an order that is never shuffled.
_STORAGE = 2**62
