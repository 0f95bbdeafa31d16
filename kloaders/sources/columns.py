"""One value for each sample, from an array, a list, files or a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import visible
from kloaders.core.rows import Report, copy_into_row
from kloaders.core.structure import (
    ArraySpec,
    Structure,
    cast,
    flatten,
)
from kloaders.formats import files
from kloaders.formats.errors import DecodeError
from kloaders.formats.mapped_rows import FileRows, place_in_file
from kloaders.places.fetching import Claim
from kloaders.sources.lazy import LazyColumn
from kloaders.sources.path_lists import PackedPaths

__all__ = [
    "ArrayColumn",
    "CallColumn",
    "CastColumn",
    "Column",
    "ListColumn",
    "OneHotColumn",
    "PathColumn",
    "ReadPath",
    "SubsetColumn",
    "close_column",
    "fetch_ahead",
    "fetches",
    "in_ram",
    "inner_column",
    "labels_of",
    "lengths_of",
    "prefetch",
    "spec_of_all",
    "take_rows",
    "values_of",
]


class Column(Protocol):
    """The values of all samples. Several threads may use it, and it can be pickled."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Array:
        """The value of one sample, as a new array."""

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        """Write the value of sample indices[r] to row r of `out`; report rows that fail."""

    def name(self, index: int) -> str:
        """A readable name for this value, for messages."""


class ArrayColumn:
    """Rows of an array. A memory map is not copied; if its file was truncated, reading it is an error.

    class_names: the names of the classes, if the values are class numbers.
    """

    def __init__(self, array: Array, class_names: list[str] | None = None) -> None:
        self.array, self.class_names = array, class_names
        self.file = FileRows.of(array)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> Array:
        if self.file is not None:
            self.file.check(index)
        return np.array(self.array[index, ...])  # an array even for a single text

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if self.file is not None:
            try:
                self.file.check()
            except DecodeError:
                self._fill_one_by_one(self.file, indices, out, report)
                return
        if self.array.flags.c_contiguous:
            # The default mode="raise" would use a buffer and take twice as long.
            self.array.take(indices, axis=0, out=out, mode="clip")
        else:  # take would copy the whole array first
            out[...] = self.array[indices]

    def _fill_one_by_one(
        self, file: FileRows, indices: Indices, out: Array, report: Report
    ) -> None:
        for row, index in enumerate(indices.tolist()):
            try:
                file.check(index)
                out[row] = self.array[index]
            except (DecodeError, OSError) as error:
                report(row, error)

    def name(self, index: int) -> str:
        return f"row {index}" if self.file is None else f"row {index} of {self.file.path}"

    def known_values(self) -> Array:
        """The values of all samples."""
        return self.array

    def __getstate__(self) -> Any:
        # A pickled memory map contains all its data; the file's name is enough.
        a = self.array
        place = place_in_file(a)
        whole = {"array": a, "class_names": self.class_names}
        return whole if place is None else {"map": (place[0], a.dtype, place[1], a.shape)}

    def __setstate__(self, state: Any) -> None:
        if "map" in state:
            name, dtype, offset, shape = state["map"]
            self.__init__(np.memmap(name, dtype, "r", offset, shape))  # type: ignore[misc]  # for unpickling
        else:
            self.__init__(**state)  # type: ignore[misc]  # for unpickling


class ListColumn:
    """A list with one array per sample; shapes may differ between batches."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = list(arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def read(self, index: int) -> Array:
        return np.array(self.arrays[index])

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for row, index in enumerate(indices.tolist()):
            copy_into_row(np.asarray(self.arrays[index]), out, row, leaf, report)

    def name(self, index: int) -> str:
        return f"row {index}"


class CastColumn:
    """The values of a column in another dtype."""

    def __init__(self, column: Column, dtype: np.dtype[Any]) -> None:
        self.column = column
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.column)

    def read(self, index: int) -> Array:
        value: Array = cast(self.column.read(index), self.dtype)
        return value

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if isinstance(self.column, ArrayColumn) and self.column.file is None:
            out[...] = self.column.array[indices]
            return
        if isinstance(self.column, LazyColumn):  # it casts while copying
            self.column.fill(indices, out, leaf, report)
            return
        for row, index in enumerate(indices.tolist()):
            copy_into_row(self.read(index), out, row, leaf, report)

    def name(self, index: int) -> str:
        return self.column.name(index)

    def known_values(self) -> Array | None:
        """The values of all samples, if the column knows them."""
        values = values_of(self.column)
        return None if values is None else cast(values, self.dtype)


def in_ram(column: Any) -> tuple[Array, Any] | None:
    """The array whose rows a column delivers, before a cast, and the row numbers (None: all rows).

    None if the column does not deliver rows of an array in RAM.
    """
    if isinstance(column, CastColumn):
        return in_ram(column.column)
    if isinstance(column, SubsetColumn):
        found = in_ram(column.column)
        if found is None:
            return None
        array, numbers = found
        return array, column.numbers if numbers is None else numbers[column.numbers]
    if isinstance(column, ArrayColumn) and column.file is None:
        return column.array, None
    return None


# read(path, out) -> array: `out` itself if the value was written there, otherwise a new array.
ReadPath = Callable[[str, "Array | None"], Any]


class PathColumn:
    """One file per sample."""

    def __init__(self, paths: PackedPaths, read: ReadPath) -> None:
        self.paths = paths
        self.read_path = read

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        return np.asarray(self.read_path(self.paths[index], None))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for_rows = getattr(self.read_path, "for_rows", None)
        read = self.read_path if for_rows is None else for_rows(out)
        paths = stall_watch.at_each(self, indices, self.paths.at(indices))
        # Iterating over `out` is three times as fast as indexing, but gives scalars if it has one dimension.
        rows = out if out.ndim > 1 else (out[k, ...] for k in range(len(out)))
        for row, (path, target) in enumerate(zip(paths, rows, strict=False)):
            try:
                got = read(path, target)
            except Exception as error:  # a user's hook failed for this sample
                report(row, error)
                continue
            if got is not target:
                copy_into_row(np.asarray(got), out, row, leaf, report)

    def name(self, index: int) -> str:
        return self.paths[index]

    def with_paths(self, paths: PackedPaths) -> PathColumn:
        """A column that reads other files in the same way."""
        return PathColumn(paths, self.read_path)


class CallColumn:
    """A function of the path that returns numbers."""

    def __init__(self, function: Callable[[str], Any], paths: PackedPaths) -> None:
        self.function = function
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        value = np.asarray(self.function(self.paths[index]))
        if value.dtype.kind in "USO":
            raise ValueError(
                f"the labels function returned {value.tolist()!r:.80} for {visible(self.paths[index])}, "
                "expected a number, as for the first path: return only numbers, only class "
                "names or only paths."
            )
        return value

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for row, index in enumerate(indices.tolist()):
            try:
                copy_into_row(self.read(index), out, row, leaf, report)
            except Exception as error:
                report(row, error)

    def name(self, index: int) -> str:
        return self.paths[index]

    def known_values(self) -> Array:
        """The values of all samples."""
        return np.asarray([self.read(k) for k in range(len(self))])


class SubsetColumn:
    """Some values of a column, selected by number without copying."""

    def __init__(self, column: Column, numbers: Array) -> None:
        self.column = column
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Array:
        return self.column.read(int(self.numbers[index]))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        self.column.fill(self.numbers[indices].astype(np.int64), out, leaf, report)

    def name(self, index: int) -> str:
        return self.column.name(int(self.numbers[index]))

    def known_values(self) -> Array | None:
        """The values of the selected samples, if the column knows them."""
        values = values_of(self.column)
        return None if values is None else values[self.numbers]


class OneHotColumn:
    """One-hot rows, made when they are read."""

    def __init__(self, column: Column, classes: int) -> None:
        self.column = column
        self.classes = classes

    def __len__(self) -> int:
        return len(self.column)

    def read(self, index: int) -> Array:
        row = np.zeros(self.classes, np.float32)
        row[int(self.column.read(index))] = 1
        return row

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        codes = np.empty(len(indices), np.int32)
        self.column.fill(indices, codes, leaf, report)
        out[...] = 0
        out[np.arange(len(codes)), codes] = 1

    def name(self, index: int) -> str:
        return self.column.name(index)

    def known_values(self) -> Array | None:
        """The class of every sample, as a number."""
        return values_of(self.column)


def labels_of(columns: Structure | None) -> Array | None:
    """The values of y, if y is a single array that is known without reading files."""
    if columns is None or len(columns) < 2:
        return None
    leaves = flatten(columns[1])
    return values_of(leaves[0]) if len(leaves) == 1 else None


def lengths_of(column: Any) -> Array | None:
    """The length of the first axis of each array in a list of arrays; None for other columns."""
    if isinstance(column, SubsetColumn):
        found = lengths_of(column.column)
        return None if found is None else found[column.numbers]
    column = getattr(column, "column", column)  # below a cast
    if isinstance(column, ListColumn):
        return np.array([len(a) for a in column.arrays], np.int64)
    return None


def values_of(column: Any) -> Array | None:
    """The values of a column of numbers; None for files, lists and large values."""
    values: Callable[[], Array | None] | None
    values = getattr(column, "known_values", None)
    return None if values is None else values()


def prefetch(column: Column, indices: Indices) -> None:
    """Tell the kernel which samples will be read soon, so that it begins to read their files."""
    if isinstance(column, SubsetColumn):
        prefetch(column.column, column.numbers[indices])
    elif isinstance(column, CastColumn):
        prefetch(column.column, indices)
    elif isinstance(column, PathColumn) and not fetches(column):
        for index in indices.tolist():
            files.read_ahead(column.paths[index])


def fetches(column: Any) -> bool:
    """Whether values are remote, and have to be fetched."""
    return hasattr(inner_column(column), "fetch_ahead")


def fetch_ahead(column: Any, indices: Indices) -> Sequence[Claim]:
    """Begin to fetch remote values; see `Source.fetch_ahead`."""
    if isinstance(column, SubsetColumn):
        return fetch_ahead(column.column, column.numbers[indices].astype(np.int64))
    if hasattr(column, "fetch_ahead"):
        return [column.fetch_ahead(indices)]
    inner = getattr(column, "column", None)
    return () if inner is None else fetch_ahead(inner, indices)


def take_rows(column: Column, numbers: Indices) -> Column:
    """Select values of a column by number; a column of files remains one."""
    if isinstance(column, PathColumn):
        return column.with_paths(column.paths.take(numbers))
    if isinstance(column, CallColumn):
        return CallColumn(column.function, column.paths.take(numbers))
    return SubsetColumn(column, numbers)


def close_column(column: Any) -> None:
    """Close open files, including those of columns inside this one."""
    while column is not None:
        if hasattr(column, "close"):
            column.close()
        column = getattr(column, "column", None)


def inner_column(column: Any) -> Any:
    """The innermost column, below any selection or cast."""
    while hasattr(column, "column"):
        column = column.column
    return column


def spec_of_all(column: Column, spec: ArraySpec) -> ArraySpec:
    """The spec of one value, with None for dimensions in which values in RAM differ."""
    inner: Any = column
    while not isinstance(inner, ListColumn):
        inner = getattr(inner, "column", None)  # the column below a selection or cast
        if inner is None:
            return spec
    sides = {array.shape for array in inner.arrays if len(array.shape) == len(spec.shape)}
    return ArraySpec(
        tuple(n if len({s[k] for s in sides}) == 1 else None for k, n in enumerate(spec.shape)),
        spec.dtype,
    )
