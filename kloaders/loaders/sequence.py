"""The base of all loaders: a plan, an engine that works ahead, and Keras' Sequence interface."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from kloaders.core import forks
from kloaders.core.errors import (
    SampleError,
    check_limit,
    check_max_errors,
    check_policy,
    explain,
    is_its_own,
    noted,
)
from kloaders.core.gc_guard import held_off
from kloaders.core.memory import BufferPool, parse_bytes
from kloaders.core.messages import say
from kloaders.core.structure import (
    ArraySpec,
    Structure,
    flatten,
    map_structure,
    names_of,
    pack,
    same_structure,
    spec_of,
)
from kloaders.core.threads import usable_cores
from kloaders.diagnostics import summary
from kloaders.engine.batches import BatchBuild
from kloaders.engine.lookahead import AHEAD_BYTES, Build, Engine, made_here
from kloaders.engine.processes.pool import ProcessPool, check_sendable
from kloaders.formats.images import checked_dtype
from kloaders.keras_api import base as keras_base
from kloaders.keras_api import distributed, retained_loaders, tf_iterators
from kloaders.keras_api.iteration import iterate
from kloaders.keras_api.telemetry import Fit, Meter
from kloaders.keras_api.tickets import Position, Request, Tickets
from kloaders.plan import sampling
from kloaders.plan.epoch import Draw, EpochPlan, Order, batch_rng, part_of, sample_rng
from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import HookCache, Place, leaf_store, stores_in
from kloaders.sources.cache.ram import Budget, spare_ram
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import Column, Odd, Report, place, spec_of_all
from kloaders.sources.quarantine import Quarantine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self

    from kloaders.diagnostics.explain.verdict import Explanation

__all__ = ["Options", "SequenceLoader", "check_loader", "report_at"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Key = tuple[Order, int]
Transform = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]

# Samples tried for the shape of all, where on_error lets the first ones fail.
_FIRST_TRIES = 100


# Bad samples told one by one; then the hundredth, the thousandth and so on.
_TOLD, _MILESTONES = 10, frozenset(10**k for k in range(2, 12))

# What a loader's batches follow from.
_FIXED = frozenset(
    (
        *("samples", "batch_size", "shuffle", "seed", "drop_last", "pad_last", "shard", "dtype"),
        *("epoch_batches", "class_balance", "sampling_weights", "replacement"),
    )
)


class Options(TypedDict, total=False):
    """The options that every loader takes; see `SequenceLoader`."""

    shuffle: bool | None
    seed: int | None
    drop_last: bool
    pad_last: bool
    shard: tuple[int, int] | None
    sample_weights: Any
    epoch_batches: int | None
    class_balance: Any
    sampling_weights: Any
    replacement: bool
    transform: Transform | None
    batch_transform: Transform | None
    workers: int | None
    processes: bool
    dtype: Any
    on_error: str
    max_errors: int | float | None
    quarantine: str | os.PathLike[str] | None
    cache: str | os.PathLike[str] | None
    cache_budget: int | str | None
    max_queue_size: int
    use_multiprocessing: bool


class SequenceLoader(keras_base.Sequence):
    """Batches of numbered samples for Keras' `fit`, `evaluate` and `predict`.

    Subclass it for a source of your own and override one hook, `load_sample(index)` or
    `load_batch(indices)`; for one file a sample, `PathSequenceLoader` has done the rest already.

    Args:
        samples: how many samples there are.
        batch_size: samples a batch.
        shuffle: None does what Keras asks: `fit` shuffles samples (unless called with
            shuffle=False); `evaluate`, `predict` and `loader[i]` get storage order, so that
            predictions line up with the data. True: a new order every epoch, whoever asks.
            False: batch i of storage order for index i.
        seed: fixes every order and every random number; None draws one from NumPy's global
            generator, which `keras.utils.set_random_seed` sets.
        drop_last: leave out the last batch of an epoch where it is short.
        pad_last: fill it up instead, with samples of weight 0; every batch then has
            weights, where there are labels. For backends that need one batch size (JAX's
            DataParallel). `predict` gives rows for the padding too: cut them off.
        shard: (k, n): be part k of n. The n loaders deliver together, batch by batch, what one
            loader with batch_size * n would. All have the same number of batches. Give all the
            same `seed`, and say `shuffle=True` to shuffle: what Keras asks for differs between
            processes.
        sample_weights: one weight a sample, delivered as the third part of a batch.
        epoch_batches: an epoch has so many batches, however many samples there are. All are full,
            and the next epoch goes on where this one ended: every sample comes once before any
            comes again. Like all options of sampling it makes shuffle=None mean True; with
            shuffle=False storage order goes on from epoch to epoch.
        class_balance: True gives every batch as many samples of each class, to within one, and in
            each class every sample once before any again. The labels must be classes known
            beforehand; an array of one class a sample (numbers or texts) says so otherwise. Takes
            5 bytes of RAM a sample, or 6 with more than 255 classes.
        sampling_weights: one number a sample: how often it comes, in proportion to the others. In
            every pass of `samples` draws it comes as often as that says, to within one. Takes 16
            bytes of RAM a sample.
        replacement: draw each place by sampling_weights independently of all others instead.
        transform: `transform(x, y, rng)` -> `(x, y)`, applied to each sample; y is None without
            labels. `rng` is a `numpy.random.Generator` that depends on seed, epoch and sample
            only. Called from several threads.
        batch_transform: the same for a whole batch, `batch_transform(x, y, rng)` -> `(x, y)`, when
            all its samples are in place, and before weights and padding are added. It may change
            shapes and dtypes, but gives a row for each row; the short last batch has fewer. `rng`
            depends on seed, epoch and batch only. Called from several threads of this process,
            with `processes=True` too.
        workers: threads that load ahead. None chooses: as many as the process may use cores, or
            none while a batch is cheaper than handing it over. 0: everything in the caller's
            thread, nothing ahead.
        processes: let `workers` processes do the reading and the transform, for functions that
            hold the GIL. They get a copy of this loader (lambdas need cloudpickle, and so does
            what a notebook defines), share arrays in RAM, start when the first batch is asked for
            and stay until `close`. One that dies is replaced and its work done again. The
            batches are the same ones that threads make.
        dtype: of x, or of all arrays in it, before the transform; None keeps what is stored.
            Sending uint8 and scaling on the device, by a Rescaling layer, is four times cheaper
            than float32.
        on_error: what to do with a sample that does not load: "raise" a SampleError that names
            it, "skip" it (its batch is that much shorter; of a batch with no other sample, it is
            replaced), or "replace" it by another sample, which the seed picks. What
            did not load is listed in `errors`. Rows of `predict` line up with the data but for
            skipped ones. With pad_last=True a batch that is shorter is filled up to its size.
        max_errors: so many samples may be skipped or replaced, a count as 100 or a share of the
            samples as 0.01; one more raises. Counted over the loader's life, each sample once
            however many epochs meet it. None: no limit.
        quarantine: a CSV file, "bad.csv", which gets a line for each sample that does not load:
            path, error, first_seen. It is added to, by any number of runs and processes, and
            names nothing twice; `exclude=` of loaders over files leaves out what it lists.
        cache: where samples are kept as they are first read, before the transform, so that later
            epochs need not read and decode them. "auto": in spare RAM, a quarter of what is free
            for all loaders of the process together, for files that are decoded by suffix and for
            pictures in records. "ram": in RAM, whatever reads them. A folder: there, for later runs
            and other processes too. None: nowhere. What does not fit is read again; a file that
            has changed is read again.
        cache_budget: at most so many bytes, as 10**9 or "1GB".
        max_queue_size: at most so many batches are made ahead; fewer where they are large
            (256 MiB), or cheap and workers= is left to us.

    Raises:
        ValueError, TypeError: an option is out of range.

    Threads: `loader[i]` may be called from several at once.

    >>> class Squares(SequenceLoader):
    ...     def load_sample(self, index):
    ...         return np.float32(index), np.float32(index**2)
    >>> x, y = Squares(10, batch_size=4)[1]
    >>> y
    array([16., 25., 36., 49.], dtype=float32)
    """

    # What `_set_up` makes: state of this process, which is neither pickled nor shared by views.
    _tickets: Tickets
    _engine: Engine | None
    _engine_lock: threading.Lock
    _pool: BufferPool
    _processes: ProcessPool | None
    _process_lock: threading.Lock
    _raw_spec: Structure
    _spec: Structure
    _batch_spec: Structure
    _spec_lock: threading.RLock
    _model_sample: int  # whose specs these are
    _failed: set[int]
    _warned: bool
    _told: bool
    _resting: bool
    _numbered: bool  # num_batches was read since the last batch
    _released: int
    _rest_lock: threading.RLock
    _meter: Meter | None  # of the fit that is under way
    _last_fit: Fit | None
    _made_for: dict[str, Any] | None
    _loaded: Position | None
    _two_levels = False  # whether RAM batches lie between the data and the batches

    def __init__(
        self,
        samples: int,
        batch_size: int = 32,
        *,
        shuffle: bool | None = None,
        seed: int | None = None,
        drop_last: bool = False,
        pad_last: bool = False,
        shard: tuple[int, int] | None = None,
        sample_weights: Any = None,
        epoch_batches: int | None = None,
        class_balance: Any = None,
        sampling_weights: Any = None,
        replacement: bool = False,
        transform: Transform | None = None,
        batch_transform: Transform | None = None,
        workers: int | None = None,
        processes: bool = False,
        dtype: Any = None,
        on_error: str = "raise",
        max_errors: int | float | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = "auto",
        cache_budget: int | str | None = None,
        max_queue_size: int = 10,
        use_multiprocessing: bool = False,
    ) -> None:
        if use_multiprocessing:
            raise ValueError(_NO_MULTIPROCESSING)
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=max_queue_size)
        self.samples = _count(samples, "samples", 0)
        if self.samples == 0:
            raise ValueError(_no_samples(self, "print what counts them"))
        self.batch_size = _count(batch_size, "batch_size", 1)
        self.shuffle = _tristate(shuffle)
        # One draw from the global generator: keras.utils.set_random_seed fixes it.
        self.seed = int(np.random.randint(2**31)) if seed is None else _count(seed, "seed", 0)
        self._seed_drawn = seed is None
        self.drop_last = _flag(drop_last, "drop_last")
        self.pad_last = _flag(pad_last, "pad_last")
        if self.drop_last and self.pad_last:
            raise ValueError("drop_last=True and pad_last=True contradict each other: choose one.")
        self.cache = _cache(cache)
        self.cache_budget = (
            None if cache_budget is None else parse_bytes(cache_budget, "cache_budget")
        )
        self._hook_cache: HookCache | None = None
        # What `bucket_by_length` puts here: another order, and batches that are padded.
        self._buckets: Any = None
        # Whether inputs are the labels as well (`inputs_as_labels`).
        self._x_is_y = False
        self.shard = _shard(shard)
        _check_transform(transform, "transform")
        self.transform = transform
        _check_transform(batch_transform, "batch_transform")
        self.batch_transform = batch_transform
        self.thread_count = None if workers is None else _count(workers, "workers", 0)
        self.processes = _flag(processes, "processes")
        if self.processes and self.thread_count == 0:
            raise ValueError("processes=True needs workers=1 or more, got workers=0.")
        self.dtype = checked_dtype(dtype)
        self.on_error = check_policy(on_error)
        self.max_errors = check_max_errors(max_errors, self.on_error)
        self.quarantine = None if quarantine is None else Quarantine(quarantine)
        self.queue_size = _count(max_queue_size, "max_queue_size", 0)
        self.weights = self._weights_of(sample_weights)
        length = None if epoch_batches is None else _count(epoch_batches, "epoch_batches", 1)
        self.sampling = sampling.checked(
            self, length, class_balance, sampling_weights, _flag(replacement, "replacement")
        )
        #: Samples that did not load, one SampleError each, in the order in which they were met.
        self.errors: list[SampleError] = []
        #: What label k is called, where the labels are classes with names; the user may set it.
        self.class_names: list[str] | None = None
        distributed.check_settings(self, seed)
        self.plan = self._checked_plan()
        self._set_up()
        self._begin_cache()
        if self.processes:
            check_sendable(self)

    # ------------------------------------------------------------------ hooks

    def load_sample(self, index: int) -> Any:
        """One sample: x, or a tuple (x, y). Override this or `load_batch`.

        Called from several threads at once, in any order; `index` is the sample's number in
        storage order. x and y are arrays or numbers, or tuples or dicts of them, of one shape
        and dtype for all samples of a batch. Whatever is raised becomes a SampleError that names
        the sample, or is dealt with as `on_error` says.
        """
        raise TypeError(
            f"{type(self).__name__} has no samples to read: override load_sample(index) to return "
            "x or (x, y), or load_batch(indices) to return a whole batch."
        )

    def load_batch(self, indices: Indices) -> Any:
        """Several samples at once: x, or (x, y), each with one row for each of `indices`.

        Override it for formats that read many samples in one go. Called from several threads at
        once; `indices` is an int64 array in the order of delivery, not sorted. It may be a part
        of a batch. If it raises, it is called again sample by sample to find the one at fault.
        """
        raise AssertionError("only an override is called")

    # ------------------------------------------------------------------ Keras' interface

    def __len__(self) -> int:
        """Batches an epoch; in one that goes on after `load_state_dict`, those that are left."""
        return self._tickets.length()

    def __iter__(self) -> Iterator[Any]:
        """An epoch: each batch once, made ahead; the next iteration is the next epoch.

        It begins with `on_epoch_begin` and ends with `on_epoch_end`. After `load_state_dict` the first
        one has the batches that are left of the epoch. A loop that is left early leaves its epoch:
        `state_dict()` still returns where.

        Raises:
            RuntimeError: the body of the loop began another epoch of this loader.
        """
        return iterate(self, self._tickets)

    @property
    def num_batches(self) -> int:
        """Batches an epoch. Keras reads this when it begins a pass; use `len(loader)`."""
        distributed.check_pass(self)
        self._resting = False
        self._numbered = True
        return self._tickets.starting()

    def __getitem__(self, index: int) -> Any:
        """One batch: x, (x, y) or (x, y, sample_weights).

        Between `on_epoch_begin` and `on_epoch_end` the index is a ticket: each new one gets the
        next batch of this loader's order. Outside, and after a fit that was interrupted, it is batch
        `index` of the coming epoch.
        The arrays are the caller's: nobody writes to them again.

        Raises:
            IndexError: `index` is not in 0 ... len(loader) - 1.
            SampleError: a sample does not load (on_error="raise").
            ValueError: samples of one batch differ in shape or dtype; both are named. Or a loader
                with a shard and shuffle=None is asked for batches in a random order.
        """
        released = self._released
        looked = self._numbered and index == 0
        if self._numbered:
            self._numbered = False
        if type(index) is not int or not 0 <= index < self.plan.batches:
            index = self._index(index)
        request = self._tickets.locate(index)
        order = request.order
        if self.shard[1] > 1 and self._order_asked() is None and not self.plan.is_stored(order):
            raise ValueError(_NO_COMMON_ORDER)
        if self._tickets.permuted and not self._warned:
            self._warned = True
            say(
                f"{type(self).__name__}(shuffle=False) is asked for its batches in a random order: "
                "fit() permutes them unless it is called with shuffle=False. Batches come as they "
                "are asked for, without look-ahead. shuffle=None shuffles samples instead."
            )
        inside = self._tickets.in_order == _IN_ORDER and not self._warned
        if inside and self.sampling and self.shuffle is None:
            self._warned = True
            say(
                f"this loader samples ({self.sampling}) and is asked for its batches in order, as "
                "predict and evaluate do: rows do not line up with the data. Predict from a loader "
                "without these options; shuffle=True says that the order is meant."
            )
        if self._tickets.interrupted and not self._told:
            self._told = True
            say(_INTERRUPTED)
        key = _key(order, request.batch)
        if looked and self._buckets is not None and not request.sequential:
            wider = self._buckets.look(self)
            if wider is not None:
                return made_here(wider)
        engine = None if self._resting or self._two_levels else self._engine
        if engine is None:
            engine = self._engine_for(request, released)
        if engine is None:
            return made_here(self._make_alone(key, True))
        if request.sequential:
            batch = engine.get(key, self._upcoming(request), self._make)
        else:
            batch = engine.get(key, None, self._make_alone)
        if self._meter is not None:
            self._meter.handed(batch, engine.ready)
        return batch

    def on_epoch_begin(self) -> None:
        """Keras calls this before each epoch; call it in a hand-written loop. Overrides call super."""
        self._resting = False
        self._tickets.begin()

    def on_epoch_end(self) -> None:
        """Keras calls this after each epoch; call it in a hand-written loop. Overrides call super."""
        if self._tickets.asked_for_all() and keras_base.keeps_adapters():
            tf_iterators.free_beside()
        self._tickets.end()

    @property
    def workers(self) -> int:
        """1: what Keras is told, since this loader's own threads do the work (`thread_count`)."""
        retained_loaders.note_adapter(self, SequenceLoader._empty)
        return 1

    @workers.setter
    def workers(self, value: Any) -> None:
        raise ValueError(
            f"workers={value} cannot be set on a loader: pass workers= when making it."
        )

    @property
    def use_multiprocessing(self) -> bool:
        """False: Keras' process pool would be rebuilt every epoch."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: Any) -> None:
        if value:
            raise ValueError(_NO_MULTIPROCESSING)

    @property
    def max_queue_size(self) -> int:
        """How many batches are made ahead at most."""
        return self.queue_size

    @max_queue_size.setter
    def max_queue_size(self, value: Any) -> None:
        self.queue_size = _count(value, "max_queue_size", 0)
        self.close()

    # ------------------------------------------------------------------ for users

    @property
    def raw_spec(self) -> Structure:
        """ArraySpec of each array of a sample before the transform; reads one sample at first."""
        if self._raw_spec is None:
            with self._spec_lock:
                if self._raw_spec is None:
                    self._raw_spec = self._first(lambda index: self._look(index, True))
        return self._raw_spec

    @property
    def sample_spec(self) -> Structure:
        """ArraySpec of each array of a sample as it is delivered, as a tuple (x,) or (x, y)."""
        if self.transform is None:
            return self.raw_spec
        if self._spec is None:
            raw = self.raw_spec
            with self._spec_lock:
                if self._spec is None:
                    self._spec = self._first(lambda index: self._look(index, False))
                    del raw
        return self._spec

    def _row_spec(self) -> Structure:
        """`sample_spec` of what batch_transform makes of it; tried on a batch of one sample."""
        if self.batch_transform is None:
            return self.sample_spec
        if self._batch_spec is None:
            form = self.sample_spec  # says which sample loads
            with self._spec_lock:
                if self._batch_spec is None:
                    index = np.array([self._model_sample], np.int64)
                    build = BatchBuild(self, index, 0)
                    build.fill(0, 1)
                    _, leaves = build.finish_leaves()
                    rows = [np.repeat(leaf, self.batch_size, axis=0) for leaf in leaves]
                    made = self._batch_transformed(pack(form, rows), 0, 0)
                    self._batch_spec = map_structure(
                        lambda leaf: ArraySpec(leaf.shape[1:], leaf.dtype), made
                    )
        return self._batch_spec

    def delivered_spec(self) -> Structure:
        """`sample_spec`, with None for the dimensions in which samples are known to differ.

        Known are the samples of a list of arrays; others are taken to be like the first one. With
        a batch_transform, the spec of a row of what it gives.
        """
        spec = self._spec_of_all()
        return spec * 2 if self._x_is_y and len(spec) == 1 else spec

    def _spec_of_all(self) -> Any:
        if self.batch_transform is not None:
            return self._row_spec()
        if self._buckets is not None:
            return self._buckets.delivered(self, self.sample_spec)
        columns = self._columns()
        if columns is None or self.transform is not None or self._runs_users_code():
            return self.sample_spec
        return map_structure(spec_of_all, columns, self.sample_spec)

    @property
    def has_weights(self) -> bool:
        """Whether batches have a third part, sample weights; without labels they have none."""
        labels = self._x_is_y or len(self._row_spec()) > 1
        return (self.weights is not None or self.pad_last) and labels

    def state_dict(self, epoch: int | None = None, batch: int | None = None) -> dict[str, Any]:
        """The position in the data, as a dictionary of integers and short texts that JSON takes.

        It is the position behind the last batch that the model has consumed: in `fit` that needs
        `LoaderCallback(loader)`, in a loop of your own it is behind the last `loader[i]` between
        `on_epoch_begin` and `on_epoch_end`. The first call looks at the names of all files, or at
        rows from all over an array; later ones take microseconds.

        Args:
            epoch: of which epoch the position shall be, for who counts batches by other means, as
                with `to_tf_dataset`; None for that of the model.
            batch: the batch of that epoch which comes next.

        Raises:
            ValueError: it cannot be told how far the model is.
            TypeError: one of epoch and batch without the other.
        """
        if (epoch is None) != (batch is None):
            raise TypeError("epoch= and batch= go together: give both, or none.")
        if epoch is None or batch is None:
            order, done = self._tickets.position()
        else:
            order = self._order_of(_count(epoch, "epoch", 0), None)
            done = _count(batch, "batch", 0)
            if done > self.plan.batches:
                raise ValueError(
                    f"batch={done} is behind the end of an epoch of {self.plan.batches} batches."
                )
            if done == self.plan.batches:
                order, done = self._order_of(epoch + 1, None), 0
        return {
            "version": fingerprint.VERSION,
            **self.plan.state(order, done),
            "made_for": self._fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a position that `state_dict` gave, in this process or another one.

        The next epoch (the next one that is trained on, where `fit` has a `LoaderCallback`) has
        the batches that are left of the one that the state was taken in. workers, processes,
        cache, on_error and the loader's class over the same data may be others, and so may
        batch_size, shard and the size of RAM batches: the epoch goes on at the very sample,
        with these exceptions. The last batch of an epoch needs a sample for each shard: if there
        are too few left, it goes on as many samples earlier. With `echo`, and another batch size,
        shard or RAM batch, it goes on at the beginning of the RAM batch. A loader that was made
        without seed= takes the seed of the state.

        Raises:
            TypeError, ValueError: no state, or one for other data or options: says what differs.
        """
        whose = f"this {type(self).__name__}"
        before = {name: self.__dict__[name] for name in ("seed", "plan", "_made_for")}
        self._take_seed(state)
        try:
            checked = fingerprint.checked_state(state, self._fingerprint(), whose)
            order, first = self.plan.position(checked)
        except Exception:
            self.__dict__.update(before)
            raise
        self._loaded = Position(order, first, self.plan.count(order) - first)
        self._tickets.resume_at(self._loaded)
        self._release()

    def _take_seed(self, state: Any) -> None:
        made_for = state.get("made_for") if isinstance(state, dict) else None
        seed = made_for.get("seed") if isinstance(made_for, dict) else None
        if self._seed_drawn and type(seed) is int and 0 <= seed != self.seed:
            self._release()
            self.__dict__["seed"] = seed  # past __setattr__: what follows from it is made anew
            self.plan = replace(self.plan, seed=seed, **self._stream_of())
            self._made_for = None

    def _fingerprint(self) -> dict[str, Any]:
        """What a state is made for: it is refused by a loader where anything of this differs.

        What may differ, as workers and batch sizes may, is not in it.
        """
        if self._made_for is None:
            specs = [f"{spec.dtype}{list(spec.shape)}" for spec in flatten(self.sample_spec)]
            weights = None
            if self.weights is not None:
                digest = fingerprint.Digest()
                digest.add_bytes(self.weights)
                weights = digest.text()
            self._made_for = {
                **self.plan.made_for(),
                "shuffle": self._order_asked(),
                "sample": " ".join(specs),
                "weights": weights,
                **self._data_fingerprint(),
            }
        return self._made_for

    def _data_fingerprint(self) -> dict[str, str]:
        """Short texts for what the samples are."""
        parts = self.__dict__.get("_parts") or self._columns()
        if not parts:
            return {"data": fingerprint.of_names(self._name, self.samples)}
        return {
            name: fingerprint.of_columns(part)
            for name, part in zip(("data", "labels"), parts, strict=False)
        }

    def _order_of(self, epoch: int, shuffle: bool | None) -> Order:
        shuffled = self._order_asked() if shuffle is None else shuffle
        return self.plan.shuffled_order(epoch) if shuffled else self.plan.storage_order(epoch)

    def epoch_batches(self, epoch: int = 0, shuffle: bool | None = None) -> Iterator[Any]:
        """All batches of one epoch, whatever Keras is doing with this loader.

        Args:
            epoch: which; shuffled orders and random numbers differ from epoch to epoch.
            shuffle: None takes the loader's own word, and storage order if that is None too. A
                loader that samples has one order only.

        Raises:
            ValueError: the loader samples, and `shuffle` is not its own.
        """
        self._check_order(shuffle)
        return self._batches_from(self._order_of(epoch, shuffle), 0)

    def _batches_from(self, order: Order, first: int) -> Iterator[Any]:
        """All batches of an order from this one on."""
        count = self.plan.count(order)
        for batch in range(first, count):
            self._resting = False
            upcoming = _keys(order, batch + 1, count)
            yield self._running().get(_key(order, batch), upcoming, self._make)

    def close(self) -> None:
        """Free threads, files, batches made ahead and the cache in RAM.

        The loader can be used again: they come back.
        """
        self._release()
        for store in self._stores():
            store.release(self)

    def _release(self) -> None:
        """Free what is only needed while batches are asked for."""
        with self._rest_lock:
            self._resting = True
            self._released += 1
            engine = self._engine
            self._engine = None
        if engine is not None:
            engine.cancel()
        self._close_processes()
        if engine is not None:
            engine.close()
        self._close_processes()  # a thread may have asked for them once more
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def view(self) -> Self:
        """A second loader over the same data, with its own place in the epoch and its own threads.

        For using one source twice at a time, such as `predict(loader.view())` in mid-epoch of a
        fit on `loader`.
        """
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update(self._settings())
        new.errors = []
        new._set_up()
        return new

    def summary(self) -> str:
        """Samples, shapes, bytes, classes and their balance, order, work and memory, in a few lines.

        Reads one sample at first, for its shape.
        """
        return summary.as_text(self)

    def _repr_html_(self) -> str:
        return summary.as_html(self)

    def show(
        self,
        batch: int = 0,
        *,
        samples: int = 16,
        epoch: int = 0,
        box_format: str | None = None,
        save: str | os.PathLike[str] | None = None,
    ) -> Figure:
        """A picture of a batch as the model sees it: after the transform, in the order of `fit`.

        Pictures are drawn with their labels, masks and boxes; rows of numbers as lines or a table,
        other tensors as heat maps. Labels get their names from `class_names`. A label is drawn over
        the picture if it has the picture's height and width (a mask), or is called "boxes" or
        "bboxes"; "labels" or "classes" beside boxes are theirs, and those below 0 are padding.
        Safe during a fit: it reads on a view, in the caller's thread.

        Args:
            batch: its number in the epoch.
            samples: at most so many of it.
            epoch: which; random transforms draw anew in each.
            box_format: "xyxy", "xywh", "yxyx" or "center_xywh", in pixels, or with `rel_` before it
                in shares of the picture; None takes "rel_xyxy" where all is within 0 and 1, and
                "xyxy" otherwise.
            save: a file to write, such as "batch.png".

        Returns:
            A matplotlib Figure, which a notebook shows; `.savefig("batch.png")` writes it.

        Raises:
            ImportError: matplotlib is missing (`pip install matplotlib`).
            IndexError: no such batch.
        """
        from kloaders.diagnostics.show import show

        return show(self, batch, samples, epoch, box_format, save)

    def explain(
        self, model: Any = None, *, check: bool = False, seconds: float = 6.0
    ) -> Explanation:
        """Where the time goes: measures, names what binds, and what to change.

        Reads a few hundred samples, alone and as a fit would, from the disk and from memory, with
        the cache left aside. With a model, its step on a batch that is there and a fit of some steps
        are measured too; the model, its optimizer and its history are as before afterwards. Without
        one, the last fit with `LoaderCallback(loader)` tells what its step took, if there was one.

        Args:
            model: a compiled keras.Model.
            check: try each change that is advised, and tell what came of it beside what was
                predicted.
            seconds: how long to measure, about; compiling the model and starting processes come on
                top.

        Returns:
            An Explanation. `print` it; `.save("explain.html")` writes a page with charts, `.json` or
            `.txt` likewise; `.to_dict()` is for scripts, and in a notebook it shows itself.

        Raises:
            SampleError: a sample does not load.
            TypeError, ValueError: model is no keras.Model, or is not compiled.
        """
        from kloaders.diagnostics.explain.verdict import explain

        return explain(self, model, check=check, seconds=seconds)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.samples:,} samples, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle}, seed={self.seed})"
        )

    # ------------------------------------------------------------------ what LoaderCallback tells

    def _fit_end(self) -> None:
        self._tickets.fit_end()
        self._release()

    def _empty(self) -> None:
        """Nobody can reach this loader any more, yet TensorFlow keeps it: let go of the rest."""
        self.close()
        if not hasattr(type(self), "__del__"):  # which would miss what is gone
            self.__dict__.clear()

    # ------------------------------------------------------------------ set-up and pickling

    def __setattr__(self, name: str, value: Any) -> None:
        # Batches already follow from these: a new value would show, and change nothing.
        if name in _FIXED and "_tickets" in self.__dict__:
            raise AttributeError(
                f"{name} of a loader is fixed when it is made: make another one, with "
                f"{name}={value!r}."
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if "samples" not in self.__dict__ and name in ("plan", "_tickets", "_resting", "shard"):
            raise AttributeError(
                f"{type(self).__name__} is not set up: its __init__ must call "
                "super().__init__(samples, batch_size) before anything else is done with it."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _make_plan(self) -> EpochPlan:
        return EpochPlan(
            self.samples,
            self.batch_size,
            self.seed,
            drop_last=self.drop_last,
            shard=self.shard,
            **self._stream_of(),
        )

    def _stream_of(self) -> dict[str, Any]:
        """What of the plan is the business of sampling."""
        stream = self.sampling.stream(self, self.batch_size * self.shard[1])
        return {"stream": stream, "length": self.sampling.length}

    def _checked_plan(self) -> EpochPlan:
        plan = self._make_plan() if self._buckets is None else self._buckets.plan(self)
        if plan.batches == 0:
            raise ValueError(
                f"{self.samples} samples make no full batch of {plan.global_batch} (batch_size "
                "times shards) and drop_last=True leaves the rest out: use a smaller batch_size "
                "or drop_last=False."
            )
        short = plan.tail
        if 0 < short < self.shard[1]:
            raise ValueError(
                f"the last batch of an epoch has {short} samples for {self.shard[1]} shards, so "
                "that some would get none: use drop_last=True, or another batch_size."
            )
        return plan

    def _sample_as(self, found: sampling.Sampling) -> None:
        """Take another sampling, before anything is asked for."""
        self.sampling = found
        self.plan = self._checked_plan()
        self._set_up()

    def _weights_of(self, sample_weights: Any) -> np.ndarray[Any, Any] | None:
        if sample_weights is None:
            return None
        try:
            weights = np.asarray(sample_weights)
        except ValueError:  # a ragged list
            weights = np.empty(0, object)
        if weights.dtype.kind not in "biuf":
            raise TypeError(
                f"sample_weights is a {type(sample_weights).__name__} of {weights.dtype}, expected "
                f"one number for each of {self.samples} samples: np.asarray(weights, np.float32)."
            )
        if weights.shape[:1] != (self.samples,):
            raise ValueError(
                f"sample_weights has shape {weights.shape}, expected one weight for each of "
                f"{self.samples} samples."
            )
        return weights.astype(np.float32)

    def _set_up(self) -> None:
        """All that is not the user's word: runs anew after unpickling."""
        self._tickets = Tickets(self.plan.batches, self._order_asked(), self._by_index())
        self._raw_spec = self._spec = self._batch_spec = None
        self._model_sample = 0
        self._failed = set()
        self._warned = self._told = False
        self._resting = False
        self._numbered = False
        self._released = 0
        self._meter = self._last_fit = None
        self._made_for = None
        self._loaded = None
        self._begin_anew()
        forks.watch(self)

    def _begin_anew(self) -> None:
        """No threads, no processes, nothing made ahead; locks that nobody holds."""
        self._engine = None
        self._pool = BufferPool()
        self._processes = None
        self._process_lock = threading.Lock()
        self._spec_lock = threading.RLock()
        self._engine_lock = threading.Lock()
        self._rest_lock = threading.RLock()

    def _forked(self) -> None:
        """In the child of os.fork: the place in the epoch stays, what threads were to do is gone."""
        if "_tickets" in self.__dict__:  # not emptied
            self._tickets.forked()
            self._begin_anew()

    def _check_order(self, shuffle: bool | None) -> None:
        """ValueError if `shuffle` is another order than the one that this loader samples in."""
        if self.sampling and shuffle not in (None, self._order_asked()):
            raise ValueError(
                f"shuffle={shuffle} asks for another order than that of a loader that samples "
                f"({self.sampling}): leave shuffle out, or take a loader without these options."
            )

    def _order_asked(self) -> bool | None:
        return True if self.sampling and self.shuffle is None else self.shuffle

    def _by_index(self) -> bool:
        return True

    def _settings(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in SequenceLoader.__annotations__}

    def __getstate__(self) -> dict[str, Any]:
        return self._settings()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=state["queue_size"])
        self.__dict__.update(state)
        self._set_up()

    # ------------------------------------------------------------------ batches

    def _index(self, index: Any) -> int:
        try:
            i = operator.index(index)
        except TypeError:
            raise TypeError(f"a loader is indexed by a batch number, got {index!r}.") from None
        if not 0 <= i < self.plan.batches:
            raise IndexError(
                f"batch {i} of {type(self).__name__}: batches are numbered from 0 to "
                f"{self.plan.batches - 1}, for i in range(len(loader))."
            )
        return i

    def _running(self) -> Engine:
        engine = self._engine
        if engine is None:
            specs = self.sample_spec, self._row_spec()
            each = max(sum(spec.nbytes for spec in flatten(form)) for form in specs)
            with self._engine_lock:
                if self._engine is None:
                    for store in self._stores():
                        store.use(self)
                    self._engine = self._make_engine(max(1, each * self.batch_size))
                engine = self._engine
        return engine

    def _engine_for(self, request: Request, released: int) -> Engine | None:
        """What makes this batch. None: closed and only looked at, or closed since it was asked.

        TensorFlow reads on for a moment when a fit has ended: that wakes no threads.
        """
        with held_off, self._rest_lock:
            if released != self._released or (self._resting and not request.sequential):
                return None
            self._resting = False
            if request.sequential:
                self._asked(request)
            return self._running()

    def _make_engine(self, batch_bytes: int) -> Engine:
        depth = min(self.queue_size, max(1, AHEAD_BYTES // batch_bytes))
        # Blocks in use: those ahead, the one being made, and what the framework still holds.
        self._pool.limit = depth * len(flatten(self.sample_spec)) + 16
        if (processes := self._process_pool()) is not None:
            processes.memory.limit = depth + 8
            # A thread for each process: it waits for its answer, and never works itself.
            return Engine(processes.count, processes.count, depth, kind="processes")
        return Engine(self.thread_count, usable_cores(), depth)

    def _process_pool(self) -> ProcessPool | None:
        """The worker processes; None where this process reads the samples itself."""
        if not self.processes or self.__dict__.get("_resting", True):
            return None
        with self._process_lock:
            if self._processes is None or not self._processes.usable:
                self._processes = ProcessPool(self, self.thread_count or usable_cores())
            return self._processes

    def _close_processes(self) -> None:
        with self._process_lock:
            processes, self._processes = self._processes, None
        if processes is not None:
            processes.close()

    def _upcoming(self, request: Request) -> Iterator[Key]:
        order, batch = request.order, request.batch
        yield from _keys(order, batch + 1, self.plan.count(order))
        shuffled = not self.plan.is_stored(order)
        another = shuffled or self._tickets.training  # storage order may be that of a predict
        if another and order.epoch != self._tickets.last_epoch:
            # The head of the next epoch is made while this one ends and validation runs.
            yield from _keys(self._order_of(order.epoch + 1, shuffled), 0, self.plan.batches)

    def _make(self, key: Key, wait: bool) -> Build | None:
        """A batch of a pass; None where it can't be begun without waiting."""
        return self._make_alone(key, wait)

    def _make_alone(self, key: Key, wait: bool) -> Build:
        """A batch whose neighbours nobody asks for."""
        order, batch = key
        if self._buckets is not None:
            padded: Build = self._buckets.build(self, order, batch)
            return padded
        indices = self.plan.indices(order, batch)
        return BatchBuild(self, indices, order.epoch, self.plan.use(order, batch), batch=batch)

    def _asked(self, request: Request) -> None:
        """A batch of a pass is asked for: a two-level loader moves on to its RAM batch."""

    def _deliver(self, sample: tuple[Any, ...], indices: Indices) -> Any:
        """Parts of a batch -> what Keras takes: weights added, padded, a lone x unwrapped."""
        weights = None if self.weights is None else self.weights[indices]
        missing = self.batch_size - len(indices)
        if self.pad_last:
            if weights is None:
                weights = np.ones(len(indices), np.float32)
            if missing > 0:
                sample = map_structure(lambda a: _padded(a, missing), sample)
                weights = np.concatenate(
                    [weights, np.zeros((missing, *weights.shape[1:]), weights.dtype)]
                )
        if self._x_is_y and len(sample) == 1:
            sample = sample * 2  # the same arrays, not copies
        if len(sample) == 1 and self.weights is not None:
            raise ValueError(
                "sample_weights= need labels beside them: Keras weights a loss, and without labels "
                "there is none. Leave them out, or give labels."
            )
        if weights is not None and len(sample) > 1:
            return sample[0], sample[1], weights
        if len(sample) == 1 and not isinstance(sample[0], tuple):
            return sample[0]
        return sample

    # ------------------------------------------------------------------ samples

    def _columns(self) -> tuple[Any, ...] | None:
        """Columns of (x,) or (x, y); None where load_sample or load_batch gives whole samples."""
        return None

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(SequenceLoader, hook)

    # ------------------------------------------------------------------ the cache

    def _begin_cache(self) -> None:
        """Put stores in front of what reads samples, as `cache` says."""
        if self.cache in (None, "auto"):
            return
        if self._columns() is not None:
            raise ValueError(
                f"cache={self.cache!r}: the samples are arrays already. preload(loader) copies a "
                "memory map into RAM; otherwise leave cache= out."
            )
        if self.cache != "ram":
            raise ValueError(
                f"cache={self.cache!r}: a folder outlives the loader, and only files tell whether "
                'a sample is still the same one. Use cache="ram", or a PathSequenceLoader.'
            )
        self._check_hook_cache()
        self._hook_cache = HookCache(
            functools.partial(leaf_store, self._cache_place(), "", self.samples, None), None
        )

    def _check_hook_cache(self) -> None:
        if self._overrides("load_batch"):
            raise ValueError(
                f"cache={self.cache!r} keeps single samples, and load_batch gives many: override "
                "load_sample instead, or leave cache= out."
            )
        if self.cache == "ram" and self.processes:
            raise ValueError(
                'cache="ram" lies in this process, and processes=True reads in others: use '
                "cache=<folder>, which processes share."
            )

    def _ram_budget(self) -> Budget:
        if self.cache_budget is not None:
            return Budget(self.cache_budget)
        return spare_ram if self.cache == "auto" else Budget(None)

    def _cache_place(self) -> Place:
        """Where the cache lies, and how large it may become."""
        if self.cache in ("auto", "ram"):
            return self._ram_budget()
        assert self.cache is not None
        return self.cache, self.cache_budget

    def _stores(self) -> list[Store]:
        """What the cache consists of."""
        hooked = [] if self._hook_cache is None else self._hook_cache.stores
        return [*stores_in(self._columns() or ()), *hooked]

    def _runs_users_code(self) -> bool:
        """Whether a sample takes a function of the user's, which may hold Python's lock."""
        hooked = self._overrides("load_sample") or self._overrides("load_batch")
        return self.transform is not None or hooked

    def _sample(self, index: int) -> tuple[Any, ...]:
        """One sample before the transform, as a tuple of parts (x,) or (x, y), fresh arrays."""
        if self._overrides("load_batch"):
            parts = self._batch_parts(np.array([index], np.int64))
            return _parts(map_structure(lambda a: np.asarray(a)[0], parts))
        columns = self._columns()
        if columns is not None:
            return _parts(map_structure(lambda column: column.read(index), columns))

        def load() -> tuple[Any, ...]:
            return self._cast(_parts(_arrays(self.load_sample(index))))

        cache = self._hook_cache
        kept: tuple[Any, ...] = load() if cache is None else cache.remember(index, load)
        return kept

    def _batch_parts(self, indices: Indices) -> tuple[Any, ...]:
        """What the load_batch hook gives, as parts."""
        return self._cast(_parts(_arrays(self.load_batch(indices))))

    def _cast(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """Parts from a hook, with x in the dtype asked for."""
        if self.dtype is None:
            return parts
        return map_structure(lambda a: a.astype(self.dtype, copy=False), parts[0]), *parts[1:]

    def _transformed(self, index: int, sample: tuple[Any, ...], epoch: int, draw: Draw) -> Any:
        assert self.transform is not None
        assert isinstance(draw, int)
        x, y = sample[0], sample[1] if len(sample) > 1 else None
        if self._x_is_y:
            y = x
        return _pair(self.transform(x, y, sample_rng(self.seed, epoch, index, draw)), "transform")

    def _batch_transformed(self, parts: tuple[Any, ...], epoch: int, batch: int) -> Any:
        """What batch_transform makes of the parts of a batch; as many rows."""
        assert self.batch_transform is not None
        x, y = parts[0], parts[1] if len(parts) > 1 else None
        if self._x_is_y:
            y = x
        rng = batch_rng(self.seed, epoch, batch, self.shard[0])
        rows = len(flatten(x)[0])
        try:
            got = self.batch_transform(x, y, rng)
        except Exception as error:  # whatever a user's function raises
            raise RuntimeError(
                f"batch_transform failed on batch {batch} of epoch {epoch}, of {rows} samples: "
                f"{type(error).__name__}: {error}"
            ) from error
        made = _pair(got, "batch_transform")
        for name, part in zip("xy", made, strict=False):
            for leaf_name, leaf in zip(names_of(part, name), flatten(part), strict=True):
                if leaf.shape[:1] != (rows,):
                    raise ValueError(
                        f"batch_transform gave {leaf_name} of shape {leaf.shape} for a batch of "
                        f"{rows} samples, expected {rows} rows: weights and rows of predict go by "
                        "row. Take the number of rows from len(x); the last batch may be shorter."
                    )
        return made

    def _fill(
        self,
        indices: Indices,
        out: list[np.ndarray[Any, Any]],
        epoch: int,
        draw: Draw,
        raw: bool,
        report: Report,
    ) -> None:
        """Row r of the arrays `out` becomes sample indices[r]; what fails is reported.

        Runs in several threads at once, each with rows of its own.
        """
        if self.transform is not None and not raw:
            for row, (index, read) in enumerate(self._readers(indices)):
                try:
                    sample = self._transformed(index, read(), epoch, part_of(draw, row))
                    self._place(sample, self.sample_spec, out, row, report)
                except Exception as error:  # whatever a user's function raises
                    report(row, error)
        else:
            self._fill_stored(indices, out, report)

    def _fill_stored(
        self, indices: Indices, out: list[np.ndarray[Any, Any]], report: Report
    ) -> None:
        """`_fill` with samples as they are stored."""
        if self._overrides("load_batch"):
            self._fill_by_batch(indices, out, report)
        elif (columns := self._columns()) is not None:
            for leaf, column in enumerate(flatten(columns)):
                column.fill(indices, out[leaf], leaf, report)
        else:
            for row, index in enumerate(indices.tolist()):
                try:
                    self._place(self._sample(index), self.raw_spec, out, row, report)
                except Exception as error:
                    report(row, error)

    def _at_once(self) -> bool:
        """Whether `_fill_stored` is quicker for many samples than one by one."""
        return False

    def _readers(self, indices: Indices) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        """For each sample its number, and a function that gives it as it is stored."""
        parts: tuple[Any, ...] | None = None
        if self._overrides("load_batch"):
            with contextlib.suppress(Exception):  # read one by one, to find the sample at fault
                parts = self._batch_parts(indices)
        for row, index in enumerate(indices.tolist()):
            if parts is None:
                yield index, functools.partial(self._sample, index)
            else:
                yield index, functools.partial(map_structure, operator.itemgetter(row), parts)

    def _fill_by_batch(
        self, indices: Indices, out: list[np.ndarray[Any, Any]], report: Report
    ) -> None:
        try:
            parts = self._batch_parts(indices)
        except Exception as error:
            if len(indices) == 1:
                report(0, error)
                return
            for row in range(len(indices)):
                self._fill_by_batch(
                    indices[row : row + 1],
                    [leaf[row : row + 1] for leaf in out],
                    functools.partial(report_at, report, row),
                )
            return
        leaves = flatten(parts)
        for leaf, rows in enumerate(leaves):
            if len(rows) != len(indices):
                raise ValueError(
                    f"load_batch({len(indices)} indices) gave an array of {len(rows)} rows, "
                    "expected one row for each index, in their order."
                )
            if rows.shape[1:] == out[leaf].shape[1:] and rows.dtype == out[leaf].dtype:
                out[leaf][...] = rows
            else:
                for row in range(len(rows)):
                    place(rows[row], out[leaf], row, leaf, report)

    def _place(
        self,
        sample: tuple[Any, ...],
        form: Structure,
        out: list[np.ndarray[Any, Any]],
        row: int,
        report: Report,
    ) -> None:
        if not same_structure(sample, form):
            raise TypeError(
                "this sample's x and y nest otherwise than the first sample's: return the same "
                "tuples and dicts for every sample."
            )
        for leaf, value in enumerate(flatten(sample)):
            place(value, out[leaf], row, leaf, report)

    def _look(self, index: int, raw: bool) -> Structure:
        """Specs of one sample, as it is stored (raw) or as it is delivered."""
        processes = self._process_pool()
        if processes is not None:
            return processes.look(self, index, raw)
        sample = self._sample(index)
        return spec_of(sample if raw else self._transformed(index, sample, 0, 0))

    def _first(self, look: Callable[[int], Structure]) -> Structure:
        """`look` at the first sample that loads."""
        failure: SampleError | None = None
        for index in range(min(self.samples, _FIRST_TRIES)):
            try:
                found = look(index)
            except Exception as error:
                failure = explain(index, self._name(index), error)
                if self.on_error == "raise":
                    self._record(failure)
                    raise failure from error
            else:
                self._model_sample = index
                return found
        assert failure is not None
        tried = min(self.samples, _FIRST_TRIES)
        raise SampleError(
            failure.index, failure.name, f"{failure.cause} (nor did the {tried - 1} before it)"
        ) from failure

    def _record(self, error: SampleError) -> None:
        """Take down a sample that does not load: once, however often it is met."""
        kept = noted(error, self.on_error)
        with self._spec_lock:
            known = error.index in self._failed
            if not known:
                self._failed.add(error.index)
                self.errors.append(kept)
                count = len(self.errors)
        if not known:
            if self.quarantine is not None and is_its_own(error):
                self._write_down(error)
            if self.on_error != "raise" and (count <= _TOLD or count in _MILESTONES):
                self._tell(error, count)
        if self.on_error != "raise":
            # Met again, too: a batch made ahead that failed is made once more for who asks.
            where = None if self.quarantine is None else self.quarantine.path
            check_limit(self.errors, self.max_errors, self.samples, where)

    def _write_down(self, error: SampleError) -> None:
        assert self.quarantine is not None
        try:
            self.quarantine.add([(error.name, error.cause)])
        except (OSError, ValueError) as problem:  # the night is not to end for it
            say(
                f"{self.quarantine.path} cannot be written ({problem}): bad samples are listed in "
                "loader.errors only.",
                once=f"quarantine {self.quarantine.path}",
            )

    def _tell(self, error: SampleError, count: int) -> None:
        done = "replaced" if self.on_error == "replace" else "skipped"
        more = ""
        if count == 1 and self.on_error == "skip":
            more = (
                ", and its batch is one sample shorter: rows of predict() behind it do not line up "
                'with the data; on_error="replace" keeps them in place'
            )
        elif count == _TOLD:
            more = "; of others only each tenfold is told, and all are in loader.errors"
        elif count > _TOLD:
            more = f", the {count:,}th of {self.samples:,} samples that does not load"
        say(f"{str(error).rstrip('.')}. It is {done}{more}.")

    def _name(self, index: int) -> str:
        """What a person would call this sample."""
        columns = self._columns()
        if columns is None:
            return f"index {index}"
        column: Column = flatten(columns)[0]
        return column.name(index)

    def _advice(self, index: int, leaf: int, dtype_differs: bool, raw: bool) -> str:
        """What to do about array `leaf` of sample `index`, whose dtype or shape is another."""
        if self.transform is not None and not raw:
            return "Let transform= return arrays of one shape and dtype for all samples."
        if leaf >= len(flatten(self.raw_spec[0])):
            return "Give labels of one shape and dtype, padded where they differ."
        return self._shape_advice(index, dtype_differs)

    def _shape_advice(self, index: int, dtype_differs: bool) -> str:
        """What to do about the input of a sample, which differs from others in dtype or shape."""
        if dtype_differs:
            return "Pass dtype=, or convert in the hook."
        return "Bring them to one shape in the hook or in transform=, or use batch_size=1."


_NO_MULTIPROCESSING = (
    "use_multiprocessing=True is Keras' process pool, which repeats and loses batches on some "
    "backends and is rebuilt every epoch. This loader has its own threads (workers=, on by "
    "default) and processes: leave use_multiprocessing out, or pass processes=True instead."
)


_INTERRUPTED = (
    "this loader was evaluated or predicted from in the middle of a pass that fit trains on, and the "
    "rest of that pass cannot be told from a new one: samples may come twice in this epoch. Give "
    "fit LoaderCallback(loader), or evaluate loader.view()."
)


_NO_COMMON_ORDER = (
    "a loader with shard= is asked for its batches in a random order, which is another one in each "
    "process: pass shuffle=True to the loader, or call fit(shuffle=False)."
)


def _key(order: Order, batch: int) -> Key:
    # In the head of an order, batches are those of storage order: one name for one batch.
    return (_in_storage_order(order), batch) if batch < order.head else (order, batch)


def _keys(order: Order, start: int, stop: int) -> Iterator[Key]:
    """`_key` of batches start to stop."""
    others = range(max(start, order.head), stop)
    keys = zip(itertools.repeat(order), others, strict=False)
    if start >= order.head:
        return keys
    stored = itertools.repeat(_in_storage_order(order))
    return itertools.chain(zip(stored, range(start, min(stop, order.head)), strict=False), keys)


@functools.lru_cache(maxsize=16)
def _in_storage_order(order: Order) -> Order:
    return order._replace(head=_STORAGE)


# So many requests in order are a predict, or a loop: a shuffled fit begins so once in 24 times.
_IN_ORDER = 4

# More batches than any loader has: the order of an epoch that is never shuffled.
_STORAGE = 2**62


def _padded(rows: np.ndarray[Any, Any], missing: int) -> np.ndarray[Any, Any]:
    return np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])


def report_at(report: Report, row: int, _: int, error: Exception) -> None:
    """What goes wrong with the only row of a part, told as row `row` of the whole."""
    if isinstance(error, Odd):
        error.row = row
    report(row, error)


def _parts(value: Any) -> tuple[Any, ...]:
    """x, (x,), or (x, y) -> a tuple of parts."""
    if not isinstance(value, tuple):
        return (value,)
    if len(value) not in (1, 2):
        raise TypeError(
            f"a sample is a tuple of {len(value)} parts, expected x or (x, y). Weights go into "
            "sample_weights=; several inputs into a tuple or dict: ((x1, x2), y)."
        )
    return value


def _pair(got: Any, what: str) -> tuple[Any, ...]:
    """What a transform returned, as parts of native arrays; `what` is what it is called."""
    if not isinstance(got, tuple) or len(got) != 2:
        many = f" of {len(got)}" if isinstance(got, tuple) else ""
        raise TypeError(
            f"{what} returned a {type(got).__name__}{many}, expected a tuple (x, y); y is "
            "None where there are no labels."
        )
    return _parts(_arrays(got if got[1] is not None else (got[0],)))


def _arrays(value: Any) -> Any:
    """Every leaf as a native numeric array."""

    def leaf(v: Any) -> np.ndarray[Any, Any]:
        try:
            a = np.asarray(v)
        except ValueError:  # a ragged list
            raise TypeError(
                f"got a list of {len(v)} that is no array, expected numbers: return a tuple (x, y) "
                "for an input and its label, not a list."
            ) from None
        if a.dtype.kind not in "biufc":
            raise TypeError(
                f"got {a.dtype} ({str(v)[:60]!r}), expected numbers: a batch holds numeric arrays."
            )
        if a.dtype == np.float64 and isinstance(v, (float, list)):
            return a.astype(np.float32)  # Python's floats carry no choice of precision
        return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))

    return map_structure(leaf, value)


def check_names(owner: Any, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """TypeError for an option that a loader does not have, with the one that may be meant."""
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.5)
            meant = f"did you mean {close[0]}=?" if close else f"it has {', '.join(known)}."
            raise TypeError(f"{type(owner).__name__} has no option {name}=: {meant}")


def check_loader(value: Any, what: str) -> None:
    """TypeError if `value` is no loader; `what` is who got it."""
    if not isinstance(value, SequenceLoader):
        raise TypeError(
            f"{what}({type(value).__name__}): expected a loader made by kloaders, such as "
            "PathSequenceLoader(paths, labels)."
        )


def _count(value: Any, name: str, least: int) -> int:
    example = f", as in {name}={_EXAMPLES[name]}" if name in _EXAMPLES else ""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r} is {type(value).__name__}, expected an integer of at least {least}"
            f"{example}."
        ) from None
    if number < least:
        raise ValueError(f"{name}={number} is too small, expected at least {least}{example}.")
    return number


_EXAMPLES = {"batch_size": 32, "seed": 7, "workers": 2, "ram_batch_size": 4096, "echo": 2}


def _cache(cache: Any) -> str | None:
    if cache is None or isinstance(cache, str):
        return cache
    if isinstance(cache, os.PathLike):
        return str(os.fspath(cache))
    raise TypeError(f'cache={cache!r}: choose "auto", "ram", a folder, or None for no cache.')


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}={value!r}: choose True or False.")


def _tristate(shuffle: Any) -> bool | None:
    if shuffle is None or isinstance(shuffle, (bool, np.bool_)):
        return None if shuffle is None else bool(shuffle)
    raise TypeError(
        f"shuffle={shuffle!r}: choose None (do what Keras asks), True (always shuffled) or False "
        "(storage order)."
    )


def _shard(shard: Any) -> tuple[int, int]:
    if shard is None:
        return 0, 1
    try:
        k, n = (operator.index(v) for v in shard)
    except (TypeError, ValueError):
        raise TypeError(f"shard={shard!r}, expected (k, n): this is part k of n.") from None
    if not 0 <= k < n:
        raise ValueError(f"shard={shard!r}: k counts from 0 to n - 1, so that 0 <= k < n.")
    return k, n


def _columns_checked(
    owner: Any, x: Structure, y: Structure | None, names: tuple[str, str]
) -> tuple[tuple[Any, ...], int]:
    """Columns of both parts, and their common length. names: what the user calls x and y."""
    lengths: dict[str, int] = {}
    for part, name in ((x, names[0]), (y, names[1])):
        if part is None:
            continue
        leaves = names_of(part, name)
        if not leaves:
            raise ValueError(
                f"{name} is an empty {type(part).__name__}, expected at least one array or list."
            )
        lengths |= dict(zip(leaves, map(len, flatten(part)), strict=True))
    samples = next(iter(lengths.values()))
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in itertools.islice(lengths.items(), 4))
        many = len(lengths) > 4
        raise ValueError(
            f"lengths differ: {said}{f' and so on, {len(lengths)} in all' if many else ''}. Every "
            "sample needs one value in each. A tuple means several inputs or outputs: if yours "
            "has one row a sample, pass list(...) of it."
        )
    if samples == 0:
        raise ValueError(_no_samples(owner, f"print len({names[0]}), or the pattern that found it"))
    return ((x,) if y is None else (x, y)), samples


def _no_samples(owner: Any, advice: str) -> str:
    return f"{type(owner).__name__} got no samples: {advice}, and check where the data lie."


def _check_transform(transform: Transform | None, name: str) -> None:
    if transform is None:
        return
    form = f"expected a function {name}(x, y, rng) that returns (x, y)."
    if not callable(transform):
        raise TypeError(f"{name}={transform!r} is no function, {form}")
    try:
        signature = inspect.signature(transform)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return
    try:
        signature.bind(0, 0, 0)
    except TypeError:
        raise TypeError(f"{name}={transform!r} takes {signature}, {form}") from None
