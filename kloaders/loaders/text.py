"""Loaders over lines of text files and rows of CSV files, larger than RAM."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kloaders.core.arrays import Indices
from kloaders.core.checks import check_names, checked_dtype, checked_flag
from kloaders.core.options import Options, shows_options
from kloaders.formats.lines import LineFiles
from kloaders.formats.opening import opener_of
from kloaders.loaders.sequence import SequenceLoader
from kloaders.places.urls import local_path
from kloaders.sources.given_files import files_of
from kloaders.sources.hooks import default_hook, overrides
from kloaders.sources.lines import CsvSource, LineSource
from kloaders.sources.ranged import ranged

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CsvSequenceLoader", "TextLineSequenceLoader"]


class _Lines(SequenceLoader):
    """A loader whose samples are lines of files."""

    _lines: LineSource
    files: list[str]
    encoding: str

    def read_lines(self, indices: Any) -> list[str]:
        """The lines with these sample numbers, in this order, without line ends.

        Lines that are adjacent in a file are read with one call. Thread-safe.

        Raises:
            DecodeError: a file has changed since the loader was made.
            UnicodeDecodeError: a line is not text in `encoding`.
        """
        return self._lines.text(indices)


class TextLineSequenceLoader(_Lines):
    """Batches of lines of text files, in any order: one line per sample.

    An index of where each line begins is made once, with all cores (about a second per gigabyte), and
    stored next to the file, as `.NAME.lines.index`. After that any line takes one read. No text stays in
    RAM, only 8 bytes of index per line. Lines end with a newline, or, in files without newlines, with a
    carriage return.

    Args:
        files: a path, a pattern such as `part-*.txt`, or a list of these; or URLs, from which only the
            needed lines are fetched. Files of a pattern are sorted by name.
        decode: a function of a line, a str without its line end, that returns x or (x, y), such as
            `lambda line: json.loads(line)["values"]`. Or override a hook.
        batch_size: samples per batch.
        encoding: the text encoding: UTF-8, or another in which a newline is the byte 10.
        index_folder: folder for indexes; None: next to the files. For URLs, and if that is not
            writable, in the user's cache folder; with download_cache=, its folder `indexes`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        **options: see `SequenceLoader`.

    Lines differ in length: `bucket_by_length` pads the results of `decode`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, compressed or UTF-16.
    """

    @shows_options(Options)
    def __init__(
        self,
        files: Any,
        decode: Callable[[str], Any] | None = None,
        batch_size: int = 32,
        *,
        encoding: str = "utf-8",
        index_folder: str | os.PathLike[str] | None = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[Options],
    ) -> None:
        kind = type(self)
        known = (*Options.__annotations__, *(TextLineSequenceLoader.__init__.__kwdefaults__ or {}))
        known = (*known, "decode")
        check_names(kind.__name__, options, known)
        if decode is not None and not callable(decode):
            raise TypeError(f"decode={decode!r:.80} is not a function of a line of text.")
        hooked = overrides(kind, "load_sample") or overrides(kind, "load_batch")
        if decode is None and not hooked:
            raise TypeError(
                f"{kind.__name__}() got no decode=, a function of a line that returns numbers: "
                "x, or (x, y). A batch contains numeric arrays, not text."
            )
        self.decode = decode
        self.encoding = encoding
        #: The files, in the order of their samples.
        self.files = files_of(files, "text files", "part-*.txt")
        folder = None if index_folder is None else local_path(index_folder, "index_folder")
        opener = opener_of(self.files, download_cache, download_budget)
        lines = LineFiles(self.files, index_folder=opener.index_folder(folder), opener=opener)
        dtype = checked_dtype(options.get("dtype"))
        self._lines = LineSource(lines, encoding, decode, dtype)
        self._begin(ranged(self._lines, opener, lines.fetch_ahead), batch_size, options)

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One sample from its line: x, or a tuple (x, y). Override it, or pass `decode=`.

        `self.read_lines([index])` returns the line. For a tokenizer that takes many texts at once,
        override `load_batch(indices)`, and pass `self.read_lines(indices)` to it.
        """
        return self._lines.read(index)


class CsvSequenceLoader(_Lines):
    """Batches of rows of CSV files, in any order: one row per sample.

    An index of where each row begins is made once, with all cores (about a second per gigabyte), and
    stored next to the file, as `.NAME.rows*.index`. Line ends in quotes are part of a row; blank rows
    are ignored. After that any row takes one read. No row stays in RAM, only 8 bytes of index per row.
    NumPy's C parser parses numbers, with one call per batch.

    Args:
        files: a path, a pattern such as `part-*.csv`, or a list of these, with the same columns; or
            URLs, from which only the needed rows are fetched.
        x: the columns of the input: a list of names makes a float32 row, with one number per name. A
            tuple or dict of these makes several inputs. None uses all columns except those of y.
        y: the columns of the label, in the same form. None for none.
        batch_size: samples per batch.
        classes: the possible texts of columns, {"species": ["cat", "dog"]}: each text is replaced by
            its index in the list, as int32 if the column is an array by itself.
        missing: the number for an empty field; None: a sample with an empty field does not load.
        na_values: other texts that mean an empty field, such as ["NA", "null", "-"].
        label_dtype: the dtype of y; None: float32, or int32 for `classes`.
        header: the first row contains the names. False: columns are named by number, from 0.
        delimiter: the character between fields.
        quote: the character around fields; None: there are no quotes.
        encoding: the text encoding: UTF-8, or another in which newlines, delimiters and quotes are
            ASCII.
        index_folder: folder for indexes; None: next to the files. For URLs, and if that is not
            writable, in the user's cache folder; with download_cache=, its folder `indexes`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        **options: see `SequenceLoader`. dtype: the dtype of x; None: float32, or int32 for `classes`.

    A column may also be given by its number, counted from 0, which distinguishes two with the same name.
    Without a dtype, numbers are float32, which holds integers up to 2**24. A sample with an integer that
    would be rounded does not load: `dtype="int64"` keeps it.

    `columns` lists the names. For anything that these options do not support, override
    `load_sample(index)`, and call `self.read_rows([index])`, which returns lists of str.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, compressed, or ends inside quotes.
        ValueError: a column does not exist, or its name is not unique; there are no rows; or files
            have other columns than the first.
    """

    @shows_options(Options)
    def __init__(
        self,
        files: Any,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        *,
        classes: Mapping[Any, Sequence[str]] | None = None,
        missing: float | None = None,
        na_values: Sequence[str] = (),
        label_dtype: Any = None,
        header: bool = True,
        delimiter: str = ",",
        quote: str | None = '"',
        encoding: str = "utf-8",
        index_folder: str | os.PathLike[str] | None = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[Options],
    ) -> None:
        kind = type(self)
        known = (*Options.__annotations__, *(CsvSequenceLoader.__init__.__kwdefaults__ or {}))
        check_names(kind.__name__, options, known)
        self.encoding = encoding
        self.delimiter = _one_character(delimiter, "delimiter")
        self.quote = None if quote is None else _one_character(quote, "quote")
        self.missing = missing
        self.na_values = _texts(na_values, "na_values")
        labels = checked_dtype(label_dtype)
        if labels is not None and y is None:
            raise ValueError("label_dtype= is for y, but there is none: pass y=, or leave it out.")
        #: The files, in the order of their samples.
        self.files = files_of(files, "CSV files", "part-*.csv")
        folder = None if index_folder is None else local_path(index_folder, "index_folder")
        opener = opener_of(self.files, download_cache, download_budget)
        lines = LineFiles(
            self.files,
            True,
            self.quote,
            checked_flag(header, "header"),
            opener.index_folder(folder),
            delimiter=self.delimiter,
            opener=opener,
        )
        self._lines: CsvSource = CsvSource(
            lines,
            self.files,
            x,
            y,
            classes=classes,
            missing=missing,
            header=header,
            delimiter=self.delimiter,
            quote=self.quote,
            encoding=encoding,
            dtype=checked_dtype(options.get("dtype")),
            label_dtype=labels,
            na_values=self.na_values,
        )
        self._begin(ranged(self._lines, opener, lines.fetch_ahead), batch_size, options)
        if isinstance(y, (str, int)) and classes and y in classes:
            self.class_names = list(classes[y])

    @property
    def columns(self) -> list[Any]:
        """The names of the columns."""
        return self._lines.names

    def read_rows(self, indices: Any) -> list[list[str]]:
        """The fields of these rows, in this order."""
        return self._lines.fields(self.read_lines(indices))

    @default_hook
    def load_batch(self, indices: Indices) -> Any:
        """Several samples at once, according to `x` and `y`. Override it, or `load_sample(index)`."""
        parts = self._lines.batch(indices)
        return parts if len(parts) > 1 else parts[0]


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise TypeError(
            f'{name}={value!r:.80}, expected a list of strings, such as ["NA", "null"].'
        )
    return [text.strip() for text in value]


def _one_character(value: Any, name: str) -> str:
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n":
        return value
    raise ValueError(f"{name}={value!r:.80}, expected one ASCII character.")
