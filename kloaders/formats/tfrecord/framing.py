"""The frame of a TFRecord: its length, its data, and a checksum of each.

A file is records, one after another: length (uint64), masked CRC-32C of the length, data, masked
CRC-32C of the data, all little-endian. The format is described in TensorFlow's tutorial "TFRecord
and tf.train.Example" and in tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import struct

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.tfrecord.crc32c import crc32c, mask, mask_all, of_rows

__all__ = [
    "EMPTY_HEADER",
    "FOOTER",
    "HEADER",
    "LENGTH",
    "count_good_headers",
    "data_matches",
    "framed",
    "headers_are_right",
    "is_header",
    "length_of",
]


# The sizes of the frame before and after the data of a record.
HEADER, FOOTER = 12, 4
LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<QI")


def framed(data: bytes) -> bytes:
    """A record as stored in the file."""
    length = LENGTH.pack(len(data))
    head = length + _CHECKSUM.pack(mask(crc32c(length)))
    return b"".join((head, data, _CHECKSUM.pack(mask(crc32c(data)))))


def is_header(head: bytes) -> bool:
    """Whether bytes are a length and its correct checksum, as at the start of a record."""
    return len(head) == HEADER and head[8:] == _CHECKSUM.pack(mask(crc32c(head[:8])))


def length_of(head: bytes) -> int:
    """The size of a record's data, according to its header."""
    return int(_FRAME.unpack(head)[0])


def headers_are_right(rows: Array) -> Array:
    """For each row of 12 bytes, whether it is a length and its correct checksum."""
    stored = np.ascontiguousarray(rows[:, 8:]).view("<u4")[:, 0]
    right: Array = mask_all(of_rows(rows[:, :8])) == stored
    return right


def count_good_headers(heads: list[bytes]) -> int:
    """The number of headers with a correct checksum before the first incorrect one."""
    if not heads:
        return 0
    table = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, HEADER)
    wrong = np.flatnonzero(~headers_are_right(table))
    return int(wrong[0]) if len(wrong) else len(heads)


# The header of a record without data.
EMPTY_HEADER = framed(b"")[:HEADER]


def data_matches(raw: bytes) -> bool:
    """Whether the data of a record with its frame match their checksum."""
    data = np.frombuffer(raw, np.uint8)[HEADER:-FOOTER]  # slicing bytes would copy them
    return raw[-FOOTER:] == _CHECKSUM.pack(mask(crc32c(data)))
