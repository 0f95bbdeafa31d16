"""CRC-32C, the checksum of TFRecord files: in hardware by google-crc32c, else by NumPy.

The polynomial is Castagnoli's, as in RFC 3720, appendix B.4 (which has test vectors) and section
12.1; `mask` is TensorFlow's (tensorflow/core/lib/hash/crc32c.h), which keeps the checksum of data
that hold checksums from being a constant.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["HARDWARE", "crc32c", "mask", "mask_all", "of_rows"]

# Of uint32; types for NumPy say less than it does when one is shifted.
Words = np.ndarray[Any, Any]

_POLYNOMIAL = 0x82F63B78  # bits reversed: the lowest bit is the highest power
_MASK_DELTA = 0xA282EAD8
# Below this, a loop over the bytes is quicker than NumPy's calls.
_SMALL = 48


def _table() -> Words:
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (table & 1).astype(bool)
        table = table >> 1
        table[odd] ^= _POLYNOMIAL
    return table


_TABLE = _table()
_LIST: list[int] = _TABLE.tolist()


def mask(crc: int) -> int:
    """A checksum as it is stored: rotated right by 15 bits, and a constant added."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def mask_all(crcs: Words) -> Words:
    """`mask` of every element."""
    return ((crcs >> 15) | (crcs << 17)) + np.uint32(_MASK_DELTA)


def of_rows(rows: np.ndarray[Any, np.dtype[np.uint8]]) -> Words:
    """The checksum of each row of a (rows, bytes) array; for short rows, a step a byte."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in range(rows.shape[1]):
        crc = _TABLE[(crc ^ rows[:, column]) & 0xFF] ^ (crc >> 8)
    return crc ^ np.uint32(0xFFFFFFFF)


# ------------------------------------------------------------------------------- without hardware
#
# The state of a CRC after some bytes is linear over GF(2) in those bytes and the state before. So
# two halves of the data can be worked on at once: the state of the whole is that of the left half,
# advanced over as many zero bytes as the right half has, plus (exclusive or) that of the right.


@lru_cache(maxsize=64)
def _advance(log: int) -> Words:
    """Tables (4, 256), one for each byte of a state, that advance it over 2**log zero bytes."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if log == 0:
        columns = _TABLE[bits & 0xFF] ^ (bits >> 8)
    else:
        columns = _apply(_advance(log - 1), _apply(_advance(log - 1), bits))
    tables = np.zeros((4, 256), np.uint32)
    for place in range(4):
        for bit in range(8):
            with_bit = (np.arange(256) >> bit & 1).astype(bool)
            tables[place, with_bit] ^= columns[8 * place + bit]
    return tables


def _apply(tables: Words, states: Words) -> Words:
    advanced: Words = tables[0][states & 0xFF] ^ tables[1][states >> 8 & 0xFF]
    advanced ^= tables[2][states >> 16 & 0xFF]
    advanced ^= tables[3][states >> 24]
    return advanced


def _advanced(state: int, size: int) -> int:
    """A state after `size` zero bytes."""
    states = np.array([state], np.uint32)
    log = 0
    while size:
        if size & 1:
            states = _apply(_advance(log), states)
        size >>= 1
        log += 1
    return int(states[0])


def _in_numpy(crc: int, data: Any) -> int:
    """`crc32c` in NumPy: a tree over the words of the data, about 200 MB/s."""
    content = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    content = content.reshape(-1).view(np.uint8)
    size = len(content)
    state = crc ^ 0xFFFFFFFF
    if size < _SMALL:
        for byte in content.tolist():
            state = _LIST[(state ^ byte) & 0xFF] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    # Zeros in front of the data leave a state of zero as it is.
    padded = np.zeros(-(-size // 4) * 4, np.uint8)
    padded[len(padded) - size :] = content
    words = padded.view("<u4")
    log = 2
    while len(words) > 1:
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, np.uint32), words])
        words = _apply(_advance(log), words[::2]) ^ words[1::2]
        log += 1
    last = int(_apply(_advance(2), words)[0])
    return last ^ _advanced(state, size) ^ 0xFFFFFFFF


def _best() -> tuple[Callable[[int, Any], int], bool]:
    try:
        google = importlib.import_module("google_crc32c")
    except ImportError:
        return _in_numpy, False
    if google.implementation != "c":  # its own fallback, which is a loop over bytes
        return _in_numpy, False
    extend: Callable[[int, Any], int] = google.extend
    return extend, True


_extend, HARDWARE = _best()


def crc32c(data: Any, crc: int = 0) -> int:
    """The checksum of bytes, or of a C-contiguous NumPy array; `crc` is that of what is before.

    >>> hex(crc32c(bytes(32)))
    '0x8a9136aa'
    >>> crc32c(b"56789", crc32c(b"1234")) == crc32c(b"123456789") == 0xE3069283
    True
    """
    return _extend(crc, data)
