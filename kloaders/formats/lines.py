"""Lines of text files and rows of CSV files, by number: where each begins. Not what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kloaders.core.arrays import Array, Indices
from kloaders.core.threads import usable_cores
from kloaders.formats import sidecar_index
from kloaders.formats.compressed import compression_of
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.sidecar_index import Index
from kloaders.formats.tfrecord.files import RecordFiles

__all__ = ["LineFiles"]

# A thread looks for the ends of lines in so many bytes at a time.
_CHUNK = 1 << 23
_NEWLINE = 10

_WIDE = (b"\xff\xfe", b"\xfe\xff")


class LineFiles(RecordFiles):
    """Random access to all lines of some files, by one number.

    paths: the files, in the order of the numbers.
    rows: the lines are rows of CSV: those that are blank are left out, and what stands between two
        `quote` characters belongs to the row, ends of lines too.
    quote: one ASCII character; None: none has a meaning.
    header: leave out the first row of each file.
    index_folder, progress: see `RecordFiles`.

    Takes 8 bytes of memory a line. Pickles without what is open. Threads may share it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        rows: bool = False,
        quote: str | None = None,
        header: bool = False,
        index_folder: str | None = None,
        progress: bool = True,
    ) -> None:
        self.paths = list(paths)
        self.kept = None
        self.rows = rows
        with (
            ThreadPoolExecutor(usable_cores(), "kloaders-index") as threads,
            tqdm(
                total=sum(map(os.path.getsize, self.paths)),
                unit="B",
                unit_scale=True,
                desc="index",
                disable=not progress,
                delay=1,
            ) as bar,
        ):
            indexes = [
                _index_of(path, rows, quote, index_folder, threads, bar) for path in self.paths
            ]
        self.compressions = [""] * len(indexes)
        self.stamps = [(index.size, index.modified) for index in indexes]
        #: Lines left out at the top of each file.
        self.skipped = int(header)
        counts = np.array([len(index) - self.skipped for index in indexes], np.int64)
        self.firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._offsets = np.concatenate(
            [index.offsets[self.skipped :].astype(np.int64) for index in indexes]
        )
        self.heads = [
            OpenFile(path).read(int(index.offsets[1]), 0)
            for path, index in zip(self.paths, indexes, strict=True)
        ]
        self._set_up()

    def name(self, index: int) -> str:
        """What a person would call a line."""
        file, number = self.where(index)
        what = "row" if self.rows else "line"
        at = int(self._offsets[index + file])
        return f"{self.paths[file]}, {what} {number + self.skipped} at byte {at}"

    def lines(self, indices: Indices) -> list[bytes]:
        """The lines of these numbers, in this order, with their ends.

        Raises:
            DecodeError: a file is not the one that the index was made of.
            OSError: a file cannot be read.
        """
        for file in np.unique(self.locate(indices)[0]).tolist():
            self._check_same(file)
        found: list[bytes] = [b""] * len(indices)
        for k, line in self.read_many(indices):
            if isinstance(line, Exception):
                raise line
            found[k] = line
        return found

    def _check_same(self, file: int) -> None:
        status = os.fstat(self.opened(file).number)
        if (status.st_size, status.st_mtime_ns) != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} was changed after this loader had read its index: make the "
                "loader again."
            )

    def _fits(self, file: int, start: int, size: int) -> bool:
        return True  # a line has no header that could be damaged


def _index_of(
    path: str, rows: bool, quote: str | None, folder: str | None, threads: Executor, bar: Any
) -> Index:
    """The index of a file: read where there is a valid one, else made and kept (`records`)."""
    file = OpenFile(path)
    status = os.fstat(file.number)
    size = status.st_size
    _check_kind(path, file.read(8, 0), size, rows)
    # What is a row depends on the quotes.
    kind = "lines" if not rows else f"rows{'' if quote is None else f'{ord(quote):02x}'}"
    places = sidecar_index.places(f"{path}.{kind}", folder)
    ends = sidecar_index.digest_of_ends(file, size)
    for place in places:
        found = sidecar_index.load(place, size, status.st_mtime_ns, ends)
        if found is not None:
            bar.update(size)
            return found
    code = ord(quote) if rows and quote is not None else None
    offsets = _offsets(file, size, path, rows, code, threads, bar)
    if len(offsets) < 2:
        raise DecodeError(f"{path} has blank rows only, expected a CSV file: leave it out.")
    index = Index(offsets, "", size, status.st_mtime_ns, ends)
    sidecar_index.save(index, places)
    return index


def _check_kind(path: str, head: bytes, size: int, rows: bool) -> None:
    what = "CSV" if rows else "text"
    if size == 0:
        raise DecodeError(f"{path} is empty (0 bytes), expected a {what} file: leave it out.")
    kind = compression_of(head)
    if kind is not None:
        raise DecodeError(
            f"{path} is compressed ({kind}): nothing in it can be found without what lies "
            "before. Decompress it once, such as by gunzip -k, or write its samples to "
            "TFRecord files or a pack."
        )
    if head.startswith(_WIDE):
        raise DecodeError(
            f"{path} is UTF-16, in which the ends of lines are not one byte: convert it once, "
            "iconv -f UTF-16 -t UTF-8."
        )


def _offsets(
    file: OpenFile, size: int, path: str, rows: bool, quote: int | None, threads: Executor, bar: Any
) -> Array:
    """Where each line begins, and where the last one ends."""

    def scan(start: int) -> tuple[Array, Array | None, int]:
        return _scan(file, start, min(_CHUNK, size - start), quote)

    starts = [np.zeros(1, np.int64)]
    quoted = 0
    for start, (found, inside, odd) in zip(
        range(0, size, _CHUNK), threads.map(scan, range(0, size, _CHUNK)), strict=True
    ):
        ends = found
        if inside is not None:
            ends = found[inside == quoted]
        elif quoted:
            ends = found[:0]
        quoted ^= odd
        starts.append(ends + start)
        bar.update(min(_CHUNK, size - start))
    if quoted:
        raise DecodeError(
            f"{path} ends inside of a quoted field, which has no end: mend the file, or pass "
            "quote=None if quotes are ordinary characters in it."
        )
    offsets = np.concatenate(starts)
    if offsets[-1] != size:  # a last line without an end
        offsets = np.append(offsets, size)
    return (_without_blank(file, offsets) if rows else offsets).astype(np.uint64)


def _scan(
    file: OpenFile, start: int, size: int, quote: int | None
) -> tuple[Array, Array | None, int]:
    """Ends of lines in a part of a file, and what the quotes in it say.

    Which ends lie behind an odd number of them (None: there are none), and whether there is an odd
    number in all. Two quotes that stand for one, inside of a field, change nothing.
    """
    content = np.frombuffer(file.read(size, start), np.uint8)
    ends = np.flatnonzero(content == _NEWLINE)
    if quote is None:
        return ends + 1, None, 0
    quotes = np.flatnonzero(content == quote)
    if not len(quotes):
        return ends + 1, None, 0
    return ends + 1, np.searchsorted(quotes, ends) & 1, len(quotes) & 1


def _without_blank(file: OpenFile, offsets: Array) -> Array:
    """Offsets without those of blank rows, which then belong to the row before."""
    sizes = np.diff(offsets)
    blank = sizes == 1
    if b"\r" in file.read(_CHUNK, 0):
        for k in np.flatnonzero(sizes == 2).tolist():
            blank[k] = file.read(2, int(offsets[k])) == b"\r\n"
    if len(offsets) > 1 and offsets[-1] - offsets[-2] == 1:  # one character without an end
        blank[-1] = file.read(1, int(offsets[-2])) == b"\n"
    keep = np.append(~blank, True)
    kept: Array = offsets[keep]
    kept[0] = 0  # blank rows at the top belong to the first
    return kept
