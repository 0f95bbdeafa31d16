"""Two levels: a RAM batch of thousands of samples, and the batches that come out of it."""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import available_bytes, format_bytes
from kloaders.core.messages import inform
from kloaders.core.options import RamOptions
from kloaders.core.rows import RowMismatch, Rows
from kloaders.core.structure import flatten, is_text, unflatten
from kloaders.engine.batches import BatchBuild, Maker
from kloaders.engine.lookahead import Build, Engine
from kloaders.engine.runner import Key, Runner, key_of
from kloaders.engine.specs import SampleSpecs
from kloaders.keras_api.tickets import Request
from kloaders.places.fetching import Claim, giving_up
from kloaders.plan.epoch import Order, Window
from kloaders.plan.rng import Moment, sample_rng
from kloaders.sources.source import Source

__all__ = ["RamRunner", "RamSize"]

# The budget where the user names none: as large as helps a disk, small beside most machines.
_BUDGET, _BUDGET_SHARE = 4 * 2**30, 0.25
# Samples looked at for their size: their shapes must agree anyway.
_MEASURED = 8
# Sample numbers and rows, kept for each sample of a RAM batch.
_BOOKKEEPING = 24


class RamSize:
    """How many samples a RAM batch holds, by what the user said and by real samples.

    Args:
        options: a size or a budget.
        specs: of the samples.
        batch_size: samples per batch; a RAM batch holds whole ones.
        queue_size: the maximum number of prefetched batches.
        shards: how many loaders share an epoch.

    Attributes:
        samples: in a RAM batch.
        resident: whether it holds all of them, and is read once.
        budget: in bytes, for both RAM batches and the batches ahead; None if the size was given.
    """

    def __init__(
        self, options: RamOptions, specs: SampleSpecs, batch_size: int, queue_size: int, shards: int
    ) -> None:
        self.specs, self.batch_size, self.queue_size = specs, batch_size, queue_size
        self.all = specs.log.samples
        self.budget = options.budget_bytes
        size = options.ram_batch_size
        if size is None:
            size = self._of_budget()
        elif size < batch_size:
            raise ValueError(
                f"ram_batch_size={size} is smaller than batch_size={batch_size}: a RAM batch "
                "serves whole batches; make it some hundred times as large."
            )
        size -= size % batch_size
        self.samples = min(size, -(-self.all // batch_size) * batch_size)
        # All of it in RAM: nothing to cut into windows, and nothing to read a second time, unless
        # samples are others in each epoch.
        random = specs.pipeline.source.random
        self.resident = self.samples >= self.all and shards == 1 and not random

    def _of_budget(self) -> int:
        if any(is_text(spec.dtype) for spec in flatten(self.specs.raw)):
            raise TypeError(
                "the samples have texts, whose bytes are not known before they are read: pass "
                "ram_batch_size=, the number of samples in a RAM batch, in place of ram_budget="
            )
        if self.budget is None:
            self.budget = int(min(_BUDGET, _BUDGET_SHARE * available_bytes()))
        each = self._measured_bytes()
        delivered = sum(s.nbytes for s in flatten(self.specs.delivered))
        if self.specs.pipeline.transforms.transform is None:
            delivered = each
        ahead = self.ahead(delivered * self.batch_size, self.budget)
        # Batches ahead, the one served, the one that the framework still holds.
        batches = (ahead + 2) * delivered * self.batch_size
        whole = (each + _BOOKKEEPING) * self.all + batches
        if whole <= self.budget:
            return -(-self.all // self.batch_size) * self.batch_size
        size = (self.budget - batches) // (2 * (each + _BOOKKEEPING))
        if size < self.batch_size:
            need = batches + 2 * (each + _BOOKKEEPING) * self.batch_size
            raise ValueError(
                f"ram_budget={format_bytes(self.budget)} holds no two RAM batches of even one "
                f"batch: samples are {format_bytes(each)} each, so that batch_size="
                f"{self.batch_size} needs {format_bytes(need, round_up=True)} or more. Raise "
                "ram_budget, or lower batch_size or size."
            )
        return int(size)

    def ahead(self, batch_bytes: int, budget: int) -> int:
        """Batches made ahead: cheap to make from RAM, so an eighth of the budget is plenty."""
        return max(1, min(self.queue_size, 4, budget // 8 // max(1, batch_bytes)))

    def _measured_bytes(self) -> int:
        """Bytes of the largest of a few samples, as they are stored."""
        source = self.specs.pipeline.source
        looked = np.unique(np.linspace(0, self.all - 1, _MEASURED).astype(int))
        if source.in_order:  # others cannot be reached without all that lies before them
            looked = np.arange(min(_MEASURED, self.all))
        sizes = [self.specs.raw_bytes]
        for index in looked[1:].tolist():
            with contextlib.suppress(Exception):  # on_error deals with it when its turn comes
                sizes.append(sum(a.nbytes for a in flatten(source.sample(index, Moment()))))
        return int(max(sizes))


class RamRunner(Runner):
    """Serves batches out of RAM batches, of which two exist at a time.

    Args:
        size: of a RAM batch.
        options: how it is drawn.
        title: what the user calls the loader, for the log.

    The other arguments are those of `Runner`.
    """

    two_levels = True

    def __init__(self, *arguments: Any, size: RamSize, options: RamOptions, title: str) -> None:
        self.size, self.options, self.title = size, options, title
        #: How many RAM batches were begun.
        self.ram_batches_read = 0
        #: Whether the log has what was chosen; once is enough for all views.
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
        budget = self.size.budget or 2 * self.size.samples * raw
        engine.depth = min(engine.depth, self.size.ahead(batch_bytes, budget))
        if not self.sizes_logged:
            self.sizes_logged = True
            inform(self._sizes(raw))
        return engine

    def _sizes(self, raw: int) -> str:
        """What was chosen, for samples of so many bytes."""
        held = min(self.size.samples, self.size.all)
        said = f"{self.title}: RAM batches of {held:,} samples ({format_bytes(held * raw)})"
        if self.size.resident:
            return f"{said}: all samples, read once"
        drawn = "from all samples" if self.options.draw == "global" else "in storage order"
        served = f", served {self.plan.echo} times" if self.plan.echo > 1 else ""
        number = self.plan.windows(Order(0, 0))
        return f"{said}, two at a time; {number} an epoch, drawn {drawn}{served}"

    def release(self) -> None:
        """Free what is only needed while batches are asked for."""
        with self._window_lock:
            for ram in self._windows.values():
                ram.cancel()
        super().release()
        with self._window_lock:
            self._windows.clear()
            self._at = None

    # ------------------------------------------------------------------ which RAM batch

    def _slot(self, key: Key) -> tuple[Order, int]:
        """The RAM batch of a batch."""
        if self.size.resident:
            return _RESIDENT
        order, batch = key
        return order, self.plan.window_of(order, batch)

    def _next_slot(self, slot: tuple[Order, int]) -> tuple[Order, int] | None:
        """The RAM batch after this one, as far as can be told."""
        order, number = slot
        if slot == _RESIDENT:
            return None
        shuffled = not self.plan.is_stored(order)
        # Storage order by its true length, not by the one that names a batch of it.
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
            # Freed first, then filled: no more than two at a time. An error met ahead may be
            # mended by now.
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
            samples = self.size.all
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
            else:  # after batches that are asked for
                engine.workers.submit(_Part(self, ram, k), later=True)
        return ram

    def _fetch_ahead(self, key: Key) -> Sequence[Claim]:
        return ()  # RAM batches are fetched as a whole

    def make(self, key: Key, wait: bool) -> Build | None:
        """A batch out of its RAM batch; None where that is not filled as far."""
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
        if ram.cancelled:  # closed meanwhile, or another thread has moved on
            return self.make_alone(key, wait) if wait else None
        failed = [ram.errors[k] for k in ram.parts_of(rows) if k in ram.errors]
        if failed:
            with self._window_lock:  # read anew when asked for again
                self._at = None
            raise failed[0]
        moment = Moment(order.epoch, self.plan.use(order, batch))
        return _Served(self, ram, rows, moment, self.plan.number(order, batch))


_RESIDENT = (Order(-1, 0), 0)

# A thread that waits for so much of the time in which it reads a part has a slow disk, or no core:
# the kernel is told what comes next. That takes 4 us a file, and has many of them read at once.
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
            # Mapped, so that the memory goes back when it is freed: malloc would keep it.
            nbytes = int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize
            memory = np.frombuffer(mmap.mmap(-1, max(nbytes, 1)), np.uint8)
            self.arrays.append(memory[:nbytes].view(spec.dtype).reshape(shape))
        self.alive = np.ones(count, bool)
        # Parts small enough that all threads take part and the first batch is soon there.
        least = count if maker.pipeline.source.whole_batches else -(-count // 8)
        self.part = max(1, min(batch_size, least))
        self.done = [threading.Event() for _ in range(-(-count // self.part))]
        self.errors: dict[int, BaseException] = {}
        self.threads, self.waits = 0, False
        self._claims: dict[int, Sequence[Claim]] = {}

    def fetch_ahead(self, source: Source) -> None:
        """Begin to fetch all of it, part after part, where data lie elsewhere."""
        for k in range(len(self.done)):
            rows = slice(k * self.part, (k + 1) * self.part)
            self._claims[k] = source.fetch_ahead(self.indices[rows])

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.cancelled = True
        for k in list(self._claims):
            self._fetched(k)

    def _fetched(self, k: int) -> None:
        for claim in self._claims.pop(k, ()):
            claim.release()

    def fill(self, maker: Maker, k: int) -> None:
        """Read one part; an error is kept for whoever asks for a batch."""
        start, stop = k * self.part, min((k + 1) * self.part, len(self.indices))
        begin, busy = time.perf_counter(), time.thread_time()
        try:
            if not self.cancelled:
                if self.waits:  # the threads are about to read the parts in between
                    ahead = self.part * max(1, self.threads)
                    source = maker.pipeline.source
                    source.prefetch(self.indices[start + ahead : stop + ahead])
                leaves = [a[start:stop] for a in self.arrays]
                samples = self.indices[start:stop]
                build = _Stored(maker, samples, Moment(self.epoch), raw=True, leaves=leaves)
                with giving_up(lambda: not self.cancelled):
                    build.fill(0, stop - start)
                    keep = build.settle()
                self.indices[start:stop] = build.indices
                if keep is not None:
                    self.alive[start:stop] = keep
        except BaseException as error:  # re-raised in the thread that asks
            self.errors[k] = error
        self._fetched(k)
        self.done[k].set()
        seconds = time.perf_counter() - begin
        self.waits = seconds - (time.thread_time() - busy) > _WAITING * seconds

    def parts_of(self, rows: Indices) -> list[int]:
        """The parts that hold these rows."""
        return [int(k) for k in np.unique(rows // self.part)]

    def ready_for(self, rows: Indices) -> bool:
        """Whether these rows are there."""
        return all(self.done[k].is_set() for k in self.parts_of(rows))

    def wait_for(self, rows: Indices) -> None:
        """Block until these rows are there."""
        for k in self.parts_of(rows):
            stall_watch.wait(self.done[k])


class _Stored(BatchBuild):
    """A part of a RAM batch: its samples have the shape of all others, or there is no room."""

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        spec, model = flatten(self.form)[leaf], self.log.name(self.maker.specs.model_sample)
        unfit: dict[int, Exception] = {}
        for one in odd:
            got, index = one.array, int(self.indices[one.row])
            said = (
                f"it is {got.dtype} of shape {got.shape}, but {model} is {spec.dtype} of shape "
                f"{spec.shape}, and all samples of a RAM batch have one shape."
            )
            unfit[one.row] = self._differs(index, leaf, got.dtype != spec.dtype, said)
        return unfit


class _Served(BatchBuild):
    """A batch out of a RAM batch: rows copied, or transformed where the loader says so."""

    def __init__(
        self, maker: Maker, ram: _RamBatch, rows: Indices, moment: Moment, batch: int
    ) -> None:
        kept = ram.alive[rows]
        alive = rows[kept]
        epoch, draw = moment
        if not isinstance(draw, int):
            draw = draw[kept] if len(alive) else draw[:1]
        if not len(alive):  # Keras cannot take an empty batch: one of the others, instead of all
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
            stored = Rows(form, [array[rows] for array in self.ram.arrays])
            self.processes.fill(
                self.pipeline, indices, target, report, moment, raw=False, stored=stored
            )
            return
        for row, (index, k) in enumerate(zip(indices.tolist(), rows.tolist(), strict=True)):
            sample = unflatten(form, [np.array(a[k]) for a in self.ram.arrays])
            try:
                self.pipeline.put(index, sample, target, row, report, moment.part(row))
            except Exception as error:  # whatever a user's function raises
                report(row, error)
