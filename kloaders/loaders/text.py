"""Loaders over lines of text files and rows of CSV files, larger than RAM."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.structure import Structure, flatten, map_structure
from kloaders.formats.lines import LineFiles
from kloaders.loaders.sequence import Options, SequenceLoader, _flag, check_names
from kloaders.loaders.tfrecords import files_of
from kloaders.sources import fingerprint
from kloaders.sources.tables import listed

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CsvSequenceLoader", "TextLineSequenceLoader"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]


class _Lines(SequenceLoader):
    """Samples that are lines of files."""

    _lines: LineFiles
    files: list[str]
    encoding: str

    def read_lines(self, indices: Any) -> list[str]:
        """The lines of these sample numbers, in this order, without their ends.

        Neighbours in a file are read by one call. Threads may share it.

        Raises:
            DecodeError: a file has changed since the loader was made.
            UnicodeDecodeError: a line is not text in `encoding`.
        """
        lines = self._lines.lines(np.asarray(indices, np.int64))
        # Blank rows are with the row before, and those at the top with the first.
        ends = "\r\n" if self._lines.rows else ""
        return [
            line.decode(self.encoding).removeprefix("\ufeff").rstrip("\r\n").lstrip(ends)
            for line in lines
        ]

    def _overrides(self, hook: str) -> bool:
        # The class that reads lines, of which the user's is a child.
        own = CsvSequenceLoader if isinstance(self, CsvSequenceLoader) else TextLineSequenceLoader
        return getattr(type(self), hook) is not getattr(own, hook)

    def _name(self, index: int) -> str:
        return self._lines.name(index)

    def _data_fingerprint(self) -> dict[str, str]:
        return {
            "data": fingerprint.of_names(self._name, self.samples, self._lines.extent()),
        }

    def _release(self) -> None:
        super()._release()
        self._lines.close()


class TextLineSequenceLoader(_Lines):
    """Batches of lines of text files, in any order: one line a sample.

    Where each line begins is looked up once, by all cores (about a second a gigabyte), and kept
    beside the file, as `.NAME.lines.index`. Then any line is one read away; of the text nothing
    stays in RAM, of the index 8 bytes a line.

    Args:
        files: a path, a pattern such as `part-*.txt`, or a list of these. Files of a pattern are
            sorted by name.
        decode: a function of a line, a str without its end, that gives x or (x, y), such as
            `lambda line: json.loads(line)["values"]`. Or override a hook.
        batch_size: samples a batch.
        encoding: of the text; UTF-8, or another in which a newline is the byte 10.
        index_folder: where to keep indexes; None: beside the files, or in a cache folder of the
            user's where that is not allowed.
        **options: see `SequenceLoader`.

    Lines differ in length: `bucket_by_length` pads what `decode` gives.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, compressed or UTF-16.
    """

    def __init__(
        self,
        files: Any,
        decode: Callable[[str], Any] | None = None,
        batch_size: int = 32,
        *,
        encoding: str = "utf-8",
        index_folder: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(self, options, (*Options.__annotations__, "decode", "encoding", "index_folder"))
        if decode is not None and not callable(decode):
            raise TypeError(f"decode={decode!r} is not a function of a line of text.")
        hooked = self._overrides("load_sample") or self._overrides("load_batch")
        if decode is None and not hooked:
            raise TypeError(
                f"{type(self).__name__}() got no decode=, a function of a line that gives numbers: "
                "x, or (x, y). A batch holds numeric arrays, no text."
            )
        self.decode = decode
        self.encoding = encoding
        #: The files, in the order of their samples.
        self.files = files_of(files, "text files", "part-*.txt")
        folder = None if index_folder is None else os.fspath(index_folder)
        self._lines = LineFiles(self.files, index_folder=folder)
        super().__init__(len(self._lines), batch_size, **options)

    def load_sample(self, index: int) -> Any:
        """One sample from its line: x, or a tuple (x, y). Override it, or pass `decode=`.

        `self.read_lines([index])` gives the line. For a tokenizer that takes many texts at once,
        override `load_batch(indices)` and give it `self.read_lines(indices)`.
        """
        assert self.decode is not None
        return self.decode(self.read_lines([index])[0])

    def _runs_users_code(self) -> bool:
        return True


class CsvSequenceLoader(_Lines):
    """Batches of rows of CSV files, in any order: one row a sample.

    Where each row begins is looked up once, by all cores (about a second a gigabyte), and kept
    beside the file, as `.NAME.rows*.index`. Ends of lines in quotes are part of a row, blank rows
    are none. Then any row is one read away; of the table nothing stays in RAM, of the index 8 bytes
    a row. Numbers are parsed by NumPy's C parser, a batch in one call.

    Args:
        files: a path, a pattern such as `part-*.csv`, or a list of these, with the same columns.
        x: the columns of the input: a list of names makes a row of float32, one name a number.
            A tuple or dict of these makes several inputs. None takes all columns but those of y.
        y: the columns of the label, likewise. None for none.
        batch_size: samples a batch.
        classes: what the texts of columns mean, {"species": ["cat", "dog"]}: the number of a text
            in its list stands for it, as int32 where a column is alone.
        missing: the number for an empty field; None: a sample with one does not load.
        header: the first row has the names. False: columns are named by number, from 0.
        delimiter: between fields, one character.
        quote: around fields, one character; None: quotes have no meaning.
        encoding: of the text; UTF-8, or another in which newlines, delimiters and quotes are ASCII.
        index_folder: where to keep indexes; None: beside the files, or in a cache folder of the
            user's where that is not allowed.
        **options: see `SequenceLoader`. dtype: of x; labels are float32, or int32 of `classes`.

    `columns` lists the names. Override `load_sample(index)`, and there
    `self.read_rows([index])`, which gives lists of str, for what these options do not do.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, compressed, or ends inside of quotes.
        ValueError: there is no such column, or files have other columns than the first.
    """

    def __init__(
        self,
        files: Any,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        *,
        classes: Mapping[Any, Sequence[str]] | None = None,
        missing: float | None = None,
        header: bool = True,
        delimiter: str = ",",
        quote: str | None = '"',
        encoding: str = "utf-8",
        index_folder: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(
            self,
            options,
            (*Options.__annotations__, *(CsvSequenceLoader.__init__.__kwdefaults__ or {})),
        )
        self.encoding = encoding
        self.delimiter = _one_character(delimiter, "delimiter")
        self.quote = None if quote is None else _one_character(quote, "quote")
        self.missing = missing
        #: The files, in the order of their samples.
        self.files = files_of(files, "CSV files", "part-*.csv")
        folder = None if index_folder is None else os.fspath(index_folder)
        self._lines = LineFiles(self.files, True, self.quote, _flag(header, "header"), folder)
        #: What the columns are called.
        self.columns: list[Any] = self._names_of_columns(header)
        self._codes = {
            self._position(name, "classes"): {text: k for k, text in enumerate(texts)}
            for name, texts in (classes or {}).items()
        }
        self._read: Structure = self._chosen(x, y)
        self._numbers = sorted(
            {p for leaf in flatten(self._read) for p in leaf.positions} - set(self._codes)
        )
        super().__init__(len(self._lines), batch_size, **options)
        if isinstance(y, (str, int)) and classes and y in classes:
            self.class_names = list(classes[y])

    # ------------------------------------------------------------------ columns

    def _names_of_columns(self, header: bool) -> list[Any]:
        known: list[Any] = []
        for path, head in zip(self.files, self._lines.heads, strict=True):
            text = head.decode(self.encoding).removeprefix("\ufeff").strip("\r\n")
            fields = self._fields([text])[0]
            names: list[Any] = fields if header else list(range(len(fields)))
            if known and names != known:
                raise ValueError(
                    f"{path} has the columns {listed(names)}, and {self.files[0]} has "
                    f"{listed(known)}: files of one loader need the same ones in the same order."
                )
            known = names
        return known

    def _position(self, name: Any, what: str) -> int:
        if name not in self.columns:
            raise ValueError(
                f"{what} names the column {name!r}, and {self.files[0]} has {listed(self.columns)}."
            )
        return self.columns.index(name)

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
            x = [name for k, name in enumerate(self.columns) if k not in taken]
        inputs = map_structure(lambda given: leaf(given, "x"), x)
        return (inputs,) if labels is None else (inputs, labels)

    # ------------------------------------------------------------------ samples

    def read_rows(self, indices: Any) -> list[list[str]]:
        """The fields of these rows, in this order."""
        return self._fields(self.read_lines(indices))

    def load_batch(self, indices: Indices) -> Any:
        """Several samples at once, as `x` and `y` say. Override it, or `load_sample(index)`."""
        lines = self.read_lines(indices)
        numbers = self._parsed(lines) if self._numbers else np.empty((len(lines), 0))
        where = {position: k for k, position in enumerate(self._numbers)}
        rows = self._fields(lines) if self._codes else []
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
        return parts if len(parts) > 1 else parts[0]

    def _overrides(self, hook: str) -> bool:
        # This class reads whole batches, unless a child reads sample by sample.
        if hook == "load_batch" and not super()._overrides("load_sample"):
            return True
        return super()._overrides(hook)

    def _runs_users_code(self) -> bool:
        hooked = super()._overrides("load_sample") or super()._overrides("load_batch")
        return self.transform is not None or hooked

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
            rows = [[field.strip() or number for field in row] for row in self._fields(lines)]
            return [_quoted(row, self.delimiter, self.quote) for row in rows]
        return [gap.sub(number, line) for line in lines]

    def _what_is_wrong(self, line: str, error: ValueError) -> str:
        fields = self._fields([line])[0]
        if len(fields) != len(self.columns):
            return (
                f"it has {len(fields)} fields, expected {len(self.columns)}, as in the first row."
            )
        for position in self._numbers:
            text = fields[position]
            try:
                float(text)
            except ValueError:
                name = self.columns[position]
                if not text.strip():
                    return (
                        f"column {name!r} is empty, expected a number: pass missing=, such as 0.0."
                    )
                return (
                    f"column {name!r} holds {text[:60]!r}, expected a number: choose other columns "
                    f"by x= and y=, or pass classes={{{name!r}: [...]}}, the texts that it may hold."
                )
        return str(error)

    def _coded(self, rows: list[list[str]], position: int, known: dict[str, int]) -> Array:
        try:
            return np.array([known[row[position]] for row in rows], np.int32)
        except (KeyError, IndexError):
            for row in rows:
                if len(row) <= position:
                    raise ValueError(
                        f"it has {len(row)} fields, expected {len(self.columns)}, as in the first "
                        "row."
                    ) from None
                if row[position] not in known:
                    raise ValueError(
                        f"column {self.columns[position]!r} holds {row[position]!r}, which is not "
                        f"among its classes: {listed(list(known))}."
                    ) from None
            raise

    def _fields(self, lines: list[str]) -> list[list[str]]:
        if self.quote is None:
            return [line.split(self.delimiter) for line in lines]
        # Each is a whole row: the ends of lines in it are in quotes.
        return list(csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote))


class _Leaf:
    """Columns that make one array; alone: a number a sample, not a row."""

    def __init__(self, positions: list[int], alone: bool) -> None:
        self.positions = positions
        self.alone = alone


def _one_character(value: Any, name: str) -> str:
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n":
        return value
    raise ValueError(f"{name}={value!r}, expected one ASCII character.")


def _quoted(fields: list[str], delimiter: str, quote: str) -> str:
    return delimiter.join(f"{quote}{field.replace(quote, 2 * quote)}{quote}" for field in fields)
