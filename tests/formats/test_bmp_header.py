"""BMP files: every header and every packing of colours gives the colours that are meant."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest

from kloaders.formats.bmp_header import bmp_facts
from kloaders.formats.errors import UnsupportedError
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.support.odd_images import bmp

WIDTH, HEIGHT = 10, 6
STORED = ImageOptions(channels=None)
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PALETTE = np.array([[10, 220, 30], [40, 50, 60], [70, 80, 90], [200, 100, 0]] * 64, np.uint8)


def read(raw: bytes) -> Any:
    return decode_image(raw, STORED, name="x.bmp")


def rows_of(image: Any) -> list[bytes]:
    """From the bottom, as BMP has them."""
    return [row.tobytes() for row in image[::-1]]


def bgr(image: Any, *, rest: int | None = None) -> Any:
    planes = [image[..., 2], image[..., 1], image[..., 0]]
    return np.stack(planes if rest is None else [*planes, np.full_like(planes[0], rest)], axis=-1)


@pytest.mark.parametrize("head", [12, 40, 64, 108, 124])
def test_24_bits(head: int) -> None:
    np.testing.assert_array_equal(read(bmp(head, 24, rows_of(bgr(COLOURS)), WIDTH)), COLOURS)


@pytest.mark.parametrize("head", [12, 40, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(head: int, bits: int) -> None:
    """Three bytes a colour with OS/2's header, four with all others."""
    numbers = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % min(4, 2**bits)
    spread = np.unpackbits(numbers.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    packed = np.packbits(spread.reshape(HEIGHT, -1), axis=1)
    table = bgr(PALETTE[: 2**bits][None], rest=None if head == 12 else 0)[0]
    raw = bmp(head, bits, rows_of(packed), WIDTH, palette=table.tobytes())
    np.testing.assert_array_equal(read(raw), PALETTE[numbers])


@pytest.mark.parametrize("head", [40, 108, 124])
@pytest.mark.parametrize("places", [(16, 8, 0), (24, 16, 8), (0, 8, 16), (8, 16, 24), (20, 10, 0)])
def test_masks_of_32_bits(head: int, places: tuple[int, int, int]) -> None:
    """A fourth byte that nothing names is no alpha; colours in unusual places are refused by name."""
    masks = tuple(0xFF << place for place in places)
    pixels = sum(COLOURS[..., k].astype(np.uint32) << place for k, place in enumerate(places))
    raw = bmp(head, 32, rows_of(pixels.astype("<u4")), WIDTH, masks=masks)
    if places == (20, 10, 0):
        with pytest.raises(UnsupportedError, match=r"x\.bmp"):
            read(raw)
        return
    usual = places == (16, 8, 0)
    with contextlib.nullcontext() if usual else contextlib.suppress(UnsupportedError):
        np.testing.assert_array_equal(read(raw), COLOURS)


def test_32_bits_without_masks_have_no_alpha() -> None:
    """The fourth byte is reserved, and often 0."""
    raw = bmp(40, 32, rows_of(bgr(COLOURS, rest=0)), WIDTH)
    np.testing.assert_array_equal(read(raw), COLOURS)
    got = decode_image(raw, ImageOptions(channels=4))
    assert (got[..., 3] == 255).all()


@pytest.mark.parametrize("head", [108, 124])
def test_alpha_by_a_mask(head: int) -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    alpha = COLOURS[..., :1]
    raw = bmp(head, 32, rows_of(np.concatenate([bgr(COLOURS), alpha], axis=2)), WIDTH, masks=masks)
    np.testing.assert_array_equal(read(raw), np.concatenate([COLOURS, alpha], axis=2))


@pytest.mark.parametrize(
    ("head", "masks"), [(40, ()), (40, (0xF800, 0x7E0, 0x1F)), (108, (0xF800, 0x7E0, 0x1F))]
)
def test_16_bits(head: int, masks: tuple[int, ...]) -> None:
    """5, 5, 5 bits without masks, and 5, 6, 5 with these; spread over 0 to 255."""
    green = 6 if masks else 5
    r, g, b = (COLOURS[..., k].astype(int) for k in range(3))
    words = (r >> 3) << (5 + green) | (g >> (8 - green)) << 5 | b >> 3
    raw = bmp(head, 16, rows_of(words.astype("<u2")), WIDTH, masks=masks)
    got = read(raw)
    wanted = [(r >> 3) * 255 / 31, (g >> (8 - green)) * 255 / (2**green - 1), (b >> 3) * 255 / 31]
    assert np.abs(got - np.stack(wanted, axis=-1)).max() <= 1


def test_run_lengths() -> None:
    """Runs of 8 bits."""
    line = bytes([3, 0, 4, 1, 3, 2, 0, 0])
    table = bgr(PALETTE[None], rest=0)[0].tobytes()
    raw = bmp(40, 8, [line] * HEIGHT, WIDTH, palette=table, compression=1)
    numbers = np.repeat([[0, 1, 2]], [3, 4, 3], axis=1)
    np.testing.assert_array_equal(read(raw + b"\0\1"), PALETTE[np.repeat(numbers, HEIGHT, axis=0)])


def test_rows_from_the_top() -> None:
    """A negative height."""
    raw = bytearray(bmp(40, 24, rows_of(bgr(COLOURS[::-1])), WIDTH))
    raw[22:26] = struct.pack("<i", -HEIGHT)
    np.testing.assert_array_equal(read(bytes(raw)), COLOURS)


def test_facts() -> None:
    """Only what every reader reads alike is plain."""
    facts = bmp_facts(bmp(124, 24, rows_of(bgr(COLOURS)), WIDTH))
    assert (facts.height, facts.width, facts.bits, facts.head) == (HEIGHT, WIDTH, 24, 124)
    assert facts.plain
    for other in (bmp(12, 24, [b""], 1), bmp(40, 32, [b""], 1), bmp(40, 4, [b""], 1)):
        assert not bmp_facts(other).plain
    with pytest.raises(struct.error):
        bmp_facts(b"BM")
