"""What strips by LZW and PackBits unpack to: counted right, and damage shows in it."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kloaders.formats.tiff_header import tiff_facts
from kloaders.formats.tiff_runs import lzw_length, packbits_length, strip_damage
from tests.support.odd_images import bands, tiff_of


def damage(raw: bytes) -> str | None:
    facts = tiff_facts(raw)
    assert facts is not None
    return strip_damage(raw, facts)


@pytest.mark.parametrize("compression", ["lzw", "packbits"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}], ids=str)
def test_sound_files_are_not_accused(compression: str, planar: str, layout: Any) -> None:
    """Strips, tiles, planes, with a predictor and without, the last strip shorter."""
    pytest.importorskip("imagecodecs", reason="writes such files")
    for count, dtype in ((1, "uint8"), (3, "int16"), (4, "float32")):
        image = bands(count, dtype)
        for predictor in (None, True) if compression == "lzw" else (None,):
            options = {"compression": compression, "predictor": predictor, **layout}
            assert damage(tiff_of(image, planarconfig=planar, **options)) is None


@pytest.mark.parametrize("noise", [False, True])
def test_sound_files_of_others(noise: bool) -> None:
    """Pillow's and OpenCV's, with tables that are full and cleared."""
    image = np.random.default_rng(0).integers(0, 255 if noise else 4, (200, 300, 3), np.uint8)
    for compression in ("tiff_lzw", "packbits"):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "TIFF", compression=compression)
        assert damage(stream.getvalue()) is None
    assert damage(cv2.imencode(".tiff", image)[1].tobytes()) is None
    assert damage(cv2.imencode(".tiff", image.astype(np.uint16) * 200)[1].tobytes()) is None


def test_damage_shows() -> None:
    """In most strips by LZW: a code that changed stands for another number of bytes."""
    image = np.random.default_rng(0).integers(0, 4, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "TIFF", compression="tiff_lzw")
    raw = stream.getvalue()
    facts = tiff_facts(raw)
    assert facts is not None
    begin, size = facts.strips[0]
    found = 0
    for at in range(begin, begin + size, size // 50):
        damaged = bytearray(raw)
        damaged[at] ^= 85
        said = damage(bytes(damaged))
        found += said is not None
        assert said is None or "part 0 of the TIFF unpacks to" in said
    assert found > 35


@given(st.binary(max_size=300))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert (lzw_length(data) or 0) >= -1
    assert (packbits_length(data) or 0) >= -1


def test_packbits() -> None:
    """Three literals, a run of four, nothing, and a literal that is cut off."""
    assert packbits_length(bytes([2, 1, 2, 3, 253, 9, 128])) == 7
    assert packbits_length(bytes([2, 1, 2])) == -1
