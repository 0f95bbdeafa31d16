"""Loaders for any object with `len(source)` and `source[i]`: Grain, torch, TFDS, ArrayRecord.

This module imports none of these packages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kloaders.core.checks import check_names, checked_cache, checked_dtype, checked_flag
from kloaders.core.options import Options, shows_options
from kloaders.loaders.sequence import SequenceLoader
from kloaders.sources.torch_dataset import TorchSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["from_source", "from_torch"]

# Packages whose sources use no global random generator and may be called by many threads at once.
_STATELESS = {"array_record", "datasets", "grain", "tensorflow_datasets"}

# Options of torch's DataLoader, and what to use instead.
_DATALOADER = {
    "collate_fn": "samples are stacked. Change single samples in select= or transform=, and pad them "
    "there if their shapes differ",
    "num_workers": "pass processes=True and workers=N",
    "sampler": "the loader makes the order itself: pass seed=, shuffle= and sample_weights=. To use some "
    "of the samples, pass a torch.utils.data.Subset",
    "batch_sampler": "pass batch_size=, seed= and shuffle=",
    "generator": "pass seed=",
    "worker_init_fn": "leave it out: random numbers are seeded for each sample",
    "pin_memory": "leave it out",
    "prefetch_factor": "pass max_queue_size=, the number of batches for all workers together",
    "persistent_workers": "leave it out: workers stay until loader.close()",
    "timeout": "leave it out: a worker that dies is replaced",
    "multiprocessing_context": "leave it out: processes are never forked",
}


@shows_options(Options)
def from_source(
    source: Any,
    batch_size: int = 32,
    *,
    select: Callable[[Any], Any] | None = None,
    seeded: bool | None = None,
    **options: Unpack[Options],
) -> SequenceLoader:
    """A loader for any object with `len(source)` and `source[i]`, with a full shuffle.

    Use it for Grain's data sources and MapDatasets, map-style torch Datasets, `tfds.data_source(...)`,
    ArrayRecord's ArrayRecordDataSource, Hugging Face Datasets, lists, and your own classes.

    A sample is the value of `source[i]`: x, or a tuple (x, y). Tensors, NumPy arrays, PIL images,
    numbers, and tuples, lists and dicts of these become arrays and keep their dtype; a list of numbers
    is one array. Axes are not permuted: channels-first images from torchvision stay channels-first.

    Args:
        source: has `__len__` and `__getitem__`. If it also has `__getitems__`, which takes a list
            of numbers, and draws no random numbers, many samples are read in one call.
        batch_size: samples per batch.
        select: a function that takes `source[i]` and returns x or (x, y), for other kinds of samples:
            `lambda item: (item["image"], item["label"])`, or a parser of ArrayRecord's bytes.
        seeded: True: while `source[i]` runs, the global generators of torch (on the CPU), NumPy and
            `random` are seeded from seed, epoch and i, and restored afterwards. So random numbers
            do not depend on the number of workers, and differ from epoch to epoch. In one process,
            only one loader with seeded=True reads at a time. Other threads that use the generators
            at that moment see the seeded ones; processes=True avoids this.
            False does not touch the generators. It is faster, and is for a source without random
            numbers; samples can then be cached with `cache="ram"`. None: False for sources of Grain,
            ArrayRecord, TFDS and Hugging Face, which several threads then read, and True for all
            others, which are called by one thread at a time.
        **options: see `SequenceLoader`. workers=N without processes=True needs a source that is not
            seeded and may be called from N threads at once.

    Raises:
        TypeError: it has no samples by number, an option is one of torch's DataLoader, or (when it is
            read) a sample contains texts.
        ValueError: an option is out of range, or the source repeats forever.
    """
    stateless = type(source).__module__.partition(".")[0] in _STATELESS
    # A Hugging Face Dataset with a user's function, which may be random.
    custom = getattr(source, "format", None)
    stateless = stateless and not (isinstance(custom, dict) and custom.get("type") == "custom")
    if seeded is None:
        seeded = not stateless
    threads = stateless and not seeded
    return _made("from_source", source, batch_size, select, seeded, threads, options)


@shows_options(Options)
def from_torch(
    dataset: Any,
    batch_size: int = 32,
    *,
    select: Callable[[Any], Any] | None = None,
    seeded: bool = True,
    **options: Unpack[Options],
) -> SequenceLoader:
    """`from_source` for a map-style torch Dataset, which is called by one thread at a time.

    If that is too slow, pass processes=True: each of `workers` processes has a copy of the dataset.

    Args:
        dataset: has `__len__` and `__getitem__`.
        batch_size: samples per batch.
        select: see `from_source`.
        seeded: see `from_source`.
        **options: see `SequenceLoader`.

    Raises:
        TypeError: it is an IterableDataset or a DataLoader, an option is one of torch's DataLoader, or
            (when it is read) a sample contains texts.
        ValueError: an option is out of range.
    """
    return _made("from_torch", dataset, batch_size, select, seeded, False, options)


def _made(
    title: str,
    dataset: Any,
    batch_size: int,
    select: Callable[[Any], Any] | None,
    seeded: bool,
    by_threads: bool,
    options: Options,
) -> SequenceLoader:
    for name, instead in _DATALOADER.items():
        if name in options:
            raise TypeError(f"{title}() has no {name}=: {instead}.")
    check_names(f"{title}()", options, Options.__annotations__)
    _check(dataset, title)
    if select is not None and not callable(select):
        raise TypeError(f"select={select!r:.80}, expected a function that takes an item.")
    seeded = checked_flag(seeded, "seeded")
    threads = 0 if options.get("processes") else options.get("workers") or 0
    if seeded and threads > 1:
        raise ValueError(
            f"workers={threads} threads would wait for each other, since random numbers are "
            "seeded for one sample at a time: pass processes=True, or seeded=False for a dataset "
            "that draws no random numbers and may be called from several threads."
        )
    if seeded and checked_cache(options.get("cache", "auto")) not in ("auto", None):
        raise ValueError(
            f"cache={options['cache']!r:.80} would repeat the first random numbers in every epoch: pass "
            "seeded=False if the dataset draws no random numbers, or leave cache= out."
        )
    if not options.get("processes") and options.get("workers") is None and not by_threads:
        options["workers"] = 1
    dtype = checked_dtype(options.get("dtype"))
    source = TorchSource(dataset, select, seeded, threads <= 1 and not by_threads, dtype)
    return SequenceLoader(source, batch_size, **options)


def _check(dataset: Any, title: str) -> None:
    """Raise TypeError for an object without numbered samples."""
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if "DataLoader" in kinds:
        own = "its data source" if hasattr(dataset, "_data_source") else "dataloader.dataset"
        raise TypeError(
            f"this is a DataLoader, which makes batches: pass its dataset, {title}({own}, "
            "batch_size=...)."
        )
    if (
        "IterableDataset" in kinds
        or not hasattr(dataset, "__getitem__")
        or not hasattr(dataset, "__len__")
    ):
        raise TypeError(
            f"{type(dataset).__name__} has no samples by number (len(d) and d[i]), which a full "
            f"shuffle needs: use {title}(list(dataset)) if it fits in RAM; otherwise write its "
            "samples to files once, and load these files."
        )
    if len(dataset) >= sys.maxsize:
        raise ValueError(
            f"this {type(dataset).__name__} repeats forever: leave out repeat(), and pass epochs= to "
            "fit."
        )
