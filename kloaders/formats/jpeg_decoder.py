"""Decodes colour JPEGs with simplejpeg, which writes into given memory; OpenCV allocates it, twice.

The pixels equal OpenCV's, because both use libjpeg-turbo. OpenCV decodes any file that simplejpeg
warns about or cannot read.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from kloaders.core.arrays import Array

try:
    import simplejpeg
except ImportError:  # there is no wheel for this interpreter: OpenCV reads all files
    simplejpeg = None

__all__ = ["available", "decode_rgb", "lent"]

# A thread keeps this much memory (5 megapixels) for the images that it resizes. If other threads, such
# as TensorFlow's, fragment malloc's memory, new pages for each image would cost half as much as decoding.
_KEPT = 16 * 2**20

_kept = threading.local()


def available() -> bool:
    """Whether simplejpeg is installed."""
    return simplejpeg is not None


def lent(shape: tuple[int, ...]) -> Array:
    """Memory of this shape, which the caller may use until the same thread asks again."""
    size = math.prod(shape)
    if size > _KEPT:
        return np.empty(shape, np.uint8)
    block: Array | None = getattr(_kept, "block", None)
    if block is None or block.size < size:
        block = _kept.block = np.empty(min(_KEPT, size + size // 2), np.uint8)
    return block[:size].reshape(shape)


def decode_rgb(raw: bytes, out: Array) -> bool:
    """Decode a JPEG with three components to (height, width, 3), uint8, contiguous.

    Returns:
        Whether it succeeded. If not, the content of `out` is undefined, and OpenCV may still read the
        file.
    """
    try:
        found = simplejpeg.decode_jpeg(raw, "RGB", buffer=out)
    except (ValueError, RuntimeError, MemoryError):  # damaged, or an unknown variant
        return False
    return bool(found.shape == out.shape)
