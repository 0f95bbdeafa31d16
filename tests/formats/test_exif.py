"""How an image is to be turned, by EXIF and XMP of JPEG, WebP and TIFF."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from kloaders.formats.exif import inflated, of_exif, of_profile, of_xmp
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, exif, jpeg_with_exif, picture, turned, webp_with_exif

ELEMENT = b"<rdf:Description><tiff:Orientation>6</tiff:Orientation></rdf:Description>"
ATTRIBUTE = b"<rdf:Description tiff:Orientation='6' />"


def test_numbers() -> None:
    """1 to 8; anything else says nothing."""
    assert [of_exif(exif(number)) for number in range(10)] == [None, *range(1, 9), None]
    assert of_exif(b"Exif\0\0" + exif(5)) == 5
    assert of_exif(b"nothing") is None
    assert of_xmp(ELEMENT) == of_xmp(ATTRIBUTE) == 6
    assert of_xmp(b"tiff:Orientation='9'") is None
    assert of_profile(b"\nexif\n  3\nabc") is None
    assert inflated(b"no deflate") == b""


def jpeg_with_xmp(raw: bytes, packet: bytes) -> bytes:
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:]


@pytest.mark.parametrize("packet", [ELEMENT, ATTRIBUTE])
def test_xmp_of_a_jpeg(packet: bytes) -> None:
    """Counts where EXIF says nothing."""
    plain = encoded(".jpg", picture())
    options = ImageOptions()
    shown = decode_image(plain, options)
    got = decode_image(jpeg_with_xmp(plain, packet), options)
    np.testing.assert_array_equal(got, turned(shown, 6))
    both = jpeg_with_exif(jpeg_with_xmp(plain, packet), 3)
    np.testing.assert_array_equal(decode_image(both, options), turned(shown, 3))
    both = jpeg_with_xmp(jpeg_with_exif(plain, 1), packet)
    np.testing.assert_array_equal(decode_image(both, options), shown)


def test_xmp_of_a_webp() -> None:
    plain = encoded(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 101)
    raw = bytearray(webp_with_exif(plain, 1, 40, 60))
    at = raw.index(b"EXIF")
    padded = ELEMENT + b" " * (len(ELEMENT) % 2)
    raw[at:] = b"XMP " + struct.pack("<I", len(padded)) + padded
    raw[20] = 4
    raw[4:8] = struct.pack("<I", len(raw) - 8)
    shown = decode_image(plain, ImageOptions())
    np.testing.assert_array_equal(decode_image(bytes(raw), ImageOptions()), turned(shown, 6))
