"""Checks that the structure of an image is complete, even if decoders would tolerate a missing end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.jpeg_structure import walk_jpeg
from kloaders.formats.zero_tail import zero_tail

__all__ = [
    "damage_of",
    "kind_of",
    "unfinished",
]


# The maximum number of steps of a walk: hostile files have millions of empty segments.
_STEPS = 100_000


def kind_of(head: bytes) -> str | None:
    """The kind of a file by its first bytes (12 are enough); None for an unknown kind."""
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\3\4"):
        return "npz"
    return "BMP" if head.startswith(b"BM") else None


def unfinished(raw: bytes) -> str | None:
    """What is missing in an image whose structure ends too early; None if it is complete.

    An unknown kind is assumed to be complete. Bytes after the end are ignored: cameras append previews,
    and other programs append metadata.

    >>> unfinished(b"GIF89a")
    'a GIF whose screen descriptor is cut off'
    """
    walks = {
        "JPEG": lambda raw: walk_jpeg(raw)[0],
        "PNG": _png,
        "GIF": _gif,
        "BMP": _bmp,
        "WebP": _webp,
        "TIFF": _tiff,
    }
    walk = walks.get(kind_of(raw[:12]) or "")
    if walk is None:
        return None
    try:
        return walk(raw) or zero_tail(raw)
    except (struct.error, IndexError, ValueError, OverflowError):  # beyond the end
        return f"its structure ends after {len(raw):,} bytes, in the middle"


def _png(raw: bytes) -> str | None:
    for at, size, kind in png_chunks(raw):
        if at + 12 + size > len(raw):
            return f"a PNG whose chunk {kind!r} of {size:,} bytes is cut off"
        if kind == b"IEND":
            return None
    return f"a PNG without IEND chunk, after {len(raw):,} bytes"


def png_chunks(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 8
    for _ in range(_STEPS):
        if at + 8 > len(raw):
            return
        size, kind = struct.unpack_from(">I4s", raw, at)
        yield at, size, kind
        at += 12 + size


def damage_of(raw: bytes) -> str | None:
    """A chunk of a PNG that does not match its checksum, or None; other kinds have no checksums."""
    if kind_of(raw[:12]) == "PNG":
        for at, size, kind in png_chunks(raw):
            body = memoryview(raw)[at + 4 : at + 8 + size]
            if raw[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
                return f"its chunk {kind!r} at byte {at:,} does not match its checksum"
            if kind == b"IEND":
                break
    return None


def _gif(raw: bytes) -> str | None:
    if len(raw) < 13:
        return "a GIF whose screen descriptor is cut off"

    def after_table(flags: int, at: int) -> int:
        return at + 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else at

    def after_blocks(at: int) -> int:
        while raw[at]:
            at += 1 + raw[at]
        return at + 1

    at, frames = after_table(raw[10], 13), 0
    while at < len(raw):
        if raw[at] == 0x3B:
            return None if frames else "a GIF without an image"
        if raw[at] == 0x21:
            at = after_blocks(at + 2)
        elif raw[at] == 0x2C:
            frames += 1
            at = after_blocks(after_table(raw[at + 9], at + 10) + 1)
        elif raw[at] == 0:  # some programs write these between blocks
            at += 1
        else:
            break
    mend = "; append the byte 3b if it has all its images" if frames and at == len(raw) else ""
    return f"a GIF without its end, after {len(raw):,} bytes{mend}"


def _bmp(raw: bytes) -> str | None:
    begin, head = struct.unpack_from("<II", raw, 10)
    if head == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", raw, 18)
        packing, size = 0, 0
    else:
        width, height, _, depth, packing, size = struct.unpack_from("<iiHHII", raw, 18)
    if packing in (0, 3, 6):
        size = (abs(width) * depth + 31) // 32 * 4 * abs(height)
    if begin + size > len(raw):
        return f"a BMP of {begin + size:,} bytes by its header, but {len(raw):,} exist"
    return None


def _webp(raw: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", raw, 4)
    if size + 8 > len(raw):
        return f"a WebP of {size + 8:,} bytes by its header, but {len(raw):,} exist"
    at = 12
    for _ in range(_STEPS):
        if at + 8 > size + 8:
            break
        kind, length = struct.unpack_from("<4sI", raw, at)
        if at + 8 + length > size + 8:
            return f"a WebP whose chunk {kind!r} of {length:,} bytes is cut off"
        at += 8 + length + length % 2
    if raw.find(b"WEBPVP8", 12, size + 8) > 0:
        return "a WebP that is cut off where another one begins"
    return None


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TIFF_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}


def _tiff(raw: bytes) -> str | None:
    """Visit all directories; their offsets must be within the file."""
    order = "<" if raw[:2] == b"II" else ">"
    big = raw[2:4] in (b"+\0", b"\0+")
    word, step, head = ("Q", 20, 8) if big else ("I", 12, 2)
    word_size = struct.calcsize(word)
    (at,) = struct.unpack_from(order + word, raw, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _STEPS:
        seen.add(at)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), raw, at)
        at += head
        if at + count * step + word_size > len(raw):
            return "a TIFF whose directory is cut off"
        parts: dict[int, Array] = {}
        for entry in range(at, at + count * step, step):
            tag, form, number = struct.unpack_from(order + "HH" + word, raw, entry)
            place = entry + 4 + word_size
            size = number * _TIFF_SIZES.get(form, 1)
            if size > word_size:
                (place,) = struct.unpack_from(order + word, raw, place)
            if place + size > len(raw):
                return f"a TIFF whose tag {tag} points beyond its end"
            if tag in (273, 279, 324, 325) and form in _TIFF_TYPES:
                kind = np.dtype(order + _TIFF_TYPES[form])
                parts[tag] = np.frombuffer(raw, kind, number, place).astype(np.uint64)
        for begins, sizes in ((273, 279), (324, 325)):
            if begins in parts and sizes in parts and len(parts[begins]) == len(parts[sizes]):
                ends = parts[begins] + parts[sizes]
                if len(ends) and int(ends.max()) > len(raw):
                    return f"a TIFF of {int(ends.max()):,} bytes, but {len(raw):,} exist"
        (at,) = struct.unpack_from(order + word, raw, at + count * step)
    return None
