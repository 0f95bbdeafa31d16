"""One array of every sample of a pack, mapped from its files."""

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
from kloaders.core.rows import Report, copy_into_row
from kloaders.formats.errors import DecodeError
from kloaders.formats.mapped_files import JoinedFiles
from kloaders.formats.mapped_rows import check_whole
from kloaders.formats.pack import HEADER_BYTES, File, Part, stored_dtype

__all__ = ["PackColumn"]

_CAN_ASK = hasattr(mmap, "MADV_WILLNEED")  # not on Windows

# Fewer values than this NumPy copies without giving Python's lock away. Between two threads, to
# give it away and wait for it again takes longer than to copy a batch of labels.
_LOCKED = 500


class PackColumn:
    """One array of every sample of a pack, mapped when it is first read.

    starts: the first sample of each shard, and their number at the end. shape: None in the
    dimensions in which samples differ, or altogether if their number differs.
    """

    def __init__(
        self, folder: str, parts: list[Part], starts: Indices, dtype: np.dtype[Any]
    ) -> None:
        self.folder, self.parts, self.starts, self.dtype = folder, parts, starts, dtype
        self._ends = starts[1:]
        self.shape = self._common_shape()
        self._maps: dict[str, tuple[Array, Any]] = {}
        self._joined: JoinedFiles | None = None
        self._shifts = starts[:0]  # for each shard: from a sample's number to its row of all joined
        self._joins = True  # until it turned out that they cannot be
        self._cold: bool | None = None

    def _common_shape(self) -> tuple[int | None, ...] | None:
        """As far as the manifest tells: what an index holds is not looked at."""
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
        """Paths of all files of this column."""
        return [os.path.join(self.folder, file.name) for part in self.parts for file in part.files]

    def read(self, index: int) -> Array:
        return np.array(self._row(index))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        try:
            self._fill(indices, out, leaf, report)
        except DecodeError:  # a file was cut short: what is in others comes
            self._fill_one_by_one(indices, out, leaf, report)

    def _fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if self._cold is None:
            values = sum(math.prod(part.values.shape) for part in self.parts)
            self._cold = _CAN_ASK and values * self.dtype.itemsize > available_bytes()
        if self._cold:
            self._ask_for(indices)
        shape = self.shape
        if shape is None or None in shape or out.shape[1:] != shape or out.dtype != self.dtype:
            self._fill_one_by_one(indices, out, leaf, report)
            return
        if not len(indices):
            return
        shards = self._ends.searchsorted(indices, "right")
        joined = self._joined or self._all_shards()
        if joined is not None:
            joined.check_whole(set(shards.tolist()))
            rows = indices + self._shifts[shards]
            if out.size < _LOCKED:
                out[...] = joined.rows[rows]
            else:
                # mode="raise" would go through a buffer and take twice as long.
                joined.rows.take(rows, 0, out, "clip")
            return
        rows = indices - self.starts[shards]
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            out[here] = self._values(shard)[rows[here]]

    def _fill_one_by_one(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for row, index in enumerate(indices.tolist()):
            try:
                copy_into_row(self._row(index), out, row, leaf, report)
            except ValueError as error:  # the index is damaged, or a file cut short
                report(row, error)

    def name(self, index: int) -> str:
        shard, row = self._place(index)
        return f"row {row} of {os.path.join(self.folder, self.parts[shard].values.name)}"

    def known_values(self) -> Array | None:
        """The values of all samples, where they are numbers or rows of them."""
        # Pictures as labels are no classes, and perhaps more than RAM.
        small = self.shape is not None and len(self.shape) < 2 and None not in self.shape
        return self.all() if small else None

    def all(self) -> Array:
        """The values of all samples, in RAM; they have one shape."""
        assert self.shape is not None
        out = np.empty((len(self), *(n or 0 for n in self.shape)), self.dtype)
        self.fill(np.arange(len(self)), out, 0, _raise)
        return out

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return shard, index - int(self.starts[shard])

    def _span(self, index: int) -> tuple[int, int, tuple[int, ...]]:
        """Shard, first value and shape of one sample."""
        shard, row = self._place(index)
        part = self.parts[shard]
        if part.index is None:
            shape = part.values.shape[1:]
            return shard, row * math.prod(shape), shape
        rows, _ = self._map(part.index, np.dtype(np.int64))
        start, *sides = rows[row].tolist()
        shape = tuple(itertools.takewhile(lambda side: side >= 0, sides))
        size, there = math.prod(shape), part.values.shape[0]
        if not 0 <= start <= start + size <= there:
            raise ValueError(
                f"{os.path.join(self.folder, part.index.name)}, row {row}, is damaged: it places "
                f"{size} values at {start}, and there are {there}. Write the pack again."
            )
        return shard, start, shape

    def _row(self, index: int) -> Array:
        """The value of one sample, a view of the map."""
        shard, start, shape = self._span(index)
        return self._values(shard).reshape(-1)[start : start + math.prod(shape)].reshape(shape)

    def _ask_for(self, indices: Indices) -> None:
        """Have the disk read these samples, and nothing else, all at once.

        A page fault reads the 128 KiB around it, one fault after the other. That is right where
        all of the file stays in memory; else it reads twice as much, and gave 5,600 samples of
        150 KB a second where this gives 14,300.
        """
        joined = self._joined
        for index in indices.tolist():
            with contextlib.suppress(ValueError):  # told when it is read
                shard, start, shape = self._span(index)
                first = HEADER_BYTES + start * self.dtype.itemsize
                stop = first + math.prod(shape) * self.dtype.itemsize
                first -= first % mmap.PAGESIZE
                if joined is not None:
                    joined.advise(shard, first, stop, mmap.MADV_WILLNEED)
                else:
                    _, mapped = self._map(self.parts[shard].values, self.dtype)
                    mapped.madvise(mmap.MADV_WILLNEED, first, stop - first)

    def _all_shards(self) -> JoinedFiles | None:
        """All rows in one array, where the system lets us have them so."""
        joined = self._joined
        if joined is None and self._joins:
            assert self.shape is not None
            paths = [os.path.join(self.folder, part.values.name) for part in self.parts]
            rows = np.diff(self.starts).tolist()
            shape = tuple(n or 0 for n in self.shape)
            with _many_files():
                joined = JoinedFiles.of(paths, rows, shape, self.dtype, HEADER_BYTES)
            if joined is not None:
                self._shifts = joined.firsts - self.starts[:-1]
                self._maps = {}  # what a first sample was read from
            self._joined, self._joins = joined, joined is not None
        return joined

    def _values(self, shard: int) -> Array:
        joined = self._joined
        if joined is not None:  # and not map it once more
            return joined.part(shard)
        return self._map(self.parts[shard].values, self.dtype)[0]

    def _map(self, file: File, dtype: np.dtype[Any]) -> tuple[Array, Any]:
        found = self._maps.get(file.name)
        if found is None:
            path = os.path.join(self.folder, file.name)
            with _many_files():
                mapped = np.memmap(path, stored_dtype(dtype), "r", HEADER_BYTES, file.shape)
            # A row of an ordinary array is made twice as fast as one of np.memmap.
            found = mapped.view(np.ndarray).view(dtype), mapped._mmap  # type: ignore[attr-defined]
            self._maps[file.name] = found
        array, raw = found
        check_whole(raw, os.path.join(self.folder, file.name), HEADER_BYTES + array.nbytes)
        return found

    def close(self) -> None:
        """Let go of the files; they are mapped again when they are read."""
        self._maps, self._joined, self._joins, self._cold = {}, None, True, None

    def __getstate__(self) -> dict[str, Any]:
        closed = {"_joined": None, "_joins": True, "_cold": None}
        return {**self.__dict__, "_maps": {}, **closed}


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Say what to do where the process may not have so many files open."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: a pack keeps its files open, and this one has many. Raise "
            "the limit (ulimit -n 4096), or write it again with a larger shard_size",
            error.filename,
        ) from error


def _raise(row: int, error: Exception) -> None:
    raise error
