"""Columns of a CSV file without quotes, where they lie among its bytes: many rows at a time, no str for each."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.byte_search import found_at
from kloaders.sources.path_lists import PackedPaths

__all__ = ["PlainColumn", "parsed", "plain_columns"]

# Rows at a time, whose bytes stay in the processor's cache.
_ROWS = 8192
# Bytes that are compared at a time, as one number; and the longest value that is compared so.
_WORD, _LONGEST = 8, 64
# With more distinct values than this, or with more than half of the first few, a dict is faster.
_DISTINCT, _FIRST = 1 << 16, 8192
_LOW = np.array([(1 << 8 * k) - 1 for k in range(_WORD + 1)], np.uint64)


def plain_columns(content: bytes, delimiter: str) -> tuple[list[str], list[PlainColumn]] | None:
    """Names and columns of a file that is split at each delimiter.

    None where there is more to it: quotes, blank lines, lines of another length, no UTF-8.
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


class PlainColumn:
    """The values of one column. Texts that are all numbers are numbers, an empty one is None.

    content: of the file; has no NUL character. ends: where the fields of each row end, the row of
    names too. number: of the column.
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
        """The values."""
        if self.codes is None:
            return list(self._items)
        values, codes = self.codes
        return list(map(values.__getitem__, codes.tolist()))

    def to_numpy(self) -> Array:
        """Numbers, or objects: texts, and None."""
        values, codes = self.codes or (self._items, None)
        texts = any(isinstance(value, str) for value in values)
        array = np.array(values, object) if texts else np.asarray(values)
        return array if codes is None else array[codes]

    # ------------------------------------------------------------------ without a str for each

    @cached_property
    def is_text(self) -> bool:
        """Whether all values are texts, and none is None; False where that is not known at once."""
        return len(self) > 0 and self._sizes.min() > 0 and not _is_number(self._text(0))

    def has(self, character: str) -> bool:
        """Whether this ASCII character is in a value."""
        mark = character.encode()
        return mark in self._content and mark in self._block()

    def begins_with(self, *characters: str) -> bool:
        """Whether a value that is not empty begins with one of these ASCII characters."""
        first = np.frombuffer(self._content, np.uint8)[self._before + 1]
        return any((first == ord(character)).any() for character in characters)

    def packed(self, prefix: str = "") -> PackedPaths:
        """The values as paths, each behind this prefix; None is an empty one."""
        before = prefix.encode("utf-8", "surrogateescape")
        ends: Indices = np.cumsum(self._sizes + (1 + len(before)), dtype=np.int64)
        ends -= 1
        return PackedPaths.of_block(self._block(before), ends)

    @cached_property
    def codes(self) -> tuple[list[Any], Indices] | None:
        """Values, distinct texts in sorted order, and which of them each row has.

        None where some are empty, where many are distinct, or long.
        """
        sizes = self._sizes
        if not len(self) or sizes.min() == 0 or sizes.max() > _LONGEST:
            return None
        count, codes = 1, None
        for words in self._words(-(-int(sizes.max()) // _WORD)):
            found = _numbered(words)
            if found is not None and codes is not None:  # with the bytes before them
                found = _numbered(codes * found[0] + found[1])
            if found is None:
                return None
            count, codes = found
        rows = np.empty(count, np.int64)
        rows[codes] = np.arange(len(self))  # one for each
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
        """Some rows, and between which bytes of the file their fields are, the mark behind included."""
        for first in range(0, len(self), _ROWS):
            rows = slice(first, min(first + _ROWS, len(self)))
            yield rows, int(self._before[rows.start]) + 1, int(self._ends[rows.stop - 1]) + 1

    def _block(self, before: bytes = b"") -> bytes:
        """All fields, each behind `before` and followed by a NUL character."""
        found = []
        for rows, start, stop in self._parts():
            raw = np.frombuffer(self._content, np.uint8)[start:stop].copy()
            begins, ends = self._before[rows] + 1 - start, self._ends[rows] - start
            raw[ends] = 0
            if not self._alone:
                turns = np.zeros(len(raw) + 1, np.uint8)
                turns[begins] = turns[ends + 1] = 1
                # From each begin to its end an odd number of turns is behind.
                raw = raw[np.bitwise_xor.accumulate(turns[:-1]).view(bool)]
            fields = raw.tobytes()
            if before:
                fields = before + fields[:-1].replace(b"\0", b"\0" + before) + b"\0"
            found.append(fields)
        return b"".join(found)

    def _words(self, count: int) -> Iterator[Array]:
        """Eight bytes of every field as a number, then the next eight; 0 for those behind its end."""
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
    """How many distinct ones there are, and the number of each; None if there are too many."""
    if len(np.unique(keys[:_FIRST])) > _FIRST // 2:
        return None
    distinct = np.unique(keys)
    return None if len(distinct) > _DISTINCT else (len(distinct), np.searchsorted(distinct, keys))


def parsed(column: list[Any]) -> list[Any]:
    """Texts as integers, else as floats, else as they are."""
    for kind in (int, float):
        try:
            return [None if value is None else kind(value) for value in column]
        except ValueError:
            continue
    return column


def _is_number(text: str) -> bool:
    """Whether it may be one; whatever is an integer is a float, too."""
    try:
        float(text)
    except ValueError:
        return False
    return True
