"""Which features of a record become x and y, as specified by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kloaders.core.checks import checked_dtype
from kloaders.core.structure import Structure, flatten
from kloaders.sources.tables import listed

__all__ = ["Decode", "Feature", "Shape", "resolved"]

Decode = Callable[[bytes], Any]
Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Feature:
    """How one feature of a record becomes an array.

    A name alone is enough if the record contains the rest: images are decoded, arrays written by
    `write_tfrecords` have their shape in another feature, and a single number is a number.

    Args:
        name: the name of the feature in the record; by default the key of this object in `features=`.
        shape: the shape of one sample. One dimension may be None; it then follows from the number of
            values, and may differ between batches.
        dtype: for numbers, the dtype to cast them to; for bytes, the dtype of their little-endian
            content.
        default: the value if a record lacks the feature.
        decode: a function of the feature's bytes that returns an array.

    >>> Feature("pixels", shape=(28, 28, 1), dtype="uint8")
    Feature(name='pixels', shape=(28, 28, 1), dtype=dtype('uint8'), default=None, decode=None)
    """

    name: str | None = None
    shape: Shape | None = None
    dtype: Any = None
    default: Any = None
    decode: Decode | None = None

    def __post_init__(self) -> None:
        if self.shape is not None:
            shape = (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)
            if sum(n is None for n in shape) > 1 or any(n is not None and n < 0 for n in shape):
                raise ValueError(
                    f"shape={self.shape!r:.80} of feature {self.name!r:.80}: expected sizes, at "
                    "most one of which is None."
                )
            object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", checked_dtype(self.dtype))
        if self.decode is not None and not callable(self.decode):
            raise TypeError(f"decode={self.decode!r:.80} is not a function of a feature's bytes.")


# ------------------------------------------------------------------------------ the user's features=


def resolved(features: Any) -> dict[str, Structure]:
    """{"x": ..., "y": ...} with a `Feature` at every leaf.

    Raises TypeError or ValueError if `features` is anything else.
    """
    if isinstance(features, str):
        return {"x": Feature(features)}
    if not isinstance(features, dict) or "x" not in features or set(features) - {"x", "y", "w"}:
        got = (
            f"a dict of {listed([repr(k) for k in features])}"
            if isinstance(features, dict)
            else repr(features)
        )
        raise ValueError(
            f"features is {got}, expected the features that are x and y: "
            'features={"x": "image_raw", "y": "label"}; several inputs are a tuple or dict: '
            '{"x": {"a": "name of a", "b": "name of b"}}. None examines the first record.'
        )
    parts = {}
    if features.get("w") is not None and features.get("y") is None:
        raise ValueError(
            'features has "w" but no "y": Keras applies weights to a loss, and without labels there is none. '
            "Name the labels as well, or leave the weights out."
        )
    for part in ("x", "y", "w"):
        if features.get(part) is not None:
            parts[part] = _resolved(features[part], part)
            if not flatten(parts[part]):
                raise ValueError(f"features[{part!r:.80}] is empty, expected at least one feature.")
    return parts


def _resolved(value: Any, key: str) -> Structure:
    if isinstance(value, dict):
        return {k: _resolved(v, k) for k, v in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        return tuple(_resolved(v, f"{key}[{k}]") for k, v in enumerate(value))
    if isinstance(value, str):
        return Feature(value)
    if isinstance(value, Feature):
        return value if value.name is not None else replace(value, name=key)
    if hasattr(value, "dtype") and not hasattr(value, "index_key"):
        return _from_tensorflow(value, key)
    raise TypeError(
        f"features: {key!r:.80} is {value!r:.80}, expected a feature's name, a kl.Feature, or a "
        "tf.io.FixedLenFeature, VarLenFeature or RaggedFeature."
    )


def _from_tensorflow(value: Any, key: str) -> Feature:
    """Convert tf.io's FixedLenFeature, FixedLenSequenceFeature, VarLenFeature or RaggedFeature."""
    if getattr(value, "partitions", ()):
        raise TypeError(
            f"features: {key!r:.80} is a RaggedFeature with partitions, expected one without: its "
            "values are read as one axis."
        )
    dtype = getattr(value.dtype, "as_numpy_dtype", value.dtype)
    text = np.dtype(dtype).kind in "OSU"
    shape: Any = getattr(value, "shape", (None,))
    shape = tuple(shape.as_list() if hasattr(shape, "as_list") else shape)
    if hasattr(value, "allow_missing"):  # a FixedLenSequenceFeature
        shape = (None, *shape)
    # As in TensorFlow, a missing feature of variable length is 0.
    empty = () if None in shape else None
    default = getattr(value, "default_value", None)
    return Feature(
        getattr(value, "value_key", None) or key,
        # The content of a string's bytes has its own shape.
        shape=None if text else shape,
        dtype=None if text else dtype,
        default=empty if None in shape else default,
    )
