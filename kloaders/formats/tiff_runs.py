"""Checks for `verify` that the strips of a TIFF with LZW or PackBits unpack to the expected size.

Neither has a checksum, and decoders stop when a strip is full. But a changed code usually stands for
another number of bytes, so that the sum is wrong at the end of the strip. Nothing is unpacked.
"""

from __future__ import annotations

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.tiff_header import TiffFacts

__all__ = ["lzw_length", "packbits_length", "strip_damage"]

_LZW, _PACKBITS = 5, 32773
_CLEAR, _END, _FIRST = 256, 257, 258
# The number of codes with 9, 10 and 11 bits after a clear code; all later codes have 12.
_WIDTHS = ((9, 254), (10, 512), (11, 1024), (12, 4096))


def strip_damage(raw: bytes, page: TiffFacts) -> str | None:
    """The problem of a page's strips or tiles, if one is detected; otherwise None."""
    count = {_LZW: lzw_length, _PACKBITS: packbits_length}.get(page.compression)
    expected = page.part_bytes()
    if count is None or len(expected) != len(page.strips):
        return None
    for number, ((begin, size), (least, most)) in enumerate(
        zip(page.strips, expected, strict=True)
    ):
        got = count(raw[begin : begin + size])
        if got is not None and got not in (least, most):
            return (
                f"part {number} of the TIFF unpacks to {got:,} bytes, expected {least:,}: "
                "its data were changed"
            )
    return None


def lzw_length(data: bytes) -> int | None:
    """The number of bytes that a stream of codes stands for; None for the old bit order.

    -1 if an unknown code occurs. A stream without an end code counts up to its last complete code.
    """
    if data[:1] == b"\0" and data[1:2] in (b"\1", b"\0"):
        return None
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    at, total, ended = 0, 0, False
    while not ended and at + _WIDTHS[0][0] <= len(bits):
        codes, at, ended = _until_clear(bits, at)
        found = _length_of(codes)
        if found < 0:
            return -1
        total += found
    return total


def _until_clear(bits: Array, at: int) -> tuple[list[int], int, bool]:
    """The codes up to the next clear or end code, the position after it, and whether it was the end."""
    codes: list[int] = []
    for width, most in _WIDTHS:
        number = min(most, (len(bits) - at) // width)
        read = bits[at : at + number * width].reshape(number, width)
        values = read @ (1 << np.arange(width - 1, -1, -1))
        stops = np.flatnonzero((values == _CLEAR) | (values == _END))
        if len(stops):
            stop = int(stops[0])
            codes += values[:stop].tolist()
            return codes, at + (stop + 1) * width, int(values[stop]) == _END
        codes += values.tolist()
        at += number * width
        if number < most:
            break
    return codes, len(bits), True


def _length_of(codes: list[int]) -> int:
    lengths: list[int] = []
    for number, code in enumerate(codes):
        if code < _CLEAR:
            lengths.append(1)
        elif code - _FIRST < number:  # the string of an earlier code, plus one byte
            lengths.append(lengths[code - _FIRST] + 1)
        else:
            return -1
    return sum(lengths)


def packbits_length(data: bytes) -> int | None:
    """The number of bytes that runs and literals stand for; -1 if the last one is cut off."""
    at, total = 0, 0
    while at < len(data):
        head = data[at]
        if head < 128:
            at, total = at + 2 + head, total + 1 + head
        elif head > 128:
            at, total = at + 2, total + 257 - head
        else:
            at += 1
    return total if at == len(data) else -1
