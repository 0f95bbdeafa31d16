"""Colour JPEGs decoded by simplejpeg, which takes memory to decode into; OpenCV allocates it, twice.

The pixels are OpenCV's, as both are libjpeg-turbo. What simplejpeg warns about, or cannot read, is left to OpenCV.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from kloaders.core.arrays import Array

try:
    import simplejpeg
except ImportError:  # no wheel for this interpreter: OpenCV reads all of them
    simplejpeg = None

__all__ = ["available", "decode_rgb", "lent"]

# What a thread keeps for the images that it resizes: 5 megapixels. Where other threads, TensorFlow's, left
# many holes in malloc's memory, fresh pages for each image cost half as much as to decode it.
_KEPT = 16 * 2**20

_kept = threading.local()


def available() -> bool:
    """Whether simplejpeg is there."""
    return simplejpeg is not None


def lent(shape: tuple[int, ...]) -> Array:
    """Bytes of this shape that are the caller's until the same thread asks again."""
    size = math.prod(shape)
    if size > _KEPT:
        return np.empty(shape, np.uint8)
    block: Array | None = getattr(_kept, "block", None)
    if block is None or block.size < size:
        block = _kept.block = np.empty(min(_KEPT, size + size // 2), np.uint8)
    return block[:size].reshape(shape)


def decode_rgb(raw: bytes, out: Array) -> bool:
    """Decode a JPEG of three components into (height, width, 3), uint8, contiguous.

    Returns:
        Whether it was done. If not, what `out` holds is undefined, and OpenCV may still read the file.
    """
    try:
        found = simplejpeg.decode_jpeg(raw, "RGB", buffer=out)
    except (ValueError, RuntimeError, MemoryError):  # damage, or a variant it doesn't know
        return False
    return bool(found.shape == out.shape)
