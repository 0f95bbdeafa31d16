"""Columns of a table as a model's inputs and outputs, nested like the column names that the user passes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn
from kloaders.core.structure import Structure
from kloaders.sources.tables import Table, is_missing, listed

__all__ = ["LABEL_MODES", "Output", "column_weights", "inputs_of", "outputs_of"]

LABEL_MODES = ("int", "categorical", "multi_label")


@dataclass
class Output:
    """The labels of one output.

    values: the values of all rows. names: the class names; None if labels are numbers. one_hot: the
    number of classes if `values` are to become one-hot rows; None: deliver `values`.
    """

    values: Array
    names: list[str] | None = None
    one_hot: int | None = None


# ----------------------------------------------------------------------------------------- inputs


def inputs_of(table: Table, columns: Any, folder: str | None, packed: bool = False) -> Structure:
    """The inputs of all rows: paths for a column of texts, otherwise numbers.

    columns: the name of a column of paths; or a dict, or a list for a tuple of inputs, of column names
        and lists of these. A list of columns makes a row of numbers.
    packed: whether paths may be `PackedPaths`; otherwise they are lists.
    """
    paths = table.packed_paths if packed else table.paths
    if isinstance(columns, str):
        return paths(columns, folder)
    if isinstance(columns, (list, tuple)) and columns:
        return tuple(_input(table, column, folder, paths) for column in columns)
    if isinstance(columns, dict) and columns:
        return {name: _input(table, column, folder, paths) for name, column in columns.items()}
    raise TypeError(
        f"path_column is {columns!r:.80}, expected the name of a column, a list of them for several "
        'inputs, or a dict: {"photo": "file", "facts": ["age", "height"]}.'
    )


def _input(table: Table, column: Any, folder: str | None, paths: Callable[..., Any]) -> Any:
    if isinstance(column, (list, tuple)) and column:
        return _row(table, column)
    if isinstance(column, dict) or column in ([], ()):
        raise TypeError(
            f"path_column holds {column!r:.80}, expected the name of a column, or a list of columns "
            "of numbers."
        )
    values = table.column(column)
    texts = values.dtype.kind == "O" and any(
        isinstance(value, (str, os.PathLike)) for value in values[:1]
    )
    return paths(column, folder) if texts else table.numbers(column)


def _row(table: Table, columns: Any) -> Array:
    return np.stack([table.numbers(column) for column in columns], axis=1).astype(np.float32)


# ---------------------------------------------------------------------------------------- outputs


def outputs_of(table: Table, columns: Any, class_names: Any, mode: Any) -> Any:
    """An `Output`, or a dict of them.

    columns: the name of a column, a list of numeric columns, or a dict of these by output.
    class_names, mode: for all outputs, or dicts by output.
    """
    if not isinstance(columns, dict):
        return _output(table, columns, class_names, mode)
    if not columns:
        raise ValueError("label_column is an empty dict: name columns, or None for no labels.")
    for what, given in (("class_names", class_names), ("label_mode", mode)):
        wrong = None if not isinstance(given, dict) else next(iter(set(given) - set(columns)), None)
        if wrong is not None:
            raise ValueError(
                f"{what} names an output {wrong!r:.80}, but label_column has "
                f"{listed(list(map(str, columns)))}."
            )
    if class_names is not None and not isinstance(class_names, dict):
        raise TypeError(
            f"class_names is {class_names!r:.80}, but there are several outputs: pass a dict of "
            "lists, by output."
        )
    modes = mode if isinstance(mode, dict) else dict.fromkeys(columns, mode)
    return {
        name: _output(table, column, (class_names or {}).get(name), modes.get(name))
        for name, column in columns.items()
    }


def column_weights(table: Table, columns: Any, labels: Any) -> Any:
    """The weights of all rows: numbers, or a dict of them by output; 1 for outputs without weights.

    columns: the name of a column, or a dict of names by output. labels: the user's `label_column`.
    """
    if not isinstance(columns, dict):
        return table.numbers(columns)
    if not isinstance(labels, dict):
        raise TypeError(
            f"weight_column={columns!r:.80} names outputs, but label_column={labels!r:.80} has one: "
            "pass the name of a column of weights."
        )
    wrong = next((name for name in columns if name not in labels), None)
    if wrong is not None or not columns:
        said = f"names an output {wrong!r:.80}" if columns else "is an empty dict"
        raise ValueError(
            f"weight_column {said}, but label_column has {listed(list(map(str, labels)))}: name a "
            "column of weights for some of these."
        )
    found = {name: table.numbers(column) for name, column in columns.items()}
    ones = np.ones(table.rows or 0, np.float32)
    return {name: found.get(name, ones) for name in labels}


def _output(table: Table, column: Any, class_names: Any, mode: Any) -> Output:
    if mode not in (*LABEL_MODES, None):
        raise ValueError(
            f"label_mode={mode!r:.80} is not known: choose "
            f"{', '.join(map(repr, LABEL_MODES))}, or None to choose by the values."
        )
    if isinstance(column, (list, tuple)):
        if not column:
            raise ValueError("label_column is an empty list: name columns, or None for no labels.")
        if mode is not None:
            raise ValueError(
                f"label_mode={mode!r:.80} is for one column, but label_column is {len(column)} columns, "
                "which make a row of numbers: leave label_mode out."
            )
        return Output(_row(table, column))
    if mode == "multi_label" or (mode is None and _are_texts(table.first(column))):
        return _multi_hot(table, column, class_names)
    values, names = table.labels(column, class_names)
    if mode != "categorical":
        return Output(values, names)
    if values.dtype.kind not in "biu" or (len(values) and values.min() < 0):
        raise ValueError(
            f'label_mode="categorical" is for classes, texts or numbers from 0, but column '
            f"{column!r:.80} holds {values.dtype.name} such as {values[0]}."
        )
    count = len(names) if names is not None else int(values.max()) + 1
    return Output(values.astype(np.int32), names, count)


def _is_list(value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__len__")


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(isinstance(text, str) for text in value)


def _multi_hot(table: Table, column: str, class_names: Any) -> Output:
    """Rows of 0 and 1 from a column of lists, or of texts such as "a,b"."""
    rows, missing = [], 0
    for k, value in enumerate(table.items(column)):
        if not _is_list(value) and not isinstance(value, str):
            if not is_missing(value):
                raise ValueError(
                    f"{table.row(k)}: column {column!r:.80} holds {value!r:.80}, expected several labels: "
                    'a list such as ["a", "b"], or a text such as "a,b".'
                )
            missing += 1
            value = ""  # noqa: PLW2901  a missing text
        parts = value.split(",") if isinstance(value, str) else [_plain(v) for v in value]
        tags = [part.strip() if isinstance(part, str) else part for part in parts]
        rows.append([tag for tag in tags if tag != ""])
    if missing:
        warn(
            f"{missing:,} of {len(rows):,} rows have no value in column {column!r:.80}: they get no label."
        )
    distinct: set[Any] = {tag for row in rows for tag in row}
    texts = all(isinstance(tag, str) for tag in distinct)
    numbers = all(isinstance(tag, int) for tag in distinct)
    if not distinct or not (texts or numbers):
        raise ValueError(
            f"column {column!r:.80} holds {listed(sorted(map(repr, distinct))) or 'no label at all'}, "
            "expected lists of texts, or of class numbers."
        )
    names = None if class_names is None else list(class_names)
    if texts:
        names = sorted(distinct) if names is None else names
        places = {name: k for k, name in enumerate(names)}
    else:
        count = max(distinct) + 1 if names is None else len(names)
        places = {k: k for k in range(count)}
    values = np.zeros((len(rows), len(places)), np.float32)
    for k, row in enumerate(rows):
        for tag in row:
            if tag not in places:
                known = list(map(str, names or places))
                raise ValueError(
                    f"{table.row(k)}: {tag!r:.80} in column {column!r:.80} is not among class_names "
                    f"({listed(known)})."
                )
            values[k, places[tag]] = 1
    return Output(values, names)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
