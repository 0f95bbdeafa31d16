"""Reads all samples of a loader as they are stored, once, in storage order, with its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from kloaders.core.arrays import Array, Indices
from kloaders.core.progress import Progress
from kloaders.engine.batches import AnyShapeBuild, in_storage_order
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.plan.rng import Moment

__all__ = ["raw_samples"]


def raw_samples(
    loader: SequenceLoader, what: str, progress: bool
) -> Iterator[tuple[Indices, list[Array | list[Array]]]]:
    """Yield numbers and arrays of consecutive samples in groups, before the transform.

    Args:
        loader: the loader.
        what: the name of the calling function, for messages and the progress bar.
        progress: show a bar.

    Yields:
        Sample numbers, and for each array of a sample its rows: an array, or a list of arrays if
        their shapes differ. Samples that fail to load are missing, unless on_error is "raise".

    Raises:
        SampleError: a sample does not load (on_error="raise").
        TypeError: it is not a loader, or makes its batches itself.
    """
    check_loader(loader, what)
    check_own_batches(loader, what)
    runner = loader.runner
    reading = in_storage_order(
        runner,
        0,
        loader.samples,
        runner.specs.raw_bytes,
        lambda indices: AnyShapeBuild(runner, indices, Moment(), raw=True),
        loader.thread_count,
    )
    bar = Progress(total=loader.samples, unit=" samples", disable=not progress, desc=what)
    with bar, closing(reading) as runs:
        for asked, found in runs:
            yield found
            bar.update(asked)
