"""Images by Pillow: its pixels, its modes, and what is refused. Keras' own are in tests/migrate."""

import io
import struct

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.image_headers import header_of
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from kloaders.formats.pillow_images import decoded_by_pillow, same_by_opencv

Image = pytest.importorskip("PIL.Image")

NOISE = np.random.default_rng(0)
COLOUR = Image.fromarray(NOISE.integers(0, 256, (6, 8, 3), np.uint8))
DEEP = NOISE.integers(0, 65536, (6, 8), np.uint16)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(raw, **options):
    return decode_image(raw, ImageOptions(reader="pillow", **options))


@pytest.mark.parametrize(
    ("raw", "same"),
    [
        (saved(COLOUR, "PNG"), {1: False, 3: True, 4: True}),
        (saved(COLOUR.convert("L"), "PNG"), {1: True, 3: True, 4: True}),
        (saved(Image.fromarray(DEEP), "PNG"), {1: False, 3: False, 4: False}),
        (saved(COLOUR, "JPEG"), {1: False, 3: True, 4: True}),
        (saved(COLOUR.convert("L"), "JPEG"), {1: True, 3: True, 4: True}),
        (saved(COLOUR.convert("CMYK"), "JPEG"), {1: False, 3: False, 4: False}),
        (saved(COLOUR, "TIFF"), {1: False, 3: False, 4: False}),
        (saved(COLOUR, "BMP"), {1: False, 3: False, 4: False}),
        (saved(COLOUR, "PPM"), {1: False, 3: False, 4: False}),
        (
            saved(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(90)]),
            {1: False, 3: False, 4: False},
        ),
    ],
    ids=["png", "gray png", "16 bits", "jpeg", "gray jpeg", "CMYK", "tiff", "bmp", "ppm", "apng"],
)
def test_opencv_reads_what_it_reads_alike(raw, same):
    """And whoever reads it, the pixels are Pillow's."""
    header = header_of(raw)
    for channels, expected in same.items():
        assert same_by_opencv(raw, header, channels) is expected
        by_pillow = decoded_by_pillow(raw, header, ImageOptions(channels=channels), "it")
        got = read(raw, channels=channels)
        np.testing.assert_array_equal(got.reshape(by_pillow.shape), by_pillow)
    assert not same_by_opencv(raw, header, None)


def test_gray_of_16_bits():
    """Kept as gray, cut off in colour: both are Pillow's."""
    raw = saved(Image.fromarray(DEEP), "PNG")
    gray = read(raw, channels=1)
    assert gray.dtype == np.uint16
    np.testing.assert_array_equal(gray[..., 0], DEEP)
    np.testing.assert_array_equal(read(raw)[..., 0], np.minimum(DEEP, 255))
    small = read(raw, channels=1, size=(3, 4), interpolation="pillow-box")
    assert small.dtype == np.uint16
    assert abs(int(small[0, 0, 0]) - DEEP[:2, :2].mean()) < 2


@pytest.mark.parametrize("turn", range(1, 9))
def test_upright_by_either_reader(turn):
    """As EXIF says, before it is resized."""
    exif = Image.Exif()
    exif[274] = turn
    raw = saved(COLOUR, "PNG", exif=exif)
    np.testing.assert_array_equal(
        decoded_by_pillow(raw, header_of(raw), ImageOptions(), "it"),
        decode_image(raw, ImageOptions()),
    )
    tiff = saved(COLOUR, "TIFF", exif=exif)
    np.testing.assert_array_equal(read(tiff), decode_image(raw, ImageOptions()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr", "RGB", "RGBA"])
def test_channels_as_stored(mode):
    """channels=None gives numbers, not entries of a palette."""
    raw = saved(COLOUR.convert(mode), "TIFF")
    got = read(raw, channels=None)
    assert got.dtype == np.uint8
    assert got.shape[2] == {"1": 1, "L": 1, "LA": 4, "RGBA": 4}.get(mode, 3)


def test_a_row_that_is_given_is_filled():
    raw, out = saved(COLOUR, "BMP"), np.empty((6, 8, 3), np.uint8)
    assert decode_image(raw, ImageOptions(reader="pillow"), out) is out
    np.testing.assert_array_equal(out, np.asarray(COLOUR))


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
def test_what_pillow_refuses_is_named(kind):
    """Cut short, or no image: an error with the file's name, and no address of a buffer."""
    raw = saved(COLOUR, kind)
    with pytest.raises(DecodeError, match=r"^it "):
        decode_image(raw[: len(raw) // 2], ImageOptions(reader="pillow"), None, "it")
    with pytest.raises(DecodeError, match=r"^it is not an image that Pillow can read") as caught:
        decode_image(b"no image at all", ImageOptions(reader="pillow"), None, "it")
    assert "0x" not in str(caught.value)


def test_too_many_pixels():
    raw = saved(COLOUR, "PPM")
    with pytest.raises(DecodeError, match="max_pixels=48 if you trust it"):
        read(raw, max_pixels=47)


def gif(transparency=None, canvas=(3, 3)):
    """A frame of 2 x 2 in the corner of a larger canvas."""
    frame = Image.fromarray(np.array([[1, 2], [2, 1]], np.uint8), "P")
    frame.putpalette([200, 0, 0, 0, 150, 0, 0, 0, 100, 9, 9, 9])
    clear = {} if transparency is None else {"transparency": transparency}
    raw = bytearray(saved(frame, "GIF", optimize=False, **clear))
    raw[6:10] = struct.pack("<HH", *canvas)
    return bytes(raw)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_background_of_a_gif():
    """Around a frame lies its clear colour, or else the first one of its palette."""
    red, green, blue = [200, 0, 0], [0, 150, 0], [0, 0, 100]
    got = decode_image(gif(), ImageOptions(channels=None))
    assert got.tolist() == [[green, blue, red], [blue, green, red], [red, red, red]]
    got = decode_image(gif(transparency=2), ImageOptions(channels=None))
    assert got[..., 3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 0]]
    assert got[0, 0, :3].tolist() == green
    colours = decode_image(gif(transparency=2), ImageOptions())
    np.testing.assert_array_equal(colours, got[..., :3])


def test_cmyk():
    """As Pillow makes colours of it; not rounded twice."""
    raw = saved(COLOUR.convert("CMYK"), "JPEG", quality=100)
    wanted = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    for channels in (None, 3):
        np.testing.assert_array_equal(decode_image(raw, ImageOptions(channels=channels)), wanted)


def test_first_frame_of_a_webp():
    """Of an animation, on every OpenCV."""
    raw = saved(COLOUR, "WEBP", save_all=True, append_images=[COLOUR.rotate(90)], lossless=True)
    np.testing.assert_array_equal(decode_image(raw, ImageOptions()), np.asarray(COLOUR))
