"""Makes copies of a loader with one setting changed, for measurements."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten, map_structure
from kloaders.diagnostics.explain.file_columns import with_dct_scaling
from kloaders.diagnostics.explain.stages import measure_stages
from kloaders.plan.sampling import Sampling
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn

__all__ = ["changed", "over_arrays", "quiet", "silenced"]

# The minimum number of batches in an epoch of samples in RAM.
_BATCHES = 4


def quiet(loader: Loader) -> Loader:
    """A view that runs as in a fit, but logs nothing."""
    order = loader.options.order
    shuffled = order.shuffle is None
    if shuffled:
        order = dataclasses.replace(order, shuffle=True)
    return silenced(loader.replace(order=order))


def silenced(view: Loader) -> Loader:
    """The same view, without its log message about sizes at the start."""
    if view.runner.two_levels:
        view.runner.sizes_logged = True
    return view


def changed(loader: Loader, change: str, value: Any, seconds: float = 2.0) -> Loader:
    """A view of the loader with another setting, or over its decoded samples in RAM.

    Args:
        loader: any loader.
        change: "workers", "processes", "transform", "dct_scaling", or "ram".
        value: the new value of the setting; ignored for "ram".
        seconds: how long to read samples for "ram".

    Raises:
        ValueError: samples differ in shape, so that "ram" cannot be measured.
    """
    new, options = quiet(loader), loader.options
    if change == "workers":
        return silenced(new.replace(work=dataclasses.replace(options.work, workers=value)))
    if change == "processes":
        return silenced(new.replace(work=dataclasses.replace(options.work, processes=value)))
    if change == "transform":
        transforms = dataclasses.replace(options.transforms, transform=value)
        return silenced(new.replace(transforms=transforms))
    if change == "dct_scaling":
        source = new.source
        columns = map_structure(with_dct_scaling, source.columns)
        return silenced(new.replace(source=ColumnSource(columns, source.paths)))
    assert change == "ram", change
    arrays = measure_stages(new, seconds, transform=False).arrays()
    held = None if arrays is None else over_arrays(loader, arrays)
    if held is None:
        raise ValueError("samples differ in shape, so they cannot be held in one array to measure.")
    return held


def over_arrays(loader: Loader, arrays: Any) -> Loader | None:
    """A loader with the same options over samples in RAM, given as stacked arrays.

    None if the loader has worker processes, to which all samples would have to be sent.
    """
    options = loader.options.in_ram()
    if options.work.processes:
        return None
    held = len(flatten(arrays)[0])
    repeats = -(-_BATCHES * loader.batch_size // held)
    if repeats > 1:
        arrays = map_structure(lambda a: np.concatenate([a] * repeats), arrays)
    source = ColumnSource(map_structure(ArrayColumn, arrays))
    fields = ("work", "cache", "ram", "more")
    return loader.replace(
        source=source,
        order=dataclasses.replace(options.order, shuffle=True, shard=(0, 1)),
        sampling=Sampling(),
        weights=None,
        echo=1,
        samples_per_file=1,
        padding=None,
        **{name: getattr(options, name) for name in fields},
    )
