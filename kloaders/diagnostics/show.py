"""Draws a batch as the model gets it."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from kloaders.core.options import FaultOptions
from kloaders.core.protocols import Loader
from kloaders.core.structure import map_structure, unflatten
from kloaders.diagnostics.drawing import draw, figure_class
from kloaders.diagnostics.panels import BOX_FORMATS, SampleRow, cell_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["rows_of", "show"]


def show(
    loader: Loader,
    batch: int,
    samples: int,
    epoch: int,
    box_format: str | None,
    save: str | os.PathLike[str] | None,
) -> Figure:
    """See `SequenceLoader.show`."""
    if box_format is not None and box_format not in BOX_FORMATS:
        raise ValueError(
            f"box_format={box_format!r:.80} is unknown: choose {', '.join(BOX_FORMATS)}."
        )
    if samples < 1:
        raise ValueError(f"samples={samples} is too small, expected at least 1.")
    kind = figure_class()
    rows = rows_of(loader, batch, epoch, samples)
    # With several outputs class_names is a dict, which has no names for a single output.
    names = loader.class_names if isinstance(loader.class_names, list) else None
    cells = [cell_of(row, names, box_format) for row in rows]
    title = f"batch {batch} of epoch {epoch}, {type(loader).__name__}"
    figure = draw(kind, cells, title, names)
    if save is not None:
        figure.savefig(os.fspath(save))
    return figure


def rows_of(loader: Loader, batch: int, epoch: int, samples: int) -> list[SampleRow]:
    """The samples of a batch as the model gets them, made in this thread.

    Args:
        loader: any loader.
        batch: the batch number.
        epoch: the epoch number.
        samples: the maximum number of samples.

    Returns:
        One row per sample, in the order of the batch. A sample that fails to load has its error,
        except with on_error="replace", since the model then gets another sample in its place.

    Raises:
        IndexError: the batch does not exist.
    """
    batches = loader.plan.batches
    if not 0 <= batch < batches:
        raise IndexError(
            f"batch {batch} of {type(loader).__name__}: batches are numbered from 0 to {batches - 1}."
        )
    options = loader.options
    # Work in this thread: one batch needs no processes, and a fit's threads are left alone.
    work = dataclasses.replace(options.work, processes=False)
    # One bad file must not hide the other samples, whatever on_error= does in a fit.
    policy = "replace" if options.faults.on_error == "replace" else "skip"
    view = loader.replace(work=work, faults=FaultOptions(policy))
    runner, source = view.runner, view.source
    runner.log.quiet = True
    shuffled = view.options.effective_shuffle is not False
    build = runner.make_alone((runner.order_of(epoch, shuffled), batch), True)
    asked = build.indices.tolist()
    build.fill(0, build.rows)
    indices, leaves = build.finish_leaves()
    parts = tuple(unflatten(build.form, leaves))
    weights = None
    if len(indices):
        parts = build.transformed(parts, indices)
        weights = runner.delivery.weights_of(parts, indices)
    rows = []
    for k, index in enumerate(indices.tolist()):
        x, *y = map_structure(lambda a, k=k: a[k], parts)
        weight = None if weights is None else map_structure(lambda a, k=k: a[k], weights)
        rows.append(SampleRow(x, y[0] if y else None, weight, source.name(index)))
    if policy == "skip" and len(rows) < len(asked):
        causes = {error.index: error.cause for error in runner.log.errors}
        loaded = iter(rows)
        rows = [
            SampleRow(None, None, None, source.name(index), causes[index])
            if index in causes
            else next(loaded)
            for index in asked
        ]
    return rows[:samples]
