"""Reads RAM batches of thousands of samples, and makes batches from them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import format_bytes, mapped
from kloaders.core.messages import inform
from kloaders.core.options import RamOptions
from kloaders.core.rows import RowMismatch, Rows, report_at
from kloaders.core.structure import flatten, unflatten
from kloaders.engine.batches import BatchBuild, Maker
from kloaders.engine.lookahead import Build, Engine
from kloaders.engine.ram_size import RamSize
from kloaders.engine.runner import Key, Runner, key_of
from kloaders.keras_api.tickets import Request
from kloaders.places.fetching import Claim, giving_up
from kloaders.plan.epoch import Order, Window
from kloaders.plan.rng import Moment, sample_rng
from kloaders.sources.source import Source

__all__ = ["RamRunner"]


class RamRunner(Runner):
    """Makes batches from RAM batches, of which at most two exist at a time.

    Args:
        size: the size of a RAM batch.
        options: how samples are drawn.
        title: the loader's name in the log.

        Other arguments: as for `Runner`.
    """

    two_levels = True

    def __init__(self, *arguments: Any, size: RamSize, options: RamOptions, title: str) -> None:
        self.size, self.options, self.title = size, options, title
        #: The number of RAM batches begun.
        self.ram_batches_read = 0
        #: Whether the choices were logged; once for all views.
        self.sizes_logged = False
        super().__init__(*arguments)

    def adopt(self, other: Runner) -> None:
        super().adopt(other)
        assert isinstance(other, RamRunner)
        self.size = other.size

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._windows: dict[tuple[Order, int], _RamBatch] = {}
        self._window_lock = threading.Lock()
        self._at: tuple[Order, int] | None = None

    def _make_engine(self, batch_bytes: int) -> Engine:
        engine = super()._make_engine(batch_bytes)
        raw = self.specs.raw_bytes
        budget = self.size.budget or 2 * self.size.held * raw
        engine.depth = min(engine.depth, self.size.ahead(batch_bytes, budget))
        if not self.sizes_logged:
            self.sizes_logged = True
            inform(self._sizes(raw))
        return engine

    def _sizes(self, raw: int) -> str:
        """A description of the choices for samples of this size in bytes."""
        held, copies = self.size.held, self.size.copies
        several = f", {copies} samples from each" if copies > 1 else ""
        said = (
            f"{self.title}: RAM batches of {held:,} samples ({format_bytes(held * raw)}){several}"
        )
        if self.size.resident:
            return f"{said}: all samples, read once"
        drawn = "from all samples" if self.options.draw == "global" else "in storage order"
        served = f", served {self.plan.echo} times" if self.plan.echo > 1 else ""
        number = self.plan.windows(Order(0, 0))
        return f"{said}, two at a time; {number} per epoch, drawn {drawn}{served}"

    def release(self) -> None:
        """Release everything that is needed only while batches are requested."""
        with self._window_lock:
            for ram in self._windows.values():
                ram.cancel()
        super().release()
        with self._window_lock:
            self._windows.clear()
            self._at = None

    # ------------------------------------------------------------------ which RAM batch

    def _slot(self, key: Key) -> tuple[Order, int]:
        """The RAM batch that contains a batch."""
        if self.size.resident:
            return _RESIDENT
        order, batch = key
        return order, self.plan.window_of(order, batch)

    def _next_slot(self, slot: tuple[Order, int]) -> tuple[Order, int] | None:
        """The RAM batch that is expected next."""
        order, number = slot
        if slot == _RESIDENT:
            return None
        shuffled = not self.plan.is_stored(order)
        # Use the true length of storage order, which differs from the one in the batch's key.
        true = order if shuffled else order._replace(head=self.plan.count(order))
        last = self.plan.windows(true) - 1
        if number < last:
            return order, number + 1
        if shuffled and order.epoch != self.tickets.last_epoch:
            return Order(order.epoch + 1, 0), 0
        return None

    def _asked(self, request: Request) -> None:
        key = key_of(request.order, request.batch)
        slot = self._slot(key)
        with self._window_lock:
            if self._at == slot:
                return
            self._at = slot
            wanted = [slot]
            following = self._next_slot(slot)
            if following is not None and self.running().count:
                wanted.append(following)
            # Free before filling, so that no more than two exist. A prefetch error may have been
            # temporary.
            for old in list(self._windows):
                if old not in wanted or self._windows[old].errors:
                    self._windows.pop(old).cancel()
            for new in wanted:
                if new not in self._windows:
                    self._windows[new] = self._begin(new)

    def _begin(self, slot: tuple[Order, int]) -> _RamBatch:
        self.ram_batches_read += 1
        order, number = slot
        if slot == _RESIDENT:
            samples = self.specs.log.samples
            everything = np.arange(samples, dtype=np.int64)
            window = Window(everything, everything, 0, np.array([0, samples]))
        else:
            window = self.plan.read_window(order, number)
        ram = _RamBatch(self, self.batch_size, window, order.epoch)
        engine = self.running()
        ram.threads = engine.count
        if self.pipeline.source.fetches and engine.count:
            ram.fetch_ahead(self.pipeline.source)
        for k in range(len(ram.done)):
            if engine.count == 0:
                ram.fill(self, k)
            else:  # after the requested batches
                engine.workers.submit(_Part(self, ram, k), later=True)
        return ram

    def _fetch_ahead(self, key: Key) -> Sequence[Claim]:
        return ()  # RAM batches are fetched as a whole

    def make(self, key: Key, wait: bool) -> Build | None:
        """A batch from its RAM batch; None if that is not filled far enough."""
        order, batch = key
        slot = self._slot(key)
        with self._window_lock:
            ram = self._windows.get(slot)
        if ram is None:
            return self.make_alone(key, wait) if wait else None
        resident = slot == _RESIDENT
        rows = self.plan.indices(order, batch) if resident else ram.window.rows_of(batch)
        if wait:
            ram.wait_for(rows)
        elif not ram.ready_for(rows):
            return None
        if ram.cancelled:  # closed, or another thread has moved on
            return self.make_alone(key, wait) if wait else None
        failed = [ram.errors[k] for k in ram.parts_of(rows) if k in ram.errors]
        if failed:
            with self._window_lock:  # read again at the next request
                self._at = None
            raise failed[0]
        moment = Moment(order.epoch, self.plan.use(order, batch))
        return _Served(self, ram, rows, moment, self.plan.number(order, batch))


_RESIDENT = (Order(-1, 0), 0)

# If a thread waits for this share of the time that reading takes, the disk is slow or no core is free.
# The kernel is then told to read ahead, which takes 4 microseconds per file, for many files at once.
_WAITING = 0.2


class _Part:
    """The job of filling one part of a RAM batch."""

    __slots__ = ("maker", "number", "ram")

    def __init__(self, maker: Maker, ram: _RamBatch, number: int) -> None:
        self.maker, self.ram, self.number = maker, ram, number

    def __call__(self) -> None:
        self.ram.fill(self.maker, self.number)

    def dropped(self) -> None:
        self.ram.cancelled = True
        self.ram.done[self.number].set()


class _RamBatch:
    """The samples of a window in RAM, filled part by part."""

    def __init__(self, maker: Maker, batch_size: int, window: Window, epoch: int) -> None:
        self.window = window
        self.epoch = epoch
        self.cancelled = False
        count = len(window.samples)
        self.indices = window.samples.copy()
        self.arrays = []
        for spec in flatten(maker.specs.raw):
            shape = (count, *(n or 1 for n in spec.shape))
            # malloc would keep memory that this thread allocates and another one frees.
            nbytes = int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize
            memory = np.frombuffer(mapped(nbytes), np.uint8)
            self.arrays.append(memory[:nbytes].view(spec.dtype).reshape(shape))
        self.alive = np.ones(count, bool)
        #: For each row, the arrays of a sample that do not fit above, as a dict by leaf.
        self.odd: dict[int, dict[int, Array]] = {}
        # Parts are small, so that every thread gets one and the first batch is ready soon.
        least = count if maker.pipeline.source.whole_batches else -(-count // 8)
        self.part = max(1, min(batch_size, least))
        self.done = [threading.Event() for _ in range(-(-count // self.part))]
        self.errors: dict[int, BaseException] = {}
        self.threads, self.waits = 0, False
        self._claims: dict[int, Sequence[Claim]] = {}

    def fetch_ahead(self, source: Source) -> None:
        """Begin to fetch all parts of remote data, in order."""
        for k in range(len(self.done)):
            rows = slice(k * self.part, (k + 1) * self.part)
            self._claims[k] = source.fetch_ahead(self.indices[rows])

    def cancel(self) -> None:
        """Stop filling, because it is no longer wanted."""
        self.cancelled = True
        for k in list(self._claims):
            self._fetched(k)

    def _fetched(self, k: int) -> None:
        for claim in self._claims.pop(k, ()):
            claim.release()

    def fill(self, maker: Maker, k: int) -> None:
        """Read one part; an error is kept for the batches that need it."""
        start, stop = k * self.part, min((k + 1) * self.part, len(self.indices))
        begin, busy = time.perf_counter(), time.thread_time()
        try:
            if not self.cancelled:
                if self.waits:  # other threads are about to read the parts in between
                    ahead = self.part * max(1, self.threads)
                    source = maker.pipeline.source
                    source.prefetch(self.indices[start + ahead : stop + ahead])
                leaves = [a[start:stop] for a in self.arrays]
                samples = self.indices[start:stop]
                build = _Stored(maker, samples, Moment(self.epoch), raw=True, leaves=leaves)
                with giving_up(lambda: not self.cancelled):
                    build.fill(0, stop - start)
                    keep = build.settle()
                self.odd |= {start + row: found for row, found in build.odd.items()}
                self.indices[start:stop] = build.indices
                if keep is not None:
                    self.alive[start:stop] = keep
        except BaseException as error:  # raised again in the calling thread
            self.errors[k] = error
        self._fetched(k)
        self.done[k].set()
        seconds = time.perf_counter() - begin
        self.waits = seconds - (time.thread_time() - busy) > _WAITING * seconds

    def arrays_of(self, row: int) -> list[Array]:
        """Copies of the arrays of one sample."""
        odd = self.odd.get(row, {})
        return [np.array(odd.get(leaf, a[row])) for leaf, a in enumerate(self.arrays)]

    def parts_of(self, rows: Indices) -> list[int]:
        """The parts that contain these rows."""
        return [int(k) for k in np.unique(rows // self.part)]

    def ready_for(self, rows: Indices) -> bool:
        """Whether these rows are filled."""
        return all(self.done[k].is_set() for k in self.parts_of(rows))

    def wait_for(self, rows: Indices) -> None:
        """Block until these rows are filled."""
        for k in self.parts_of(rows):
            stall_watch.wait(self.done[k])


class _Stored(BatchBuild):
    """A part of a RAM batch. All samples have one shape, unless a transform will change it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: For each row, the arrays with another shape or dtype than the first sample's, by leaf.
        self.odd: dict[int, dict[int, Array]] = {}

    def _load_one(
        self, index: int, row: int, scratch: list[Array] | None = None
    ) -> Exception | None:
        if scratch is None:
            self.odd.pop(row, None)
        return super()._load_one(index, row, scratch)

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        spec, model = flatten(self.form)[leaf], self.log.name(self.maker.specs.model_sample)
        if self.pipeline.transforms.transform is not None:
            for one in odd:
                self.odd.setdefault(one.row, {})[leaf] = one.array
            return {}
        unfit: dict[int, Exception] = {}
        for one in odd:
            got, index = one.array, int(self.indices[one.row])
            said = (
                f"it is {got.dtype} of shape {got.shape}, but {model} is {spec.dtype} of shape "
                f"{spec.shape}: all samples of a RAM batch need the same shape, unless transform= gives "
                "it to them."
            )
            unfit[one.row] = self._differs(index, leaf, got.dtype != spec.dtype, said)
        return unfit


class _Served(BatchBuild):
    """A batch from a RAM batch: rows are copied, or transformed."""

    def __init__(
        self, maker: Maker, ram: _RamBatch, rows: Indices, moment: Moment, batch: int
    ) -> None:
        kept = ram.alive[rows]
        alive = rows[kept]
        epoch, draw = moment
        if not isinstance(draw, int):
            draw = draw[kept] if len(alive) else draw[:1]
        if not len(alive):  # Keras does not accept an empty batch: use another sample instead
            others, first = np.flatnonzero(ram.alive), int(ram.indices[rows[0]])
            if not len(others):
                raise maker.log.nothing_left(first)
            rng = sample_rng(maker.pipeline.seed, epoch, first, draw=2**32)
            alive = rng.choice(others, 1)
        super().__init__(maker, ram.indices[alive], Moment(epoch, draw), batch=batch)
        self.ram = ram
        self.taken = alive

    def fill(self, start: int, stop: int) -> None:
        rows = self.taken[start:stop]
        out: list[Array] = [leaf[start:stop] for leaf in self.leaves]
        if self.pipeline.transforms.transform is None:
            for leaf, array in zip(out, self.ram.arrays, strict=True):
                np.take(array, rows, axis=0, out=leaf, mode="clip")
            return
        report, target = self._report_from(start), Rows(self.form, out)
        indices, moment = self.indices[start:stop], self.moment.part(slice(start, stop))
        form = self.maker.specs.raw
        if self.processes is not None:
            for part in self._of_one_shape(rows):
                few = rows[part]
                given = (
                    [array[few] for array in self.ram.arrays]
                    if not self.ram.odd
                    else [np.stack(a) for a in zip(*map(self.ram.arrays_of, few), strict=True)]
                )
                self.processes.fill(
                    self.pipeline,
                    indices[part],
                    target.part(part),
                    report_at(report, part.start),
                    moment.part(part),
                    raw=False,
                    stored=Rows(form, given),
                )
            return
        for row, (index, k) in enumerate(zip(indices.tolist(), rows.tolist(), strict=True)):
            sample = unflatten(form, self.ram.arrays_of(k))
            try:
                self.pipeline.put(index, sample, target, row, report, moment.part(row))
            except Exception as error:  # a user's function may raise anything
                report(row, error)

    def _of_one_shape(self, rows: Indices) -> Iterator[slice]:
        """Runs of rows whose stored samples have the same shape and dtype."""
        ends = [len(rows)]
        if self.ram.odd:
            forms = [[(a.shape, a.dtype) for a in self.ram.arrays_of(k)] for k in rows.tolist()]
            ends = [k for k in range(1, len(rows)) if forms[k] != forms[k - 1]] + ends
        for start, stop in zip([0, *ends], ends, strict=False):
            yield slice(start, stop)
