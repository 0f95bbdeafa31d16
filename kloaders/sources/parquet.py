"""Samples that are rows of Parquet files, read in row groups. Recently used groups are cached in RAM."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import format_bytes
from kloaders.core.messages import warn
from kloaders.core.structure import Structure, flatten
from kloaders.formats.arrow import class_names_in, import_pyarrow, values_of
from kloaders.formats.errors import DecodeError, empty_file
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.ranges import RangeFile, RangeFiles
from kloaders.sources.encoded import Block, EncodedSource, column_of, part_of
from kloaders.sources.tables import listed

__all__ = ["ParquetSource", "ParquetTables"]


class ParquetTables:
    """The row groups of Parquet files.

    Args:
        paths: the files; all have the same columns.
        owner: the class that reads them, for error messages.
        opener: how the files are opened.

    Raises:
        DecodeError: a file is empty or not a Parquet file, or its columns differ from the first file's.
    """

    def __init__(self, paths: list[str], owner: str, opener: Opener = LOCAL) -> None:
        pa = import_pyarrow(owner)
        self.files = RangeFiles(paths, opener)
        self.metadata: list[Any] = []
        sizes: list[int] = []
        self._places: list[tuple[int, int]] = []
        for file, path in enumerate(paths):
            if not self.files.size(file):
                raise empty_file(path)
            try:
                found = pa.parquet.read_metadata(self._opened(file))
            except pa.ArrowException as error:
                raise DecodeError(f"{path} is not a Parquet file, or cut short: {error}") from None
            schema = found.schema.to_arrow_schema()
            if file == 0:
                self.schema = schema
            elif not schema.equals(self.schema):
                raise DecodeError(
                    f"{path} has the columns {_columns(schema)}, but {paths[0]} has "
                    f"{_columns(self.schema)}: files of one loader need the same columns."
                )
            self.metadata.append(found)
            for group in range(found.num_row_groups):
                sizes.append(found.row_group(group).num_rows)
                self._places.append((file, group))
        #: The number of each group's first row, followed by the number of rows.
        self.firsts: Indices = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def _opened(self, file: int) -> Any:
        import pyarrow as pa

        return pa.PythonFile(RangeFile(self.files, file), mode="r")

    def place(self, group: int) -> tuple[int, int]:
        """The file of a row group, and its number in that file."""
        return self._places[group]

    def group_name(self, group: int) -> str:
        """A readable name for a row group."""
        file, number = self._places[group]
        return f"{self.files.paths[file]}, row group {number}"

    @property
    def file_firsts(self) -> Indices:
        """The number of each file's first row, followed by the number of rows."""
        files = [file for file, _ in self._places]
        return self.firsts[np.searchsorted(files, np.arange(len(self.files.paths) + 1))]

    def bytes_of(self, group: int, columns: list[str]) -> int:
        """The decompressed size in bytes of these columns of a row group."""
        file, number = self._places[group]
        row_group = self.metadata[file].row_group(number)
        tops = {name.partition(":")[0] for name in columns}
        chunks = (row_group.column(k) for k in range(row_group.num_columns))
        return sum(c.total_uncompressed_size for c in chunks if _top(c.path_in_schema, tops))

    def ranges(self, group: int, columns: list[str]) -> Iterator[tuple[str, int, int]]:
        """The byte ranges of these columns of a row group (path, start, end excluded)."""
        file, number = self._places[group]
        row_group = self.metadata[file].row_group(number)
        tops = {name.partition(":")[0] for name in columns}
        for chunk in (row_group.column(k) for k in range(row_group.num_columns)):
            if _top(chunk.path_in_schema, tops):
                # A dictionary is stored before its values; without one the offset is None or 0.
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                yield self.files.paths[file], start, start + chunk.total_compressed_size

    def read(self, group: int, columns: list[str]) -> dict[str, Any]:
        """The values of these columns for all rows of a group.

        Raises:
            DecodeError: the content is damaged.
        """
        import pyarrow as pa
        from pyarrow import parquet

        file, number = self._places[group]
        try:
            opened = parquet.ParquetFile(
                self._opened(file), metadata=self.metadata[file], page_checksum_verification=True
            )
            table = opened.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a disk error rather than a damaged file
            raise DecodeError(
                f"{self.group_name(group)} is damaged: {error}. Copy or download the file again."
            ) from None
        return {name: values_of(table[name], name) for name in columns}


def _top(path: str, tops: set[str]) -> bool:
    return any(path == top or path.startswith(f"{top}.") for top in tops)


def _columns(schema: Any) -> str:
    return listed([f"{field.name} ({field.type})" for field in schema])


class _Groups:
    """A cache of row groups in RAM with a budget. Each group is read by one thread."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[Block, int]] = OrderedDict()
        self._bytes = 0
        self._reading: dict[int, threading.Lock] = {}
        #: The number of row groups read, for tests and messages.
        self.reads = 0

    def __reduce__(self) -> Any:
        return _Groups, (self.budget,)

    def get(self, group: int, size: int, read: Callable[[], Block]) -> Block:
        """The block of a group, from the cache or read now; size: its size in bytes."""
        with self._lock:
            lock = self._reading.setdefault(group, threading.Lock())
        with lock:
            with self._lock:
                kept = self._kept.get(group)
                if kept is not None:
                    self._kept.move_to_end(group)
                    return kept[0]
            block = read()
            with self._lock:
                self.reads += 1
                self._kept[group] = block, size
                self._bytes += size
                while self._bytes > self.budget and len(self._kept) > 1:
                    _, (_, gone) = self._kept.popitem(last=False)
                    self._bytes -= gone
            return block

    def has(self, group: int) -> bool:
        """Whether a group is cached."""
        return group in self._kept

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0


class ParquetSource(EncodedSource):
    """Rows of Parquet files.

    Args:
        tables: the files.
        fields: the columns that each array is made of; "column:key" is a part of a struct.
        budget: the maximum size in bytes of cached row groups.

    Raises:
        ValueError: a column does not exist.
    """

    neighbours = True

    def __init__(self, tables: ParquetTables, fields: tuple[Structure, ...], budget: int) -> None:
        super().__init__(fields)
        self.tables, self.opener = tables, tables.files.opener
        names = tables.schema.names
        self._columns = list(dict.fromkeys(column_of(name, names) for name in self.wanted))
        self._groups = _Groups(budget)
        self._labels: Array | None = None

    def __len__(self) -> int:
        return len(self.tables)

    # ------------------------------------------------------------------ reading

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        groups = np.searchsorted(self.tables.firsts, indices, side="right") - 1
        order = np.lexsort((indices, groups))
        cuts = np.flatnonzero(np.diff(groups[order])) + 1
        for rows in np.split(order, cuts) if len(order) else []:
            group = int(groups[rows[0]])
            try:
                whole = self._group(group)
                numbers = indices[rows] - self.tables.firsts[group]
                yield rows.tolist(), {name: _taken(whole, name, numbers) for name in self.wanted}
            except Exception as error:
                yield rows.tolist(), error

    def ranges(self, indices: Indices) -> Iterable[tuple[str, int, int]]:
        groups = np.unique(np.searchsorted(self.tables.firsts, indices, side="right") - 1)
        for group in groups.tolist():
            if not self._groups.has(group):
                yield from self.tables.ranges(group, self._columns)

    def _group(self, group: int) -> Block:
        tables, columns = self.tables, self._columns
        size = tables.bytes_of(group, columns)
        return self._groups.get(group, size, lambda: tables.read(group, columns))

    def warn_of_rereading(self) -> None:
        """Log a warning if a shuffled epoch would read row groups repeatedly."""
        groups = len(self.tables.firsts) - 1
        whole = sum(self.tables.bytes_of(group, self._columns) for group in range(groups))
        if groups > 1 and whole > self._groups.budget:
            warn(
                f"{self.tables.files.paths[0]} and so on hold {format_bytes(whole)} in {groups:,} row "
                "groups, but row_group_cache= keeps only "
                f"{format_bytes(self._groups.budget)} in RAM. In a shuffled epoch every batch needs rows "
                "of all groups, and each group is read as a whole: pass ram_batch_size=, so that they are "
                "read once for each RAM batch, or a larger row_group_cache; or write_pack(loader, "
                "folder) once.",
                once=f"row groups of {self.tables.files.paths[0]}",
            )

    def close(self) -> None:
        self._groups.clear()
        self.tables.files.close()

    # ------------------------------------------------------------------ properties

    def name(self, index: int) -> str:
        group = int(np.searchsorted(self.tables.firsts, index, side="right")) - 1
        file, number = self.tables.place(group)
        row = index - int(self.tables.firsts[group - number])
        return f"{self.tables.files.paths[file]}, row {row} in row group {number}"

    def names_of(self, index: int) -> tuple[str, ...]:
        group = int(np.searchsorted(self.tables.firsts, index, side="right")) - 1
        return self.name(index), self.tables.group_name(group)

    @property
    def file_firsts(self) -> Indices:
        return self.tables.file_firsts

    def file_of(self, index: int) -> str:
        group = int(np.searchsorted(self.tables.firsts, index, side="right")) - 1
        return self.tables.files.paths[self.tables.place(group)[0]]

    @property
    def paths_of_all(self) -> list[str]:
        return self.tables.files.paths

    def extent(self) -> Iterable[Array]:
        sizes = [size for size, _ in self.tables.files.stamps]
        return [self.tables.firsts, np.array(sizes, np.int64)]

    def class_names(self) -> list[str] | None:
        """The class names of the label, if the files contain them."""
        labels = flatten(self.fields[1]) if len(self.fields) > 1 else []
        if len(labels) != 1 or not labels[0].alone:
            return None
        return class_names_in(self.tables.schema.metadata, labels[0].name)

    def labels(self) -> Array | None:
        if self._labels is None:
            self._labels = self.labels_in(self._label_blocks)
        return self._labels

    def _label_blocks(self, name: str) -> Iterator[Any]:
        column = column_of(name, self.tables.schema.names)
        for group in range(len(self.tables.firsts) - 1):
            whole = self.tables.read(group, [column])
            count = int(np.diff(self.tables.firsts)[group])
            yield _taken(whole, name, np.arange(count))


def _taken(block: Block, name: str, numbers: Indices) -> Any:
    """The values of some rows of a block."""
    path = ""
    if name not in block:
        name, _, path = name.partition(":")
    values = block[name]
    if isinstance(values, np.ndarray):
        return values[numbers]
    found = [values[k] for k in numbers.tolist()]
    if path:
        return [part_of(value, path, name) for value in found]
    return found
