"""Samples that are lines of text files, or rows of CSV files, of which nothing stays in RAM."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import visible
from kloaders.core.rows import Report, Rows, copy_into_row, report_at
from kloaders.core.structure import Structure, as_sample, cast, flatten, map_structure
from kloaders.formats.lines import LineFiles
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source
from kloaders.sources.tables import listed

__all__ = ["CsvSource", "LineSource"]


class LineSource(Source):
    """Lines of text files.

    Args:
        lines: the files.
        encoding: of the text.
        decode: a function of a line that gives x or (x, y); None where hooks do that.
        dtype: of x; None keeps what `decode` gives.
    """

    runs_user_code = True

    def __init__(
        self,
        lines: LineFiles,
        encoding: str,
        decode: Callable[[str], Any] | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        self.lines, self.encoding, self.decode = lines, encoding, decode
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.lines)

    def read(self, index: int) -> Any:
        assert self.decode is not None
        return self.decode(self.text([index])[0])

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        parts = as_sample(self.read(index))
        return parts if self.dtype is None else (cast(parts[0], self.dtype), *parts[1:])

    def text(self, indices: Any) -> list[str]:
        """The lines of these sample numbers, in this order, without their ends."""
        lines = self.lines.lines(np.asarray(indices, np.int64))
        # Blank rows are with the row before, and those at the top with the first.
        ends = "\r\n" if self.lines.rows else ""
        return [
            line.decode(self.encoding).removeprefix("\ufeff").rstrip("\r\n").lstrip(ends)
            for line in lines
        ]

    def name(self, index: int) -> str:
        return self.lines.name(index)

    def extent(self) -> Iterable[Array]:
        return self.lines.extent()

    def close(self) -> None:
        self.lines.close()


class CsvSource(LineSource):
    """Rows of CSV files, whose numbers NumPy's parser reads many rows at a time.

    Args:
        lines: the files, by row.
        files: their paths.
        x, y: names of columns; see `CsvSequenceLoader`, as for the others.
    """

    runs_user_code = False
    reads_many = True

    def __init__(
        self,
        lines: LineFiles,
        files: list[str],
        x: Any,
        y: Any,
        *,
        classes: Mapping[Any, Sequence[str]] | None,
        missing: float | None,
        header: bool,
        delimiter: str,
        quote: str | None,
        encoding: str,
        dtype: np.dtype[Any] | None,
    ) -> None:
        super().__init__(lines, encoding, dtype=dtype)
        self.files, self.delimiter, self.quote, self.missing = files, delimiter, quote, missing
        #: What the columns are called.
        self.names: list[Any] = self._names_of_columns(header)
        self._codes = {
            self._position(name, "classes"): {text: k for k, text in enumerate(texts)}
            for name, texts in (classes or {}).items()
        }
        self._read: Structure = self._chosen(x, y)
        self._numbers = sorted(
            {p for leaf in flatten(self._read) for p in leaf.positions} - set(self._codes)
        )

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        parts = self.batch(np.array([index], np.int64))
        found: tuple[Any, ...] = map_structure(lambda a: np.asarray(a)[0], parts)
        return found

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        stall_watch.at(self, int(indices[0]) if len(indices) else 0)
        try:
            leaves = flatten(self.batch(indices))
        except Exception as error:  # asked for again one by one, to find the row at fault
            if len(indices) == 1:
                report(0, error)
                return
            for row in range(len(indices)):
                one = slice(row, row + 1)
                self.fill(indices[one], out.part(one), report_at(report, row), moment)
            return
        for leaf, rows in enumerate(leaves):
            array = out.arrays[leaf]
            if rows.shape[1:] == array.shape[1:] and rows.dtype == array.dtype:
                array[...] = rows
            else:
                for row in range(len(rows)):
                    copy_into_row(rows[row], array, row, leaf, report)

    def batch(self, indices: Indices) -> tuple[Any, ...]:
        """Several samples at once: (x,) or (x, y), each with one row for each of `indices`."""
        lines = self.text(indices)
        numbers = self._parsed(lines) if self._numbers else np.empty((len(lines), 0))
        where = {position: k for k, position in enumerate(self._numbers)}
        rows = self.fields(lines) if self._codes else []
        codes = {
            position: self._coded(rows, position, known) for position, known in self._codes.items()
        }

        def column(position: int) -> Array:
            found: Array = codes[position] if position in codes else numbers[:, where[position]]
            return found

        def array(leaf: _Leaf) -> Array:
            if leaf.alone:
                return column(leaf.positions[0])
            if not codes and leaf.positions == self._numbers:
                return numbers
            return np.stack([column(p) for p in leaf.positions], axis=1).astype(np.float32)

        parts: tuple[Any, ...] = map_structure(array, self._read)
        return parts if self.dtype is None else (cast(parts[0], self.dtype), *parts[1:])

    def fields(self, lines: list[str]) -> list[list[str]]:
        """The fields of these rows."""
        if self.quote is None:
            return [line.split(self.delimiter) for line in lines]
        # Each is a whole row: the ends of lines in it are in quotes.
        return list(csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote))

    # ------------------------------------------------------------------ columns

    def _names_of_columns(self, header: bool) -> list[Any]:
        known: list[Any] = []
        for path, head in zip(self.files, self.lines.heads, strict=True):
            text = head.decode(self.encoding).removeprefix("\ufeff").strip("\r\n")
            fields = self.fields([text])[0]
            names: list[Any] = fields if header else list(range(len(fields)))
            if known and names != known:
                raise ValueError(
                    f"{visible(path)} has the columns {listed(names)}, and {visible(self.files[0])} has "
                    f"{listed(known)}: files of one loader need the same ones in the same order."
                )
            known = names
        return known

    def _position(self, name: Any, what: str) -> int:
        if name not in self.names:
            raise ValueError(
                f"{what} names the column {name!r:.80}, and {visible(self.files[0])} has {listed(self.names)}."
            )
        return self.names.index(name)

    def _chosen(self, x: Any, y: Any) -> tuple[Structure, ...]:
        def leaf(given: Any, what: str) -> _Leaf:
            alone = isinstance(given, (str, int))
            names = [given] if alone else list(given)
            if not names:
                raise ValueError(f"{what} is an empty list: name columns.")
            return _Leaf([self._position(name, what) for name in names], alone)

        labels = None if y is None else map_structure(lambda given: leaf(given, "y"), y)
        if x is None:
            taken = {p for one in flatten(labels) for p in one.positions} if y is not None else ()
            x = [name for k, name in enumerate(self.names) if k not in taken]
        inputs = map_structure(lambda given: leaf(given, "x"), x)
        return (inputs,) if labels is None else (inputs, labels)

    # ------------------------------------------------------------------ parsing

    def _parsed(self, lines: list[str]) -> Array:
        """The columns of numbers, float32."""

        def parse(texts: list[str]) -> Array:
            found: Array = np.loadtxt(
                texts,
                dtype=np.float32,
                comments=None,
                delimiter=self.delimiter,
                usecols=self._numbers,
                ndmin=2,
                quotechar=self.quote,
            )
            if len(found) < len(texts):  # a row of nothing
                raise ValueError("a row has no fields")
            return found

        try:
            try:
                return parse(lines)
            except ValueError:
                if self.missing is None:
                    raise
                return parse(self._without_gaps(lines))
        except ValueError as error:
            if len(lines) > 1:  # asked for again one by one, to find the row at fault
                raise
            raise ValueError(self._what_is_wrong(lines[0], error)) from None

    def _without_gaps(self, lines: list[str]) -> list[str]:
        """Rows with a number in every empty field."""
        mark = re.escape(self.delimiter)
        blank = "" if self.delimiter.isspace() else " *"
        gap = re.compile(rf"(?:(?<={mark})|^){blank}(?={mark}|$)")
        number = repr(float(self.missing or 0.0))
        if self.quote is not None and any(self.quote in line for line in lines):
            rows = [[field.strip() or number for field in row] for row in self.fields(lines)]
            return [_quoted(row, self.delimiter, self.quote) for row in rows]
        return [gap.sub(number, line) for line in lines]

    def _what_is_wrong(self, line: str, error: ValueError) -> str:
        fields = self.fields([line])[0]
        if len(fields) != len(self.names):
            return f"it has {len(fields)} fields, expected {len(self.names)}, as in the first row."
        for position in self._numbers:
            text = fields[position]
            try:
                float(text)
            except ValueError:
                name = self.names[position]
                if not text.strip():
                    return f"column {name!r:.80} is empty, expected a number: pass missing=, such as 0.0."
                return (
                    f"column {name!r:.80} holds {text[:60]!r:.80}, expected a number: choose other columns "
                    f"by x= and y=, or pass classes={{{name!r:.80}: [...]}}, the texts that it may hold."
                )
        return str(error)

    def _coded(self, rows: list[list[str]], position: int, known: dict[str, int]) -> Array:
        try:
            return np.array([known[row[position]] for row in rows], np.int32)
        except (KeyError, IndexError):
            for row in rows:
                if len(row) <= position:
                    raise ValueError(
                        f"it has {len(row)} fields, expected {len(self.names)}, as in the first "
                        "row."
                    ) from None
                if row[position] not in known:
                    raise ValueError(
                        f"column {self.names[position]!r:.80} holds {row[position]!r:.80}, which is not "
                        f"among its classes: {listed(list(known))}."
                    ) from None
            raise


class _Leaf:
    """Columns that make one array; alone: a number a sample, not a row."""

    def __init__(self, positions: list[int], alone: bool) -> None:
        self.positions = positions
        self.alone = alone


def _quoted(fields: list[str], delimiter: str, quote: str) -> str:
    return delimiter.join(f"{quote}{field.replace(quote, 2 * quote)}{quote}" for field in fields)
