"""Converts a table's labels for each of Keras' class modes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn
from kloaders.sources.tables import Table, listed

__all__ = ["hot_rows", "targets_of"]


def targets_of(
    table: Table, y_col: Any, class_mode: str | None, classes: list[str] | None, kept: list[int]
) -> tuple[list[int], Any, list[str] | None]:
    """-> the remaining rows, their labels (an array, or one for each output), and the names of classes."""
    if classes and class_mode in ("input", "multi_output", "raw", None):
        warn(f"classes= has no effect with class_mode={class_mode!r:.80}, as in Keras.")
    if class_mode in ("input", None):
        return kept, None, None
    if class_mode == "multi_output":
        if not isinstance(y_col, (list, tuple)):
            raise TypeError(f'class_mode="multi_output" needs y_col=[...], got {y_col!r:.80}.')
        return kept, [np.asarray(table.column(c)[kept].tolist()) for c in y_col], None
    if class_mode == "raw":
        several = isinstance(y_col, (list, tuple))
        columns = [_values(table, name)[kept] for name in (y_col if several else [y_col])]
        return kept, np.stack(columns, axis=1) if several else columns[0], None
    if class_mode not in ("categorical", "binary", "sparse"):
        raise ValueError(
            f'class_mode={class_mode!r:.80} is not known: choose "categorical", "binary", "sparse", '
            '"input", "raw", "multi_output" or None.'
        )
    kinds = (str, list, tuple) if class_mode == "categorical" else str
    found = table.column(y_col).tolist()
    bad = next((k for k, label in enumerate(found) if not isinstance(label, kinds)), None)
    if bad is not None:
        raise TypeError(
            f"row {bad} of column {y_col!r:.80} has {found[bad]!r:.80}, but class_mode={class_mode!r:.80} "
            'needs texts: use dataframe[column].astype(str), or class_mode="raw" for numbers.'
        )
    lists = [[label] if isinstance(label, str) else list(label) for label in found]
    names = list(dict.fromkeys(classes)) if classes else sorted({n for k in kept for n in lists[k]})
    numbers = {name: k for k, name in enumerate(names)}
    if class_mode == "binary" and len(names) != 2:
        raise ValueError(
            f'class_mode="binary" is for two classes, column {y_col!r:.80} has {len(names)}: '
            f'{listed(names)}. Use "categorical" or "sparse".'
        )
    kept = [k for k in kept if any(name in numbers for name in lists[k])]
    codes = [[numbers[name] for name in lists[k] if name in numbers] for k in kept]
    labels = [
        c if isinstance(found[k], (list, tuple)) else c[0] for k, c in zip(kept, codes, strict=True)
    ]
    return kept, labels, names


def hot_rows(labels: Any, classes: int, dtype: np.dtype[Any]) -> Array:
    """Multi-hot rows: 1 for each class of a sample. A label is a class number, or a list of them."""
    rows = np.zeros((len(labels), classes), dtype)
    for row, label in zip(rows, labels, strict=True):
        row[label] = 1
    return rows


def _values(table: Table, name: str) -> Array:
    """A column of numbers, in its own dtype."""
    checked = table.numbers(name)
    values = table.column(name)
    # A column of Python objects has no such dtype: use the array that `numbers` made of it.
    return values if values.dtype.kind in "biuf" else checked
