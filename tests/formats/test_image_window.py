"""A window of an image equals the same window of the whole image, and damage is an error."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.formats import image_window
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, jpeg_with_exif, picture, turned
from tests.support.jpegs_by_hand import jpeg_of_blocks
from tests.support.pillow_images import ALL, saved
from tests.support.scripts import run_program
from tests.support.threads import in_threads

HERE = find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None
installed = pytest.mark.skipif(not HERE, reason='needs pip install "kloaders[crop]"')

FACTORS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def whole(raw: bytes) -> Any:
    return decode_image(raw, ImageOptions())


def fixed(*box: Any) -> Any:
    return lambda height, width: box


def photo(height: int, width: int, seed: int = 0, noise: int = 40) -> Any:
    """Smooth colours with noise: all frequencies occur."""
    draw = np.random.default_rng(seed)
    few = draw.integers(0, 256, (5, 6, 3), np.uint8)
    image = cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image += draw.integers(-noise, noise + 1, image.shape, np.int16)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(
    image: Any, factor: str = "4:2:0", quality: int = 90, restart: int = 0, **flags: int
) -> bytes:
    chosen = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FACTORS[factor], cv2.IMWRITE_JPEG_QUALITY, quality]
    chosen += [cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    for name, value in flags.items():
        chosen += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
    return encoded(".jpg", image, *chosen)


def boxes(height: int, width: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """The whole image, its edges and corners, single pixels, and random windows."""
    draw = np.random.default_rng(seed)
    found = [(0, 0, height, width), (height - 1, 0, 1, width), (0, width - 1, height, 1)]
    found += [
        (t, n, 1, 1) for t in (0, height // 2, height - 1) for n in (0, width // 2, width - 1)
    ]
    for _ in range(6):
        top, left = int(draw.integers(height)), int(draw.integers(width))
        rows, columns = draw.integers(1, height - top + 1), draw.integers(1, width - left + 1)
        found.append((top, left, int(rows), int(columns)))
    return found


def check(raw: bytes, seed: int = 0) -> None:
    """Every window has the pixels of the whole image."""
    image = whole(raw)
    for top, left, rows, columns in boxes(*image.shape[:2], seed):
        found = kl.decode_and_crop(raw, fixed(top, left, rows, columns))
        wanted = image[top : top + rows, left : left + columns]
        np.testing.assert_array_equal(found, wanted, f"window {top, left, rows, columns}")
        assert found.dtype == image.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable


@pytest.fixture
def skips(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each image that nvImageCodec got: whether it decoded it."""
    found: list[bool] = []
    decoded = image_window._decoded

    def counted(*given: Any) -> Any:
        image = decoded(*given)
        found.append(image is not None)
        return image

    monkeypatch.setattr(image_window, "_decoded", counted)
    return found


@settings(max_examples=150)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    factor=st.sampled_from(sorted(FACTORS)),
    quality=st.integers(1, 100),
    restart=st.sampled_from([0, 0, 1, 3, 7]),
    progressive=st.sampled_from([0, 0, 0, 1]),
    optimize=st.booleans(),
    noise=st.sampled_from([0, 40, 255]),
    seed=st.integers(0, 2**20),
)
def test_the_pixels_are_those_of_the_whole_image(
    height: int, width: int, factor: str, quality: int, restart: int, progressive: int,
    optimize: bool, noise: int, seed: int,
) -> None:  # fmt: skip
    image = photo(height, width, seed, noise)
    flags = {"progressive": progressive, "optimize": int(optimize)}
    check(jpeg(image, factor, quality, restart, **flags), seed)


@installed
@pytest.mark.parametrize("width", [1, 2, 5, 15, 16, 17, 33])
def test_narrow_windows_at_the_edges(width: int, skips: list[bool]) -> None:
    """libjpeg-turbo itself has other colours in a window of one column at the edge."""
    raw = jpeg(photo(33, width, noise=255))
    image = whole(raw)
    for columns in range(1, min(4, width) + 1):
        for left in {0, (width - columns) // 2, width - columns}:
            found = kl.decode_and_crop(raw, fixed(3, left, 20, columns))
            np.testing.assert_array_equal(found, image[3:23, left : left + columns])
    assert skips
    assert all(skips)


@installed
@pytest.mark.parametrize("factor", sorted(FACTORS))
def test_rows_are_skipped(factor: str, skips: list[bool]) -> None:
    """A plain photograph is decoded by nvImageCodec; also one of simplejpeg."""
    check(jpeg(photo(90, 70), factor))
    kind = factor.replace(":", "")
    simplejpeg = pytest.importorskip("simplejpeg")
    check(simplejpeg.encode_jpeg(photo(90, 70), 90, colorsubsampling=kind))
    assert len(skips) == 2 * len(boxes(90, 70))
    assert all(skips)


@pytest.mark.parametrize(
    "sampling",
    [
        ((2, 2), (1, 2), (1, 2)), ((2, 2), (2, 1), (2, 1)),
        ((1, 1), (2, 2), (2, 2)), ((1, 4), (1, 1), (1, 1)), ((4, 2), (1, 1), (1, 1)),
        ((3, 1), (1, 1), (1, 1)), ((2, 2), (2, 1), (1, 2)), ((2, 1), (1, 1), (2, 1)),
    ],
    ids=str,
)  # fmt: skip
def test_unusual_sampling_factors(sampling: Any) -> None:
    for seed, (height, width) in enumerate([(37, 61), (64, 64), (5, 3)]):
        check(jpeg_of_blocks(height, width, sampling, seed), seed)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_every_kind_of_image(kind: str) -> None:
    """Gray, CMYK, PNG of 16 bits, palettes, GIF, TIFF ..."""
    check(ALL[kind])


def test_further_variants() -> None:
    check(saved(photo(45, 33), "JPEG", keep_rgb=True))  # stored as RGB
    check(saved(photo(45, 33), "JPEG", qtables="web_low", subsampling=2))
    check(encoded(".tiff", (photo(20, 30) / 255).astype(np.float32)))
    check(jpeg(photo(40, 50)) + jpeg(photo(9, 9)))  # a preview after the end
    check(jpeg_of_blocks(30, 40, ((1, 1),) * 3, frame=0xC1))  # extended sequential
    assert kl.decode_and_crop(ALL["png 16"], fixed(1, 2, 3, 4)).dtype == np.uint16


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_are_of_the_upright_image(orientation: int) -> None:
    image = picture(40, 64)
    raw = jpeg_with_exif(jpeg(image, quality=98), orientation)
    upright = turned(whole(jpeg(image, quality=98)), orientation)
    asked = []

    def window(height: int, width: int) -> tuple[int, int, int, int]:
        asked.append((height, width))
        return 2, 5, 17, 21

    np.testing.assert_array_equal(kl.decode_and_crop(raw, window), upright[2:19, 5:26])
    assert asked == [upright.shape[:2]]
    check(raw)


def damaged() -> dict[str, bytes]:
    """Files that decode_image refuses, too; the damage begins in the first half of the rows."""
    raw = jpeg(photo(96, 80))
    quarter = len(raw) // 4
    other = jpeg(photo(96, 80, seed=1))
    found = {
        "cut": raw[:quarter],
        "without its last byte": raw[:-1],
        "zeros at the end": raw[:quarter] + bytes(len(raw) - quarter),
        "another image begins": raw[:quarter] + other,
        "another image begins in the header": raw[:100] + other,
        "empty": b"",
        "only the start": raw[:2],
        "header only": raw[: raw.find(b"\xff\xda")],
        "random bytes": np.random.default_rng(0).bytes(2000),
        "random bytes after the start": raw[:3] + np.random.default_rng(1).bytes(2000),
        "text": b"<html>404</html>",
        "12 bits": jpeg_of_blocks(96, 80, ((1, 1),) * 3, frame=0xC1, bits=12),
        "lossless": jpeg_of_blocks(96, 80, ((1, 1),) * 3, frame=0xC3),
        "hierarchical": jpeg_of_blocks(96, 80, ((1, 1),) * 3, frame=0xC5),
        "png": saved(photo(96, 80), "PNG")[:-30],
    }
    bomb = bytearray(raw)
    at = raw.find(b"\xff\xc0")
    bomb[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    return {**found, "too large": bytes(bomb)}


@pytest.mark.parametrize("kind", sorted(damaged()))
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (20, 10, 60, 50), (95, 0, 1, 80)], ids=str)
def test_damage_is_refused(kind: str, box: Any) -> None:
    raw = damaged()[kind]
    with pytest.raises(kl.DecodeError):
        whole(raw)
    with pytest.raises(kl.DecodeError, match=r"cat\.jpg") as caught:
        kl.decode_and_crop(raw, fixed(*box), name="cat.jpg")
    assert type(caught.value).__module__.startswith("kloaders")


def test_damage_inside_is_refused_as_in_the_whole_image() -> None:
    """Changed bytes above the window's end: refused, or the pixels of the whole image."""
    images = [photo(96, 80, seed=k) for k in range(4)]
    draw = np.random.default_rng(5)
    kinds = {"refused": 0, "equal": 0}
    for n in range(200):
        raw = jpeg(images[n % 4], restart=n % 2)
        rows = int(draw.integers(2, 6))  # of blocks, the last of which is damaged
        before, after = (
            len(jpeg(images[n % 4][: 16 * k], restart=n % 2)) for k in (rows - 1, rows)
        )
        at, size = int(draw.integers(before, after)), int(draw.integers(1, 60))
        size = min(size, len(raw) - 2 - at)
        spoilt = draw.bytes(size) if n % 4 < 2 else b"\xff\xd8" + bytes(max(0, size - 2))
        data = raw[:at] + spoilt + raw[at + size :]
        top = int(draw.integers(16 * rows))
        box = top, 5, min(96, 16 * rows + 8) - top, 60
        try:
            image = whole(data)
        except kl.DecodeError:
            with pytest.raises(kl.DecodeError):
                kl.decode_and_crop(data, fixed(*box))
            kinds["refused"] += 1
        else:
            found = kl.decode_and_crop(data, fixed(*box))
            np.testing.assert_array_equal(found, image[top : top + box[2], 5:65])
            kinds["equal"] += 1
    assert min(kinds.values()) > 40


def test_a_progressive_file_without_its_last_scans() -> None:
    """libjpeg smooths it, from the blocks around the window."""
    raw = jpeg(photo(64, 64), progressive=1)
    check(raw[: len(raw) * 2 // 3] + b"\xff\xd9")


@pytest.mark.parametrize("raw", [jpeg(picture(40, 60)), ALL["png"]], ids=["jpeg", "png"])
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((0, 0, 41, 60), ValueError, "the window is 41 x 60 at row 0, column 0"),
        ((0, 60, 1, 1), ValueError, "at row 0, column 60"),
        ((-1, 0, 5, 5), ValueError, "at row -1"),
        ((0, -1, 5, 5), ValueError, "column -1"),
        ((0, 0, 0, 5), ValueError, "0 x 5"),
        ((0, 0, 5, -5), ValueError, "5 x -5"),
        ((2**70, 0, 5, 5), ValueError, f"at row {2**70}"),
        ((0, 0, 3.7, 5), TypeError, r"the window is \(0, 0, 3.7, 5\), expected four integers"),
        ((0, 0, 3.0, 5), TypeError, "expected four integers"),
        ((0, 0, np.float32(3), 5), TypeError, "expected four integers"),
        ((0, 0, 5), TypeError, r"the window is \(0, 0, 5\), expected four integers"),
        ((0, 0, 5, 5, 5), TypeError, "expected four integers"),
        (None, TypeError, "the window is None, expected four integers"),
        (7, TypeError, "the window is 7"),
        ("0055", TypeError, "the window is '0055'"),
        (((0, 0), (5, 5)), TypeError, "expected four integers"),
    ],
    ids=str,
)
def test_wrong_windows(raw: bytes, given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        kl.decode_and_crop(raw, lambda height, width: given, name="cat.jpg")
    assert str(caught.value).startswith("cat.jpg: ")
    assert "(top, left, height, width)" in str(caught.value)


def test_a_window_that_is_not_a_function() -> None:
    with pytest.raises(TypeError, match=r"cat: window=\(0, 0, 5, 5\) is not a function. Pass a"):
        kl.decode_and_crop(jpeg(picture()), (0, 0, 5, 5), name="cat")  # type: ignore[arg-type]


def test_errors_of_the_window_function_are_its_own() -> None:
    def window(height: int, width: int) -> tuple[int, int, int, int]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        kl.decode_and_crop(jpeg(picture()), window)


def test_integers_of_numpy() -> None:
    raw = jpeg(picture(40, 60))
    wanted = whole(raw)[3:8, 4:10]
    for box in (np.array([3, 4, 5, 6]), tuple(np.array([3, 4, 5, 6], np.uint8)), [3, 4, 5, 6]):
        np.testing.assert_array_equal(kl.decode_and_crop(raw, fixed(*box)), wanted)


def test_kinds_of_bytes() -> None:
    raw = jpeg(picture(40, 60))
    array = kl.keep_encoded(raw)
    assert (array.dtype, array.shape) == (np.uint8, (len(raw),))
    readings = [
        raw,
        bytearray(raw),
        memoryview(raw),
        array,
        np.repeat(array, 2)[::2],
        np.bytes_(raw),
    ]
    for reading in readings:
        found = kl.decode_and_crop(reading, fixed(3, 4, 5, 6))
        np.testing.assert_array_equal(found, whole(raw)[3:8, 4:10])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (picture(4, 6), r"got an array of uint8 and shape \(4, 6, 3\), expected an encoded image"),
        (np.zeros(100, np.float32), "got an array of float32"),
        ("cat.jpg", "got 'cat.jpg'"),
        (None, "got None"),
        ([1, 2], r"got \[1, 2\]"),
        (5, "got 5"),
    ],
    ids=["decoded", "floats", "path", "None", "list", "number"],
)
def test_what_is_not_an_encoded_image(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=rf"cat: .*{words}.*decode=kl.keep_encoded"):
        kl.decode_and_crop(given, fixed(0, 0, 1, 1), name="cat")


@pytest.mark.parametrize("broken", ["missing", "old", "libraries"])
def test_without_the_library(
    broken: str, monkeypatch: pytest.MonkeyPatch, skips: list[bool]
) -> None:
    """Not installed, of an older release, or without a library of the system."""

    class Found:
        __version__ = "0.8.0"

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise OSError("libc.so.9: cannot open shared object file")

    modules = {"missing": None, "old": type("M", (), {"nvimgcodec": Found}), "libraries": Broken()}
    monkeypatch.setitem(sys.modules, "nvidia", modules[broken])
    image_window._library.cache_clear()
    try:
        assert image_window._library() is None
        check(jpeg(photo(50, 40)))
    finally:
        image_window._library.cache_clear()
    assert not skips


def test_only_the_first_image_imports_the_library() -> None:
    """It prints errors about decoders for GPUs."""
    program = (
        "import sys, kloaders as kl; kl.decode_and_crop, kl.keep_encoded;"
        "sys.exit('nvidia.nvimgcodec' in sys.modules)"
    )
    done = run_program(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads() -> None:
    """Also while they import the library."""
    images = [photo(60 + 7 * k, 90 - 5 * k, seed=k) for k in range(4)]
    raws = [jpeg(image) for image in images]
    image_window._library.cache_clear()
    begin, wrong = threading.Barrier(4), []

    def work(k: int) -> None:
        begin.wait()
        image = whole(raws[k])
        for n in range(60):
            box = boxes(*image.shape[:2], n)[-1]
            top, left, rows, columns = box
            found = kl.decode_and_crop(raws[k], fixed(*box))
            if not np.array_equal(found, image[top : top + rows, left : left + columns]):
                wrong.append((k, box))

    in_threads(work, 4)
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_decodes() -> None:
    raw = jpeg(photo(60, 90))
    image = whole(raw)
    kl.decode_and_crop(raw, fixed(0, 0, 9, 9))  # the parent's thread has a decoder
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            found = kl.decode_and_crop(raw, fixed(5, 6, 20, 30))
            code = 0 if np.array_equal(found, image[5:25, 6:36]) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@installed
@pytest.mark.slow
def test_no_memory_is_lost() -> None:
    """np.asarray() of nvImageCodec's image would lose 32 bytes each time."""
    raw = jpeg(photo(40, 60))
    process = psutil.Process()

    def decode(times: int) -> int:
        for _ in range(times):
            kl.decode_and_crop(raw, fixed(10, 20, 20, 25))
        return int(process.memory_info().rss)

    before = decode(2000)
    assert decode(30_000) - before < 30_000 * 16
