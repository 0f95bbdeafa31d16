"""Kind and size of an image by a few bytes of its header, so that a bomb costs nothing."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = [
    "PNG_CHUNK",
    "Header",
    "header_of",
    "image_shape",
]


class Header(NamedTuple):
    """What the first bytes of an image say."""

    kind: str
    height: int  # as stored, before the picture is turned
    width: int
    orientation: int = 1  # EXIF: 1 upright ... 8; from 5 on height and width change places
    gray: bool = False  # only known for JPEG
    scan: int = 0  # JPEG: where the compressed pixels begin
    components: int = 0  # JPEG: 1 gray, 3 colour, 4 CMYK


# Segments or chunks walked over at most: real files have a few dozen, and a hostile one of many
# empty ones must not hold the interpreter for seconds.
_STEPS = 10_000
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">BHHB")
PNG_CHUNK = struct.Struct(">I4s")

# C4, C8 and CC lie between the frame markers and mean something else.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})  # without a length: TEM, RST0 ... RST7


def _jpeg_header(raw: bytes) -> Header | None:
    """Walks the segments up to the pixels. None where there are no pixels to be found."""
    orientation, height, width, components = 1, -1, 0, 0
    at = 2
    try:
        for _ in range(_STEPS):
            mark, marker, length = _SEGMENT.unpack_from(raw, at)
            if mark != 0xFF:
                at = raw.index(b"\xff", at)  # stray bytes between segments: decoders skip them
            elif marker in _FRAME_MARKERS and height < 0:
                _, height, width, components = _FRAME.unpack_from(raw, at + 4)
                at += 2 + length
            elif marker == 0xDA:
                if height < 0:
                    return None
                return Header("jpeg", height, width, orientation, components == 1, at, components)
            elif marker == 0xE1 and raw.startswith(b"Exif\0\0", at + 4):
                orientation = _orientation(raw[at + 10 : at + 2 + length])
                at += 2 + length
            elif marker == 0xFF:
                at += 1  # a fill byte
            elif marker in _BARE_MARKERS:
                at += 2
            else:
                at += 2 + length
    except (struct.error, ValueError):  # ran over the end
        pass
    return None


def _png_header(raw: bytes) -> Header:
    width, height = struct.unpack_from(">II", raw, 16)
    orientation, at = 1, 33
    # An eXIf chunk behind the pixels is allowed and rare; only those before them are found.
    for _ in range(_STEPS):
        if at + 8 > len(raw):
            break
        length, kind = PNG_CHUNK.unpack_from(raw, at)
        if kind == b"IDAT":
            break
        if kind == b"eXIf":
            orientation = _orientation(raw[at + 8 : at + 8 + length])
        at += 12 + length
    return Header("png", height, width, orientation)


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
    orientation, at = 1, 30
    for _ in range(_STEPS if raw[20] & 8 else 0):  # 8: there is an EXIF chunk
        if at + 8 > len(raw):
            break
        chunk, length = struct.unpack_from("<4sI", raw, at)
        if chunk == b"EXIF":
            exif = raw[at + 8 : at + 8 + length]
            orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
            break
        at += 8 + length + length % 2  # padded to even
    return Header("animated webp" if raw[20] & 2 else "webp", height, width, orientation)


def _bmp_header(raw: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", raw, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", raw, 18)
    return Header("bmp", abs(height), width)  # a negative height: the rows run downwards


def _tiff_header(raw: bytes) -> Header | None:
    tags = _tiff_tags(raw)
    if 256 not in tags or 257 not in tags:
        return None
    return Header("tiff", tags[257], tags[256], _orientation(raw))


def _orientation(exif: bytes) -> int:
    """EXIF's number from 1 (upright) to 8, 1 where it is missing or senseless."""
    value = _tiff_tags(exif).get(274, 1)
    return value if 1 <= value <= 8 else 1


def _tiff_tags(raw: bytes) -> dict[int, int]:
    """Whole-number tags up to 274 (Orientation) of the first directory of a TIFF, or of EXIF."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2])
    tags: dict[int, int] = {}
    if order is None:
        return tags
    try:
        (version,) = struct.unpack_from(order + "H", raw, 2)
        if version == 43:  # BigTIFF
            (at,) = struct.unpack_from(order + "Q", raw, 8)
            (count,) = struct.unpack_from(order + "Q", raw, at)
            at, step, value_at = at + 8, 20, 12
        else:
            (at,) = struct.unpack_from(order + "I", raw, 4)
            (count,) = struct.unpack_from(order + "H", raw, at)
            at, step, value_at = at + 2, 12, 8
        for entry in range(at, at + step * min(count, 512), step):
            tag, kind = struct.unpack_from(order + "HH", raw, entry)
            if tag > 274:  # they are sorted
                break
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if form:
                (tags[tag],) = struct.unpack_from(order + form, raw, entry + value_at)
    except (struct.error, OverflowError):  # cut short, or an offset that leads out of the file
        pass
    return tags


def header_of(raw: bytes) -> Header | None:
    """Kind and dimensions by content, whatever the file is called. None: not one we know."""
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
    """(height, width) as `decode_image` gives them, turned by EXIF, from the header alone.

    None where the header is damaged or of no kind known here. Takes a few microseconds.
    """
    header = header_of(raw)
    if header is None:
        return None
    if header.orientation >= 5:
        return header.width, header.height
    return header.height, header.width
