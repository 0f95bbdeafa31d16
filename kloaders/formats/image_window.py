"""Decodes a window of an image. nvImageCodec, if installed, skips the rest of a JPEG, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.image_bounds import check_whole
from kloaders.formats.image_headers import Header, header_of
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions

try:
    from nvidia import nvimgcodec
except ImportError:  # images are decoded whole, and cut
    nvimgcodec = None

__all__ = ["decode_and_crop", "keep_encoded", "skips_rows"]

Window = Callable[[int, int], tuple[int, int, int, int]]

_RGB = ImageOptions()
# nvImageCodec's number for "no GPU".
_CPU = -99999

# A decoder may only be used by one thread at a time.
_of_thread = threading.local()


def skips_rows() -> bool:
    """Whether a library is installed that skips what is outside of the window of a JPEG."""
    return nvimgcodec is not None


def keep_encoded(raw: bytes) -> Array:
    """The bytes of a file as (bytes,) uint8: `decode=kl.keep_encoded` leaves decoding to `transform`.

    Caches keep the encoded bytes, too.
    """
    return np.frombuffer(raw, np.uint8)


def decode_and_crop(raw: bytes | Array, window: Window, name: str = "image") -> Array:
    """Decode a window of an image to (height, width, 3), RGB, uint8; uint16 or float if so stored.

    The pixels are those of the whole image, cut. With nvImageCodec (`pip install "kloaders[crop]"`)
    the rows below the window of a JPEG are not decoded, and little of what is above or beside it; its
    decoder for the CPU is used. Other images, and rotated or gray JPEGs, are decoded whole and cut.

    Args:
        raw: the encoded image, as bytes or as a uint8 array of one axis.
        window: called with the height and the width of the upright image; returns top, left, height
            and width of the window.
        name: the name of the image in messages.

    Raises:
        DecodeError: the image cannot be decoded. Damage in rows that are skipped is not detected.
        ValueError: the window is not in the image, or empty.

    Threads: any number at once.
    """
    data = raw if isinstance(raw, bytes) else bytes(raw)
    header = header_of(data)
    if header is None or not skips_rows() or not _plain(header):
        image = decode_image(data, _RGB, name=name)
        top, left, height, width = _checked(window, *image.shape[:2], name)
        return image[top : top + height, left : left + width]
    check_whole(data, header, _RGB, name)
    top, left, height, width = _checked(window, header.height, header.width, name)
    found = _decoded(data, top, left, height, width)
    if found is None:  # damaged, or a variant that only the other decoders read
        found = decode_image(data, _RGB, name=name)[top : top + height, left : left + width]
    return found


def _plain(header: Header) -> bool:
    return header.kind == "jpeg" and header.components == 3 and header.orientation == 1


def _checked(window: Window, height: int, width: int, name: str) -> tuple[int, int, int, int]:
    """The window's four numbers, inside of the image."""
    top, left, rows, columns = window(height, width)
    if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
        raise ValueError(
            f"{name}: the window is {rows} x {columns} at row {top}, column {left}, expected at least "
            f"one pixel inside of the image of {height} x {width}. Let `window` return "
            "(top, left, height, width)."
        )
    return int(top), int(left), int(rows), int(columns)


def _decoded(data: bytes, top: int, left: int, height: int, width: int) -> Array | None:
    """The window of a JPEG with three components; None if nvImageCodec cannot decode it."""
    tools: Any = getattr(_of_thread, "tools", None)
    if tools is None:
        on_cpu = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
        decoder = nvimgcodec.Decoder(device_id=_CPU, max_num_cpu_threads=1, backends=on_cpu)
        parameters = nvimgcodec.DecodeParams(apply_exif_orientation=False)
        tools = _of_thread.tools = decoder, parameters
    decoder, parameters = tools
    region = nvimgcodec.Region(top, left, top + height, left + width)
    part = nvimgcodec.CodeStream(data).get_sub_code_stream(region=region)
    image = decoder.decode(part, params=parameters)
    if image is None:
        return None
    found: Array = np.asarray(image)
    same = found.shape == (height, width, 3) and found.dtype == np.uint8
    return found if same else None
