"""Converts an image to the requested number of channels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits

__all__ = ["Stored", "in_channels", "with_clear_gray"]


class Stored(NamedTuple):
    """An image as it is stored in its file.

    Attributes:
        image: (height, width), or (height, width, channels).
        turn: the EXIF orientation that is still to be applied; 1 for upright.
        bgr: whether colours are in OpenCV's order: blue, green, red.
        colours: the number of leading channels that are gray (1) or red, green and blue (3); 0 if
            the channels are bands of another kind.
        alpha: whether the channel after the colours is opacity.
    """

    image: Array
    turn: int
    bgr: bool
    colours: int
    alpha: bool

    @property
    def channels(self) -> int:
        return 1 if self.image.ndim == 2 else int(self.image.shape[2])


# (in OpenCV's order, channels stored, channels requested in RGB order) -> conversion
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
    """The image with the requested number of channels (None: as stored), and colours as RGB.

    out: an array for the result if this is the last step; it is filled if the conversion fits it.

    Raises:
        DecodeError: there is no such conversion; the message names the image.
    """
    image, channels = stored.image, stored.channels
    if wanted is None or wanted == channels:
        if not stored.bgr or channels < 3:
            return image
        wanted = channels
    elif stored.colours == 0:
        raise DecodeError(
            f"{name} stores {channels} bands of {image.dtype} that are not colours, but "
            f"channels={wanted} needs colours. Pass channels=None to keep the bands as they are."
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
        f"{name} stores {channels} channels of {image.dtype}, which OpenCV cannot convert to "
        f"{wanted}. Pass channels=None to keep them as they are."
    )


def with_clear_gray(image: Array, clear: int, bits: int) -> Array:
    """A gray PNG as RGBA (BGRA), transparent where it has the value `clear`.

    Args:
        image: (height, width), 8 or 16 bits.
        clear: the value as stored in the file.
        bits: bits per value in the file; values of fewer than 8 bits were scaled to 0 to 255.
    """
    value = clear * 255 // (2**bits - 1) if bits < 8 else clear
    whole = np.iinfo(image.dtype).max
    alpha = np.where(image == value, 0, whole).astype(image.dtype)
    return np.stack([image, image, image, alpha], axis=2)
