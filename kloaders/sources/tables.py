"""Reads columns of a table: a DataFrame, a dict of lists, a CSV or Parquet file."""

from __future__ import annotations

import csv
import difflib
import importlib
import io
import os
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import visible, warn
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, open_to_read, suffix_of
from kloaders.places import access
from kloaders.places.urls import is_url, local_path
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.plain_csv import PlainColumn, joined_column, parsed, plain_columns

__all__ = ["Table", "array_of", "categories_of", "encoded", "first_missing", "is_missing", "listed"]


class _Parquet:
    """Columns of a Parquet file, each read on first use."""

    def __init__(self, file: str) -> None:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ImportError(
                f"{visible(file)} needs pyarrow, which is not installed: pip install "
                '"kloaders[parquet]".'
            ) from None
        self.file = parquet.ParquetFile(local_path(file, "frame"))
        self.column_names = self.file.schema_arrow.names
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:  # a column of paths in a dict of inputs is asked for twice
            column = self.file.read(columns=[name])[name]
            self._read[name] = _plain(column) or column
        return self._read[name]


def _plain(column: Any) -> PlainColumn | None:
    """Texts of a Parquet file as bytes, without a str per row; None for other columns."""
    if str(column.type) not in ("string", "large_string") or column.null_count or not len(column):
        return None
    pyarrow = importlib.import_module("pyarrow")
    compute = importlib.import_module("pyarrow.compute")
    sizes = compute.binary_length(column).to_numpy().astype(np.int64)
    if sizes.sum() + len(sizes) >= 2**31:  # more than fits in one string of Arrow
        return None
    texts = pyarrow.concat_arrays(column.chunks)
    rows = pyarrow.ListArray.from_arrays(pyarrow.array([0, len(texts)], pyarrow.int32()), texts)
    joined = compute.binary_join(rows, pyarrow.scalar("\n", texts.type))[0]
    return joined_column(joined.as_buffer().to_pybytes(), sizes)


class Table:
    """The columns of a table."""

    def __init__(self, frame: Any) -> None:
        self.file: str | None = None
        self._numbers_of: dict[str, list[int]] = {}
        if isinstance(frame, (str, os.PathLike)):
            self.file = os.fspath(frame)
            if self.file.lower().endswith((".parquet", ".pq")):
                frame = _Parquet(self.file)
            else:
                frame, self._numbers_of = _read_csv(self.file)
        if not hasattr(frame, "__getitem__") or isinstance(frame, (list, tuple)):
            raise TypeError(
                f"frame is a {type(frame).__name__}, expected a DataFrame, a dict of lists, or the "
                "path of a CSV or Parquet file."
            )
        self.frame = frame
        self.rows: int | None = None

    def column(self, name: str) -> Array:
        """A column as an array, after checking that its length equals the others'."""
        array = array_of(self._series(name))
        if array.ndim != 1:
            raise ValueError(
                f"column {name!r:.80} has shape {array.shape}, expected one value per row. For several "
                "labels pass a list of columns: label_column=[...]."
            )
        self._count(name, len(array))
        missing = first_missing(array)
        if missing is not None:
            raise ValueError(
                f"{self._row(missing)}: the value of column {name!r:.80} is missing. Fill it in, or "
                f"drop such rows first{'' if self.file else f': frame.dropna(subset=[{name!r:.80}])'}."
            )
        return array

    def _series(self, name: str) -> Any:
        """A column in the table's own type."""
        names = self._names()
        if names is not None and name not in names:
            close = difflib.get_close_matches(str(name), [str(n) for n in names], 1)
            meant = f" Did you mean {close[0]!r:.80}?" if close else ""
            raise ValueError(
                f"the table has no column {name!r:.80}, it has {listed([str(n) for n in names])}."
                + meant
            )
        twice = self._numbers_of.get(name, [])
        if len(twice) > 1:
            raise ValueError(
                f"{visible(self.file)} has {len(twice)} columns called {name!r:.80} (numbers "
                f"{' and '.join(map(str, twice))}, counted from 0), so it is unclear which is meant: rename "
                "the others."
            )
        return self.frame[name]

    def items(self, name: str) -> list[Any]:
        """The values of a column, unconverted, in a list."""
        found = _items(self._series(name))
        self._count(name, len(found))
        return found

    def _count(self, name: str, rows: int) -> None:
        """Check that a column is as long as the others."""
        if self.rows is not None and rows != self.rows:
            raise ValueError(
                f"lengths differ: column {name!r:.80} has {rows} values, others {self.rows}."
            )
        self.rows = rows

    def row(self, k: int) -> str:
        """A readable name for a row, for messages."""
        return self._row(k)

    def first(self, name: str) -> Any:
        """The first value of a column that is not missing; None if all are."""
        series = self._series(name)
        dtype = getattr(series, "dtype", None)
        if isinstance(dtype, np.dtype) and dtype.kind != "O":
            return None if not len(series) else np.asarray(series)[0]
        items = series if isinstance(series, PlainColumn) else _items(series)
        return next((v for v in items if _is_there(v)), None)

    def paths(self, name: str, folder: str | None) -> list[Any]:
        items: list[Any] = self.column(name).tolist()
        if not _all_texts(items):
            for k, item in enumerate(items):
                if not isinstance(item, (str, os.PathLike)):
                    raise TypeError(
                        f"{self._row(k)}: column {name!r:.80} holds {item!r:.80} "
                        f"({type(item).__name__}), expected a file's path."
                    )
            items = [os.fspath(item) for item in items]
        if folder is None:
            return items
        prefix, all_of_them = os.path.join(folder, ""), "\0".join(("", *items))
        # Testing a million paths one by one for absolute paths and URLs takes half a second.
        if not any(mark in all_of_them for mark in (":", "\0/", "\0\\")):
            return [prefix + item for item in items]
        return [item if os.path.isabs(item) or is_url(item) else prefix + item for item in items]

    def packed_paths(self, name: str, folder: str | None) -> PackedPaths | list[Any]:
        """The paths of a column; those of a plain CSV file in one block of bytes, without a str for each."""
        series = self._series(name)
        prefix = "" if folder is None else os.path.join(folder, "")
        if not isinstance(series, PlainColumn) or not series.is_text:
            return self.paths(name, folder)
        if any(mark in prefix for mark in "*\0") or series.has("*"):
            return self.paths(name, folder)
        if folder is not None and (series.has(":") or series.begins_with("/", "\\")):
            return self.paths(name, folder)
        self._count(name, len(series))
        return series.packed(prefix)

    def labels(self, name: str, class_names: list[str] | None) -> tuple[Array, list[str] | None]:
        """Labels as numbers, and the class names if they are texts."""
        series = self._series(name)
        found = series.codes if isinstance(series, PlainColumn) else None
        class_names = class_names or categories_of(series)
        if found is not None and isinstance(found[0][0], str):
            self._count(name, len(series))
            names, codes = found
        else:
            array = self.column(name)
            if array.dtype.kind != "O" or not len(array) or not isinstance(array[0], str):
                return self._classes(self._numbers(array, name), name, class_names), class_names
            texts = array.tolist()
            if not _all_texts(texts):
                bad = next(k for k, text in enumerate(texts) if not isinstance(text, str))
                raise ValueError(
                    f"{self._row(bad)}: column {name!r:.80} holds {texts[bad]!r:.80}, expected a text as in "
                    "other rows: use only texts, or only numbers."
                )
            names, codes = encoded(texts)
        first = names[int(codes[0])]
        if class_names is None and suffix_of(first) in IMAGE_SUFFIXES | ARRAY_SUFFIXES:
            raise ValueError(
                f"column {name!r:.80} holds files such as {first!r:.80}, not labels: pass both columns "
                "to split(paths, masks), which reads a mask with each image."
            )
        unused = [] if class_names is None else sorted(set(class_names) - set(names))
        if unused:
            warn(
                f"no row of column {name!r:.80} has the class {listed(list(map(repr, unused)))}: it keeps "
                "its number."
            )
        if class_names is None:
            return codes.astype(np.int32), names
        numbers = {text: k for k, text in enumerate(class_names)}
        unknown = next((text for text in names if text not in numbers), None)
        if unknown is not None:
            row = int(np.argmax(codes == names.index(unknown)))
            raise ValueError(
                f"{self._row(row)}: {unknown!r:.80} in column {name!r:.80} is not among "
                f"class_names ({listed(list(class_names))})."
            )
        return np.array([numbers[text] for text in names], np.int32)[codes], list(class_names)

    def _classes(self, codes: Array, name: str, class_names: list[str] | None) -> Array:
        """Class numbers, checked against the class names."""
        if class_names is not None:
            bad = np.flatnonzero(~np.isin(codes, np.arange(len(class_names))))
            if len(bad):
                raise ValueError(
                    f"{self._row(int(bad[0]))}: {codes[bad[0]]} in column {name!r:.80} is not the number of "
                    f"a class in class_names, which are numbered from 0 to {len(class_names) - 1}. Leave "
                    "class_names out if labels are not classes."
                )
        return codes

    def numbers(self, name: str) -> Array:
        """A column of numbers."""
        return self._numbers(self.column(name), name)

    def _numbers(self, array: Array, name: str) -> Array:
        if array.dtype.kind == "O":
            items = array.tolist()
            bad = next((k for k, v in enumerate(items) if isinstance(v, str)), None)
            if bad is not None:
                raise ValueError(
                    f"{self._row(bad)}: column {name!r:.80} holds {items[bad]!r:.80}, expected a number. "
                    "Texts become class numbers only in a single label column that holds only texts."
                )
            array = np.asarray(items)
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"column {name!r:.80} holds {array.dtype}, expected numbers or texts: convert it first."
            )
        if array.dtype != np.float64:
            return array
        # float64 is a table's default and not the user's choice; Keras computes in float32. But large
        # integers, such as user IDs, which tables store as floats if some are missing, are kept exact.
        with np.errstate(over="ignore"):
            short = array.astype(np.float32)
        whole = (array == np.rint(array)) & (np.abs(array) < 2.0**53)
        return array if (whole & (short != array)).any() else short

    def _names(self) -> list[Any] | None:
        for names in ("columns", "column_names"):
            if hasattr(self.frame, names):
                return list(getattr(self.frame, names))
        if hasattr(self.frame, "keys"):
            return list(self.frame.keys())
        fields = getattr(getattr(self.frame, "dtype", None), "names", None)
        return None if fields is None else list(fields)

    def _row(self, k: int) -> str:
        # The header is line 1 of the file.
        return f"row {k} (counted from 0)" if self.file is None else f"{self.file}, row {k + 2}"


def categories_of(values: Any) -> list[str] | None:
    """The texts of a categorical column in their own order; None for other columns.

    Supports the categorical types of pandas and pyarrow, and polars' Enum.
    """
    found = getattr(getattr(values, "cat", None), "categories", None)
    if found is None:
        found = getattr(getattr(values, "dtype", None), "categories", None)
    if found is None and hasattr(getattr(values, "type", None), "index_type") and len(values):
        found = values.chunk(0).dictionary.to_pylist()
    names = None if found is None else list(found)
    return names if names and all(isinstance(name, str) for name in names) else None


def _items(values: Any) -> list[Any]:
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(values, method):
            return list(getattr(values, method)())
    return list(values)


def _is_there(value: Any) -> bool:
    return (hasattr(value, "__len__") and len(value) > 0) or not is_missing(value)


def array_of(values: Any) -> Array:
    """An array of numbers; of objects if there are texts, so that None and NaN are preserved."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if not isinstance(values, np.ndarray):
        values = list(values)
        if any(isinstance(value, str) for value in values):
            return np.array(values, object)
    array = np.asarray(values)
    return array.astype(str).astype(object) if array.dtype.kind in "SU" else array


def first_missing(array: Array) -> int | None:
    """The number of the first row without a value; None if there is none."""
    if array.dtype.kind == "f":
        bad = np.flatnonzero(np.isnan(array))
        return int(bad[0]) if len(bad) else None
    if array.dtype.kind == "O" and not _all_texts(items := array.tolist()):
        for k, value in enumerate(items):
            if type(value) is not str and is_missing(value):
                return k
    return None


def _all_texts(items: list[Any]) -> bool:
    """Whether all items are texts; takes 0.02 s for a million."""
    return all(issubclass(kind, str) for kind in set(map(type, items)))


def is_missing(value: Any) -> bool:
    # pandas.NA, NaT and NaN are not equal to themselves, or refuse to compare.
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  only NaN and NaT
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def _bytes_of(file: str) -> bytes:
    """The content of a file, or of an object by its URL."""
    if is_url(file):
        return access.read(file)
    with open(file, "rb", opener=open_to_read) as stream:
        return stream.read()


def _read_csv(file: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The columns of a CSV file with a header, and the positions of each name.

    A column holds numbers if all its values are numbers; empty values are None.
    """
    content, delimiter = _bytes_of(file), "\t" if file.lower().endswith(".tsv") else ","
    found = plain_columns(content, delimiter) or _csv_columns(content, delimiter, file)
    header, columns = found
    if not any(columns):
        raise ValueError(
            f"{visible(file)} has a row of names ({listed(header)}), but no other rows: add some."
        )
    places: dict[str, list[int]] = {}
    for k, name in enumerate(header):
        places.setdefault(name, []).append(k)
    return dict(zip(header, columns, strict=True)), places


def _csv_columns(content: bytes, delimiter: str, file: str) -> tuple[list[str], list[list[Any]]]:
    """The names and columns of any CSV file; an error names the line."""
    line = 0
    try:
        with io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, delimiter=delimiter)
            header = next(rows, None)
            if header is None:
                raise ValueError(
                    f"{visible(file)} is empty, expected a line with the columns' names first."
                )
            columns: list[list[Any]] = [[] for _ in header]
            for row in rows:
                line = rows.line_num
                if not row:  # a blank line
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"{visible(file)}, line {line}, has {len(row)} values, the header "
                        f"{len(header)}. Quote values that contain a comma."
                    )
                for column, value in zip(columns, row, strict=True):
                    column.append(value or None)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{visible(file)}, after line {line}, is not CSV in UTF-8: {error}. Save it in this format, or "
            "read it with pandas.read_csv() and pass the DataFrame."
        ) from None
    return header, [parsed(column) for column in columns]


def encoded(texts: list[Any]) -> tuple[list[Any], Indices]:
    """The sorted distinct values, and the index of each text in them; uses less memory than np.unique."""
    names = sorted(set(texts), key=str)
    numbers = {name: k for k, name in enumerate(names)}
    return names, np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


def listed(names: list[str]) -> str:
    """The first few names, and the number of others."""
    return ", ".join(map(visible, names[:8])) + (
        f" and {len(names) - 8} others" if len(names) > 8 else ""
    )
