"""Columns of a CSV file without quotes, read from its bytes many rows at a time, without a str for each."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.byte_search import found_at
from kloaders.sources.path_lists import PackedPaths

__all__ = ["PlainColumn", "joined_column", "parsed", "plain_columns"]

# The number of rows that are processed at a time; their bytes stay in the processor's cache.
_ROWS = 8192
# The number of bytes that are compared at a time, as one number; and the longest value compared this way.
_WORD, _LONGEST = 8, 64
# With more distinct values than this, or if more than half of the first values differ, a dict is faster.
_DISTINCT, _FIRST = 1 << 16, 8192
_LOW = np.array([(1 << 8 * k) - 1 for k in range(_WORD + 1)], np.uint64)


def plain_columns(content: bytes, delimiter: str) -> tuple[list[str], list[PlainColumn]] | None:
    """The names and columns of a file without quotes, which is split at each delimiter.

    None if this is not possible: quotes, blank lines, lines of different lengths, invalid UTF-8.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    if any(mark in content for mark in (b'"', b"\r", b"\0")) or content[:1] in b"\n":
        return None
    if not content.endswith(b"\n"):
        content += b"\n"
    if not content.isascii():
        try:
            content.decode()
        except UnicodeDecodeError:
            return None
    names = content[: content.index(b"\n")].decode().split(delimiter)
    raw, width = np.frombuffer(content, np.uint8), len(names)
    places = found_at(raw, ord(delimiter), ord("\n"))
    if len(raw) < 2**32:
        places = places.astype(np.uint32)
    marks = raw[places]
    if len(marks) % width or not (marks.reshape(-1, width) == marks[:width]).all():
        return None
    ends = places.reshape(-1, width)
    if width == 1 and (np.diff(ends[:, 0]) == 1).any():  # a blank line
        return None
    return names, [PlainColumn(content, ends, k) for k in range(width)]


def joined_column(joined: bytes, sizes: Indices) -> PlainColumn | None:
    """Texts of these lengths in bytes, joined by newlines, as a column.

    None if one is empty or contains a newline or NUL character, or if all of them may be numbers.
    """
    if not len(sizes) or sizes.min() == 0 or b"\0" in joined:
        return None
    if joined.count(b"\n") != len(sizes) - 1:
        return None
    kind = np.uint32 if len(joined) < 2**32 - 2 else np.int64
    ends: Indices = np.zeros((len(sizes) + 1, 1), kind)
    ends[1:, 0] = np.cumsum(sizes + 1)
    column = PlainColumn(b"\n" + joined + b"\n", ends, 0)
    return column if column.is_text else None


class PlainColumn:
    """The values of one column. If all texts are numbers, they become numbers; an empty one is None.

    content: the content of the file, without NUL characters. ends: where the fields of each row end,
    including the row of names. number: the number of the column.
    """

    def __init__(self, content: bytes, ends: Indices, number: int) -> None:
        self._content = content
        self._ends: Indices = ends[1:, number]
        self._before: Indices = ends[:-1, -1] if number == 0 else ends[1:, number - 1]
        self._alone = ends.shape[1] == 1

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Any]:
        if self.codes is None:
            return iter(self._items)
        values, codes = self.codes
        return (values[k] for k in codes)

    def tolist(self) -> list[Any]:
        """The values as a list."""
        if self.codes is None:
            return list(self._items)
        values, codes = self.codes
        return list(map(values.__getitem__, codes.tolist()))

    def to_numpy(self) -> Array:
        """The values as an array of numbers, or of objects: texts and None."""
        values, codes = self.codes or (self._items, None)
        texts = any(isinstance(value, str) for value in values)
        array = np.array(values, object) if texts else np.asarray(values)
        return array if codes is None else array[codes]

    # ------------------------------------------------------------------ without a str per row value

    @cached_property
    def is_text(self) -> bool:
        """Whether all values are strings and none is None; False if this takes more than a quick check."""
        return len(self) > 0 and self._sizes.min() > 0 and not _is_number(self._text(0))

    def has(self, character: str) -> bool:
        """Whether any value contains this ASCII character."""
        mark = character.encode()
        return mark in self._content and mark in self._block()

    def begins_with(self, *characters: str) -> bool:
        """Whether any non-empty value begins with one of these ASCII characters."""
        first = np.frombuffer(self._content, np.uint8)[self._before + 1]
        return any((first == ord(character)).any() for character in characters)

    def packed(self, prefix: str = "") -> PackedPaths:
        """The values as paths, each after this prefix; None becomes an empty path."""
        before = prefix.encode("utf-8", "surrogateescape")
        ends: Indices = np.cumsum(self._sizes + (1 + len(before)), dtype=np.int64)
        ends -= 1
        return PackedPaths.of_block(self._block(before), ends)

    @cached_property
    def codes(self) -> tuple[list[Any], Indices] | None:
        """The distinct texts in sorted order, parsed; and the index into them for each row.

        None if some are empty, if there are many distinct ones, or if they are long.
        """
        sizes = self._sizes
        if not len(self) or sizes.min() == 0 or sizes.max() > _LONGEST:
            return None
        count, codes = 1, None
        for words in self._words(-(-int(sizes.max()) // _WORD)):
            found = _numbered(words)
            if found is not None and codes is not None:  # combine with the preceding bytes
                found = _numbered(codes * found[0] + found[1])
            if found is None:
                return None
            count, codes = found
        rows = np.empty(count, np.int64)
        rows[codes] = np.arange(len(self))  # any row with this text
        texts = [self._text(row) for row in rows.tolist()]
        order = sorted(range(count), key=texts.__getitem__)
        places = np.empty(count, np.int64)
        places[order] = np.arange(count)
        return parsed([texts[k] for k in order]), places[codes]

    # ------------------------------------------------------------------ bytes

    @cached_property
    def _items(self) -> list[Any]:
        texts: list[Any] = self._block().decode().split("\0")[:-1]
        return parsed([text or None for text in texts] if "" in texts else texts)

    @cached_property
    def _sizes(self) -> Indices:
        sizes: Indices = self._ends - self._before
        sizes -= 1
        return sizes

    def _text(self, row: int) -> str:
        return self._content[int(self._before[row]) + 1 : int(self._ends[row])].decode()

    def _parts(self) -> Iterator[tuple[slice, int, int]]:
        """Groups of rows, and the start and end of their bytes in the file, including the last delimiter."""
        for first in range(0, len(self), _ROWS):
            rows = slice(first, min(first + _ROWS, len(self)))
            yield rows, int(self._before[rows.start]) + 1, int(self._ends[rows.stop - 1]) + 1

    def _block(self, before: bytes = b"") -> bytes:
        """All fields, each preceded by `before` and followed by a NUL character."""
        found = []
        for rows, start, stop in self._parts():
            raw = np.frombuffer(self._content, np.uint8)[start:stop].copy()
            begins, ends = self._before[rows] + 1 - start, self._ends[rows] - start
            raw[ends] = 0
            if not self._alone:
                turns = np.zeros(len(raw) + 1, np.uint8)
                turns[begins] = turns[ends + 1] = 1
                # Inside a field, the number of preceding turns is odd.
                raw = raw[np.bitwise_xor.accumulate(turns[:-1]).view(bool)]
            fields = raw.tobytes()
            if before:
                fields = before + fields[:-1].replace(b"\0", b"\0" + before) + b"\0"
            found.append(fields)
        return b"".join(found)

    def _words(self, count: int) -> Iterator[Array]:
        """Eight bytes of every field as a number, then the next eight; 0 for bytes after its end."""
        words = np.empty((count, len(self)), np.uint64)
        for rows, start, stop in self._parts():
            piece = self._content[start:stop] + bytes(count * _WORD)
            at_each = np.ndarray((len(piece) - _WORD + 1,), "<u8", piece, 0, (1,))
            begins, left = self._before[rows] + 1 - start, self._sizes[rows]
            for k in range(count):
                inside = left > k * _WORD
                size = np.minimum(left - k * _WORD, _WORD, where=inside, out=np.zeros_like(left))
                words[k, rows] = at_each[begins + k * _WORD] & _LOW[size]
        return iter(words)


def _numbered(keys: Array) -> tuple[int, Indices] | None:
    """The number of distinct keys, and the index of each key; None if there are too many."""
    if len(np.unique(keys[:_FIRST])) > _FIRST // 2:
        return None
    distinct = np.unique(keys)
    return None if len(distinct) > _DISTINCT else (len(distinct), np.searchsorted(distinct, keys))


def parsed(column: list[Any]) -> list[Any]:
    """Texts as integers if possible, else as floats, else unchanged."""
    for kind in (int, float):
        try:
            return [None if value is None else kind(value) for value in column]
        except ValueError:
            continue
    return column


def _is_number(text: str) -> bool:
    """Whether a text may be a number; float() also accepts all integers."""
    try:
        float(text)
    except ValueError:
        return False
    return True
