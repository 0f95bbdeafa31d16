"""The .npy files of a pack: headers, sizes, and checksums."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.messages import visible
from kloaders.formats.files import open_to_read
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.pack import MANIFEST, File, Shard, files_of, path_in
from kloaders.places.download_cache import BLOCK_BYTES
from kloaders.places.ranges import RangeUrls
from kloaders.places.urls import is_url

__all__ = [
    "HEADER_BYTES",
    "Piece",
    "check_file",
    "check_files",
    "crc_of_piece",
    "header_of",
    "pieces_of",
    "size_of",
    "stored_dtype",
]

# Magic, version, length and text of an .npy header; it is written last, so its length is fixed.
HEADER_BYTES = 256


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that np.load shows: bfloat16 and similar dtypes appear as integers of their size."""
    return dtype if dtype.kind in "biufc" else np.dtype(f"u{dtype.itemsize}")


def header_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes | None:
    """The header of an .npy file, with a fixed length; None if the shape does not fit."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    room = HEADER_BYTES - 10 - 1
    if len(text) > room:
        return None
    body = text.ljust(room) + "\n"
    return b"\x93NUMPY\1\0" + len(body).to_bytes(2, "little") + body.encode("ascii")


def check_files(
    folder: str, shards: Iterable[Shard], dtypes: list[np.dtype[Any]], opener: Opener = LOCAL
) -> None:
    """Check that each file exists, with the size and header that the manifest states."""
    for file, dtype in files_of(shards, dtypes).values():
        check_file(folder, file, dtype, opener)


def size_of(file: File, dtype: np.dtype[Any]) -> int:
    """The size in bytes of a file with its header."""
    return HEADER_BYTES + math.prod(file.shape) * dtype.itemsize


def check_file(folder: str, file: File, dtype: np.dtype[Any], opener: Opener = LOCAL) -> None:
    """Check that a file exists, with the size and header that the manifest states."""
    path = path_in(folder, file.name)
    # A manifest from an unknown source must not lead out of its folder.
    if not re.fullmatch(r"[A-Za-z0-9.-]+\.npy", file.name):
        raise ValueError(
            f"{visible(path_in(folder, MANIFEST))} names the file {file.name!r:.80}, expected the "
            "name of an .npy file in the same folder. Write the pack again."
        )
    again = "Restore it from an intact copy, or write the pack again."
    size = size_of(file, dtype)
    try:
        stream = opener.open(path)
        found, _ = stream.stamp()
        header = stream.read(HEADER_BYTES, 0)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{visible(path)} is missing, but {MANIFEST} names it. {again}"
        ) from None
    if found != size:
        raise ValueError(
            f"{visible(path)} has {found:,} bytes, but {MANIFEST} says {size:,}. {again}"
        )
    if header != header_of(file.shape, stored_dtype(dtype)):
        raise ValueError(
            f"{visible(path)} has another header than {MANIFEST} says: {dtype} of shape {file.shape}. "
            f"{again}"
        )


class Piece(NamedTuple):
    """What a checksum covers: all values of a file, or those of one shard in it.

    name: its readable name. begin, end: its bytes in the file.
    """

    path: str
    name: str
    begin: int
    end: int
    crc32: int


def pieces_of(folder: str, shards: Iterable[Shard], dtypes: list[np.dtype[Any]]) -> Iterator[Piece]:
    """Everything that has a checksum, file by file in the order of the shards."""
    for shard in shards:
        for part, dtype in zip(shard.parts, dtypes, strict=True):
            for file in part.files:
                path = path_in(folder, file.name)
                item = 8 if file is part.index else dtype.itemsize
                size = math.prod(file.shape) * item
                name, begin = path, HEADER_BYTES
                if file.first is not None:
                    begin += file.first * math.prod(file.shape[1:]) * item
                    last = file.first + file.shape[0] - 1
                    name = f"{path} (rows {file.first:,} to {last:,})"
                yield Piece(path, name, begin, begin + size, file.crc32)


def crc_of_piece(path: str, begin: int, end: int) -> int:
    """The CRC-32 of these bytes of a file, or of those that exist."""
    crc = 0
    if is_url(path):
        content = RangeUrls([path]).open(path)
        for start in range(begin, end, BLOCK_BYTES):
            crc = zlib.crc32(content.read(min(BLOCK_BYTES, end - start), start), crc)
        return crc
    block = bytearray(2**22)
    with open(path, "rb", opener=open_to_read) as file:
        file.seek(begin)
        while begin < end and (
            count := file.readinto(memoryview(block)[: min(len(block), end - begin)])
        ):
            crc = zlib.crc32(memoryview(block)[:count], crc)
            begin += count
    return crc
