"""Reads a page of a TIFF as it is stored, with a library that reads it correctly, or rejects it.

OpenCV takes bands for gray, multiplies colours by alpha, and reads planes of more than 8 bits as if
they were pixels. Therefore the header decides which library reads a page, and the result is compared
with the header.
"""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError, UnsupportedError, truncated
from kloaders.formats.tiff_header import TiffFacts

__all__ = ["check_page", "page_by_opencv", "page_by_tifffile", "reader_of"]

_NONE, _LZW, _PACKBITS, _DEFLATES = 1, 5, 32773, (8, 32946)
# Bits and form (1 unsigned, 3 float) that every supported OpenCV version reads correctly.
_OPENCV_FORMS = {(16, 1), (32, 3), (64, 3)}
_OPENCV_PACKINGS = {_NONE, _LZW, _PACKBITS, *_DEFLATES}
_PILLOW_GRAY, _PILLOW_COLOURS = {(0, 1), (1, 1), (3, 1)}, {(2, 3), (2, 4), (5, 4), (6, 3)}
_WHITE_IS_ZERO, _YCBCR = 0, 6
_KINDS = {
    0: "gray",
    1: "gray",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    32803: "colour filter array",
    34892: "linear raw",
}


def reader_of(page: TiffFacts) -> str:
    """The library that returns a page's samples as they are stored; "" if there is none."""
    bits, form, photometric = page.bits, page.form, page.photometric
    colours = (page.photometric, page.samples)
    if not page.planar and colours in ((1, 1), (2, 3), (2, 4)):
        if (bits, form) in _OPENCV_FORMS and page.compression in _OPENCV_PACKINGS:
            return "opencv"
        # For 8 bits, OpenCV does not report damage in compressed data.
        plain = page.compression == _NONE and not page.tiled and page.samples < 4
        if (bits, form) == (8, 1) and plain:
            return "opencv"
    if form == 1 and (
        (colours in _PILLOW_GRAY and bits in (1, 2, 4, 8))
        or (colours in _PILLOW_COLOURS and bits == 8 and 1 not in page.extra)
    ):
        return "pillow"
    return "tifffile" if page.dtype is not None and photometric in (0, 1, 2) else ""


def check_page(raw: bytes, page: TiffFacts, name: str) -> None:
    """Reject a page whose strips are incomplete, or do not match their checksums.

    Raises:
        UnsupportedError: no library here reads such pages.
        DecodeError: it is damaged.
    """
    if not reader_of(page):
        kind = _KINDS.get(page.photometric, f"of photometric interpretation {page.photometric}")
        bits = page.bits or "differing"
        raise UnsupportedError(
            f"{name} is a TIFF ({kind}, {page.samples} samples of {bits} bits) of an unsupported "
            "variant. Save it as 8 or 16 bits of gray or RGB, or read it in load_sample()."
        )
    for number, (begin, size) in enumerate(page.strips):
        if begin + size > len(raw):
            lacks = f"a TIFF whose part {number} ends at byte {begin + size}"
            raise truncated(name, lacks, raw)
        if not size:
            raise UnsupportedError(
                f"{name} is a TIFF whose part {number} has no pixels in the file (sparse), and their "
                "values are unknown. Save it again as a file that is not sparse, or leave it out."
            )
        if page.compression in _DEFLATES:
            _check_deflated(raw[begin : begin + size], number, name)
    if page.compression == _NONE and not page.tiled and page.photometric != _YCBCR:
        samples, planes = (1, page.samples) if page.planar else (page.samples, 1)
        needed = planes * page.height * -(-page.width * samples * page.bits // 8)
        there = sum(size for _, size in page.strips)
        if there < needed:
            raise truncated(name, f"a TIFF with {there} of {needed} bytes of pixels", raw)


def _check_deflated(data: bytes, number: int, name: str) -> None:
    """Decompress to the end, where the checksum is; decoders stop once they have enough pixels."""
    stream = zlib.decompressobj()
    try:
        while data and not stream.eof:
            stream.decompress(data, 2**20)
            data = stream.unconsumed_tail
        cause = "" if stream.eof else "ends too early"
    except zlib.error as error:
        cause = str(error)
    if cause:
        raise DecodeError(
            f"{name} is broken: part {number} of the TIFF does not inflate ({cause}). "
            "Copy or download it again, or leave it out."
        )


def page_by_opencv(raw: bytes, page: TiffFacts, name: str) -> Array | None:
    """A page in OpenCV's order of colours; its TIFF decoder makes it upright. None if it fails."""
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    image = image[:, :, np.newaxis] if image.ndim == 2 else image
    sides = (page.height, page.width) if page.orientation < 5 else (page.width, page.height)
    return _compared(image, sides, page, name)


def page_by_tifffile(raw: bytes, page: TiffFacts, name: str) -> Array:
    """All bands, in the order in which they are stored; the orientation is not applied.

    Raises:
        UnsupportedError: imagecodecs is missing, or the page is of an unsupported variant.
        DecodeError: it is damaged.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(raw)) as file:
            image = np.asarray(file.pages[0].asarray(maxworkers=1))
    except MemoryError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        if "imagecodecs" in cause:
            raise UnsupportedError(
                f"{name} is a TIFF whose compression (number {page.compression}) needs "
                'imagecodecs: pip install "kloaders[tiff]".'
            ) from error
        raise DecodeError(
            f"{name} cannot be decoded: tifffile says {cause!r:.80}. "
            "Copy it again, save it as another TIFF, or leave it out."
        ) from error
    sides = page.height, page.width
    form = (page.samples, *sides) if page.planar else (*sides, page.samples)
    if image.size != np.prod(form, dtype=np.int64):
        raise _other(f"{image.dtype} of shape {image.shape}", page, name)
    image = image.reshape(form)
    image = np.ascontiguousarray(np.moveaxis(image, 0, -1) if page.planar else image)
    image = _compared(image.astype(image.dtype.newbyteorder("="), copy=False), sides, page, name)
    if page.photometric == _WHITE_IS_ZERO and page.form == 1:
        image[..., 0] = image.dtype.type(2**page.bits - 1) - image[..., 0]
    return image


def _compared(image: Array, sides: tuple[int, int], page: TiffFacts, name: str) -> Array:
    """The image, if shape and dtype match the header; otherwise an error."""
    if image.shape != (*sides, page.samples) or image.dtype != page.dtype:
        raise _other(f"{image.dtype} of shape {image.shape}", page, name)
    return image


def _other(got: str, page: TiffFacts, name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} is a TIFF of {page.height} x {page.width} pixels with {page.samples} samples of "
        f"{page.bits} bits by its header, but decodes to {got}. "
        "Save it again, or read it in load_sample()."
    )
