"""What is refused before it is decoded: bombs, and what is cut short."""

import struct

import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.image_headers import image_shape
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, kinds, picture, png_chunk


def test_truncated_jpeg_with_thumbnail():
    """The end marker of a thumbnail is not taken for the picture's own."""
    raw = kinds()["exif"]
    assert raw[:-300].rfind(b"\xff\xd9") > 0
    with pytest.raises(DecodeError, match=r"p.jpg is truncated.*Copy or download it again"):
        decode_image(raw[:-300], ImageOptions(), name="p.jpg")


def test_bombs_cost_nothing():
    """A header that claims too much is refused before anything is decoded."""
    side = 30_000
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    jpeg = (
        b"\xff\xd8\xff\xc0\0\x0b\x08"
        + struct.pack(">HH", side, side)
        + b"\x01\x01\x11\0\xff\xda\0\2\xff\xd9"
    )
    gif = b"GIF89a" + struct.pack("<HH", side, side) + bytes(20)
    bmp = b"BM" + bytes(12) + struct.pack("<Iii", 40, side, -side) + bytes(30)
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (side - 1).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp
    ifd = struct.pack("<HHHIIHHII", 2, 256, 4, 1, side, 257, 4, 1, side) + bytes(4)
    for raw in (png, jpeg, gif, bmp, webp, b"II*\0" + struct.pack("<I", 8) + ifd):
        assert image_shape(raw) == (side, side)
        with pytest.raises(DecodeError, match=r"b.x is 30000 x 30000.*max_pixels=900000000"):
            decode_image(raw, ImageOptions(), name="b.x")


def test_max_pixels_is_inclusive():
    """The advice works: the number in the message lets the picture through."""
    raw = encoded(".png", picture())
    with pytest.raises(DecodeError, match="max_pixels=2400 if you trust"):
        decode_image(raw, ImageOptions(max_pixels=2399))
    assert decode_image(raw, ImageOptions(max_pixels=2400)).shape == (40, 60, 3)


def test_unlisted_kinds_are_bounded_too():
    """A kind that only OpenCV knows is decoded, and max_pixels holds for it as well."""
    raw = b"P6 2 3 255\n" + bytes(range(18))
    assert decode_image(raw, ImageOptions()).ravel().tolist() == list(range(18))
    with pytest.raises(DecodeError, match="max_pixels"):
        decode_image(raw, ImageOptions(max_pixels=5))
