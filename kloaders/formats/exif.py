"""Reads the orientation of an image from EXIF, a text profile, or XMP."""

from __future__ import annotations

import re
import zlib

from kloaders.formats.tiff_header import ORIENTATION, tags_of

__all__ = ["inflated", "of_exif", "of_profile", "of_xmp"]

# As an attribute (tiff:Orientation="6") or as an element (<tiff:Orientation>6<...).
_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)([1-8])\b")
# EXIF is at most 64 KiB, which is twice as many hexadecimal digits, plus line breaks.
_MOST = 2**18


def of_exif(exif: bytes) -> int | None:
    """The EXIF orientation from 1 (upright) to 8; None if missing or invalid."""
    value = tags_of(exif.removeprefix(b"Exif\0\0"), frozenset((ORIENTATION,))).get(ORIENTATION)
    return value[0] if value and 1 <= value[0] <= 8 else None


def of_profile(text: bytes) -> int | None:
    """The orientation in a "Raw profile type exif": EXIF as hexadecimal digits, written by ImageMagick."""
    try:  # a line break, the kind, the number of bytes, and then the digits
        _, digits = text[:_MOST].split(b"exif", 1)[1].strip().split(None, 1)
        return of_exif(bytes.fromhex(b"".join(digits.split()).decode("ascii")))
    except (ValueError, IndexError):
        return None


def of_xmp(packet: bytes) -> int | None:
    """The orientation in an XMP packet."""
    found = _XMP.search(packet)
    return int(found[1]) if found else None


def inflated(data: bytes) -> bytes:
    """Decompress text of a PNG, as much as can matter; empty if it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _MOST)
    except zlib.error:
        return b""
