"""Loaders of arrays in RAM or mapped from a file, and `preload`, which copies any loader's data to RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import check_names, checked_dtype
from kloaders.core.memory import available_bytes, format_bytes
from kloaders.core.messages import inform
from kloaders.core.options import Options, shows_options
from kloaders.core.structure import ArraySpec, Structure, flatten, unflatten
from kloaders.loaders.checking import check_loader
from kloaders.loaders.raw_samples import raw_samples
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.sources.column_source import ColumnSource, checked_columns
from kloaders.sources.columns import ArrayColumn, ListColumn
from kloaders.sources.given_columns import columns_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


__all__ = ["ArraySequenceLoader", "preload"]

# preload leaves this share of the free memory to the framework and the model.
_SHARE = 0.9


class ArraySequenceLoader(SequenceLoader):
    """Batches of rows of arrays.

    Args:
        x: an array, or a tuple or dict of arrays, with one row per sample. A `np.memmap`, an h5py
            dataset, a zarr array, or anything else with a shape, a dtype and `[start:stop]` is not
            copied: rows are read when they are needed. A `PerThread` opens it once in each thread.
        y: labels, in the same form; None for none.
        batch_size: samples per batch.
        **options: see `SequenceLoader`.

    Batches are copies: writing to them does not change the arrays.

    Raises:
        ValueError: lengths differ, or there are no samples.
        TypeError: an array has no numeric dtype.

    >>> loader = ArraySequenceLoader(np.arange(10), np.arange(10) % 2, batch_size=4)
    >>> loader[2]
    (array([8, 9]), array([0, 1]))
    """

    @shows_options(Options)
    def __init__(
        self, x: Any, y: Any = None, batch_size: int = 32, **options: Unpack[Options]
    ) -> None:
        check_names(type(self).__name__, options, Options.__annotations__)
        dtype = checked_dtype(options.get("dtype"))
        columns = checked_columns(
            type(self).__name__,
            columns_of(x, "x", dtype=dtype),
            None if y is None else columns_of(y, "labels"),
            ("x", "y"),
        )
        self._begin(ColumnSource(columns), batch_size, options)


def preload(loader: SequenceLoader, progress: bool = True) -> ArraySequenceLoader:
    """Read every sample of a loader into RAM, and return a loader over these arrays.

    Samples are kept as they are stored: a transform still runs for every batch, with the same
    random numbers. Options of `loader` carry over. Files are read once, in storage order, by the
    loader's threads.

    Args:
        loader: any loader. If samples differ in shape, each becomes a separate array.
        progress: show a bar while reading.

    Raises:
        MemoryError: the samples need more memory than is free; the message says what to use instead.
        SampleError: a sample does not load (on_error="raise"). With "skip" or "replace" the
            sample is left out or replaced permanently.
    """
    check_loader(loader, "preload")
    check_own_batches(loader, "preload")
    runner = loader.runner
    if runner.pipeline.source.not_kept:
        raise ValueError(f"preload({type(loader).__name__}): {runner.pipeline.source.not_kept}")
    specs = flatten(runner.specs.raw)
    each = runner.specs.raw_bytes
    need, free = each * loader.samples, available_bytes()
    said = (
        f"preload needs {format_bytes(need)} for {loader.samples:,} samples; "
        f"{format_bytes(free)} are free"
    )
    if need > _SHARE * free:
        instead = (
            "Use RamBatchSequenceLoader(paths, labels, ram_budget=...), which keeps only a part of "
            "the data in RAM at a time, or a smaller size="
            if hasattr(loader, "paths")
            else f"Use the {type(loader).__name__} itself: it reads only what each batch needs"
        )
        raise MemoryError(f"{said}. {instead}.")
    inform(said)
    kept: list[Indices] = []
    gathered = [_Gathered(loader.samples, spec) for spec in specs]
    for indices, leaves in raw_samples(loader, "preload", progress):
        for array, rows in zip(gathered, leaves, strict=True):
            array.add(rows)
        kept.append(indices)
    numbers = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    if not len(numbers):
        raise runner.log.nothing_left(0)
    columns: Structure = unflatten(runner.specs.raw, [array.column() for array in gathered])
    options = loader.options.take(numbers, loader.samples).in_ram()
    new = ArraySequenceLoader.__new__(ArraySequenceLoader)
    new.__setstate__(
        {"_source": ColumnSource(columns), "options": options, "class_names": loader.class_names}
    )
    new.errors.extend(loader.errors)
    return new


class _Gathered:
    """One array with all samples; a list of arrays if their shapes differ."""

    def __init__(self, samples: int, spec: ArraySpec) -> None:
        self.array: Array = np.empty((samples, *(n or 1 for n in spec.shape)), spec.dtype)
        self.count = 0
        self.list: list[Array] | None = None

    def add(self, rows: Array | list[Array]) -> None:
        """Add the values of the next samples."""
        same = not isinstance(rows, list) and (rows.shape[1:], rows.dtype) == (
            self.array.shape[1:],
            self.array.dtype,
        )
        if self.list is None and not same:
            self.list = list(self.array[: self.count])
        if self.list is None:
            self.array[self.count : self.count + len(rows)] = rows
        else:
            self.list += [np.array(row) for row in rows]
        self.count += len(rows)

    def column(self) -> ArrayColumn | ListColumn:
        """A column with all samples."""
        return ArrayColumn(self.array[: self.count]) if self.list is None else ListColumn(self.list)
