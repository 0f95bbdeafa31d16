"""Reads and writes tf.train.Example messages without TensorFlow.

The messages are those of tensorflow/core/example/example.proto and feature.proto:

    Example {Features features = 1}    Features {map<string, Feature> feature = 1}
    Feature {oneof {BytesList = 1, FloatList = 2, Int64List = 3}}, each {repeated value = 1}

in protobuf's wire format (protobuf.dev/programming-guides/encoding). A map is repeated entries
{key = 1, value = 2}. Numbers are packed in one block, as all newer writers store them, or stored one
by one; a reader must accept both.

TFRecord has no arrays. This package stores an array as a list of values, with its shape in another
feature (`array_features`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord.sequences import check_no_list_with_context, list_entries

__all__ = [
    "BYTES",
    "FLOAT",
    "INT64",
    "KINDS",
    "Found",
    "array_features",
    "encode_example",
    "features_of",
    "parse_example",
    "values_of",
]


# The field numbers of the lists in Feature.
BYTES, FLOAT, INT64 = 1, 2, 3
KINDS = {0: "nothing", BYTES: "bytes", FLOAT: "float", INT64: "int64"}

_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5


class Found(NamedTuple):
    """A feature in a record: its kind, and the positions of its lists (nearly always one).

    steps: for a list of a SequenceExample its steps, each a feature; None for all others.
    """

    kind: int
    spans: list[tuple[int, int]]
    steps: list[Found] | None = None


# --------------------------------------------------------------------------------------- reading


def _varint(record: bytes, at: int, end: int) -> tuple[int, int]:
    """A varint, and the position after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = record[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise _malformed(at)


def _malformed(at: int) -> DecodeError:
    return DecodeError(
        f"it is not a tf.train.Example: byte {at} of its data cannot be parsed. For other records "
        "pass decode= and features=None, or write the file again."
    )


def _fields(record: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message between two bytes: number, wire type, and the position of the value."""
    while at < end:
        tag = record[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(record, at - 1, end)
        wire = tag & 7
        if wire == _BLOCK:
            if at < end and record[at] < 0x80:
                size, at = record[at], at + 1
            else:
                size, at = _varint(record, at, end)
            stop = at + size
        elif wire == _VARINT:
            _, stop = _varint(record, at, end)
        elif wire == _FIXED32:
            stop = at + 4
        elif wire == _FIXED64:
            stop = at + 8
        else:
            raise _malformed(at - 1)
        if stop > end or tag < 8:
            raise _malformed(at)
        yield tag >> 3, wire, at, stop
        at = stop


def features_of(record: bytes) -> dict[str, Found]:
    """The features of an Example or SequenceExample by name: kinds and positions, without values.

    The lists of a SequenceExample are included; one with the same name as a feature of the context is
    called "feature_lists/NAME".

    Raises DecodeError if the bytes are not an Example.
    """
    features: dict[str, Found] = {}
    lists: dict[str, Found] = {}
    for number, wire, start, stop in _fields(record, 0, len(record)):
        if number == 2 and wire == _BLOCK:
            for name, steps in list_entries(record, start, stop, _fields):
                found = [_feature_at(record, a, z) for a, z in steps]
                kind = next((step.kind for step in found if step.kind), 0)
                lists[name] = Found(kind, [], found)
        if number != 1 or wire != _BLOCK:
            continue
        for inner, inner_wire, at, end in _fields(record, start, stop):
            if inner != 1 or inner_wire != _BLOCK:
                continue
            key, feature = b"", None
            for part, part_wire, first, last in _fields(record, at, end):
                if part_wire != _BLOCK:
                    continue
                if part == 1:
                    key = record[first:last]
                elif part == 2:
                    feature = _feature_at(record, first, last, feature)
            if feature is None:
                check_no_list_with_context(key, _fields)
            features[key.decode("utf-8", "replace")] = feature or Found(0, [])
    for name, found_list in lists.items():
        features[f"feature_lists/{name}" if name in features else name] = found_list
    return features


def _feature_at(record: bytes, start: int, stop: int, before: Found | None = None) -> Found:
    """The Feature between two bytes; before: a part of it that was already read."""
    kind, spans = before[:2] if before else (0, [])
    for which, wire, a, z in _fields(record, start, stop):
        if wire == _BLOCK and which in (BYTES, FLOAT, INT64):
            # In a oneof the last one counts; the parts of one message are merged.
            spans = [*spans, (a, z)] if which == kind else [(a, z)]
            kind = which
    return Found(kind, spans)


def values_of(record: bytes, found: Found) -> Any:
    """The values of a feature: a list of bytes, or a one-dimensional float32 or int64 array.

    For a list of a SequenceExample, the values of all steps, concatenated.

    Raises DecodeError if a list is damaged.
    """
    if found.steps is not None:
        parts = [values_of(record, step) for step in found.steps if step.kind == found.kind]
        if found.kind == BYTES:
            return [value for part in parts for value in part]
        return np.concatenate(parts) if parts else []
    if found.kind == BYTES:
        return [
            record[a:z]
            for start, stop in found.spans
            for number, wire, a, z in _fields(record, start, stop)
            if number == 1 and wire == _BLOCK
        ]
    read = {FLOAT: _floats, INT64: _integers}.get(found.kind)
    if read is None:
        return []
    lists = [read(record, start, stop) for start, stop in found.spans]
    return lists[0] if len(lists) == 1 else np.concatenate(lists)


def parse_example(record: bytes, names: Any = None) -> dict[str, Any]:
    """All features of an Example, or those in `names` that it has; values as in `values_of`.

    >>> parse_example(encode_example({"label": 7, "name": "cat"}))["name"]
    [b'cat']
    """
    found = features_of(record)
    return {
        name: values_of(record, feature)
        for name, feature in found.items()
        if feature.kind and (names is None or name in names)
    }


def _floats(record: bytes, start: int, stop: int) -> Array:
    size = stop - start
    if size == 0:
        return np.empty(0, np.float32)
    block = packed(record, start, stop)
    if block is not None:
        if (block[1] - block[0]) % 4:
            raise _malformed(block[1])
        count = (block[1] - block[0]) // 4
        return np.frombuffer(record, "<f4", count, block[0]).astype(np.float32)
    if size % 5 == 0:  # stored one by one: a tag and four bytes each
        rows = np.frombuffer(record, np.uint8, size, start).reshape(-1, 5)
        if (rows[:, 0] == (1 << 3 | _FIXED32)).all():
            return rows[:, 1:].copy().view("<f4")[:, 0].astype(np.float32)
    parts = [
        np.frombuffer(record[a:z], "<f4") if (z - a) % 4 == 0 else _no_floats(z)
        for number, wire, a, z in _fields(record, start, stop)
        if number == 1 and wire in (_BLOCK, _FIXED32)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts]).astype(np.float32)


def _no_floats(at: int) -> Array:
    raise _malformed(at)


def _integers(record: bytes, start: int, stop: int) -> Array:
    if start == stop:
        return np.empty(0, np.int64)
    block = packed(record, start, stop)
    if block is not None:
        return varints(record, *block)
    if record[start] == 1 << 3 | _VARINT:
        # Stored one by one: a tag and a number each, and a tag is a varint as well.
        both = varints(record, start, stop)
        if len(both) % 2 == 0 and (both[::2] == record[start]).all():
            return both[1::2]
    parts = [
        varints(record, a, z)
        for number, wire, a, z in _fields(record, start, stop)
        if number == 1 and wire in (_BLOCK, _VARINT)
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])


def packed(record: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """The position of a list's values if they are one packed block; otherwise None."""
    if stop - start < 2 or record[start] != 1 << 3 | _BLOCK:
        return None
    size, at = _varint(record, start + 1, stop)
    return (at, stop) if at + size == stop else None


def varints(record: bytes, start: int, stop: int) -> Array:
    """All varints between two bytes as int64, decoded together."""
    if stop - start == 1 and record[start] < 0x80:
        return np.array([record[start]], np.int64)
    content = np.frombuffer(record, np.uint8, stop - start, start)
    if not len(content):
        return np.empty(0, np.int64)
    ends = np.flatnonzero(content < 0x80)
    if len(ends) == len(content):
        return content.astype(np.int64)
    if not len(ends) or ends[-1] != len(content) - 1:
        raise _malformed(stop)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    longest = int(sizes.max())
    if longest > 10:
        raise _malformed(start)
    values = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        has = sizes > place
        bits = (content[starts[has] + place] & 0x7F).astype(np.uint64)
        values[has] |= bits << np.uint64(7 * place)
    return values.view(np.int64)


# --------------------------------------------------------------------------------------- writing


def encode_example(features: Mapping[str, Any]) -> bytes:
    """Encode an Example; the result is the same for the same features, whatever their order.

    features: for each name a text, bytes, a number, or a list or one-dimensional array of these.
        Integers and booleans become int64, floats float32. For other arrays see `array_features`.

    Raises:
        TypeError: a value has another type; the message names the feature.
        ValueError: an integer does not fit into int64.
    """
    entries = []
    for name in sorted(features):
        key = name.encode()
        feature = _feature(name, features[name])
        entry = _block(1, key) + _block(2, feature)
        entries.append(_block(1, entry))
    return _block(1, b"".join(entries))


def _block(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BLOCK]) + _number(len(content)) + content


def _number(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _feature(name: str, value: Any) -> bytes:
    """A Feature message."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _block(BYTES, _block(1, bytes(value)))
    if isinstance(value, (list, tuple)) and any(isinstance(v, (str, bytes)) for v in value):
        return _block(BYTES, b"".join(_block(1, _content(name, v)) for v in value))
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        array = np.empty(0, object)
    if array.ndim > 1:
        raise TypeError(
            f"feature {name!r:.80} has shape {array.shape}, expected a value or a list of values. Pass "
            "the array itself to write_tfrecords(), which stores its shape as well."
        )
    array = array.reshape(-1)
    listed = isinstance(value, (list, tuple, np.ndarray)) and len(array) > 0
    if array.dtype.kind in "SU" or (array.dtype == object and listed):
        return _feature(name, [_content(name, v) for v in array.tolist()])
    if array.dtype.kind == "f":
        values = array.astype("<f4").tobytes()
        return _block(FLOAT, _block(1, values) if values else b"")
    if array.dtype.kind in "biu":
        if array.dtype.kind == "u" and len(array) and int(array.max()) >= 2**63:
            raise ValueError(
                f"feature {name!r:.80} holds {int(array.max())}, which does not fit into int64: TFRecord has "
                "no larger integers. Write it as float or text."
            )
        values = _encoded(array.astype(np.int64))
        return _block(INT64, _block(1, values) if values else b"")
    raise TypeError(
        f"feature {name!r:.80} is {value!r:.60} ({type(value).__name__}), expected text, bytes, "
        "numbers, or a list of these."
    )


def _content(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(
        f"feature {name!r:.80} holds {value!r:.60} ({type(value).__name__}), expected text or bytes "
        "like the others."
    )


def _encoded(values: Array) -> bytes:
    """Encode int64 numbers as varints, all at once; negative ones take ten bytes."""
    if len(values) == 1:
        return _number(int(values[0]) & 0xFFFFFFFFFFFFFFFF)
    left = values.view(np.uint64)
    if not len(left) or int(left.max()) < 0x80:
        return left.astype(np.uint8).tobytes()
    digits = np.empty((len(left), 10), np.uint8)
    for place in range(10):
        digits[:, place] = left >> np.uint64(7 * place) & np.uint64(0x7F)
    # A digit is kept if it or a higher one is not zero; the lowest is always kept.
    stays = np.maximum.accumulate(digits[:, ::-1] != 0, axis=1)[:, ::-1]
    stays[:, 0] = True
    goes_on = np.zeros_like(stays)
    goes_on[:, :-1] = stays[:, 1:]
    digits[goes_on] |= 0x80
    return digits[stays].tobytes()


def array_features(name: str, array: Array) -> dict[str, Any]:
    """The features that store an array so that it is read with its shape and dtype.

    A number is an int64 or float list with one value, and one-dimensional float32 and int64 arrays are
    such lists. Arrays of other shapes have an additional feature `NAME/shape`, a list of int64. Arrays
    of other dtypes are stored as raw bytes, little-endian and in C order, with a further feature
    `NAME/dtype`, the name of the dtype in NumPy and TensorFlow: `tf.io.decode_raw` reads them.

    >>> array_features("x", np.full((2, 3), 65, np.uint8))
    {'x': b'AAAAAA', 'x/shape': [2, 3], 'x/dtype': 'uint8'}
    """
    if array.ndim == 0:
        return {name: array}
    if array.dtype in (np.float32, np.int64):
        if array.ndim == 1 and array.shape != (1,):
            return {name: array}
        return {name: array.reshape(-1), f"{name}/shape": list(array.shape)}
    if array.dtype.kind not in "biufc" and array.dtype.isbuiltin != 2:
        raise TypeError(f"feature {name!r:.80} is an array of {array.dtype}, expected numbers.")
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        name: raw.tobytes(),
        f"{name}/shape": list(array.shape),
        f"{name}/dtype": array.dtype.name,
    }
