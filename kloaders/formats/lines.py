"""Finds where each line of text files, or row of CSV files, begins."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.progress import Progress
from kloaders.core.threads import ThreadPool, usable_cores
from kloaders.formats import sidecar_index
from kloaders.formats.compressed import compression_of
from kloaders.formats.errors import DecodeError
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.sidecar_index import Index
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.places.ranges import walking

__all__ = ["LineFiles"]

# The number of bytes in which a thread searches for line ends at a time.
_CHUNK = 1 << 23
_NEWLINE, _RETURN = b"\n\r"
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark, at the start of a file

_WIDE = (b"\xff\xfe", b"\xfe\xff")


class LineFiles(RecordFiles):
    """Random access to all lines of some files, by one number.

    paths: the files, in the order of the numbers.
    rows: whether lines are CSV rows: blank rows are left out, and text between two `quote` characters
        belongs to the row, including line breaks.
    quote: one ASCII character; None: there are no quotes. As in Python's csv module, it begins a
        quoted field if it is the first character of the field, and is ordinary elsewhere.
    header: leave out the first row of each file.
    index_folder, progress, opener: see `RecordFiles`.
    delimiter: the character between fields of rows, ASCII.

    Lines end with a newline, or, in a file without newlines, with a carriage return.

    Takes 8 bytes of memory per line. Pickles without open files. Thread-safe.
    """

    def __init__(
        self,
        paths: Sequence[str],
        rows: bool = False,
        quote: str | None = None,
        header: bool = False,
        index_folder: str | None = None,
        progress: bool = True,
        delimiter: str = ",",
        opener: Opener = LOCAL,
    ) -> None:
        self.paths, self.opener = list(paths), opener
        self.kept = None
        self.rows = rows
        with (
            ThreadPool(
                max(8 if opener.fetches else 1, usable_cores()), "kloaders-index"
            ) as threads,
            Progress(
                total=sum(opener.stamp(path)[0] for path in self.paths),
                unit="B",
                unit_scale=True,
                desc="index",
                disable=not progress,
                delay=1,
            ) as bar,
        ):
            quotes = _Quotes(ord(quote), ord(delimiter)) if rows and quote is not None else None
            indexes = [
                _index_of(path, rows, quotes, index_folder, threads, bar, opener)
                for path in self.paths
            ]
        self.compressions = [""] * len(indexes)
        self.stamps = [(index.size, index.modified) for index in indexes]
        #: The number of lines left out at the top of each file.
        self.skipped = int(header)
        counts = np.array([len(index) - self.skipped for index in indexes], np.int64)
        self.firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._offsets = np.concatenate(
            [index.offsets[self.skipped :].astype(np.int64) for index in indexes]
        )
        self.heads = [
            opener.open(path).read(int(index.offsets[1]), 0)
            for path, index in zip(self.paths, indexes, strict=True)
        ]
        self._set_up()

    def name(self, index: int) -> str:
        """A readable name for a line."""
        file, number = self.where(index)
        what = "row" if self.rows else "line"
        at = int(self._offsets[index + file])
        return f"{self.paths[file]}, {what} {number + self.skipped} at byte {at}"

    def lines(self, indices: Indices) -> list[bytes]:
        """The lines with these numbers, in this order, including line ends.

        Raises:
            DecodeError: a file has changed since its index was made.
            OSError: a file cannot be read.
        """
        for file in np.unique(self.locate(indices)[0]).tolist():
            self._check_same(file)
        claims = self.fetch_ahead(indices, only_new=True) if self.opener.fetches else []
        try:
            found: list[bytes] = [b""] * len(indices)
            for k, line in self.read_many(indices):
                if isinstance(line, Exception):
                    raise line
                found[k] = line
            return found
        finally:
            for claim in claims:
                claim.release()

    def _check_same(self, file: int) -> None:
        if self.opened(file).stamp() != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} has changed since this loader read its index: make a "
                "new loader."
            )

    def _fits(self, file: int, start: int, size: int) -> bool:
        return True  # a line has no header that could be damaged


class _Quotes(NamedTuple):
    """The quote characters."""

    quote: int
    delimiter: int


def _index_of(
    path: str,
    rows: bool,
    quotes: _Quotes | None,
    folder: str | None,
    threads: Executor,
    bar: Any,
    opener: Opener,
) -> Index:
    """The index of a file: read if a valid one exists, otherwise built and stored (`records`)."""
    file = opener.open(path)
    size, modified = file.stamp()
    _check_kind(path, file.read(8, 0), size, rows)
    # Rows depend on the quote character, and quotes on the delimiter.
    kind = "lines" if not rows else "rows" + bytes(quotes or ()).hex()
    places = sidecar_index.places(f"{path}.{kind}", folder)
    ends = sidecar_index.digest_of_ends(file, size)
    for place in places:
        found = sidecar_index.load(place, size, modified, ends)
        if found is not None:
            bar.update(size)
            return found
    offsets = _offsets(file, size, path, rows, quotes, threads, bar)
    if len(offsets) < 2:
        raise DecodeError(f"{path} has only blank rows, expected a CSV file: leave it out.")
    index = Index(offsets, "", size, modified, ends)
    sidecar_index.save(index, places)
    return index


def _check_kind(path: str, head: bytes, size: int, rows: bool) -> None:
    what = "CSV" if rows else "text"
    if size == 0:
        raise DecodeError(f"{path} is empty (0 bytes), expected a {what} file: leave it out.")
    kind = compression_of(head)
    if kind is not None:
        raise DecodeError(
            f"{path} is compressed ({kind}): reading any line would require decompressing everything "
            "before it. Decompress it once, such as with gunzip -k, or write its samples to "
            "TFRecord files or a pack."
        )
    if head.startswith(_WIDE):
        raise DecodeError(
            f"{path} is UTF-16, in which a line end is not a single byte: convert it once, "
            "iconv -f UTF-16 -t UTF-8."
        )


def _offsets(
    file: Any,
    size: int,
    path: str,
    rows: bool,
    quotes: _Quotes | None,
    threads: Executor,
    bar: Any,
) -> Array:
    """Where each line begins, and where the last one ends."""
    offsets, newlines = _ends(file, size, path, quotes, threads, bar, _NEWLINE)
    newline = _NEWLINE
    parts = range(0, size, _CHUNK)
    if not newlines and any(b"\r" in file.read(_CHUNK, start) for start in parts):
        newline = _RETURN
        offsets, _ = _ends(file, size, path, quotes, threads, None, newline)
    if offsets[-1] != size:  # the last line has no line end
        offsets = np.append(offsets, size)
    return (_without_blank(file, offsets, newline) if rows else offsets).astype(np.uint64)


def _ends(
    file: Any,
    size: int,
    path: str,
    quotes: _Quotes | None,
    threads: Executor,
    bar: Any,
    newline: int,
) -> tuple[Array, int]:
    """0, followed by the end of each line; and the number of all newlines, including quoted ones."""

    def scan(start: int) -> _Scan:
        return _scan(file, start, min(_CHUNK, size - start), quotes, newline)

    found = [np.zeros(1, np.int64)]
    quoted = closed = newlines = 0
    for start, part in zip(
        range(0, size, _CHUNK), threads.map(scan, range(0, size, _CHUNK)), strict=True
    ):
        here = min(_CHUNK, size - start)
        newlines += len(part.ends)
        if part.inside is None:  # no quotes
            ends = part.ends[:0] if quoted else part.ends
            closed = 0
        elif part.regular[quoted]:
            ends = part.ends[part.inside == quoted]
            quoted ^= part.odd
            closed = part.last and not quoted
        else:
            assert quotes is not None
            ends, quoted, closed = _scan_one_by_one(
                file, start, here, quotes, newline, quoted, closed
            )
        found.append(ends + start)
        if bar is not None:
            bar.update(here)
    if quoted:
        raise DecodeError(
            f"{path} ends inside a quoted field, whose closing quote is missing: repair the file, or "
            "pass quote=None if quotes are ordinary characters in it."
        )
    return np.concatenate(found), newlines


class _Scan(NamedTuple):
    """The line ends in a part of a file, and the state of its quotes.

    Attributes:
        ends: the position after each newline, relative to the start of the part.
        inside: for each newline, 1 if an odd number of quotes precedes it, else 0; None if the part
            has no quotes. Two quotes in a field that stand for one change nothing.
        odd: whether the number of quotes is odd.
        regular: whether every second quote begins a field, first if the part begins outside a quoted
            field, second if it begins inside. If not, some quotes are ordinary characters.
        last: whether the part ends with a quote.
    """

    ends: Array
    inside: Array | None = None
    odd: int = 0
    regular: tuple[bool, bool] = (True, True)
    last: bool = False


def _scan(file: Any, start: int, size: int, quotes: _Quotes | None, newline: int) -> _Scan:
    raw, content = _content(file, start, size)
    ends = np.flatnonzero(content == newline)
    if quotes is None:
        return _Scan(ends + 1)
    places = np.flatnonzero(content == quotes.quote)
    if not len(places):
        return _Scan(ends + 1)
    begins = _begin_fields(raw, places, quotes, newline, start)
    # A quote immediately after another one continues the field: together they stand for one quote.
    begins[1:] |= places[1:] == places[:-1] + 1
    regular = bool(begins[0::2].all()), bool(begins[1::2].all())
    inside = np.searchsorted(places, ends) & 1
    return _Scan(ends + 1, inside, len(places) & 1, regular, places[-1] == size - 1)


def _scan_one_by_one(
    file: Any,
    start: int,
    size: int,
    quotes: _Quotes,
    newline: int,
    quoted: int,
    closed: int,
) -> tuple[Array, int, int]:
    """Find line ends outside quotes, if some quotes are ordinary characters.

    quoted, closed: whether the part begins inside quotes, and right after a closing quote. Both are
        also returned for the next part.
    """
    raw, content = _content(file, start, size)
    ends = np.flatnonzero(content == newline)
    places = np.flatnonzero(content == quotes.quote)
    begins = _begin_fields(raw, places, quotes, newline, start)
    inside, ended, changes = quoted, -1 if closed else -2, []
    for place, begin in zip(places.tolist(), begins.tolist(), strict=True):
        if inside:
            inside, ended = 0, place
        elif begin or ended == place - 1:
            inside = 1
        else:
            continue
        changes.append(place)
    before = np.searchsorted(np.array(changes, np.int64), ends) & 1
    return ends[before == quoted] + 1, inside, int(not inside and ended == size - 1)


def _content(file: Any, start: int, size: int) -> tuple[Array, Array]:
    """A part of a file: with the byte before it (a newline at the file's start), and without."""
    content = file.read(size + 1, start - 1) if start else b"\n" + file.read(size, start)
    raw = np.frombuffer(content, np.uint8)
    return raw, raw[1:]


def _begin_fields(raw: Array, places: Array, quotes: _Quotes, newline: int, start: int) -> Array:
    """Which of the quotes at these positions are the first character of a field."""
    before = raw[places]  # raw begins one byte earlier
    begins: Array = (before == quotes.delimiter) | (before == newline)
    if start == 0:
        top = len(_MARK) if raw[1 : 1 + len(_MARK)].tobytes() == _MARK else 0
        begins |= places == top
    return begins


def _without_blank(file: Any, offsets: Array, newline: int) -> Array:
    """The offsets without those of blank rows, which then belong to the previous row."""
    file = walking(file)
    sizes = np.diff(offsets)
    blank = sizes == 1
    if newline == _NEWLINE and b"\r" in file.read(_CHUNK, 0):
        for k in np.flatnonzero(sizes == 2).tolist():
            blank[k] = file.read(2, int(offsets[k])) == b"\r\n"
    if len(offsets) > 1 and offsets[-1] - offsets[-2] == 1:  # one character without a line end
        blank[-1] = file.read(1, int(offsets[-2])) == bytes([newline])
    keep = np.append(~blank, True)
    kept: Array = offsets[keep]
    kept[0] = 0  # blank rows at the top belong to the first row
    return kept
