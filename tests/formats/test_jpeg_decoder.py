"""JPEGs through simplejpeg: OpenCV's pixels, in memory that is used again and never handed out."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from kloaders.formats import images, jpeg_decoder
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions

pytestmark = pytest.mark.skipif(
    not jpeg_decoder.available(), reason="simplejpeg has no wheel for this interpreter"
)

_COLOURS = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR


def photograph(height: int, width: int, seed: int = 0) -> Any:
    """Noise that was made smooth, so that chroma matters and the file is small."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: Any, **options: Any) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", **options)
    return file.getvalue()


def by_opencv(raw: bytes) -> Any:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(raw, np.uint8), _COLOURS), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(375, 500), (64, 64), (17, 31), (1, 1)])
def test_pixels_are_those_of_opencv(
    size: tuple[int, int], subsampling: int, progressive: bool
) -> None:
    raw = jpeg(photograph(*size), quality=85, subsampling=subsampling, progressive=progressive)
    out = np.empty((*size, 3), np.uint8)
    assert jpeg_decoder.decode_rgb(raw, out)
    np.testing.assert_array_equal(out, by_opencv(raw))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (40, 50)},
        {"size": (40, 50), "aspect": "crop"},
        {"size": (40, 50), "aspect": "pad"},
        {"size": (64, 80)},  # its own
        {"size": (64, 80), "aspect": "crop"},
        {"size": (32, 80), "aspect": "crop"},  # a cut of it
        {"size": (128, 80), "aspect": "pad"},  # the whole of it in the middle
        {"size": (100, 20), "interpolation": "auto"},
        {"size": (64, 40), "interpolation": "pillow-lanczos"},
        {"dtype": np.dtype("float32")},
        {"rescale": 1 / 255},
        {"channels": 4},
        {"channels": 1},
        {"channels": None},
        {"size": (8, 10), "dct_scaling": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_is_the_callers_alone(
    options: dict[str, Any], orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded stays what it was while others are, with and without `out`; as by OpenCV."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    raws = [jpeg(photograph(64, 80, seed), exif=exif, quality=95) for seed in range(3)]
    chosen = ImageOptions(**options)
    found = [images.decode_image(raw, chosen) for raw in raws]
    rows = np.zeros((3, *found[0].shape), found[0].dtype)
    for raw, row in zip(raws, rows, strict=True):
        assert images.decode_image(raw, chosen, row) is row
    monkeypatch.setattr(jpeg_decoder, "simplejpeg", None)
    for raw, one, row in zip(raws, found, rows, strict=True):
        expected = images.decode_image(raw, chosen)
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(row, expected)


def test_it_is_decoded_into_the_row_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = jpeg_decoder.decode_rgb

    def decode_rgb(raw: bytes, out: Any) -> bool:
        given.append(out)
        return real(raw, out)

    monkeypatch.setattr(jpeg_decoder, "decode_rgb", decode_rgb)
    row = np.empty((64, 80, 3), np.uint8)
    raw = jpeg(photograph(64, 80))
    images.decode_image(raw, ImageOptions(), row)
    images.decode_image(raw, ImageOptions(size=(20, 20)), np.empty((20, 20, 3), np.uint8))
    images.decode_image(raw, ImageOptions(size=(20, 20)), np.empty((20, 20, 3), np.uint8))
    assert given[0] is row
    assert np.shares_memory(given[1], given[2])


def test_each_thread_has_memory_of_its_own() -> None:
    mine, theirs = jpeg_decoder.lent((10, 10, 3)), []
    thread = threading.Thread(target=lambda: theirs.append(jpeg_decoder.lent((10, 10, 3))))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])
    assert np.shares_memory(mine, jpeg_decoder.lent((10, 5, 3)))


def test_a_large_image_leaves_nothing_behind() -> None:
    large = (6000, 3000, 3)
    assert not np.shares_memory(jpeg_decoder.lent(large), jpeg_decoder.lent(large))


def test_what_it_does_not_read_is_left_to_opencv() -> None:
    """Bytes of one scan that are damaged: a warning of libjpeg-turbo, which OpenCV reads over."""
    raw = bytearray(jpeg(photograph(64, 80), quality=90))
    raw[len(raw) // 2 : len(raw) // 2 + 2] = b"\xff\xd3"  # a restart marker where none belongs
    damaged = bytes(raw)
    assert not jpeg_decoder.decode_rgb(damaged, np.empty((64, 80, 3), np.uint8))
    np.testing.assert_array_equal(images.decode_image(damaged, ImageOptions()), by_opencv(damaged))


def test_another_size_than_the_header_that_was_read() -> None:
    raw = jpeg(photograph(64, 80))
    assert not jpeg_decoder.decode_rgb(raw, np.empty((80, 64, 3), np.uint8))
    assert not jpeg_decoder.decode_rgb(raw, np.empty((8, 8, 3), np.uint8))
    assert not jpeg_decoder.decode_rgb(b"no picture", np.empty((8, 8, 3), np.uint8))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_no_image_is_half_of_one_and_half_of_another(progressive: bool, subsampling: int) -> None:
    """Cut within the coded data, where another one begins: simplejpeg says so, and is asked nothing else."""
    how = {"quality": 85, "progressive": progressive, "subsampling": subsampling}
    raw, other = jpeg(photograph(200, 120), **how), jpeg(photograph(90, 60, 1))
    out = np.empty((200, 120, 3), np.uint8)
    begin = raw.find(b"\xff\xda") + 14
    places = range(begin, len(raw) - 2, max(1, len(raw) // 400))
    taken = [at for at in places if jpeg_decoder.decode_rgb(raw[:at] + other, out)]
    assert not taken
    assert len(places) > 300


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 1},
        {"channels": 4},
        {"size": (20, 10), "dct_scaling": True},
        {"reader": "pillow", "channels": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("there", [True, False])
def test_nor_is_it_whoever_decodes(
    options: dict[str, Any], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg_decoder, "available", lambda: there)
    raw, other = jpeg(photograph(200, 120), quality=85), jpeg(photograph(90, 60, 1))
    cut = raw[: len(raw) // 2] + other
    with pytest.raises(DecodeError, match="it is truncated: a JPEG that is cut off before byte"):
        images.decode_image(cut, ImageOptions(**options), None, "it")
