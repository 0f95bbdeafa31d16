"""One value for each sample, from an array, a list, files or a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, overload

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, copy_into_row
from kloaders.core.structure import (
    ArraySpec,
    Structure,
    flatten,
    is_numeric,
    map_structure,
)
from kloaders.formats import files
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.formats.mapped_rows import FileRows, place_in_file

__all__ = [
    "ArrayColumn",
    "CallColumn",
    "CastColumn",
    "Column",
    "ListColumn",
    "OneHotColumn",
    "PackedPaths",
    "PathColumn",
    "SubsetColumn",
    "SubsetPaths",
    "columns_of",
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
    """Values of all samples. Threads share it; it pickles."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Array:
        """The value of one sample, a fresh array."""

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        """Row r of `out` becomes the value of sample indices[r]; what fails is reported."""

    def name(self, index: int) -> str:
        """What a person would call this value; for messages."""


class ArrayColumn:
    """Rows of an array; a memory map stays one, and where its file is cut short, that is an error."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.file = FileRows.of(array)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> Array:
        if self.file is not None:
            self.file.check(index)
        return np.array(self.array[index])

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if self.file is not None:
            fits = out.dtype == self.array.dtype and out.flags.c_contiguous
            if fits and self.file.readable:
                for row, error in self.file.fill(indices, out):
                    report(row, error)
                return
            try:
                self.file.check()
            except DecodeError:
                self._fill_one_by_one(self.file, indices, out, report)
                return
        if self.array.flags.c_contiguous:
            # The default mode="raise" would go through a buffer and take twice as long.
            self.array.take(indices, axis=0, out=out, mode="clip")
        else:  # take would copy all of it first
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
        # A memory map pickles as a copy of all its data; the file's name is enough.
        a = self.array
        place = place_in_file(a)
        return {"array": a} if place is None else {"map": (place[0], a.dtype, place[1], a.shape)}

    def __setstate__(self, state: Any) -> None:
        if "map" in state:
            name, dtype, offset, shape = state["map"]
            self.__init__(np.memmap(name, dtype, "r", offset, shape))  # type: ignore[misc]
        else:
            self.__init__(state["array"])  # type: ignore[misc]


class ListColumn:
    """One array a sample, in a list; shapes may differ from batch to batch."""

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
        return self.column.read(index).astype(self.dtype, copy=False)

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if isinstance(self.column, ArrayColumn) and self.column.file is None:
            out[...] = self.column.array[indices]
            return
        for row, index in enumerate(indices.tolist()):
            copy_into_row(self.read(index), out, row, leaf, report)

    def name(self, index: int) -> str:
        return self.column.name(index)


def in_ram(column: Any) -> tuple[Array, Any] | None:
    """The array whose rows a column delivers, before a cast, and which rows (None: all).

    None where it delivers no rows of an array in RAM.
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


class PackedPaths(Sequence[str]):
    """Millions of paths in one block of bytes: 5 bytes a path beside its own (9 above 4 GiB).

    A list of str costs 57 bytes a path beside its characters, and as many objects for the
    garbage collector to walk.
    """

    def __init__(self, paths: Iterable[Any], what: str = "paths") -> None:
        try:
            # One join over the whole list; surrogates carry names that are not UTF-8.
            items = paths if isinstance(paths, (list, tuple)) else list(paths)
            if items and not isinstance(items[0], str):
                items = [os.fspath(p) for p in items]
            text = "\0".join(items) + "\0" if items else ""
        except TypeError:
            bad = next((k, p) for k, p in enumerate(items) if not isinstance(p, (str, os.PathLike)))
            raise TypeError(
                f"{what}[{bad[0]}] is {bad[1]!r} ({type(bad[1]).__name__}), expected a file's path "
                "as str or pathlib.Path. For arrays use ArraySequenceLoader."
            ) from None
        self._bytes = text.encode("utf-8", "surrogateescape")
        del text
        found = np.flatnonzero(np.frombuffer(self._bytes, np.uint8) == 0)
        self._ends = found.astype(np.uint32 if len(self._bytes) < 2**32 else np.int64)
        if len(self._ends) != len(items):
            bad_path = next(p for p in items if "\0" in p)
            raise ValueError(
                f"the path {bad_path!r} holds a NUL character, which no file name can."
            )

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: slice | SupportsIndex) -> list[str] | str:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = int(index)
        if k < 0:
            k += len(self)
        if not 0 <= k < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        start = int(self._ends[k - 1]) + 1 if k else 0
        return self._bytes[start : int(self._ends[k])].decode("utf-8", "surrogateescape")

    def take(self, indices: Indices) -> PackedPaths:
        """The paths at these positions, packed."""
        return PackedPaths([self[k] for k in indices.tolist()])

    def joined(self) -> bytes:
        """All paths, each with a NUL character behind it."""
        return self._bytes

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return len(self._bytes) + self._ends.nbytes


class SubsetPaths(Sequence[str]):
    """Some of the paths, by number; nothing is copied."""

    def __init__(self, paths: Sequence[str], numbers: Array) -> None:
        self._paths = paths
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: slice | SupportsIndex) -> list[str] | str:
        if isinstance(index, slice):
            return [self._paths[k] for k in self._numbers[index].tolist()]
        try:
            return self._paths[int(self._numbers[index])]
        except IndexError:
            raise IndexError(f"path {index} of {len(self)}") from None

    def joined(self) -> bytes:
        """All paths, each with a NUL character behind it."""
        return b"".join(f"{path}\0".encode("utf-8", "surrogateescape") for path in self)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, the shared paths included."""
        return int(getattr(self._paths, "nbytes", 0)) + self._numbers.nbytes


# read(path, out) -> array: `out` itself where the value was put there, else another array.
ReadPath = Callable[[str, "Array | None"], Any]


class PathColumn:
    """One file a sample."""

    def __init__(self, paths: PackedPaths, read: ReadPath) -> None:
        self.paths = paths
        self.read_path = read

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        return np.asarray(self.read_path(self.paths[index], None))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        read, paths = self.read_path, self.paths
        for row, index in enumerate(indices.tolist()):
            stall_watch.at(self, index)
            target = out[row, ...]
            try:
                got = read(paths[index], target)
            except Exception as error:  # whatever a user's hook raises belongs to the sample
                report(row, error)
                continue
            if got is not target:
                copy_into_row(np.asarray(got), out, row, leaf, report)

    def name(self, index: int) -> str:
        return self.paths[index]


class CallColumn:
    """A function of the path."""

    def __init__(self, function: Callable[[str], Any], paths: PackedPaths) -> None:
        self.function = function
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        value = np.asarray(self.function(self.paths[index]))
        if value.dtype.kind in "USO":
            raise ValueError(
                f"the labels function gave {value.tolist()!r} for {self.paths[index]}, expected "
                "numbers: return the class's number, as in labels=lambda path: names.index(...)."
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
    """Some values of a column, by number; nothing is copied."""

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
        """The values of the chosen samples, where the column knows them."""
        values = values_of(self.column)
        return None if values is None else values[self.numbers]


class OneHotColumn:
    """Rows of zeros with a one at the class, made when they are asked for."""

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
    """The values of y, where they are one array that is known without reading any file."""
    if columns is None or len(columns) < 2:
        return None
    leaves = flatten(columns[1])
    return values_of(leaves[0]) if len(leaves) == 1 else None


def lengths_of(column: Any) -> Array | None:
    """The first axis of each value of a list of arrays; None for other columns."""
    if isinstance(column, SubsetColumn):
        found = lengths_of(column.column)
        return None if found is None else found[column.numbers]
    column = getattr(column, "column", column)  # cast
    if isinstance(column, ListColumn):
        return np.array([len(a) for a in column.arrays], np.int64)
    return None


def values_of(column: Any) -> Array | None:
    """The values of a column of numbers; None for files, lists and large values."""
    values: Callable[[], Array | None] | None
    values = getattr(column, "known_values", None)
    return None if values is None else values()


def prefetch(column: Column, indices: Indices) -> None:
    """These samples will be read soon: where they are files, the kernel is told to begin."""
    if isinstance(column, SubsetColumn):
        prefetch(column.column, column.numbers[indices])
    elif isinstance(column, CastColumn):
        prefetch(column.column, indices)
    elif isinstance(column, PathColumn):
        for index in indices.tolist():
            files.read_ahead(column.paths[index])


def take_rows(column: Column, numbers: Indices) -> Column:
    """Some values of a column, by number; columns of files stay such."""
    if isinstance(column, PathColumn):
        return PathColumn(column.paths.take(numbers), column.read_path)
    if isinstance(column, CallColumn):
        return CallColumn(column.function, column.paths.take(numbers))
    return SubsetColumn(column, numbers)


def columns_of(
    values: Structure,
    what: Literal["x", "paths", "labels", "sample_weights"],
    read: ReadPath | None = None,
    paths: PackedPaths | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Structure:
    """A column for every leaf of what a user gave.

    read: reads files, for leaves that are paths. paths: what a labels function is applied to.
    dtype: what arrays are cast to; `read` does so itself.
    """
    if dtype is not None:
        return map_structure(
            lambda c: c if isinstance(c, PathColumn) else CastColumn(c, dtype),
            columns_of(values, what, read, paths),
        )
    # A tuple of strings or numbers is one column that happens to be a tuple.
    if isinstance(values, tuple) and values and np.isscalar(values[0]):
        values = list(values)
    if isinstance(values, dict):
        return {k: columns_of(v, what, read, paths) for k, v in values.items()}
    if isinstance(values, tuple):
        return tuple(columns_of(v, what, read, paths) for v in values)
    return _column(values, what, read, paths)


def _column(values: Any, what: str, read: ReadPath | None, paths: PackedPaths | None) -> Column:
    if callable(values) and paths is not None:
        return CallColumn(values, paths)
    if isinstance(values, PackedPaths):
        assert read is not None
        return PathColumn(values, read)
    if isinstance(values, _PATH) and read is None:
        raise TypeError(
            f"{what} is the text {os.fspath(values)!r}, expected arrays: np.load(path, "
            'mmap_mode="r") maps an .npy file of many samples. For one file a sample use '
            "PathSequenceLoader."
        )
    if isinstance(values, _PATH):
        raise TypeError(
            f"{what} is the single path {os.fspath(values)!r}, expected a list: [{what}]. All files "
            "of a folder are sorted(glob.glob(folder + '/*')), or use from_directory()."
        )
    if hasattr(values, "toarray"):  # SciPy's sparse matrices
        raise TypeError(
            f"{what} is a sparse {type(values).__name__}: a batch is dense, {what}.toarray(), or "
            "made row by row in load_sample()."
        )
    if not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise TypeError(
            f"{what} is a {type(values).__name__}, expected something with a length and an "
            f"order: an array, a list, or a tuple or dict of these. list({what}) makes one."
        )
    first = values[0] if isinstance(values, list) and values else None
    if isinstance(first, _PATH):
        return _texts(values, what, read)
    if isinstance(first, np.ndarray) and first.ndim:
        return _arrays_in_a_list(values, what)
    array = values if isinstance(values, np.ndarray) else _array(values, what)
    if array.dtype.kind in "USO":
        if array.ndim != 1 and array.dtype.kind in "US":
            raise ValueError(
                f"{what} holds texts in an array of shape {array.shape}, expected one for each "
                f"sample: {what}.ravel(), or a tuple of columns for several."
            )
        items = values if isinstance(values, list) else array.tolist()
        if array.dtype.kind == "S" and len(items):
            items = [os.fsdecode(item) for item in items]
        _check_mixture(items, what)
        if items and isinstance(items[0], _PATH):
            return _texts(items, what, read)
        empty = next((k for k, item in enumerate(items) if item is None), None)
        if empty is not None:
            raise TypeError(f"{what}[{empty}] is None: every sample needs a value.")
        raise _object(what)
    if not is_numeric(array.dtype):
        raise TypeError(
            f"{what} has dtype {array.dtype}, which Keras cannot take: convert it to numbers first."
        )
    if array.ndim == 0:
        raise ValueError(f"{what} is the single number {array}, expected one value a sample.")
    column = ArrayColumn(array)
    if array.dtype.isnative:
        return column
    return CastColumn(column, array.dtype.newbyteorder("="))


_PATH = (str, os.PathLike)


def _arrays_in_a_list(values: list[Any], what: str) -> Column:
    _check_mixture(values, what)
    for k, value in enumerate(values):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        if not isinstance(value, np.ndarray) or not is_numeric(value.dtype):
            raise TypeError(
                f"{what}[{k}] is {value!r} ({kind}), expected an array of numbers, one a sample."
            )
    return ListColumn(values)


def _check_mixture(items: list[Any], what: str) -> None:
    """Paths, or none: what stands among paths and is none is named."""
    if any(isinstance(item, _PATH) for item in items):
        for k, item in enumerate(items):
            if not isinstance(item, _PATH):
                raise TypeError(
                    f"{what}[{k}] is {item!r} ({type(item).__name__}), expected str or "
                    "pathlib.Path like the others."
                )


def _array(values: Any, what: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError:  # a ragged list
        if isinstance(values, list):
            _check_mixture(values, what)
            raise ValueError(
                f"{what} is a list whose entries have different lengths: give one numpy array a "
                f"sample, [np.asarray(v) for v in {what}], and a batch of equal shapes, or pad them."
            ) from None
        raise
    if array.dtype == np.float64 and isinstance(values, (list, tuple)):
        # Python's floats carry no choice of precision; Keras' own default does.
        return array.astype(np.float32)
    return array


def _object(what: str) -> TypeError:
    return TypeError(
        f"{what} has dtype object, which can't be put into a batch: use numbers, one numeric array "
        f"a sample in a list, or np.stack({what}) where all have one shape."
    )


def _texts(values: list[Any], what: str, read: ReadPath | None) -> Column:
    suffix = suffix_of(os.fspath(values[0]))
    known = suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES
    if what == "labels" and not known and getattr(read, "decode", None) is None:
        raise ValueError(
            f"labels are texts such as {values[0]!r}, expected numbers (or paths of files). Encode "
            "them: names, labels = np.unique(labels, return_inverse=True); from_directory() and "
            "from_dataframe() do it for you. For files of a format of your own, pass "
            'label_options={"decode": a function of their bytes}.'
        )
    if read is None:
        raise TypeError(
            f"{what} are texts such as {values[0]!r}, expected arrays. For files use "
            "PathSequenceLoader."
        )
    return PathColumn(PackedPaths(values, what), read)


def inner_column(column: Any) -> Any:
    """The column below one that takes some of its values, or casts them."""
    while hasattr(column, "column"):
        column = column.column
    return column


def spec_of_all(column: Column, spec: ArraySpec) -> ArraySpec:
    """The spec of one value, with None for dimensions in which values in RAM are known to differ."""
    inner: Any = column
    while not isinstance(inner, ListColumn):
        inner = getattr(inner, "column", None)  # of some rows, or cast
        if inner is None:
            return spec
    sides = {array.shape for array in inner.arrays if len(array.shape) == len(spec.shape)}
    return ArraySpec(
        tuple(n if len({s[k] for s in sides}) == 1 else None for k, n in enumerate(spec.shape)),
        spec.dtype,
    )
