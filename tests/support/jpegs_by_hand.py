"""JPEGs with any sampling factors, which the usual encoders do not write."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

# The Huffman codes for the size of a block's difference from the previous one; see `_DC_TABLE`.
_SIZES = ("00", "010", "011", "100", "101", "110", "1110", "11110", "111110")
_DC_TABLE = bytes([0, 1, 5, 1, 1, 1, *[0] * 10, *range(9)])
# The only code, "0", ends a block.
_AC_TABLE = bytes([1, *[0] * 15, 0])


def jpeg_of_blocks(
    height: int,
    width: int,
    sampling: Sequence[tuple[int, int]],
    seed: int = 0,
    frame: int = 0xC0,
    bits: int = 8,
) -> bytes:
    """A JPEG whose blocks have one random value each.

    sampling: the horizontal and the vertical factor of each component.
    frame: the marker of the frame; c0 is baseline.
    bits: the precision that the frame claims.
    """
    draw = np.random.default_rng(seed)
    across = 8 * max(h for h, _ in sampling)
    down = 8 * max(v for _, v in sampling)
    last, codes = [0] * len(sampling), []
    for _ in range(-(-height // down) * -(-width // across)):
        for k, (h, v) in enumerate(sampling):
            for value in draw.integers(-100, 100, h * v).tolist():
                step, last[k] = value - last[k], value
                size = abs(step).bit_length()
                number = step if step > 0 else step + (1 << size) - 1
                codes.append(_SIZES[size] + (f"{number:0{size}b}" if size else "") + "0")
    coded = "".join(codes)
    coded += "1" * (-len(coded) % 8)
    data = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    numbers = range(1, len(sampling) + 1)
    parts = b"".join(bytes([n, h << 4 | v, 0]) for n, (h, v) in zip(numbers, sampling, strict=True))
    tables = b"".join(bytes([n, 0]) for n in numbers)
    return (
        b"\xff\xd8"
        + segment(0xDB, bytes([0, *[8] * 64]))
        + segment(frame, struct.pack(">BHHB", bits, height, width, len(sampling)) + parts)
        + segment(0xC4, b"\0" + _DC_TABLE)
        + segment(0xC4, b"\x10" + _AC_TABLE)
        + segment(0xDA, bytes([len(sampling)]) + tables + bytes([0, 63, 0]))
        + data
        + b"\xff\xd9"
    )
