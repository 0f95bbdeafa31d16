"""Every kind of file: what comes out, what is refused, and in which words."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kloaders as kl
from kloaders.formats import npy
from kloaders.formats.by_suffix import read_sample
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    check_suffix,
    read_bytes,
    suffix_of,
)
from kloaders.formats.image_headers import image_shape
from kloaders.formats.images import decode_image, read_image
from kloaders.formats.npy import read_array
from kloaders.formats.options import ImageOptions

STORED = ImageOptions(channels=None)
OPENCV = tuple(int(part) for part in cv2.__version__.split(".")[:2])
needs_gif = pytest.mark.skipif(OPENCV < (4, 12), reason="this OpenCV has no GIF decoder")


def picture(height=40, width=60, channels=3, dtype=np.uint8):
    """A smooth RGB(A) picture without symmetry: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / width, y * 255 / height, (x + y) * 127 / (height + width)]
    planes.append(255 - planes[2])
    image = np.stack(planes[:channels], axis=-1)
    if dtype == np.uint16:
        return (image * 257).astype(dtype)
    if np.dtype(dtype).kind == "f":
        return (image / 255).astype(dtype)
    return image.astype(dtype)


def encoded(suffix, image, *flags):
    """The bytes OpenCV writes for an RGB(A) picture."""
    if image.shape[-1] == 3:
        image = image[..., ::-1]
    elif image.shape[-1] == 4:
        image = image[..., [2, 1, 0, 3]]
    done, buffer = cv2.imencode(suffix, np.ascontiguousarray(image), list(flags))
    assert done
    return buffer.tobytes()


def exif(orientation, order="<"):
    """A TIFF directory that holds nothing but the orientation."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def jpeg_with_exif(raw, orientation, order="<", thumbnail=b""):
    """The JPEG with an EXIF segment behind its start marker."""
    body = b"Exif\0\0" + exif(orientation, order) + thumbnail
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:]


def png_chunk(kind, body):
    """One chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_exif(raw, orientation):
    """The PNG with an eXIf chunk behind its header."""
    return raw[:33] + png_chunk(b"eXIf", exif(orientation)) + raw[33:]


def webp_with_exif(raw, orientation, height, width):
    """The simple WebP as an extended one with an EXIF chunk."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    alpha = 0x10 if raw[12:16] == b"VP8L" and raw[24] & 0x10 else 0
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([8 | alpha, 0, 0, 0]) + size + raw[12:]
    body = exif(orientation)
    chunks += b"EXIF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def tiff(image, orientation=1, pages=1):
    """An uncompressed RGB TIFF by hand; the second page is the first one inverted."""
    height, width, channels = image.shape
    raw = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        start, entries = len(raw), 10
        data_at = start + 2 + 12 * entries + 4 + 8
        data = (image if page == 0 else 255 - image).tobytes()
        fields = [
            (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, data_at - 8), (259, 3, 1, 1),
            (262, 3, 1, 2), (273, 4, 1, data_at), (274, 3, 1, orientation), (277, 3, 1, channels),
            (278, 3, 1, height), (279, 4, 1, len(data)),
        ]  # fmt: skip
        raw += struct.pack("<H", entries)
        for tag, kind, count, value in fields:
            raw += struct.pack("<HHII", tag, kind, count, value)
        raw += struct.pack("<I", data_at + len(data) if page + 1 < pages else 0)
        raw += struct.pack("<HHHH", 8, 8, 8, 0) + data
    return raw


def turned(image, orientation):
    """What a viewer shows for a stored picture: EXIF's definition, in NumPy."""
    return {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: image[::-1].transpose(1, 0, 2),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: image[:, ::-1].transpose(1, 0, 2),
    }[orientation]


def open_descriptors():
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def no_leaks():
    """Whatever a test does, no file stays open behind it."""
    if not Path("/proc/self/fd").is_dir():
        yield
        return
    before = open_descriptors()
    yield
    assert open_descriptors() <= before


# ---------------------------------------------------------------------------------------------
# Options


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"size": 224}, TypeError, r"size=224, expected two whole numbers.*\(height, width\)"),
        ({"size": (224.5, 3)}, TypeError, "whole numbers"),
        ({"size": (1, 2, 3)}, TypeError, "two whole numbers"),
        ({"size": (0, 5)}, ValueError, "at least one pixel"),
        ({"interpolation": "lanczos3"}, ValueError, "'lanczos3' is unknown.*nearest, bilinear"),
        ({"channels": 2}, ValueError, "channels=2, expected 1.*None"),
        ({"dtype": "str"}, TypeError, "real numbers"),
        ({"dtype": "no such"}, TypeError, "no NumPy type"),
        ({"rescale": "big"}, TypeError, "expected a number"),
        ({"rescale": float("nan")}, ValueError, "finite"),
        ({"max_pixels": None}, ValueError, "max_pixels=None"),
        ({"max_pixels": 0}, ValueError, "max_pixels=0"),
    ],
)
def test_options_refuse(wrong, kind, words):
    """A wrong option is named with its value and what was expected."""
    with pytest.raises(kind, match=words):
        ImageOptions(**wrong)


def test_options_are_normalised_and_pickle():
    """Names become types and NumPy integers plain ones, and a worker process gets the same."""
    options = ImageOptions(size=np.array([4, 5]), dtype="float32", rescale=1 / 255)
    assert options.size == (4, 5)
    assert type(options.size[0]) is int
    assert options.dtype == np.dtype(np.float32)
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(pickle.loads(pickle.dumps(options)))


def test_decode_error_pickles():
    """An error raised in a worker process arrives as what it was."""
    error = pickle.loads(pickle.dumps(DecodeError("a.jpg is truncated")))
    assert isinstance(error, ValueError)
    assert str(error) == "a.jpg is truncated"


def test_import_is_light():
    """A worker process that imports this module gets neither TensorFlow nor Keras."""
    code = "import sys, kloaders.formats.images as f; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    path = Path(kl.__file__).parent.parent
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=path
    )
    assert found.stdout.split() == ["False", "False"]


# ---------------------------------------------------------------------------------------------
# Names and bytes


@pytest.mark.parametrize(
    ("path", "suffix"),
    [("a/B.JPG", ".jpg"), ("x.tar.npy", ".npy"), ("a.b/c", ""), (".npy", ""), ("d/.png", ""), ("e.", ".")],
)  # fmt: skip
def test_suffix_of(path, suffix):
    """Lower case, with the dot, of the last part only; hidden files have none."""
    assert suffix_of(path) == suffix


def test_check_suffix():
    """Known suffixes pass; others are named together with the known ones and the hooks."""
    for suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES:
        check_suffix("a" + suffix.upper())
    with pytest.raises(
        ValueError, match=r"a/b.raw ends in '.raw'.*\.jpg.*\.npy.*decode=.*load_sample"
    ):
        check_suffix("a/b.raw")
    with pytest.raises(ValueError, match="a/b has no suffix"):
        check_suffix("a/b")


def test_read_bytes(tmp_path):
    """The content as it is, up to the last byte."""
    content = bytes(range(256)) * 300 + b"\r\n\x1a"
    (tmp_path / "f").write_bytes(content)
    assert read_bytes(str(tmp_path / "f")) == content


def test_read_bytes_short_reads(tmp_path, monkeypatch):
    """A system that hands out seven bytes at a time costs patience, not content."""
    (tmp_path / "f").write_bytes(bytes(range(100)))
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 7)))
    assert read_bytes(str(tmp_path / "f")) == bytes(range(100))


@pytest.mark.parametrize("reader", [read_bytes, read_array, lambda p: read_image(p, STORED)])
def test_unreadable_files(tmp_path, reader):
    """Missing file, folder and empty file: each error names the path and leaves nothing open."""
    with pytest.raises(FileNotFoundError, match="gone"):
        reader(str(tmp_path / "gone.npy"))
    with pytest.raises(IsADirectoryError, match=r"folder.*" + tmp_path.name):
        reader(str(tmp_path))
    (tmp_path / "void.npy").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"void.npy is empty \(0 bytes\)"):
        reader(str(tmp_path / "void.npy"))


# ---------------------------------------------------------------------------------------------
# Pictures: what comes out


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


@needs_gif
def test_gif_first_frame():
    """A GIF comes as RGB."""
    image = (picture() // 128 * 252).astype(np.uint8)  # colours of OpenCV's fixed palette
    raw = encoded(".gif", image)
    assert image_shape(raw) == (40, 60)
    np.testing.assert_array_equal(decode_image(raw, ImageOptions()), image)


@pytest.mark.skipif(OPENCV >= (4, 12), reason="this OpenCV reads GIF")
def test_gif_without_decoder():
    """An OpenCV without GIF is said to be too old, with the command that helps."""
    with pytest.raises(DecodeError, match=r"kind gif, which OpenCV .*pip install"):
        decode_image(b"GIF89a" + struct.pack("<HH", 3, 2) + bytes(60), ImageOptions())


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


def test_content_counts_not_the_name(tmp_path):
    """A PNG that is called .jpg is decoded as the PNG it is."""
    image = picture()
    (tmp_path / "a.jpg").write_bytes(encoded(".png", image))
    np.testing.assert_array_equal(read_sample(str(tmp_path / "a.jpg"), ImageOptions()), image)


def test_other_bytes_likes():
    """bytearray, memoryview and uint8 arrays are taken as well."""
    raw = encoded(".png", picture())
    for form in (bytearray(raw), memoryview(raw), np.frombuffer(raw, np.uint8)):
        np.testing.assert_array_equal(decode_image(form, ImageOptions()), picture())


# ---------------------------------------------------------------------------------------------
# Pictures: size, type, out


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
    got = decode_image(raw, ImageOptions(size=(30, 16)))
    np.testing.assert_array_equal(got, cv2.resize(upright, (16, 30)))


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
    with pytest.raises(DecodeError, match=r'8 bits only.*"area"'):
        decode_image(raw, options)
    assert decode_image(raw, replace(options, interpolation="area")).shape == (2, 2, 1)


def test_without_pillow(monkeypatch):
    """Told when the loader is made, not sample by sample."""
    monkeypatch.setattr("kloaders.formats.options.find_spec", lambda name: None)
    with pytest.raises(ImportError, match='pip install pillow, or pass interpolation="area"'):
        ImageOptions(interpolation="pillow-box")


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


def test_aspect_needs_a_size():
    """And is one of three."""
    with pytest.raises(ValueError, match=r"size=\(height, width\)"):
        ImageOptions(aspect="crop")
    with pytest.raises(ValueError, match='aspect=\'fill\' is unknown, expected "stretch", "crop"'):
        ImageOptions(aspect="fill", size=(2, 2))


@pytest.mark.parametrize(("interpolation", "bound"), [("bilinear", 12), ("area", 4)])
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


# ---------------------------------------------------------------------------------------------
# Pictures: what is refused


def kinds():
    """One small file of each kind, by name."""
    image = picture(24, 32)
    files = {
        "jpeg": encoded(".jpg", image),
        "progressive": encoded(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "exif": jpeg_with_exif(encoded(".jpg", image), 3, thumbnail=encoded(".jpg", image[:8, :8])),
        "png": encoded(".png", image),
        "bmp": encoded(".bmp", image),
        "webp": encoded(".webp", image),
        "lossless webp": encoded(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 101),
        "tiff": encoded(".tiff", image),
        "plain tiff": tiff(image),
    }
    if OPENCV >= (4, 12):
        files["gif"] = encoded(".gif", image)
    return files


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


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><p>404", "begins with b'<!DOCTYPE ht'.*decode="),
        (b"\xff\xd8\xff\xd9", "truncated: a JPEG without picture data"),
        (b"\xff\xd8" + b"\xff" * 50_000, "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "0 x 0 by its header"),
        (b"BM", "no picture|begins with"),
    ],
)
def test_not_a_picture(raw, words):
    """What is no picture is said to be none, with its first bytes."""
    with pytest.raises(DecodeError, match=r"x.jpg.*" + words):
        decode_image(raw, ImageOptions(), name="x.jpg")


def test_hostile_headers_end_soon():
    """Millions of empty segments do not hold the interpreter."""
    assert image_shape(b"\xff\xd8" + b"\xff" * 10**7) is None
    assert image_shape(b"\xff\xd8" + b"\xff\xe0\0\0" * 10**6) is None
    assert image_shape(b"\x89PNG\r\n\x1a\n" + bytes(10**7)) == (0, 0)


def test_opencv_errors_are_ours():
    """What OpenCV itself refuses arrives as a DecodeError with the file's name."""
    raw = encoded(".png", picture(4, 4))
    with pytest.raises(DecodeError, match=r"huge.png cannot be decoded: OpenCV says"):
        decode_image(raw, ImageOptions(size=(2**30, 2**30)), name="huge.png")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(kinds().values())), st.integers(0, 60))
def test_any_header(noise, raw, keep):
    """The header peek answers for any bytes at all."""
    found = image_shape(raw[:keep] + noise)
    assert found is None or len(found) == 2


# ---------------------------------------------------------------------------------------------
# Arrays


numbers = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
)
arrays = hnp.arrays(numbers, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@settings(max_examples=250, deadline=None)
@given(arrays, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]), st.booleans())
def test_npy_round_trip(tmp_path_factory, array, fortran, version, zipped):
    """Any numbers in any shape, order and byte order come back with their values, ready to use."""
    path = str(tmp_path_factory.getbasetemp() / ("a.npz" if zipped else "a.npy"))
    array = np.asfortranarray(array) if fortran and array.ndim else array
    if zipped:
        np.savez_compressed(path, array)
    else:
        with Path(path).open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
    wanted = np.load(path)["arr_0"] if zipped else np.load(path)
    native = array.dtype.newbyteorder("=")
    out = np.ones(array.shape, native)
    for given_out in (None, out, out, np.ones((2, 3, 4, 5, 6), native), np.ones(array.shape, "U3")):
        got = read_array(path, given_out)
        assert (got is given_out) == (given_out is out)
        assert got.shape == array.shape
        assert got.dtype == native
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, wanted)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_npy(tmp_path_factory, data):
    """Changed, cut or extended bytes: an error that names the file, or what np.load reads."""
    zipped = data.draw(st.booleans())
    path = str(tmp_path_factory.getbasetemp() / ("b.npz" if zipped else "b.npy"))
    array = np.arange(60, dtype=np.float32).reshape(5, 12)
    (np.savez if zipped else np.save)(path, array)
    with Path(path).open("rb") as file:
        raw = bytearray(file.read())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with Path(path).open("wb") as file:
        file.write(raw + data.draw(st.sampled_from([b"", b"more"])))
    for out in (None, np.empty((5, 12), np.float32)):
        try:
            got = read_array(path, out)
        except DecodeError as error:
            named = path in str(error)
            assert named
            continue
        wanted = np.load(path)
        if zipped:
            (wanted,) = wanted.values()
        np.testing.assert_array_equal(got, wanted)


def test_row_of_a_batch(tmp_path):
    """Files of one shape are read into their rows, whichever header came before."""
    batch = np.zeros((10, 4, 3), np.float32)
    paths = []
    for number in range(10):
        paths.append(str(tmp_path / f"{number}.npy"))
        with Path(paths[-1]).open("wb") as file:
            array = np.full((4, 3), number, np.float32)
            np.lib.format.write_array(file, array, version=(1 + number % 2, 0))
    for number, path in enumerate(paths):
        row = batch[number]
        assert read_array(path, row) is row
    assert batch[:, 2, 1].tolist() == list(range(10))
    # another shape between them, of the same number of bytes: never taken for the first
    np.save(tmp_path / "other.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    got = read_array(str(tmp_path / "other.npy"), batch[0])
    assert got.shape == (3, 4)
    assert got[2].tolist() == [8, 9, 10, 11]


def test_one_read_for_a_known_header(tmp_path, monkeypatch):
    """After the first file of its kind, a sample costs one call and no look at its size."""
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.full((5, 7), number, np.int16))
    out = np.zeros((5, 7), np.int16)
    read_array(str(tmp_path / "0.npy"), out)
    if not npy._HAS_PREADV:
        pytest.skip("this system has no preadv")
    with monkeypatch.context() as without:
        without.setattr(os, "fstat", None)
        without.setattr(os, "read", None)
        assert read_array(str(tmp_path / "1.npy"), out) is out
    assert (out == 1).all()


def test_known_header_short_body(tmp_path):
    """A file cut short behind a header met before is refused all the same."""
    np.save(tmp_path / "a.npy", np.ones((5, 7)))
    out = np.zeros((5, 7))
    read_array(str(tmp_path / "a.npy"), out)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    for target in (out, None):
        with pytest.raises(DecodeError, match=r"a.npy is truncated.*280 bytes, and 279 follow"):
            read_array(str(tmp_path / "a.npy"), target)


def test_read_without_preadv(tmp_path, monkeypatch):
    """Systems without preadv read the same."""
    monkeypatch.setattr(npy, "_HAS_PREADV", False)
    np.save(tmp_path / "a.npy", np.arange(6))
    out = np.zeros(6, int)
    for _ in range(2):
        assert read_array(str(tmp_path / "a.npy"), out) is out
        assert out.tolist() == [0, 1, 2, 3, 4, 5]


def npy_header(descr="'<f4'", shape="(2, 3)", extra=""):
    """An .npy header by hand."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {extra}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (npy_header(shape="(500000000000,)"), "truncated.*2000000000000 bytes, and 96 follow"),
        (npy_header(shape="(0, 10000000000000000000000)"), "cannot be made"),
        (npy_header(shape="(-2, -3)"), "damaged .npy header"),
        (npy_header(descr="'|O'"), "never unpickled.*np.save"),
        (npy_header(descr="'<U4'"), "plain numbers"),
        (npy_header(descr="'<M8[s]'"), "plain numbers"),
        (npy_header(descr="'|V8'"), "plain numbers"),
        (npy_header(descr="[('x', '<f4'), ('y', 'O')]"), "never unpickled"),
        (npy_header(descr="[('x', '<f4')]"), "plain numbers"),
        (npy_header(descr="__import__('os').abort()"), "damaged .npy header"),
        (npy_header(descr="(" * 3000), "damaged .npy header"),
        (b"\x93NUMPY\7\1" + bytes(100), "version 7.1"),
        (b"\x93NUMPY\2\0\xff\xff\xff\x7f" + b" " * 20_000, "has a header of 2147483647 bytes"),
        (b"\x93NUMPY\1\0\x40", "truncated in its header"),
        (pickle.dumps([1, 2]), "is no .npy file: it begins with"),
        (b"PK\3\4 and no more", "damaged or foreign zip"),
    ],
)  # fmt: skip
def test_npy_refused(tmp_path, raw, words):
    """Objects, text, records, huge claims and nonsense: each is named, with what helps."""
    (tmp_path / "a.npy").write_bytes(raw + bytes(96) if raw.endswith(b"\n") else raw)
    with pytest.raises(DecodeError, match=r"a.npy.*" + words):
        read_array(str(tmp_path / "a.npy"))


def test_objects_are_not_unpickled(tmp_path):
    """A pickle in an array file is refused, and the advice in the message works."""
    np.save(tmp_path / "o.npy", np.array([1, 2, 3], dtype=object), allow_pickle=True)
    with pytest.raises(DecodeError, match=r"never unpickled.*np.asarray\(x, dtype=np.float32\)"):
        read_array(str(tmp_path / "o.npy"))
    np.save(tmp_path / "o.npy", np.asarray(np.array([1, 2, 3], dtype=object), dtype=np.float32))
    assert read_array(str(tmp_path / "o.npy")).tolist() == [1, 2, 3]
    np.savez(tmp_path / "o.npz", x=np.array([1], dtype=object))
    with pytest.raises(DecodeError, match=r"o.npz.*never unpickled"):
        read_array(str(tmp_path / "o.npz"))


def test_npz_of_several(tmp_path):
    """Several arrays cannot be one sample: the keys are listed, and the hook that chooses."""
    path = str(tmp_path / "many.npz")
    np.savez(path, image=np.ones(3), mask=np.zeros(3))
    with pytest.raises(DecodeError, match=r"many.npz holds 2 arrays: 'image', 'mask'.*load_sample"):
        read_array(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DecodeError, match="holds 0 arrays: none"):
        read_array(path)


def test_npz_checksum(tmp_path):
    """A changed value is found by the archive's checksum."""
    path = tmp_path / "a.npz"
    np.savez(path, np.arange(100_000))
    raw = bytearray(path.read_bytes())
    raw[400_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"a.npz.*CRC"):
        read_array(str(path))


def test_npz_bombs(tmp_path):
    """A member that claims more than can come out of it is refused before memory is taken."""
    path = tmp_path / "bomb.npz"
    header = npy_header(shape="(100000000000,)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + bytes(1000))
    with pytest.raises(DecodeError, match=r"truncated.*400000000000 bytes"):
        read_array(str(path))
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\1\2")
    raw[at + 24 : at + 28] = struct.pack("<I", 2**31)  # the size the directory declares
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"claims 2147483648 bytes for x.npy"):
        read_array(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", header)
    with pytest.raises(DecodeError, match="compressed by method 14"):
        read_array(str(path))


def test_npz_and_npy_by_content(tmp_path):
    """An archive called .npy and an array called .npz are read as what they are."""
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.npy").rename(tmp_path / "b.npz")
    assert read_array(str(tmp_path / "b.npz")).tolist() == [0, 1, 2]
    np.savez(tmp_path / "c.npz", np.arange(4))
    (tmp_path / "c.npz").rename(tmp_path / "d.npy")
    assert read_array(str(tmp_path / "d.npy")).tolist() == [0, 1, 2, 3]


def test_read_sample(tmp_path):
    """By suffix: pictures with the options, arrays as saved, and nothing else."""
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.PNG").write_bytes(encoded(".png", picture()))
    options = ImageOptions(size=(8, 9))
    assert read_sample(str(tmp_path / "a.npy"), options).tolist() == [0, 1, 2]
    row = np.zeros((2, 8, 9, 3), np.uint8)[1]
    assert read_sample(str(tmp_path / "a.PNG"), options, row) is row
    with pytest.raises(ValueError, match="suffixes known"):
        read_sample(str(tmp_path / "a.txt"), options)
