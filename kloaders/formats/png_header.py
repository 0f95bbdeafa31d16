"""Reads orientation, transparency and animation from the chunks of a PNG."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kloaders.formats.exif import inflated, of_exif, of_profile, of_xmp

__all__ = ["PNG_CHUNK", "PngFacts", "png_facts", "still"]

PNG_CHUNK = struct.Struct(">I4s")
# As many chunks as a PNG of 1 GiB has with the usual chunk size of 8 KiB.
_CHUNKS = 125_000
# The maximum size of an XMP packet and of the texts before it.
_TEXT = 2**18
_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))
_PROFILES = (b"Raw profile type exif\0", b"Raw profile type APP1\0")


class PngFacts(NamedTuple):
    """The facts found in the chunks.

    Attributes:
        orientation: the EXIF orientation, from any chunk; 1 for upright.
        clear: the gray value that is transparent; None for none.
        animated: whether it has animation frames; its default image may not be one of them.
        end: the position of the IEND chunk; -1 if there is none.
        stopped: if there is no IEND chunk, the position where the walk ended; else -1.
    """

    orientation: int
    clear: int | None
    animated: bool
    end: int
    stopped: int


def _chunks(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, length and kind of each chunk, including IEND."""
    at = 8
    for _ in range(_CHUNKS):
        if at + 8 > len(raw):
            yield at, 0, b""
            return
        length, kind = PNG_CHUNK.unpack_from(raw, at)
        yield at, length, kind
        if kind == b"IEND":
            return
        at += 12 + length
    yield at, 0, b""


def png_facts(raw: bytes) -> PngFacts:
    """Visit all chunks, skipping the pixels."""
    exif: int | None = None
    profile: int | None = None
    xmp: int | None = None
    clear: int | None = None
    animated, end, stopped = False, -1, -1
    for at, length, kind in _chunks(raw):
        if kind == b"IDAT":
            continue
        if kind == b"IEND":
            end = at
        elif kind == b"":
            stopped = at
        elif kind == b"eXIf":
            exif = of_exif(raw[at + 8 : at + 8 + length]) or exif
        elif kind in (b"tEXt", b"zTXt") and raw.startswith(_PROFILES, at + 8):
            text = raw[at + 8 : at + 8 + length].partition(b"\0")[2]
            profile = of_profile(inflated(text[1:]) if kind == b"zTXt" else text) or profile
        elif kind == b"iTXt" and raw.startswith(b"XML:com.adobe.xmp\0", at + 8):
            xmp = _of_text(raw[at + 26 : at + 8 + length][:_TEXT]) or xmp
        elif kind == b"tRNS" and raw[25] == 0 and length == 2:
            (clear,) = struct.unpack_from(">H", raw, at + 8)
        elif kind == b"acTL":
            animated = True
    return PngFacts(exif or profile or xmp or 1, clear, animated, end, stopped)


def _of_text(text: bytes) -> int | None:
    """The orientation in an international text: after the keyword two flags, two names, and XMP."""
    parts = text[2:].split(b"\0", 2)
    if len(text) < 2 or len(parts) < 3:
        return None
    return of_xmp(inflated(parts[2]) if text[0] else parts[2])


def still(raw: bytes) -> bytes:
    """An animated PNG without its animation; what remains is its default image.

    Newer versions of OpenCV decode the first frame instead, which may be a different image.
    """
    kept, begin = [], 0
    for at, length, kind in _chunks(raw):
        if kind in _ANIMATION:
            kept.append(raw[begin:at])
            begin = at + 12 + length
    return b"".join([*kept, raw[begin:]])
