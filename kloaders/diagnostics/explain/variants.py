"""Views of a loader with one thing changed: quiet, another setting, or its samples in RAM."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.structure import flatten, map_structure
from kloaders.diagnostics.explain.file_columns import with_dct_scaling
from kloaders.diagnostics.explain.stages import measure_stages
from kloaders.sources.columns import ArrayColumn

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["changed", "over_arrays", "quiet"]


def quiet(loader: SequenceLoader) -> Any:
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


def changed(loader: SequenceLoader, change: str, value: Any, seconds: float = 2.0) -> Any:
    """A view of the loader with another setting, or over its decoded samples in RAM ("ram")."""
    new = quiet(loader)
    own = vars(new)
    if change == "workers":
        own["thread_count"] = value
    elif change == "processes":
        own["processes"] = value
    elif change == "transform":
        own["transform"] = value
    elif change == "ram":
        arrays = measure_stages(new, seconds, transform=False).arrays()
        held = None if arrays is None else over_arrays(loader, arrays)
        if held is None:
            raise ValueError(
                "samples differ in shape: they cannot be held as one array to measure."
            )
        return held
    elif change == "dct_scaling":
        columns = map_structure(with_dct_scaling, new._columns())
        _read_from(new, columns)
    else:
        raise AssertionError(change)
    new._set_up()
    _calm(new)
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


def over_arrays(loader: SequenceLoader, arrays: Any) -> Any:
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
