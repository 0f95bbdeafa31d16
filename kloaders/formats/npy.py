"""Reads arrays in .npy and .npz files without unpickling."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from io import FileIO
from typing import Any

from kloaders.core.arrays import Array
from kloaders.formats.errors import empty_file
from kloaders.formats.files import OPEN_FLAGS, read_bytes, size_of_file
from kloaders.formats.npy_layout import (
    HEADER_LIMIT,
    PLAIN_LAYOUTS,
    filled,
    layout_of,
    read_fully,
)
from kloaders.formats.npz import read_npz
from kloaders.places.urls import is_url

__all__ = [
    "decode_array",
    "read_array",
    "row_reader",
]

_HAS_PREADV = hasattr(os, "preadv")  # not on Windows


def read_array(path: str, out: Array | None = None, max_bytes: int | None = None) -> Array:
    """Read the array of an .npy file, or of an .npz file with one array. Nothing is unpickled.

    The result is C-contiguous and in native byte order, whatever the file has; the values equal those
    of np.load. `out`: see `decode_image`; if it fits, the values are read directly into it.
    max_bytes: the maximum size of an array in an .npz file.

    Raises OSError if the file cannot be read. Raises DecodeError if the content is damaged, truncated, a
    pickle, text, dates or records, or claims to be larger than the file.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except FileNotFoundError:
        if is_url(path):
            return decode_array(read_bytes(path), out, path)
        raise
    try:
        if _HAS_PREADV and out is not None:
            layout = PLAIN_LAYOUTS.get((out.shape, out.dtype))
            if layout is not None and out.flags.c_contiguous and out.flags.writeable:
                # A single call reads header and values; it is enough if the header is as expected.
                header = bytearray(len(layout.header))
                got = os.preadv(descriptor, (header, out.data), 0)
                if got == len(header) + layout.body_size and header == layout.header:
                    return out
        return _read_npy(descriptor, path, out, max_bytes)
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)


def row_reader(
    out: Array, otherwise: Callable[[str, Array], Any]
) -> Callable[[str, Array], Any] | None:
    """A fast function that reads plain .npy files into rows of `out`, for one thread.

    The expected header is looked up once for all rows. Files with another header or size are left to
    `otherwise`. None if `out` cannot be filled in this way.
    """
    layout = PLAIN_LAYOUTS.get((out.shape[1:], out.dtype))
    if not _HAS_PREADV or layout is None or not (out.flags.c_contiguous and out.flags.writeable):
        return None
    expected, header = layout.header, bytearray(len(layout.header))
    size = len(header) + layout.body_size

    def read(path: str, row: Array) -> Any:
        if path.endswith(".npy"):
            try:
                descriptor = os.open(path, OPEN_FLAGS)
            except OSError:  # `otherwise` fails again, and explains it
                return otherwise(path, row)
            try:
                buffers: Any = (header, row)
                if os.preadv(descriptor, buffers, 0) == size and header == expected:
                    return row
            except OSError:
                pass
            finally:
                os.close(descriptor)
        return otherwise(path, row)

    return read


def decode_array(raw: bytes, out: Array | None = None, name: str = "array") -> Array:
    """Like `read_array`, for the content of a file; `name` is its name in messages."""
    if raw.startswith(b"PK"):
        return read_npz(io.BytesIO(raw), len(raw), out, name=name)
    layout = layout_of(raw[:HEADER_LIMIT], len(raw), name)

    def fill(body: memoryview) -> None:
        begin = len(layout.header)
        body[:] = memoryview(raw)[begin : begin + layout.body_size]

    return filled(layout, fill, out, name)


def _read_npy(descriptor: int, path: str, out: Array | None, max_bytes: int | None) -> Array:
    size = size_of_file(descriptor, path)
    if not size:
        raise empty_file(path)
    head = os.read(descriptor, HEADER_LIMIT)
    if head.startswith(b"PK"):
        return read_npz(path, size, out, max_bytes)
    layout = layout_of(head, size, path)

    def fill(body: memoryview) -> None:
        os.lseek(descriptor, len(layout.header), os.SEEK_SET)
        read_fully(FileIO(descriptor, closefd=False), body, path)

    return filled(layout, fill, out, path)
