"""TIFF and BMP files of the less usual variants, written by tifffile and by hand."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import tifffile

Array = np.ndarray[Any, Any]

# With 13 strips of three rows the last one is shorter.
HEIGHT, WIDTH = 37, 21


def bands(count: int, dtype: Any = np.uint8, seed: int = 0) -> Array:
    """Values that differ between bands, and are smooth, so that they compress."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(seed).integers(0, 5, (HEIGHT, WIDTH))
    planes = [(3 * y + (2 + 5 * c) * x + 40 * c + noise) % 120 for c in range(count)]
    whole = np.stack(planes, axis=-1)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (whole / 120).astype(kind)
    return (whole * np.int64(np.iinfo(kind).max // 120)).astype(kind)


def tiff_of(image: Array, photometric: str = "minisblack", **options: Any) -> bytes:
    """A TIFF of (height, width, bands), or with several pages of (pages, height, width, bands)."""
    planar = options.pop("planarconfig", "contig")
    pages = image if image.ndim == 4 else image[np.newaxis]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for page in pages:
            data = page[..., 0] if page.shape[-1] == 1 else page
            if planar == "separate":
                data = np.ascontiguousarray(page.transpose(2, 0, 1))
            writer.write(
                data,
                photometric=photometric,
                planarconfig=planar if page.shape[-1] > 1 else None,
                metadata=None,
                **options,
            )
    return stream.getvalue()


def bmp(
    head: int,
    bits: int,
    rows: list[bytes],
    width: int,
    *,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    compression: int | None = None,
) -> bytes:
    """A BMP with a header of this many bytes; rows from the bottom, as they are stored."""
    if compression is None:
        compression = 3 if masks else 0
    height = len(rows)
    if head == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        size = sum(map(len, rows))
        colours = len(palette) // 4
        info = struct.pack(
            "<IiiHHIIiiII", 40, width, height, 1, bits, compression, size, 0, 0, colours, 0
        )
        packed = b"".join(struct.pack("<I", mask) for mask in masks)
        info = struct.pack("<I", head) + (info[4:] + packed if head > 40 else info[4:])
        info = info.ljust(head, b"\0")
        if head == 40:
            info += packed
    body = info + palette
    begin = 14 + len(body)
    pixels = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + body + pixels
