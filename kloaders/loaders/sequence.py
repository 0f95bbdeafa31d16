"""The base of all loaders: a source, a plan, what makes batches ahead, and Keras' Sequence interface."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import Transform, checked_count, checked_dtype, no_samples
from kloaders.core.errors import SampleError
from kloaders.core.messages import say
from kloaders.core.options import NO_MULTIPROCESSING, Options, shows_options
from kloaders.core.structure import Structure
from kloaders.diagnostics import summary
from kloaders.engine.processes.pickling import check_sendable
from kloaders.engine.runner import Runner
from kloaders.keras_api import base, distributed, retained_loaders, tf_iterators
from kloaders.keras_api.tickets import Position, Request
from kloaders.loaders.assembly import runner_of, stream_of
from kloaders.loaders.options import LoaderOptions
from kloaders.loaders.position import PositionKeeper, seed_in
from kloaders.loaders.settings import refuse_setting
from kloaders.plan.epoch import EpochPlan
from kloaders.plan.sampling import Sampling
from kloaders.sources.cache.policy import cached_in_ram
from kloaders.sources.hooks import HookSource, NamedSource, default_hook, overrides
from kloaders.sources.quarantine import Quarantine
from kloaders.sources.source import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self, Unpack

    from kloaders.diagnostics.explain.explanation import Explanation

__all__ = ["SequenceLoader", "check_loader"]


class SequenceLoader(base.Sequence):
    """Batches of numbered samples for Keras' `fit`, `evaluate` and `predict`.

    Subclass it for a source of your own and override one hook, `load_sample(index)` or
    `load_batch(indices)`; for one file a sample, `PathSequenceLoader` has done the rest already.

    Args:
        samples: how many samples there are, or a `Source` of them.
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
        cache_key: a text that you change whenever what your own functions make changes, such as
            "v2", for a cache in a folder: needed where a function holds something whose content
            cannot be compared.
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

    #: What was chosen, in groups; of these the attributes below are parts.
    options: LoaderOptions
    samples: int
    batch_size: int
    shuffle: bool | None
    seed: int
    drop_last: bool
    pad_last: bool
    shard: tuple[int, int]
    sampling: Sampling
    weights: Array | None
    transform: Transform | None
    batch_transform: Transform | None
    dtype: Any
    thread_count: int | None
    processes: bool
    queue_size: int
    on_error: str
    max_errors: int | float | None
    cache: str | None
    cache_budget: int | None
    cache_key: str | None
    #: Samples that did not load, one SampleError each, in the order in which they were met.
    errors: list[SampleError]
    quarantine: Quarantine | None
    #: Which sample comes when.
    plan: EpochPlan
    #: What makes the batches; for kloaders' own modules.
    runner: Runner
    #: What label k is called, where the labels are classes with names; the user may set it.
    class_names: list[str] | None
    _source: Source
    _position: PositionKeeper
    _warned: bool
    _told: bool
    _numbered: bool

    @shows_options(Options)
    def __init__(
        self, samples: int | Source, batch_size: int = 32, **options: Unpack[Options]
    ) -> None:
        self._begin(samples, batch_size, options)

    def _begin(self, samples: int | Source, batch_size: int, given: Any, **more: Any) -> None:
        """Set up, with options as a user gave them; more: other fields of `LoaderOptions`."""
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=10)
        source = self._sourced(samples, given.get("dtype"))
        if len(source) == 0:
            raise ValueError(no_samples(type(self).__name__, "print what counts them"))
        chosen = LoaderOptions.of(source, batch_size, given, **more)
        self.class_names = None
        distributed.check_settings(chosen.order)
        source = self._cached(source, chosen)
        self._install(source, chosen)
        if chosen.work.processes:
            check_sendable(self.runner.pipeline)

    def _install(self, source: Source, options: LoaderOptions) -> None:
        """Set up what runs, anew: nothing is made ahead, and the next epoch is number 0."""
        source = source.with_seed(options.order.number)
        runner = runner_of(source, options, type(self).__name__)
        fresh = {
            "_source": source,
            "options": options,
            "runner": runner,
            "_position": PositionKeeper(runner, options),
            "_warned": False,
            "_told": False,
            "_numbered": False,
        }
        for name, value in fresh.items():
            super().__setattr__(name, value)

    # ------------------------------------------------------------------ hooks

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One sample: x, or a tuple (x, y). Override this or `load_batch`.

        Called from several threads at once, in any order; `index` is the sample's number in
        storage order. x and y are arrays or numbers, or tuples or dicts of them, of one shape
        and dtype for all samples of a batch: two inputs and a label are ((a, b), y). Whatever is
        raised becomes a SampleError that names the sample, or is dealt with as `on_error` says.
        """
        raise TypeError(
            f"{type(self).__name__} has no samples to read: override load_sample(index) to return "
            "x or (x, y), or load_batch(indices) to return a whole batch."
        )

    @default_hook
    def load_batch(self, indices: Indices) -> Any:
        """Several samples at once: x, or (x, y), each with one row for each of `indices`.

        Override it for formats that read many samples in one go. Called from several threads at
        once; `indices` is an int64 array in the order of delivery, not sorted. It may be a part
        of a batch. If it raises, it is called again sample by sample to find the one at fault.
        """
        raise AssertionError("only an override is called")

    @default_hook
    def sample_name(self, index: int) -> str:
        """What errors, the quarantine and `verify` call a sample. Override it for names of your own.

        By default a file's path, a record's place in its file, or the number. Called from several
        threads at once; must not fail.
        """
        return self._source.name(index)

    @property
    def source(self) -> Source:
        """What this loader's samples are read from."""
        return self._source.held()

    def _sourced(self, samples: int | Source, dtype: Any) -> Source:
        """The source of the samples: what was given, with the hooks of this class in front."""
        given = samples if isinstance(samples, Source) else None
        kind = type(self)
        by_batch = overrides(kind, "load_batch")
        if by_batch or given is None or overrides(kind, "load_sample"):
            count = len(given) if given is not None else checked_count(samples, "samples", 0)
            given = HookSource(self, count, checked_dtype(dtype), by_batch=by_batch, base=given)
        return NamedSource(given, self) if overrides(kind, "sample_name") else given

    def _cached(self, source: Source, options: LoaderOptions) -> Source:
        """The source with a cache in front, as `cache` says."""
        return cached_in_ram(source, options.cache, options.work)

    # ------------------------------------------------------------------ Keras' interface

    def __len__(self) -> int:
        """Batches per epoch; in one that goes on after `load_state_dict`, those that are left."""
        return self.runner.tickets.length()

    def __iter__(self) -> Iterator[Any]:
        """The batches, one after another, as by their index."""
        return (self[k] for k in range(len(self)))

    @property
    def num_batches(self) -> int:
        """Batches per epoch. Keras reads this when it begins a pass; use `len(loader)`."""
        distributed.check_pass(self)
        self.runner.resting = False
        self._numbered = True
        return self.runner.tickets.starting()

    def __getitem__(self, index: int) -> Any:
        """One batch: x, (x, y) or (x, y, sample_weights).

        Between `on_epoch_begin` and `on_epoch_end` the index is a ticket: each new one gets the
        next batch of this loader's order. Outside, it is batch `index` of the coming epoch.
        The arrays are the caller's: nobody writes to them again.

        Raises:
            IndexError: `index` is not in 0 ... len(loader) - 1.
            SampleError: a sample does not load (on_error="raise").
            ValueError: samples of one batch differ in shape or dtype; both are named. Or a loader
                with a shard and shuffle=None is asked for batches in a random order.
        """
        runner = self.runner
        released = runner.released
        looked = self._numbered and index == 0
        if self._numbered:
            self._numbered = False
        if type(index) is not int or not 0 <= index < runner.plan.batches:
            index = self._index(index)
        request = runner.tickets.locate(index)
        self._warn(request)
        if looked and not request.sequential and (wider := runner.wider()) is not None:
            return wider
        return runner.batch(request, released)

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

    def _warn(self, request: Request) -> None:
        """Say what is wrong about the order in which batches are asked for."""
        tickets, options = self.runner.tickets, self.options
        stored = self.plan.is_stored(request.order)
        if options.order.part[1] > 1 and options.effective_shuffle is None and not stored:
            raise ValueError(_NO_COMMON_ORDER)
        if tickets.permuted and not self._warned:
            self._warned = True
            say(
                f"{type(self).__name__}(shuffle=False) is asked for its batches in a random order: "
                "fit() permutes them unless it is called with shuffle=False. Batches come as they "
                "are asked for, without look-ahead. shuffle=None shuffles samples instead."
            )
        inside = tickets.in_order == _IN_ORDER and not self._warned
        if inside and self.sampling and options.order.shuffle is None:
            self._warned = True
            say(
                f"this loader samples ({self.sampling}) and is asked for its batches in order, as "
                "predict and evaluate do: rows do not line up with the data. Predict from a loader "
                "without these options; shuffle=True says that the order is meant."
            )
        if tickets.interrupted and not self._told:
            self._told = True
            say(_INTERRUPTED)

    def on_epoch_begin(self) -> None:
        """Keras calls this before each epoch; call it in a hand-written loop. Overrides call super."""
        self.runner.resting = False
        self.runner.tickets.begin()

    def on_epoch_end(self) -> None:
        """Keras calls this after each epoch; call it in a hand-written loop. Overrides call super."""
        if self.runner.tickets.asked_for_all() and base.keeps_adapters():
            tf_iterators.free_beside()
        self.runner.tickets.end()

    @property
    def workers(self) -> int:
        """1: what Keras gets, since this loader's own threads do the work (`thread_count`)."""
        retained_loaders.note_adapter(self, _drop_contents)
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
            raise ValueError(NO_MULTIPROCESSING)

    @property
    def max_queue_size(self) -> int:
        """The maximum number of prefetched batches."""
        return self.queue_size

    @max_queue_size.setter
    def max_queue_size(self, value: Any) -> None:
        work = dataclasses.replace(self.options.work, max_queue_size=value)
        super().__setattr__("options", dataclasses.replace(self.options, work=work))
        self.runner.work = work
        self.close()

    # ------------------------------------------------------------------ for users

    @property
    def raw_spec(self) -> Structure:
        """ArraySpec of each array of a sample before the transform; reads one sample at first."""
        return self.runner.specs.raw

    @property
    def sample_spec(self) -> Structure:
        """ArraySpec of each array of a sample as it is delivered, as a tuple (x,) or (x, y)."""
        return self.runner.specs.delivered

    def delivered_spec(self) -> Structure:
        """`sample_spec`, with None for the dimensions in which samples are known to differ.

        Known are the samples of a list of arrays; others are taken to be like the first one. With
        a batch_transform, the spec of a row of what it gives.
        """
        return self.runner.delivered_spec

    @property
    def has_weights(self) -> bool:
        """Whether batches have a third part, sample weights; without labels they have none."""
        return self.runner.delivery.has_weights(len(self.runner.row_spec))

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
        return self._position.state(epoch, batch)

    @property
    def position(self) -> Position | None:
        """Where the state that was loaded last goes on; None if none was."""
        return self._position.loaded

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
        runner, options, keeper = self.runner, self.options, self._position
        before = runner.pipeline, runner.plan
        seed = seed_in(state)
        if options.order.seed_drawn and seed is not None and seed != self.seed:
            order = dataclasses.replace(options.order, seed=seed)
            options = dataclasses.replace(options, order=order)
            runner.reseed(seed, stream_of(options, self.samples))
            keeper = PositionKeeper(runner, options)
        try:
            position = keeper.load(state, f"this {type(self).__name__}")
        except Exception:
            runner.pipeline, runner.plan = before
            raise
        super().__setattr__("options", options)
        super().__setattr__("_position", keeper)
        runner.tickets.resume_at(position)
        runner.release()

    def epoch_batches(self, epoch: int = 0, shuffle: bool | None = None) -> Iterator[Any]:
        """All batches of one epoch, whatever Keras is doing with this loader.

        Args:
            epoch: which; shuffled orders and random numbers differ from epoch to epoch.
            shuffle: None uses the loader's setting, and storage order if that is None too. A
                loader that samples has one order only.

        Raises:
            ValueError: the loader samples, and `shuffle` is not its own.
        """
        return self.runner.batches(self.runner.order_of(epoch, self.order_for(shuffle)), 0)

    def order_for(self, shuffle: bool | None) -> bool | None:
        """Whether to shuffle, where somebody asks for `shuffle`; None uses the loader's setting.

        Raises:
            ValueError: the loader samples, and this is another order.
        """
        own = self.options.effective_shuffle
        if self.sampling and shuffle not in (None, own):
            raise ValueError(
                f"shuffle={shuffle} asks for another order than that of a loader that samples "
                f"({self.sampling}): leave shuffle out, or take a loader without these options."
            )
        return own if shuffle is None else shuffle

    def close(self) -> None:
        """Free threads, files, batches made ahead and the cache in RAM.

        The loader can be used again: they come back.
        """
        self.runner.close()

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
        return self.replace()

    def replace(self, source: Source | None = None, **changes: Any) -> Self:
        """A loader like this one over other samples, or with other options.

        Args:
            source: the samples; None: those of this loader, read by its hooks.
            **changes: fields of `options`.
        """
        return self.like(source, dataclasses.replace(self.options, **changes))

    def like(self, source: Source | None, options: LoaderOptions) -> Self:
        """`replace`, with all options."""
        new = type(self).__new__(type(self))
        read = self._source.rebound(self, new) if source is None else source
        new.__setstate__({**self.__getstate__(), "options": options, "_source": read})
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
        from kloaders.diagnostics.explain.run import explain

        return explain(self, model, check=check, seconds=seconds)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.samples:,} samples, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle}, seed={self.seed})"
        )

    # ------------------------------------------------------------------ attributes and pickling

    def __setattr__(self, name: str, value: Any) -> None:
        # Batches already follow from these: a new value would show, and change nothing.
        if "runner" in self.__dict__ and name not in _FREE:
            refuse_setting(self, name, value)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if "runner" not in self.__dict__:
            if name.startswith("__") or name not in _SET_UP:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AttributeError(
                f"{type(self).__name__} is not set up: its __init__ must call "
                "super().__init__(samples, batch_size) before anything else is done with it."
            )
        options = self.options.flat
        if name in options:
            return options[name]
        if name == "samples":
            return len(self._source)
        if name == "plan":
            return self.runner.plan
        if name in ("errors", "quarantine"):
            return getattr(self.runner.log, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _RUNTIME}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=10)
        self.__dict__.update(state)
        self._install(state["_source"].rebound(self, self), state["options"])


def check_loader(value: Any, what: str) -> None:
    """TypeError if `value` is no loader; `what` is who got it."""
    if not isinstance(value, SequenceLoader):
        raise TypeError(
            f"{what}({type(value).__name__}): expected a loader made by kloaders, such as "
            "PathSequenceLoader(paths, labels)."
        )


def _drop_contents(loader: SequenceLoader) -> None:
    """Nobody can reach this loader any more, yet TensorFlow keeps it: let go of the rest."""
    loader.close()
    if not hasattr(type(loader), "__del__"):  # which would miss what is gone
        vars(loader).clear()


# What belongs to this process and this epoch: neither pickled nor shared by views.
_RUNTIME = ("runner", "_position", "_warned", "_told", "_numbered")
_SET_UP = ("runner", "options", "plan", "shard", "samples", "_source", "_position")
# What may be set on a loader that is set up.
_FREE = ("class_names", "max_queue_size", "workers", "use_multiprocessing")

_INTERRUPTED = (
    "this loader was evaluated or predicted from in the middle of a pass that fit trains on, and the "
    "rest of that pass cannot be told from a new one: samples may come twice in this epoch. Give "
    "fit LoaderCallback(loader), or evaluate loader.view()."
)


_NO_COMMON_ORDER = (
    "a loader with shard= is asked for its batches in a random order, which is another one in each "
    "process: pass shuffle=True to the loader, or call fit(shuffle=False)."
)

# So many requests in order are a predict, or a loop: a shuffled fit begins so once in 24 times.
_IN_ORDER = 4
