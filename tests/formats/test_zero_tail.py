"""Zeros at the end that nobody wrote are found, black that somebody drew is not accused."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.images import decode_image
from kloaders.formats.integrity import check_content
from kloaders.formats.options import ImageOptions
from kloaders.formats.zero_tail import zero_tail
from tests.support.pillow_images import saved


def photo(height=120, width=160, seed=0):
    """Soft noise, nowhere black."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(soft, None, 20, 255, cv2.NORM_MINMAX).astype(np.uint8)


def tiff(image, compression=1, rows=None):
    """A TIFF whose directory lies before its strips, as most programs write it."""
    height, width, samples = image.shape
    rows = rows or height
    pack = {1: bytes, 8: zlib.compress}[compression]
    strips = [pack(image[k : k + rows].tobytes()) for k in range(0, height, rows)]
    count = len(strips)
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8] * samples), (259, 3, [compression]),
        (262, 3, [2]), (273, 4, [0] * count), (277, 3, [samples]), (278, 4, [rows]),
        (279, 4, [len(strip) for strip in strips]),
    ]  # fmt: skip
    at = 8 + 2 + 12 * len(tags) + 4
    places = {}
    for tag, form, values in tags:
        size = len(values) * (2 if form == 3 else 4)
        places[tag], at = (at, at + size + size % 2) if size > 4 else (None, at)
    ends = np.cumsum([0] + [len(strip) for strip in strips])
    tags[5] = (273, 4, [int(at + end) for end in ends[:-1]])
    head, rest = struct.pack("<2sHIH", b"II", 42, 8, len(tags)), b""
    for tag, form, values in tags:
        body = struct.pack(f"<{len(values)}{'H' if form == 3 else 'I'}", *values)
        where = body.ljust(4, b"\0") if places[tag] is None else struct.pack("<I", places[tag])
        head += struct.pack("<HHI", tag, form, len(values)) + where
        rest += b"" if places[tag] is None else body + b"\0" * (len(body) % 2)
    return head + bytes(4) + rest + b"".join(strips)


def kinds(image):
    return {
        "webp": saved(image, "WEBP", quality=80),
        "webp-lossless": saved(image, "WEBP", lossless=True),
        "bmp": saved(image, "BMP"),
        "bmp-gray": saved(image[..., 0], "BMP"),
        "tiff": tiff(image),
        "tiff-strips": tiff(image, rows=1),
        "tiff-deflate": tiff(image, 8, 16),
    }


def test_our_tiffs_are_tiffs():
    image = photo()
    for raw in (tiff(image), tiff(image, rows=1), tiff(image, 8, 16)):
        np.testing.assert_array_equal(decode_image(raw, ImageOptions()), image)


def zeroed(raw, share):
    """With zeros from there on, but for files that have a row end there."""
    keep = int(len(raw) * share)
    return raw[:keep] + bytes(len(raw) - keep)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.88, 0.97])
@pytest.mark.parametrize("kind", kinds(photo()))
def test_zeros_are_found(kind, share, tmp_path):
    """By verify, and as an error of a loader that names the file."""
    raw = kinds(photo())[kind]
    assert zero_tail(raw) is None
    assert check_content(raw, "it").problems == []
    cut = zeroed(raw, share)
    assert "with zeros in place of its data from byte" in zero_tail(cut)
    ((problem, message),) = check_content(cut, "it").problems
    assert problem == "truncated"
    assert "with zeros in place" in message
    (tmp_path / "a.png").write_bytes(saved(photo(), "PNG"))
    (tmp_path / "b.png").write_bytes(cut)  # what it is called does not matter
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(kl.SampleError, match=r"b.png.* is truncated: a \w+ with zeros in place"):
        kl.PathSequenceLoader(paths, batch_size=2)[0]


def drawings():
    """Pictures whose end is black."""
    rng = np.random.default_rng(1)
    below = photo()
    below[70:] = 0
    above = photo()
    above[:50] = 0  # the end of a BMP, whose rows begin at the bottom
    turned = cv2.warpAffine(photo(), cv2.getRotationMatrix2D((80, 60), 30, 0.7), (160, 120))
    shape = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(shape, (60, 50), 30, (255, 200, 90), -1)
    corner = photo()
    corner[60:, 80:] = 0
    corner[110:] = 0
    dots = np.zeros((120, 160, 3), np.uint8)
    dots[rng.integers(0, 60, 50), rng.integers(0, 160, 50)] = 255
    return {
        "below": below, "above": above, "turned": turned, "shape": shape, "corner": corner,
        "dots": dots, "black": np.zeros((120, 160, 3), np.uint8), "upside down": shape[::-1].copy(),
    }  # fmt: skip


@pytest.mark.parametrize("drawing", drawings())
def test_black_is_not_accused(drawing):
    for kind, raw in kinds(drawings()[drawing]).items():
        assert zero_tail(raw) is None, kind
        assert check_content(raw, kind).problems == []


def test_flat_pictures_may_end_with_zeros():
    """A WebP whose coder had nothing more to say."""
    ended = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = np.full((int(rng.integers(200, 500)), 300, 3), rng.integers(0, 256, 3), np.uint8)
        image[: len(image) // 3] = rng.integers(0, 256, (len(image) // 3, 300, 3))
        raw = saved(image, "WEBP", quality=int(rng.integers(5, 100)))
        ended += raw.endswith(bytes(16))
        assert zero_tail(raw) is None
    assert ended


@pytest.mark.parametrize(
    "raw", [b"", b"\0\0", b"BM\0\0", b"II*\0" + bytes(40), b"RIFF\0\0\0\0WEBP\0\0"]
)
def test_what_is_no_picture_is_another_matter(raw):
    assert zero_tail(raw) is None or raw.startswith(b"RIFF")


def test_a_strip_within_is_found():
    """A block of a disk is lost in the middle of a file."""
    raw = tiff(photo(), 8, 16)
    spoilt = bytearray(raw)
    middle = len(raw) // 2
    spoilt[middle : middle + 4096] = bytes(4096)
    assert zero_tail(bytes(spoilt) + b"\0\0") is not None
