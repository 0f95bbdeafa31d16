"""One file: what is damaged is found at whatever byte, what is sound is not accused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kloaders.formats.image_structure import kind_of
from kloaders.formats.images import decode_image
from kloaders.formats.integrity import check_content, check_file, check_video
from kloaders.formats.options import ImageOptions
from tests.support.pillow_images import ALL, JPEGS


def kinds(raw: bytes) -> list[str]:
    return [kind for kind, _ in check_content(raw, "it").problems]


@pytest.mark.parametrize("name", ALL)
def test_sound_pictures_are_not_accused(name: str) -> None:
    """As Pillow and OpenCV write them; nor for what follows their end."""
    found = check_content(ALL[name], "it")
    assert found.problems == []
    assert found.form[0] == "picture"
    if kind_of(ALL[name][:12]) != "TIFF":
        assert kinds(ALL[name] + b"behind the end") == []
    if name in JPEGS:
        assert kinds(ALL[name] + bytes(5) + JPEGS["baseline"]) == []  # a preview, as phones append


@settings(max_examples=150)
@given(st.sampled_from(sorted(ALL)), st.data())
def test_cut_at_any_byte(name: str, data: Any) -> None:
    """Whatever the picture: a part of it is reported, or is all of its pixels."""
    raw = ALL[name]
    cut = data.draw(st.integers(0, len(raw) - 1))
    found = check_content(raw[:cut], "it")
    if not found.problems:
        assert "tiff" in name
        whole = decode_image(raw, ImageOptions(channels=None))
        np.testing.assert_array_equal(decode_image(raw[:cut], ImageOptions(channels=None)), whole)


@settings(max_examples=150)
@given(st.sampled_from(sorted(ALL)), st.data())
def test_any_damage_has_an_answer(name: str, data: Any) -> None:
    """Changed, cut, put together otherwise: an answer, never an exception, and soon."""
    raw = bytearray(ALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    check_content(bytes(raw), "it", max_pixels=10**6)


@pytest.mark.parametrize("name", ["npy", "npz", "npz compressed"])
def test_arrays_cut_at_any_byte(tmp_path: Path, name: str) -> None:
    """Their headers, sums and lists of members tell."""
    path = str(tmp_path / f"it.{name[:3]}")
    x, y = np.arange(40.0).reshape(5, 8), np.arange(5)
    if name == "npy":
        np.save(path, x)
    else:
        (np.savez if name == "npz" else np.savez_compressed)(path, x=x, y=y)
    assert check_file(path).problems == []
    raw = Path(path).read_bytes()
    for cut in range(0, len(raw), 1 if name == "npy" else 3):
        Path(path).write_bytes(raw[:cut])
        problems = check_file(path).problems
        assert problems, cut
        assert problems[0][0] in ("empty", "truncated", "broken")
    if name != "npy":
        damaged = bytearray(raw)
        damaged[len(raw) // 3] ^= 1
        Path(path).write_bytes(damaged)
        assert check_file(path).problems


def test_archives_that_claim_too_much(tmp_path: Path) -> None:
    """Zeros that grow a thousandfold are a bomb where that is more than a picture may take."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros(10**6))
    assert check_file(str(path), max_pixels=3 * 10**6).problems == []
    ((kind, said),) = check_file(str(path), max_pixels=10**4).problems
    assert kind == "too many pixels"
    assert "8,000,128 bytes" in said


def test_texts_beside_arrays_do_no_harm(tmp_path: Path) -> None:
    """As in SciPy's sparse matrices: somebody's load_sample() chooses."""
    path = str(tmp_path / "it.npz")
    np.savez(path, data=np.arange(5.0), format="csc")
    assert check_file(path).problems == []
    np.savez(path, format="csc")
    ((kind, said),) = check_file(path).problems
    assert (kind, "expected plain numbers" in said) == ("broken", True)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    """An array of objects is broken, for nobody loads it."""
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    ((kind, said),) = check_file(str(path)).problems
    assert kind == "broken"
    assert "never unpickled" in said


def test_videos(tmp_path: Path) -> None:
    """Read to their last frame; what cannot be read is told."""
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(30):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    assert check_video(str(path)).problems == []
    assert check_video(str(path)).digest
    kinds = []
    for content in (path.read_bytes()[:-2000], b"", b"no video"):
        path.write_bytes(content)
        ((kind, message),) = check_video(str(path)).problems
        assert str(path) in message
        kinds.append(kind)
    path.unlink()
    kinds.append(check_video(str(path)).problems[0][0])
    os.mkfifo(path)
    kinds.append(check_video(str(path)).problems[0][0])
    assert kinds == ["truncated", "empty", "broken", "unreadable", "unreadable"]


def test_what_is_not_read_is_no_damage() -> None:
    """Of a variant that nothing here reads right: "unsupported", with the words that a loader has."""
    from tests.support.odd_images import bands, tiff_of

    raw = tiff_of(bands(4, "uint16"), "separated")
    ((kind, message),) = check_content(raw, "x.tif").problems
    assert kind == "unsupported"
    assert "x.tif is a TIFF (CMYK, 4 samples of 16 bits)" in message


def test_every_page_is_read() -> None:
    """One that is damaged is named; how many there are is part of what an image is."""
    from tests.support.odd_images import bands, tiff_of

    pages = np.stack([bands(1, "uint8", seed) for seed in range(3)])
    raw = bytearray(tiff_of(pages, compression="deflate"))
    found = check_content(bytes(raw), "x.tif")
    assert found.problems == []
    assert found.form == ("picture", "3 pages of 37 x 21", "uint8 of 1 channel")
    at = raw.rindex(b"\x78\x9c") + 40
    raw[at] ^= 85
    ((kind, message),) = check_content(bytes(raw), "x.tif").problems
    assert kind == "broken"
    assert "x.tif, page 3 of 3, is broken" in message or "page" in message


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_damage_in_a_strip(dtype: str) -> None:
    """Deflate has checksums that decoders do not look at."""
    from tests.support.odd_images import bands, tiff_of

    raw = bytearray(tiff_of(bands(1, dtype), compression="deflate"))
    assert check_content(bytes(raw), "x.tif").problems == []
    raw[raw.index(b"\x78\x9c") + 40] ^= 85
    assert [kind for kind, _ in check_content(bytes(raw), "x.tif").problems] == ["broken"]
