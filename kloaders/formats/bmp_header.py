"""Which BMP files OpenCV reads as they are meant, by their headers. No pixels."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["BmpFacts", "bmp_facts"]

# What Windows and most programs write. 12 and 64 bytes are those of OS/2, 52 and 56 Adobe's.
_USUAL = (40, 108, 124)


class BmpFacts(NamedTuple):
    """Height and width in pixels, bits of a pixel, how it is compressed, and the header's size.

    compression: 0 none, 1 and 2 run lengths, 3 and 6 masks that say where the colours are.
    """

    height: int
    width: int
    bits: int
    compression: int
    head: int

    @property
    def plain(self) -> bool:
        """Whether every reader reads it alike: gray, a palette of 256, or blue, green and red."""
        return self.head in _USUAL and self.compression == 0 and self.bits in (8, 24)


def bmp_facts(raw: bytes) -> BmpFacts:
    """The facts in the header.

    Raises:
        struct.error: it is cut off.
    """
    (head,) = struct.unpack_from("<I", raw, 14)
    if head == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
        return BmpFacts(height, width, bits, 0, head)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", raw, 18)
    return BmpFacts(abs(height), width, bits, compression, head)  # negative: rows run downwards
