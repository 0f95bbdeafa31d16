"""Samples that are lines of text files, or rows of CSV files. The files are not kept in RAM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import shortened, visible
from kloaders.core.rows import Report, Rows, copy_into_row, report_at
from kloaders.core.structure import Structure, as_sample, cast, flatten, map_structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.lines import LineFiles
from kloaders.plan.rng import Moment
from kloaders.sources.csv_numbers import CsvNumbers, split_rows
from kloaders.sources.source import Source
from kloaders.sources.tables import listed

__all__ = ["CsvSource", "LineSource"]


class LineSource(Source):
    """Lines of text files.

    Args:
        lines: the files.
        encoding: the text encoding.
        decode: a function of a line that returns x or (x, y); None if hooks do this.
        dtype: the dtype of x; None keeps that of `decode`.
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
        """The lines with these sample numbers, in this order, without line breaks."""
        lines = self.lines.lines(np.asarray(indices, np.int64))
        # Blank lines belong to the row before them, and those at the top to the first row.
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
    """Rows of CSV files. NumPy's parser reads the numbers of many rows at a time.

    Args:
        lines: the files, by row.
        files: their paths.
        x, y: names of columns; see `CsvSequenceLoader`, also for the other arguments.
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
        label_dtype: np.dtype[Any] | None = None,
        na_values: Sequence[str] = (),
    ) -> None:
        super().__init__(lines, encoding, dtype=dtype)
        self.files, self.delimiter, self.quote = files, delimiter, quote
        self.label_dtype = label_dtype
        #: The names of the columns.
        self.names: list[Any] = self._names_of_columns(header)
        if not len(self):
            others = f" and {len(files) - 1:,} others" if len(files) > 1 else ""
            have = "have" if others else "has"
            raise ValueError(
                f"{files[0]}{others} {have} a row of names but no other rows: leave it out, or pass "
                "header=False if the first row has values."
            )
        self._codes = {
            self._position(name, "classes"): {text: k for k, text in enumerate(texts)}
            for name, texts in (classes or {}).items()
        }
        self._read: Structure = self._chosen(x, y)
        self._numbers = self._number_columns(
            delimiter=delimiter, quote=quote, missing=missing, na_values=na_values
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
        except Exception as error:  # read one row at a time to find the one at fault
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
        """Several samples at once: (x,) or (x, y), with one row for each of `indices`."""
        lines = self.text(indices)
        self._checked_counts(lines)
        numbers = {dtype: some.parsed(lines) for dtype, some in self._numbers.items()}
        rows = self.fields(lines) if self._codes else []
        codes = {
            position: self._coded(rows, position, known) for position, known in self._codes.items()
        }

        def column(position: int, dtype: np.dtype[Any] | None) -> Array:
            if position in codes:
                return codes[position]
            found: Array = numbers[dtype][:, self._numbers[dtype].positions.index(position)]
            return found

        def array(leaf: _Leaf) -> Array:
            if leaf.alone:
                return column(leaf.positions[0], leaf.dtype)
            parsed = numbers.get(leaf.dtype)
            if parsed is not None and leaf.positions == self._numbers[leaf.dtype].positions:
                return parsed
            kind = np.float32 if leaf.dtype is None else leaf.dtype
            return np.stack([column(p, leaf.dtype).astype(kind) for p in leaf.positions], axis=1)

        parts: tuple[Any, ...] = map_structure(array, self._read)
        if self.dtype is not None:
            parts = (cast(parts[0], self.dtype), *parts[1:])
        if self.label_dtype is not None and len(parts) > 1:
            parts = (parts[0], cast(parts[1], self.label_dtype))
        return parts

    def fields(self, lines: list[str]) -> list[list[str]]:
        """The fields of these rows."""
        return split_rows(lines, self.delimiter, self.quote)

    # ------------------------------------------------------------------ columns

    def _names_of_columns(self, header: bool) -> list[Any]:
        known: list[Any] = []
        for path, head in zip(self.files, self.lines.heads, strict=True):
            text = head.decode(self.encoding).removeprefix("\ufeff").strip("\r\n")
            try:
                fields = self.fields([text])[0]
            except ValueError as error:
                raise DecodeError(f"{path}: its first row cannot be read: {error}") from None
            names: list[Any] = fields if header else list(range(len(fields)))
            if known and names != known:
                raise ValueError(
                    f"{visible(path)} has the columns {listed(names)}, but {visible(self.files[0])} has "
                    f"{listed(known)}: files of one loader need the same columns in the same order."
                )
            known = names
        return known

    def _position(self, name: Any, what: str) -> int:
        """The position of a column, given its name or position."""
        places = [k for k, known in enumerate(self.names) if known == name]
        if len(places) > 1:
            numbers = " and ".join(map(str, places))
            raise ValueError(
                f"{what} names the column {name!r:.80}, but {visible(self.files[0])} has {len(places)} with "
                f"this name: pass its number, counted from 0 ({numbers}), such as "
                f"{what}={places[1]!r:.80}, or rename one in the file."
            )
        if places:
            return places[0]
        if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(self.names):
            return name
        raise ValueError(
            f"{what} names the column {name!r:.80}, but {visible(self.files[0])} has {listed(self.names)}."
        )

    def _chosen(self, x: Any, y: Any) -> tuple[Structure, ...]:
        def leaf(given: Any, what: str, dtype: np.dtype[Any] | None) -> _Leaf:
            alone = isinstance(given, (str, int))
            names = [given] if alone else list(given)
            if not names:
                raise ValueError(f"{what} is an empty list: name columns.")
            return _Leaf([self._position(name, what) for name in names], alone, dtype)

        labels = None
        if y is not None:
            labels = map_structure(lambda given: leaf(given, "y", self.label_dtype), y)
        if x is None:
            taken = {p for one in flatten(labels) for p in one.positions} if y is not None else ()
            x = [k for k in range(len(self.names)) if k not in taken]
        inputs = map_structure(lambda given: leaf(given, "x", self.dtype), x)
        return (inputs,) if labels is None else (inputs, labels)

    def _number_columns(self, **form: Any) -> dict[np.dtype[Any] | None, CsvNumbers]:
        """The parsers of the numeric columns, one for each dtype."""
        wanted: dict[np.dtype[Any] | None, set[int]] = {}
        options: dict[int, str] = {}
        for option, part in zip(("dtype", "label_dtype"), self._read, strict=False):
            for leaf in flatten(part):
                some = set(leaf.positions) - set(self._codes)
                if some:
                    wanted.setdefault(leaf.dtype, set()).update(some)
                for position in some:
                    options.setdefault(position, option)
        return {
            dtype: CsvNumbers(self.names, sorted(some), dtype, options, **form)
            for dtype, some in wanted.items()
        }

    # ------------------------------------------------------------------ parsing

    def _checked_counts(self, lines: list[str]) -> None:
        """Raise ValueError for a row with another number of fields, whose values would be shifted."""
        mark, quote = self.delimiter, self.quote
        counts = [line.count(mark) + 1 for line in lines]
        if quote is not None:
            quoted = [k for k, line in enumerate(lines) if quote in line]
            if quoted:
                rows = self.fields([lines[k] for k in quoted])
                if len(rows) != len(quoted):
                    raise ValueError(
                        "it ends inside a quoted field, whose closing quote is missing."
                    )
                for k, row in zip(quoted, rows, strict=True):
                    counts[k] = len(row)
        expected = len(self.names)
        wrong = next((count for count in counts if count != expected), None)
        if wrong is None:
            return
        advice = ""
        if wrong > expected:
            within = f"put fields that contain {mark!r} in quotes"
            advice = f" In the file {within}." if quote is not None else " Repair the file."
        raise ValueError(
            f"it has {wrong} fields, expected {expected}, as in the first row.{advice}"
        )

    def _coded(self, rows: list[list[str]], position: int, known: dict[str, int]) -> Array:
        try:
            return np.array([known[row[position]] for row in rows], np.int32)
        except KeyError:
            text = next(row[position] for row in rows if row[position] not in known)
            raise ValueError(
                f"column {self.names[position]!r:.80} holds {shortened(text, 80)!r:.80}, which is not "
                f"among its classes: {listed(list(known))}."
            ) from None


class _Leaf:
    """Columns that make one array. alone: one number per sample, rather than a row."""

    def __init__(self, positions: list[int], alone: bool, dtype: np.dtype[Any] | None) -> None:
        self.positions = positions
        self.alone = alone
        self.dtype = dtype
