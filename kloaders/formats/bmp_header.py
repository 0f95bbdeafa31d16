"""Reads BMP headers, to find the files that OpenCV decodes correctly."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["BmpFacts", "bmp_facts"]

# Windows and most programs write these sizes. OS/2 wrote 12 and 64 bytes, Adobe 52 and 56.
_USUAL = (40, 108, 124)


class BmpFacts(NamedTuple):
    """Height and width in pixels, bits per pixel, the compression, and the header's size.

    compression: 0 none, 1 and 2 run lengths, 3 and 6 masks that describe the colours' bits.
    """

    height: int
    width: int
    bits: int
    compression: int
    head: int

    @property
    def plain(self) -> bool:
        """Whether all readers agree on it: gray, a palette of 256, or blue, green and red."""
        return self.head in _USUAL and self.compression == 0 and self.bits in (8, 24)


def bmp_facts(raw: bytes) -> BmpFacts:
    """The facts in the header.

    Raises:
        struct.error: the header is cut off.
    """
    (head,) = struct.unpack_from("<I", raw, 14)
    if head == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
        return BmpFacts(height, width, bits, 0, head)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", raw, 18)
    return BmpFacts(abs(height), width, bits, compression, head)  # negative: rows in top-down order
