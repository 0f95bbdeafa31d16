"""CRC-32C, the checksum of TFRecord files, computed by google-crc32c.

The polynomial is Castagnoli's, as in RFC 3720, appendix B.4 (which has test vectors) and section
12.1. `mask` is TensorFlow's (tensorflow/core/lib/hash/crc32c.h); without it, the checksum of data that
contain their own checksum would be constant.
"""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np

from kloaders.core.arrays import Array

__all__ = ["HARDWARE", "crc32c", "mask", "mask_all", "of_rows"]

#: Whether the library computes checksums in C; without a wheel it does so byte by byte in Python.
HARDWARE: bool = google_crc32c.implementation == "c"

_POLYNOMIAL = 0x82F63B78  # reversed: the lowest bit is the highest power
_MASK_DELTA = 0xA282EAD8


def crc32c(data: Any, crc: int = 0) -> int:
    """The checksum of bytes or of a C-contiguous NumPy array; `crc` is that of the preceding data.

    >>> hex(crc32c(bytes(32)))
    '0x8a9136aa'
    >>> crc32c(b"56789", crc32c(b"1234")) == crc32c(b"123456789") == 0xE3069283
    True
    """
    # The library's Python version iterates over bytes, which a two-dimensional array does not yield.
    found: int = google_crc32c.extend(crc, data if HARDWARE else bytes(data))
    return found


def mask(crc: int) -> int:
    """A checksum as it is stored: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def mask_all(crcs: Array) -> Array:
    """`mask` of every element of an array of uint32."""
    masked: Array = ((crcs >> 15) | (crcs << 17)) + np.uint32(_MASK_DELTA)
    return masked


def _table() -> Array:
    table: Array = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (table & 1).astype(bool)
        table = table >> 1
        table[odd] ^= _POLYNOMIAL
    return table


_TABLE = _table()


def of_rows(rows: Array) -> Array:
    """The checksum of each row of a uint8 array of shape (rows, bytes), for rows of a few bytes.

    The library has no call for many rows: for the 8 bytes of a record's length it takes ten times as
    long, and building an index checks the headers of all records.
    """
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in range(rows.shape[1]):
        crc = _TABLE[(crc ^ rows[:, column]) & 0xFF] ^ (crc >> 8)
    return crc ^ np.uint32(0xFFFFFFFF)
