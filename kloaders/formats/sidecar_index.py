"""Index files, which store the positions of another file's records or lines."""

from __future__ import annotations

import hashlib
import os
import struct
import urllib.parse
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn
from kloaders.formats.atomic import remove_leftovers, whole_file
from kloaders.formats.files import OpenFile, open_to_read
from kloaders.places.urls import is_url

__all__ = [
    "COMPRESSIONS",
    "Index",
    "digest_of_ends",
    "is_index",
    "keep",
    "load",
    "places",
    "save",
    "save_index",
]

COMPRESSIONS = ("", "GZIP", "ZLIB")


@dataclass(frozen=True)
class Index:
    """The positions of a file's records, and what identifies that file.

    offsets: where each record begins, and where the last one ends; for a compressed file, in the
        decompressed content. Data between two offsets may be damaged.
    compression: "", "GZIP" or "ZLIB".
    size, modified: the file's size in bytes and modification time in nanoseconds.
    ends: a digest of the file's first and last bytes.
    """

    offsets: Array
    compression: str
    size: int
    modified: int
    ends: bytes

    def __len__(self) -> int:
        return len(self.offsets) - 1


_MAGIC = b"KLTFIDX1"

# magic, size and time of the data file, number of records, bytes per offset, compression, digest of
# the data file's ends, checksums of the offsets and of this header
_INDEX = struct.Struct("<8sQqQBB2x16sII")
_INDEX_SUFFIX = ".index"

# The maximum length of an object's name within the name of its index.
_SHOWN = 100
# The number of bytes at each end of a data file that identify it.
_ENDS = 64


def is_index(path: str) -> bool:
    """Whether a file has the name of an index: `.NAME.index`."""
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_INDEX_SUFFIX)


def save_index(path: str, offsets: Array, compression: str = "") -> None:
    """Store the index of a file that was just written, so that its offsets are known."""
    file = OpenFile(path)
    status = os.fstat(file.number)
    ends = digest_of_ends(file, status.st_size)
    save(Index(offsets, compression, status.st_size, status.st_mtime_ns, ends), places(path, None))


def places(path: str, folder: str | None) -> list[str]:
    """The paths where an index may be, the preferred one first."""
    remote = is_url(path)
    where = path if remote else os.path.abspath(path)
    beside, name = os.path.split(where)
    if remote:
        name = urllib.parse.quote(name[-_SHOWN:], safe=".")[-_SHOWN:]
    # In a common folder, a digest of the data files' folders distinguishes files of the same name.
    digest = hashlib.blake2b(os.fsencode(where if remote else beside), digest_size=8).hexdigest()
    shared = f"{digest}-{name}{_INDEX_SUFFIX}"
    if folder is not None:
        return [os.path.join(folder, shared)]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    in_cache = os.path.join(cache, "kloaders", "indexes", shared)
    return [in_cache] if remote else [os.path.join(beside, f".{name}{_INDEX_SUFFIX}"), in_cache]


def digest_of_ends(file: Any, size: int) -> bytes:
    """A digest of a file's first and last bytes, which identifies it; for an object, its ETag."""
    if etag := getattr(file, "etag", ""):
        return hashlib.blake2b(etag.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    both = file.read(_ENDS, 0) + file.read(_ENDS, max(0, size - _ENDS))
    return hashlib.blake2b(both, digest_size=16).digest()


def save(index: Index, paths: list[str]) -> None:
    """Write an index to the first of these paths that is writable; log a message if none is."""
    small = index.offsets[-1] < 2**32
    body = index.offsets.astype("<u4" if small else "<u8").tobytes()
    fields: tuple[Any, ...] = (
        _MAGIC, index.size, index.modified, len(index), 4 if small else 8,
        COMPRESSIONS.index(index.compression), index.ends, zlib.crc32(body),
    )  # fmt: skip
    head = _INDEX.pack(*fields, 0)
    head = _INDEX.pack(*fields, zlib.crc32(head))
    keep(head + body, paths)


def keep(content: bytes, paths: list[str]) -> None:
    """Write an index, as bytes, to the first of these paths that is writable; log if none is."""
    problem: OSError | None = None
    for place in paths:
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            # Without waiting for the disk, which for a thousand files would happen 2,000 times.
            with whole_file(place, on_disk=False) as file:
                file.write(content)
        except OSError as error:
            problem = problem or error
        else:
            return
    warn(
        f"the index of a file cannot be stored ({problem}), and will be made again each time: pass "
        "index_folder=, a writable folder.",
        once="index not kept",
    )


# Deflate's maximum expansion.
_MOST_INFLATED = 1032


def load(
    place: str, size: int, modified: int, ends: bytes, most: int | None = None
) -> Index | None:
    """The index at `place`; None if it does not exist or is not valid for this file.

    most: the upper bound of offsets, if it is not the size of the file.
    """
    try:
        with open(place, "rb", opener=open_to_read) as file:
            raw = file.read()
    except OSError:
        return None
    if len(raw) < _INDEX.size:
        return None
    head, body = raw[: _INDEX.size], memoryview(raw)[_INDEX.size :]
    magic, of_size, of_time, count, width, kind, of_ends, body_sum, head_sum = _INDEX.unpack(head)
    if (
        magic != _MAGIC
        or zlib.crc32(head[:-4] + bytes(4)) != head_sum
        or (of_size, of_time, of_ends) != (size, modified, ends)
        or width not in (4, 8)
        or kind >= len(COMPRESSIONS)
        or len(body) != (count + 1) * width
        or zlib.crc32(body) != body_sum
    ):
        return None
    offsets = np.frombuffer(body, f"<u{width}")
    # Checksums detect accidents, but anyone can compute them: offsets must be plausible as well.
    content = most or (size * _MOST_INFLATED if kind else size)
    in_order = offsets[0] == 0 and bool((offsets[1:] >= offsets[:-1]).all())
    if not in_order or int(offsets[-1]) > content:
        return None
    remove_leftovers(place)  # of a process that was killed while it wrote this index
    return Index(offsets, COMPRESSIONS[kind], size, modified, ends)
