"""Samples that are rows of a Hugging Face Dataset. Images are read encoded, and decoded here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import Structure, flatten
from kloaders.formats.arrow import values_of
from kloaders.sources.encoded import Block, EncodedSource, column_of, part_of
from kloaders.sources.fingerprint import spread

__all__ = ["HuggingFaceSource"]

# The number of rows whose values identify a data set.
_LOOKED_AT = 16


class HuggingFaceSource(EncodedSource):
    """Rows of a `datasets.Dataset`.

    Args:
        dataset: the Dataset. Its `select`, `filter` and `shuffle` apply; its format is ignored.
        fields: the columns that each array is made of; "column:key" is a part of a struct.

    Raises:
        ValueError: a column does not exist.
    """

    def __init__(self, dataset: Any, fields: tuple[Structure, ...]) -> None:
        super().__init__(fields)
        names = list(dataset.column_names)
        self._columns = list(dict.fromkeys(column_of(name, names) for name in self.wanted))
        self.features = dict(dataset.features)
        self.dataset = dataset.select_columns(self._columns).with_format("arrow")
        self.title = dataset.info.dataset_name or "row"
        self._labels: Array | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        rows = list(range(len(indices)))
        try:
            yield rows, self._block(indices.tolist())
        except Exception as error:
            if len(rows) == 1:
                yield rows, error
                return
            for row in rows:  # one at a time, to find the row at fault
                yield from (([row], block) for _, block in self.blocks(indices[row : row + 1]))

    def _block(self, numbers: Any) -> Block:
        table = self.dataset[numbers]
        columns = {name: values_of(table[name], name) for name in self._columns}
        return {name: _part(columns, name) for name in self.wanted}

    def name(self, index: int) -> str:
        return f"{self.title} {index}"

    @property
    def token(self) -> str | None:
        found: str | None = getattr(self.dataset, "_fingerprint", None)
        return found

    def extent(self) -> Iterable[Array]:
        digest = hashlib.blake2b(digest_size=16)
        numbers = spread(len(self))[:: max(1, 256 // _LOOKED_AT)]
        for values in self._block(numbers).values():
            digest.update(repr(list(values)).encode("utf-8", "replace"))
        return [np.frombuffer(digest.digest(), np.uint8)]

    def class_names(self) -> list[str] | None:
        """The class names of the label, if it is a ClassLabel."""
        labels = flatten(self.fields[1]) if len(self.fields) > 1 else []
        if len(labels) != 1 or not labels[0].alone:
            return None
        names = getattr(self.features.get(labels[0].name), "names", None)
        return None if names is None else list(names)

    def labels(self) -> Array | None:
        if self._labels is None:
            self._labels = self.labels_in(self._label_blocks)
        return self._labels

    def _label_blocks(self, name: str) -> Iterator[Any]:
        column = column_of(name, self._columns)
        table = self.dataset.select_columns([column])[:]
        yield _part({column: values_of(table[column], column)}, name)


def _part(columns: dict[str, Any], name: str) -> Any:
    if name in columns:
        return columns[name]
    column, _, path = name.partition(":")
    return [part_of(value, path, column) for value in columns[column]]
