"""How an image is to be turned, from its EXIF, from a text profile, or from XMP. No pixels."""

from __future__ import annotations

import re
import zlib

from kloaders.formats.tiff_header import ORIENTATION, tags_of

__all__ = ["inflated", "of_exif", "of_profile", "of_xmp"]

# As an attribute (tiff:Orientation="6") or as an element (<tiff:Orientation>6<...).
_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)([1-8])\b")
# EXIF has 64 KiB at most; twice as many hexadecimal digits, and lines between them.
_MOST = 2**18


def of_exif(exif: bytes) -> int | None:
    """EXIF's orientation from 1 (upright) to 8; None if missing or invalid."""
    value = tags_of(exif.removeprefix(b"Exif\0\0"), frozenset((ORIENTATION,))).get(ORIENTATION)
    return value[0] if value and 1 <= value[0] <= 8 else None


def of_profile(text: bytes) -> int | None:
    """The number in a "Raw profile type exif": EXIF in hexadecimal digits, as ImageMagick writes it."""
    try:  # a line break, the kind, the number of bytes, and then the digits
        _, digits = text[:_MOST].split(b"exif", 1)[1].strip().split(None, 1)
        return of_exif(bytes.fromhex(b"".join(digits.split()).decode("ascii")))
    except (ValueError, IndexError):
        return None


def of_xmp(packet: bytes) -> int | None:
    """The number in an XMP packet."""
    found = _XMP.search(packet)
    return int(found[1]) if found else None


def inflated(data: bytes) -> bytes:
    """Compressed text of a PNG, as much of it as can matter; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _MOST)
    except zlib.error:
        return b""
