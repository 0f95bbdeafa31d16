"""Decodes a window of an image. nvImageCodec, if installed, skips the rest of a JPEG, on the CPU."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.image_bounds import check_coded_data, check_whole
from kloaders.formats.image_headers import Header, header_of
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions

__all__ = ["decode_and_crop", "keep_encoded"]

Window = Callable[[int, int], tuple[int, int, int, int]]

_RGB = ImageOptions()
# nvImageCodec's number for "no GPU".
_CPU = -99999
# In narrower windows at the left or right edge, libjpeg-turbo may interpolate the colours differently.
_NARROWEST = 16

# A decoder may only be used by one thread at a time.
_of_thread = threading.local()


def keep_encoded(raw: bytes) -> Array:
    """The bytes of a file as (bytes,) uint8: `decode=kl.keep_encoded` leaves decoding to `transform`.

    Caches keep the encoded bytes, too.
    """
    return np.frombuffer(raw, np.uint8)


def decode_and_crop(
    raw: bytes | bytearray | memoryview | Array, window: Window, name: str = "image"
) -> Array:
    """Decode a window of an image to (height, width, 3), RGB, uint8; uint16 or float if so stored.

    The pixels are those of the whole image, cut. With nvImageCodec (`pip install "kloaders[crop]"`)
    the rows below the window of a JPEG are not decoded, and little of what is above or beside it; its
    decoder for the CPU is used. Other images, and JPEGs that are progressive, rotated, gray or CMYK,
    are decoded whole and cut.

    Args:
        raw: the encoded image, as bytes or as a uint8 array of one axis.
        window: called with the height and the width of the upright image; returns top, left, height
            and width of the window, as integers.
        name: the name of the image in messages.

    Raises:
        DecodeError: the image cannot be decoded completely; see `kl.DecodeError`. If rows are skipped,
            damage is only detected where it is visible above the window's end: a file without its end is
            always refused, but not changed bytes that a decoder notices further down.
        TypeError: `raw` is not an encoded image, or `window` does not return four integers.
        ValueError: the window is not in the image, or empty.

    Threads: any number at once.
    """
    if not callable(window):
        raise TypeError(
            f"{name}: window={window!r:.80} is not a function. Pass a function of the image's height "
            "and width that returns (top, left, height, width)."
        )
    data = _encoded(raw, name)
    header = header_of(data)
    if header is None or not _skippable(header) or _library() is None:
        image = decode_image(data, _RGB, name=name)
        return _cut(image, _checked(window, image.shape[0], image.shape[1], name))
    check_whole(data, header, _RGB, name)
    check_coded_data(data, header, name)
    box = _checked(window, header.height, header.width, name)
    found = _decoded(data, box, header.width)
    if found is None:  # damaged, or a variant that only the other decoders read
        found = _cut(decode_image(data, _RGB, name=name), box)
    return found


def _encoded(raw: Any, name: str) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, np.ndarray):
        if raw.dtype == np.uint8 and raw.ndim == 1:
            return raw.tobytes()
        what = f"an array of {raw.dtype} and shape {raw.shape}"
    elif isinstance(raw, (bytearray, memoryview)):
        return bytes(raw)
    else:
        what = f"{raw!r:.80}"
    raise TypeError(
        f"{name}: decode_and_crop() got {what}, expected an encoded image: bytes, or uint8 of shape "
        "(bytes,). Pass decode=kl.keep_encoded to the loader, which then leaves images encoded."
    )


def _skippable(header: Header) -> bool:
    """Whether rows can be skipped.

    In progressive files that would save a twentieth, and a cut one would have other pixels.
    """
    upright = header.kind == "jpeg" and header.components == 3 and header.orientation == 1
    return upright and not header.progressive


def _checked(window: Window, height: int, width: int, name: str) -> tuple[int, int, int, int]:
    """The window's four numbers, inside of the image."""
    found: Any = window(height, width)
    try:
        top, left, rows, columns = map(operator.index, found)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: the window is {found!r:.80}, expected four integers. Let `window` return "
            "(top, left, height, width), rounded with int() or round()."
        ) from None
    if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
        raise ValueError(
            f"{name}: the window is {rows} x {columns} at row {top}, column {left}, expected at least "
            f"one pixel inside of the image of {height} x {width}. Let `window` return "
            "(top, left, height, width)."
        )
    return top, left, rows, columns


def _cut(image: Array, box: tuple[int, int, int, int]) -> Array:
    """The window, contiguous and writable; a copy where columns are cut, so that the rest is freed."""
    top, left, height, width = box
    return np.require(image[top : top + height, left : left + width], requirements=("C", "W"))


@functools.cache
def _library() -> Any:
    """nvImageCodec, or None if it is not installed.

    It is imported by the first image, and not with this module: without a GPU's libraries it prints
    errors about its decoders for them.
    """
    try:
        from nvidia import nvimgcodec
    except (ImportError, OSError):  # images are decoded whole, and cut
        return None
    version = tuple(map(int, nvimgcodec.__version__.split(".")[:2]))
    return nvimgcodec if version >= (0, 9) else None


def _decoded(data: bytes, box: tuple[int, int, int, int], whole_width: int) -> Array | None:
    """The window of a JPEG with three components; None if nvImageCodec cannot decode it."""
    library = _library()
    tools: Any = getattr(_of_thread, "tools", None)
    if tools is None:
        on_cpu = [library.Backend(library.BackendKind.CPU_ONLY)]
        decoder = library.Decoder(device_id=_CPU, max_num_cpu_threads=1, backends=on_cpu)
        parameters = library.DecodeParams(apply_exif_orientation=False)
        tools = _of_thread.tools = decoder, parameters
    decoder, parameters = tools
    top, left, height, width = box
    begin = max(0, min(left, whole_width - _NARROWEST))
    end = min(whole_width, max(left + width, begin + _NARROWEST))
    region = library.Region(top, begin, top + height, end)
    part = library.CodeStream(data).get_sub_code_stream(region=region)
    image = decoder.decode(part, params=parameters)
    if image is None:
        return None
    # np.asarray() would read __array_interface__, which leaks 32 bytes each time in nvImageCodec 0.9.
    found: Array = image.__array__()
    if found.shape != (height, end - begin, 3) or found.dtype != np.uint8:
        return None
    return _cut(found, (0, left - begin, height, width))
