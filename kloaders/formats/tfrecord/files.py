"""Random access to the records of many TFRecord files, by one number.

A file is records, one after another: length (uint64), masked CRC-32C of the length, data, masked
CRC-32C of the data, all little-endian. The format is described in TensorFlow's tutorial "TFRecord
and tf.train.Example" and in tensorflow/core/lib/io/record_writer.h. It has no index: this package
creates one in a file next to it (`index_of`).
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import warn
from kloaders.core.progress import Progress
from kloaders.core.threads import ThreadPool, usable_cores
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFiles
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.sidecar_index import Index
from kloaders.formats.tfrecord.crc32c import HARDWARE
from kloaders.formats.tfrecord.framing import (
    FOOTER,
    HEADER,
    data_matches,
    is_header,
    length_of,
)
from kloaders.formats.tfrecord.inflate import Stream
from kloaders.formats.tfrecord.scan import SEARCH_LIMIT, index_of
from kloaders.places.fetching import Claim

__all__ = [
    "RecordFiles",
]


# The maximum number of bytes of adjacent records that are read in one call.
_AT_ONCE = 1 << 24


# If a file changed this long ago, a further change will change its modification time.
_SETTLED_NS = 2 * 10**9

# Check this often at most whether files have changed: with many files per batch, it takes as long as
# reading a record.
_LOOK_SECONDS = 0.05

# The number of compressed files whose streams are kept, with their blocks (128 MiB each).
_STREAMS = 2


class RecordFiles:
    """Random access to all records of some files, by one number.

    paths: the files, in the order of the numbers.
    compression: "", "GZIP", "ZLIB" or "auto", which may differ between files.
    index_folder: the folder for indexes; None: next to the files.
    check_crc: compare the checksum of a record's data when it is read.
    max_bytes: the maximum size of a record in a compressed file; None: no limit.
    progress: show a progress bar while indexes are made, if this takes more than a second.
    opener: how the files are opened.

    Takes 8 bytes of memory per record. Pickles without open files. Thread-safe.
    """

    def __init__(
        self,
        paths: Sequence[str],
        compression: str = "auto",
        index_folder: str | None = None,
        check_crc: bool = True,
        progress: bool = True,
        max_bytes: int | None = None,
        opener: Opener = LOCAL,
    ) -> None:
        self.paths, self.opener = list(paths), opener
        self.max_bytes = max_bytes
        self.check_crc = check_crc
        indexes = _indexes(self.paths, compression, index_folder, progress, opener)
        self.compressions = [index.compression for index in indexes]
        self.stamps = [(index.size, index.modified) for index in indexes]
        counts = np.array([len(index) for index in indexes], np.int64)
        #: The number of each file's first record, followed by the number of records.
        self.firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        #: If some records are left out, the numbers of those that are kept, sorted.
        self.kept: Indices | None = None
        # For each file the start of each record, and the end of the last.
        self._offsets = np.concatenate([index.offsets.astype(np.int64) for index in indexes])
        self._set_up()

    def _set_up(self) -> None:
        # For each record, whether its checksum was verified; for each file, its state at that time.
        self._sound = np.zeros(int(self.firsts[-1]), bool)
        self._sound_in: dict[int, tuple[int, int]] = {}
        self._changes = 0
        # When the files were last checked, and which ones have been checked since.
        self._looked, self._looked_at = -math.inf, set[int]()
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        # Start streams again: another thread may have been reading one.
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._lock = threading.Lock()
        self._files = OpenFiles(self.paths, self.opener.open)

    def __len__(self) -> int:
        return int(self.firsts[-1]) if self.kept is None else len(self.kept)

    def leave_out(self, records: Iterable[tuple[str, int]]) -> int:
        """Leave out these records, each a file and number; return how many of them exist."""
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
        """Whether any file is compressed."""
        return any(self.compressions)

    @property
    def bytes_in_all(self) -> int:
        """The total size of all files in bytes, as stored."""
        return int(self._offsets.max()) if len(self._offsets) else 0

    def extent(self) -> list[Indices]:
        """The first record of each file, the bounds of each record, and which records are kept."""
        return [self.firsts, self._offsets, *([] if self.kept is None else [self.kept])]

    def numbers(self, indices: Indices) -> Indices:
        """The numbers of these records among all records in the files, including those left out."""
        return indices if self.kept is None else self.kept[indices]

    def locate(self, indices: Indices) -> tuple[Indices, Indices, Indices]:
        """For each record the number of its file, and where it begins and ends in the file."""
        indices = self.numbers(indices)
        files = np.searchsorted(self.firsts, indices, side="right") - 1
        places = indices + files
        return files, self._offsets[places], self._offsets[places + 1]

    def to_check(self, records: Indices, files: Indices) -> tuple[Array, int]:
        """Whether the checksum of each of these records, in these files, has to be compared.

        That is when a record is first read, and again after its file has changed. The second result is
        how often files have changed; pass it to `checked`.
        """
        if not self.check_crc:
            return np.zeros(len(records), bool), self._changes
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._looked_at, self._looked = set(), now
        for file in {*files.tolist()} - self._looked_at:
            self._looked_at.add(file)
            try:
                stamp = self.opened(file).stamp()
            except OSError:  # raised again when the record is read
                continue
            if self._sound_in.get(file) != stamp:
                with self._lock:
                    self._changes += 1
                    self._sound_in.pop(file, None)
                    self._sound[self.firsts[file] : self.firsts[file + 1]] = False
                    # A file that is still being written may change without a new modification time.
                    if time.time_ns() - stamp[1] > _SETTLED_NS:
                        self._sound_in[file] = stamp
        return ~self._sound[records], self._changes

    def checked(self, records: Indices, changes: int) -> None:
        """Record that these checksums are correct, unless a file has changed since `to_check`."""
        files = np.searchsorted(self.firsts, records, side="right") - 1
        with self._lock:
            if changes == self._changes:
                settled = [file in self._sound_in for file in files.tolist()]
                self._sound[records[settled]] = True

    def where(self, index: int) -> tuple[int, int]:
        """The file of a record, and its number in the file."""
        if self.kept is not None:
            index = int(self.kept[index])
        file = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return file, index - int(self.firsts[file])

    def file_of(self, index: int) -> str:
        """The path of a record's file."""
        return self.paths[self.where(index)[0]]

    def _span(self, file: int, number: int) -> tuple[int, int]:
        """Where a record begins and ends in its file."""
        at = int(self.firsts[file]) + number + file
        start, end = self._offsets[at : at + 2].tolist()
        return start, end

    def name(self, index: int) -> str:
        """A readable name for a record."""
        file, number = self.where(index)
        at, _ = self._span(file, number)
        inside = " of the decompressed content" if self.compressions[file] else ""
        return f"{self.paths[file]}, record {number} at byte {at}{inside}"

    def read(self, index: int) -> bytes:
        """The data of one record.

        Raises DecodeError if its frame is damaged, and OSError if the file cannot be read.
        """
        raw = self._raw(index)
        self.check(raw, index)
        return raw[HEADER:-FOOTER]

    def read_many(self, indices: Indices) -> Iterator[tuple[int, bytes | Exception]]:
        """Yield records with their frames, unchecked, in any order, each with its position in `indices`.

        Records that are adjacent in a file are read in one call.
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
            with contextlib.suppress(OSError):  # will occur again when reading record by record
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
        size = end - start
        if self.compressions[file]:
            if self.max_bytes is not None and size > self.max_bytes:
                raise DecodeError(
                    f"it has {size:,} bytes when decompressed, but max_bytes allows "
                    f"{self.max_bytes:,}. Pass max_bytes={size} if you trust it."
                )
            return self._stream(file).read(number)
        if size > SEARCH_LIMIT and not self._fits(
            file, start, size
        ):  # the rest after a damaged length
            size = HEADER
        raw: bytes = self.opened(file).read(size, start)
        return raw

    def _fits(self, file: int, start: int, size: int) -> bool:
        head = self.opened(file).read(HEADER, start)
        return is_header(head) and length_of(head) + HEADER + FOOTER == size

    def check(self, raw: bytes, index: int) -> None:
        """Raise DecodeError unless `raw` is this record, complete."""
        file, number = self.where(index)
        start, end = self._span(file, number)
        size = end - start
        advice = "Write the file again, or pass on_error='skip' to leave such records out."
        head = raw[:HEADER]
        whole = len(head) == HEADER and is_header(head)
        if whole and length_of(head) + HEADER + FOOTER == size == len(raw):
            if self.check_crc and not data_matches(raw):
                raise DecodeError(
                    f"its {size - HEADER - FOOTER} bytes of data do not match their checksum. "
                    + advice
                )
            return
        self._check_unchanged(file)
        if not whole and len(head) == HEADER:
            raise DecodeError(
                f"its length ({length_of(head)}) does not match the length's checksum. {advice}"
            )
        want = length_of(head) + HEADER + FOOTER if whole else HEADER
        raise DecodeError(
            f"it is truncated: {want} bytes expected, {min(len(raw), size)} found. {advice}"
        )

    def _check_unchanged(self, file: int) -> None:
        if self.opener.stamp(self.paths[file]) != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} has changed since this loader read its index: make a "
                "new loader."
            )

    def fetch_ahead(self, indices: Indices, only_new: bool = False) -> list[Claim]:
        """Begin to fetch records of remote objects, except compressed ones."""
        files, starts, ends = self.locate(indices)
        plain = [
            (self.paths[file], start, min(end, start + SEARCH_LIMIT))
            for file, start, end in zip(files.tolist(), starts.tolist(), ends.tolist(), strict=True)
            if not self.compressions[file]
        ]
        return self.opener.fetch_ahead(plain, only_new)

    def opened(self, file: int) -> Any:
        """The open file. It is kept open, and closed only when no caller refers to it."""
        return self._files.get(file)

    def opened_at_once(self, files: list[int]) -> list[Any]:
        """Like `opened`, for each of these files; None for a file that cannot be opened."""
        found: dict[int, Any] = {}
        for file in dict.fromkeys(files):
            try:
                found[file] = self.opened(file)
            except OSError:  # raised again when its records are read one by one
                found[file] = None
        return [found[file] for file in files]

    def _stream(self, file: int) -> Stream:
        with self._lock:
            found = self._streams.get(file)
            if found is None:
                first, last = self.firsts[file : file + 2].tolist()
                offsets = self._offsets[first + file : last + file + 1]
                found = Stream(self.paths[file], self.compressions[file], offsets, self.opener)
                self._streams[file] = found
                while len(self._streams) > _STREAMS:
                    self._streams.popitem(last=False)
            return found

    def close(self) -> None:
        """Close files and drop decompressed data; both are loaded again on use."""
        self._files.close()
        with self._lock:
            self._streams.clear()

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_files", "_streams", "_lock", "_sound", "_sound_in", "_changes")
        return {k: v for k, v in self.__dict__.items() if k not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()


def _indexes(
    paths: list[str], compression: str, folder: str | None, progress: bool, opener: Opener
) -> list[Index]:
    def one(path: str) -> Index:
        return index_of(path, compression, folder, opener)

    if not HARDWARE:
        warn(
            "google-crc32c computes the checksums of TFRecord data byte by byte in Python, over 100 times "
            "slower than in C: install a wheel of it (pip install --force-reinstall google-crc32c), "
            "or pass check_crc=False.",
            once="crc32c",
        )
    # Threads, because reading waits for the disk or network, and decompressing releases the GIL.
    threads = max(16 if opener.fetches else 4, usable_cores())
    with (
        ThreadPool(min(len(paths), threads), "kloaders-index") as pool,
        Progress(
            total=len(paths), unit=" files", desc="index", disable=not progress, delay=1
        ) as bar,
    ):
        return list(_as_they_come(pool.map(one, paths), bar))


def _as_they_come(indexes: Iterator[Index], bar: Any) -> Iterator[Index]:
    for index in indexes:
        bar.update(1)
        yield index
