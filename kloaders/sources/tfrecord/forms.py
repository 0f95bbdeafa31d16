"""The structure of samples, which `write_tfrecords` stores in the first records of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.structure import Structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.pack import dtype_named
from kloaders.formats.tfrecord.examples import (
    BYTES,
    array_features,
    encode_example,
    features_of,
    values_of,
)
from kloaders.sources.tfrecord.features import Feature

__all__ = ["FORM", "FORMS", "Form", "feature_of", "features_for", "form_among"]

# The feature that contains it, and the number of records at the start of each file that have it, so
# that it is not lost if one of them is damaged.
FORM, FORMS = "kloaders/form", 3
_VERSION = 1


@dataclass(frozen=True)
class Form:
    """The structure, dtypes and class names of samples.

    parts: for "x", "y" and "w", the features, nested like the arrays of a sample. class_names: a list,
    or a dict of lists by output.
    """

    parts: dict[str, Structure]
    class_names: Any = None

    def example(self) -> bytes:
        """A tf.train.Example with only this feature; appended to another Example, it adds the feature."""
        said = {part: _written(structure) for part, structure in self.parts.items()}
        content = {"version": _VERSION, **said, "class_names": self.class_names}
        return encode_example({FORM: json.dumps(content)})


def features_for(name: str, array: Array, label: bool = False) -> dict[str, Any]:
    """The features for one array, in the form that parsers expect, and without loss of digits.

    Labels become lists of int64 or float32. If these do not hold the exact value, it is also stored
    as raw bytes in a feature called `NAME/DTYPE`.
    """
    found = array_features(name, _expected(array) if label else array)
    if _is_cut(array, label):
        raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        exact = f"{name}/{array.dtype.name}"
        found |= array_features(exact, array) if array.ndim else {exact: raw.tobytes()}
    return found


def feature_of(name: str, array: Array | None, label: bool = False) -> Feature:
    """How to read an array stored by `features_for`; None: as its file specifies."""
    if array is None:
        return Feature(name)
    # For arrays with more axes, the shape is in a second feature.
    shape: Any = {0: (), 1: (None,)}.get(array.ndim)
    if _is_cut(array, label):
        return Feature(f"{name}/{array.dtype.name}", shape, array.dtype)
    stored = _expected(array).dtype if label or not array.ndim else array.dtype
    return Feature(name, shape, None if stored == array.dtype else array.dtype)


def _expected(value: Array) -> Array:
    """A label as TensorFlow's parsers expect it: int64 or float32."""
    value = value.real if value.dtype.kind == "c" else value
    return value.astype(np.int64 if value.dtype.kind in "biu" else np.float32)


def _is_cut(array: Array, label: bool) -> bool:
    """Whether a list of float32 does not hold the exact value."""
    return (label or not array.ndim) and array.dtype.kind in "fc" and array.dtype.itemsize > 4


def form_among(read: Callable[[int], bytes], first: int, count: int) -> Form | None:
    """The form in some records of a file; the first readable record decides.

    Raises:
        ValueError: the form has a newer version.
    """
    for index in range(first, first + min(count, FORMS)):
        try:
            record = read(index)
            found = features_of(record).get(FORM)
        except (OSError, DecodeError):
            continue
        return _read(values_of(record, found)[0]) if found and found.kind == BYTES else None
    return None


def _read(raw: bytes) -> Form | None:
    try:
        content = json.loads(raw)
        version = content["version"]
        if version == _VERSION:
            parts = {part: _parsed(content[part]) for part in "xyw" if part in content}
            names = content["class_names"]
            if isinstance(names, dict):
                return Form(
                    parts, {output: list(map(str, those)) for output, those in names.items()}
                )
            return Form(parts, None if names is None else list(map(str, names)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # not written by this package
    raise ValueError(
        f"its feature {FORM!r:.80} has version {version!r:.80}, but this kloaders reads {_VERSION}: "
        "upgrade kloaders, or specify the features with features={...}."
    )


def _written(structure: Structure) -> Any:
    if isinstance(structure, dict):
        return {"dict": {key: _written(value) for key, value in structure.items()}}
    if isinstance(structure, tuple):
        return {"tuple": [_written(value) for value in structure]}
    dtype = structure.dtype
    return [structure.name, structure.shape, None if dtype is None else dtype.name]


def _parsed(content: Any) -> Structure:
    if isinstance(content, list):
        name, shape, dtype = content
        return Feature(name, shape, None if dtype is None else dtype_named(dtype))
    if "dict" in content:
        return {key: _parsed(value) for key, value in content["dict"].items()}
    return tuple(map(_parsed, content["tuple"]))
