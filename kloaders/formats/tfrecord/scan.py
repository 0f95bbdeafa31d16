"""Finds where each record of a TFRecord file begins, even in damaged files, and stores an index."""

from __future__ import annotations

import os
import stat

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible, warn
from kloaders.formats import sidecar_index
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.sidecar_index import Index
from kloaders.formats.tfrecord.framing import (
    EMPTY_HEADER,
    FOOTER,
    HEADER,
    LENGTH,
    count_good_headers,
    data_matches,
    headers_are_right,
    is_header,
    length_of,
)
from kloaders.formats.tfrecord.inflate import Inflate
from kloaders.places.ranges import walking

__all__ = [
    "SEARCH_LIMIT",
    "index_of",
]


def index_of(
    path: str, compression: str = "auto", folder: str | None = None, opener: Opener = LOCAL
) -> Index:
    """The index of a file: read if a valid one exists, otherwise built and stored.

    The index is next to the file, as `.NAME.index`; patterns of shells and Python do not match such
    names, so that it is not mistaken for data. If that folder is not writable, it is stored in the user's
    cache folder (XDG_CACHE_HOME), or kept only in memory. An index is valid if it is complete and was
    made from a file with the same size, modification time, beginning and end. Several processes may
    create it at the same time.

    path: the file.
    compression: "", "GZIP", "ZLIB", or "auto", which examines the first bytes.
    folder: another folder for the index.
    opener: how the file is opened.

    Raises:
        OSError: the file cannot be read.
        DecodeError: it is empty, not a TFRecord file, or has another compression.
    """
    file = opener.open(path)
    size, modified = file.stamp()
    if file.number >= 0 and stat.S_ISDIR(os.fstat(file.number).st_mode):
        raise IsADirectoryError(
            f"{visible(path)} is a folder, expected a TFRecord file: pass a pattern, "
            f"'{visible(os.path.join(path, '*.tfrecord'))}'."
        )
    if size == 0:
        raise DecodeError(
            f"{path} is empty (0 bytes), expected a TFRecord file: leave it out, or write it again."
        )
    places = sidecar_index.places(path, folder)
    ends = sidecar_index.digest_of_ends(file, size)
    for place in places:
        found = sidecar_index.load(place, size, modified, ends)
        if found is not None and compression in ("auto", found.compression):
            return found
    file = walking(file)
    kind = _compression(file, path, compression)
    offsets = _walk(file, size, path) if not kind else _walk_stream(path, kind, opener)
    index = Index(offsets, kind, size, modified, ends)
    sidecar_index.save(index, places)
    return index


def _compression(file: OpenFile, path: str, asked: str) -> str:
    """The compression according to the first bytes, checked against the requested one."""
    head = file.read(HEADER, 0)
    if is_header(head):
        found = ""
    elif head[:2] == b"\x1f\x8b":
        found = "GZIP"
    # RFC 1950: method 8, and the first two bytes as one number are a multiple of 31
    elif len(head) > 1 and head[0] & 0x8F == 8 and int.from_bytes(head[:2], "big") % 31 == 0:
        found = "ZLIB"
    else:
        found = ""
    if asked == "auto":
        return found
    # Two bytes of damaged plain data may look like ZLIB by chance; gzip's magic and a checksum do not.
    if asked == "" and found == "GZIP":
        raise DecodeError(
            f"{path} is compressed (GZIP), expected a plain TFRecord file: pass "
            'compression="GZIP", or "auto".'
        )
    if asked and found != asked:
        said = found or (f"it begins with {head!r:.80}" if not is_header(head) else "plain")
        raise DecodeError(f'{path} is not compressed as {asked} ({said}): pass compression="auto".')
    return asked


# The number of bytes in which headers of small records are read; those of large ones are read singly.
_STEP, _LARGE = 1 << 18, 1 << 15

# The number of headers whose checksums are compared together.
_CHECKED = 1 << 15

# How far to search for a first record in a file that does not begin with one.
SEARCH_LIMIT = 1 << 26


def _walk(file: OpenFile, size: int, path: str) -> Array:
    """The offsets of a plain file. Reads only headers, and checks the checksum of each length.

    After a damaged length it searches for the next record, so that only one record is lost, and not
    the rest of the file. Takes about 0.5 microseconds per record, or a read of 12 bytes for large ones.
    """
    found: list[Array] = []
    at = 0
    while at < size:
        offsets, end = _run(file, at, size)
        found.append(offsets)
        if end < size:  # not a record, or a damaged one
            after = _next_record(file, end, size, SEARCH_LIMIT if end == 0 else size)
            head = file.read(HEADER, end)
            if end == 0 and after == size and not (is_header(head) or _data_is_whole(file, size)):
                raise DecodeError(
                    f"{path} is not a TFRecord file: it begins with {head!r:.80}, and no record was found "
                    "in it. For files that hold one sample each use PathSequenceLoader."
                )
            number = sum(map(len, found))
            warn(
                f"{path}: record {number} at byte {end} has a damaged length, or is cut short; "
                f"reading continues at byte {after}."
            )
            found.append(np.array([end], np.uint64))
            end = after
        at = end
    return np.concatenate([*found, np.array([size], np.uint64)])


def _run(file: OpenFile, at: int, size: int) -> tuple[Array, int]:
    """The offsets of the records from `at` on, and the position of the first invalid one."""
    whole: list[Array] = []
    starts: list[int] = []
    heads: list[bytes] = []
    unpack, step = LENGTH.unpack_from, _STEP
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
            ended = end - base < HEADER  # the file has become shorter
        if ended or len(starts) >= _CHECKED:
            good = count_good_headers(heads)
            if good and starts[good - 1] + length_of(heads[good - 1]) + HEADER + FOOTER > size:
                good -= 1  # truncated
            whole.append(np.array(starts[:good], np.uint64))
            if good:
                begun = starts[good - 1] + length_of(heads[good - 1]) + HEADER + FOOTER
            if ended or good < len(starts):
                return np.concatenate(whole), begun
            starts, heads = [], []


def _lengths_before(head: bytes) -> list[int]:
    """Lengths that differ from this header's in one byte, and match its checksum."""
    rows = np.repeat(np.frombuffer(head, np.uint8)[None], 8 * 256, axis=0)
    for place in range(8):
        rows[256 * place : 256 * (place + 1), place] = np.arange(256)
    return [length_of(row.tobytes()) for row in rows[headers_are_right(rows)]]


def _next_record(file: OpenFile, at: int, size: int, bound: int) -> int:
    """The start of the record after the damaged one at `at`; `size` if there is none."""
    head = file.read(HEADER, at)
    # Either the length is correct and only its checksum is damaged, or one byte of the length is.
    for length in [length_of(head), *_lengths_before(head)] if len(head) == HEADER else []:
        after = at + length + HEADER + FOOTER
        if after == size or (after < size and is_header(file.read(HEADER, after))):
            return after
    # A header may begin at any byte. Few numbers are a length that ends within the file, and only one
    # in 2**32 of these is followed by its checksum by chance.
    step = 1 << 20
    last = min(size - HEADER - FOOTER, at + bound)
    for base in range(at + 1, last + 1, step):
        chunk = file.read(step + HEADER - 1, base)
        places = len(chunk) - HEADER + 1
        if places < 1:
            break
        lengths = np.ndarray((places,), "<u8", chunk, strides=(1,))
        room = np.uint64(size - base - HEADER - FOOTER)
        # Much data consists of zeros, so records without data are found by their whole header.
        likely = np.flatnonzero((lengths <= room) & (lengths > 0))
        likely = likely[lengths[likely] + likely.astype(np.uint64) <= room]
        content = np.frombuffer(chunk, np.uint8)
        rows = content[likely[:, None] + np.arange(HEADER)]
        found = [base + int(likely[k]) for k in np.flatnonzero(headers_are_right(rows))[:1]]
        empty = chunk.find(EMPTY_HEADER)
        if empty >= 0 and base + empty <= last:
            found.append(base + empty)
        if found:
            return min(found)
    return size


def _data_is_whole(file: OpenFile, size: int) -> bool:
    """Whether a file is a single record in which only the header is damaged."""
    if not HEADER + FOOTER <= size <= SEARCH_LIMIT:
        return False
    return data_matches(file.read(size, 0))


def _walk_stream(path: str, compression: str, opener: Opener) -> Array:
    """The offsets of the records in the decompressed content, all of which is decompressed once."""
    stream = Inflate(path, compression, opener)
    offsets = [0]
    while head := stream.take(HEADER):
        at, number = offsets[-1], len(offsets) - 1
        if not is_header(head):
            what = "a TFRecord file" if number == 0 else "a whole record"
            raise DecodeError(
                f"{path}: record {number} at byte {at} of its decompressed content is not {what}: "
                f"it begins with {head!r:.80}. Write the file again."
            )
        size = length_of(head) + FOOTER
        if stream.skip(size) < size:
            raise DecodeError(
                f"{path}: record {number} at byte {at} of its decompressed content is cut short. "
                "Write the file again."
            )
        offsets.append(at + HEADER + size)
    return np.array(offsets, np.uint64)
