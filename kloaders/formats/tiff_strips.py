"""Finds the strips and tiles of a TIFF, and the length of their rows. Decodes nothing."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

__all__ = ["Strips", "strips_of"]


class Strips(NamedTuple):
    """The pixels of an image as they are stored in its file.

    Attributes:
        stride: bytes from the start of a row to the start of the next; 0: unknown.
        bits: bits per pixel.
        row: bytes per row, without padding.
        places: where each strip begins and ends.
        compression: TIFF's number; 1 for none.
    """

    stride: int
    bits: int
    row: int
    places: list[tuple[int, int]]
    compression: int = 1


_FORMS = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_WIDTH, _BITS, _COMPRESSION, _SAMPLES, _PLANAR, _TILE_WIDTH = 256, 258, 259, 277, 284, 322
_PLACES = ((273, 279), (324, 325))  # the tags of offsets and sizes, for strips and for tiles


def strips_of(raw: bytes) -> Strips | None:
    """The strips of a TIFF's first directory; None if there are none.

    Raises struct.error or ValueError if the file is cut off.
    """
    order = "<" if raw[:2] == b"II" else ">"
    big = raw[2:4] in (b"+\0", b"\0+")
    word, step, head = ("Q", 20, 8) if big else ("I", 12, 2)
    word_size = struct.calcsize(word)
    (at,) = struct.unpack_from(order + word, raw, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), raw, at)
    tags: dict[int, list[int]] = {}
    for entry in range(at + head, at + head + min(count, 4096) * step, step):
        tag, form, number = struct.unpack_from(order + "HH" + word, raw, entry)
        if form not in _FORMS:
            continue
        kind, place = np.dtype(order + _FORMS[form]), entry + 4 + word_size
        if number * kind.itemsize > word_size:
            (place,) = struct.unpack_from(order + word, raw, place)
        tags[tag] = np.frombuffer(raw, kind, number, place).astype(np.int64).tolist()
    for begins, sizes in _PLACES:
        if len(tags.get(begins, ())) == len(tags.get(sizes, ())) > 0:
            places = [(a, a + n) for a, n in zip(tags[begins], tags[sizes], strict=True)]
            break
    else:
        return None
    apart = tags.get(_PLANAR, [1])[0] == 2
    samples = 1 if apart else tags.get(_SAMPLES, [1])[0]
    bits = samples * tags.get(_BITS, [1])[0]
    width = tags.get(_TILE_WIDTH, tags.get(_WIDTH, [0]))[0]
    stride = -(-width * bits // 8)
    return Strips(stride, bits, stride, places, tags.get(_COMPRESSION, [1])[0])
