"""Which features of a record become x and y, and how each becomes an array. No files, no order."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.checks import checked_dtype
from kloaders.core.structure import Structure, as_arrays, flatten, map_structure
from kloaders.formats import images
from kloaders.formats.errors import DecodeError
from kloaders.formats.image_headers import image_shape
from kloaders.formats.npy import decode_array
from kloaders.formats.options import ImageOptions
from kloaders.formats.tfrecord.examples import (
    BYTES,
    FLOAT,
    INT64,
    Found,
    features_of,
    packed,
    values_of,
)
from kloaders.sources.tables import listed

__all__ = ["Feature", "Leaf", "Slot", "guessed", "leaves_of", "resolved"]

Decode = Callable[[bytes], Any]
Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Feature:
    """How one feature of a record becomes an array.

    A name alone is enough where the record says the rest: pictures are decoded, arrays that
    `write_tfrecords` wrote have their shape beside them, and a single number is a number.

    Args:
        name: of the feature in the record; by default the key under which this object stands.
        shape: of one sample. One dimension may be None, which follows from the values: such
            samples may differ in it from batch to batch.
        dtype: of numbers: to which they are cast. Of bytes: what they hold, little-endian.
        default: the value where a record lacks the feature.
        decode: a function of the feature's bytes that gives its array.

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
                    f"shape={self.shape!r:.80} of feature {self.name!r:.80}: expected sizes, of which at "
                    "most one is None."
                )
            object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", checked_dtype(self.dtype))
        if self.decode is not None and not callable(self.decode):
            raise TypeError(f"decode={self.decode!r:.80} is not a function of a feature's bytes.")


# ------------------------------------------------------------------------------ what a user gives


def resolved(features: Any) -> dict[str, Structure]:
    """{"x": ..., "y": ...} with a `Feature` at every leaf.

    Raises TypeError or ValueError where `features` is something else.
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
            f"features is {got}, expected which features are x and y: "
            'features={"x": "image_raw", "y": "label"}; several inputs are a tuple or dict: '
            '{"x": {"a": "name of a", "b": "name of b"}}. None looks at the first record.'
        )
    parts = {}
    if features.get("w") is not None and features.get("y") is None:
        raise ValueError(
            'features has "w" and no "y": Keras weights a loss, and without labels there is none. Name '
            "the labels too, or leave the weights out."
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
    """From tf.io's FixedLenFeature, FixedLenSequenceFeature, VarLenFeature or RaggedFeature."""
    if getattr(value, "partitions", ()):
        raise TypeError(
            f"features: {key!r:.80} is a RaggedFeature with partitions, expected one without: its "
            "values are read as one axis."
        )
    dtype = getattr(value.dtype, "as_numpy_dtype", value.dtype)
    text = np.dtype(dtype).kind in "OSU"
    shape: Any = getattr(value, "shape", (None,))
    shape = tuple(shape.as_list() if hasattr(shape, "as_list") else shape)
    if hasattr(value, "allow_missing"):  # FixedLenSequenceFeature
        shape = (None, *shape)
    return Feature(
        getattr(value, "value_key", None) or key,
        # What a text's bytes hold has a shape of its own.
        shape=None if text else shape,
        dtype=None if text else dtype,
        default=getattr(value, "default_value", None),
    )


# --------------------------------------------------------------------------------------- guessing

# What others call the label of a picture.
_LABELS = ("label", "labels", "y", "target", "targets", "class", "category", "image/class/label")
_SHAPE, _DTYPE = "/shape", "/dtype"


def guessed(record: bytes, decode: Decode | None) -> tuple[dict[str, Structure], str]:
    """Which features of this record are x and y, and the same in words.

    x is what holds a picture or an array (with `decode`: the longest bytes), else all numbers; y is
    a number called like a label, or the only one beside a picture.

    Raises ValueError where there is nothing that could be x.
    """
    try:
        found = {name: f for name, f in features_of(record).items() if f.kind}
    except DecodeError:
        if decode is None:
            raise
        found = {}
    if not found and decode is not None:
        return {"x": Feature("")}, "x is decode(record)"
    arrays = [name for name in found if name + _SHAPE in found]
    own = {name + end for name in arrays for end in (_SHAPE, _DTYPE)}
    numbers = [n for n, f in found.items() if f.kind in (FLOAT, INT64) and n not in own]
    texts = {n: values_of(record, f) for n, f in found.items() if f.kind == BYTES and n not in own}
    pictures = [n for n, v in texts.items() if n in arrays or (v and _is_picture(v[0]))]
    if decode is not None and texts:
        pictures = [max(texts, key=lambda n: sum(map(len, texts[n])))]
    labels = [n for n in sorted(found) if n.lower() in _LABELS and n not in own]
    y = min(labels, key=lambda n: _LABELS.index(n.lower())) if labels else None
    inputs = sorted(n for n in {*pictures, *(n for n in arrays if n in numbers)} if n != y)
    if not inputs:
        inputs = sorted(n for n in numbers if n != y)
    elif y is None:
        others = [n for n in numbers if n not in inputs]
        y = others[0] if len(others) == 1 else None
    if y is not None and y in texts and y not in arrays:
        y = None  # a label in words
    if not inputs:
        raise ValueError(
            f"the first record has {_described(record, found)}, of which none is a picture, an "
            "array or a number to train on. Say what is what: "
            'features={"x": kl.Feature("NAME", shape=(28, 28, 1), dtype="uint8"), "y": "NAME"}, or '
            "decode=, a function of a feature's bytes."
        )
    x: Structure = Feature(inputs[0]) if len(inputs) == 1 else {n: Feature(n) for n in inputs}
    parts = {"x": x} if y is None else {"x": x, "y": Feature(y)}
    said = "x is " + ", ".join(map(repr, inputs)) + ("" if y is None else f", y is {y!r:.80}")
    left = sorted(set(found) - set(inputs) - own - {y})
    return parts, said + (f"; left out: {', '.join(left)}" if left else "")


def _is_picture(raw: bytes) -> bool:
    return image_shape(raw) is not None or raw.startswith(b"\x93NUMPY")


def _described(record: bytes, found: dict[str, Found]) -> str:
    kinds = {BYTES: "bytes", FLOAT: "float", INT64: "int64"}
    said = [
        f"{name!r:.80} ({len(values_of(record, f))} {kinds[f.kind]})" for name, f in found.items()
    ]
    return listed(said) if said else "no features"


# ----------------------------------------------------------------------------- from bytes to array


class Slot(NamedTuple):
    """Where in a record the values of a leaf lie as one block, and as what."""

    start: int
    stop: int
    stored: np.dtype[Any] | None  # None: varints
    shape: tuple[int, ...]


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    little: np.dtype[Any] = dtype.newbyteorder("<")
    return little


class Leaf:
    """One array of a sample, from one feature of its record. Threads share it; it pickles.

    feature: which, and what is known of it.
    options: how pictures are decoded; its dtype is what values are cast to, None for none.
    decode: for bytes that say nothing of themselves, if the feature has no such function.
    """

    def __init__(self, feature: Feature, options: ImageOptions, decode: Decode | None) -> None:
        self.feature = feature
        self.name: str = feature.name or ""
        self.decode = feature.decode or decode
        self.cast = options.dtype
        pixels = feature.dtype if options.dtype is None else options.dtype
        self.options = replace(options, dtype=pixels)
        #: Whether the first record has one number, so that it is a number and no list of one.
        self.single = False
        #: Whether the first record has a picture or the like, which takes time to decode.
        self.encoded = False

    def described(self) -> tuple[Any, ...]:
        """What decides its array besides the record, and `decode`."""
        feature = self.feature
        known = (self.name, feature.shape, feature.dtype, feature.default, self.single)
        return *known, self.options, self.cast

    def settle(self, record: bytes, found: dict[str, Found]) -> None:
        """Look at a first record: what it does not tell is an error that says how to."""
        here = found.get(self.name)
        if self.name and (here is None or not here.kind) and self.feature.default is None:
            close = difflib.get_close_matches(self.name, list(found), 1)
            meant = f" Did you mean {close[0]!r:.80}?" if close else ""
            raise ValueError(f"{self._lacks(found)}{meant}")
        self.encoded = here is not None and here.kind == BYTES and not self.slot(record, found)
        if here is not None and here.kind in (FLOAT, INT64):
            self.single = len(values_of(record, here)) == 1
        elif here is None and self.feature.default is not None:
            self.single = np.ndim(self.feature.default) == 0
        elif here is not None and self.decode is None and self.feature.dtype is None:
            values = values_of(record, here)
            if values and self.name + _DTYPE not in found and not _is_picture(values[0]):
                try:
                    images.decode_image(values[0], self.options)
                except DecodeError:
                    raise ValueError(
                        f"feature {self.name!r:.80} holds {len(values[0])} bytes that are no picture; "
                        f"they begin with {values[0][:12]!r:.80}. Say what they are: "
                        f'kl.Feature({self.name!r:.80}, shape=(28, 28, 1), dtype="uint8") for raw '
                        f"values, or kl.Feature({self.name!r:.80}, decode=...), a function of the "
                        "bytes, for texts and formats of your own."
                    ) from None

    def read(self, record: bytes, found: dict[str, Found], out: Array | None) -> Array:
        """The array. `out` itself where the value was put there, else another one.

        Raises DecodeError where the record has something else, and whatever decode raises.
        """
        if not self.name:
            return self._from_user(record)
        here = found.get(self.name)
        values = [] if here is None or not here.kind else values_of(record, here)
        if here is None or not here.kind or (not len(values) and self.feature.default is not None):
            if self.feature.default is None:
                raise DecodeError(self._lacks(found))
            return self._default()
        if here.kind != BYTES:
            array = self._shaped(np.asarray(values), self._shape(record, found))
        elif len(values) == 1:
            array = self._content(values[0], record, found, out)
            self._check_shape(array)
        elif values:
            array = np.stack([self._content(value, record, found, None) for value in values])
        else:
            raise DecodeError(f"its feature {self.name!r:.80} is an empty list of bytes.")
        return array if array is out else self._casted(array)

    def _lacks(self, found: dict[str, Found]) -> str:
        return (
            f"it has no feature {self.name!r:.80}, it has {listed(sorted(map(repr, found)))}. "
            f"kl.Feature({self.name!r:.80}, default=0) fills in where it is missing."
        )

    def _check_shape(self, array: Array) -> None:
        want = self.feature.shape
        if want is None or (
            len(want) == array.ndim
            and all(n in (None, m) for n, m in zip(want, array.shape, strict=True))
        ):
            return
        raise DecodeError(
            f"its feature {self.name!r:.80} is an array of shape {array.shape}, expected {want}. "
            "Pass size=(height, width) for pictures, or leave shape= out."
        )

    def _casted(self, array: Array) -> Array:
        dtype = self.cast or self.feature.dtype
        return array if dtype is None else array.astype(dtype, copy=False)

    def _default(self) -> Array:
        value = np.asarray(self.feature.default)
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        shape = self.feature.shape
        if shape is not None and None not in shape:
            value = np.broadcast_to(value, tuple(n or 0 for n in shape)).copy()
        return self._casted(value)

    def _shape(self, record: bytes, found: dict[str, Found]) -> Shape:
        """The shape that its values have, as far as it is known."""
        if self.feature.shape is not None:
            return self.feature.shape
        beside = found.get(self.name + _SHAPE)
        if beside is not None and beside.kind == INT64:
            return tuple(values_of(record, beside).tolist())
        return () if self.single else (None,)

    def _shaped(self, values: Array, shape: Shape) -> Array:
        if shape == (None,):
            return values
        known = math.prod(n for n in shape if n is not None)
        count = len(values)
        if (count != known) if None not in shape else (known == 0 or count % known):
            if shape == () and self.feature.shape is None:
                raise DecodeError(
                    f"its feature {self.name!r:.80} has {count} values, and the first record one. "
                    f"kl.Feature({self.name!r:.80}, shape=(None,)) reads lists of any length."
                )
            raise DecodeError(
                f"its feature {self.name!r:.80} has {count} values, which make no array of shape "
                f"{shape}."
            )
        return values.reshape(tuple(-1 if n is None else n for n in shape))

    def _stored(self, size: int, record: bytes, found: dict[str, Found]) -> np.dtype[Any] | None:
        """The dtype of `size` raw bytes; None where they are encoded somehow."""
        if self.feature.decode is not None:
            return None
        beside = found.get(self.name + _DTYPE)
        if beside is not None and beside.kind == BYTES:
            name = values_of(record, beside)[0].decode("utf-8", "replace")
            try:
                known: np.dtype[Any] = np.dtype(name)
            except TypeError:
                raise DecodeError(
                    f"its feature {self.name!r:.80} holds {name}, which NumPy does not know: import the "
                    "module that defines this type first, such as ml_dtypes."
                ) from None
            return _little(known)
        stored: np.dtype[Any] | None = self.feature.dtype
        if stored is None or self.decode is not None:
            return None
        shape = self.feature.shape
        if shape is not None and None not in shape:
            fits = size == math.prod(n or 0 for n in shape) * stored.itemsize
            return _little(stored) if fits else None
        return _little(stored)

    def _content(
        self, raw: bytes, record: bytes, found: dict[str, Found], out: Array | None
    ) -> Array:
        stored = self._stored(len(raw), record, found)
        if stored is not None and not (
            self.name + _DTYPE not in found and self.feature.shape is None and _is_picture(raw)
        ):
            if len(raw) % stored.itemsize:
                raise DecodeError(
                    f"its feature {self.name!r:.80} has {len(raw)} bytes, which are no values of "
                    f"{stored.itemsize} bytes each ({stored.name})."
                )
            values = np.frombuffer(raw, stored).astype(stored.newbyteorder("="))
            return self._shaped(values, self._shape(record, found))
        if self.decode is not None:
            return self._from_user(raw)
        if raw.startswith(b"\x93NUMPY"):
            return decode_array(raw, out if self.cast is None else None, self._said())
        if self.feature.dtype is not None and not _is_picture(raw):
            raise DecodeError(
                f"its feature {self.name!r:.80} has {len(raw)} bytes, which make no array of shape "
                f"{self.feature.shape} and dtype {self.feature.dtype}."
            )
        return images.decode_image(raw, self.options, out, self._said())

    def _said(self) -> str:
        return f"its feature {self.name!r:.80}"

    def _from_user(self, raw: bytes) -> Array:
        assert self.decode is not None
        got = as_arrays(self.decode(raw))
        if not isinstance(got, np.ndarray):
            raise TypeError(
                f"decode gave a {type(got).__name__}, expected one array: several inputs are "
                'several features, features={"x": {...}}.'
            )
        return self._casted(got)

    def slot(self, record: bytes, found: dict[str, Found]) -> Slot | None:
        """Where this record has the values as they are delivered, but for a cast; or None."""
        here = found.get(self.name)
        if here is None or len(here.spans) != 1:
            return None
        start, stop = here.spans[0]
        block = packed(record, start, stop)
        if block is None:
            return None
        stored: np.dtype[Any] | None = None
        if here.kind == BYTES:
            stored = self._stored(block[1] - block[0], record, found)
            if stored is None or (self.feature.shape is None and self.name + _DTYPE not in found):
                return None
            count = (block[1] - block[0]) // stored.itemsize
        elif here.kind == FLOAT:
            stored = np.dtype("<f4")
            count = (block[1] - block[0]) // 4
        else:
            content = np.frombuffer(record, np.uint8, block[1] - block[0], block[0])
            count = int(np.count_nonzero(content < 0x80))
        shape = self._shaped(np.empty(count, np.uint8), self._shape(record, found)).shape
        return Slot(*block, stored, shape)


def leaves_of(
    parts: dict[str, Structure],
    options: ImageOptions,
    label_options: ImageOptions,
    decode: Decode | None,
    decode_label: Decode | None,
) -> tuple[Structure, ...]:
    """A `Leaf` for each `Feature`, in the form of a sample: (x,), (x, y) or (x, y, weights)."""
    x = map_structure(lambda feature: Leaf(feature, options, decode), parts["x"])
    if "y" not in parts:
        return (x,)
    y = map_structure(lambda feature: Leaf(feature, label_options, decode_label), parts["y"])
    if "w" not in parts:
        return x, y
    floats = replace(label_options, dtype=np.dtype(np.float32))
    return x, y, map_structure(lambda feature: Leaf(feature, floats, None), parts["w"])
