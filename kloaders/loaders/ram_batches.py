"""Two levels: a RAM batch of thousands of samples, and the batches that come out of it."""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kloaders.core.memory import available_bytes, format_bytes, parse_bytes
from kloaders.core.messages import say
from kloaders.core.structure import flatten, pack
from kloaders.engine import stalls
from kloaders.engine.batches import BatchBuild, nothing_left
from kloaders.engine.lookahead import Build, Engine
from kloaders.keras_api.tickets import Request
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import Key, SequenceLoader, _count, _key
from kloaders.plan.epoch import EpochPlan, Order, Window
from kloaders.plan.rng import Draw, part_of, sample_rng
from kloaders.sources.columns import Odd, expect

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kloaders.loaders.paths import PathOptions

__all__ = ["RamBatchSequenceLoader", "TwoLevelLoader"]

Indices = np.ndarray[Any, np.dtype[np.int64]]

# The budget where the user names none: as large as helps a disk, small beside most machines.
_BUDGET, _BUDGET_SHARE = 4 * 2**30, 0.25
# Samples looked at for their size: their shapes must agree anyway.
_MEASURED = 8
# Sample numbers and rows, kept for each sample of a RAM batch.
_BOOKKEEPING = 24


class TwoLevelLoader(SequenceLoader):
    """What is common to loaders with RAM batches, whatever their samples are read from.

    Where `_two_levels` is false it is a loader with one level.
    """

    _two_levels = True
    _resident = False

    def _set_levels(
        self,
        ram_batch_size: int | None,
        ram_budget: int | str | None,
        draw: Literal["windows", "front to back", "global"],
        echo: int,
        shuffle: bool | None,
    ) -> None:
        """Take down the options of RAM batches; before `SequenceLoader.__init__`."""
        if ram_batch_size is not None and ram_budget is not None:
            raise ValueError(
                f"ram_batch_size={ram_batch_size} and ram_budget={ram_budget!r} are both given: "
                "choose one, the other follows from it."
            )
        self.draw: Literal["windows", "front to back", "global"] = draw
        self.echo = _count(echo, "echo", 1)
        if self.echo > 1 and shuffle is False:
            raise ValueError(
                f"echo={echo} serves samples several times in random order, which shuffle=False "
                "forbids: leave shuffle out, or echo."
            )
        self._asked_size = (
            None if ram_batch_size is None else _count(ram_batch_size, "ram_batch_size", 1)
        )
        self._budget = None if ram_budget is None else parse_bytes(ram_budget, "ram_budget")

    # ------------------------------------------------------------------ sizes

    def _make_plan(self) -> EpochPlan:
        if not self._two_levels:
            return super()._make_plan()
        self._early_set_up()
        batch = self.batch_size
        if self._asked_size is not None:
            size = self._asked_size
            if size < batch:
                raise ValueError(
                    f"ram_batch_size={size} is smaller than batch_size={batch}: a RAM batch "
                    "serves whole batches; make it some hundred times as large."
                )
        else:
            size = self._size_of_budget()
        size -= size % batch
        #: Samples in a RAM batch.
        self.ram_batch_size = min(size, -(-self.samples // batch) * batch)
        # All of it in RAM: nothing to cut into windows, and nothing to read a second time.
        self._resident = self.ram_batch_size >= self.samples and self.shard[1] == 1
        if self.sampling:
            self._check_sampling()
        return EpochPlan(
            self.samples,
            batch,
            self.seed,
            drop_last=self.drop_last,
            shard=self.shard,
            window=self.ram_batch_size * self.shard[1],
            draw=self.draw,
            echo=self.echo,
            **self._stream_of(),
        )

    def _check_sampling(self) -> None:
        """Refuse what RAM batches cannot be drawn from."""
        if self.echo > 1:
            raise ValueError(
                f"echo={self.echo} serves a RAM batch several times, and the loader samples "
                f"({self.sampling}), which says how often a sample comes: choose one."
            )
        if self._resident or self.draw == "global":
            return
        if self.draw == "windows":
            raise ValueError(
                f'draw="windows" reads runs of neighbours, and the loader samples ({self.sampling}) '
                'from all: use draw="global", or a ram_budget that holds everything.'
            )
        raise ValueError(
            f"the loader samples ({self.sampling}), and compressed files are read front to back: "
            "give a ram_budget that holds everything, or write the files without compression."
        )

    def _size_of_budget(self) -> int:
        if self._budget is None:
            self._budget = int(min(_BUDGET, _BUDGET_SHARE * available_bytes()))
        each = self._measured_bytes()
        delivered = sum(s.nbytes for s in flatten(self.sample_spec)) if self.transform else each
        ahead = self._ahead(delivered * self.batch_size, self._budget)
        # Batches ahead, the one served, the one that the framework still holds.
        batches = (ahead + 2) * delivered * self.batch_size
        whole = (each + _BOOKKEEPING) * self.samples + batches
        if whole <= self._budget:
            return -(-self.samples // self.batch_size) * self.batch_size
        size = (self._budget - batches) // (2 * (each + _BOOKKEEPING))
        if size < self.batch_size:
            need = batches + 2 * (each + _BOOKKEEPING) * self.batch_size
            raise ValueError(
                f"ram_budget={format_bytes(self._budget)} holds no two RAM batches of even one "
                f"batch: samples are {format_bytes(each)} each, so that batch_size="
                f"{self.batch_size} needs {format_bytes(need, round_up=True)} or more. Raise "
                "ram_budget, or lower batch_size or size."
            )
        return int(size)

    def _ahead(self, batch_bytes: int, budget: int) -> int:
        """Batches made ahead: cheap to make from RAM, so an eighth of the budget is plenty."""
        return max(1, min(self.queue_size, 4, budget // 8 // max(1, batch_bytes)))

    def _measured_bytes(self) -> int:
        """Bytes of the largest of a few samples from all over, as they are stored."""
        looked = self._looked_at()
        sizes = [sum(s.nbytes for s in flatten(self.raw_spec))]
        for index in looked[1:]:
            with contextlib.suppress(Exception):  # on_error deals with it when its turn comes
                sizes.append(sum(a.nbytes for a in flatten(self._sample(index))))
        return int(max(sizes))

    def _looked_at(self) -> list[int]:
        """Samples to measure."""
        spread = np.linspace(0, self.samples - 1, _MEASURED).astype(int)
        return [int(k) for k in np.unique(spread)]

    # ------------------------------------------------------------------ running

    def _early_set_up(self) -> None:
        """What reading a first sample needs, before there is a plan."""
        self._raw_spec = self._spec = self._batch_spec = None
        self._spec_lock = threading.RLock()
        self._failed = set()

    def _set_up(self) -> None:
        super()._set_up()
        #: How many RAM batches were begun.
        self.ram_batches_read = 0
        self._said = False

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._windows: dict[tuple[Order, int], _RamBatch] = {}
        self._window_lock = threading.Lock()
        self._at: tuple[Order, int] | None = None

    def _settings(self) -> dict[str, Any]:
        hidden = ("_windows", "_window_lock", "_at", "ram_batches_read", "_said")
        return {k: v for k, v in super()._settings().items() if k not in hidden}

    def _order_asked(self) -> bool | None:
        return True if self.echo > 1 else super()._order_asked()

    def _by_index(self) -> bool:
        return not self._two_levels

    def _make_engine(self, batch_bytes: int) -> Engine:
        engine = super()._make_engine(batch_bytes)
        if not self._two_levels:
            return engine
        raw = sum(spec.nbytes for spec in flatten(self.raw_spec))
        budget = self._budget or 2 * self.ram_batch_size * raw
        engine.depth = min(engine.depth, self._ahead(batch_bytes, budget))
        if not self._said:
            self._said = True
            say(self._sizes(raw))
        return engine

    def _sizes(self, raw: int) -> str:
        """What was chosen, for samples of so many bytes."""
        held = min(self.ram_batch_size, self.samples)
        said = (
            f"{type(self).__name__}: RAM batches of {held:,} samples ({format_bytes(held * raw)})"
        )
        if self._resident:
            return f"{said}: all samples, read once"
        drawn = "from all samples" if self.draw == "global" else "in storage order"
        served = f", served {self.echo} times" if self.echo > 1 else ""
        number = self.plan.windows(Order(0, 0))
        return f"{said}, two at a time; {number} an epoch, drawn {drawn}{served}"

    def _release(self) -> None:
        super()._release()
        with self._window_lock:
            self._windows.clear()
            self._at = None

    def _slot(self, key: Key) -> tuple[Order, int]:
        """The RAM batch of a batch."""
        if self._resident:
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
        if shuffled and order.epoch != self._tickets.last_epoch:
            return Order(order.epoch + 1, 0), 0
        return None

    def _asked(self, request: Request) -> None:
        if not self._two_levels:
            return
        key = _key(request.order, request.batch)
        slot = self._slot(key)
        with self._window_lock:
            if self._at == slot:
                return
            self._at = slot
            wanted = [slot]
            following = self._next_slot(slot)
            if following is not None and self._running().count:
                wanted.append(following)
            # Freed first, then filled: no more than two at a time. An error met ahead may be
            # mended by now.
            for old in list(self._windows):
                if old not in wanted or self._windows[old].errors:
                    self._windows.pop(old).cancelled = True
            for new in wanted:
                if new not in self._windows:
                    self._windows[new] = self._begin(new)

    def _begin(self, slot: tuple[Order, int]) -> _RamBatch:
        self.ram_batches_read += 1
        order, number = slot
        if slot == _RESIDENT:
            everything = np.arange(self.samples, dtype=np.int64)
            window = Window(everything, everything, 0, np.array([0, self.samples]))
        else:
            window = self.plan.read_window(order, number)
        ram = _RamBatch(self, window, order.epoch)
        engine = self._running()
        ram.threads = engine.count
        for k in range(len(ram.done)):
            if engine.count == 0:
                ram.fill(self, k)
            else:  # after batches that are asked for
                engine.workers.submit(_Part(self, ram, k), later=True)
        return ram

    def _make(self, key: Key, wait: bool) -> Build | None:
        if not self._two_levels:
            return super()._make(key, wait)
        order, batch = key
        slot = self._slot(key)
        with self._window_lock:
            ram = self._windows.get(slot)
        if ram is None:
            return self._make_alone(key, wait) if wait else None
        resident = slot == _RESIDENT
        rows = self.plan.indices(order, batch) if resident else ram.window.rows_of(batch)
        if wait:
            ram.wait_for(rows)
        elif not ram.ready_for(rows):
            return None
        if ram.cancelled:  # closed meanwhile, or another thread has moved on
            return self._make_alone(key, wait) if wait else None
        failed = [ram.errors[k] for k in ram.parts_of(rows) if k in ram.errors]
        if failed:
            with self._window_lock:  # read anew when asked for again
                self._at = None
            raise failed[0]
        return _Served(self, ram, rows, order.epoch, self.plan.use(order, batch), batch)


class RamBatchSequenceLoader(TwoLevelLoader, PathSequenceLoader):
    """Batches out of a RAM batch that is filled in the background.

    While the batches of one RAM batch are served, in random order, the next one is read; so a
    step waits only if the disk is slower than the model. Two RAM batches exist at a time.

    Args:
        paths, labels, batch_size: see `PathSequenceLoader`.
        ram_batch_size: samples in a RAM batch; rounded down to whole batches.
        ram_budget: bytes, or a text such as "4GiB", that both RAM batches and the batches made
            ahead may take together; the size of a RAM batch follows from it and from real
            samples. Give one of the two; by default 4 GiB, or a quarter of what is free if that
            is less. Data that fit into it as a whole are read once and stay.
        draw: "global" fills RAM batches from one shuffle of everything. "windows" reads runs of
            neighbouring files, in storage order, and shuffles the runs and what is in them: for
            disks that are slow at random reads, and data that do not lie sorted by class.
        echo: how often each RAM batch is served before it is replaced, for disks slower than
            the accelerator: an epoch has each sample so many times (Choi et al., "Faster neural
            network training with data echoing", arXiv:1907.05550). A transform draws anew
            each time. More than 1 needs a shuffled order: shuffle=None then means True.
        **options: those of `PathSequenceLoader` and `SequenceLoader`.

    Raises:
        ValueError: a RAM batch would be smaller than a batch, or samples differ in shape.

    Besides what `PathSequenceLoader` offers, `ram_batch_size` says what was chosen, and
    `ram_batches_read` how many RAM batches were begun.
    """

    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int = 32,
        *,
        ram_batch_size: int | None = None,
        ram_budget: int | str | None = None,
        draw: Literal["windows", "global"] = "global",
        echo: int = 1,
        **options: Unpack[PathOptions],
    ) -> None:
        if draw not in ("windows", "global"):
            raise ValueError(f'draw={draw!r} is not known: choose "global" or "windows".')
        self._set_levels(ram_batch_size, ram_budget, draw, echo, options.get("shuffle"))
        # What is spare is not asked for: ram_budget says what this loader may use.
        options["cache"] = None if options.get("cache") == "auto" else options.get("cache")
        super().__init__(paths, labels, batch_size, **options)


_RESIDENT = (Order(-1, 0), 0)

# A thread that waits for so much of the time in which it reads a part has a slow disk, or no core:
# the kernel is told what comes next. That takes 4 us a file, and has many of them read at once.
_WAITING = 0.2


class _Part:
    """The job of filling one part of a RAM batch."""

    __slots__ = ("loader", "number", "ram")

    def __init__(self, loader: TwoLevelLoader, ram: _RamBatch, number: int) -> None:
        self.loader, self.ram, self.number = loader, ram, number

    def __call__(self) -> None:
        self.ram.fill(self.loader, self.number)

    def dropped(self) -> None:
        self.ram.cancelled = True
        self.ram.done[self.number].set()


class _RamBatch:
    """The samples of a window in RAM, filled part by part."""

    def __init__(self, loader: TwoLevelLoader, window: Window, epoch: int) -> None:
        self.window = window
        self.epoch = epoch
        self.cancelled = False
        count = len(window.samples)
        self.indices = window.samples.copy()
        self.arrays = []
        for spec in flatten(loader.raw_spec):
            shape = (count, *(n or 1 for n in spec.shape))
            # Mapped, so that the memory goes back when it is freed: malloc would keep it.
            nbytes = int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize
            memory = np.frombuffer(mmap.mmap(-1, max(nbytes, 1)), np.uint8)
            self.arrays.append(memory[:nbytes].view(spec.dtype).reshape(shape))
        self.alive = np.ones(count, bool)
        # Parts small enough that all threads take part and the first batch is soon there.
        self.part = max(1, min(loader.batch_size, -(-count // 8)))
        self.done = [threading.Event() for _ in range(-(-count // self.part))]
        self.errors: dict[int, BaseException] = {}
        self.threads, self.waits = 0, False

    def fill(self, loader: TwoLevelLoader, k: int) -> None:
        """Read one part; an error is kept for whoever asks for a batch."""
        start, stop = k * self.part, min((k + 1) * self.part, len(self.indices))
        begin, busy = time.perf_counter(), time.thread_time()
        try:
            if not self.cancelled:
                if self.waits:  # the threads are about to read the parts in between
                    ahead = self.part * max(1, self.threads)
                    for column in flatten(loader._columns() or ()):
                        expect(column, self.indices[start + ahead : stop + ahead])
                leaves = [a[start:stop] for a in self.arrays]
                samples = self.indices[start:stop]
                build = _Stored(loader, samples, self.epoch, raw=True, leaves=leaves)
                build.fill(0, stop - start)
                keep = build.settle()
                self.indices[start:stop] = build.indices
                if keep is not None:
                    self.alive[start:stop] = keep
        except BaseException as error:  # re-raised in the thread that asks
            self.errors[k] = error
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
            stalls.wait(self.done[k])


class _Stored(BatchBuild):
    """A part of a RAM batch: its samples have the shape of all others, or there is no place."""

    def _fit(self, leaf: int, odd: list[Odd], failed: dict[int, Exception]) -> None:
        loader, spec, got = self.loader, flatten(self.form)[leaf], odd[0].array
        index = int(self.indices[odd[0].row])
        raise ValueError(
            f"{loader._name(index)} is {got.dtype} of shape {got.shape}, but "
            f"{loader._name(loader._model_sample)} is {spec.dtype} of shape {spec.shape}, and all "
            "samples of a RAM batch have one shape. "
            f"{loader._advice(index, leaf, got.dtype != spec.dtype, raw=True)}"
        )


class _Served(BatchBuild):
    """A batch out of a RAM batch: rows copied, or transformed where the loader says so."""

    def __init__(
        self,
        loader: TwoLevelLoader,
        ram: _RamBatch,
        rows: Indices,
        epoch: int,
        draw: Draw,
        batch: int,
    ) -> None:
        kept = ram.alive[rows]
        alive = rows[kept]
        if not isinstance(draw, int):
            draw = draw[kept] if len(alive) else draw[:1]
        if not len(alive):  # Keras cannot take an empty batch: one of the others, instead of all
            others, first = np.flatnonzero(ram.alive), int(ram.indices[rows[0]])
            if not len(others):
                raise nothing_left(loader, first)
            rng = sample_rng(loader.seed, epoch, first, draw=2**32)
            alive = rng.choice(others, 1)
        super().__init__(loader, ram.indices[alive], epoch, draw, batch=batch)
        self.ram = ram
        self.taken = alive

    def fill(self, start: int, stop: int) -> None:
        rows = self.taken[start:stop]
        if self.loader.transform is None:
            for leaf, array in zip(self.leaves, self.ram.arrays, strict=True):
                np.take(array, rows, axis=0, out=leaf[start:stop], mode="clip")
            return
        report = self._report_from(start)
        indices, out = self.indices[start:stop], [leaf[start:stop] for leaf in self.leaves]
        draw = part_of(self.draw, slice(start, stop))
        if self.processes is not None:
            stored = [array[rows] for array in self.ram.arrays]
            self.processes.fill(self.loader, indices, out, self.epoch, draw, False, report, stored)
            return
        for row, (index, k) in enumerate(zip(indices.tolist(), rows.tolist(), strict=True)):
            sample = pack(self.loader.raw_spec, [np.array(a[k]) for a in self.ram.arrays])
            try:
                done = self.loader._transformed(index, sample, self.epoch, part_of(draw, row))
                self.loader._place(done, self.form, out, row, report)
            except Exception as error:  # whatever a user's function raises
                report(row, error)
