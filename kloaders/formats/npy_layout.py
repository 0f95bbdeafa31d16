"""Parses the header of an .npy file, and reads its values to an array."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO, FileIO
from typing import IO, Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits

__all__ = [
    "HEADER_LIMIT",
    "PLAIN_LAYOUTS",
    "Layout",
    "filled",
    "layout_of",
    "read_fully",
]


class Layout(NamedTuple):
    """The facts in an .npy header."""

    header: bytes  # from the magic number to the padding; the values follow
    shape: tuple[int, ...]
    stored: np.dtype[Any]  # in the file's byte order
    native: np.dtype[Any]  # in native byte order
    fortran: bool
    body_size: int


# Known headers by their bytes; and, by shape and dtype, those whose values can be read without a
# conversion. A folder usually has only one header, and parsing takes longer than reading 48 KB. Threads
# share both without a lock: entries are complete, and at worst a race parses a header twice.
_LAYOUTS: dict[bytes, Layout] = {}
PLAIN_LAYOUTS: dict[tuple[tuple[int, ...], np.dtype[Any]], Layout] = {}
_LAYOUTS_KEPT = 256

# NumPy's own limit for headers from untrusted files, and the size of what precedes the header.
HEADER_LIMIT = 10_000 + 12


def read_fully(file: FileIO | IO[bytes], body: memoryview, name: str) -> None:
    done = 0
    while done < len(body):
        got = file.readinto(body[done:])  # type: ignore[union-attr]  # zipfile's has it
        if not got:
            raise DecodeError(
                f"{name} is truncated: {len(body)} bytes of values expected, {done} found. "
                "Copy or download it again, or leave it out."
            )
        done += got


def filled(
    layout: Layout, fill: Callable[[memoryview], None], out: Array | None, name: str
) -> Array:
    """Read the values into `out` if they fit without conversion, otherwise into a new array."""
    native = layout.native
    plain = not layout.fortran and layout.stored == native
    direct = plain and fits(out, layout.shape, native)
    if direct and out is not None:
        stored = out
    else:
        shape = layout.shape[::-1] if layout.fortran else layout.shape
        try:
            stored = np.empty(shape, layout.stored)
        except (ValueError, MemoryError) as error:
            raise DecodeError(
                f"{name} holds an array of shape {layout.shape}, which cannot be allocated: {error}. "
                "Save smaller arrays, or override load_sample(path)."
            ) from error
    fill(stored.reshape(-1).view(np.uint8).data)
    if plain:
        if len(PLAIN_LAYOUTS) >= _LAYOUTS_KEPT:
            PLAIN_LAYOUTS.clear()
        PLAIN_LAYOUTS[layout.shape, native] = layout
        return stored
    values = stored.T if layout.fortran else stored
    if out is not None and fits(out, layout.shape, native):
        np.copyto(out, values)
        return out
    return np.asarray(values, native, order="C")


def layout_of(head: bytes, size: int, name: str) -> Layout:
    """The layout according to `head`, the first bytes of a file of `size` bytes."""
    if not head.startswith(b"\x93NUMPY"):
        raise DecodeError(
            f"{name} is not an .npy file: it begins with {head[:12]!r:.80}. "
            "Write it with np.save, or override load_sample(path) for your own format."
        )
    if head[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        version = ".".join(str(part) for part in head[6:8])
        raise DecodeError(
            f"{name} has .npy version {version}, expected 1.0, 2.0 or 3.0. "
            "Write it again with np.save."
        )
    length_at_most = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:length_at_most], "little")
    header = head[: length_at_most + length]
    if len(header) < length_at_most + length:
        too_long = len(head) == HEADER_LIMIT
        problem = f"has a header of {length} bytes" if too_long else "is truncated in its header"
        raise DecodeError(f"{name} {problem}. Write it again with np.save, or leave it out.")
    layout = _LAYOUTS.get(header)
    if layout is None:
        layout = _parsed(header, name)
        if len(_LAYOUTS) >= _LAYOUTS_KEPT:
            _LAYOUTS.clear()
        _LAYOUTS[header] = layout
    if len(header) + layout.body_size > size:
        raise DecodeError(
            f"{name} is truncated: {layout.stored} values of shape {layout.shape} take "
            f"{layout.body_size} bytes, but only {size - len(header)} follow the header. "
            "Copy or download it again, or leave it out."
        )
    return layout


def _parsed(header: bytes, name: str) -> Layout:
    stream = BytesIO(header[8:])
    # Version 3.0 differs from 2.0 only in the names of record fields, which are rejected below.
    one = header[6] == 1
    parse = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(stream)
    except Exception as error:  # any error of its tokenizer and literal_eval on damaged text
        raise DecodeError(
            f"{name} has a damaged .npy header ({type(error).__name__}: {error}). "
            "Write it again with np.save, or leave it out."
        ) from error
    if dtype.hasobject:
        raise DecodeError(
            f"{name} holds Python objects, which are never unpickled: a pickle can run code. "
            "Save numbers instead: np.save(path, np.asarray(x, dtype=np.float32))."
        )
    if dtype.kind not in "biufc":
        if dtype.kind == "V" and dtype.names is None and dtype.itemsize <= 2:
            raise DecodeError(
                f"{name} holds values of type {dtype}, expected plain numbers. np.save loses dtypes "
                "such as bfloat16: pass decode=lambda raw: "
                "np.load(io.BytesIO(raw)).view(ml_dtypes.bfloat16), or write a pack, which keeps them."
            )
        raise DecodeError(
            f"{name} holds values of type {dtype}, expected plain numbers. "
            "Save a numeric column as an array, or override load_sample(path)."
        )
    if any(side < 0 for side in shape):
        raise DecodeError(
            f"{name} has a damaged .npy header: shape {shape}. Write it again with np.save."
        )
    native = dtype.newbyteorder("=")
    return Layout(header, shape, dtype, native, fortran, math.prod(shape) * dtype.itemsize)
