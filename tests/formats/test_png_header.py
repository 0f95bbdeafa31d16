"""What the chunks of a PNG say: transparency of gray, animation, orientation wherever it stands."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from kloaders.formats.png_header import png_facts, still
from tests.support.images import encoded, exif, picture, png_chunk, turned

STORED = ImageOptions(channels=None)


def png(colour: int, depth: int, rows: list[bytes], width: int, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "row", "values", "clear"),
    [
        (1, b"\x50", [0, 255, 0, 255], 1),
        (2, b"\x1b", [0, 85, 170, 255], 2),
        (4, b"\x12\x34", [17, 34, 51, 68], 3),
        (8, bytes([1, 2, 3, 4]), [1, 2, 3, 4], 2),
        (16, struct.pack(">4H", 1, 2, 300, 400), [1, 2, 300, 400], 300),
    ],
)
def test_gray_that_is_transparent(depth: int, row: bytes, values: list[int], clear: int) -> None:
    """One value of gray: alpha with four channels, and the gray itself with fewer."""
    raw = png(0, depth, [row] * 2, 4, png_chunk(b"tRNS", struct.pack(">H", clear)))
    got = decode_image(raw, ImageOptions(channels=4))
    whole = np.iinfo(got.dtype).max
    number = {1: 1, 2: 2, 4: 2, 8: 1, 16: 2}[depth]
    opaque = [0 if k == number or (depth == 1 and k == 3) else whole for k in range(4)]
    assert got[0].tolist() == [[v, v, v, a] for v, a in zip(values, opaque, strict=True)]
    for channels in (None, 1):
        assert decode_image(raw, ImageOptions(channels=channels))[0, :, 0].tolist() == values
    small = decode_image(raw, ImageOptions(channels=4, depth=8))
    assert small.dtype == np.uint8
    assert (small[..., 3] == (got[..., 3] != 0) * 255).all()


def animated(default: Any, frame: Any) -> bytes:
    """A PNG whose default image is none of its frames."""
    plain, other = encoded(".png", default), encoded(".png", frame)
    at = other.index(b"IDAT")
    (length,) = struct.unpack(">I", other[at - 4 : at])
    height, width = default.shape[:2]
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0)
    frames = png_chunk(b"fcTL", control) + png_chunk(
        b"fdAT", struct.pack(">I", 1) + other[at + 4 : at + 4 + length]
    )
    end = plain.index(b"IEND") - 4
    head = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    return plain[:33] + head + plain[33:end] + frames + plain[end:]


def test_default_image_of_an_animation() -> None:
    """Whichever OpenCV decodes it: its frames are taken out before."""
    raw = animated(picture(), 255 - picture())
    assert png_facts(raw).animated
    np.testing.assert_array_equal(decode_image(raw, STORED), picture())
    plain = encoded(".png", picture())
    assert still(raw) == plain
    assert still(plain) == plain


def profile(orientation: int) -> bytes:
    """EXIF in digits, in lines, as ImageMagick writes it."""
    body = (b"Exif\0\0" + exif(orientation)).hex()
    lines = "\n".join(body[k : k + 72] for k in range(0, len(body), 72))
    return f"\nexif\n{len(body) // 2:8}\n{lines}\n".encode()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def chunk_with(kind: str, orientation: int) -> bytes:
    name, text = b"Raw profile type exif\0", profile(orientation)
    packet = XMP % orientation
    return {
        "eXIf": lambda: png_chunk(b"eXIf", exif(orientation)),
        "tEXt": lambda: png_chunk(b"tEXt", name + text),
        "zTXt": lambda: png_chunk(b"zTXt", name + b"\0" + zlib.compress(text)),
        "iTXt": lambda: png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
        "compressed iTXt": lambda: png_chunk(
            b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
        ),
    }[kind]()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["eXIf", "tEXt", "zTXt", "iTXt", "compressed iTXt"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_wherever_it_stands(kind: str, late: bool, orientation: int) -> None:
    """EXIF, a profile of text, XMP; before the pixels and after them."""
    plain = encoded(".png", picture())
    at = plain.index(b"IEND") - 4 if late else 33
    raw = plain[:at] + chunk_with(kind, orientation) + plain[at:]
    np.testing.assert_array_equal(decode_image(raw, STORED), turned(picture(), orientation))


def test_which_orientation_counts() -> None:
    """EXIF before a profile, and that before XMP, as Pillow has it."""
    plain = encoded(".png", picture())

    def with_chunks(*chunks: bytes) -> int:
        return png_facts(plain[:33] + b"".join(chunks) + plain[33:]).orientation

    exif_, text, xmp = chunk_with("eXIf", 3), chunk_with("tEXt", 6), chunk_with("iTXt", 8)
    assert with_chunks(xmp, text, exif_) == 3
    assert with_chunks(xmp, text) == 6
    assert with_chunks(xmp) == 8
    assert with_chunks() == 1
    broken = png_chunk(b"zTXt", b"Raw profile type exif\0\0no deflate")
    assert with_chunks(broken, png_chunk(b"tEXt", b"Raw profile type exif\0exif zz")) == 1
    assert with_chunks(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0")) == 1


def test_facts_of_what_is_cut() -> None:
    """Where the walk ended."""
    plain = encoded(".png", picture())
    facts = png_facts(plain)
    assert (facts.end, facts.stopped) == (plain.index(b"IEND") - 4, -1)
    cut = png_facts(plain[:-20])
    assert cut.end == -1
    assert cut.stopped >= len(plain) - 20
