"""Detects images whose end was replaced by zeros, as interrupted copies and lost disk blocks leave it.

Such a file has the right size and an intact header, and decodes to an image that is partly black or
gray. JPEG, PNG, GIF and .npz have end markers or checksums; this module handles the formats without.
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

# Coded data are examined if they end with this many zeros. Encoders end flat images with a few.
_FEW = 16
# For uncompressed pixels, in the row where the zeros begin: this many pixels of the row above, from
# that column to its end, must be at least this bright; and, before that column, this share of the
# pixels in both rows must not be black.
_PIXELS, _BRIGHT, _DRAWN = 8, 8, 0.9
# Bytes that are meaningful in any code, and contain no zeros.
_NOISE = np.random.default_rng(14).integers(1, 255, _FEW, np.uint8).tobytes()
# The maximum number of steps of a walk.
_STEPS = 100_000


def zero_tail(raw: bytes) -> str | None:
    """Describe the end of a WebP, BMP or TIFF that was replaced by zeros; None if there is none.

    If compressed data end with zeros, the image is decoded twice, once with other bytes in place of the
    zeros. If the result is the same, the decoder never reads these bytes, which no encoder would write.

    Uncompressed pixels may be black. They are reported only if the zeros begin in the middle of a row,
    continue to the end, and the row above has no dark pixel from that column on.

    Takes a microsecond if the last bytes are not zeros.
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
    except (struct.error, IndexError, ValueError, OverflowError):  # damage that other checks report
        pass
    return None


def _said(kind: str, begin: int, raw: bytes) -> str:
    return f"a {kind} with zeros in place of its data from byte {begin:,} of {len(raw):,} on"


def _zeros_from(raw: bytes, begin: int, end: int) -> int:
    """Where the zeros that end at `end` begin, but not before `begin`."""
    return begin + len(raw[begin:end].rstrip(b"\0"))


def _never_read(raw: bytes, end: int) -> bool:
    """Whether the image does not depend on the bytes just before `end`."""
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


# TIFF's compression numbers: LZW, JPEG, deflate (twice), PackBits.
_COMPRESSED: dict[int, Callable[[bytes, int, int], bool]] = {
    5: _decoded_the_same,
    7: _jpeg_without_end,
    8: _inflates_no_end,
    32946: _inflates_no_end,
    32773: _decoded_the_same,
}


def _cut_row(raw: bytes, strips: Strips) -> int | None:
    """Where zeros begin in the middle of a row and continue to the end, if no real image looks so.

    A black area below an image begins at the start of a row, and the edge of a black shape is also
    visible in the row above. After an interrupted copy the row above is complete.
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
        column = -(-column // pixel) * pixel  # the zeros may begin inside a pixel: skip that one
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
    """The strips, with adjacent ones joined, as long as they contain whole rows."""
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
