"""Samples of MDS folders as written by MosaicML Streaming, read without its package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import Structure, flatten
from kloaders.core.threads import ThreadPool
from kloaders.formats.errors import DecodeError
from kloaders.formats.mds import Shard, decoder_of, split_sample
from kloaders.formats.opening import LOCAL, Opener
from kloaders.formats.ranges import RangeFiles
from kloaders.sources.encoded import Block, EncodedSource, Pixels, column_of, part_of

__all__ = ["MDSSource"]


class MDSSource(EncodedSource):
    """Samples of the shards of one or more folders.

    Args:
        shards: the shards as described by their index files; all have the same columns.
        fields: the columns that each array is made of; "column:key" is a part of a JSON column.
        opener: how the shards are opened.

    Raises:
        ValueError: a column does not exist.
        DecodeError: a shard does not match its index, or a column has an unknown encoding.
    """

    def __init__(
        self, shards: list[Shard], fields: tuple[Structure, ...], opener: Opener = LOCAL
    ) -> None:
        super().__init__(fields)
        self.shards, self.opener = shards, opener
        self.files = RangeFiles([shard.path for shard in shards], opener)
        #: The first sample of each shard, followed by the number of samples.
        self.firsts: Indices = np.cumsum([0, *(shard.samples for shard in shards)], dtype=np.int64)
        with ThreadPool(min(len(shards), 16 if opener.fetches else 1), "kloaders-index") as pool:
            tables = list(
                pool.map(lambda k: _offsets(self.files, k, shards[k]), range(len(shards)))
            )
        self._offsets = np.concatenate(tables)
        names = list(shards[0].names)
        self._columns = {name: column_of(name, names) for name in self.wanted}
        # decode= gets the stored bytes.
        self._raw = {n for field in flatten(fields) if field.decode for n in field.names}
        self._decoders = self._made()

    def _made(self) -> dict[str, Callable[[bytes], Any]]:
        encodings = dict(zip(self.shards[0].names, self.shards[0].encodings, strict=True))
        return {
            name: decoder_of(encodings[column], column)
            for name, column in self._columns.items()
            if name not in self._raw
        }

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_decoders"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoders = self._made()

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        shards = np.searchsorted(self.firsts, indices, side="right") - 1
        for row in np.lexsort((indices, shards)).tolist():
            try:
                yield [row], self._values(int(indices[row]), int(shards[row]))
            except Exception as error:
                yield [row], error

    def ranges(self, indices: Indices) -> Iterable[tuple[str, int, int]]:
        shards = np.searchsorted(self.firsts, indices, side="right") - 1
        places = indices + shards
        starts, ends = self._offsets[places].tolist(), self._offsets[places + 1].tolist()
        return zip([self.files.paths[k] for k in shards.tolist()], starts, ends, strict=True)

    def _values(self, index: int, shard: int) -> Block:
        start, end = self._offsets[index + shard : index + shard + 2].tolist()
        columns = split_sample(self.shards[shard], self.files.read(shard, start, end - start))
        return {name: [self._value(name, columns)] for name in self._columns}

    def _value(self, name: str, columns: dict[str, bytes]) -> Any:
        column = self._columns[name]
        raw = columns[column]
        if name in self._raw:
            return raw
        try:
            value = self._decoders[name](raw)
        except (ValueError, IndexError, KeyError) as error:
            raise DecodeError(f"its column {column!r:.80} is damaged: {error}.") from None
        if name != column:
            value = part_of(value, name.removeprefix(f"{column}:"), column)
        return _image(value)

    def name(self, index: int) -> str:
        shard = self._shard_of(index)
        number = index - int(self.firsts[shard])
        at = int(self._offsets[index + shard])
        return f"{self.shards[shard].path}, sample {number} at byte {at}"

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self.firsts, index, side="right")) - 1

    @property
    def file_firsts(self) -> Indices:
        return self.firsts

    def file_of(self, index: int) -> str:
        return self.shards[self._shard_of(index)].path

    @property
    def paths_of_all(self) -> list[str]:
        return self.files.paths

    def extent(self) -> Iterable[Array]:
        return [self.firsts, self._offsets]

    def close(self) -> None:
        self.files.close()


def _image(value: Any) -> Any:
    """Unencoded images, in the form that the source's fields accept."""
    if isinstance(value, tuple):
        return Pixels(value[1])
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return [Pixels(array) for _, array in value]
    return value


def _offsets(files: RangeFiles, file: int, shard: Shard) -> Array:
    """Where each sample of a shard begins, and where the last one ends."""
    if files.size(file) != shard.size:
        raise DecodeError(
            f"{shard.path} has {files.size(file)} bytes, but its index says {shard.size}. Copy or "
            "download it again."
        )
    head = 4 * (shard.samples + 2)
    table = np.frombuffer(files.read(file, 0, min(head, shard.size)), "<u4")
    whole = len(table) == shard.samples + 2 and table[0] == shard.samples
    offsets = table[1:].astype(np.int64)
    if not whole or (np.diff(offsets) < 0).any() or offsets[-1] > shard.size:
        raise DecodeError(
            f"{shard.path} is damaged: its sample table does not fit its {shard.samples} samples. "
            "Copy or download it again."
        )
    return offsets
