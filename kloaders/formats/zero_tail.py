"""Whether the end of an image is zeros that nobody wrote, as interrupted copies and lost blocks leave it.

Such a file has the right size and a sound header, and decodes: to black or to grey. JPEG, PNG, GIF
and .npz have marks or checksums at their ends; here are the kinds that have none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.tiff_strips import Strips, strips_of

__all__ = ["zero_tail"]

# So many zeros at the end of coded data are looked into. Encoders end flat images with some.
_FEW = 16
# Pixels without compression: where zeros begin in a row, so many of the row before, from there to its
# end, must be as bright as this, and so large a share of both rows before that must not be black.
_PIXELS, _BRIGHT, _DRAWN = 8, 8, 0.9
# Bits that mean something in any code, and no zeros.
_NOISE = np.random.default_rng(14).integers(1, 255, _FEW, np.uint8).tobytes()
# Maximum number of steps of a walk.
_STEPS = 100_000


def zero_tail(raw: bytes) -> str | None:
    """The part of a WebP, BMP or TIFF that was replaced by zeros at its end; None if there is none.

    Compressed data are decoded a second time if they end with zeros, and with other bytes in their
    place: a decoder that never gets there finds the same image, which no encoder writes. Pixels
    without compression may be black; accused are zeros that begin within a row, below a row that
    is nowhere dark in that place, and go on to the end. Takes a microsecond where the last bytes
    are not zeros.
    """
    if raw[-2:] != b"\0\0":
        return None
    try:
        if raw[8:12] == b"WEBP":
            return _webp(raw)
        if raw.startswith(b"BM"):
            return _bmp(raw)
        if raw[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(raw)
    except (struct.error, IndexError, ValueError, OverflowError):  # its structure is another matter
        pass
    return None


def _said(kind: str, begin: int, raw: bytes) -> str:
    return f"a {kind} with zeros in place of its data from byte {begin:,} of {len(raw):,} on"


def _zeros_from(raw: bytes, begin: int, end: int) -> int:
    """Start of the zeros that continue to `end`, not before `begin`."""
    return begin + len(raw[begin:end].rstrip(b"\0"))


def _never_read(raw: bytes, end: int) -> bool:
    """Whether a decoder gives the same image whatever the bytes before `end` are."""
    pictures = [
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        for content in (raw, raw[: end - _FEW] + _NOISE + raw[end:])
    ]
    if pictures[0] is None or pictures[1] is None:
        return False
    return np.array_equal(pictures[0], pictures[1])


def _webp(raw: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", raw, 4)
    stop, at, last = min(size + 8, len(raw)), 12, 0
    for _ in range(_STEPS):
        if at + 8 > stop:
            break
        kind, length = struct.unpack_from("<4sI", raw, at)
        if kind == bytes(4):
            return _said("WebP", _zeros_from(raw, 12, stop), raw)
        if kind in (b"VP8 ", b"VP8L"):
            last = at + 8 + length
        at += 8 + length + length % 2
    begin = _zeros_from(raw, 12, last)
    if last - begin >= _FEW and _never_read(raw, last):
        return _said("WebP", begin, raw)
    return None


def _bmp(raw: bytes) -> str | None:
    begin, head = struct.unpack_from("<II", raw, 10)
    if head < 40:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", raw, 18)
    if packing not in (0, 3, 6):
        return None
    stride = (abs(width) * bits + 31) // 32 * 4
    rows = Strips(stride, bits, abs(width) * bits // 8, [(begin, begin + stride * abs(height))])
    found = _cut_row(raw, rows)
    return None if found is None else _said("BMP", found, raw)


def _tiff(raw: bytes) -> str | None:
    strips = strips_of(raw)
    if strips is None:
        return None
    if strips.compression == 1:
        found = _cut_row(raw, strips)
        return None if found is None else _said("TIFF", found, raw)
    check = _COMPRESSED.get(strips.compression)
    for begin, end in strips.places if check is not None else ():
        zeros = _zeros_from(raw, begin, end)
        if end - zeros >= _FEW and check is not None and check(raw, begin, end):
            return _said("TIFF", zeros, raw)
    return None


def _inflates_no_end(raw: bytes, begin: int, end: int) -> bool:
    stream = zlib.decompressobj()
    try:
        stream.decompress(raw[begin:end])
    except zlib.error:
        return True
    return not stream.eof


def _jpeg_without_end(raw: bytes, begin: int, end: int) -> bool:
    return not raw[begin:end].rstrip(b"\0").endswith(b"\xff\xd9")


def _decoded_the_same(raw: bytes, begin: int, end: int) -> bool:
    return _never_read(raw, end)


# TIFF's numbers of compressions: LZW, JPEG, deflate (twice), PackBits.
_COMPRESSED: dict[int, Callable[[bytes, int, int], bool]] = {
    5: _decoded_the_same,
    7: _jpeg_without_end,
    8: _inflates_no_end,
    32946: _inflates_no_end,
    32773: _decoded_the_same,
}


def _cut_row(raw: bytes, strips: Strips) -> int | None:
    """Where zeros begin within a row of pixels and go on to the end, if nobody draws so.

    Black below an image begins with a row, and a black shape has an edge that the row before
    shows as well. In a copy that was cut the row before is whole.
    """
    end = max((stop for _, stop in strips.places), default=0)
    if end > len(raw) or not strips.stride:
        return None
    zeros = _zeros_from(raw, min(begin for begin, _ in strips.places), end)
    for begin, stop in _joined(strips):
        if not begin + strips.stride <= zeros < stop:
            continue
        row, column = divmod(zeros - begin, strips.stride)
        above = begin + (row - 1) * strips.stride
        pixel = max(1, strips.bits // 8)
        column = -(-column // pixel) * pixel  # the pixel in which they begin may be whole or not
        rest = _pixels(raw, above + column, max(0, strips.row - column), pixel)
        left = (_pixels(raw, place, column, pixel) for place in (above, above + strips.stride))
        if (
            column > 0
            and len(rest) >= _PIXELS
            and bool((rest.max(1) >= _BRIGHT).all())
            and all(pixels.any(1).mean() >= _DRAWN for pixels in left)
        ):
            return zeros
    return None


def _joined(strips: Strips) -> list[tuple[int, int]]:
    """Places of which those that follow one another are one, as long as they hold whole rows."""
    joined: list[tuple[int, int]] = []
    for begin, stop in sorted(strips.places):
        if joined and joined[-1][1] == begin and (begin - joined[-1][0]) % strips.stride == 0:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((begin, stop))
    return joined


def _pixels(raw: bytes, begin: int, size: int, pixel: int) -> Array:
    found: Array = np.frombuffer(raw, np.uint8, size // pixel * pixel, begin).reshape(-1, pixel)
    return found
