"""A loader over some of another loader's samples; both share one store."""

from __future__ import annotations

from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from kloaders.columns import Column, PackedPaths, Report
from kloaders.paths import PathSequenceLoader
from kloaders.sequence import SequenceLoader
from kloaders.structure import map_structure

__all__ = ["SubsetColumn", "SubsetPaths", "subset"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, np.dtype[Any]]


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


class SubsetPaths(PackedPaths):
    """Some of the paths, by number; nothing is copied."""

    def __init__(self, paths: PackedPaths, numbers: Array) -> None:
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
        return self._paths.nbytes + self._numbers.nbytes


class _Samples:
    """Samples of a loader, asked for by their number among the chosen ones."""

    def __init__(self, whole: SequenceLoader, numbers: Array) -> None:
        self.whole = whole
        self.numbers = numbers
        columns = whole._columns()
        self.parts = (
            None if columns is None else map_structure(lambda c: SubsetColumn(c, numbers), columns)
        )

    def columns(self) -> Any:
        return self.parts

    def sample(self, index: int) -> tuple[Any, ...]:
        return self.whole._sample(int(self.numbers[index]))

    def batch_parts(self, indices: Indices) -> tuple[Any, ...]:
        return self.whole._batch_parts(self.numbers[indices].astype(np.int64))

    def fill_stored(self, indices: Indices, out: list[Array], report: Report) -> None:
        self.whole._fill_stored(self.numbers[indices].astype(np.int64), out, report)

    def name(self, index: int) -> str:
        return self.whole._name(int(self.numbers[index]))


def subset(whole: SequenceLoader, numbers: Indices, what: Literal["training", "validation"]) -> Any:
    """A loader of the same kind over some of the samples; hooks are called on the whole.

    A hook may look samples up by number in a store of its own: the number must be the whole's.
    """
    small = numbers.astype(np.uint32 if whole.samples < 2**32 else np.int64)
    chosen = _Samples(whole, small)
    new = whole.view()
    # What a loader asks of itself about a sample goes to the whole, under the whole's number.
    own = vars(new)
    own["_sample"], own["_batch_parts"] = chosen.sample, chosen.batch_parts
    own["_name"], own["_columns"] = chosen.name, chosen.columns
    if whole._at_once():
        own["_fill_stored"] = chosen.fill_stored
    own["_parts"] = chosen.parts
    if isinstance(new, PathSequenceLoader):
        new.paths = SubsetPaths(new.paths, small)
    own["samples"] = len(numbers)
    if whole.weights is not None:
        new.weights = whole.weights[numbers]
    if own.get("_budget") is not None:  # of RAM batches: in proportion, for both together
        own["_budget"] = max(1, own["_budget"] * len(numbers) // whole.samples)
    if what == "validation":
        new.transform = None
        own["shuffle"] = None if new.shuffle is None else False
        # Equal parts for several hosts need equal batches; otherwise every sample counts.
        own["drop_last"] = new.drop_last and new.shard[1] > 1
        if "echo" in own:
            own["echo"] = 1
    try:
        new.plan = new._checked_plan()
    except ValueError as error:
        raise ValueError(f"the {what} part: {error}") from None
    new._set_up()
    return new
