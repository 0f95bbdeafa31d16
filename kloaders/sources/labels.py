"""The class of each sample, if it is known before reading."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.sources.source import Source
from kloaders.sources.tables import array_of, encoded, first_missing

__all__ = ["classes_of", "codes_of", "known_labels"]


def codes_of(values: Any, samples: int, what: str) -> tuple[list[Any], Indices]:
    """The sorted distinct values, and the index into them for each sample."""
    array = array_of(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{what} has shape {array.shape}, expected one value for each of {samples} samples."
        )
    if len(array) != samples:
        raise ValueError(
            f"lengths differ: {what} has {len(array)} values, but there are {samples} samples. Every "
            "sample needs one value."
        )
    missing = first_missing(array)
    if missing is not None:
        raise ValueError(
            f"{what}[{missing}] is missing ({array[missing]}): every sample needs a value."
        )
    if array.dtype.kind == "O":
        return encoded(array.tolist())
    distinct, codes = np.unique(array, return_inverse=True)
    return distinct.tolist(), codes.reshape(-1)


def known_labels(source: Source) -> Array | None:
    """The class of every sample; None if it is not known before reading."""
    try:
        return classes_of(source, "labels")
    except ValueError:
        return None


def classes_of(source: Source, option: str) -> Array:
    """The class of every sample, for an option such as "stratify" that is True.

    Raises:
        ValueError: labels are unknown without reading samples, or are not classes.
    """
    values = source.labels()
    if source.columns is None and values is None:
        raise ValueError(
            "this loader makes its samples in a hook or from records, so that their labels are not known "
            f"before reading: pass {option}=, an array with one class per sample."
        )
    if source.columns is not None and len(source.columns) < 2:
        raise ValueError(
            f"{option}=True needs labels, but there are none: pass labels, or {option}=, an array "
            "with one class per sample."
        )
    if values is not None and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values is not None and values.ndim == 2:
        # A one-hot row has a single one and zeros.
        if np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1):
            return np.asarray(values.argmax(axis=1))
        values = None
    if values is None or values.ndim != 1 or not np.all(values == np.floor(values)):
        raise ValueError(
            f"{option}=True needs labels that are classes, integers or one-hot rows: pass "
            f"{option}=, an array with one class per sample."
        )
    return values
