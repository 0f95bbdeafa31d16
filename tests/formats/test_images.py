"""Images decoded: what comes out, what is refused, and in which words."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.errors import DecodeError
from kloaders.formats.image_headers import image_shape
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.images import (
    OPENCV,
    encoded,
    jpeg_with_exif,
    kinds,
    picture,
    png_chunk,
    png_with_exif,
    tiff,
    turned,
    webp_with_exif,
)

STORED = ImageOptions(channels=None)
writes_gif = pytest.mark.skipif(OPENCV < (4, 12), reason="this OpenCV writes no GIF")


pytestmark = pytest.mark.usefixtures("no_leaks")


def test_import_is_light():
    """A worker process that imports this module gets neither TensorFlow nor Keras."""
    code = "import sys, kloaders.formats.images as f; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    path = Path(kl.__file__).parent.parent
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=path
    )
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("channels", [3, None])
def test_lossless_colour_is_rgb(suffix, channels):
    """Red is first, whatever the kind of file."""
    image = picture()
    raw = encoded(suffix, image, *([cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []))
    np.testing.assert_array_equal(decode_image(raw, ImageOptions(channels=channels)), image)
    assert image_shape(raw) == (40, 60)


def test_jpeg_is_rgb():
    """A JPEG comes out in RGB order, close to what went in."""
    image = picture()
    got = decode_image(encoded(".jpg", image), ImageOptions())
    assert got.shape == image.shape
    assert np.abs(got.astype(int) - image).mean() < 3


@writes_gif
def test_gif_first_frame():
    """A GIF comes as RGB."""
    image = (picture() // 128 * 252).astype(np.uint8)  # colours of OpenCV's fixed palette
    raw = encoded(".gif", image)
    assert image_shape(raw) == (40, 60)
    np.testing.assert_array_equal(decode_image(raw, ImageOptions()), image)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("stored", [1, 3, 4])
@pytest.mark.parametrize("wanted", [1, 3, 4, None])
def test_sixteen_bits_stay(suffix, stored, wanted):
    """uint16 files give uint16 with the channels asked for, red first, alpha kept or full."""
    image = picture(channels=stored, dtype=np.uint16)
    got = decode_image(encoded(suffix, image), ImageOptions(channels=wanted))
    assert got.dtype == np.uint16
    assert got.shape == (40, 60, wanted or stored)
    if wanted in (None, stored):
        np.testing.assert_array_equal(got, image)
    elif wanted == 1:
        luma = image[..., :3] @ np.array([0.299, 0.587, 0.114])
        assert np.abs(got[..., 0] - luma).max() < 3
    else:
        np.testing.assert_array_equal(got[..., :3], np.broadcast_to(image[..., :3], (40, 60, 3)))
        if wanted == 4:
            assert (got[..., 3] == 65535).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wanted", [1, 3, 4, None])
def test_float_tiff_stays_float(channels, wanted):
    """A float32 TIFF is neither scaled nor rounded; added alpha is 1.0."""
    image = picture(channels=channels, dtype=np.float32)
    # 1: uncompressed, because OpenCV 4 writes float colours in a lossy way unless told not to
    raw = encoded(".tiff", image, cv2.IMWRITE_TIFF_COMPRESSION, 1)
    got = decode_image(raw, ImageOptions(channels=wanted))
    assert got.dtype == np.float32
    assert got.shape[-1] == (wanted or channels)
    if wanted in (None, channels):
        np.testing.assert_array_equal(got, image)
    if wanted == 4:
        assert (got[..., 3] == 1.0).all()


def test_double_tiff():
    """float64 is kept in RGB order; a conversion OpenCV lacks is refused with the way out."""
    image = picture(dtype=np.float64)
    raw = encoded(".tiff", image)
    np.testing.assert_array_equal(decode_image(raw, ImageOptions()), image)
    with pytest.raises(DecodeError, match=r"x.tiff stores 3 channels of float64.*channels=None"):
        decode_image(raw, ImageOptions(channels=1), name="x.tiff")
    np.testing.assert_array_equal(decode_image(raw, STORED), image)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_channels_of_colour(suffix, wanted):
    """Gray is OpenCV's luma of red, green, blue in that order; alpha of an opaque file is full."""
    raw = encoded(suffix, picture())
    colour = decode_image(raw, ImageOptions())
    got = decode_image(raw, ImageOptions(channels=wanted))
    assert got.shape == (40, 60, wanted)
    if wanted == 1:
        luma = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
        assert np.abs(got[..., 0].astype(int) - luma).max() <= 2
    else:
        np.testing.assert_array_equal(got[..., :3], colour)
    if wanted == 4:
        assert (got[..., 3] == 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff"])
def test_gray_has_three_axes(suffix):
    """A gray file gives (h, w, 1) as stored, and three equal planes as RGB."""
    raw = encoded(suffix, picture(channels=1))
    gray = decode_image(raw, STORED)
    assert gray.shape == (40, 60, 1)
    colour = decode_image(raw, ImageOptions())
    np.testing.assert_array_equal(colour, np.repeat(gray, 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency(suffix):
    """Alpha is kept where asked for, and dropped without blending for RGB."""
    image = picture(channels=4)
    raw = encoded(suffix, image, *([cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []))
    np.testing.assert_array_equal(
        decode_image(raw, ImageOptions(channels=4))[..., 3], image[..., 3]
    )
    stored = decode_image(raw, STORED)
    assert stored.shape[-1] == 4
    np.testing.assert_array_equal(decode_image(raw, ImageOptions()), stored[..., :3])
    if suffix == ".png":
        np.testing.assert_array_equal(stored, image)


def test_palette_png():
    """A palette picture comes as its colours."""
    palette = bytes([200, 10, 20, 30, 220, 40])
    rows = b"".join(b"\0" + bytes([row % 2] * 3) for row in range(4))
    raw = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 4, 8, 3, 0, 0, 0))
    raw += (
        png_chunk(b"PLTE", palette)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    got = decode_image(raw, ImageOptions())
    assert got.shape == (4, 3, 3)
    assert got[:2, 0].tolist() == [[200, 10, 20], [30, 220, 40]]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("channels", [1, 3, 4, None])
@pytest.mark.parametrize("kind", ["jpeg", "png", "rgba png", "webp", "tiff"])
def test_exif_orientation(kind, channels, orientation):
    """Every kind is turned by its tag for every channel setting, and the header peek agrees."""
    image = picture(channels=4 if kind == "rgba png" else 3)
    if kind == "jpeg":
        plain = encoded(".jpg", image)
        raw = jpeg_with_exif(plain, orientation, "<>"[orientation % 2])
    elif kind.endswith("png"):
        plain = encoded(".png", image)
        raw = png_with_exif(plain, orientation)
    elif kind == "webp":
        plain = encoded(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 101)
        raw = webp_with_exif(plain, orientation, 40, 60)
    else:
        plain, raw = tiff(image), tiff(image, orientation)
    options = ImageOptions(channels=channels)
    shown = turned(decode_image(plain, options), orientation if 1 <= orientation <= 8 else 1)
    got = decode_image(raw, options)
    np.testing.assert_array_equal(got, shown)
    assert image_shape(raw) == shown.shape[:2]
    out = np.zeros_like(got)
    assert decode_image(raw, options, out) is out
    np.testing.assert_array_equal(out, shown)


def test_orientation_matches_pillow():
    """Pillow, where installed, turns all eight the same way."""
    image_module = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")
    import io

    for orientation in range(1, 9):
        raw = png_with_exif(encoded(".png", picture()), orientation)
        shown = np.asarray(ops.exif_transpose(image_module.open(io.BytesIO(raw))))
        np.testing.assert_array_equal(decode_image(raw, ImageOptions()), shown)


def test_first_page_of_tiff():
    """Of several pages the first one is taken."""
    image = picture()
    np.testing.assert_array_equal(decode_image(tiff(image, pages=2), ImageOptions()), image)


@pytest.mark.skipif(not hasattr(cv2, "imencodeanimation"), reason="OpenCV writes no animations")
def test_first_frame_of_animated_webp():
    """Of an animation the first frame is taken."""
    animation = cv2.Animation()
    first = picture()
    animation.frames = [np.ascontiguousarray(f[..., ::-1]) for f in (first, 255 - first)]
    animation.durations = [100, 100]
    done, buffer = cv2.imencodeanimation(".webp", animation)
    assert done
    got = decode_image(buffer.tobytes(), ImageOptions())
    assert np.abs(got.astype(int) - first).mean() < 4


def test_other_bytes_likes():
    """bytearray, memoryview and uint8 arrays are taken as well."""
    raw = encoded(".png", picture())
    for form in (bytearray(raw), memoryview(raw), np.frombuffer(raw, np.uint8)):
        np.testing.assert_array_equal(decode_image(form, ImageOptions()), picture())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
@pytest.mark.parametrize("size", [None, (40, 60), (20, 30)])
@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"rescale": 0.5}])
def test_out_is_filled_or_left(suffix, size, options):
    """A row that fits is filled and returned; one of another shape or type never raises."""
    raw = encoded(suffix, picture())
    options = ImageOptions(size=size, **options)
    wanted = decode_image(raw, options)
    batch = np.zeros((3, *wanted.shape), wanted.dtype)
    row = batch[1]
    assert decode_image(raw, options, row) is row
    np.testing.assert_array_equal(batch[1], wanted)
    assert not batch[[0, 2]].any()
    others = [
        np.zeros((7, 5, 3), wanted.dtype),
        np.zeros(wanted.shape, np.int16),
        np.zeros((*wanted.shape[:2], 6), wanted.dtype)[:, :, ::2],
        np.zeros((), wanted.dtype),
    ]
    for other in others:
        got = decode_image(raw, options, other)
        assert got is not other
        np.testing.assert_array_equal(got, wanted)


def test_rescale_and_dtype():
    """rescale multiplies in float32; dtype alone is a plain cast; both together cast the product."""
    image = picture()
    raw = encoded(".png", image)
    scaled = decode_image(raw, ImageOptions(rescale=1 / 255))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, image.astype(np.float32) * np.float32(1 / 255))
    plain = decode_image(raw, ImageOptions(dtype="float16"))
    assert plain.dtype == np.float16
    np.testing.assert_array_equal(plain, image.astype(np.float16))
    double = decode_image(raw, ImageOptions(dtype="float64", rescale=1 / 255))
    np.testing.assert_array_equal(double, image * (1 / 255))
    whole = decode_image(raw, ImageOptions(dtype="uint8", rescale=0.5))
    np.testing.assert_array_equal(whole, image // 2)
    assert decode_image(raw, ImageOptions(dtype=">f4")).dtype.isnative


def test_bfloat16():
    """Types registered by ml_dtypes, which TensorFlow and JAX bring along, work as well."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    raw = encoded(".png", picture())
    for extra in ({}, {"rescale": 0.5}):
        got = decode_image(raw, ImageOptions(dtype=ml_dtypes.bfloat16, **extra))
        assert got.dtype == ml_dtypes.bfloat16
        wanted = picture().astype(np.float32) * extra.get("rescale", 1)
        np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=0.01)


@pytest.mark.parametrize(("interpolation", "bound"), [("bilinear", 12), ("auto", 4)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_dct_scaling(interpolation, bound, orientation):
    """Off by default; on, it is used for real photographs only, and stays within its bound."""
    samples = pytest.importorskip("sklearn.datasets")
    for photo in samples.load_sample_images().images:  # 427 x 640
        raw = jpeg_with_exif(encoded(".jpg", photo), orientation)
        for channels in (1, 3, 4):
            shape = {"interpolation": interpolation, "channels": channels}
            size = (100, 150) if orientation == 1 else (150, 100)
            full = decode_image(raw, ImageOptions(size=size, **shape))
            fast = decode_image(raw, ImageOptions(size=size, dct_scaling=True, **shape))
            assert fast.shape == full.shape
            assert not np.array_equal(fast, full)
            assert np.abs(fast.astype(int) - full).mean() <= bound
        # 214 x 320 is just not reached by a half: the full decode is used
        size = (214, 320) if orientation == 1 else (320, 214)
        full = decode_image(raw, ImageOptions(size=size))
        fast = decode_image(raw, ImageOptions(size=size, dct_scaling=True))
        np.testing.assert_array_equal(fast, full)


def test_dct_scaling_is_an_option_of_loaders(tmp_path):
    """Off unless asked for, and then for the pictures only."""
    samples = pytest.importorskip("sklearn.datasets")
    raw = encoded(".jpg", samples.load_sample_image("china.jpg"))
    path = tmp_path / "china.jpg"
    path.write_bytes(raw)
    for options in ({}, {"dct_scaling": True}):
        (got,) = kl.PathSequenceLoader([path], size=(100, 150), **options)[0]
        wanted = decode_image(raw, ImageOptions(size=(100, 150), **options))
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(TypeError, match="dct_scaling='yes': choose True or False"):
        kl.PathSequenceLoader([path], dct_scaling="yes")


@pytest.mark.parametrize("kind", kinds())
def test_cut_files(kind):
    """Cut at any byte, a file gives an error that names it, or the whole picture."""
    raw = kinds()[kind]
    whole = decode_image(raw, ImageOptions())
    cuts = {*range(1, min(len(raw), 700)), *range(1, len(raw), 7), *range(len(raw) - 40, len(raw))}
    refused = 0
    for cut in sorted(cuts):
        try:
            got = decode_image(raw[:cut], ImageOptions(), name="cut.file")
        except DecodeError as error:
            refused += "cut.file" in str(error)
        else:
            np.testing.assert_array_equal(got, whole)
        image_shape(raw[:cut])  # an answer or None, never an exception
    assert refused >= len(cuts) - 2
    assert np.array_equal(decode_image(raw + b"behind the end", ImageOptions()), whole)


@pytest.mark.parametrize("kind", kinds())
def test_damaged_files(kind):
    """A changed byte gives an error that names the file or some picture, never anything else."""
    raw = kinds()[kind]
    generator = np.random.default_rng(3)
    unnamed = 0
    for _ in range(150):
        damaged = bytearray(raw)
        damaged[generator.integers(len(raw))] = generator.integers(256)
        try:
            got = decode_image(bytes(damaged), ImageOptions(max_pixels=10**6), name="bad.file")
        except DecodeError as error:
            unnamed += "bad.file" not in str(error)
        else:
            assert got.ndim == 3
            assert got.dtype in (np.uint8, np.uint16, np.float32, np.float64, np.int8, np.int16)
    assert not unnamed


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><p>404", "begins with b'<!DOCTYPE ht'.*decode="),
        (b"\xff\xd8\xff\xd9", "truncated: a JPEG without image data"),
        (b"\xff\xd8" + b"\xff" * 50_000, "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "0 x 0 by its header"),
        (b"BM", "no picture|begins with"),
    ],
)
def test_not_a_picture(raw, words):
    """What is no picture is said to be none, with its first bytes."""
    with pytest.raises(DecodeError, match=r"x.jpg.*" + words):
        decode_image(raw, ImageOptions(), name="x.jpg")


def test_opencv_errors_are_ours():
    """What OpenCV itself refuses arrives as a DecodeError with the file's name."""
    raw = encoded(".png", picture(4, 4))
    with pytest.raises(DecodeError, match=r"huge.png cannot be decoded: OpenCV says"):
        decode_image(raw, ImageOptions(size=(2**30, 2**30)), name="huge.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4, None])
def test_depth_8_takes_the_upper_bits(suffix, channels):
    """Of images of 16 bits; those of 8 stay what they are."""
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, 3), np.uint16)
    raw = cv2.imencode(suffix, deep[..., ::-1])[1].tobytes()
    whole = decode_image(raw, ImageOptions(channels=channels))
    got = decode_image(raw, ImageOptions(channels=channels, depth=8))
    assert (whole.dtype, got.dtype) == (np.uint16, np.uint8)
    assert np.abs((whole >> 8).astype(int) - got).max() <= (1 if channels == 1 else 0) or (
        channels == 4 and (got[..., 3] == 255).all()
    )
    flat = cv2.imencode(suffix, (deep >> 8).astype(np.uint8))[1].tobytes()
    np.testing.assert_array_equal(
        decode_image(flat, ImageOptions(depth=8)), decode_image(flat, ImageOptions())
    )


def test_what_depth_leaves_out_is_reported(caplog, monkeypatch):
    """Once."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    caplog.set_level("WARNING", "kloaders")
    for dtype in (np.uint8, np.uint16, np.uint16):
        decode_image(encoded(".png", picture(dtype=dtype)), ImageOptions(depth=8), name="x.png")
    assert caplog.text.count("x.png stores 16 bits, but depth=8 keeps only the upper 8") == 1


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0"])
def test_a_tiff_without_a_directory(start):
    """Nothing is left to a decoder's guess."""
    with pytest.raises(DecodeError, match=r"x.tif is truncated: a TIFF without a directory"):
        decode_image(start + bytes(60), ImageOptions(), name="x.tif")
