"""Reads an image's kind, size and orientation from its header, so that a decompression bomb costs nothing."""

from __future__ import annotations

import struct
from typing import NamedTuple

from kloaders.formats.bmp_header import BmpFacts, bmp_facts
from kloaders.formats.exif import of_exif, of_xmp
from kloaders.formats.png_header import PngFacts, png_facts
from kloaders.formats.tiff_header import TiffFacts, tiff_facts

__all__ = [
    "Header",
    "header_of",
    "image_shape",
]


class Header(NamedTuple):
    """The facts in the header of an image."""

    kind: str
    height: int  # as stored, before the orientation is applied
    width: int
    # EXIF's orientation: 1 upright, ..., 8; from 5 on height and width are swapped. XMP's if no EXIF.
    orientation: int = 1
    gray: bool = False  # known only for JPEG
    scan: int = 0  # JPEG: where the compressed pixels begin
    components: int = 0  # JPEG: 1 gray, 3 colour, 4 CMYK
    progressive: bool = False  # JPEG: any frame but a sequential one with Huffman codes
    facts: BmpFacts | PngFacts | TiffFacts | None = None  # more facts for these formats


# The maximum number of segments or chunks that are visited: real files have a few dozen, and a
# hostile file with very many empty ones must not hold the interpreter for seconds.
_STEPS = 10_000
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">BHHB")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

# C4, C8 and CC are between the frame markers, but have another meaning.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})  # without a length: TEM, RST0 ... RST7


def _jpeg_header(raw: bytes) -> Header | None:
    """Visit the segments up to the pixels; None if there are no pixels."""
    exif: int | None = None
    xmp: int | None = None
    height, width, components, progressive, at = -1, 0, 0, False, 2
    try:
        for _ in range(_STEPS):
            mark, marker, length = _SEGMENT.unpack_from(raw, at)
            if mark != 0xFF:
                at = raw.index(b"\xff", at)  # like decoders, skip stray bytes between segments
            elif marker in _FRAME_MARKERS and height < 0:
                _, height, width, components = _FRAME.unpack_from(raw, at + 4)
                progressive = marker > 0xC1
                at += 2 + length
            elif marker == 0xDA:
                if height < 0:
                    return None
                turned = exif or xmp or 1
                gray = components == 1
                return Header("jpeg", height, width, turned, gray, at, components, progressive)
            elif marker == 0xE1:
                if raw.startswith(b"Exif\0\0", at + 4):
                    exif = of_exif(raw[at + 10 : at + 2 + length]) or exif
                elif raw.startswith(_XMP, at + 4):
                    xmp = of_xmp(raw[at + 4 : at + 2 + length]) or xmp
                at += 2 + length
            elif marker == 0xFF:
                at += 1  # a fill byte
            elif marker in _BARE_MARKERS:
                at += 2
            else:
                at += 2 + length
    except (struct.error, ValueError):  # beyond the end
        pass
    return None


def _png_header(raw: bytes) -> Header:
    width, height = struct.unpack_from(">II", raw, 16)
    facts = png_facts(raw)
    return Header("png", height, width, facts.orientation, facts=facts)


def _webp_header(raw: bytes) -> Header | None:
    kind = raw[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", raw, 26)
        return Header("webp", height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", raw, 21)
        return Header("webp", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind != b"VP8X":
        return None
    width = int.from_bytes(raw[24:27], "little") + 1
    height = int.from_bytes(raw[27:30], "little") + 1
    exif: int | None = None
    xmp: int | None = None
    at = 30
    for _ in range(_STEPS if raw[20] & 12 else 0):  # 8: there is an EXIF chunk, 4: XMP
        if at + 8 > len(raw):
            break
        chunk, length = struct.unpack_from("<4sI", raw, at)
        if chunk == b"EXIF":
            exif = of_exif(raw[at + 8 : at + 8 + length])
        elif chunk == b"XMP ":
            xmp = of_xmp(raw[at + 8 : at + 8 + length])
        at += 8 + length + length % 2  # padded to an even length
    orientation = exif or xmp or 1
    return Header("animated webp" if raw[20] & 2 else "webp", height, width, orientation)


def _bmp_header(raw: bytes) -> Header:
    facts = bmp_facts(raw)
    return Header("bmp", facts.height, facts.width, facts=facts)


def _tiff_header(raw: bytes) -> Header | None:
    facts = tiff_facts(raw)
    if facts is None:
        return None
    return Header("tiff", facts.height, facts.width, facts.orientation, facts=facts)


def header_of(raw: bytes) -> Header | None:
    """Kind and size by content, whatever the file's name; None for an unknown kind."""
    try:
        if raw.startswith(b"\xff\xd8"):
            return _jpeg_header(raw)
        if raw.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_header(raw)
        if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
            return _webp_header(raw)
        if raw.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", raw, 6)
            return Header("gif", height, width)
        if raw.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _tiff_header(raw)
        if raw.startswith(b"BM"):
            return _bmp_header(raw)
    except (struct.error, IndexError):
        pass
    return None


def image_shape(raw: bytes) -> tuple[int, int] | None:
    """The (height, width) that `decode_image` returns, with EXIF's orientation, from the header alone.

    None if the header is damaged or of an unknown kind. Takes a few microseconds.
    """
    header = header_of(raw)
    if header is None:
        return None
    if header.orientation >= 5:
        return header.width, header.height
    return header.height, header.width
