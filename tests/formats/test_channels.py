"""Channels as they are stored become as many as are wanted, in RGB order."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from kloaders.formats.channels import Stored, in_channels, with_clear_gray
from kloaders.formats.errors import DecodeError
from tests.support.odd_images import bands


def stored(image: Any, bgr: bool, colours: int = 3, alpha: bool = False) -> Stored:
    swapped = image
    if bgr and image.shape[2] > 2:
        swapped = np.ascontiguousarray(image[..., [2, 1, 0, *range(3, image.shape[2])]])
    return Stored(swapped, 1, bgr, colours, alpha)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int16"])
@pytest.mark.parametrize("have", [3, 4])
def test_colours(bgr: bool, dtype: str, have: int) -> None:
    """Whoever decoded them, and whatever their type; what OpenCV lacks is refused by name."""
    image = bands(have, dtype)
    one = stored(image, bgr, alpha=have == 4)
    for wanted in (None, have):
        np.testing.assert_array_equal(in_channels(one, wanted, None, "x"), image)
    np.testing.assert_array_equal(in_channels(one, 3, None, "x"), image[..., :3])
    if dtype in ("float64", "int16"):
        for wanted in (1, 4) if have == 3 else (1,):
            with pytest.raises(DecodeError, match=rf"x stores {have} channels of {dtype}"):
                in_channels(one, wanted, None, "x")
        return
    rgb = np.ascontiguousarray(image[..., :3])
    np.testing.assert_allclose(
        in_channels(one, 1, None, "x"), cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), atol=1
    )
    got = in_channels(one, 4, None, "x")
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    np.testing.assert_array_equal(got[..., 3], image[..., 3] if have == 4 else full)
    np.testing.assert_array_equal(got[..., :3], rgb)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_gray(dtype: str) -> None:
    gray = bands(1, dtype)
    one = Stored(gray, 1, bgr=True, colours=1, alpha=False)
    for wanted in (None, 1):
        assert in_channels(one, wanted, None, "x") is gray
    np.testing.assert_array_equal(in_channels(one, 3, None, "x"), np.repeat(gray, 3, axis=2))


def test_a_row_is_filled() -> None:
    """Where the conversion is the last step."""
    image = bands(3)
    out = np.zeros_like(image)
    assert in_channels(stored(image, bgr=True), 3, out, "x") is out
    np.testing.assert_array_equal(out, image)


def test_clear_gray() -> None:
    """BGRA and RGBA are one for gray."""
    gray = np.array([[0, 85], [170, 255]], np.uint8)
    assert with_clear_gray(gray, 2, 2)[..., 3].tolist() == [[255, 255], [0, 255]]
    assert with_clear_gray(gray, 85, 8)[..., 3].tolist() == [[255, 0], [255, 255]]
