"""Reads the array of an .npz file, with limits that keep a small archive from filling the memory."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from typing import IO

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.npy_layout import (
    HEADER_LIMIT,
    filled,
    layout_of,
    read_fully,
)

__all__ = [
    "ZIP_ERRORS",
    "check_member",
    "read_npz",
]


# Errors of zipfile on damaged archives, found by changing random bytes. RuntimeError: the archive has
# a password. NotImplementedError: an unsupported compression.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)

_BLOCK = 1 << 20


def read_npz(
    file: str | IO[bytes],
    size: int,
    out: Array | None,
    max_bytes: int | None = None,
    name: str | None = None,
) -> Array:
    """The array of an archive of `size` bytes: a path, or its content, called `name` in messages.

    max_bytes: the maximum size of the array. See `read_array`.
    """
    path = name or str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) != 1:
                keys = ", ".join(repr(info.filename[:-4]) for info in members[:20])
                raise DecodeError(
                    f"{path} holds {len(members)} arrays: {keys or 'none'}, expected one. "
                    'Override load_sample(path) to choose, as in return np.load(path)["x"].'
                )
            member = members[0]
            check_member(member, size, path)
            if max_bytes is not None and member.file_size > max_bytes:
                raise DecodeError(
                    f"{path} holds an array of {member.file_size:,} bytes, but max_bytes allows "
                    f"{max_bytes:,}. Pass max_bytes={member.file_size} if you trust it."
                )
            with archive.open(member) as stream:
                head = stream.read(HEADER_LIMIT)
                layout = layout_of(head, member.file_size, path)
                begun = head[len(layout.header) :][: layout.body_size]

                def fill(body: memoryview) -> None:
                    body[: len(begun)] = begun
                    # Block by block, because zipfile returns bytes objects, which are copied.
                    for start in range(len(begun), len(body), _BLOCK):
                        read_fully(stream, body[start : start + _BLOCK], path)
                    while stream.read(1 << 16):  # the checksum is compared only at the end
                        pass

                return filled(layout, fill, out, path)
    except DecodeError:
        raise
    except (*ZIP_ERRORS, OSError) as error:
        # Because of a damaged offset, zipfile seeks to before the file's start.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DecodeError(
            f"{path} is not a valid zip archive, or damaged ({error}). "
            "Write it again with np.savez, or leave it out."
        ) from error


def check_member(member: zipfile.ZipInfo, size: int, path: str) -> None:
    # Deflate expands at most 1032 times, so a few bytes cannot claim a terabyte.
    possible = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}.get(member.compress_type)
    if possible is None:
        raise DecodeError(
            f"{path} is compressed with method {member.compress_type}, expected what np.savez "
            "writes. Write it again with np.savez_compressed."
        )
    if member.compress_size > size or member.file_size > possible * member.compress_size:
        raise DecodeError(
            f"{path} claims {member.file_size} bytes for {member.filename}, more than its "
            f"{size} bytes can hold. Write it again with np.savez, or leave it out."
        )
