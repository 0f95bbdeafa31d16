"""Reads a sample according to its file's suffix: an image or an array."""

from __future__ import annotations

from kloaders.core.arrays import Array
from kloaders.formats.errors import empty_file
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, check_suffix, suffix_of
from kloaders.formats.images import decode_image, read_image
from kloaders.formats.npy import decode_array, read_array
from kloaders.formats.options import ImageOptions

__all__ = [
    "decode_sample",
    "read_sample",
]


def read_sample(path: str, options: ImageOptions, out: Array | None = None) -> Array:
    """Read one file by its suffix: an image according to `options`, or an array as it was saved.

    `out`: see `decode_image`. Raises ValueError for an unknown suffix.
    """
    if path.endswith(".npy"):  # the usual lookup would take a tenth of the time of a small array
        return read_array(path, out, options.most_bytes)
    suffix = suffix_of(path)
    if suffix in ARRAY_SUFFIXES:
        return read_array(path, out, options.most_bytes)
    if suffix not in IMAGE_SUFFIXES:
        check_suffix(path)
    return read_image(path, options, out)


def decode_sample(raw: bytes, name: str, options: ImageOptions, out: Array | None = None) -> Array:
    """Like `read_sample`, for the content of a file with this name."""
    suffix = suffix_of(name)
    if suffix not in IMAGE_SUFFIXES:
        check_suffix(name)
    if not raw:
        raise empty_file(name)
    if suffix in ARRAY_SUFFIXES:
        return decode_array(raw, out, name)
    return decode_image(raw, options, out, name)
