"""Mean, variance and class counts of a loader's samples, computed in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.notebooks import sentence_and_table
from kloaders.core.structure import check_no_texts, flatten, names_of, unflatten
from kloaders.loaders.checking import check_loader
from kloaders.loaders.raw_samples import raw_samples
from kloaders.loaders.sequence import SequenceLoader

__all__ = ["Statistics", "statistics"]

# The number of values that are processed at once.
_PART = 2**20
# Labels with more distinct values than this are not classes.
_CLASSES = 10_000


@dataclass(frozen=True)
class Statistics:
    """The result of `statistics`.

    Attributes:
        samples: the number of samples, without those that failed to load.
        mean: the mean of x, float32: one number for each index of the last axis, such as a channel
            or column; nested like x.
        variance: the variance, in the same form.
        minimum, maximum: in the same form.
        class_counts: the number of occurrences of each class in y: {class: count}, by name if the
            loader has class_names. For masks, the number of pixels. None if labels are not classes.
    """

    samples: int
    mean: Any
    variance: Any
    minimum: Any
    maximum: Any
    class_counts: dict[Any, int] | None

    def __str__(self) -> str:
        kinds = self.class_counts
        classes = "" if kinds is None else f", labels of {len(kinds):,} classes"
        return f"Statistics of {self.samples:,} samples{classes}."

    def _repr_html_(self) -> str:
        names = names_of(self.mean, "x")
        columns = (self.mean, self.variance, self.minimum, self.maximum)
        values = zip(*(flatten(column) for column in columns), strict=True)
        rows = [(name, *map(_in_short, row)) for name, row in zip(names, values, strict=True)]
        counts = (self.class_counts or {}).items()
        rows += [(f"class {name}", f"{count:,}") for name, count in counts]
        head = ("", "mean", "variance", "minimum", "maximum")
        return sentence_and_table(str(self), head, rows)


def _in_short(values: Any) -> str:
    """A few numbers, and the number of values."""
    flat = np.asarray(values).reshape(-1)
    more = "" if len(flat) <= 6 else f" ... ({len(flat):,})"
    return " ".join(f"{value:.4g}" for value in flat[:6].tolist()) + more


def statistics(
    loader: SequenceLoader, *, axis: int | None = -1, progress: bool = True
) -> Statistics:
    """Mean and variance of x and class counts of y, over all samples, in one pass with a bar.

    Reads each sample once, as it is stored, before the transform. For normalization:
    `keras.layers.Normalization(mean=found.mean, variance=found.variance)`, after a `keras.Input`. Use the
    training part only: validation data must stay unknown.

    Args:
        loader: any loader.
        axis: the axis of x whose indices each get a mean and variance, as in Normalization; -1 is the
            last. None: one number for all values.
        progress: show a bar.

    Raises:
        SampleError: a sample does not load (on_error="raise").
        ValueError: samples differ in size along `axis`, or lack the axis.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.array([[0.0, 5.0], [2.0, 5.0]]), np.array([1, 1]))
    >>> found = statistics(loader, progress=False)
    >>> found.mean.tolist(), found.variance.tolist(), found.class_counts
    ([1.0, 5.0], [1.0, 0.0], {1: 2})
    """
    check_loader(loader, "statistics")
    raw = loader.raw_spec
    check_no_texts(
        raw, "statistics()", "count its words yourself, for text, _ in loader.epoch_batches()"
    )
    names = len(flatten(raw[0]))
    sums = [_Moments(axis) for _ in range(names)]
    labels = flatten(raw[1]) if len(raw) > 1 else []
    counts = _Classes() if len(labels) == 1 else None
    samples = 0
    for indices, leaves in raw_samples(loader, "statistics", progress):
        samples += len(indices)
        for moments, rows in zip(sums, leaves[:names], strict=True):
            for block in rows if isinstance(rows, list) else [rows]:
                moments.add(block if isinstance(rows, np.ndarray) else block[np.newaxis])
        if counts is not None and counts.found is not None:
            labels_of = leaves[names]
            for block in labels_of if isinstance(labels_of, list) else [labels_of]:
                counts.add(np.asarray(block), len(labels[0].shape))
    if not samples:
        raise loader.runner.log.nothing_left(0)

    def of_x(name: str) -> Any:
        return unflatten(raw[0], [getattr(moments, name).astype(np.float32) for moments in sums])

    return Statistics(
        samples,
        of_x("mean"),
        of_x("variance"),
        of_x("minimum"),
        of_x("maximum"),
        None if counts is None else counts.named(loader.class_names),
    )


class _Moments:
    """Mean and variance of blocks of samples, combined without loss by Chan's formula, in float64."""

    def __init__(self, axis: int | None) -> None:
        self.axis, self.count = axis, 0
        self.mean: Array = np.zeros(())
        self.squares: Array = np.zeros(())  # sum of squared deviations from the mean
        self.minimum: Array = np.array(np.inf)
        self.maximum: Array = np.array(-np.inf)

    @property
    def variance(self) -> Array:
        """The variance of all values so far."""
        return np.asarray(self.squares / max(1, self.count))

    def add(self, block: Array) -> None:
        """Add a block of samples."""
        if not block.size:
            return
        values = self._by_index(block)
        step = max(1, _PART // (values.size // len(values)))
        for first in range(0, len(values), step):  # in steps, because float64 takes more memory
            self._add(values[first : first + step])

    def _add(self, values: Array) -> None:
        count, mean = values.shape[0], values.mean(axis=0, dtype=np.float64)
        if self.count and mean.shape != self.mean.shape:
            raise ValueError(
                f"samples have {self.mean.size} and {mean.size} numbers along axis {self.axis}: pass "
                "axis=None for one mean of all values, or another axis."
            )
        squares = np.square(values - mean, dtype=np.float64).sum(axis=0)
        total = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + squares + np.square(apart) * self.count * count / total
        self.mean = self.mean + apart * count / total
        self.minimum = np.minimum(self.minimum, values.min(axis=0))
        self.maximum = np.maximum(self.maximum, values.max(axis=0))
        self.count = total

    def _by_index(self, block: Array) -> Array:
        """Values as rows of a matrix, with one column for each index of the axis."""
        axes = block.ndim - 1  # the axes of a sample
        if self.axis is None or not axes:
            return block.reshape(-1)
        if not -axes <= self.axis < axes:
            raise ValueError(
                f"axis={self.axis} of samples of shape {block.shape[1:]}: pass one from {-axes} to "
                f"{axes - 1}, or None."
            )
        at = self.axis if self.axis < 0 else self.axis + 1
        return np.moveaxis(block, at, -1).reshape(-1, block.shape[at])


class _Classes:
    """The number of occurrences of each class; `found` is None if labels turn out not to be classes."""

    def __init__(self) -> None:
        self.found: dict[Any, int] | None = {}

    def add(self, values: Array, axes: int) -> None:
        """Add labels of some samples, each with this many axes."""
        if self.found is None:
            return
        if values.dtype.kind == "f" and axes == 1 and values.ndim == 2 and values.shape[1] > 1:
            hot = np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1)
            if not hot:
                self.found = None
                return
            values = values.argmax(axis=1)
        if values.dtype.kind not in "biu" and not np.all(values == np.floor(values)):
            self.found = None
            return
        distinct, counts = np.unique(values, return_counts=True)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            self.found[int(value)] = self.found.get(int(value), 0) + count
        if len(self.found) > _CLASSES:
            self.found = None

    def named(self, names: Any) -> dict[Any, int] | None:
        """The counts, by name if all classes have one."""
        if self.found is None:
            return None
        rising = sorted(self.found)
        if isinstance(names, dict):  # the names of a single output
            names = next(iter(names.values())) if len(names) == 1 else None
        if names is None or not all(0 <= value < len(names) for value in rising):
            return {value: self.found[value] for value in rising}
        return {name: self.found.get(k, 0) for k, name in enumerate(names)}
