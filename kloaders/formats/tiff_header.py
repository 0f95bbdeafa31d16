"""Reads the directories of a TIFF, which describe its pages."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ORIENTATION", "TiffFacts", "page_offsets", "tags_of", "tiff_facts", "with_first_page"]

ORIENTATION = 274
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _EXTRA, _FORMATS = 277, 284, 338, 339
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 279, 324, 325
_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_FACTS = frozenset(
    (
        *(_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, ORIENTATION, _SAMPLES),
        *(_PLANAR, _EXTRA, _FORMATS, _STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES),
        *(_ROWS, _TILE_WIDTH, _TILE_HEIGHT),
    )
)
# Integer types, by their number.
_FORMS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
# The maximum number of entries, and of pages: a hostile directory claims millions.
_ENTRIES, _PAGES, _STRIP_COUNT = 512, 65_536, 2**24


class TiffFacts(NamedTuple):
    """One page, as described by its directory.

    Attributes:
        height, width: in pixels, before the orientation is applied.
        orientation: the EXIF orientation, 1 for upright.
        bits: bits per sample of a pixel; 0 if samples differ.
        form: 1 unsigned, 2 signed, 3 float; 0 if samples differ, or for any other form.
        samples: samples per pixel.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, and others.
        compression: 1 for none.
        planar: whether each sample is stored in a separate plane.
        extra: the meaning of samples other than the colours: 0 anything, 1 premultiplied alpha,
            2 alpha.
        tiled: whether pixels are stored in tiles instead of strips.
        following: the position of the next page's directory; 0 for none.
        strips: where strips or tiles begin, and their sizes.
        subfile: bits that mark a preview or a mask of another page.
        part: (height, width) of a tile, or of any strip except the last.
    """

    height: int
    width: int
    orientation: int
    bits: int
    form: int
    samples: int
    photometric: int
    compression: int
    planar: bool
    extra: tuple[int, ...]
    tiled: bool
    following: int
    strips: tuple[tuple[int, int], ...]
    subfile: int
    part: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The NumPy dtype of a sample; None if unknown or unsupported."""
        if self.form == 3:
            return np.dtype(f"f{self.bits // 8}") if self.bits in (16, 32, 64) else None
        if self.form not in (1, 2) or not 1 <= self.bits <= 64:
            return None
        size = next(n for n in (1, 2, 4, 8) if 8 * n >= self.bits)
        return np.dtype(f"{'ui'[self.form - 1]}{size}")

    @property
    def colours(self) -> int:
        """How many samples are gray (1) or red, green and blue (3); 0 for bands of another kind."""
        if self.photometric == 2 and self.samples >= 3:
            return 3
        alone = self.samples == 1 or (self.samples == 2 and self.extra[:1] in ((1,), (2,)))
        return 1 if self.photometric in (0, 1) and alone else 0

    def part_bytes(self) -> list[tuple[int, int]]:
        """The size in bytes of each decompressed strip or tile: without and with padding."""
        height, width = self.part
        samples, planes = (1, self.samples) if self.planar else (self.samples, 1)
        if not height or not width or not self.bits:
            return []
        row = -(-width * samples * self.bits // 8)
        down, across = -(-self.height // height), -(-self.width // width)
        whole = height * row
        last = whole if self.tiled else (self.height - height * (down - 1)) * row
        plane = [(whole, whole)] * (down * across - 1) + [(last, whole)]
        return plane * planes

    @property
    def is_reduced(self) -> bool:
        """Whether it is a preview, or a mask, of another page."""
        return bool(self.subfile & 5)


class _Directory(NamedTuple):
    tags: dict[int, tuple[int, ...]]
    following: int


def _directory(raw: Any, wanted: frozenset[int], at: int | None = None) -> _Directory:
    """The integer tags of a directory, by default the first one of a TIFF or of EXIF.

    Raises:
        struct.error, OverflowError: it is truncated, or its position is outside the file.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(raw[:2]))
    if order is None:
        return _Directory({}, 0)
    (version,) = struct.unpack_from(order + "H", raw, 2)
    big = version == 43
    word, counter, step = ("Q", "Q", 20) if big else ("I", "H", 12)
    if at is None:
        (at,) = struct.unpack_from(order + word, raw, 8 if big else 4)
    (count,) = struct.unpack_from(order + counter, raw, at)
    at += struct.calcsize(counter)
    tags: dict[int, tuple[int, ...]] = {}
    inline = struct.calcsize(word)
    for entry in range(at, at + step * min(count, _ENTRIES), step):
        tag, kind = struct.unpack_from(order + "HH", raw, entry)
        form = _FORMS.get(kind)
        if tag not in wanted or form is None:
            continue
        (number,) = struct.unpack_from(order + word, raw, entry + 4)
        number = min(number, _STRIP_COUNT if tag in (273, 279, 324, 325) else 64)
        place = entry + 4 + inline
        if number * struct.calcsize(form) > inline:
            (place,) = struct.unpack_from(order + word, raw, place)
        tags[tag] = struct.unpack_from(f"{order}{number}{form}", raw, place)
    following = 0
    if at + step * count + inline <= len(raw):
        (following,) = struct.unpack_from(order + word, raw, at + step * count)
    return _Directory(tags, following)


def tags_of(raw: bytes, wanted: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """The integer tags of the first directory of a TIFF, or of EXIF; empty if it is damaged."""
    try:
        return _directory(raw, wanted).tags
    except (struct.error, OverflowError):
        return {}


def _alike(values: tuple[int, ...]) -> int:
    return values[0] if len(set(values)) == 1 else 0


def tiff_facts(raw: Any, at: int | None = None) -> TiffFacts | None:
    """The facts in the directory at this offset, by default the first; None if it is damaged."""
    try:
        tags, following = _directory(raw, _FACTS, at)
    except (struct.error, OverflowError):
        return None
    if _WIDTH not in tags or _HEIGHT not in tags or not tags[_WIDTH] or not tags[_HEIGHT]:
        return None

    def first(tag: int, default: int) -> int:
        values = tags.get(tag) or (default,)
        return values[0]

    tiled = _TILES in tags
    begins, sizes = (_TILES, _TILE_SIZES) if tiled else (_STRIPS, _STRIP_SIZES)
    orientation = first(ORIENTATION, 1)
    rows = min(first(_ROWS, 2**32), first(_HEIGHT, 0))
    return TiffFacts(
        height=first(_HEIGHT, 0),
        width=first(_WIDTH, 0),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        bits=_alike(tags.get(_BITS) or (1,)),
        form={1: 1, 2: 2, 3: 3, 4: 1}.get(_alike(tags.get(_FORMATS) or (1,)), 0),
        samples=first(_SAMPLES, 1),
        photometric=first(_PHOTOMETRIC, 1),
        compression=first(_COMPRESSION, 1),
        planar=first(_PLANAR, 1) == 2 and first(_SAMPLES, 1) > 1,
        extra=tags.get(_EXTRA, ()),
        tiled=tiled,
        following=following,
        strips=tuple(zip(tags.get(begins, ()), tags.get(sizes, ()), strict=False)),
        subfile=first(_SUBFILE, 0),
        part=(first(_TILE_HEIGHT, 0), first(_TILE_WIDTH, 0)) if tiled else (rows, first(_WIDTH, 0)),
    )


def page_offsets(raw: bytes) -> Iterator[int]:
    """The positions of all pages' directories, without previews and masks, except for the first."""
    big = raw[2:4] in (b"+\0", b"\0+")
    order = "<" if raw[:2] == b"II" else ">"
    (at,) = (
        struct.unpack_from(order + "Q", raw, 8) if big else struct.unpack_from(order + "I", raw, 4)
    )
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _PAGES:
        facts = tiff_facts(raw, at)
        if facts is None:
            return
        if not seen or not facts.is_reduced:
            yield at
        seen.add(at)
        at = facts.following


def with_first_page(raw: bytes, at: int) -> bytes:
    """The same file with the directory at this position as its first one."""
    order = "<" if raw[:2] == b"II" else ">"
    if raw[2:4] in (b"+\0", b"\0+"):
        return raw[:8] + struct.pack(order + "Q", at) + raw[16:]
    return raw[:4] + struct.pack(order + "I", at) + raw[8:]
