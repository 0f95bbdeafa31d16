"""Sample weights, next to x and y: one number per sample, or nested like labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import Structure, as_weights, flatten, map_structure, names_of
from kloaders.plan.rng import Moment
from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import stores_in
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import (
    CastColumn,
    ReadPath,
    close_column,
    lengths_of,
    prefetch,
    take_rows,
)
from kloaders.sources.given_columns import columns_of
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.source import Source, WrappedSource

__all__ = ["WeightColumns", "WeightedSource", "taken", "weights_of"]


class WeightColumns:
    """Weights stored per sample, like labels: columns, nested as the user passed them."""

    def __init__(self, columns: Structure) -> None:
        self.columns = columns

    def take(self, numbers: Indices) -> WeightColumns:
        """The weights of some of the samples."""
        return WeightColumns(map_structure(lambda c: take_rows(c, numbers), self.columns))


def weights_of(
    given: Any, samples: int, read: ReadPath | None = None, paths: Any = None
) -> Array | WeightColumns | None:
    """Check the argument `sample_weights=` against the number of samples.

    Args:
        given: the user's argument.
        samples: the number of samples.
        read: reads weights from files; None: as images and arrays by suffix.
        paths: the file of each sample, the arguments of a function.

    Returns:
        float32 of shape (samples,) for one number per sample in RAM; columns for anything else.

    Raises:
        TypeError, ValueError: these are not weights, or there is not one value per sample.
    """
    if given is None or isinstance(given, WeightColumns):
        return given
    single = _one_number_each(given)
    if single is not None:
        if single.shape != (samples,):
            raise ValueError(
                f"sample_weights has shape {single.shape}, expected one weight for each of "
                f"{samples} samples."
            )
        return single.astype(np.float32, copy=False)
    if callable(given) and paths is None:
        raise TypeError(
            "sample_weights is a function, but these samples have no file paths to call it "
            "with: pass one value for each sample."
        )
    columns = columns_of(given, "sample_weights", read or _reader(), paths)
    names = names_of(columns, "sample_weights")
    for name, column in zip(names, flatten(columns), strict=True):
        each = lengths_of(column)
        if len(column) != samples and each is not None and set(each.tolist()) == {samples}:
            raise ValueError(
                f"{name} is a list of {len(column)} arrays of {samples:,} values: for several outputs pass "
                f"a tuple, tuple({name}), or a dict with names."
            )
        if len(column) != samples:
            raise ValueError(
                f"lengths differ: {name} has {len(column)} values, expected one weight for each of "
                f"{samples} samples."
            )
    if not names:
        raise ValueError("sample_weights is empty, expected weights for at least one output.")
    return WeightColumns(map_structure(lambda c: CastColumn(c, np.dtype(np.float32)), columns))


def taken(
    weights: Array | WeightColumns | None, numbers: Indices | None
) -> Array | WeightColumns | None:
    """The result of `weights_of` for some of the samples; None: for all of them."""
    if numbers is None:
        return weights
    if isinstance(weights, WeightColumns):
        return weights.take(numbers)
    return None if weights is None else weights[numbers]


def _reader() -> ReadPath:
    """A function that reads images and arrays by suffix, as they are stored."""
    from kloaders.formats.options import ImageOptions
    from kloaders.sources.files import FileReader

    return FileReader(ImageOptions(channels=None), None)


def _one_number_each(given: Any) -> Array | None:
    """The numbers of a one-dimensional array in RAM; None for any other kind of weights."""
    if isinstance(given, dict) or callable(given) or type(given) is np.memmap:
        return None
    if isinstance(given, tuple) and not (given and np.isscalar(given[0])):
        return None
    first: Any = given[0] if isinstance(given, (list, tuple)) and len(given) else None
    if isinstance(first, (str, os.PathLike)) or np.ndim(first) > 0:
        return None  # files, or an array for each sample
    try:
        array = np.asarray(given)
    except ValueError:  # a ragged list
        array = np.empty(0, object)
    if array.dtype.kind in "biuf" or array.dtype.isbuiltin == 2:
        return array if array.ndim < 2 else None
    if array.dtype.kind in "US" or isinstance(given, PackedPaths):
        return None
    raise TypeError(
        f"sample_weights is a {type(given).__name__} of {array.dtype}, expected one number for each "
        "sample, np.asarray(weights, np.float32), or anything that labels may be: arrays with a value for "
        "each pixel or step, files with such arrays, a tuple or dict for several outputs."
    )


class WeightedSource(WrappedSource):
    """Samples of another source, with weights as a third part.

    Args:
        inner: the source of (x, y).
        weights: columns of weights, with one value for each sample; they are delivered as float32.
    """

    def __init__(self, inner: Source, weights: Structure) -> None:
        super().__init__(inner)
        self.weights = weights
        if inner.columns is not None:
            self.columns = (*inner.columns, weights)

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self._weighted(index, self.inner.sample(index, moment))

    def _weighted(self, index: int, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(parts) == 1:
            raise ValueError(
                "sample_weights= needs labels: Keras applies weights to a loss, and without labels "
                "there is none. Leave the weights out, or pass labels."
            )
        if len(parts) == 3:
            raise TypeError(
                "the sample already has weights as its third part, but the loader was given "
                "sample_weights= as well: leave one of them out."
            )
        return *parts, as_weights(map_structure(lambda c: np.asarray(c.read(index)), self.weights))

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        for index, read in self.inner.readers(indices, moment):
            yield index, functools.partial(self._read_weighted, index, read)

    def _read_weighted(self, index: int, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        return self._weighted(index, read())

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        weights = flatten(self.weights)
        own = len(out.arrays) - len(weights)
        self.inner.fill(indices, Rows(out.form[:2], out.arrays[:own]), report, moment)
        for leaf, column in enumerate(weights, own):
            column.fill(indices, out.arrays[leaf], leaf, report)

    def prefetch(self, indices: Indices) -> None:
        super().prefetch(indices)
        for column in flatten(self.weights):
            prefetch(column, indices)

    def fingerprint(self) -> dict[str, str]:
        return {**self.inner.fingerprint(), "weights": fingerprint.of_columns(self.weights)}

    def delivered(self, spec: Structure) -> Structure:
        return *self.inner.delivered(spec[:2]), *spec[2:]

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        inner = self.inner.with_labels(change)
        return None if inner is None else WeightedSource(inner, self.weights)

    def stores(self) -> list[Store]:
        return [*super().stores(), *stores_in(self.weights)]

    def close(self) -> None:
        super().close()
        for column in flatten(self.weights):
            close_column(column)
