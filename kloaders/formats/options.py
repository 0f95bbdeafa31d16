"""How an image becomes an array: size, channels, type. Values that check themselves; no files."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kloaders.core.checks import checked_dtype
from kloaders.core.memory import parse_bytes

__all__ = [
    "INTERPOLATIONS",
    "PILLOW_FILTERS",
    "ImageOptions",
    "checked_size",
]


# Keras' names. "nearest" is OpenCV's EXACT variant, which samples at pixel centres as
# tf.image.resize does; plain INTER_NEAREST is off by half a pixel. None of them antialiases
# except "area". "bicubic" is OpenCV's (a = -0.75), Keras' own has a = -0.5. "auto" is none of
# OpenCV's: "area" where an image shrinks, "bilinear" where it grows.
INTERPOLATIONS: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}

# Pillow's numbers for its filters. All but its "nearest" average over the pixels that a smaller one
# stands for; that one differs from ours by a rounding, in parts of images only.
PILLOW_FILTERS = {
    "pillow-nearest": 0,
    "pillow-lanczos": 1,
    "pillow-bilinear": 2,
    "pillow-bicubic": 3,
    "pillow-box": 4,
    "pillow-hamming": 5,
}
_ASPECTS = ("stretch", "crop", "pad")


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes an array. Checked on creation; can be pickled and shared.

    size: (height, width) in pixels, one number for both, None for as stored.
    interpolation: "auto", which is "area" where an image shrinks and "bilinear" where it grows, each
        side by itself; nearest, bilinear, bicubic, area or lanczos (8 x 8, OpenCV's); or
        pillow-nearest, pillow-bilinear, pillow-bicubic, pillow-lanczos, pillow-hamming or pillow-box,
        for 8-bit images: Pillow's filters, which antialias. Of OpenCV's only "area" does.
    aspect: what becomes of an image whose sides are not in the ratio of `size`: "stretch" distorts
        it, "crop" takes the largest part from its middle, "pad" puts zeros beside it.
    channels: 1, 3 or 4, None for as stored (gray 1, colour 3, with transparency 4).
    dtype: None for as decoded (uint8; uint16 and float where the file stores them). Otherwise
        a plain cast that scales nothing: to an integer type it drops the fraction and wraps.
    rescale: every value is multiplied by it, as Keras' Rescaling(scale) does. The result is
        float32 unless dtype says otherwise.
    max_pixels: bound on height x width, looked up in the header before anything is decoded.
        The default is Pillow's decompression-bomb limit: 512 MiB as 8-bit RGB.
    max_bytes: bound on an array of an .npz file, in bytes or as "2GB": compressed, a few bytes may
        claim any size.
    depth: 8 brings images of 16 bits to 8, the upper ones, as tf.io.decode_image does; None keeps
        the stored form.
    reader: "opencv", or "pillow": the pixels that Pillow gives, as Keras' load_img has them, in the
        modes L, RGB and RGBA for 1, 3 and 4 channels. OpenCV still decodes where it gives the same
        ones, which it does for most JPEGs and PNGs. With "opencv" Pillow and tifffile still decode
        what OpenCV gives otherwise than it is stored.
    pages: of a TIFF with several: "first", or "all", which makes the image (pages, height, width,
        channels), with one page for files of other kinds. Previews and masks are no pages.
    dct_scaling: decode a JPEG at 1/2, 1/4 or 1/8 where that is still at least `size`. Off by
        default: over 226 ImageNet photographs at 128 x 128 it is 1.4 times as fast, and 2.4 levels
        of 255 away from the full decode on average (7.6 for the worst image). With "bilinear",
        which does not antialias as the smaller decode does, it is 1.2 times as fast and 5.8
        levels away (20 for the worst).
    """

    size: tuple[int, int] | None = None
    interpolation: str = "auto"
    aspect: str = "stretch"
    channels: int | None = 3
    dtype: np.dtype[Any] | None = None
    rescale: float | None = None
    max_pixels: int = 178_956_970
    max_bytes: int | str = 2**30
    dct_scaling: bool = False
    depth: int | None = None
    reader: str = "opencv"
    pages: str = "first"

    def __post_init__(self) -> None:
        # object.__setattr__ because the class is frozen: the fields are normalised once, here.
        object.__setattr__(self, "size", checked_size(self.size))
        known = ", ".join(["auto", *INTERPOLATIONS, *PILLOW_FILTERS])
        if not isinstance(self.interpolation, str) or self.interpolation not in known.split(", "):
            raise ValueError(
                f"interpolation={self.interpolation!r:.80} is unknown, expected one of {known}. "
                'Pass interpolation="auto", or resize in load_sample().'
            )
        if self.aspect not in _ASPECTS:
            raise ValueError(
                f'aspect={self.aspect!r:.80} is unknown, expected "stretch", "crop" or "pad".'
            )
        if self.aspect != "stretch" and self.size is None:
            raise ValueError(
                f"aspect={self.aspect!r:.80} says how pictures come to a size, and there is none: pass "
                "size=(height, width)."
            )
        if self.channels is not None and self.channels not in (1, 3, 4):
            raise ValueError(
                f"channels={self.channels!r:.80}, expected 1 (gray), 3 (RGB), 4 (RGBA) or None. "
                "Pass channels=None to keep what the file stores."
            )
        object.__setattr__(self, "dtype", checked_dtype(self.dtype))
        object.__setattr__(self, "rescale", _checked_rescale(self.rescale))
        try:
            max_pixels = operator.index(self.max_pixels)
        except TypeError:
            max_pixels = 0
        if max_pixels < 1:
            raise ValueError(
                f"max_pixels={self.max_pixels!r:.80}, expected a whole number of at least 1: it keeps "
                "a small hostile file from filling the memory. Pass a larger number, as 10**9."
            )
        object.__setattr__(self, "max_pixels", max_pixels)
        object.__setattr__(self, "max_bytes", parse_bytes(self.max_bytes, "max_bytes"))
        if not isinstance(self.dct_scaling, (bool, np.bool_)):
            raise TypeError(f"dct_scaling={self.dct_scaling!r:.80}: choose True or False.")
        object.__setattr__(self, "dct_scaling", bool(self.dct_scaling))
        if self.depth not in (None, 8) or isinstance(self.depth, bool):
            raise ValueError(
                f"depth={self.depth!r:.80}, expected 8, for the upper 8 bits of 16, or None for what is "
                "stored."
            )
        if self.reader not in ("opencv", "pillow"):
            raise ValueError(
                f'reader={self.reader!r:.80} is unknown, expected "opencv" or "pillow".'
            )
        if self.pages not in ("first", "all"):
            raise ValueError(
                f'pages={self.pages!r:.80} is unknown, expected "first" or "all" of the pages of a TIFF.'
            )

    @functools.cached_property  # asked for at every file
    def most_bytes(self) -> int:
        """`max_bytes` as a number."""
        assert not isinstance(self.max_bytes, str)
        return self.max_bytes


def checked_size(size: Any) -> tuple[int, int] | None:
    """(height, width); both are `size` where it is one number."""
    if size is None:
        return None
    try:
        if isinstance(size, (bool, np.bool_)):
            raise TypeError
        height, width = (operator.index(side) for side in _both(size))
    except (TypeError, ValueError):
        raise TypeError(
            f"size={size!r:.80}, expected two whole numbers, or one for a square. "
            "Pass size=(height, width)."
        ) from None
    if height < 1 or width < 1:
        raise ValueError(
            f"size={size!r:.80}, expected at least one pixel each way. Pass size=(height, width)."
        )
    return height, width


def _both(size: Any) -> Any:
    try:
        side = operator.index(size)
    except TypeError:
        return size
    return side, side


def _checked_rescale(rescale: Any) -> float | None:
    if rescale is None:
        return None
    try:
        factor = float(rescale)
    except (TypeError, ValueError):
        raise TypeError(
            f"rescale={rescale!r:.80}, expected a number. Pass rescale=1/255."
        ) from None
    if not math.isfinite(factor):
        raise ValueError(f"rescale={rescale!r:.80}, expected a finite number. Pass rescale=1/255.")
    return factor
