"""The samples of a pack as columns: rows of memory-mapped .npy files."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import available_bytes
from kloaders.core.messages import visible
from kloaders.core.rows import Report, copy_into_row
from kloaders.formats.errors import DecodeError
from kloaders.formats.mapped_rows import check_whole
from kloaders.formats.pack import File, Part
from kloaders.formats.pack_files import HEADER_BYTES, stored_dtype

__all__ = ["PackColumn"]

_CAN_ASK = hasattr(mmap, "MADV_WILLNEED")  # not on Windows

# NumPy copies fewer values than this without releasing the GIL. With two threads, releasing and
# reacquiring the GIL takes longer than copying a batch of labels.
_LOCKED = 500


class PackColumn:
    """One array of every sample of a pack. Its files are mapped when they are first read.

    starts: the first sample of each shard, followed by the number of samples. shape: None for dimensions
    that vary between samples, or None altogether if the number of dimensions varies.
    """

    def __init__(
        self, folder: str, parts: list[Part], starts: Indices, dtype: np.dtype[Any]
    ) -> None:
        self.folder, self.parts, self.starts, self.dtype = folder, parts, starts, dtype
        self.shape = self._common_shape()
        self._ends = starts[1:]
        # The rows of each file: a shard may use only a part of them.
        self._rows: dict[str, int] = {}
        for part in parts:
            for file in part.files:
                stop = file.shape[0] + (file.first or 0)
                self._rows[file.name] = max(stop, self._rows.get(file.name, 0))
        #: The file that contains all samples as rows, if there is one.
        self._one: File | None = None
        # For each shard, the difference between row and sample number; None if it is always 0.
        self._shifts: Indices | None = None
        full = [k for k, part in enumerate(parts) if starts[k] < starts[k + 1]]
        names = {parts[k].values.name for k in full}
        if len(names) == 1 and self.shape is not None and None not in self.shape:
            self._one = parts[full[0]].values
            shifts = np.array([part.values.first or 0 for part in parts]) - starts[:-1]
            self._shifts = shifts if shifts[full].any() else None
        self._maps: dict[str, tuple[Array, Any]] = {}
        self._cold: bool | None = None

    def _common_shape(self) -> tuple[int | None, ...] | None:
        """The shape as far as the manifest shows it; indexes are not read."""
        full = [part for k, part in enumerate(self.parts) if self.starts[k] < self.starts[k + 1]]
        if any(part.index is not None for part in full):
            shapes = {part.values.shape[1:] for part in full if part.index is None}
            axes = {p.index.shape[1] - 1 for p in full if p.index is not None}
            axes |= {len(shape) for shape in shapes}
            return (None,) * axes.pop() if len(axes) == 1 else None
        shapes = {part.values.shape[1:] for part in full}
        if len({len(shape) for shape in shapes}) > 1:
            return None
        return tuple(
            sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def files(self) -> list[str]:
        """The paths of all files of this column."""
        return [os.path.join(self.folder, name) for name in self._rows]

    def read(self, index: int) -> Array:
        return np.array(self._row(index))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        try:
            self._fill(indices, out, leaf, report)
        except DecodeError:  # a file was truncated, but samples in other files can be read
            self._fill_one_by_one(indices, out, leaf, report)

    def _fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if self._cold is None:
            size = sum(math.prod(part.values.shape) for part in self.parts)
            self._cold = _CAN_ASK and size * self.dtype.itemsize > available_bytes()
        if self._cold:
            self._ask_for(indices)
        shape = self.shape
        if shape is None or None in shape or out.shape[1:] != shape or out.dtype != self.dtype:
            self._fill_one_by_one(indices, out, leaf, report)
            return
        if not len(indices):
            return
        one = self._one
        if one is not None:
            rows = indices
            if self._shifts is not None:  # some shards have unused rows
                rows = indices + self._shifts[self._ends.searchsorted(indices, "right")]
            values = self._map(one.name, one.shape, self.dtype)
            if out.size < _LOCKED:
                out[...] = values[rows]
            else:
                # mode="raise" would use a buffer and take twice as long.
                values.take(rows, 0, out, "clip")
            return
        shards = self._ends.searchsorted(indices, "right")
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            file = self.parts[shard].values
            rows = indices[here] - self.starts[shard] + (file.first or 0)
            out[here] = self._map(file.name, file.shape, self.dtype)[rows]

    def _fill_one_by_one(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for row, index in enumerate(indices.tolist()):
            try:
                copy_into_row(self._row(index), out, row, leaf, report)
            except ValueError as error:  # the index is damaged, or a file is truncated
                report(row, error)

    def name(self, index: int) -> str:
        shard, row = self._place(index)
        file = self.parts[shard].values
        return f"row {row + (file.first or 0)} of {os.path.join(self.folder, file.name)}"

    def known_values(self) -> Array | None:
        """The values of all samples, if each is a number or a row of numbers."""
        # Labels that are images are not classes, and may exceed the RAM.
        small = self.shape is not None and len(self.shape) < 2 and None not in self.shape
        return self.all() if small else None

    def all(self) -> Array:
        """The values of all samples in RAM; all have the same shape."""
        assert self.shape is not None
        out = np.empty((len(self), *(n or 0 for n in self.shape)), self.dtype)
        self.fill(np.arange(len(self)), out, 0, _raise)
        return out

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return shard, index - int(self.starts[shard])

    def _span(self, index: int) -> tuple[int, int, tuple[int, ...]]:
        """The shard, first value and shape of one sample."""
        shard, row = self._place(index)
        part = self.parts[shard]
        if part.index is None:
            shape = part.values.shape[1:]
            return shard, (row + (part.values.first or 0)) * math.prod(shape), shape
        rows = self._map(part.index.name, part.index.shape, np.dtype(np.int64))
        start, *sides = rows[row].tolist()
        shape = tuple(itertools.takewhile(lambda side: side >= 0, sides))
        size, there = math.prod(shape), part.values.shape[0]
        if not 0 <= start <= start + size <= there:
            raise ValueError(
                f"{visible(os.path.join(self.folder, part.index.name))}, row {row}, is damaged: it refers to "
                f"{size} values at {start}, but there are only {there}. Write the pack again."
            )
        return shard, start, shape

    def _row(self, index: int) -> Array:
        """The value of one sample, as a view of the memory map."""
        shard, start, shape = self._span(index)
        file, size = self.parts[shard].values, math.prod(shape)
        end = HEADER_BYTES + (start + size) * self.dtype.itemsize
        values = self._map(file.name, file.shape, self.dtype, end)
        return values.reshape(-1)[start : start + size].reshape(shape)

    def _ask_for(self, indices: Indices) -> None:
        """Tell the kernel to read exactly these samples, all at once.

        A page fault reads the surrounding 128 KiB, and faults are served one after another. This is good
        if the whole file stays in memory. Otherwise it reads twice as much: it gave 5,600 samples of
        150 KB per second, and this method 14,300.
        """
        for index in indices.tolist():
            with contextlib.suppress(ValueError):  # reported when the sample is read
                shard, start, shape = self._span(index)
                first = HEADER_BYTES + start * self.dtype.itemsize
                stop = first + math.prod(shape) * self.dtype.itemsize
                first -= first % mmap.PAGESIZE
                file = self.parts[shard].values
                self._map(file.name, file.shape, self.dtype, stop)
                _, mapped = self._maps[file.name]
                mapped.madvise(mmap.MADV_WILLNEED, first, stop - first)

    def _map(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], end: int | None = None
    ) -> Array:
        """The values of a file that must reach to byte `end`; None: the file must be complete."""
        path = os.path.join(self.folder, name)
        found = self._maps.get(name)
        if found is None:
            whole = (self._rows[name], *shape[1:])
            with _many_files():
                mapped = np.memmap(path, stored_dtype(dtype), "r", HEADER_BYTES, whole)
            # Slicing an ordinary array is twice as fast as slicing np.memmap.
            found = mapped.view(np.ndarray).view(dtype), mapped._mmap  # type: ignore[attr-defined]  # noqa: SLF001  no public name
            self._maps[name] = found
        array, raw = found
        check_whole(raw, path, HEADER_BYTES + array.nbytes if end is None else end)
        return array

    def close(self) -> None:
        """Close the files; they are mapped again when they are read."""
        self._maps, self._cold = {}, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_cold": None}


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Add advice to the error if the process may not open this many files."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: a pack keeps its files open, and this one has many. Raise "
            "the limit (ulimit -n 4096), or write the pack again with size= or a larger shard_size",
            error.filename,
        ) from error


def _raise(row: int, error: Exception) -> None:
    raise error
