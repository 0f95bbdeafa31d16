"""MDS, the format of MosaicML Streaming: an index of shards, and their samples.

A folder has `index.json`, which lists shards of `samples` samples each. A shard contains, in
little-endian order: the number of samples (uint32), the offset of each sample and the end of the last
(uint32), a JSON text, and the samples. A sample contains the sizes (uint32) of the columns without a
fixed size in the index, followed by the columns in the order of the index.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.formats.errors import DecodeError
from kloaders.places import access
from kloaders.places.urls import is_url, join

__all__ = ["Shard", "decoder_of", "read_index", "split_sample"]

_INDEX = "index.json"


@dataclass(frozen=True)
class Shard:
    """One shard, as described by the index.

    Attributes:
        folder: the folder with the index.
        path: the path of the file.
        samples: the number of samples.
        size: the size of the file in bytes.
        names: the names of the columns, in the order of storage.
        encodings: the encodings of the columns, such as "jpeg".
        sizes: the size in bytes of each column; None if it differs between samples.
    """

    folder: str
    path: str
    samples: int
    size: int
    names: tuple[str, ...]
    encodings: tuple[str, ...]
    sizes: tuple[int | None, ...]


def read_index(folder: str) -> list[Shard]:
    """The shards of a folder, or of a folder's URL.

    Raises:
        FileNotFoundError: there is no index, or a shard is missing.
        DecodeError: the index is damaged or has another version, or shards are compressed.
    """
    path = os.path.join(folder, _INDEX)
    try:
        raw = _content(path)
    except FileNotFoundError:
        inside = sorted(
            name for name in _listed(folder) if os.path.exists(os.path.join(folder, name, _INDEX))
        )
        hint = (
            f" Its folders {', '.join(inside[:8])} have one each: pass one of these."
            if inside
            else ""
        )
        raise FileNotFoundError(
            f"{visible(path)} does not exist, but every MDS folder has one.{hint}"
        ) from None
    try:
        shards = json.loads(raw)["shards"]
        there = _presence(folder)
        found = [_shard(folder, path, shard, there) for shard in shards]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(
            f"{path} is damaged, or not an MDS index: {type(error).__name__} {error}."
        ) from None
    for shard in found:
        if shard.names != found[0].names or shard.encodings != found[0].encodings:
            raise DecodeError(
                f"{shard.path} has the columns {', '.join(shard.names)}, but {found[0].path} has "
                f"{', '.join(found[0].names)}: shards of one loader need the same columns."
            )
    return found


def _content(path: str) -> bytes:
    if is_url(path):
        return access.read(path)
    with open(path, "rb") as file:
        return file.read()


def _presence(folder: str) -> Callable[[str], bool]:
    """A function that checks whether a file is in a folder; for a URL, a single listing is enough."""
    if not is_url(folder):
        return os.path.exists
    if folder.startswith(("https://", "http://")):  # no listing is possible: reading reports it
        return lambda _: True
    names = {join(folder, name) for name, _ in access.list_below(folder)}
    return names.__contains__


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _shard(folder: str, index: str, shard: dict[str, Any], there: Callable[[str], bool]) -> Shard:
    if shard["format"] != "mds" or shard["version"] != 2:
        raise DecodeError(
            f"{index} lists a shard of format {shard['format']!r:.80}, version {shard['version']!r:.80}, "
            "expected 'mds', version 2: write it again with MDSWriter."
        )
    raw, packed = shard["raw_data"], shard.get("zip_data")
    path = os.path.join(folder, raw["basename"])
    if not there(path):
        if packed is not None and there(os.path.join(folder, packed["basename"])):
            raise DecodeError(
                f"{os.path.join(folder, packed['basename'])} is compressed "
                f"({shard.get('compression')}): reading any sample would require decompressing all "
                f"of it. Decompress it once, to {path}, or write it without compression=."
            )
        raise FileNotFoundError(f"{visible(path)} does not exist, but {visible(index)} lists it.")
    sizes = tuple(None if size is None else int(size) for size in shard["column_sizes"])
    names, encodings = tuple(shard["column_names"]), tuple(shard["column_encodings"])
    if not len(names) == len(encodings) == len(sizes):
        raise ValueError("columns without an encoding or a size")
    return Shard(folder, path, int(shard["samples"]), int(raw["bytes"]), names, encodings, sizes)


def split_sample(shard: Shard, raw: bytes) -> dict[str, bytes]:
    """The bytes of each column of a sample.

    Raises:
        DecodeError: the sizes do not add up to the sample's size.
    """
    at = 4 * sum(size is None for size in shard.sizes)
    given = iter(np.frombuffer(raw[:at], "<u4").tolist() if len(raw) >= at else ())
    sizes = [next(given, 0) if size is None else size for size in shard.sizes]
    if at + sum(sizes) != len(raw):
        raise DecodeError(
            f"it is damaged: its columns have {at + sum(sizes)} bytes, but it has {len(raw)}. Copy or "
            "download the shard again."
        )
    found = {}
    for name, size in zip(shard.names, sizes, strict=True):
        found[name] = raw[at : at + size]
        at += size
    return found


# ------------------------------------------------------------------------------------- values

_SCALARS = {
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
}
# The number of a dtype in an array that stores its own dtype: bits, plus one for signed integers, or
# plus two for floats.
_DTYPES = {
    np.dtype(name).itemsize * 8 + {"u": 0, "i": 1, "f": 2}[np.dtype(name).kind]: np.dtype(name)
    for name in _SCALARS
}
_SHAPES = ("<u1", "<u2", "<u4", "<u8")
_MODES = {"L": 1, "RGB": 3, "RGBA": 4}


def decoder_of(encoding: str, name: str) -> Callable[[bytes], Any]:
    """A function that returns the value of a column's bytes.

    The value is a number, a text, an array, or a list of these; the bytes of an encoded image; or a
    tuple ("pixels", array) for an image that is not encoded.

    Raises:
        DecodeError: the encoding is unknown, or would run code from the file.
    """
    if encoding in _SCALARS:
        dtype = np.dtype(encoding).newbyteorder("<")
        return lambda raw: np.frombuffer(raw, dtype)[0].astype(dtype.newbyteorder("="))
    if encoding == "ndarray" or encoding.startswith("ndarray:"):
        return _array_decoder(encoding)
    if encoding.startswith("list[") and encoding.endswith("]"):
        one = decoder_of(encoding[5:-1], name)
        return lambda raw: [one(part) for part in _items(raw, 4)]
    known: dict[str, Callable[[bytes], Any]] = {
        "bytes": bytes,
        "jpeg": bytes,
        "png": bytes,
        "jpeg_array": lambda raw: _items(raw, 0),
        "jpegarray": lambda raw: _items(raw, 0),
        "int": lambda raw: np.frombuffer(raw, "<i8")[0].astype(np.int64),
        "str": lambda raw: raw.decode("utf-8"),
        "str_int": int,
        "str_float": float,
        "str_decimal": float,
        "json": json.loads,
        "pil": _pixels,
    }
    if encoding in known:
        return known[encoding]
    if encoding == "pkl":
        raise DecodeError(
            f"column {name!r:.80} is pickled, and unpickling runs any code that the file contains: choose "
            "other columns, or, if you trust the file, pass decode=, a function of the bytes."
        )
    raise DecodeError(
        f"column {name!r:.80} has the encoding {encoding!r:.80}, which is unknown: choose other columns, "
        "or pass decode=, a function of its bytes."
    )


def _items(raw: bytes, at: int) -> list[bytes]:
    """The parts of a list, which is stored as their number, their sizes, and the parts."""
    count = int(np.frombuffer(raw, "<u4", 1, at)[0])
    sizes = np.frombuffer(raw, "<u4", count, at + 4)
    ends = at + 4 + 4 * count + np.cumsum(sizes, dtype=np.int64)
    if count and ends[-1] != len(raw):
        raise ValueError("the sizes of a list's parts do not add up to its size")
    return [raw[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]


def _array_decoder(encoding: str) -> Callable[[bytes], Array]:
    """For "ndarray", "ndarray:dtype" and "ndarray:dtype:1,2"; the bytes contain what is not given."""
    _, _, rest = encoding.partition(":")
    name, _, sides = rest.partition(":")
    fixed = np.dtype(name).newbyteorder("<") if name else None
    fixed_shape = tuple(int(side) for side in sides.split(",")) if sides else None

    def decode(raw: bytes) -> Array:
        at, dtype, shape = 0, fixed, fixed_shape
        if dtype is None:
            dtype, at = _DTYPES[raw[0]].newbyteorder("<"), 1
        if shape is None:
            axes, kind = divmod(raw[at], 4)
            shape = tuple(np.frombuffer(raw, _SHAPES[kind], axes, at + 1).tolist())
            at += 1 + axes * 2**kind
        values = np.frombuffer(raw, dtype, math.prod(shape), at)
        if at + values.nbytes != len(raw):
            raise ValueError(
                f"{len(raw) - at} bytes do not make an array of shape {shape} and {dtype}"
            )
        found: Array = values.astype(dtype.newbyteorder("=")).reshape(shape)
        return found

    return decode


def _pixels(raw: bytes) -> tuple[str, Array]:
    """Width, height, length of the mode, the mode, and the pixels row by row."""
    width, height, length = np.frombuffer(raw, "<u4", 3).tolist()
    mode = raw[12 : 12 + length].decode("ascii", "replace")
    if mode not in _MODES:
        raise ValueError(f"an image with Pillow's mode {mode!r:.80}, expected {', '.join(_MODES)}")
    pixels = np.frombuffer(raw, np.uint8, offset=12 + length)
    return "pixels", pixels.reshape(height, width, _MODES[mode])
