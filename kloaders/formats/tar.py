"""Finds the members of tar files by their headers, without reading the members.

A tar file consists of blocks of 512 bytes: a header, then the member's content, padded to whole blocks
(POSIX.1-1988 "ustar", POSIX.1-2001 "pax", and GNU's records for long names).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats import sidecar_index
from kloaders.formats.compressed import compression_of
from kloaders.formats.errors import DecodeError, empty_file
from kloaders.formats.ranges import RangeFiles

__all__ = ["TarIndex", "tar_index"]

_BLOCK = 512
# Headers of small members are close together: read this many bytes at a time.
_CHUNK = 1 << 16
# The types of members that are files with content.
_FILES = (b"\0", b"0", b"7")


@dataclass(frozen=True)
class TarIndex:
    """The members of one tar file, in order.

    Attributes:
        names: the names of the members.
        offsets: where the content of each member begins.
        sizes: the size of each member in bytes.
    """

    names: list[str]
    offsets: Array
    sizes: Array


# magic, size and time of the tar file, number of members, size of the compressed body, digest of the
# tar file's ends, checksum of the body, checksum of this header
_HEAD = struct.Struct("<8sQqQQ16sII")
_MAGIC = b"KLTARID1"


def tar_index(files: RangeFiles, file: int, folder: str | None) -> TarIndex:
    """The index of a tar file: read if a valid one exists, otherwise built and stored.

    Args:
        files: tar files.
        file: the number of the file.
        folder: the folder for indexes; None: next to the file, or in the user's cache folder.

    Raises:
        DecodeError: the file is empty, compressed, not a tar file, or damaged between two members.
    """
    size, modified = files.stamps[file]
    if not size:
        raise empty_file(files.paths[file])
    ends = _ends(files, file, size)
    key = (size, modified, ends)
    places = sidecar_index.places(f"{files.paths[file]}.members", folder)
    for place in places:
        found = _loaded(place, key)
        if found is not None:
            return found
    members = list(_members(files, file))
    index = TarIndex(
        [name for name, _, _ in members],
        np.array([offset for _, offset, _ in members], np.int64),
        np.array([length for _, _, length in members], np.int64),
    )
    _save(index, key, places)
    return index


def _ends(files: RangeFiles, file: int, size: int) -> bytes:
    """A digest of the first and the last block, which identifies a file; for an object, its ETag."""
    if etag := files.opener.etag(files.paths[file]):
        return hashlib.blake2b(etag.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    length = min(_BLOCK, size)
    both = files.read(file, 0, length) + files.read(file, size - length, length)
    return hashlib.blake2b(both, digest_size=16).digest()


def _save(index: TarIndex, key: tuple[int, int, bytes], places: list[str]) -> None:
    names = b"\0".join(os.fsencode(name) for name in index.names)
    tables = index.offsets.astype("<i8").tobytes() + index.sizes.astype("<i8").tobytes()
    body = zlib.compress(tables + names, 1)
    size, modified, ends = key
    fields = (_MAGIC, size, modified, len(index.names), len(body), ends, zlib.crc32(body))
    head = _HEAD.pack(*fields, zlib.crc32(_HEAD.pack(*fields, 0)))
    sidecar_index.keep(head + body, places)


def _loaded(place: str, key: tuple[int, int, bytes]) -> TarIndex | None:
    try:
        raw = Path(place).read_bytes()
    except OSError:
        return None
    if len(raw) < _HEAD.size:
        return None
    *fields, head_sum = _HEAD.unpack(raw[: _HEAD.size])
    magic, size, modified, count, length, ends, body_sum = fields
    body = raw[_HEAD.size :]
    if (
        magic != _MAGIC
        or zlib.crc32(_HEAD.pack(*fields, 0)) != head_sum
        or (size, modified, ends) != key
        or len(body) != length
        or zlib.crc32(body) != body_sum
    ):
        return None
    try:
        content = zlib.decompress(body)
    except zlib.error:
        return None
    if len(content) < 16 * count:
        return None
    tables = np.frombuffer(content, "<i8", 2 * count).astype(np.int64)
    names = [os.fsdecode(name) for name in content[16 * count :].split(b"\0")] if count else []
    offsets, sizes = tables[:count], tables[count:]
    possible = (offsets >= 0) & (sizes >= 0)
    return TarIndex(names, offsets, sizes) if len(names) == count and possible.all() else None


# ------------------------------------------------------------------------------------- headers


class _Headers:
    """Blocks of a file, which is read in larger chunks."""

    def __init__(self, files: RangeFiles, file: int) -> None:
        self._read = files.reader(file)
        self.size = files.size(file)
        self._start, self._chunk = 0, b""

    def block(self, at: int) -> bytes:
        """The block at an offset; shorter at the end of the file."""
        if not self._start <= at <= self._start + len(self._chunk) - _BLOCK:
            self._start = at
            length = min(_CHUNK, max(0, self.size - at))
            self._chunk = self._read(at, length)
        return self._chunk[at - self._start : at - self._start + _BLOCK]


def _members(files: RangeFiles, file: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each member that is a file."""
    path, headers = files.paths[file], _Headers(files, file)
    at, more, general = 0, _More(), dict[str, str]()
    while at < headers.size:
        block = headers.block(at)
        if not any(block):  # the end of the archive, or padding of a record
            return
        _check_header(block, at, path)
        kind, length, content = block[156:157], _number(block[124:136]), at + _BLOCK
        if kind in b"xgLK":  # applies to the next member, or to all following members
            raw = files.read(file, content, length)
            if kind == b"L":
                more.name = os.fsdecode(raw.rstrip(b"\0"))
            elif kind == b"x":
                more.fields = _pax(raw)
            elif kind == b"g":
                general |= _pax(raw)
        else:
            fields = general | more.fields
            if kind == b"S" or any(key.startswith("GNU.sparse") for key in fields):
                raise DecodeError(
                    f"{path} contains a sparse member at byte {at}, whose content is not contiguous: "
                    "unpack it and pack it again with tar -cf, without --sparse."
                )
            length = int(fields.get("size", length))
            if kind in _FILES:
                yield more.name or fields.get("path") or _name(block), content, length
            elif kind in b"123456":  # links, devices and folders have no content
                length = 0
            more = _More()
        at = content + -(-length // _BLOCK) * _BLOCK


class _More:
    """What the records before a member's header say about the member."""

    def __init__(self) -> None:
        self.name = ""
        self.fields: dict[str, str] = {}


def _check_header(block: bytes, at: int, path: str) -> None:
    stored = block[148:156]
    if len(block) == _BLOCK:
        try:
            whole = sum(block) - sum(stored) + 8 * 32 == _number(stored)
        except ValueError:
            whole = False
        if whole:
            return
    compressed = compression_of(block) if at == 0 else None
    if compressed is not None:
        raise DecodeError(
            f"{path} is compressed ({compressed}): reading any member would require decompressing "
            f"everything before it. Decompress it once: {_DECOMPRESS[compressed]} {path}. "
            "Images become no smaller by compression."
        )
    if at == 0:
        raise DecodeError(f"{path} is not a tar file: it begins with {block[:12]!r:.80}.")
    raise DecodeError(
        f"{path} is damaged or cut short: at byte {at} there should be the header of a member. "
        "Copy or download it again, or leave the file out."
    )


_DECOMPRESS = {
    "gzip": "gunzip -k",
    "bzip2": "bunzip2 -k",
    "xz": "unxz -k",
    "zstd": "zstd -d",
    "zip": "unzip",
}


def _number(field: bytes) -> int:
    """A number in octal notation, or in binary if it is large."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return os.fsdecode(name)


def _pax(raw: bytes) -> dict[str, str]:
    """Records of a length, a key and a value, one per line."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(raw):
        length = int(raw[at : raw.index(b" ", at)])
        key, _, value = raw[at : at + length - 1].split(b" ", 1)[1].partition(b"=")
        found[key.decode("utf-8", "replace")] = os.fsdecode(value)
        at += max(1, length)
    return found
