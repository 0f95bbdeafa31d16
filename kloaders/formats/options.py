"""Options that say how an image becomes an array: size, channels, dtype. They check themselves."""

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


# Keras' names. "nearest" is OpenCV's EXACT variant, which samples at pixel centres like
# tf.image.resize; plain INTER_NEAREST is off by half a pixel. Only "area" antialiases. "bicubic" is
# OpenCV's (a = -0.75); Keras' own has a = -0.5. "auto" is not one of OpenCV's: it is "area" for an
# image that shrinks, and "bilinear" for one that grows.
INTERPOLATIONS: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}

# Pillow's numbers for its filters. All except "nearest" average the pixels that a smaller pixel covers.
# Pillow's "nearest" differs from OpenCV's only by rounding, in parts of some images.
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
    """Options that say how an image becomes an array. Checked on creation; can be pickled and shared.

    size: (height, width) in pixels, one number for both, or None for the stored size.
    interpolation: "auto", which is "area" for a side that shrinks and "bilinear" for one that grows;
        nearest, bilinear, bicubic, area or lanczos (8 x 8, OpenCV's); or, for 8-bit images, Pillow's
        filters, which antialias: pillow-nearest, pillow-bilinear, pillow-bicubic, pillow-lanczos,
        pillow-hamming or pillow-box. Of OpenCV's only "area" antialiases.
    aspect: what to do with an image whose aspect ratio differs from that of `size`: "stretch" distorts
        it, "crop" takes the largest part from its centre, "pad" surrounds it with zeros.
    channels: 1, 3 or 4, or None for as stored (gray 1, colour 3, with transparency 4).
    dtype: None for as decoded (uint8; uint16 and float if the file stores them). Otherwise a plain
        cast without scaling: to an integer dtype it drops the fraction and wraps.
    rescale: a factor for every value, as Keras' Rescaling(scale). The result is float32 unless
        dtype says otherwise.
    max_pixels: a limit on height x width, compared with the header before decoding. The default is
        Pillow's limit for decompression bombs: 512 MiB as 8-bit RGB.
    max_bytes: a limit on an array in an .npz file, in bytes or as "2GB", because a few compressed
        bytes may claim any size.
    depth: 8 converts 16-bit images to 8 bits, keeping the upper 8, as tf.io.decode_image does; None
        keeps the stored depth.
    reader: "opencv", or "pillow" for the pixels that Pillow returns, as in Keras' load_img: modes L,
        RGB and RGBA for 1, 3 and 4 channels. OpenCV still decodes images for which it returns the
        same pixels, which are most JPEGs and PNGs. With "opencv", Pillow and tifffile still decode
        images for which OpenCV would not return the stored pixels.
    pages: for a TIFF with several pages: "first", or "all", which returns (pages, height, width,
        channels), with one page for other kinds of files. Previews and masks are not pages.
    dct_scaling: decode a JPEG at 1/2, 1/4 or 1/8 if that is still at least `size`. Off by
        default: for 226 ImageNet photographs at 128 x 128 it is 1.4 times as fast, and differs
        from the full decode by 2.4 of 255 levels on average (7.6 for the worst image). With
        "bilinear", which does not antialias as the smaller decode does, it is 1.2 times as fast
        and differs by 5.8 levels (20 for the worst).
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
        # object.__setattr__ because the class is frozen: fields are normalized once, here.
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
                f"aspect={self.aspect!r:.80} says how images are resized, but there is no size: pass "
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
                f"max_pixels={self.max_pixels!r:.80}, expected an integer of at least 1: it keeps "
                "a small hostile file from filling the memory. Pass a larger number, such as 10**9."
            )
        object.__setattr__(self, "max_pixels", max_pixels)
        object.__setattr__(self, "max_bytes", parse_bytes(self.max_bytes, "max_bytes"))
        if not isinstance(self.dct_scaling, (bool, np.bool_)):
            raise TypeError(f"dct_scaling={self.dct_scaling!r:.80}: choose True or False.")
        object.__setattr__(self, "dct_scaling", bool(self.dct_scaling))
        if self.depth not in (None, 8) or isinstance(self.depth, bool):
            raise ValueError(
                f"depth={self.depth!r:.80}, expected 8, for the upper 8 of 16 bits, or None to keep the "
                "stored depth."
            )
        if self.reader not in ("opencv", "pillow"):
            raise ValueError(
                f'reader={self.reader!r:.80} is unknown, expected "opencv" or "pillow".'
            )
        if self.pages not in ("first", "all"):
            raise ValueError(
                f'pages={self.pages!r:.80} is unknown, expected "first" or "all", for the pages of a TIFF.'
            )

    @functools.cached_property  # needed for every file
    def most_bytes(self) -> int:
        """`max_bytes` as a number."""
        assert not isinstance(self.max_bytes, str)
        return self.max_bytes


def checked_size(size: Any) -> tuple[int, int] | None:
    """Return (height, width); a single number is used for both."""
    if size is None:
        return None
    try:
        if isinstance(size, (bool, np.bool_)):
            raise TypeError
        height, width = (operator.index(side) for side in _both(size))
    except (TypeError, ValueError):
        raise TypeError(
            f"size={size!r:.80}, expected two integers, or one for a square. "
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
