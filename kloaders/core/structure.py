"""Nested tuples and dicts of arrays: the structure of a sample and of a batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ArraySpec",
    "Structure",
    "as_arrays",
    "as_sample",
    "as_texts",
    "as_weights",
    "cast",
    "check_no_texts",
    "flatten",
    "in_words",
    "is_numeric",
    "is_text",
    "map_structure",
    "names_of",
    "padded_rows",
    "same_structure",
    "sample_parts",
    "spec_of",
    "texts_as_str",
    "transformed_parts",
    "unflatten",
    "without_specs",
]

# A leaf, or a tuple or dict of structures. A list is a leaf: Keras rejects lists inside a batch.
Structure = Any


@dataclass(frozen=True)
class ArraySpec:
    """Shape (without the batch axis) and dtype of one array of a sample; None: varies between samples."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def known(self) -> bool:
        return None not in self.shape

    @functools.cached_property
    def fixed(self) -> tuple[int, ...]:
        """The shape, with 1 for dimensions that are unknown or 0."""
        return tuple(n or 1 for n in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes per sample; an unknown dimension counts as 1."""
        return math.prod(self.fixed) * self.dtype.itemsize


def map_structure(function: Callable[..., Any], first: Structure, *rest: Structure) -> Structure:
    """Apply `function` to corresponding leaves of structures with the same nesting."""
    if isinstance(first, dict):
        return {k: map_structure(function, v, *(r[k] for r in rest)) for k, v in first.items()}
    if isinstance(first, tuple):
        return tuple(map_structure(function, *leaves) for leaves in zip(first, *rest, strict=True))
    return function(first, *rest)


def flatten(structure: Structure) -> list[Any]:
    """The leaves, in a fixed order."""
    if not isinstance(structure, (tuple, dict)):
        return [structure]
    found: list[Any] = []
    _collect(structure, found)
    return found


def _collect(structure: Structure, found: list[Any]) -> None:
    for value in structure.values() if isinstance(structure, dict) else structure:
        if isinstance(value, (tuple, dict)):
            _collect(value, found)
        else:
            found.append(value)


def names_of(structure: Structure, name: str) -> list[str]:
    """A readable name for each leaf, in the order of `flatten`.

    >>> names_of({"a": 1, "b": (2, 3)}, "x")
    ["x['a']", "x['b'][0]", "x['b'][1]"]
    """
    if isinstance(structure, dict):
        parts = structure.items()
    elif isinstance(structure, tuple):
        parts = dict(enumerate(structure)).items()
    else:
        return [name]
    return [leaf for key, part in parts for leaf in names_of(part, f"{name}[{key!r}]")]


def unflatten(structure: Structure, leaves: list[Any]) -> Structure:
    """A structure nested like `structure`, with these leaves: the inverse of `flatten`."""
    if type(structure) is tuple:
        for part in structure:
            if isinstance(part, (tuple, dict)):
                break
        else:  # the usual (x, y)
            return tuple(leaves)
    return _unflattened(structure, iter(leaves))


def _unflattened(structure: Structure, left: Iterator[Any]) -> Structure:
    if isinstance(structure, dict):
        return {key: _unflattened(value, left) for key, value in structure.items()}
    if isinstance(structure, tuple):
        return tuple(
            [
                _unflattened(v, left) if isinstance(v, (tuple, dict)) else next(left)
                for v in structure
            ]
        )
    return next(left)


def same_structure(a: Structure, b: Structure) -> bool:
    """Whether both are nested in the same way; leaves are ignored.

    >>> same_structure((1, {"a": 2}), (3, {"a": 4})), same_structure((1, 2), 1)
    (True, False)
    """
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(same_structure(v, b[k]) for k, v in a.items())
        )
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same_structure, a, b))
    return not isinstance(b, (tuple, dict))


def spec_of(sample: Structure) -> Structure:
    """The ArraySpec of every leaf of one sample."""
    return map_structure(lambda leaf: ArraySpec(leaf.shape, leaf.dtype), sample)


def sample_parts(value: Any) -> tuple[Any, ...]:
    """Turn x, (x,), (x, y) or (x, y, weights) into a tuple of arrays; weights become float32."""
    if not isinstance(value, tuple):
        return (value,)
    if len(value) not in (1, 2, 3):
        raise TypeError(
            f"a sample is a tuple of {len(value)} parts, expected x, (x, y) or (x, y, weights). "
            "Put several inputs into a tuple or dict: ((x1, x2), y)."
        )
    for array in flatten(value[1]) if len(value) > 1 else ():
        if is_text(array.dtype):
            raise TypeError(
                f"a label is the text {array.ravel()[:1].tolist()!r:.80}, expected numbers: pass the "
                "number of its class. Only inputs may be texts."
            )
    return value if len(value) < 3 else (*value[:2], as_weights(value[2]))


def as_weights(arrays: Structure) -> Structure:
    """Weights of one or several samples, as float32.

    Raises:
        TypeError: the weights are not real numbers.
    """
    for array in flatten(arrays):
        if array.dtype.kind not in "biuf" and array.dtype.isbuiltin != 2:
            raise TypeError(f"weights are {array.dtype}, expected real numbers.")
    return cast(arrays, np.dtype(np.float32))


def as_sample(value: Any) -> tuple[Any, ...]:
    """A hook's result, x, (x, y) or (x, y, weights), as a tuple of native numeric arrays."""
    return sample_parts(as_arrays(value))


def transformed_parts(got: Any, what: str) -> tuple[Any, ...]:
    """A transform's result as a tuple of native arrays; `what` is the transform's name."""
    if not isinstance(got, tuple) or len(got) not in (2, 3):
        many = f" of {len(got)}" if isinstance(got, tuple) else ""
        raise TypeError(
            f"{what} returned a {type(got).__name__}{many}, expected a tuple (x, y), or (x, y, "
            "weights); y is None if there are no labels."
        )
    if got[-1] is None and len(got) == 3:
        got = got[:2]
    if got[1] is None and len(got) == 3:
        raise TypeError(
            f"{what} returned weights without labels: Keras applies weights to a loss, and without labels "
            "there is none. Return (x, None)."
        )
    return as_sample(got if got[1] is not None else (got[0],))


def as_arrays(value: Any) -> Any:
    """Every leaf as a native numeric array, or as an array of texts (`as_texts`)."""

    def leaf(v: Any) -> np.ndarray[Any, Any]:
        if isinstance(v, np.ma.MaskedArray):
            raise TypeError(
                "got a masked array, and its mask would be lost: fill it with array.filled(0), and return "
                "weights of 0 for the masked values."
            )
        try:
            a = np.asarray(v)
        except ValueError:  # a ragged list
            raise TypeError(
                f"got a list of {len(v)} items that is not an array, expected numbers: return a tuple "
                "(x, y) for an input and its label, not a list."
            ) from None
        if not is_numeric(a.dtype):
            texts = as_texts(a)
            if texts is None:
                raise TypeError(
                    f"got {a.dtype} ({str(v)[:60]!r:.80}), expected numbers or texts: a batch holds "
                    "numeric arrays, and arrays of str."
                )
            return texts
        if a.dtype == np.float64 and isinstance(v, (float, list)):
            return a.astype(np.float32)  # Python's floats express no choice of precision
        return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))

    return map_structure(leaf, value)


def cast(arrays: Structure, dtype: np.dtype[Any]) -> Structure:
    """Arrays converted to another dtype. Texts stay; arrays of that dtype are not copied."""
    return map_structure(lambda a: a if is_text(a.dtype) else a.astype(dtype, copy=False), arrays)


def padded_rows(rows: np.ndarray[Any, Any], missing: int) -> np.ndarray[Any, Any]:
    """The rows, followed by `missing` copies of the first row."""
    return np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether a batch may hold this dtype: numbers, and registered types such as ml_dtypes.bfloat16."""
    return dtype.kind in "biufc" or dtype.isbuiltin == 2


def is_text(dtype: np.dtype[Any]) -> bool:
    """Whether an array of this dtype holds texts: in batches, they are str in an object array."""
    return dtype.kind == "O"


def as_texts(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """An array of NumPy strings, or of objects that are all str, as objects; None for any other array."""
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind == "O" and all(isinstance(one, str) for one in array.ravel().tolist()):
        return array
    return None


def texts_as_str(x: Structure) -> Structure:
    """The argument for a function of one sample: a single text becomes a str, arrays stay arrays."""
    if isinstance(x, np.ndarray):
        return x.item() if is_text(x.dtype) and not x.ndim else x
    return map_structure(texts_as_str, x)


def check_no_texts(sample: Structure, what: str, instead: str) -> None:
    """Raise TypeError if a sample with these specs contains a text; `instead` is the advice."""
    for name, spec in zip(names_of(sample[0], "x"), flatten(sample[0]), strict=True):
        if is_text(spec.dtype):
            raise TypeError(
                f"{what} is for numbers, and {name:.80} of a sample is a text: {instead}."
            )


def in_words(spec: ArraySpec) -> str:
    """A readable name for an array of a sample.

    >>> in_words(ArraySpec((2,), np.dtype(np.uint8))), in_words(ArraySpec((), np.dtype(object)))
    ('uint8(2,)', 'text()')
    """
    return f"{'text' if is_text(spec.dtype) else spec.dtype}{spec.shape}"


def without_specs(form: Structure) -> Structure:
    """The structure of a sample without its leaves, so that they need not be sent."""
    return map_structure(lambda _: None, form)
