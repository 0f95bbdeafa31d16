"""`class_weight=`: class weights, as weights of the samples, pixels or steps of a batch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.structure import Structure, flatten, map_structure, names_of
from kloaders.sources.columns import values_of
from kloaders.sources.source import Source

__all__ = ["ClassWeights", "class_weights_of"]

_FORM = 'expected a dict of class to weight, {0: 1.0, 1: 9.0}, or "balanced"'
# The maximum difference between the sum of a one-hot label and 1.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ClassWeights:
    """Class weights.

    Attributes:
        given: the option as the user passed it.
        tables: a `_Table` for all labels, or one for each output, nested like the labels; None for none.
    """

    given: Any
    tables: Structure

    def __str__(self) -> str:
        """A short text that identifies the weights."""
        return " ".join(
            "1"
            if t is None
            else " ".join(f"{c}:{w:g}" for c, w in zip(t.classes, t.weights, strict=True))
            for t in flatten(self.tables)
        )

    def __call__(self, y: Structure) -> Structure:
        """The weights of a batch with these labels, float32; 1 for outputs without a table.

        Raises:
            ValueError: a label's class has no weight, or outputs do not match.
        """
        return _by_output(self.tables, y, "y")


class _Table:
    """The weight of each class of one output."""

    def __init__(self, classes: Array, weights: Array, balanced: bool) -> None:
        self.classes, self.weights, self.balanced = classes, weights, balanced
        plain = np.array_equal(classes, np.arange(len(classes)))
        #: The weight of class k at position k; None if classes are not numbered from 0.
        self.row = weights if plain else None

    def __call__(self, y: Array, name: str) -> Array:
        integers = y.dtype.kind in "biu"
        if integers and y.ndim == 2 and y.shape[1] == len(self.classes) > 1:
            raise ValueError(
                f"{name} has {y.shape[1]} integers per sample, and class_weight has {y.shape[1]} classes: is "
                "that a one-hot row, or a class for each step? Pass one-hot rows as float32, and "
                f"classes of steps with a last axis of 1: {name}[..., None]."
            )
        if y.ndim > 1 and y.shape[-1] == 1:
            y = y[..., 0]
        elif y.ndim > 1 and not integers:
            return self._of_rows(y, name)
        if not integers and self.classes.tolist() == [0, 1] and np.all((y >= 0) & (y <= 1)):
            share = y.astype(np.float32)  # including soft labels of two classes
            return np.asarray(self.weights[0] * (1 - share) + self.weights[1] * share)
        places = np.searchsorted(self.classes, y)
        places[places == len(self.classes)] = 0
        wrong = np.flatnonzero(self.classes[places].reshape(-1) != y.reshape(-1))
        if wrong.size:
            raise self._unknown(y.reshape(-1)[wrong[0]], name)
        return np.asarray(self.weights[places])

    def _of_rows(self, y: Array, name: str) -> Array:
        """Weights of rows with a share of each class: one-hot or soft labels."""
        row, count = self.row, y.shape[-1]
        if row is not None and self.balanced and len(row) < count:  # classes without a sample
            row = np.concatenate([row, np.ones(count - len(row), np.float32)])
        if row is None or len(row) != count:
            raise ValueError(
                f"{name} has rows of {count} numbers, but class_weight has the classes "
                f"{self.classes.tolist()!s:.60}: pass a weight for each of the classes 0 to "
                f"{count - 1}; if rows are not one-hot, pass class numbers as integers."
            )
        if np.any(np.abs(y.sum(axis=-1, dtype=np.float64) - 1) > _TOLERANCE):
            raise ValueError(
                f"{name} has rows that do not sum to 1, but class_weight is for one class per sample: pass "
                "class numbers as integers, or weight several tags in the loss, or with sample_weights=."
            )
        return np.asarray(y.astype(np.float32) @ row)

    def _unknown(self, value: Any, name: str) -> ValueError:
        known = self.classes.tolist()
        return ValueError(
            f"{name} holds {value}, but class_weight has the classes {known!s:.60}: add it, "
            f"{{..., {value:g}: 1.0}}; a weight of 0 ignores samples without a class."
        )


def _by_output(tables: Structure, y: Structure, name: str) -> Structure:
    if isinstance(tables, _Table):
        if isinstance(y, (tuple, dict)):
            raise ValueError(
                f"{name} has several outputs, but class_weight is for one: name each, as in "
                'class_weight={"a": {0: 1.0, 1: 9.0}, "b": "balanced"}.'
            )
        return tables(y, name)
    if tables is None:
        return map_structure(lambda label: np.ones(len(label), np.float32), y)
    if isinstance(tables, dict):
        unknown = [key for key in tables if not isinstance(y, dict) or key not in y]
        if unknown:
            outputs = ", ".join(map(repr, y)) if isinstance(y, dict) else "no names"
            raise ValueError(
                f"class_weight is for the output {unknown[0]!r:.80}, but the outputs have {outputs}: "
                "use the names of y."
            )
        return {key: _by_output(tables.get(key), y[key], f"{name}[{key!r}]") for key in y}
    if not isinstance(y, tuple) or len(y) != len(tables):
        raise ValueError(
            f"class_weight is a tuple of {len(tables)}, but labels are not such a tuple: pass one entry "
            "for each output, None for those without."
        )
    return tuple(
        _by_output(t, label, f"{name}[{k}]")
        for k, (t, label) in enumerate(zip(tables, y, strict=True))
    )


# --------------------------------------------------------------------------- the user's option


def class_weights_of(given: Any, source: Source | None) -> ClassWeights | None:
    """Turn `class_weight=` into tables.

    Args:
        given: the option; None for none.
        source: the source whose classes are counted for "balanced"; None: classes are unknown.

    Raises:
        TypeError, ValueError: it is not a set of class weights; or labels are not known beforehand.
    """
    if given is None:
        return None
    columns = source.columns if source is not None else None
    labels = columns[1] if columns is not None and len(columns) > 1 else None
    return ClassWeights(given, _tables(given, labels, "class_weight"))


def _tables(given: Any, labels: Structure, name: str) -> Structure:
    if given is None:
        return None
    if isinstance(given, str):
        return _balanced(given, labels, name)
    if isinstance(given, tuple):
        inner = labels if isinstance(labels, tuple) and len(labels) == len(given) else None
        return tuple(
            _tables(one, None if inner is None else inner[k], f"{name}[{k}]")
            for k, one in enumerate(given)
        )
    if not isinstance(given, Mapping) or not given:
        raise TypeError(
            f"{name}={given!r:.80}, {_FORM}; for an array of weights pass dict(enumerate(weights))."
        )
    if all(isinstance(key, str) for key in given):
        for key, one in given.items():
            if not isinstance(one, (Mapping, str, tuple, type(None))):
                raise TypeError(
                    f"{name} has the key {key!r:.80} with {one!r:.80}: classes are numbers, as in "
                    '{0: 1.0, 1: 9.0}, and names are those of outputs, {"a": {0: 1.0, 1: 9.0}}.'
                )
        known = labels if isinstance(labels, dict) else {}
        return {k: _tables(one, known.get(k), f"{name}[{k!r}]") for k, one in given.items()}
    classes, weights = [], []
    for key, weight in given.items():
        try:
            classes.append(operator.index(key))
        except TypeError:
            raise TypeError(
                f"{name} has the class {key!r:.80}, expected the number of a class, as in the labels."
            ) from None
        number = isinstance(weight, (int, float, np.number)) and np.isreal(weight)
        if not number or not 0 <= weight < np.inf:
            raise ValueError(
                f"{name}[{key}] is {weight!r:.80}, expected a finite number of at least 0."
            )
        weights.append(float(weight))
    order = np.argsort(classes, kind="stable")
    return _Table(np.array(classes)[order], np.array(weights, np.float32)[order], False)


def _balanced(given: str, labels: Structure, name: str) -> _Table:
    if given != "balanced":
        raise ValueError(f"{name}={given!r:.80}, {_FORM}.")
    if isinstance(labels, (tuple, dict)):
        raise ValueError(
            f'{name}="balanced", but there are several outputs: name each, '
            f'{{{names_of(labels, "")[0].strip("[]") if flatten(labels) else ""}: "balanced"}}.'
        )
    values = None if labels is None else values_of(labels)
    if values is None:
        raise ValueError(
            f'{name}="balanced" counts labels, but these are unknown before they are read (or there '
            f"are none): count them once, and pass {name}={{class: samples / (classes * count)}}."
        )
    if values.ndim > 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2 and values.dtype.kind == "f":
        counts = values.sum(axis=0)
        if np.any(np.abs(values.sum(axis=1) - 1) > _TOLERANCE):
            counts = np.zeros(0)
        classes = np.arange(len(counts))
    else:
        classes, counts = np.unique(values, return_counts=True)
    if not len(classes) or not np.all(classes == np.floor(classes)):
        raise ValueError(
            f'{name}="balanced" needs labels that are classes, integers or one-hot rows: pass a dict '
            "of class to weight, or leave it out."
        )
    weights = np.ones(len(classes), np.float32)
    there = counts > 0
    weights[there] = counts.sum() / (there.sum() * counts[there])
    return _Table(classes.astype(np.int64), weights, True)
