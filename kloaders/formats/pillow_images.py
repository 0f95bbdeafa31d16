"""Images as decoded by Pillow, with the conversions of Keras' `load_img`. Imports Pillow on use."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn
from kloaders.formats.errors import DecodeError, UnsupportedError
from kloaders.formats.image_bounds import too_large
from kloaders.formats.image_headers import Header
from kloaders.formats.options import PILLOW_FILTERS, ImageOptions
from kloaders.formats.png_header import PngFacts

__all__ = ["decoded_by_pillow", "same_by_opencv", "stored_by_pillow"]

# Keras' modes for 1, 3 and 4 channels, and the modes that it keeps unchanged for one channel.
_MODES, _GRAY_MODES = {1: "L", 3: "RGB", 4: "RGBA"}, ("L", "I;16", "I")
# Gray with more than 8 bits: values above 255 are clipped when it is converted to colour.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
# EXIF orientation -> the member of Image.Transpose that makes the stored image upright.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def same_by_opencv(raw: bytes, header: Header | None, channels: int | None) -> bool:
    """Whether OpenCV returns the same pixels as Pillow; it is faster, and needs no further library."""
    if header is None or channels is None:
        return False
    if header.kind == "jpeg":  # Pillow mixes gray from colour differently, and rounds CMYK
        return header.gray or (header.components == 3 and channels != 1)
    if header.kind == "png":
        depth, colour = raw[24], raw[25]
        animated = isinstance(header.facts, PngFacts) and header.facts.animated
        return depth <= 8 and not animated and (channels != 1 or colour == 0)
    return False


def decoded_by_pillow(raw: bytes, header: Header | None, options: ImageOptions, name: str) -> Array:
    """The image with `options.size`, upright, with the channels that Keras would give it.

    Raises:
        DecodeError: Pillow cannot decode it; the message names the image.
    """
    with _opened(raw, options.max_pixels, name) as image:
        return np.asarray(_resized(_upright(_converted(image, options, name), header), options))


def stored_by_pillow(raw: bytes, header: Header, max_pixels: int, name: str) -> Array:
    """The image as stored, but upright: gray, RGB or RGBA; palettes and CMYK as colours.

    Returns the first frame of an animation. Transparent pixels, and those around a frame that is smaller
    than the canvas, have an alpha of 0.

    Raises:
        DecodeError: Pillow cannot decode it; the message names the image.
    """
    with _opened(raw, max_pixels, name) as image:
        stored = image
        if image.mode not in ("L", "RGB", "RGBA", "RGBX"):
            clear = image.has_transparency_data
            mode = "L" if image.mode == "1" else "RGBA" if clear else "RGB"
            stored = image.convert(mode)
        return np.asarray(_upright(stored, header))


@contextlib.contextmanager
def _opened(raw: bytes, max_pixels: int, name: str) -> Iterator[Any]:
    """An image opened by Pillow, whose errors name the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(raw)) as image:
            if image.width * image.height > max_pixels:
                raise too_large(image.height, image.width, max_pixels, name)
            yield image
    except (DecodeError, MemoryError):
        raise
    except UnidentifiedImageError:  # its message contains only the address of a buffer
        raise UnsupportedError(
            f"{name} is not an image that Pillow can read, or of an unsupported variant. "
            "Save it again as PNG or JPEG, or leave it out."
        ) from None
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        other = isinstance(error, NotImplementedError) or "unsupported" in cause.lower()
        raise (UnsupportedError if other else DecodeError)(
            f"{name} cannot be decoded: Pillow says {cause!r:.80}. "
            "Save it again as PNG or JPEG, or leave it out."
        ) from error


def _converted(image: Any, options: ImageOptions, name: str) -> Any:
    """The image in Keras' mode; with channels=None, in a mode that NumPy can convert."""
    channels = options.channels
    if channels is None:
        if image.mode in (*_GRAY_MODES, "F", "RGB", "RGBA"):
            return image
        clear = image.has_transparency_data
        return image.convert("L" if image.mode == "1" else "RGBA" if clear else "RGB")
    mode = _MODES[channels]
    if image.mode == mode or (channels == 1 and image.mode in _GRAY_MODES):
        return image
    if image.mode in _DEEP_MODES:
        warn(
            f"{name} is a gray image of more than 8 bits (mode {image.mode}): as {mode}, Pillow clips "
            "its values at 255, and so does Keras. channels=1 keeps 16 bits "
            '(color_mode="grayscale").',
            once="gray images of 16 bits by Pillow",
        )
    return image.convert(mode)


def _upright(image: Any, header: Header | None) -> Any:
    from PIL import Image

    # Pillow itself applies the orientation of a TIFF.
    if header is None or header.kind == "tiff" or header.orientation == 1:
        return image
    return image.transpose(Image.Transpose[_TURNS[header.orientation]])


def _resized(image: Any, options: ImageOptions) -> Any:
    size = options.size
    if size is None or (image.height, image.width) == size:
        return image
    if options.aspect == "pad" or options.interpolation not in (*PILLOW_FILTERS, "nearest"):
        return image
    from PIL import Image

    top, left, height, width = 0, 0, image.height, image.width
    if options.aspect == "crop":
        height = max(1, min(image.height, image.width * size[0] // size[1]))
        width = max(1, min(image.width, image.height * size[1] // size[0]))
        top, left = (image.height - height) // 2, (image.width - width) // 2
    number = PILLOW_FILTERS.get(options.interpolation, PILLOW_FILTERS["pillow-nearest"])
    box = (left, top, left + width, top + height)
    return image.resize((size[1], size[0]), Image.Resampling(number), box)
