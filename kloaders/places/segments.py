"""The segments of a download cache: files of entries, locked while a process uses them.

This module does not know which object an entry belongs to.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows: processes do not wait for each other
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "HEAD_BYTES",
    "MARKER",
    "SUFFIX",
    "At",
    "Segment",
    "append",
    "clear",
    "content_of",
    "damaged_in",
    "delete_unused",
    "entries",
    "entry_of",
    "lock_shared",
    "read_all",
    "segments_of",
]

#: The file that marks a folder as a download cache.
MARKER = "kloaders-download-cache"
SUFFIX = ".objects"
_MAGIC = b"KLO1"
# Magic, key of the URL, sizes of the ETag and of the content, checksum of both; then a checksum of these.
_HEAD = struct.Struct("<4s16sIQI")
_SUM = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _SUM.size


class At(NamedTuple):
    """The position of an entry, and the version and size of its content."""

    segment: str
    offset: int
    etag: str
    size: int


def entry_of(key: bytes, etag: str, data: bytes) -> bytes:
    """An entry as it is written to a segment."""
    tag = etag.encode()
    head = _HEAD.pack(_MAGIC, key, len(tag), len(data), zlib.crc32(data, zlib.crc32(tag)))
    return head + _SUM.pack(zlib.crc32(head)) + tag + data


def content_of(file: int, at: At, key: bytes | None = None) -> bytes | None:
    """The content of an entry, after checking its checksum and key; None if it is damaged."""
    tag = at.etag.encode()
    raw = read_all(file, HEAD_BYTES + len(tag) + at.size, at.offset)
    if len(raw) != HEAD_BYTES + len(tag) + at.size:
        return None
    body = raw[len(raw) - at.size :]
    _, stored, _, _, checksum = _HEAD.unpack_from(raw)
    right = key in (None, stored) and zlib.crc32(body, zlib.crc32(tag)) == checksum
    return body if right else None


def append(file: int, entry: bytes, offset: int) -> None:
    """Write an entry, of any size, completely or not at all."""
    left = memoryview(entry)
    try:
        while left:
            left = left[os.pwrite(file, left, offset + len(entry) - len(left)) :]
    except OSError:
        os.ftruncate(file, offset)
        raise


def read_all(file: int, size: int, offset: int) -> bytes:
    """Read `size` bytes, fewer at the end; a system call reads at most 2 GiB."""
    data = os.pread(file, size, offset)
    while len(data) < size and (more := os.pread(file, size - len(data), offset + len(data))):
        data += more
    return data


def lock_shared(file: int) -> None:
    """Mark a segment as used, for as long as it is open."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def delete_unused(path: str) -> bool:
    """Delete a segment unless a process has it open; return whether it was deleted."""
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_size and os.pread(file, len(_MAGIC), 0) != _MAGIC:
            return False  # a file of another kind with such a name
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def entries(file: int, segment: str, start: int) -> Iterator[tuple[bytes, At]]:
    """Keys and positions of a segment's entries, up to the first incomplete or damaged one."""
    size, at = os.fstat(file).st_size, start
    while at + HEAD_BYTES <= size:
        head = os.pread(file, HEAD_BYTES, at)
        if len(head) < HEAD_BYTES or not head.startswith(_MAGIC):
            return
        if zlib.crc32(head[: _HEAD.size]) != _SUM.unpack_from(head, _HEAD.size)[0]:
            return
        _, key, tag, length, _ = _HEAD.unpack_from(head)
        end = at + HEAD_BYTES + tag + length
        if end > size:
            return
        etag = os.pread(file, tag, at + HEAD_BYTES).decode("utf-8", "replace")
        yield key, At(segment, at, etag, length)
        at = end


class Segment(NamedTuple):
    """A file of a download cache.

    Attributes:
        name: its name in the folder.
        size: its size in bytes.
        used: when it was last written, in seconds since 1970.
        data: the data set for which it was written.
    """

    name: str
    size: int
    used: float
    data: str


def segments_of(folder: str) -> list[Segment]:
    """The segments of a download cache; empty if the folder is not one."""
    found = []
    if not os.path.exists(os.path.join(folder, MARKER)):
        return []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):  # it was deleted meanwhile
                    about = entry.stat()
                    data = entry.name.partition("-")[0]
                    found.append(Segment(entry.name, about.st_size, about.st_mtime, data))
    return found


def damaged_in(folder: str, segment: Segment) -> tuple[int, int]:
    """The number of intact objects in a segment, and of damaged ones."""
    whole = damaged = 0
    file = os.open(os.path.join(folder, segment.name), os.O_RDONLY)
    try:
        for _, at in entries(file, segment.name, 0):
            right = content_of(file, at) is not None
            whole, damaged = whole + right, damaged + (not right)
    finally:
        os.close(file)
    return whole, damaged


def clear(folder: str) -> tuple[int, int]:
    """Delete the segments that no process uses; return the bytes freed, and the bytes that remain."""
    gone = stay = 0
    for segment in segments_of(folder):
        if delete_unused(os.path.join(folder, segment.name)):
            gone += segment.size
        else:
            stay += segment.size
    return gone, stay
