"""Reads all values of files with many samples of several values each: tar, Parquet, MDS folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.messages import visible
from kloaders.formats import mds
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import IMAGE_SUFFIXES, suffix_of
from kloaders.formats.integrity import Checked, check_content, is_image
from kloaders.formats.npy import decode_array
from kloaders.formats.opening import opener_of
from kloaders.formats.options import ImageOptions
from kloaders.formats.ranges import RangeFiles
from kloaders.sources.encoded import EncodedSource, Pixels, fields_of
from kloaders.sources.mds import MDSSource
from kloaders.sources.parquet import ParquetSource, ParquetTables
from kloaders.sources.tar import TarSamples, TarSource

__all__ = ["RowFile"]

# Names of columns (or suffixes) with the class.
_LABELS = ("label", "cls")
# A budget of 1 byte caches one row group: the tasks of a file come in order.
_GROUPS_BYTES = 1


class RowFile:
    """All values of all samples of a file.

    Args:
        path: the path or URL of a tar file, a Parquet file or an MDS folder.

    Raises:
        DecodeError: the whole file is damaged.
        ImportError: the package that reads it is not installed.
        OSError: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._made = {".tar": _tar, ".parquet": _parquet}.get(suffix_of(path), _mds)
        self.source: EncodedSource = self._made(path)

    def steps(self, most: int) -> Iterator[tuple[int, int]]:
        """-> (first sample, number of samples) of each part that is read separately."""
        if isinstance(self.source, ParquetSource):  # a row group is read as a whole
            firsts = self.source.tables.firsts.tolist()
        else:
            firsts = [*range(0, len(self.source), most), len(self.source)]
        yield from ((a, z - a) for a, z in itertools.pairwise(firsts) if z > a)

    def checked(
        self, first: int, count: int, max_pixels: int
    ) -> Iterator[tuple[str, Checked, str | None]]:
        """-> name, result and class of each of these samples."""
        indices = np.arange(first, first + count, dtype=np.int64)
        claims = self.source.fetch_ranges(indices)
        try:
            if isinstance(self.source, ParquetSource):
                yield from self._row_group(indices, max_pixels)
                return
            for index in indices.tolist():
                yield self._sample(index, max_pixels)
        finally:
            for claim in claims:
                claim.release()

    def _row_group(
        self, indices: Indices, max_pixels: int
    ) -> Iterator[tuple[str, Checked, str | None]]:
        for places, block in self.source.blocks(indices):
            if isinstance(block, Exception):
                found = Checked()
                _add(found, block, "")
                yield self.source.names_of(int(indices[0]))[-1], found, None
                continue
            for place in places:
                values = {name: column[place] for name, column in block.items()}
                yield self._looked_at(self.source.name(int(indices[place])), values, max_pixels)

    def _sample(self, index: int, max_pixels: int) -> tuple[str, Checked, str | None]:
        name = self.source.name(index)
        try:
            if isinstance(self.source, TarSource):
                values: dict[str, Any] = self.source.values(index)
            else:
                ((_, block),) = self.source.blocks(np.array([index], np.int64))
                if isinstance(block, Exception):
                    raise block
                values = {column: found[0] for column, found in block.items()}
        except (DecodeError, OSError) as error:
            found = Checked()
            _add(found, error, f"{name}: ")
            return name, found, None
        return self._looked_at(name, values, max_pixels)

    def _looked_at(
        self, name: str, values: dict[str, Any], max_pixels: int
    ) -> tuple[str, Checked, str | None]:
        found, label = Checked(), None
        for part, value in values.items():
            if part in _LABELS and isinstance(value, (int, np.integer)):
                label = str(int(value))
            for one in value if isinstance(value, list) else [value]:
                self._check(found, f"{name}, {part}", part, one, max_pixels)
        return name, found, label

    def _check(self, found: Checked, said: str, part: str, value: Any, max_pixels: int) -> None:
        if isinstance(value, Exception):
            _add(found, value, f"{said}: ")
        if isinstance(value, Pixels) or not isinstance(value, bytes):
            return
        kind = f".{part.rpartition('.')[2]}"
        called = isinstance(self.source, TarSource) and kind in IMAGE_SUFFIXES
        if called or is_image(value):
            inner = check_content(value, said, max_pixels)
            found.problems += inner.problems
            # A sample is identified by its image.
            found.digest, found.form = inner.digest, inner.form
        elif value.startswith(b"\x93NUMPY") or kind == ".npy":
            try:
                decode_array(value, None, said)
            except DecodeError as error:
                _add(found, error, "")


def _add(found: Checked, error: Exception, before: str) -> None:
    said = str(error)
    cut = "truncated" in said and not isinstance(error, OSError)
    kind = "unreadable" if isinstance(error, OSError) else "truncated" if cut else "broken"
    found.add(kind, f"{before}{said}")


def _fields(names: Iterable[str]) -> tuple[Any, ...]:
    """A field for each of these names."""
    plain = (ImageOptions(channels=None), None)
    return fields_of({name: name for name in names}, None, plain, plain, None)


def _tar(path: str) -> TarSource:
    samples = TarSamples(RangeFiles([path], opener_of([path])), None)
    return TarSource(samples, _fields(samples.suffixes))


def _parquet(path: str) -> ParquetSource:
    tables = ParquetTables([path], "kloaders verify", opener_of([path]))
    return ParquetSource(tables, _fields(tables.schema.names), _GROUPS_BYTES)


def _mds(folder: str) -> MDSSource:
    shards = mds.read_index(folder)
    if not shards:
        raise DecodeError(f"the index of {visible(folder)} lists no shards.")
    kinds = zip(shards[0].names, shards[0].encodings, strict=True)
    # Unpickling would run code from the file: only the presence of its bytes is checked.
    names = [name for name, kind in kinds if kind != "pkl"]
    return MDSSource(shards, _fields(names), opener_of([shard.path for shard in shards]))
