"""TFRecord files: framing, checksums, and where each record lies. Not what is in a record.

A file is records, one after another: length (uint64), masked CRC-32C of the length, data, masked
CRC-32C of the data, all little-endian. The format is described in TensorFlow's tutorial "TFRecord
and tf.train.Example" and in tensorflow/core/lib/io/record_writer.h. It has no index: ours is a
file beside it (`index_of`).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import os
import stat
import struct
import threading
import time
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kloaders.convert.journal import whole_file
from kloaders.core import forks
from kloaders.core.messages import say
from kloaders.core.threads import usable_cores
from kloaders.formats.images import DecodeError
from kloaders.formats.positioned_reads import read_at
from kloaders.formats.tfrecord.crc32c import HARDWARE, crc32c, mask, mask_all, of_rows

__all__ = [
    "FOOTER",
    "HEADER",
    "Index",
    "RecordFiles",
    "framed",
    "index_of",
    "is_index",
    "save_index",
]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]

# Bytes before and after the data of a record.
HEADER, FOOTER = 12, 4
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<QI")

COMPRESSIONS = ("", "GZIP", "ZLIB")
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)


def framed(data: bytes) -> bytes:
    """A record as it lies in the file."""
    length = _LENGTH.pack(len(data))
    head = length + _CHECKSUM.pack(mask(crc32c(length)))
    return b"".join((head, data, _CHECKSUM.pack(mask(crc32c(data)))))


def _is_header(head: bytes) -> bool:
    """Whether these are a length and its checksum, as a record begins."""
    return len(head) == HEADER and head[8:] == _CHECKSUM.pack(mask(crc32c(head[:8])))


# --------------------------------------------------------------------------- reading at an offset


class _Open:
    """A file descriptor that is closed when nobody refers to it any more."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, path: str) -> None:
        self.number = os.open(path, _OPEN_FLAGS)
        # Not __del__, which may come when the interpreter has taken this module apart.
        weakref.finalize(self, os.close, self.number).atexit = False

    def read(self, size: int, offset: int) -> bytes:
        """At most `size` bytes; fewer at the end of the file."""
        if hasattr(os, "pread"):
            content = os.pread(self.number, size, offset)
            while 0 < len(content) < size:  # a signal, a network drive, or more than 2 GiB
                more = os.pread(self.number, size - len(content), offset + len(content))
                if not more:
                    break
                content += more
            return content
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: read_at(self.number, [buffer], offset, size)])


# ------------------------------------------------------------------------------------- the index


@dataclass(frozen=True)
class Index:
    """Where the records of one file lie, and which file that is.

    offsets: where each record begins, and where the last one ends; in the decompressed content
        where the file is compressed. What lies between two offsets may be damaged.
    compression: "", "GZIP" or "ZLIB".
    size, modified: of the file, in bytes and nanoseconds.
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
# magic, size and time of the data file, records, bytes an offset, compression, digest of the data
# file's ends, checksums of the offsets and of this header
_INDEX = struct.Struct("<8sQqQBB2x16sII")
_INDEX_SUFFIX = ".index"
# Of the data file that an index is for: as much as says that it is another one.
_ENDS = 64


def is_index(path: str) -> bool:
    """Whether a file is called like an index: `.NAME.index`."""
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_INDEX_SUFFIX)


def index_of(path: str, compression: str = "auto", folder: str | None = None) -> Index:
    """The index of a file: read where there is a valid one, else made and kept.

    It lies beside the file, as `.NAME.index`: shells' and Python's patterns leave out such names,
    so that nobody takes it for data. Where that folder cannot be written, it is kept in a folder of
    the user's (XDG_CACHE_HOME), or in memory only. Valid is an index that is whole and was made of
    a file with this size, modification time, beginning and end. Several processes may make one at
    a time.

    path: the file.
    compression: "", "GZIP", "ZLIB", or "auto", which looks at the first bytes.
    folder: where to keep the index instead.

    Raises:
        OSError: the file cannot be read.
        DecodeError: it is empty, no TFRecord, or compressed otherwise than said.
    """
    file = _Open(path)
    status = os.fstat(file.number)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            f"{path} is a folder, expected a TFRecord file: give a pattern, "
            f"{os.path.join(path, '*.tfrecord')!r}."
        )
    if status.st_size == 0:
        raise DecodeError(
            f"{path} is empty (0 bytes), expected a TFRecord file: leave it out, or write it again."
        )
    places = _places(path, folder)
    ends = _digest_of_ends(file, status.st_size)
    for place in places:
        found = _load(place, status.st_size, status.st_mtime_ns, ends)
        if found is not None and compression in ("auto", found.compression):
            return found
    kind = _compression(file, path, compression)
    offsets = _walk(file, status.st_size, path) if not kind else _walk_stream(path, kind)
    index = Index(offsets, kind, status.st_size, status.st_mtime_ns, ends)
    _save(index, places)
    return index


def save_index(path: str, offsets: Array, compression: str = "") -> None:
    """Keep the index of a file just written, whose offsets are known."""
    file = _Open(path)
    status = os.fstat(file.number)
    ends = _digest_of_ends(file, status.st_size)
    _save(
        Index(offsets, compression, status.st_size, status.st_mtime_ns, ends), _places(path, None)
    )


def _places(path: str, folder: str | None) -> list[str]:
    """Where an index may lie, the best place first."""
    where = os.path.abspath(path)
    beside, name = os.path.split(where)
    # In a folder for all of them, files of one name tell apart by a digest of their folder's.
    digest = hashlib.blake2b(os.fsencode(beside), digest_size=8).hexdigest()
    shared = f"{digest}-{name}{_INDEX_SUFFIX}"
    if folder is not None:
        return [os.path.join(folder, shared)]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [
        os.path.join(beside, f".{name}{_INDEX_SUFFIX}"),
        os.path.join(cache, "kloaders", "indexes", shared),
    ]


def _digest_of_ends(file: _Open, size: int) -> bytes:
    both = file.read(_ENDS, 0) + file.read(_ENDS, max(0, size - _ENDS))
    return hashlib.blake2b(both, digest_size=16).digest()


def _save(index: Index, places: list[str]) -> None:
    small = index.offsets[-1] < 2**32
    body = index.offsets.astype("<u4" if small else "<u8").tobytes()
    fields: tuple[Any, ...] = (
        _MAGIC, index.size, index.modified, len(index), 4 if small else 8,
        COMPRESSIONS.index(index.compression), index.ends, zlib.crc32(body),
    )  # fmt: skip
    head = _INDEX.pack(*fields, 0)
    head = _INDEX.pack(*fields, zlib.crc32(head))
    problem: OSError | None = None
    for place in places:
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with whole_file(place) as file:
                file.write(head + body)
        except OSError as error:
            problem = problem or error
        else:
            return
    say(
        f"the index of a file cannot be kept ({problem}), and is made anew every time: give "
        "index_folder=, a folder that can be written.",
        once="index not kept",
    )


# Deflate makes so many bytes of one at the most.
_MOST_INFLATED = 1032


def _load(
    place: str, size: int, modified: int, ends: bytes, most: int | None = None
) -> Index | None:
    """The index at `place`; None where there is none, or not a valid one of such a file.

    most: what no offset can be above, if that is not the size of the file.
    """
    try:
        raw = Path(place).read_bytes()
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
    # Sums keep out accidents, and anybody can compute them: offsets must be possible as well.
    content = most or (size * _MOST_INFLATED if kind else size)
    in_order = offsets[0] == 0 and bool((offsets[1:] >= offsets[:-1]).all())
    if not in_order or int(offsets[-1]) > content:
        return None
    return Index(offsets, COMPRESSIONS[kind], size, modified, ends)


def _compression(file: _Open, path: str, asked: str) -> str:
    """What the first bytes say, checked against what was asked for."""
    head = file.read(HEADER, 0)
    if _is_header(head):
        found = ""
    elif head[:2] == b"\x1f\x8b":
        found = "GZIP"
    # RFC 1950: method 8, and both bytes as one number a multiple of 31
    elif len(head) > 1 and head[0] & 0x8F == 8 and int.from_bytes(head[:2], "big") % 31 == 0:
        found = "ZLIB"
    else:
        found = ""
    if asked == "auto":
        return found
    # Two bytes of damaged plain data may look like ZLIB; gzip's magic, and a checksum, are no chance.
    if asked == "" and found == "GZIP":
        raise DecodeError(
            f"{path} is compressed (GZIP), expected a plain TFRecord file: pass "
            'compression="GZIP", or "auto".'
        )
    if asked and found != asked:
        said = found or (f"it begins with {head!r}" if not _is_header(head) else "plain")
        raise DecodeError(f'{path} is not compressed as {asked} ({said}): pass compression="auto".')
    return asked


# ------------------------------------------------------------------------- walking a plain file

# Headers are read in steps of so much where records are small, and one by one where they are large.
_STEP, _LARGE = 1 << 18, 1 << 15
# Headers whose checksums are compared in one go.
_CHECKED = 1 << 15
# How far a first record is looked for in a file that does not begin with one.
_SEARCHED = 1 << 26


def _walk(file: _Open, size: int, path: str) -> Array:
    """Offsets of a plain file: reads headers only, and checks the length's checksum of each.

    Behind a damaged length the next record is looked for, so that one record is lost and not the
    rest of the file. Takes about 0.5 us a record, or a read of 12 bytes where records are large.
    """
    found: list[Array] = []
    at = 0
    while at < size:
        offsets, end = _run(file, at, size)
        found.append(offsets)
        if end < size:  # not a record, or a damaged one
            after = _next_record(file, end, size, _SEARCHED if end == 0 else size)
            head = file.read(HEADER, end)
            if end == 0 and after == size and not (_is_header(head) or _data_is_whole(file, size)):
                raise DecodeError(
                    f"{path} is no TFRecord file: it begins with {head!r}, and no record was found "
                    "in it. For files that hold one sample each use PathSequenceLoader."
                )
            number = sum(map(len, found))
            say(
                f"{path}: record {number} at byte {end} is damaged in its length, or cut short; "
                f"the file is read on from byte {after}."
            )
            found.append(np.array([end], np.uint64))
            end = after
        at = end
    return np.concatenate([*found, np.array([size], np.uint64)])


def _run(file: _Open, at: int, size: int) -> tuple[Array, int]:
    """Offsets of the records from `at` on, and where the first one that is none begins."""
    whole: list[Array] = []
    starts: list[int] = []
    heads: list[bytes] = []
    unpack, step = _LENGTH.unpack_from, _STEP
    begun = at
    while True:
        ended = at + HEADER > size
        if not ended:
            chunk = file.read(step, at)
            base, first, end = at, len(starts), at + len(chunk)
            while at + HEADER <= end:
                inside = at - base
                starts.append(at)
                heads.append(chunk[inside : inside + HEADER])
                at += unpack(chunk, inside)[0] + HEADER + FOOTER
            step = HEADER if at - base > _LARGE * (len(starts) - first) else _STEP
            ended = end - base < HEADER  # the file is shorter than it was
        if ended or len(starts) >= _CHECKED:
            good = _good_headers(heads)
            if good and starts[good - 1] + _length(heads[good - 1]) + HEADER + FOOTER > size:
                good -= 1  # cut short
            whole.append(np.array(starts[:good], np.uint64))
            if good:
                begun = starts[good - 1] + _length(heads[good - 1]) + HEADER + FOOTER
            if ended or good < len(starts):
                return np.concatenate(whole), begun
            starts, heads = [], []


def _length(head: bytes) -> int:
    return int(_FRAME.unpack(head)[0])


def _good_headers(heads: list[bytes]) -> int:
    """How many are as their checksum says, before the first that is not."""
    if not heads:
        return 0
    table = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, HEADER)
    wrong = np.flatnonzero(~_headers_are_right(table))
    return int(wrong[0]) if len(wrong) else len(heads)


def _headers_are_right(rows: Array) -> Array:
    """For each row of 12 bytes, whether it is a length and its checksum."""
    stored = np.ascontiguousarray(rows[:, 8:]).view("<u4")[:, 0]
    right: Array = mask_all(of_rows(rows[:, :8])) == stored
    return right


def _lengths_before(head: bytes) -> list[int]:
    """Lengths that differ from this header's in one byte, and have its checksum."""
    rows = np.repeat(np.frombuffer(head, np.uint8)[None], 8 * 256, axis=0)
    for place in range(8):
        rows[256 * place : 256 * (place + 1), place] = np.arange(256)
    return [_length(row.tobytes()) for row in rows[_headers_are_right(rows)]]


# The header of a record without data.
_EMPTY = framed(b"")[:HEADER]


def _next_record(file: _Open, at: int, size: int, bound: int) -> int:
    """Where the record after the damaged one at `at` begins; `size` if there is none."""
    head = file.read(HEADER, at)
    # The length as it is, if only its checksum is damaged, or as it was before one byte changed.
    for length in [_length(head), *_lengths_before(head)] if len(head) == HEADER else []:
        after = at + length + HEADER + FOOTER
        if after == size or (after < size and _is_header(file.read(HEADER, after))):
            return after
    # A header may begin at any byte. Few numbers are a length that ends within the file, and of
    # these one in 2**32 has its checksum behind it by chance.
    step = 1 << 20
    last = min(size - HEADER - FOOTER, at + bound)
    for base in range(at + 1, last + 1, step):
        chunk = file.read(step + HEADER - 1, base)
        places = len(chunk) - HEADER + 1
        if places < 1:
            break
        lengths = np.ndarray((places,), "<u8", chunk, strides=(1,))
        room = np.uint64(size - base - HEADER - FOOTER)
        # Much data is zeros: records without data are looked for by their header instead.
        likely = np.flatnonzero((lengths <= room) & (lengths > 0))
        likely = likely[lengths[likely] + likely.astype(np.uint64) <= room]
        content = np.frombuffer(chunk, np.uint8)
        rows = content[likely[:, None] + np.arange(HEADER)]
        found = [base + int(likely[k]) for k in np.flatnonzero(_headers_are_right(rows))[:1]]
        empty = chunk.find(_EMPTY)
        if empty >= 0 and base + empty <= last:
            found.append(base + empty)
        if found:
            return min(found)
    return size


def _data_is_whole(file: _Open, size: int) -> bool:
    """Whether a file is one record whose header alone is damaged."""
    if not HEADER + FOOTER <= size <= _SEARCHED:
        return False
    return _data_matches(file.read(size, 0))


def _data_matches(raw: bytes) -> bool:
    data = np.frombuffer(raw, np.uint8)[HEADER:-FOOTER]  # a slice of bytes would be a copy
    return raw[-FOOTER:] == _CHECKSUM.pack(mask(crc32c(data)))


# ------------------------------------------------------------------------------ compressed files

_WINDOW_BITS = {"GZIP": 31, "ZLIB": 15}


class _Inflate:
    """The decompressed content of a file, front to back."""

    def __init__(self, path: str, compression: str) -> None:
        self.path, self.compression = path, compression
        self._file = _Open(path)
        self._read = 0
        self._inflate = zlib.decompressobj(_WINDOW_BITS[compression])
        self._ready = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        parts = []
        while size:
            if self._at == len(self._ready) and not self._more():
                break
            part = self._ready[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; how many there were."""
        left = size
        while left:
            if self._at == len(self._ready) and not self._more():
                break
            step = min(left, len(self._ready) - self._at)
            self._at += step
            left -= step
        return size - left

    def copy(self) -> _Inflate:
        """Another one that goes on from here."""
        new = copy.copy(self)
        new._inflate = self._inflate.copy()
        return new

    def _more(self) -> bool:
        while True:
            raw = self._inflate.unconsumed_tail
            if self._inflate.eof:
                raw = self._inflate.unused_data or self._file.read(1 << 18, self._read)
                if not self._inflate.unused_data:
                    self._read += len(raw)
                if not raw.strip(b"\0"):  # gzip allows zeros behind
                    return False
                # Several compressed streams, one after another, are one content.
                self._inflate = zlib.decompressobj(_WINDOW_BITS[self.compression])
            elif not raw:
                raw = self._file.read(1 << 18, self._read)
                self._read += len(raw)
                if not raw:
                    raise DecodeError(
                        f"{self.path} is truncated: its {self.compression} data end after "
                        f"{self._read} bytes, in the middle. Copy or write it again."
                    )
            try:
                self._ready, self._at = self._inflate.decompress(raw, 1 << 20), 0
            except zlib.error as error:
                raise DecodeError(
                    f"{self.path} is damaged: its {self.compression} data cannot be decompressed "
                    f"before byte {self._read} ({error}). Copy or write it again."
                ) from error
            if self._ready:
                return True


def _walk_stream(path: str, compression: str) -> Array:
    """Offsets of the records in the decompressed content: all of it is decompressed once."""
    stream = _Inflate(path, compression)
    offsets = [0]
    while head := stream.take(HEADER):
        at, number = offsets[-1], len(offsets) - 1
        if not _is_header(head):
            what = "a file of TFRecords" if number == 0 else "a whole record"
            raise DecodeError(
                f"{path}: record {number} at byte {at} of its decompressed content is not {what}: "
                f"it begins with {head!r}. Write the file again."
            )
        size = _length(head) + FOOTER
        if stream.skip(size) < size:
            raise DecodeError(
                f"{path}: record {number} at byte {at} of its decompressed content is cut short. "
                "Write the file again."
            )
        offsets.append(at + HEADER + size)
    return np.array(offsets, np.uint64)


# Decompressed content is kept in blocks of so many bytes, and so many of them: threads ask for
# neighbours in no strict order.
_BLOCK, _BLOCKS_KEPT = 4 << 20, 32
# Places in a file from which decompressing can go on.
_CURSORS = 8


class _Stream:
    """The records of a compressed file, by number: quick where asked for in about their order.

    Going back further than what is kept means to begin at the front again. Threads may share it.
    """

    def __init__(self, path: str, compression: str, offsets: Array) -> None:
        self.path, self.compression = path, compression
        self.offsets = offsets
        cuts = np.arange(0, int(offsets[-1]), _BLOCK)
        # Blocks begin at the records that hold these bytes.
        self.firsts = np.unique(np.searchsorted(offsets, cuts, side="right") - 1)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._cursors: OrderedDict[int, _Inflate] = OrderedDict()  # by the block that comes next
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """One record with its frame."""
        k = int(np.searchsorted(self.firsts, number, side="right")) - 1
        base = self._start(k)
        with self._lock:
            block = self._blocks.get(k)
            if block is None:
                block = self._decompressed(k)
        return block[int(self.offsets[number]) - base : int(self.offsets[number + 1]) - base]

    def _decompressed(self, k: int) -> bytes:
        at = max((place for place in self._cursors if place <= k), default=0)
        cursor = self._cursors.pop(at, None) or _Inflate(self.path, self.compression)
        if k - at > _BLOCKS_KEPT // 2:  # too far to keep what lies between, and it may be wanted
            self._cursors[at] = cursor.copy()
            cursor.skip(self._start(k) - self._start(at))
            at = k
        for number in range(at, k + 1):
            block = cursor.take(self._start(number + 1) - self._start(number))
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._cursors[k + 1] = cursor
        if len(self._cursors) > _CURSORS:
            self._cursors.popitem(last=False)
        return block

    def _start(self, block: int) -> int:
        record = self.firsts[block] if block < len(self.firsts) else len(self.offsets) - 1
        return int(self.offsets[record])


# ------------------------------------------------------------------------------------ many files

# Neighbouring records are read in one call of at most so many bytes.
_AT_ONCE = 1 << 24
# Files held open at a time, so that a record costs one system call and not three.
_OPEN_FILES = 128
# A file that was changed so long ago shows by its time when it changes again.
_SETTLED_NS = 2 * 10**9
# Whether a file has changed is looked up this often at most: for many files a batch it takes as long
# as to read a record.
_LOOK_SECONDS = 0.05
# Streams of compressed files with their blocks (128 MiB each).
_STREAMS = 2


class RecordFiles:
    """Random access to all records of some files, by one number.

    paths: the files, in the order of the numbers.
    compression: "", "GZIP", "ZLIB" or "auto", which may differ from file to file.
    index_folder: where indexes are kept; None: beside the files.
    check_crc: compare the checksum of a record's data when it is read.
    progress: show a bar while indexes are made, if that takes more than a second.

    Takes 8 bytes of memory a record. Pickles without what is open. Threads may share it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        compression: str = "auto",
        index_folder: str | None = None,
        check_crc: bool = True,
        progress: bool = True,
    ) -> None:
        self.paths = list(paths)
        self.check_crc = check_crc
        indexes = _indexes(self.paths, compression, index_folder, progress)
        self.compressions = [index.compression for index in indexes]
        self.stamps = [(index.size, index.modified) for index in indexes]
        counts = np.array([len(index) for index in indexes], np.int64)
        #: The number of each file's first record, and how many there are in all.
        self.firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        #: Records that the numbers stand for, sorted, if some are left out.
        self.kept: Indices | None = None
        # Of each file one more than it has records: where the last one ends.
        self._offsets = np.concatenate([index.offsets.astype(np.int64) for index in indexes])
        self._set_up()

    def _set_up(self) -> None:
        self._open: OrderedDict[int, _Open] = OrderedDict()
        # Of each record, once its checksum was compared; and of each file, what it was like then.
        self._sound = np.zeros(int(self.firsts[-1]), bool)
        self._sound_in: dict[int, tuple[int, int]] = {}
        self._changes = 0
        # When the files were last looked at, and which of them since.
        self._looked, self._looked_at = -math.inf, set[int]()
        self._forked()
        forks.watch(self)

    def _forked(self) -> None:
        # A stream may have been moved on by half: it begins anew.
        self._streams: OrderedDict[int, _Stream] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.firsts[-1]) if self.kept is None else len(self.kept)

    def leave_out(self, records: Iterable[tuple[str, int]]) -> int:
        """Do without these, file and number each; how many of them there are."""
        files = {os.path.abspath(path): k for k, path in enumerate(self.paths)}
        keep = np.ones(int(self.firsts[-1]), bool)
        for path, number in records:
            file = files.get(os.path.abspath(path))
            if file is not None and number < self.firsts[file + 1] - self.firsts[file]:
                keep[self.firsts[file] + number] = False
        if not keep.all():
            self.kept = np.flatnonzero(keep)
        return len(keep) - int(keep.sum())

    @property
    def compressed(self) -> bool:
        """Whether any file is."""
        return any(self.compressions)

    def extent(self) -> list[Indices]:
        """The first record of each file, where each record begins and ends, and which are kept."""
        return [self.firsts, self._offsets, *([] if self.kept is None else [self.kept])]

    def numbers(self, indices: Indices) -> Indices:
        """Numbers of records among all that the files hold."""
        return indices if self.kept is None else self.kept[indices]

    def locate(self, indices: Indices) -> tuple[Indices, Indices, Indices]:
        """For each record the number of its file, and where it begins and ends there."""
        indices = self.numbers(indices)
        files = np.searchsorted(self.firsts, indices, side="right") - 1
        places = indices + files
        return files, self._offsets[places], self._offsets[places + 1]

    def to_check(self, records: Indices, files: Indices) -> tuple[Array, int]:
        """Whether the checksum of each of these records, of these files, is to be compared.

        That is when a record is first read, and again when its file has changed. And how often
        files have changed, to be told to `checked`.
        """
        if not self.check_crc:
            return np.zeros(len(records), bool), self._changes
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._looked_at, self._looked = set(), now
        for file in {*files.tolist()} - self._looked_at:
            self._looked_at.add(file)
            try:
                status = os.fstat(self.opened(file).number)
            except OSError:  # met again by who reads
                continue
            stamp = status.st_size, status.st_mtime_ns
            if self._sound_in.get(file) != stamp:
                with self._lock:
                    self._changes += 1
                    self._sound_in.pop(file, None)
                    self._sound[self.firsts[file] : self.firsts[file + 1]] = False
                    # One that is being written may change again within a tick of its clock.
                    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
                        self._sound_in[file] = stamp
        return ~self._sound[records], self._changes

    def checked(self, records: Indices, changes: int) -> None:
        """The checksums of these records are right, if no file has changed since `to_check`."""
        files = np.searchsorted(self.firsts, records, side="right") - 1
        with self._lock:
            if changes == self._changes:
                settled = [file in self._sound_in for file in files.tolist()]
                self._sound[records[settled]] = True

    def where(self, index: int) -> tuple[int, int]:
        """The file of a record, and its number there."""
        if self.kept is not None:
            index = int(self.kept[index])
        file = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return file, index - int(self.firsts[file])

    def _span(self, file: int, number: int) -> tuple[int, int]:
        """Where a record begins and ends in its file."""
        at = int(self.firsts[file]) + number + file
        start, end = self._offsets[at : at + 2].tolist()
        return start, end

    def name(self, index: int) -> str:
        """What a person would call a record."""
        file, number = self.where(index)
        at, _ = self._span(file, number)
        inside = " of the decompressed content" if self.compressions[file] else ""
        return f"{self.paths[file]}, record {number} at byte {at}{inside}"

    def read(self, index: int) -> bytes:
        """The data of one record.

        Raises DecodeError where its frame is damaged, and OSError where the file cannot be read.
        """
        raw = self._raw(index)
        self.check(raw, index)
        return raw[HEADER:-FOOTER]

    def read_many(self, indices: Indices) -> Iterator[tuple[int, bytes | Exception]]:
        """Records with their frames, unchecked, and which of `indices` each is, in any order.

        Those that lie side by side in a file are read by one call.
        """
        files, starts, ends = self.locate(indices)
        run: list[int] = []
        for k in np.lexsort((starts, files)).tolist():
            if run and not (
                files[k] == files[run[-1]]
                and starts[k] == ends[run[-1]]
                and ends[k] - starts[run[0]] <= _AT_ONCE
            ):
                yield from self._read_run(run, indices, files, starts, ends)
                run = []
            run.append(k)
        yield from self._read_run(run, indices, files, starts, ends)

    def _read_run(
        self, run: list[int], indices: Indices, files: Indices, starts: Indices, ends: Indices
    ) -> Iterator[tuple[int, bytes | Exception]]:
        block = b""
        base = int(starts[run[0]]) if run else 0
        if len(run) > 1 and not self.compressions[files[run[0]]]:
            with contextlib.suppress(OSError):  # met again record by record
                block = self.opened(int(files[run[0]])).read(int(ends[run[-1]]) - base, base)
        for k in run:
            if block:
                yield k, block[int(starts[k]) - base : int(ends[k]) - base]
                continue
            try:
                yield k, self._raw(int(indices[k]))
            except (OSError, DecodeError) as error:
                yield k, error

    def _raw(self, index: int) -> bytes:
        file, number = self.where(index)
        start, end = self._span(file, number)
        if self.compressions[file]:
            return self._stream(file).read(number)
        size = end - start
        if size > _SEARCHED and not self._fits(file, start, size):  # what a damaged length left
            size = HEADER
        return self.opened(file).read(size, start)

    def _fits(self, file: int, start: int, size: int) -> bool:
        head = self.opened(file).read(HEADER, start)
        return _is_header(head) and _length(head) + HEADER + FOOTER == size

    def check(self, raw: bytes, index: int) -> None:
        """Raise DecodeError unless `raw` is that record, whole."""
        file, number = self.where(index)
        start, end = self._span(file, number)
        size = end - start
        advice = "Write the file again, or pass on_error='skip' to leave such records out."
        head = raw[:HEADER]
        whole = len(head) == HEADER and _is_header(head)
        if whole and _length(head) + HEADER + FOOTER == size == len(raw):
            if self.check_crc and not _data_matches(raw):
                raise DecodeError(
                    f"its {size - HEADER - FOOTER} bytes of data do not match their checksum. "
                    + advice
                )
            return
        self._check_unchanged(file)
        if not whole and len(head) == HEADER:
            raise DecodeError(
                f"its length ({_length(head)}) does not match the length's checksum. {advice}"
            )
        want = _length(head) + HEADER + FOOTER if whole else HEADER
        raise DecodeError(
            f"it is truncated: {want} bytes expected, {min(len(raw), size)} found. {advice}"
        )

    def _check_unchanged(self, file: int) -> None:
        status = os.stat(self.paths[file])
        if (status.st_size, status.st_mtime_ns) != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} was changed after this loader had read its index: make the "
                "loader again."
            )

    def opened(self, file: int) -> _Open:
        """The open file; kept open, and closed only when nobody reads from it."""
        with self._lock:
            found = self._open.get(file)
            if found is None:
                found = self._open[file] = _Open(self.paths[file])
                while len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)
            return found

    def opened_at_once(self, files: list[int]) -> list[_Open | None]:
        """As `opened`, for each of these; None where a file does not open."""
        found: dict[int, _Open | None] = {}
        for file in dict.fromkeys(files):
            try:
                found[file] = self.opened(file)
            except OSError:  # met again by who reads its records by themselves
                found[file] = None
        return [found[file] for file in files]

    def _stream(self, file: int) -> _Stream:
        with self._lock:
            found = self._streams.get(file)
            if found is None:
                first, last = self.firsts[file : file + 2].tolist()
                offsets = self._offsets[first + file : last + file + 1]
                found = _Stream(self.paths[file], self.compressions[file], offsets)
                self._streams[file] = found
                while len(self._streams) > _STREAMS:
                    self._streams.popitem(last=False)
            return found

    def close(self) -> None:
        """Close files and forget what was decompressed; both come back if asked for."""
        with self._lock:
            self._open.clear()
            self._streams.clear()

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_open", "_streams", "_lock", "_sound", "_sound_in", "_changes")
        return {k: v for k, v in self.__dict__.items() if k not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()


def _indexes(paths: list[str], compression: str, folder: str | None, progress: bool) -> list[Index]:
    def one(path: str) -> Index:
        return index_of(path, compression, folder)

    if not HARDWARE:
        say(
            "checksums of TFRecord data are computed by NumPy, about 50 times slower than the "
            'processor could: pip install "kloaders[tfrecord]" (google-crc32c).',
            once="crc32c",
        )
    # Reading waits for the disk, decompressing releases the lock.
    with (
        ThreadPoolExecutor(min(len(paths), max(4, usable_cores())), "kloaders-index") as pool,
        tqdm(total=len(paths), unit=" files", desc="index", disable=not progress, delay=1) as bar,
    ):
        return list(_as_they_come(pool.map(one, paths), bar))


def _as_they_come(indexes: Iterator[Index], bar: Any) -> Iterator[Index]:
    for index in indexes:
        bar.update(1)
        yield index
