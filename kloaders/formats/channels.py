"""Channels of an image converted to the wanted number of channels. No files."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits

__all__ = ["Stored", "in_channels", "with_clear_gray"]


class Stored(NamedTuple):
    """An image as its file has it.

    Attributes:
        image: (height, width), or (height, width, channels).
        turn: EXIF's number for how it is still to be turned; 1 for upright.
        bgr: colours are in OpenCV's order: blue, green, red.
        colours: how many of the channels are gray (1) or red, green and blue (3), in front of
            others; 0 where they are bands of another kind.
        alpha: the channel after the colours says how opaque a pixel is.
    """

    image: Array
    turn: int
    bgr: bool
    colours: int
    alpha: bool

    @property
    def channels(self) -> int:
        return 1 if self.image.ndim == 2 else int(self.image.shape[2])


# (in OpenCV's order, channels stored, channels wanted: RGB order) -> conversion
_CONVERSIONS: dict[tuple[bool, int, int], int] = {
    (True, 1, 3): cv2.COLOR_GRAY2RGB,
    (True, 1, 4): cv2.COLOR_GRAY2RGBA,
    (True, 3, 1): cv2.COLOR_BGR2GRAY,
    (True, 3, 3): cv2.COLOR_BGR2RGB,
    (True, 3, 4): cv2.COLOR_BGR2RGBA,
    (True, 4, 1): cv2.COLOR_BGRA2GRAY,
    (True, 4, 3): cv2.COLOR_BGRA2RGB,
    (True, 4, 4): cv2.COLOR_BGRA2RGBA,
    (False, 1, 3): cv2.COLOR_GRAY2RGB,
    (False, 1, 4): cv2.COLOR_GRAY2RGBA,
    (False, 3, 1): cv2.COLOR_RGB2GRAY,
    (False, 3, 4): cv2.COLOR_RGB2RGBA,
    (False, 4, 1): cv2.COLOR_RGBA2GRAY,
    (False, 4, 3): cv2.COLOR_RGBA2RGB,
}
_CONVERTIBLE = frozenset(np.dtype(name) for name in ("uint8", "uint16", "float32"))
_ORDER = [2, 1, 0, 3]


def in_channels(stored: Stored, wanted: int | None, out: Array | None, name: str) -> Array:
    """With as many channels as wanted, None for as many as stored, colours as RGB.

    out: an array for the result where this is the last step; filled if the conversion fits it.

    Raises:
        DecodeError: there is no conversion between these numbers; names the image.
    """
    image, channels = stored.image, stored.channels
    if wanted is None or wanted == channels:
        if not stored.bgr or channels < 3:
            return image
        wanted = channels
    elif stored.colours == 0:
        raise DecodeError(
            f"{name} stores {channels} bands of {image.dtype} that are no colours, and "
            f"channels={wanted} asks for others. Pass channels=None to keep them as they are."
        )
    elif stored.colours == 1 and channels == 2:
        gray, alpha = image[..., :1], image[..., 1:]
        if wanted == 4:
            return np.concatenate([gray, gray, gray, alpha], axis=2)
        image, channels = np.ascontiguousarray(gray), 1
        if wanted == 1:
            return image
    elif channels > 4:
        keep = 4 if wanted == 4 and stored.alpha else 3
        image, channels = np.ascontiguousarray(image[..., :keep]), keep
        if wanted == channels:
            return image
    conversion = _CONVERSIONS[(stored.bgr, channels, wanted)]
    if image.dtype in _CONVERTIBLE:
        direct = fits(out, (*image.shape[:2], wanted), image.dtype)
        converted: Array = cv2.cvtColor(image, conversion, dst=out if direct else None)
        return converted
    if wanted <= channels and wanted != 1:
        order = _ORDER[:wanted] if stored.bgr else list(range(wanted))
        return np.ascontiguousarray(image[:, :, order])
    if channels == 1 and wanted == 3:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    raise DecodeError(
        f"{name} stores {channels} channels of {image.dtype}, and OpenCV cannot make them "
        f"{wanted}. Pass channels=None to keep them as they are."
    )


def with_clear_gray(image: Array, clear: int, bits: int) -> Array:
    """A gray image of a PNG as RGBA (BGRA), clear where it has this value.

    Args:
        image: (height, width), 8 or 16 bits.
        clear: the value as the file has it.
        bits: of the values in the file; those of less than 8 were spread over 0 to 255.
    """
    value = clear * 255 // (2**bits - 1) if bits < 8 else clear
    whole = np.iinfo(image.dtype).max
    alpha = np.where(image == value, 0, whole).astype(image.dtype)
    return np.stack([image, image, image, alpha], axis=2)
