"""Converts a feature of a record to an array."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import shortened
from kloaders.core.structure import Structure, as_arrays, map_structure
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
    packed,
    values_of,
)
from kloaders.sources.files import each_input
from kloaders.sources.tables import listed
from kloaders.sources.tfrecord.features import Decode, Feature, Shape
from kloaders.sources.tfrecord.pixels import pixels_in

__all__ = ["DTYPE", "SHAPE", "Leaf", "Slot", "is_picture", "leaves_of"]

# Additional features that `write_tfrecords` stores for an array.
SHAPE, DTYPE = "/shape", "/dtype"


def is_picture(raw: bytes) -> bool:
    """Whether bytes begin like an image or an .npy file."""
    return image_shape(raw) is not None or raw.startswith(b"\x93NUMPY")


class Slot(NamedTuple):
    """Where in a record the values of a leaf are, as one block, and their type."""

    start: int
    stop: int
    stored: np.dtype[Any] | None  # None for varints
    shape: tuple[int, ...]


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    little: np.dtype[Any] = dtype.newbyteorder("<")
    return little


class Leaf:
    """One array of a sample, from one feature of its record. It can be pickled and used by many threads.

    feature: the feature, and its known properties.
    options: how images are decoded, and the dtype to cast to; None for no cast.
    decode: for bytes of unknown format, if the feature itself has no decode function.
    class_names: texts are replaced by their index in this list.
    """

    def __init__(
        self,
        feature: Feature,
        options: ImageOptions,
        decode: Decode | None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.feature = feature
        self.name: str = feature.name or ""
        self.decode = feature.decode or decode
        self.class_names = (
            None if self.decode is not None or class_names is None else list(class_names)
        )
        self.cast = options.dtype
        pixels = feature.dtype if options.dtype is None else options.dtype
        self.options = replace(options, dtype=pixels)
        #: Whether the first record has a single number, so that the value is a number, not a list.
        self.single = False
        #: Whether the first record has an image or similar, which takes time to decode.
        self.encoded = False

    def described(self) -> tuple[Any, ...]:
        """The settings that determine the array, apart from the record and `decode`."""
        feature = self.feature
        known = (self.name, feature.shape, feature.dtype, feature.default, self.single)
        return *known, self.options, self.cast, self.class_names

    def settle(self, record: bytes, found: dict[str, Found]) -> None:
        """Examine the first record; raise an error with advice if information is missing."""
        here = found.get(self.name)
        if self.name and (here is None or not here.kind) and self.feature.default is None:
            close = difflib.get_close_matches(self.name, set(found) - {self.name}, 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{self._lacks(found)}{meant}")
        words = here is not None and self._holds_words(record, here)
        self.encoded = (
            here is not None and here.kind == BYTES and not words and not self.slot(record, found)
        )
        if self.feature.default is not None and (here is None or not len(values_of(record, here))):
            self.single = np.ndim(self.feature.default) == 0
        elif here is not None and (here.kind in (FLOAT, INT64) or words):
            first = next((s for s in here.steps or () if s.kind), here)
            self.single = len(values_of(record, first)) == 1
        elif here is not None and self.decode is None and self.feature.dtype is None:
            values = values_of(record, here)
            known = self.name + DTYPE in found or not values
            if (
                not known
                and not is_picture(values[0])
                and self._pixels(values[0], record, found) is None
            ):
                try:
                    images.decode_image(values[0], self.options)
                except DecodeError:
                    raise ValueError(
                        f"feature {self.name!r:.80} holds {len(values[0])} bytes that are not an image; "
                        f"they begin with {values[0][:12]!r:.80}. Specify what they are: "
                        f'kl.Feature({self.name!r:.80}, shape=(28, 28, 1), dtype="uint8") for raw '
                        f"values, or kl.Feature({self.name!r:.80}, decode=...), a function of the "
                        "bytes, for texts and your own formats."
                    ) from None

    def read(self, record: bytes, found: dict[str, Found], out: Array | None) -> Array:
        """The array of a record; `out` itself if the values were written there.

        Raises DecodeError if the record does not fit, and any error of `decode`.
        """
        if not self.name:
            return self._from_user(record)
        here = found.get(self.name)
        values = [] if here is None or not here.kind else values_of(record, here)
        if here is None or not here.kind or (not len(values) and self.feature.default is not None):
            if self.feature.default is None:
                raise DecodeError(self._lacks(found))
            return self._default()
        if here.steps is not None:
            array = self._of_steps(here.steps, record, found)
        elif here.kind != BYTES:
            array = self._shaped(np.asarray(values), self._shape(record, found))
        elif self._holds_words(record, here):
            array = self._shaped(self._codes(values), self._shape(record, found))
        elif len(values) == 1:
            array = self._content(values[0], record, found, out)
            self._check_shape(array)
        elif values:
            array = np.stack([self._content(value, record, found, None) for value in values])
        else:
            raise DecodeError(f"its feature {self.name!r:.80} is an empty list of bytes.")
        return array if array is out else self._casted(array)

    def _holds_words(self, record: bytes, here: Found) -> bool:
        """Whether the feature's texts are class names."""
        if self.class_names is None or here.kind != BYTES:
            return False
        values = values_of(record, here)
        return not (values and is_picture(values[0]))

    def _codes(self, values: list[bytes]) -> Array:
        names = self.class_names or []
        codes = np.empty(len(values), np.int32)
        for k, value in enumerate(values):
            text = value.decode("utf-8", "replace")
            if text not in names:
                raise DecodeError(
                    f"its feature {self.name!r:.80} holds {shortened(text, 80)!r:.80}, which is not among "
                    f"class_names: {listed(names)}."
                )
            codes[k] = names.index(text)
        return codes

    def _of_steps(self, steps: list[Found], record: bytes, found: dict[str, Found]) -> Array:
        """The array from a list of a SequenceExample; its first axis is the steps."""
        lists = [values_of(record, step) for step in steps]
        sizes = {len(values) for values in lists}
        if len(sizes) > 1:
            raise DecodeError(
                f"its list {self.name!r:.80} has steps of {listed(sorted(map(str, sizes)))} values, expected "
                "the same number in each: choose other features, or pass decode= and features=None."
            )
        flat = [value for values in lists for value in values]
        if any(step.kind == BYTES for step in steps):
            if any(self._holds_words(record, step) for step in steps):
                array = self._codes(flat)
            elif self.decode is None and self.feature.dtype is not None and not is_picture(flat[0]):
                parts = [np.frombuffer(value, _little(self.feature.dtype)) for value in flat]
                if len({len(part) for part in parts}) > 1:
                    raise DecodeError(f"its list {self.name!r:.80} has steps of different lengths.")
                array = np.concatenate(parts).astype(self.feature.dtype)
                sizes = {len(parts[0])}
            else:
                array = np.stack([self._content(value, record, found, None) for value in flat])
                self._check_shape(array)
                return array
        else:
            array = np.asarray(flat, np.concatenate(lists).dtype if lists else np.float32)
        shape: Shape = (len(steps), *sizes)
        if self.feature.shape is not None:
            shape = self.feature.shape
        elif self.single and sizes == {1}:
            shape = (len(steps),)
        return self._shaped(array, shape)

    def _pixels(self, raw: bytes, record: bytes, found: dict[str, Found]) -> Array | None:
        """Raw pixels, if the record contains height and width and nothing specifies another format."""
        if self.decode is not None or self.feature.dtype is not None:
            return None
        return pixels_in(raw, self.name, record, found)

    def holds_pixels(self, record: bytes, found: dict[str, Found]) -> bool:
        """Whether the image is raw pixels, recognized by the height and width in other features."""
        values = values_of(record, found[self.name])
        raw = values[0] if len(values) else b""
        return not is_picture(raw) and self._pixels(raw, record, found) is not None

    def _lacks(self, found: dict[str, Found]) -> str:
        if self.name in found:
            return (
                f"its feature {self.name!r} is empty: it has neither bytes nor numbers. "
                f"kl.Feature({self.name!r}, default=0) fills in missing values."
            )
        return (
            f"it has no feature {self.name!r}, it has {listed(sorted(map(repr, found)))}. "
            f"kl.Feature({self.name!r}, default=0) fills in missing values."
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
            "Pass size=(height, width) for images, or leave shape= out."
        )

    def _casted(self, array: Array) -> Array:
        dtype = self.cast or self.feature.dtype
        return array if dtype is None else array.astype(dtype, copy=False)

    def _default(self) -> Array:
        value = np.asarray(self.feature.default)
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        if self.class_names is not None and not value.size:
            return value.astype(np.int32)
        shape = self.feature.shape
        if shape is not None and None not in shape:
            value = np.broadcast_to(value, tuple(n or 0 for n in shape)).copy()
        elif shape is not None and not value.size:
            value = value.reshape(tuple(n or 0 for n in shape))
        return self._casted(value)

    def _shape(self, record: bytes, found: dict[str, Found]) -> Shape:
        """The shape of the values, as far as it is known."""
        if self.feature.shape is not None:
            return self.feature.shape
        beside = found.get(self.name + SHAPE)
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
                    f"its feature {self.name!r:.80} has {count} values, but the first record has one. "
                    f"kl.Feature({self.name!r:.80}, shape=(None,)) reads lists of any length."
                )
            raise DecodeError(
                f"its feature {self.name!r:.80} has {count} values, which do not make an array of shape "
                f"{shape}."
            )
        return values.reshape(tuple(-1 if n is None else n for n in shape))

    def _stored(self, size: int, record: bytes, found: dict[str, Found]) -> np.dtype[Any] | None:
        """The dtype of `size` raw bytes; None if they are encoded."""
        if self.feature.decode is not None:
            return None
        beside = found.get(self.name + DTYPE)
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
            self.name + DTYPE not in found and self.feature.shape is None and is_picture(raw)
        ):
            if len(raw) % stored.itemsize:
                raise DecodeError(
                    f"its feature {self.name!r:.80} has {len(raw)} bytes, which are not a whole number of "
                    f"{stored.itemsize}-byte values ({stored.name})."
                )
            values = np.frombuffer(raw, stored).astype(stored.newbyteorder("="))
            return self._shaped(values, self._shape(record, found))
        if self.decode is not None:
            return self._from_user(raw)
        if raw.startswith(b"\x93NUMPY"):
            return decode_array(raw, out if self.cast is None else None, self._said())
        if self.feature.dtype is not None and not is_picture(raw):
            raise DecodeError(
                f"its feature {self.name!r:.80} has {len(raw)} bytes, which do not make an array of shape "
                f"{self.feature.shape} and dtype {self.feature.dtype}."
            )
        pixels = None if is_picture(raw) else self._pixels(raw, record, found)
        if pixels is not None:
            return images.picture_of(pixels, self.options, out, self._said())
        return images.decode_image(raw, self.options, out, self._said())

    def _said(self) -> str:
        return f"its feature {self.name!r}"

    def _from_user(self, raw: bytes) -> Array:
        assert self.decode is not None
        got = as_arrays(self.decode(raw))
        if not isinstance(got, np.ndarray):
            raise TypeError(
                f"decode returned a {type(got).__name__}, expected one array: several inputs are "
                'several features, features={"x": {...}}.'
            )
        return self._casted(got)

    def slot(self, record: bytes, found: dict[str, Found]) -> Slot | None:
        """Where this record has the values as they are delivered, apart from a cast; None if it has not."""
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
            if stored is None or (self.feature.shape is None and self.name + DTYPE not in found):
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
    options: ImageOptions | dict[Any, ImageOptions],
    label_options: ImageOptions,
    decode: Decode | None,
    decode_label: Decode | None,
    class_names: Sequence[str] | None = None,
) -> tuple[Structure, ...]:
    """A `Leaf` for each `Feature`, nested like a sample: (x,), (x, y) or (x, y, weights).

    options: image options for the inputs, or a dict by input if x is a dict.
    """

    def leaf(feature: Feature, options: ImageOptions) -> Leaf:
        return Leaf(feature, options, decode)

    x = each_input(leaf, parts["x"], options)
    if "y" not in parts:
        return (x,)
    labels = label_options, decode_label, class_names
    y = map_structure(lambda feature: Leaf(feature, *labels), parts["y"])
    if "w" not in parts:
        return x, y
    floats = replace(label_options, dtype=np.dtype(np.float32))
    return x, y, map_structure(lambda feature: Leaf(feature, floats, None), parts["w"])
