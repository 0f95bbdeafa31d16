"""Other sizes: the filters, the middle of a crop, and what padding adds."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.formats.errors import DecodeError
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, jpeg_with_exif, picture


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST_EXACT),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resize(suffix, channels, name, flag):
    """The result is cv2.resize of the full decode, in a new array and in the caller's row."""
    raw = encoded(suffix, picture())
    full = decode_image(raw, ImageOptions(channels=channels))
    wanted = cv2.resize(full, (30, 22), interpolation=flag).reshape(22, 30, channels)
    options = ImageOptions(size=(22, 30), interpolation=name, channels=channels)
    np.testing.assert_array_equal(decode_image(raw, options), wanted)
    batch = np.zeros((4, 22, 30, channels), np.uint8)
    row = batch[2]
    assert decode_image(raw, options, row) is row
    np.testing.assert_array_equal(batch[2], wanted)
    assert not batch[[0, 1, 3]].any()


def test_nearest_samples_at_pixel_centres():
    """As tf.image.resize and Keras do: of six pixels, numbers 1 and 4 are kept for two."""
    image = np.repeat(np.arange(6, dtype=np.uint8)[:, None, None], 3, axis=2) * 40
    got = decode_image(encoded(".png", image), ImageOptions(size=(2, 1), interpolation="nearest"))
    assert got[:, 0, 0].tolist() == [40, 160]


def test_turned_then_resized():
    """size is the upright picture's height and width."""
    raw = jpeg_with_exif(encoded(".jpg", picture()), 6)
    upright = decode_image(raw, ImageOptions())
    assert upright.shape == (60, 40, 3)
    got = decode_image(raw, ImageOptions(size=(30, 16), interpolation="bilinear"))
    np.testing.assert_array_equal(got, cv2.resize(upright, (16, 30)))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "hamming", "box"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("aspect", ["stretch", "crop"])
def test_pillows_filters(name, channels, aspect):
    """Bit for bit those of Pillow, from the whole picture or from the box in its middle."""
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, (37, 61, channels), np.uint8)
    for size in ((9, 11), (50, 20), (80, 90)):
        picture = pillow.fromarray(image.squeeze())
        height, width = min(37, 61 * size[0] // size[1]), min(61, 37 * size[1] // size[0])
        top, left = (37 - height) // 2, (61 - width) // 2
        box = (left, top, left + width, top + height) if aspect == "crop" else None
        filtering = pillow.Resampling[name.upper()]
        wanted = np.asarray(picture.resize(size[::-1], filtering, box)).reshape(*size, channels)
        options = ImageOptions(
            size=size, interpolation=f"pillow-{name}", channels=channels, aspect=aspect
        )
        raw = encoded(".png", image)
        np.testing.assert_array_equal(decode_image(raw, options), wanted)
        out = np.empty_like(wanted)
        assert decode_image(raw, options, out) is out
        np.testing.assert_array_equal(out, wanted)


def test_pillow_has_8_bits():
    """Other pictures are refused, with what does resize them."""
    raw = encoded(".png", np.zeros((4, 4, 1), np.uint16))
    options = ImageOptions(size=(2, 2), interpolation="pillow-box", channels=1)
    with pytest.raises(DecodeError, match=r'only 8-bit images.*"area"'):
        decode_image(raw, options)
    assert decode_image(raw, replace(options, interpolation="area")).shape == (2, 2, 1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_aspect(height, width, rows, columns):
    """A crop leaves out one side only, padding adds to one side only, and neither is off the middle."""
    image = np.full((height, width, 1), 255, np.uint8)
    image[:, 0] = image[:, -1] = image[0] = image[-1] = 200
    options = ImageOptions(size=(rows, columns), interpolation="nearest", channels=1)
    raw = encoded(".png", image)
    for aspect in ("crop", "pad"):
        out = np.empty((rows, columns, 1), np.uint8)
        got = decode_image(raw, replace(options, aspect=aspect), out)
        assert got is out
    there = np.argwhere(got[..., 0])
    (top, left), (bottom, right) = there.min(0), there.max(0) + 1
    assert got[top:bottom, left:right].all()
    assert bottom - top == rows or right - left == columns
    assert 0 <= rows - bottom - top <= 2
    assert 0 <= columns - right - left <= 2
    if height * columns == width * rows:
        stretched = decode_image(raw, options)
        np.testing.assert_array_equal(got, stretched)
        np.testing.assert_array_equal(decode_image(raw, replace(options, aspect="crop")), stretched)


def test_auto_averages_where_an_image_shrinks():
    """Fine stripes become the gray that they are from afar, where "bilinear" keeps a few of them."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 255
    raw = encoded(".png", image)
    small = decode_image(raw, ImageOptions(size=(8, 8)))
    assert small.min() == small.max() == 128
    area = decode_image(raw, ImageOptions(size=(8, 8), interpolation="area"))
    np.testing.assert_array_equal(small, area)


@pytest.mark.parametrize("size", [(80, 90), (40, 90), (80, 60), (40, 60)])
def test_auto_is_bilinear_where_an_image_grows(size):
    raw = encoded(".png", picture())
    got = decode_image(raw, ImageOptions(size=size))
    np.testing.assert_array_equal(
        got, decode_image(raw, ImageOptions(size=size, interpolation="bilinear"))
    )


@pytest.mark.parametrize("size", [(10, 120), (80, 15)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_auto_takes_each_side_by_itself(size, channels):
    """The side that shrinks is averaged, the other one interpolated."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    raw = encoded(".png", noise)
    between = min(size[0], 40), min(size[1], 60)
    first = decode_image(raw, ImageOptions(size=between, interpolation="area", channels=channels))
    wanted = cv2.resize(first, size[::-1]).reshape(*size, channels)
    got = decode_image(raw, ImageOptions(size=size, channels=channels))
    np.testing.assert_array_equal(got, wanted)
    out = np.zeros_like(got)
    assert decode_image(raw, ImageOptions(size=size, channels=channels), out) is out
    np.testing.assert_array_equal(out, wanted)
