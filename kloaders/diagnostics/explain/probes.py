"""Measures what loading and training cost here: single stages, the whole, and what limits it.

Nothing is decided here (`explain` does that), and nothing stays changed: samples are read through views
of the loader, the cache is bypassed, and a model gets its weights back.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.memory import aligned, available_bytes
from kloaders.core.structure import flatten, map_structure
from kloaders.core.threads import usable_cores
from kloaders.formats import files
from kloaders.formats.files import ARRAY_SUFFIXES, read_bytes, suffix_of
from kloaders.formats.options import ImageOptions
from kloaders.plan.epoch import Order
from kloaders.sources.cache.columns import bypassed
from kloaders.sources.cache.folder import FolderCache
from kloaders.sources.cache.ram import RamCache
from kloaders.sources.columns import ArrayColumn, PathColumn

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = [
    "Measured",
    "Run",
    "Settings",
    "changed",
    "drive",
    "evict",
    "measure",
    "measure_change",
    "usable_cores",
]

# Decoded samples that are held while measuring, and how many are looked at one by one.
_HELD_BYTES, _LOOKED_AT = 2**27, 256
# The first of several processes answers before the last has begun.
_PROCESSES_START = 2.0
# Files whose pages the system is asked to forget before they are read as from a disk.
_EVICTED = 20_000
# Threads that read files alone: where more than the loader has read faster, the disk has room.
_MORE_THREADS = 4


@dataclass(frozen=True)
class Run:
    """A loader running by itself for a while.

    rate: samples a second. busy: cores that this process kept busy meanwhile, on average. inline:
    batches were so cheap that they were made in the thread that asks.
    """

    rate: float
    busy: float = 1.0
    inline: bool = False


@dataclass(frozen=True)
class Settings:
    """What of the loader and the machine matters for its speed."""

    samples: int
    batch_size: int
    cores: int
    workers: int
    processes: bool = False
    has_transform: bool = False
    #: Whether a sample takes a function of the user's, which may hold Python's lock.
    users_code: bool = False
    #: Whether `cache=` can keep its samples: they come from files or hooks.
    cacheable: bool = True
    cache: str | None = "auto"
    #: Bytes of a sample: as delivered, as decoded (before the transform), and of its files.
    sample_bytes: int = 0
    raw_bytes: int = 0
    stored_bytes: float | None = None
    #: x is delivered in more bytes a value than it is decoded in.
    widened: float = 1.0
    free_bytes: int = 0
    #: Share of the samples that the cache holds after the first epoch.
    kept: float = 0.0
    #: Whether the system can hold all files in memory.
    files_fit: bool = True


@dataclass(frozen=True)
class Measured:
    """What was measured. Seconds are of one sample in one thread, unless the name says otherwise."""

    settings: Settings
    #: Waiting for a file that is not in memory, and reading one that is; None: no files to read.
    read_s: float | None = None
    read_cached_s: float = 0.0
    decode_s: float = 0.0
    transform_s: float = 0.0
    copy_s: float = 0.0
    #: Decoding with dct_scaling=True, where that is another decode.
    dct_decode_s: float | None = None
    #: Of a core that one thread got: less than 1 where others use the machine.
    alone_busy: float = 1.0
    #: The loader with files from the disk, with files in memory, with decoded samples in RAM.
    cold: Run | None = None
    warm: Run | None = None
    ram: Run | None = None
    #: Files read a second and nothing else, by as many threads as the loader has, and by more.
    disk_rate: float | None = None
    disk_rate_more: float | None = None
    #: Of the model, in seconds a batch: a step on a batch that is there, the processor time of it,
    #: moving a batch to the device, and a step of a fit on this loader.
    step_s: float | None = None
    step_cpu_s: float | None = None
    to_device_s: float | None = None
    fit_s: float | None = None
    #: Where the last four come from: "model", "fit" or None.
    model_from: str | None = None
    #: Samples that were looked at, and seconds that measuring took.
    probed: int = 0
    seconds: float = 0.0


def measure(loader: SequenceLoader, model: Any = None, seconds: float = 6.0) -> Measured:
    """Look at a loader, and a model, for about so many seconds (a model's compilation beside them)."""
    begin = time.perf_counter()
    view = _quiet(loader)
    with bypassed(loader._stores()):
        stages = _stages(view, seconds / 4)
        measured = Measured(settings=_settings(loader, stages), **stages.found())
        runs: dict[str, Any] = {}
        enough = _enough(measured, seconds / 6)
        if stages.paths is not None:
            evict(_names(loader, stages, enough))
            runs["cold"] = drive(view, seconds / 6, enough)
            runs |= _disk(loader, stages, measured, seconds / 6)
        runs["warm"] = drive(view, seconds / 6, enough)
        runs.setdefault("cold", runs["warm"])
    held = _over(loader, stages.arrays()) if stages.arrays() is not None else None
    runs["ram"] = runs["warm"] if held is None else drive(held, seconds / 6)
    measured = dataclasses.replace(measured, **runs)
    if model is not None:
        steady = held if held is not None and measured.settings.kept > 0.99 else view
        with bypassed(loader._stores()):
            found = _with_model(model, loader, steady, seconds / 3)
        measured = dataclasses.replace(measured, **found)
    elif (fit := loader._last_fit) is not None and (steady_epochs := fit.steady()) is not None:
        measured = dataclasses.replace(
            measured,
            fit_s=steady_epochs.seconds / steady_epochs.steps,
            step_s=(steady_epochs.seconds - steady_epochs.wait_seconds) / steady_epochs.steps,
            model_from="fit",
        )
    for made in (view, held):
        if made is not None:
            made._release()
    return dataclasses.replace(
        measured, probed=len(stages.samples), seconds=time.perf_counter() - begin
    )


def measure_change(
    loader: SequenceLoader, change: str, value: Any, model: Any = None, seconds: float = 2.0
) -> float:
    """Samples a second with one thing changed; see `changed`. With a model: of a fit."""
    with bypassed(loader._stores()):
        view = changed(loader, change, value, seconds)
        try:
            if model is not None:
                found: float = _with_model(model, loader, view, seconds)["fit_s"]
                return loader.batch_size / found
            return drive(view, seconds).rate
        finally:
            view._release()


def changed(loader: SequenceLoader, change: str, value: Any, seconds: float = 2.0) -> Any:
    """A view of the loader with another setting, or over its decoded samples in RAM ("ram")."""
    new = _quiet(loader)
    own = vars(new)
    if change == "workers":
        own["thread_count"] = value
    elif change == "processes":
        own["processes"] = value
    elif change == "transform":
        own["transform"] = value
    elif change == "ram":
        arrays = _stages(new, seconds, transform=False).arrays()
        held = None if arrays is None else _over(loader, arrays)
        if held is None:
            raise ValueError(
                "samples differ in shape: they cannot be held as one array to measure."
            )
        return held
    elif change == "dct_scaling":
        columns = map_structure(_with_dct, new._columns())
        _read_from(new, columns)
    else:
        raise AssertionError(change)
    new._set_up()
    _calm(new)
    return new


# ------------------------------------------------------------------------------------------- stages


class _Stages:
    """Samples taken one by one, in this thread."""

    def __init__(self, view: SequenceLoader, indices: list[int]) -> None:
        self.view = view
        self.indices = indices
        self.samples: list[Any] = []
        self.times: dict[str, float] = {}
        self.cpu = self.wall = 0.0
        self.paths = _paths(view)
        self.stored = 0

    def add(self, name: str, seconds: float) -> None:
        self.times[name] = self.times.get(name, 0.0) + seconds

    def found(self) -> dict[str, Any]:
        """Fields of `Measured`."""
        n = max(1, len(self.samples))
        each = {name: seconds / n for name, seconds in self.times.items()}
        if self.paths is None and each.get("read_s", 0.0) < 0.05 * each.get("decode_s", 0.0):
            each.pop("read_s", None)  # nothing was waited for
        busy = min(1.0, self.cpu / self.wall) if self.wall > 0 else 1.0
        return {**each, "alone_busy": max(0.05, busy)}

    def arrays(self) -> Any:
        """The samples as they are stored, stacked; None where they differ in shape."""
        try:
            return map_structure(lambda *leaves: np.stack(leaves), *self.samples)
        except ValueError:
            return None


def _stages(view: SequenceLoader, seconds: float, transform: bool = True) -> _Stages:
    stages = _Stages(view, _some(view))
    form = flatten(view.sample_spec if transform else view.raw_spec)
    rows = [aligned(max(1, s.nbytes)) for s in form]
    held = 0
    end = time.perf_counter() + seconds
    for count, index in enumerate(stages.indices):
        if count >= 4 and (time.perf_counter() > end or held > _HELD_BYTES):
            break
        cached = _read_alone(stages, index)
        begin, cpu = time.perf_counter(), time.thread_time()
        sample = view._sample(index)
        wall, used = time.perf_counter() - begin, time.thread_time() - cpu
        if stages.paths is None:  # what a hook waits for, and what it computes
            stages.add("read_s", max(0.0, wall - used))
            stages.add("decode_s", used)
        else:
            stages.add("decode_s", max(0.0, wall - cached))
        if transform and view.transform is not None:
            begin = time.perf_counter()
            done = view._transformed(index, sample, 0, 0)
            stages.add("transform_s", time.perf_counter() - begin)
        else:
            done = sample
        stages.wall += wall
        stages.cpu += used
        begin = time.perf_counter()
        for leaf, row in zip(flatten(done), rows, strict=False):
            a = np.asarray(leaf)
            if a.nbytes <= row.nbytes:
                np.copyto(row[: a.nbytes], np.ascontiguousarray(a).reshape(-1).view(np.uint8))
        stages.add("copy_s", time.perf_counter() - begin)
        held += sum(np.asarray(leaf).nbytes for leaf in flatten(sample))
        stages.samples.append(sample)
    if stages.paths is not None:
        _try_dct(stages, seconds / 4)
    return stages


def _some(view: SequenceLoader) -> list[int]:
    """Numbers of samples from all over, in the order of a shuffled epoch."""
    found: list[int] = []
    for batch in range(len(view)):
        found += view.plan.indices(Order(0, 0), batch).tolist()
        if len(found) >= _LOOKED_AT:
            break
    return found[:_LOOKED_AT]


def _read_alone(stages: _Stages, index: int) -> float:
    """Read a sample's files from the disk, then from memory; seconds of the latter."""
    if stages.paths is None:
        return 0.0
    names = stages.paths(index)
    evict(names)
    begin = time.perf_counter()
    contents = [read_bytes(name) for name in names]
    stages.add("read_s", time.perf_counter() - begin)
    stages.stored += sum(map(len, contents))
    begin = time.perf_counter()
    for name in names:
        read_bytes(name)
    cached = time.perf_counter() - begin
    stages.add("read_cached_s", cached)
    return cached


def _try_dct(stages: _Stages, seconds: float) -> None:
    """Decode the same JPEGs at a fraction of their size, if the loader resizes them."""
    columns = stages.view._columns()
    options = [_options(column) for column in flatten(columns) if columns is not None]
    if not any(o is not None and o.size is not None and not o.dct_scaling for o in options):
        return
    assert stages.paths is not None
    jpegs = (".jpg", ".jpeg", ".jpe", ".jfif")
    if not any(suffix_of(name) in jpegs for k in stages.indices[:8] for name in stages.paths(k)):
        return
    scaled = map_structure(_with_dct, columns)
    count, spent, end = 0, 0.0, time.perf_counter() + seconds
    for index in stages.indices[: len(stages.samples)]:
        if count >= 4 and time.perf_counter() > end:
            break
        for name in stages.paths(index):  # as warm as it was for the other decode
            read_bytes(name)
        begin = time.perf_counter()
        map_structure(lambda column, index=index: _uncached(column).read(index), scaled)
        spent += time.perf_counter() - begin
        count += 1
    n = max(1, len(stages.samples))
    each = spent / max(1, count) - stages.times.get("read_cached_s", 0.0) / n
    stages.times["dct_decode_s"] = max(1e-9, each) * n


# ------------------------------------------------------------------------------------------ columns


def _innermost(column: Any) -> Any:
    while hasattr(column, "column"):
        column = column.column
    return column


def _uncached(column: Any) -> Any:
    return column.column if hasattr(column, "store") else column


def _paths(loader: SequenceLoader) -> Callable[[int], list[str]] | None:
    """The files of a sample; None for a loader whose samples are no files."""
    columns = loader._columns()
    files = [
        column
        for column in flatten(columns if columns is not None else ())
        if isinstance(_innermost(column), PathColumn)
    ]
    return (lambda index: [column.name(index) for column in files]) if files else None


def _options(column: Any) -> ImageOptions | None:
    read = getattr(_innermost(column), "read_path", None)
    if getattr(read, "decode", None) is not None:
        return None
    found: ImageOptions | None = getattr(read, "options", None)
    return found


def _with_dct(column: Any) -> Any:
    """The column, decoding JPEGs at a fraction of their size where that is large enough."""
    new = copy.copy(column)
    if hasattr(column, "store"):
        return _with_dct(column.column)
    if hasattr(column, "column"):
        new.column = _with_dct(column.column)
    elif (options := _options(column)) is not None and isinstance(column, PathColumn):
        read: Any = copy.copy(column.read_path)
        read.options = dataclasses.replace(options, dct_scaling=True)
        new.read_path = read
    return new


def _read_from(view: Any, columns: Any) -> None:
    """Let a view take its samples from these columns, whatever reads them otherwise."""
    own = vars(view)

    def fill(indices: Any, out: list[Any], report: Any) -> None:
        for leaf, column in enumerate(flatten(columns)):
            column.fill(indices, out[leaf], leaf, report)

    def sample(index: int) -> Any:
        return map_structure(lambda column: column.read(index), columns)

    own["_columns"], own["_fill_stored"], own["_sample"] = (lambda: columns), fill, sample
    own["_overrides"] = lambda _: False
    own["_hook_cache"] = None


def _over(loader: SequenceLoader, arrays: Any) -> Any:
    """A view whose samples are these arrays, in RAM; None where the loader's kind allows none."""
    held = len(flatten(arrays)[0])
    repeats = -(-4 * loader.batch_size // held)  # a few whole batches
    if repeats > 1:
        arrays = map_structure(lambda a: np.concatenate([a] * repeats), arrays)
    with contextlib.suppress(Exception):
        new: Any = loader.view()
        _read_from(new, map_structure(ArrayColumn, arrays))
        own = vars(new)
        own["samples"], own["shard"], own["weights"] = held * repeats, (0, 1), None
        own["processes"], own["_two_levels"] = (
            loader.processes and loader.transform is not None,
            False,
        )
        own["shuffle"] = True
        if own["processes"]:
            return None  # the arrays would be sent to each of them
        own["plan"] = new._checked_plan()
        new._set_up()
        return new
    return None


# --------------------------------------------------------------------------------------- the loader


def _quiet(loader: SequenceLoader) -> Any:
    """A view that runs as a fit drives it, and says nothing."""
    view: Any = loader.view()
    if loader.shuffle is None:
        vars(view)["shuffle"] = True
        view._set_up()
    _calm(view)
    return view


def _calm(view: Any) -> None:
    if "_said" in vars(view):
        view._said = True


def drive(view: Any, seconds: float, at_most: int | None = None) -> Run:
    """Take batches for so many seconds, as a hand-written loop would, without a model.

    at_most: samples after which to stop.
    """
    batches = _forever(view)
    next(batches)  # starts the threads
    started = time.perf_counter()
    while view.processes and time.perf_counter() - started < _PROCESSES_START:
        next(batches)
    begin, cpu = time.perf_counter(), time.process_time()
    samples = count = 0
    while count < 2 or time.perf_counter() - begin < seconds:
        samples += len(flatten(next(batches))[0])
        count += 1
        if at_most is not None and samples >= at_most and count >= 2:
            break
    wall = time.perf_counter() - begin
    busy = (time.process_time() - cpu) / wall
    engine = view._engine
    inline = engine is not None and engine.inline(view.batch_size)
    batches.close()
    view._release()
    return Run(samples / wall, busy, bool(inline))


def _forever(view: Any) -> Generator[Any, None, None]:
    while True:
        view.on_epoch_begin()
        for k in range(len(view)):
            yield view[k]
        view.on_epoch_end()


def _enough(measured: Measured, seconds: float) -> int:
    """Samples that a run of so many seconds cannot outlast."""
    m = measured
    each = m.read_cached_s + m.decode_s + m.transform_s + m.copy_s
    return int(min(_EVICTED, 2 + 2 * seconds * m.settings.cores / max(each, 1e-7)))


def _names(loader: SequenceLoader, stages: _Stages, count: int) -> list[str]:
    """Files of the first samples of the first epoch, in the order of a shuffled one."""
    assert stages.paths is not None
    numbers: list[int] = []
    shuffled = loader._order_asked() is not False
    order = Order(0, 0 if shuffled else loader.plan.batches)
    for batch in range(loader.plan.batches):
        numbers += loader.plan.indices(order, batch).tolist()
        if len(numbers) >= count:
            break
    return [name for k in numbers[:count] for name in stages.paths(k)]


def evict(names: Iterable[str]) -> None:
    """Ask the system to forget what it holds of these files."""
    for name in names:
        files.evict(name)


def _disk(
    loader: SequenceLoader, stages: _Stages, measured: Measured, seconds: float
) -> dict[str, float]:
    """Files a second by threads that only read."""
    few = max(1, measured.settings.workers)
    names = _names(loader, stages, 4096)
    each = max(1, len(names) // max(1, min(4096, loader.samples)))
    found = {}
    for field, threads in (("disk_rate", few), ("disk_rate_more", _MORE_THREADS * few)):
        evict(names)
        found[field] = _files_a_second(names, threads, seconds / 2) / each
    return found


def _files_a_second(names: list[str], threads: int, seconds: float) -> float:
    over = threading.Event()
    done = itertools.count()

    def read(name: str) -> None:
        if not over.is_set():
            with contextlib.suppress(OSError, ValueError):
                read_bytes(name)
            next(done)

    with ThreadPoolExecutor(threads, "kloaders-probe") as pool:
        begin = time.perf_counter()
        timer = threading.Timer(seconds, over.set)
        timer.start()
        for _ in pool.map(read, names):
            pass
        wall = time.perf_counter() - begin
        timer.cancel()
    return next(done) / wall


def _settings(loader: SequenceLoader, stages: _Stages) -> Settings:
    specs, raws = flatten(loader.sample_spec), flatten(loader.raw_spec)
    raw = sum(spec.nbytes for spec in raws)
    n = max(1, len(stages.samples))
    stored = stages.stored / n if stages.paths is not None else None
    free = available_bytes()
    columns = loader._columns()
    arrays = columns is not None and stages.paths is None
    return Settings(
        samples=loader.samples,
        batch_size=loader.batch_size,
        cores=usable_cores(),
        workers=usable_cores() if loader.thread_count is None else loader.thread_count,
        processes=loader.processes,
        has_transform=loader.transform is not None,
        users_code=loader._runs_users_code(),
        cacheable=not arrays,
        cache=loader.cache,
        sample_bytes=sum(spec.nbytes for spec in specs),
        raw_bytes=raw,
        stored_bytes=stored,
        widened=_widened(loader, stages),
        free_bytes=free,
        kept=_kept(loader, raw, free),
        files_fit=stored is None or stored * loader.samples < 0.5 * free,
    )


def _widened(loader: SequenceLoader, stages: _Stages) -> float:
    """How many times as many bytes a picture has as delivered, as it has in 8 bits."""
    spec = flatten(loader.sample_spec)[0]
    columns = loader._columns()
    options = [_options(column) for column in flatten(columns) if columns is not None]
    pictures = any(
        o is not None and (o.rescale is not None or o.dtype is not None) for o in options
    )
    if not pictures or stages.paths is None or suffix_of(stages.paths(0)[0]) in ARRAY_SUFFIXES:
        return 1.0
    return float(spec.dtype.itemsize)


def _kept(loader: SequenceLoader, raw: int, free: int) -> float:
    """The share of the samples that the cache holds once all were read, as far as can be told."""
    stores = loader._stores()
    if not stores or not raw:
        return 0.0
    shares = []
    for store in stores:
        if isinstance(store, FolderCache):
            room = shutil.disk_usage(store.folder).free + store._used
            shares.append(min(room, store.budget or room) / (raw * loader.samples))
        elif isinstance(store, RamCache) and store._capacity:
            shares.append(max(0, store._capacity) / store.samples)
        elif isinstance(store, RamCache):
            budget = store.budget
            given = budget._given if budget._given is not None else int(budget._share * free)
            left = max(0, (budget.total if budget._used else given) - budget._used)
            shares.append(left / (raw * loader.samples))
    return float(min(1.0, *shares)) if shares else 0.0


# ---------------------------------------------------------------------------------------- the model


def _with_model(model: Any, loader: SequenceLoader, view: Any, seconds: float) -> dict[str, Any]:
    """Seconds a batch: a step alone, and a step of a fit on `view`. The model is as before."""
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is a {type(model).__name__}, expected the keras.Model that fit() is called on."
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            "the model is not compiled, so it has no step: call model.compile() first."
        )
    batch = view[0]

    class Same(keras.utils.PyDataset):
        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

        def __len__(self) -> int:
            return self.steps

        def __getitem__(self, index: int) -> Any:
            return batch

    with _unchanged(keras, model, batch):
        first = _epochs(keras, model, Same(2), 2)
        # As many steps an epoch for both: what an epoch itself costs is then in both.
        steps = int(min(200, len(view), max(2, seconds / 6 / max(1e-6, first[-1][0] / 2))))
        if steps * (4 + 60 // steps) > len(view):  # parts of a pass must not run over its end
            steps = len(view)
        epochs = 4 + 60 // steps
        alone = _middle(_epochs(keras, model, Same(steps), epochs)[1:])
        part = steps if steps < len(view) else None
        together = _middle(_epochs(keras, model, view, epochs, part)[1:])
        moved = _moving(keras, batch)
    return {
        "step_s": alone[0] / steps,
        "step_cpu_s": alone[1] / steps,
        "to_device_s": moved,
        "fit_s": together[0] / steps,
        "model_from": "model",
    }


def _middle(epochs: list[tuple[float, float]]) -> tuple[float, float]:
    """The median of each: what else the machine does makes single epochs slow."""
    walls, cpus = zip(*epochs, strict=True)
    return float(np.median(walls)), float(np.median(cpus))


def _epochs(
    keras: Any, model: Any, data: Any, epochs: int, steps: int | None = None
) -> list[tuple[float, float]]:
    """Seconds, and seconds of processor time, of each epoch of a fit."""
    found: list[tuple[float, float]] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            wall, cpu = self.began
            found.append((time.perf_counter() - wall, time.process_time() - cpu))

    model.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=[Clock()])
    return found


@contextlib.contextmanager
def _unchanged(keras: Any, model: Any, batch: Any) -> Iterator[None]:
    """Give the model, its optimizer and its history back as they were."""
    if not model.built:
        model.predict_on_batch(batch[0] if isinstance(batch, tuple) else batch)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    history, stopped = getattr(model, "history", None), model.stop_training
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        model.reset_metrics()
        model.history, model.stop_training = history, stopped


def _moving(keras: Any, batch: Any) -> float:
    """Seconds to make tensors of the backend of one batch, on its device."""
    leaves = flatten(batch)

    def move() -> None:
        for leaf in leaves:
            tensor = keras.ops.convert_to_tensor(leaf)
            if hasattr(tensor, "block_until_ready"):
                tensor.block_until_ready()

    move()
    begin = time.perf_counter()
    for _ in range(5):
        move()
    return (time.perf_counter() - begin) / 5
