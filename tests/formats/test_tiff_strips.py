"""Where the strips of a TIFF lie."""

import struct

import numpy as np
import pytest

from kloaders.formats.tiff_strips import strips_of
from tests.formats.test_zero_tail import photo, tiff


@pytest.mark.parametrize("rows", [1, 7, 120])
def test_strips_hold_the_rows(rows):
    image = photo()
    raw = tiff(image, rows=rows)
    strips = strips_of(raw)
    assert (strips.bits, strips.stride, strips.row, strips.compression) == (24, 480, 480, 1)
    assert b"".join(raw[begin:end] for begin, end in strips.places) == image.tobytes()


def test_a_directory_without_strips():
    raw = struct.pack("<2sHIH", b"II", 42, 8, 0) + bytes(4)
    assert strips_of(raw) is None


def test_what_is_cut_off():
    raw = tiff(np.ones((4, 4, 3), np.uint8), rows=1)
    with pytest.raises((struct.error, ValueError)):
        strips_of(raw[:60])
