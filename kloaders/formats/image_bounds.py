"""Rejects images that are too large or truncated, by checking the header and the end.

Nothing is decoded, except images that end with zeros.
"""

from __future__ import annotations

import struct

from kloaders.formats.errors import DecodeError, empty_file, truncated
from kloaders.formats.image_headers import Header
from kloaders.formats.jpeg_structure import another_in_data, another_in_header
from kloaders.formats.options import ImageOptions
from kloaders.formats.png_header import PngFacts
from kloaders.formats.zero_tail import zero_tail

__all__ = [
    "check_coded_data",
    "check_whole",
    "too_large",
]


def check_whole(raw: bytes, header: Header | None, options: ImageOptions, name: str) -> None:
    """Reject images that are too large or truncated, before a decoder allocates memory or prints.

    Messages that OpenCV, libpng and libjpeg print about damage inside a file are not suppressed: their
    log level is global to the process, and the user's own cv2.imread may depend on it.
    """
    if not raw:
        raise empty_file(name)
    if header is None:
        # Unknown kinds pass, because OpenCV reads more than this package knows. A JPEG without a
        # header does not: it is truncated, or OpenCV would have to guess.
        if raw.startswith(b"\xff\xd8"):
            raise truncated(name, "a JPEG without image data", raw)
        if raw.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # the same for TIFF
            raise truncated(name, "a TIFF without a directory of its first page", raw)
        return
    if header.height < 1 or header.width < 1:
        raise DecodeError(
            f"{name} is {header.height} x {header.width} by its header, expected at least one "
            "pixel each way. Save it again, or leave it out."
        )
    if header.height * header.width > options.max_pixels:
        raise too_large(header.height, header.width, options.max_pixels, name)
    if header.kind == "jpeg":
        # OpenCV 4.10 silently returns half an image for a truncated JPEG (4.12 does not). The end
        # marker cannot occur in compressed pixels (there ff is followed by 00), and a thumbnail's
        # end marker comes before them. Bytes after the end marker are ignored. An image that lacks
        # only the marker is rejected as well: to distinguish it from a truncated image would
        # require decoding every block, and OpenCV since 4.12 rejects both.
        if not raw.endswith(b"\xff\xd9") and raw.rfind(b"\xff\xd9", header.scan) < 0:
            raise truncated(name, "a JPEG without end marker", raw)
        missing = another_in_header(raw, header.scan)
        if missing is not None:
            raise truncated(name, missing, raw)
    elif header.kind == "png":
        if raw.rfind(b"IEND") < 0:
            raise truncated(name, "a PNG without IEND chunk", raw)
        # Deflate expands at most 1032 times: reject larger claims before memory is allocated.
        bits = raw[24] * {2: 3, 4: 2, 6: 4}.get(raw[25], 1)
        if header.height * header.width * bits // 8 > 1032 * len(raw):
            raise DecodeError(
                f"{name} claims {header.height} x {header.width} pixels, more than its {len(raw)} "
                "bytes can hold. Copy or download it again, or leave it out."
            )
        facts = header.facts
        if isinstance(facts, PngFacts) and facts.end < 0:
            # OpenCV 4.12 allocates the length that a chunk claims, up to 4 GiB.
            lacks = f"a PNG whose chunks do not end before byte {facts.stopped}"
            raise truncated(name, lacks, raw)
    elif header.kind.endswith("webp"):
        (size,) = struct.unpack_from("<I", raw, 4)
        if size + 8 > len(raw):
            raise truncated(name, f"a WebP of {size + 8} bytes by its header", raw)
        if raw.find(b"WEBPVP8", 12, size + 8) > 0:
            raise truncated(name, "a WebP that is cut off where another one begins", raw)
    zeros = zero_tail(raw)
    if zeros is not None:
        raise truncated(name, zeros, raw)


def check_coded_data(raw: bytes, header: Header | None, name: str) -> None:
    """Reject a JPEG that is cut off at a point where another one begins.

    For such a file OpenCV and Pillow return half an image. simplejpeg raises an error, so its images
    do not need this check, which takes a twentieth of the time of decoding.
    """
    if header is not None and header.kind == "jpeg":
        missing = another_in_data(raw, header.scan)
        if missing is not None:
            raise truncated(name, missing, raw)


def too_large(height: int, width: int, max_pixels: int, name: str) -> DecodeError:
    return DecodeError(
        f"{name} is {height} x {width}, {height * width} pixels, but max_pixels allows "
        f"{max_pixels}. Pass max_pixels={height * width} if you trust it."
    )
