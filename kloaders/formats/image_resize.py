"""Resizes images by stretching, cropping or padding, with OpenCV or Pillow."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits
from kloaders.formats.options import INTERPOLATIONS, PILLOW_FILTERS, ImageOptions

__all__ = ["FAST_TYPES", "resized"]

# The dtypes that OpenCV resizes and rotates; others are converted to a float that holds all values.
FAST_TYPES = frozenset(map(np.dtype, ("uint8", "uint16", "int16", "float32", "float64")))
_CHANNELS = 4


def resized(
    image: Array, size: tuple[int, int], options: ImageOptions, out: Array | None, name: str
) -> Array:
    """The image resized according to `options`; in `out` if it fits there."""
    if options.aspect == "pad":
        return _padded(image, size, options, name)
    top, left = 0, 0
    height, width = image.shape[:2]
    if options.aspect == "crop":
        whole = height, width
        height = max(1, min(height, width * size[0] // size[1]))
        width = max(1, min(width, whole[0] * size[1] // size[0]))
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    if options.interpolation in PILLOW_FILTERS:
        return _by_pillow(image, size, options, (left, top, left + width, top + height), name)
    image = image[top : top + height, left : left + width]
    channels = 1 if image.ndim == 2 else image.shape[2]
    row = out if fits(out, (*size, channels), image.dtype) else None
    if image.dtype not in FAST_TYPES:
        return _of_any_type(image, size, options)
    if channels > _CHANNELS:  # OpenCV handles four at a time for "area", and not more for others
        parts = [
            np.atleast_3d(_by_opencv(np.ascontiguousarray(part), size, options.interpolation, None))
            for part in np.array_split(image, -(-channels // _CHANNELS), axis=2)
        ]
        return np.concatenate(parts, axis=2)
    return _by_opencv(image, size, options.interpolation, row)


def _by_opencv(image: Array, size: tuple[int, int], interpolation: str, out: Array | None) -> Array:
    height, width = image.shape[:2]
    if interpolation == "auto":
        shrinks = size[0] < height or size[1] < width
        if shrinks and (size[0] > height or size[1] > width):
            # OpenCV averages only if neither side grows, so resize the shrinking side first.
            between = min(size[0], height), min(size[1], width)
            image, shrinks = _by_opencv(image, between, "area", None), False
        interpolation = "area" if shrinks else "bilinear"
    found: Array = cv2.resize(
        image, (size[1], size[0]), dst=out, interpolation=INTERPOLATIONS[interpolation]
    )
    return found


def _of_any_type(image: Array, size: tuple[int, int], options: ImageOptions) -> Array:
    """Resize an image whose dtype OpenCV does not support: in float64, rounded for integer dtypes."""
    whole = np.issubdtype(image.dtype, np.integer)
    wide = resized(image.astype(np.float64), size, replace(options, aspect="stretch"), None, "")
    if whole:
        limits = np.iinfo(image.dtype)
        wide = np.clip(np.rint(wide), limits.min, limits.max)
    return wide.astype(image.dtype)


def _padded(image: Array, size: tuple[int, int], options: ImageOptions, name: str) -> Array:
    """The whole image, centred and padded with zeros; up to two more below and to the right."""
    (rows, columns), (height, width) = size, image.shape[:2]
    tall = height * columns >= width * rows
    inner = (rows, width * rows // height) if tall else (height * columns // width, columns)
    inner = max(1, inner[0]), max(1, inner[1])
    # Like tf.image.resize_with_pad, which halves the padding before it truncates the fraction.
    top = 0 if tall else (rows * width - height * columns) // (2 * width)
    left = (columns * height - width * rows) // (2 * height) if tall else 0
    whole = replace(options, size=inner, aspect="stretch")
    shown = image if image.shape[:2] == inner else resized(image, inner, whole, None, name)
    padded = np.zeros((*size, *image.shape[2:]), image.dtype)
    padded[top : top + inner[0], left : left + inner[1]] = shown
    return padded


def _by_pillow(
    image: Array,
    size: tuple[int, int],
    options: ImageOptions,
    box: tuple[int, int, int, int],
    name: str,
) -> Array:
    from PIL import Image

    if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DecodeError(
            f"{name} holds {image.dtype}, but Pillow resizes only 8-bit images: pass "
            'interpolation="area", or another interpolation of OpenCV.'
        )
    if image.shape[2:] == (1,):
        image = image[:, :, 0]
    picture = Image.fromarray(image)
    filtering = Image.Resampling(PILLOW_FILTERS[options.interpolation])
    return np.asarray(picture.resize((size[1], size[0]), filtering, box))
