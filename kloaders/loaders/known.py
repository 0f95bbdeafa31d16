"""What a loader knows about its samples before reading: labels, files, classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.structure import flatten
from kloaders.sources.columns import PathColumn
from kloaders.sources.labels import classes_of

__all__ = ["KNOWN", "class_counts"]


def _labels(loader: Any) -> Any:
    return loader.source.labels()


def _file_paths(loader: Any) -> list[str] | None:
    columns = loader.source.columns
    inputs = [] if columns is None else flatten(columns[0])
    return next((found for c in inputs if (found := _paths(c)) is not None), None)


def _paths(column: Any) -> list[str] | None:
    """The files of a column, also through a selection, cast or cache."""
    if isinstance(column, PathColumn):
        return list(column.paths)
    inner = getattr(column, "column", None)
    found = None if inner is None else _paths(inner)
    numbers = getattr(column, "numbers", None)
    return found if found is None or numbers is None else [found[k] for k in numbers]


def _names(loader: Any) -> Any:
    """The class names; None if there are none, or if several outputs have their own."""
    names = loader.class_names
    if not isinstance(names, dict):
        return names
    alone = len(names) == 1 and loader.source.labels() is not None
    return next(iter(names.values())) if alone else None


def _num_classes(loader: Any) -> int:
    names = _names(loader)
    if names is not None:
        return len(names)
    if isinstance(loader.class_names, dict):
        raise ValueError(
            f"{type(loader).__name__} has several outputs: loader.class_names has the classes of each output."
        )
    classes = classes_of(loader.source, "class_balance")  # raises an error if these are not classes
    labels = loader.source.labels()
    if labels.ndim == 2 and labels.shape[1] > 1:
        return int(labels.shape[1])
    return int(classes.max()) + 1


def class_counts(loader: Any) -> dict[Any, int]:
    """The number of samples of each class, by class name if there are names, else by number."""
    if loader.source.labels() is None:
        raise ValueError(
            f"{type(loader).__name__} has no labels, or does not know them without reading samples: "
            "kl.statistics(loader).class_counts reads them."
        )
    classes = classes_of(loader.source, "class_balance").astype(np.int64)
    names = _names(loader)
    if names is None or classes.min() < 0 or classes.max() >= len(names):
        found, counts = np.unique(classes, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    return dict(zip(names, np.bincount(classes, minlength=len(names)).tolist(), strict=True))


#: Attributes that every loader has, unless a subclass defines others of the same name.
KNOWN: dict[str, Callable[[Any], Any]] = {
    "labels": _labels,
    "file_paths": _file_paths,
    "num_classes": _num_classes,
}
