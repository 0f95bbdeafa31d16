"""Loaders over arrays in RAM or mapped from a file, and `preload`, which puts any loader there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from kloaders.core.checks import checked_dtype
from kloaders.core.memory import available_bytes, format_bytes
from kloaders.core.messages import say
from kloaders.core.structure import flatten, pack
from kloaders.engine.batches import BatchBuild, in_storage_order, nothing_left
from kloaders.loaders.sequence import (
    Options,
    SequenceLoader,
    _columns_checked,
    check_loader,
    check_names,
)
from kloaders.sources.columns import columns_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


__all__ = ["ArraySequenceLoader", "preload"]

# preload leaves this share of the free memory to the framework and the model.
_SHARE = 0.9


class ArraySequenceLoader(SequenceLoader):
    """Batches of rows of arrays.

    Args:
        x: an array, or a tuple or dict of arrays, with one row a sample. A `np.memmap` stays on
            disk: rows are read as they are needed.
        y: labels, likewise; None for none.
        batch_size: samples a batch.
        **options: see `SequenceLoader`.

    A batch is a copy: writing to it leaves the arrays as they are.

    Raises:
        ValueError: lengths differ, or there are no samples.
        TypeError: an array has no numeric dtype.

    >>> loader = ArraySequenceLoader(np.arange(10), np.arange(10) % 2, batch_size=4)
    >>> loader[2]
    (array([8, 9]), array([0, 1]))
    """

    def __init__(
        self, x: Any, y: Any = None, batch_size: int = 32, **options: Unpack[Options]
    ) -> None:
        check_names(self, options, Options.__annotations__)
        dtype = checked_dtype(options.get("dtype"))
        parts, samples = _columns_checked(
            self,
            columns_of(x, "x", dtype=dtype),
            None if y is None else columns_of(y, "labels"),
            ("x", "y"),
        )
        self._parts = parts
        super().__init__(samples, batch_size, **options)

    def _columns(self) -> tuple[Any, ...]:
        return self._parts

    def _shape_advice(self, index: int, dtype_differs: bool) -> str:
        if dtype_differs:
            return "Pass dtype=, or convert the arrays to one dtype."
        return "Pad the arrays to one shape, or use batch_size=1."


def preload(loader: SequenceLoader, progress: bool = True) -> ArraySequenceLoader:
    """Read every sample of a loader into RAM, and give a loader over that.

    Samples are kept as they are stored: a transform still runs for every batch, with the same
    random numbers. Options of `loader` carry over. Files are read once, in storage order, by the
    loader's threads.

    Args:
        loader: any loader whose samples have one shape.
        progress: show a bar while reading.

    Raises:
        MemoryError: the samples need more memory than is free; says how much, and what to use.
        SampleError: a sample does not load (on_error="raise"). With "skip" or "replace" the
            sample is left out or replaced for good.
    """
    check_loader(loader, "preload")
    specs = flatten(loader.raw_spec)
    need = sum(spec.nbytes for spec in specs) * loader.samples
    free = available_bytes()
    said = (
        f"preload needs {format_bytes(need)} for {loader.samples:,} samples; "
        f"{format_bytes(free)} are free"
    )
    if need > _SHARE * free:
        instead = (
            "Use RamBatchSequenceLoader(paths, labels, ram_budget=...), which keeps a part of the "
            "data in RAM at a time, or a smaller size="
            if hasattr(loader, "paths")
            else f"Use the {type(loader).__name__} as it is: it reads what a batch needs"
        )
        raise MemoryError(f"{said}. {instead}.")
    say(said)
    arrays = [np.empty((loader.samples, *(n or 1 for n in s.shape)), s.dtype) for s in specs]
    kept: list[np.ndarray[Any, Any]] = []
    reading = in_storage_order(
        loader,
        0,
        loader.samples,
        need // loader.samples,
        lambda indices: _Rows(loader, indices, 0, raw=True),
    )
    done = 0
    bar = tqdm(total=loader.samples, unit=" samples", disable=not progress, desc="preload")
    with bar, closing(reading) as runs:
        for asked, (indices, leaves) in runs:
            for array, rows in zip(arrays, leaves, strict=True):
                if rows.shape[1:] != array.shape[1:] or rows.dtype != array.dtype:
                    first = int(indices[0])
                    raise ValueError(
                        f"samples from {loader._name(first)} on are {rows.dtype} of shape "
                        f"{rows.shape[1:]}, earlier ones {array.dtype} of shape "
                        f"{array.shape[1:]}. "
                        f"{loader._shape_advice(first, rows.dtype != array.dtype)}"
                    )
                array[done : done + len(rows)] = rows
            done += len(indices)
            kept.append(indices)
            bar.update(asked)
    if not done:
        raise nothing_left(loader, 0)
    parts = pack(loader.raw_spec, [array[:done] for array in arrays])
    weights = None if loader.weights is None else loader.weights[np.concatenate(kept)]
    new = ArraySequenceLoader(
        parts[0],
        parts[1] if len(parts) > 1 else None,
        loader.batch_size,
        shuffle=loader.shuffle,
        seed=loader.seed,
        drop_last=loader.drop_last,
        pad_last=loader.pad_last,
        shard=loader.shard if loader.shard[1] > 1 else None,
        sample_weights=weights,
        transform=loader.transform,
        batch_transform=loader.batch_transform,
        workers=loader.thread_count,
        processes=loader.processes and loader.transform is not None,
        on_error=loader.on_error,
        max_errors=loader.max_errors,  # no quarantine: all files have been read
        max_queue_size=loader.queue_size,
    )
    if loader.sampling:
        new._sample_as(loader.sampling.of(np.concatenate(kept)))
    new.errors = list(loader.errors)
    new.class_names = loader.class_names
    new._x_is_y = loader._x_is_y
    return new


class _Rows(BatchBuild):
    """A batch of stored samples, as leaves."""

    def finish(self) -> Any:
        return self.finish_leaves()
