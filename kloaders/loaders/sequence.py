"""The base class of all loaders: a source, a plan, a prefetcher, and Keras' Sequence interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import Transform, check_names, checked_count, no_samples
from kloaders.core.errors import SampleError
from kloaders.core.options import Options, shows_options
from kloaders.core.ray import Ray
from kloaders.core.structure import Structure
from kloaders.engine.processes.pickling import check_sendable
from kloaders.engine.requests import Requests
from kloaders.engine.runner import Runner
from kloaders.keras_api import base, distributed, retained_loaders, tf_iterators
from kloaders.keras_api.iteration import iterate
from kloaders.loaders.assembly import runner_of, source_of
from kloaders.loaders.changes import changed_by, follow
from kloaders.loaders.options import LoaderOptions
from kloaders.loaders.position import PositionKeeper
from kloaders.loaders.reports import Reports
from kloaders.loaders.settings import check_own_batches, drop_contents, refuse_setting, setting_of
from kloaders.plan.epoch import EpochPlan
from kloaders.plan.sampling import Sampling
from kloaders.sources.cache.policy import cached_in_ram
from kloaders.sources.cast import CastSource
from kloaders.sources.hooks import HookSource, NamedSource, default_hook, overrides
from kloaders.sources.remote_quarantine import AnyQuarantine
from kloaders.sources.source import Source
from kloaders.sources.weights import weights_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["SequenceLoader"]


class SequenceLoader(Reports, base.Sequence):
    """Batches of numbered samples for Keras' `fit`, `evaluate` and `predict`.

    Subclass it for your own data and override one hook, `load_sample(index)` or
    `load_batch(indices)`; for one file per sample, start from `PathSequenceLoader`.

    Args:
        samples: the number of samples, or a `Source` of them.
        batch_size: samples per batch.
        shuffle: None does what Keras asks: `fit` shuffles samples (unless called with
            shuffle=False); `evaluate`, `predict` and `loader[i]` get storage order, so that
            predictions line up with the data. True: a new order every epoch, in `predict` too.
            False: index i is always batch i of storage order.
        seed: fixes the order and all random numbers; None draws one from NumPy's global
            generator, which `keras.utils.set_random_seed` sets.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        pad_last: pad that batch instead with samples of weight 0, for backends that need one
            batch size. `predict` also returns rows for the padding.
        with_ids: lets `LoaderCallback` report the loss of each sample by name, to find hard files.
        shard: (k, n): deliver part k of n. Together, batch by batch, n loaders deliver what one
            with batch_size * n would. Pass the same `seed` to all, and shuffle=True to shuffle.
            "auto" takes k and n from keras.distribution, torch, JAX, Ray Train or SLURM.
        sample_weights: loss weights, delivered as the third part of a batch: one number per sample,
            or anything that labels can be, such as an array with a weight for each pixel, files of
            such arrays, or a tuple or dict for several outputs. Weights that hooks and transforms
            return as a third part, and those of class_weight, are multiplied with these.
        class_weight: a weight for each class, {0: 1.0, 1: 9.0}, for integer or one-hot labels, or for
            each pixel of masks; "balanced" gives all classes the same total weight; a dict or tuple
            of these for several outputs. For training only: the validation part of a split has none.
        epoch_batches: batches per epoch, whatever the number of samples: the next epoch continues
            where this one ended, so that every sample is used once before any is repeated.
        class_balance: True puts the same number of samples of each class (plus or minus one) into
            every batch; if labels are unknown before reading, pass an array with each sample's class.
        sampling_weights: one number per sample: how often it is drawn, relative to the others.
        replacement: draw with replacement: each position independently, by sampling_weights.
        preprocess: `preprocess(x, y, rng)` -> `(x, y)`, applied to each sample as part of the data:
            for training, validation and `predict`, and before caches and packs. `rng` depends on
            the sample only.
        transform: like preprocess and after it, but for training only; y is None without labels.
            `rng` depends on seed, epoch and sample only. Called from several threads. It may take
            `w`, the weights, and `epoch`, by these names, and return `(x, y, w)`.
        batch_transform: the same for a whole batch, before padding and weights that it does not take
            are added. It must return as many rows as it gets; the last batch may be smaller.
        dtype: dtype of x, or of all arrays in it, converted before these functions are called;
            {"x": "float32", "y": "int32"} converts labels too. None keeps the stored dtype.
        workers: number of prefetching threads. None: automatic; 0: load in the caller's thread.
        processes: read and transform in `workers` processes, for functions that hold the GIL, or in
            actors of a cluster: `Ray(cpus=32)`. Lambdas and notebook functions need cloudpickle.
        max_queue_size: the maximum number of prefetched batches; fewer are prefetched if they are
            large (256 MiB), or if they are cheap and workers= is None.
        use_multiprocessing: Keras' own option; rejected, see `processes`.
        on_error: what to do with a sample that does not load: "raise" a SampleError that names
            it, "skip" it, or "replace" it by another sample, chosen by the seed. `errors` lists
            the samples that did not load.
        max_errors: the maximum number to skip or replace: a count, 100, or a share, 0.01; None: any.
        quarantine: a CSV file or its URL, to which each sample that does not load is added;
            `exclude=` of loaders over files leaves out the samples that it lists.
        cache: where samples are cached when they are first read, before the transform. "auto": in
            free RAM, for files decoded by suffix and for images in records. "ram" or True: in RAM,
            for every kind of source. A folder: on disk, for later runs too. None, False: no cache.
        cache_budget: the maximum size of the cache in bytes, such as 10**9 or "1GB".
        cache_key: a string such as "v2"; change it when your functions return other samples. Needed
            for a cache in a folder if a function uses something that cannot be compared.

    Raises:
        ValueError, TypeError: an option is out of range.

    Threads: several threads may call `loader[i]` at once. The page "Options" lists all options.

    >>> import numpy as np
    >>> class Squares(SequenceLoader):
    ...     def load_sample(self, index):
    ...         return np.float32(index), np.float32(index**2)
    >>> Squares(10, batch_size=4)[1][1]
    array([16., 25., 36., 49.], dtype=float32)
    """

    #: All options, in groups; most attributes below are parts of them.
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
    processes: bool | Ray
    queue_size: int
    on_error: str
    max_errors: int | float | None
    cache: str | None
    cache_budget: int | None
    cache_key: str | None
    #: Samples that failed to load, one SampleError each, in the order of occurrence.
    errors: list[SampleError]
    quarantine: AnyQuarantine | None
    #: Which samples make up which batch.
    plan: EpochPlan
    #: Makes the batches; for this package's own modules.
    runner: Runner
    #: The name of label k, if the labels are classes with names; users may set it.
    class_names: list[str] | None
    _source: Source
    _position: PositionKeeper
    _pending: dict[str, Any]
    _requests: Requests

    @shows_options(Options)
    def __init__(
        self, samples: int | Source, batch_size: int = 32, **options: Unpack[Options]
    ) -> None:
        check_names(type(self).__name__, options, Options.__annotations__)
        self._begin(CastSource.of(samples, options.get("dtype")), batch_size, options)

    def _begin(self, samples: int | Source, batch_size: int, given: Any, **more: Any) -> None:
        """Set up, with options as a user gave them; more: other fields of `LoaderOptions`."""
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=10)
        count = len(samples) if isinstance(samples, Source) else samples
        if checked_count(count, "samples", 0) == 0:
            raise ValueError(no_samples(type(self).__name__, "print what counts them"))
        self.class_names = None
        weights = weights_of(
            given.get("sample_weights"), count, paths=getattr(samples, "paths", None)
        )
        options = LoaderOptions.of(samples, batch_size, given | {"sample_weights": weights}, **more)
        distributed.check_settings(options.order)
        source = source_of(lambda inner: self._sourced(samples, inner), options, weights)
        self._install(source, options)
        if options.work.processes:
            check_sendable(self.runner.pipeline)

    def _install(self, source: Source, options: LoaderOptions) -> None:
        """Set up all runtime state again: nothing is prefetched, and the next epoch is number 0."""
        source, title = source.with_seed(options.order.number), type(self).__name__
        runner = runner_of(source, options, title)
        sampling = str(options.sampling) if options.sampling else ""
        fresh = {
            "_pending": {},
            "_source": source,
            "options": options,
            "runner": runner,
            "_position": PositionKeeper(runner, options),
            "_requests": Requests(runner, options.order.shuffle, sampling, title),
        }
        for name, value in fresh.items():
            super().__setattr__(name, value)

    # ------------------------------------------------------------------ hooks

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One sample: x, (x, y) or (x, y, weights). Override this or `load_batch`.

        Called from several threads at once, in any order; `index` is the sample's number in
        storage order. x and y are arrays or numbers, or tuples or dicts of them, of one shape
        and dtype for all samples of a batch: two inputs and a label are ((a, b), y). Whatever is
        raised becomes a SampleError that names the sample, or is handled as set by `on_error`.

        An override may also take `rng`, a generator that depends on seed, epoch and sample only, and
        `epoch`, by these names: to read a random window of a large file, for example.
        """
        raise TypeError(
            f"{type(self).__name__} has no samples to read: override load_sample(index) to return "
            "x or (x, y), or load_batch(indices) to return a whole batch."
        )

    @default_hook
    def load_batch(self, indices: Indices) -> Any:
        """Several samples at once: x, (x, y) or (x, y, weights), each with a row for each of `indices`.

        Override it for formats that read many samples in one go. Called from several threads at
        once, each time for a whole batch; `indices` is an int64 array in the order of delivery, not
        sorted. If it raises, it is called again sample by sample to find the faulty one.

        An override may also take `rngs`, a list with a generator for each index, and `epoch`.
        """
        raise AssertionError("only an override is called")

    @default_hook
    def sample_name(self, index: int) -> str:
        """The name of a sample in errors and in the quarantine. Overrides must not raise.

        By default the path of a file, the position of a record in its file, or the sample number.
        """
        source = self._source
        return (source.inner if isinstance(source, NamedSource) else source).name(index)

    @property
    def source(self) -> Source:
        """The source that this loader's samples are read from."""
        return self._source.held()

    def _sourced(self, samples: int | Source, options: LoaderOptions) -> Source:
        """The source: the given samples, with hooks of this class and a cache in front."""
        kind, dtype = type(self), options.transforms.dtype
        source = samples if isinstance(samples, Source) else None
        by_batch = overrides(kind, "load_batch")
        if source is None or by_batch or overrides(kind, "load_sample"):
            count = samples if isinstance(samples, int) else len(source or ())
            source = HookSource(self, count, dtype, by_batch=by_batch, base=source)
        if overrides(kind, "sample_name"):
            source = NamedSource(source, self)
        return cached_in_ram(source, options.cache, options.work)

    # ------------------------------------------------------------------ Keras' interface

    def __len__(self) -> int:
        """Batches per epoch; the remaining ones in an epoch resumed by `load_state_dict`."""
        return self.runner.tickets.length()

    def __iter__(self) -> Iterator[Any]:
        """One epoch: each batch once, prefetched; the next iteration is the next epoch.

        After `load_state_dict` the first iteration has the remaining batches of that epoch. `break`
        ends the epoch; `state_dict()` still returns the position where it was left.

        Raises:
            RuntimeError: the body of the loop started another epoch of this loader.
        """
        return iterate(self, self.runner.tickets)

    @property
    def num_batches(self) -> int:
        """Batches per epoch. Keras reads this when a pass begins; use `len(loader)` yourself."""
        distributed.check_pass(self)
        return self._requests.starting()

    @default_hook
    def __getitem__(self, index: int) -> Any:
        """One batch: x, (x, y) or (x, y, sample_weights).

        Inside an epoch of Keras the index is a ticket: each new one gets the next batch of this
        loader's order. Outside, it is batch `index` of the next epoch. The arrays are not reused
        for other batches.

        Raises:
            IndexError: `index` is not in 0 ... len(loader) - 1.
            SampleError: a sample does not load (on_error="raise").
            ValueError: samples of a batch differ; or shard=, shuffle=None and indices out of order.
        """
        return self._requests.batch(index)

    def on_epoch_begin(self) -> None:
        """Keras calls this before each epoch; call it in a hand-written loop. Overrides call super."""
        self._change()
        self.runner.resting = False
        self.runner.tickets.begin()

    def on_epoch_end(self) -> None:
        """Keras calls this after each epoch; call it in a hand-written loop. Overrides call super."""
        if self.runner.tickets.asked_for_all() and base.keeps_adapters():
            tf_iterators.free_beside()
        self.runner.tickets.end()
        self._change()

    @property
    def workers(self) -> int:
        """Always 1, for Keras: this loader's own threads do the work (`thread_count`)."""
        retained_loaders.note_adapter(self, drop_contents)
        return 1

    @property
    def use_multiprocessing(self) -> bool:
        """False: Keras' process pool would be rebuilt every epoch."""
        return False

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
        """ArraySpec of each array of a sample before the transform; the first use reads a sample."""
        return self.runner.specs.raw

    @property
    def sample_spec(self) -> Structure:
        """ArraySpec of each array of a sample as it is delivered, as (x,) or (x, y)."""
        return self.runner.specs.delivered

    def delivered_spec(self) -> Structure:
        """`sample_spec` after batch_transform, with None for dimensions known to differ."""
        return self.runner.delivered_spec

    @property
    def has_weights(self) -> bool:
        """Whether batches have a third part, sample weights; without labels they have none."""
        return self.runner.delivery.has_weights(len(self.runner.row_spec))

    def state_dict(self, epoch: int | None = None, batch: int | None = None) -> dict[str, Any]:
        """The position in the data: a dictionary of integers and short texts, ready for JSON.

        It is the position after the last batch that the model has consumed: in `fit` this needs
        `LoaderCallback(loader)`; in a loop of your own it is after the current batch.

        Args:
            epoch: the epoch of the position, if you count batches yourself, as with
                `to_tf_dataset`; None uses the model's position.
            batch: the next batch of that epoch.

        Raises:
            ValueError: the position of the model is not known.
            TypeError: epoch without batch, or batch without epoch.
        """
        return self._position.state(epoch, batch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at a position that `state_dict` returned, in this process or another one.

        The next epoch (the next training epoch, if `fit` has a `LoaderCallback`) has the remaining
        batches of the epoch in which the state was saved. workers, processes, cache, on_error,
        batch_size, shard and the size of RAM batches may differ: the epoch still resumes at exactly
        the same sample; the page "Resume training" lists the exceptions.

        Raises:
            TypeError, ValueError: not a state, or a state of other data or options (says which).
        """
        follow(self, state)
        keeper, options = self._position.restored(state, f"this {type(self).__name__}")
        super().__setattr__("options", options)
        super().__setattr__("_position", keeper)

    def set(self, **changes: Any) -> None:
        """Change options: immediately between epochs, otherwise when the next epoch begins.

        Changes are part of the saved state: when a run is resumed, `load_state_dict` restores size=;
        set the other options again before you call it. On TensorFlow all batches of one `fit` have
        the same shape: call `fit` once for each size.

        Args:
            **changes: transform, batch_transform, class_weight, sampling_weights (if the loader was
                made with some) or size (for image files).

        Raises:
            TypeError, ValueError: the option cannot be changed, or the value is not valid.
        """
        # Checked now, whenever it is done.
        pending = {**self._pending, **changes}
        changed_by(self, self.options, self._source, pending)
        super().__setattr__("_pending", pending)
        self._change()

    def _change(self) -> None:
        """Apply what was set, if no epoch is running."""
        if not self._pending or not self.runner.tickets.between_epochs():
            return
        options, source = changed_by(self, self.options, self._source, self._pending)
        if "size" in self._pending:
            images = dataclasses.replace(self.image_options, size=self._pending["size"])
            super().__setattr__("image_options", images)
        source = source.with_seed(options.order.number)
        self.runner.adopt(runner_of(source, options, type(self).__name__))
        keeper = PositionKeeper(self.runner, options)
        fresh = {"_source": source, "options": options, "_position": keeper, "_pending": {}}
        for name, value in fresh.items():
            super().__setattr__(name, value)

    def epoch_batches(self, epoch: int = 0, shuffle: bool | None = None) -> Iterator[Any]:
        """All batches of one epoch, independent of what Keras is doing with this loader.

        Args:
            epoch: its number; shuffled orders and random numbers differ from epoch to epoch.
            shuffle: None uses the loader's setting, and storage order if that is None too.

        Raises:
            ValueError: the loader samples, and `shuffle` differs from its setting.
        """
        check_own_batches(self, "epoch_batches")
        order = self.runner.order_of(epoch, self.options.order_for(shuffle))
        return self.runner.batches(order, 0)

    def close(self) -> None:
        """Free threads, open files, prefetched batches and the cache in RAM.

        The loader can still be used: it creates them again when needed.
        """
        self.runner.close()
        retained_loaders.let_go(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def view(self) -> Self:
        """A second loader over the same data, with its own position in the epoch and its own threads.

        Use it to read the data twice at the same time: `predict(loader.view())` during `fit`.
        """
        return self.replace()

    def replace(
        self, source: Source | None = None, options: LoaderOptions | None = None, **changes: Any
    ) -> Self:
        """A loader like this one over other samples, or with other options.

        Args:
            source: the samples; None: those of this loader, read by its hooks.
            options: all options; None: those of this loader.
            **changes: fields of `options` to replace.
        """
        new = type(self).__new__(type(self))
        chosen = dataclasses.replace(options or self.options, **changes)
        read = self._source.rebound(self, new) if source is None else source
        new.__setstate__({**self.__getstate__(), "options": chosen, "_source": read})
        return new

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
        return setting_of(self, name)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _RUNTIME}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=10)
        self.__dict__.update(state)
        self._install(state["_source"].rebound(self, self), state["options"])


# State of this process and this epoch: neither pickled nor shared by views.
_RUNTIME = ("runner", "_position", "_requests", "_pending")
# What may be set on a loader that is set up.
_FREE = ("class_names", "max_queue_size")
