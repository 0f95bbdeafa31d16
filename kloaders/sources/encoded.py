"""Samples that are decoded from the named values of a row: members of a tar file, columns of a table.

A subclass provides the values, and this module decodes them. A value is bytes (an image, the
content of an .npy file, or the input of `decode`), a text, a number, or an array.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import shortened
from kloaders.core.rows import Report, Rows, copy_into_row
from kloaders.core.structure import Structure, as_arrays, flatten, is_numeric, map_structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.image_headers import header_of
from kloaders.formats.images import decode_image, picture_of
from kloaders.formats.npy import decode_array
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.options import ImageOptions
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources.files import Decode, each_input
from kloaders.sources.source import Source
from kloaders.sources.tables import listed

__all__ = [
    "Block",
    "EncodedSource",
    "Field",
    "Pixels",
    "column_of",
    "fields_of",
    "json_value",
    "part_of",
]

#: Values of several samples by name; each is an array with one row per sample, or a list.
Block = Mapping[str, Any]


class Pixels:
    """An undecoded image array: gray, RGB or RGBA."""

    def __init__(self, array: Array) -> None:
        self.array = array


class Field:
    """How one array of a sample is made. Several threads may use it, and it can be pickled.

    Args:
        name: the value to use; a list of names makes a float32 row with one number from each value.
        options: how images are decoded; other values are cast to its dtype.
        decode: a function that returns the array for a value (bytes for an image).
        class_names: texts are replaced by their index in this list.
    """

    def __init__(
        self,
        name: str | list[str],
        options: ImageOptions,
        decode: Decode | None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.names = [name] if isinstance(name, str) else list(name)
        self.alone = isinstance(name, str)
        self.options, self.decode = options, decode
        self.class_names = None if class_names is None else list(class_names)
        self._numbers = {text: k for k, text in enumerate(class_names or ())}

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.names[0] if self.alone else listed(self.names)

    def described(self) -> tuple[Any, ...]:
        """The settings that determine the array, apart from the values and `decode`."""
        return tuple(self.names), self.alone, self.options, self.class_names

    # ------------------------------------------------------------------ one value

    def read(self, value: Any, out: Array | None) -> Array:
        """The array of one value; `out` itself if the value was written there.

        Raises DecodeError if the value has the wrong type, and any error of `decode`.
        """
        if value is None:
            raise DecodeError(
                f"{self.name!r:.80} is missing (null) in this sample: fill it in, or pass "
                "on_error='skip'."
            )
        encoded = isinstance(value, (bytes, bytearray, memoryview))
        if self.decode is not None:
            return self._cast(self._of_user(self.decode(bytes(value) if encoded else value)))
        if encoded:
            return self._of_bytes(bytes(value), out)
        if isinstance(value, Pixels):
            return picture_of(value.array, self.options, out, repr(self.name))
        if isinstance(value, str):
            return self._of_text(value)
        if isinstance(value, list) and value and isinstance(value[0], (bytes, Pixels)):
            return self._stacked([self.read(part, None) for part in value])
        return self._cast(self._array(value))

    def _of_bytes(self, raw: bytes, out: Array | None) -> Array:
        if self.class_names is not None and header_of(raw) is None:
            return self._of_text(raw.decode("utf-8", "replace"))
        if raw.startswith(b"\x93NUMPY"):
            own = out if self.options.dtype is None else None
            return self._cast(decode_array(raw, own, repr(self.name)))
        try:
            return decode_image(raw, self.options, out, repr(self.name))
        except DecodeError as error:
            if not raw:
                raise DecodeError(f"{self.name!r:.80} is empty (0 bytes).") from None
            raise DecodeError(
                f"{error} For bytes in another format pass decode=, a function of the bytes."
                if "is not an image" in str(error)
                else str(error)
            ) from error

    def _of_text(self, text: str) -> Array:
        if self.class_names is None:
            raise DecodeError(
                f"{self.name!r:.80} holds the text {shortened(text, 70)!r:.80}, expected numbers: pass "
                "class_names=[...] for class names, or a function of the text: decode= for "
                'x, label_options={"decode": ...} for y.'
            )
        number = self._numbers.get(text)
        if number is None:
            raise DecodeError(
                f"{self.name!r:.80} holds {shortened(text, 70)!r:.80}, which is not among class_names: "
                f"{listed(self.class_names)}."
            )
        return np.array(number, np.int32)

    def _of_user(self, value: Any) -> Array:
        got = as_arrays(value)
        if not isinstance(got, np.ndarray):
            raise TypeError(
                f"decode returned a {type(got).__name__} for {self.name!r:.80}, expected one array: for "
                'several inputs pass several values, x={"a": ..., "b": ...}.'
            )
        return got

    def _array(self, value: Any) -> Array:
        if isinstance(value, dict):
            raise DecodeError(
                f"{self.name!r:.80} holds a dictionary of {listed([repr(key) for key in value])}, expected "
                f'numbers: name one of its values, as "{self.name}:KEY", or pass decode=.'
            )
        try:
            found: Array = as_arrays(value)
        except TypeError as error:
            raise DecodeError(f"{self.name!r:.80}: {error}") from None
        return found

    def _stacked(self, arrays: list[Array]) -> Array:
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise DecodeError(
                f"{self.name!r:.80} holds images of {len(shapes)} shapes, such as "
                f"{listed(sorted(map(str, shapes)))}: pass size=(height, width)."
            )
        return np.stack(arrays)

    def _cast(self, array: Array) -> Array:
        dtype = self.options.dtype
        return array if dtype is None else array.astype(dtype, copy=False)

    # ------------------------------------------------------------------ many values

    def column(self, block: Block) -> Any:
        """The values: an array with one row each, as delivered, or a list of arguments for `read`."""
        if self.alone:
            values = block[self.names[0]]
            if not isinstance(values, np.ndarray) or self.decode is not None:
                return values
            return self._cast(values)
        rows = [self._one_number(name, block[name]) for name in self.names]
        found = np.stack(rows, axis=1).astype(np.float32, copy=False)
        return self._cast(found)

    def _one_number(self, name: str, values: Any) -> Array:
        if isinstance(values, np.ndarray) and values.ndim == 1:
            return values.astype(np.float32, copy=False)
        numbers = np.empty(len(values), np.float32)
        for k, value in enumerate(values):
            array = self._array(value) if value is not None else np.empty(0)
            if array.shape != ():
                what = "is missing (null)" if value is None else f"has the shape {array.shape}"
                raise DecodeError(f"{name!r:.80} {what} in this sample, expected one number.")
            numbers[k] = array
        return numbers


def fields_of(
    x: Any,
    y: Any,
    inputs: tuple[ImageOptions | dict[Any, ImageOptions], Decode | None],
    labels: tuple[ImageOptions, Decode | None],
    class_names: Sequence[str] | None,
) -> tuple[Structure, ...]:
    """A `Field` for each name, nested like a sample: (x,) or (x, y).

    inputs: the first item, image options, may be a dict by input name if x is a dict.

    Raises:
        TypeError: a name is not a string.
    """

    def field(part: str, decode: Any, names: Any) -> Callable[[Any, ImageOptions], Field]:
        def one(name: Any, options: ImageOptions) -> Field:
            many = isinstance(name, list) and name and all(isinstance(n, str) for n in name)
            if not isinstance(name, str) and not many:
                raise TypeError(
                    f"{part} holds {name!r:.80} ({type(name).__name__}), expected a name, a list of "
                    "names that make one row of numbers, or a tuple or dict of these."
                )
            return Field(name, options, decode, names)

        return one

    found: tuple[Structure, ...] = (each_input(field("x", inputs[1], None), x, inputs[0]),)
    if y is not None:
        found = (*found, each_input(field("y", labels[1], class_names), y, labels[0]))
    if not all(flatten(part) for part in found):
        raise ValueError("x or y is empty, expected at least one name.")
    return found


class EncodedSource(Source):
    """Samples that are made of named values. A subclass provides the values (`blocks`, `name`).

    Args:
        fields: how each array is made, nested like a sample.
    """

    reads_many = True
    #: How its files are opened.
    opener: Opener = LOCAL

    def __init__(self, fields: tuple[Structure, ...]) -> None:
        self.fields = fields
        self.runs_user_code = any(field.decode is not None for field in flatten(fields))
        #: Whether this package decodes some of the values, such as images.
        self.encoded = False

    @property
    def wanted(self) -> list[str]:
        """The names of the values that are read, without duplicates."""
        return list(dict.fromkeys(name for field in flatten(self.fields) for name in field.names))

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        """Yield these samples in groups: their positions in `indices`, and their values or an error."""
        raise NotImplementedError

    def file_of(self, index: int) -> str:
        """The file of a sample, one of `paths_of_all`."""
        raise NotImplementedError

    @property
    def paths_of_all(self) -> list[str]:
        """The files that contain the samples; empty if samples are not in files."""
        return []

    @property
    def file_firsts(self) -> Indices:
        """The number of the first sample in each of these files, followed by the number of samples."""
        return np.zeros(1, np.int64)

    def names_of(self, index: int) -> tuple[str, ...]:
        """The names by which an exclude list may refer to a sample."""
        return (self.name(index),)

    @property
    def kind(self) -> str:
        """What identifies these samples in a cache, in addition to their files."""
        return type(self).__name__

    def ranges(self, indices: Indices) -> Iterable[tuple[str, int, int]]:
        """The byte ranges of files that these samples are read from (path, start, end excluded)."""
        return ()

    def fetch_ranges(self, indices: Indices, only_new: bool = False) -> list[Claim]:
        """Begin to fetch the remote data of these samples."""
        return self.opener.fetch_ahead(self.ranges(indices), only_new)

    @property
    def token(self) -> str | None:
        """A digest of the values for a folder cache; None if their files identify them."""
        return None

    def labels_in(self, blocks: Callable[[str], Iterable[Any]]) -> Array | None:
        """The labels of all samples, if each is one number or class; otherwise None.

        blocks: `blocks(name)` yields all values of that name, several at a time.
        """
        labels = flatten(self.fields[1]) if len(self.fields) > 1 else []
        if len(labels) != 1 or not labels[0].alone or labels[0].decode is not None:
            return None
        field, found = labels[0], []
        try:
            for values in blocks(field.name):
                column = field.column({field.name: values})
                if not isinstance(column, np.ndarray):
                    if column and not isinstance(column[0], (str, int, float, np.generic)):
                        return None
                    column = np.array([field.read(value, None) for value in column])
                if column.ndim != 1:
                    return None
                found.append(column)
        except (DecodeError, ValueError):  # raised again when that sample is read
            return None
        return np.concatenate(found) if found else None

    def settle(self, tries: int) -> None:
        """Read the first readable sample to find out whether this package decodes images."""
        for index in range(min(tries, len(self))):
            for _, block in self.blocks(np.array([index], np.int64)):
                if isinstance(block, Exception):
                    continue
                self.encoded = any(
                    isinstance(field.column(block)[0], (bytes, Pixels))
                    and field.class_names is None
                    for field in flatten(self.fields)
                    if field.alone and field.decode is None
                )
                return

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        ((_, block),) = self.blocks(np.array([index], np.int64))
        if isinstance(block, Exception):
            raise block
        found: tuple[Any, ...] = map_structure(
            lambda field: _value(field, field.column(block), 0, None), self.fields
        )
        return found

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        fields = flatten(self.fields)
        for rows, block in self.blocks(indices):
            stall_watch.at(self, int(indices[rows[0]]))
            if isinstance(block, Exception):
                for row in rows:
                    report(row, block)
                continue
            failed: set[int] = set()
            for leaf, field in enumerate(fields):
                self._fill_leaf(leaf, field, block, rows, indices, out.arrays[leaf], report, failed)

    def _fill_leaf(
        self,
        leaf: int,
        field: Field,
        block: Block,
        rows: list[int],
        indices: Indices,
        out: Array,
        report: Report,
        failed: set[int],
    ) -> None:
        try:
            values = field.column(block)
        except Exception as error:
            if len(rows) == 1:
                _report(report, rows[0], error, failed)
                return
            for row in rows:  # one at a time, to find the sample at fault
                for _, one in self.blocks(indices[[row]]):
                    if isinstance(one, Exception):
                        _report(report, row, one, failed)
                    else:
                        self._fill_leaf(leaf, field, one, [row], indices, out, report, failed)
            return
        if (
            isinstance(values, np.ndarray)
            and values.shape[1:] == out.shape[1:]
            and values.dtype == out.dtype
        ):
            out[rows] = values
            return
        for k, row in enumerate(rows):
            target = out[row, ...]
            try:
                got = _value(field, values, k, target)
                if got is not target:
                    copy_into_row(got, out, row, leaf, report)
            except Exception as error:  # a user's decode failed for this sample
                _report(report, row, error, failed)

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        if dtype_differs:
            return "Pass dtype=, or convert in decode=."
        return "Pass size=(height, width) for images; kl.padded_batches(loader) pads lists."


def _report(report: Report, row: int, error: Exception, failed: set[int]) -> None:
    """Report a row only once, even if several of its arrays fail."""
    if row not in failed:
        failed.add(row)
        report(row, error)


def _value(field: Field, values: Any, k: int, out: Array | None) -> Array:
    """The array of the k-th sample, from the values of several samples."""
    if isinstance(values, np.ndarray) and field.decode is None:
        found: Array = np.array(values[k])
        if not is_numeric(found.dtype):
            raise DecodeError(f"{field.name!r:.80} holds {found.dtype}, expected numbers.")
        return found
    return field.read(values[k], out)


def json_value(raw: bytes, path: str, name: str) -> Any:
    """The value at "key:key" in a JSON text; "" for the whole text.

    Raises DecodeError if the text is not JSON, or lacks the key.
    """
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise DecodeError(f"{name!r:.80} is not JSON: {error}.") from None
    return part_of(value, path, name)


def part_of(value: Any, path: str, name: str) -> Any:
    """The value at "key:key" in nested dicts and lists; "" for the whole value.

    Raises DecodeError if it lacks the key.
    """
    for key in filter(None, path.split(":")):
        try:
            value = value[key] if isinstance(value, dict) else value[int(key)]
        except (KeyError, IndexError, TypeError, ValueError):
            has = f", it has {listed([repr(k) for k in value])}" if isinstance(value, dict) else ""
            raise DecodeError(f"{name!r:.80} has no {key!r:.80}{has}.") from None
    return value


def column_of(name: str, names: list[str]) -> str:
    """The column that a name refers to, as a whole or in part."""
    if name in names:
        return name
    column = name.partition(":")[0]
    if column not in names:
        raise ValueError(f"there is no column {name!r:.80}, the columns are {listed(names)}.")
    return column
