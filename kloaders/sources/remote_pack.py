"""Samples of a remote pack. Small columns are fetched whole; of large ones only the needed rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, copy_into_row
from kloaders.formats.opening import Opener
from kloaders.formats.pack import Part, path_in
from kloaders.formats.pack_files import HEADER_BYTES, stored_dtype
from kloaders.formats.ranges import RangeFiles
from kloaders.places.fetching import Claim, fetcher
from kloaders.sources.pack import PackColumn

__all__ = ["RemotePackColumn"]

# Columns up to this size are fetched whole when they are first read: a request for each label would
# double the number of requests per epoch.
_WHOLE_BYTES = 64 * 2**20


class RemotePackColumn(PackColumn):
    """One array of every sample of a pack at a URL.

    Args:
        folder: the URL of the pack.
        parts, starts, dtype: see `PackColumn`.
        opener: opens the files.
    """

    def __init__(
        self,
        folder: str,
        parts: list[Part],
        starts: Indices,
        dtype: np.dtype[Any],
        opener: Opener,
    ) -> None:
        super().__init__(folder, parts, starts, dtype)
        names = list(self._rows)
        self._numbers = {name: number for number, name in enumerate(names)}
        self._ranges = RangeFiles([path_in(folder, name) for name in names], opener)
        values = {part.values.name for part in parts}
        size = sum(self._ranges.size(self._numbers[name]) for name in values)
        self._whole = size <= _WHOLE_BYTES

    def fetch_ahead(self, indices: Indices, only_new: bool = False) -> Claim:
        """Begin to fetch the rows of these samples."""
        claims = []
        if not self._whole:
            places = [self._place_of(index) for index in indices.tolist()]
            ranges = [(self._ranges.paths[f], at, at + size) for f, at, size, _ in places if size]
            claims = self._ranges.opener.fetch_ahead(ranges, only_new)
        return claims[0] if claims else Claim(fetcher, [])

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        claim = self.fetch_ahead(indices, only_new=True)
        try:
            for row, index in enumerate(indices.tolist()):
                stall_watch.at(self, index)
                try:
                    copy_into_row(self._row(index), out, row, leaf, report)
                except (OSError, ValueError) as error:
                    report(row, error)
        finally:
            claim.release()

    def _place_of(self, index: int) -> tuple[int, int, int, tuple[int, ...]]:
        """For a sample's value: the number of its file, its first byte, its size and its shape."""
        shard, start, shape = self._span(index)
        size = math.prod(shape) * self.dtype.itemsize
        file = self._numbers[self.parts[shard].values.name]
        return file, HEADER_BYTES + start * self.dtype.itemsize, size, shape

    def _row(self, index: int) -> Array:
        if self._whole:
            shard, start, shape = self._span(index)
            file = self.parts[shard].values
            values = self._map(file.name, file.shape, self.dtype).reshape(-1)
            return values[start : start + math.prod(shape)].reshape(shape)
        number, at, size, shape = self._place_of(index)
        raw = self._ranges.read(number, at, size)
        return np.frombuffer(raw, stored_dtype(self.dtype)).view(self.dtype).reshape(shape)

    def _map(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], end: int | None = None
    ) -> Array:
        """All values of a file, fetched once."""
        found = self._maps.get(name)
        if found is None:
            number = self._numbers[name]
            raw = self._ranges.read(number, HEADER_BYTES, self._ranges.size(number) - HEADER_BYTES)
            values = np.frombuffer(raw, stored_dtype(dtype)).view(dtype)
            found = values.reshape(self._rows[name], *shape[1:]), None
            self._maps[name] = found
        array: Array = found[0]
        return array

    def name(self, index: int) -> str:
        shard, row = self._place(index)
        file = self.parts[shard].values
        return f"row {row + (file.first or 0)} of {path_in(self.folder, file.name)}"

    @property
    def files(self) -> list[str]:
        return list(self._ranges.paths)

    def close(self) -> None:
        super().close()
        self._ranges.close()
