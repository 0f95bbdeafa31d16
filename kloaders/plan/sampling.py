"""Makes the stream that a loader's batches come from out of its sampling options; reads no data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kloaders.core.arrays import Array
from kloaders.plan.streams import (
    Balanced,
    ClassGroups,
    InOrder,
    ShuffledPasses,
    Stream,
    WeightedSystematic,
    WeightedWithReplacement,
)

__all__ = ["Sampling", "check_groups"]


class Sampling:
    """The sampling options of a loader: how often each sample occurs.

    They are the checked options `epoch_batches`, `class_balance`, `sampling_weights` and `replacement`.

    Args:
        length: batches per epoch; None for as many as one pass over the samples has.
        codes: class of each sample, unsigned, from 0 without gaps; None if classes do not matter.
        weights: relative frequency of each sample, float64; None if all are equal.
        replacement: whether to draw each sample independently.
        source: the stream itself, for a loader that mixes others.
        groups: the number of classes per batch and of samples per class; only with codes.
    """

    def __init__(
        self,
        length: int | None = None,
        codes: Array | None = None,
        weights: Array | None = None,
        replacement: bool = False,
        source: Stream | None = None,
        groups: tuple[int, int] | None = None,
    ) -> None:
        self.length, self.codes, self.weights = length, codes, weights
        self.replacement, self.source, self.groups = replacement, source, groups

    def __bool__(self) -> bool:
        """Whether the options need a stream."""
        return self.length is not None or self.drawn

    @property
    def drawn(self) -> bool:
        """Whether samples occur in other proportions than in the data."""
        return not (self.codes is None and self.weights is None and self.source is None)

    def stream(self, samples: int, seed: int, size: int, shuffle: bool | None) -> Stream | None:
        """The stream of a loader with global batches of `size` samples."""
        if not self:
            return None
        if self.source is not None:
            return self.source
        if self.codes is not None and self.groups is not None:
            return ClassGroups(self.codes, *self.groups, seed)
        if self.codes is not None:
            return Balanced(self.codes, size, seed)
        if self.weights is not None:
            return (WeightedWithReplacement if self.replacement else WeightedSystematic)(
                self.weights, seed
            )
        return InOrder(samples) if shuffle is False else ShuffledPasses(samples, seed)

    def of(self, numbers: Array) -> Sampling:
        """The same options for some of the samples.

        Raises:
            ValueError: none of them has a weight, or the stream is a mixture.
        """
        if self.source is not None:
            raise ValueError(
                "samples of a mixed loader cannot be selected: split, take or preload its loaders "
                "first, and mix the results."
            )
        codes = None
        if self.codes is not None:  # a class may have no samples left
            _, found = np.unique(self.codes[numbers], return_inverse=True)
            codes = found.reshape(-1).astype(self.codes.dtype)
        weights = None if self.weights is None else self.weights[numbers]
        if weights is not None and not weights.any():
            raise ValueError(
                "all sampling_weights of these samples are 0: leave sampling_weights out."
            )
        if codes is not None and self.groups is not None:
            check_groups(codes, *self.groups)
        return Sampling(self.length, codes, weights, self.replacement, groups=self.groups)

    def __str__(self) -> str:
        parts = []
        if self.source is not None:
            parts.append("mixed")
        if self.groups is not None:
            parts.append(
                f"{self.groups[0]} classes per batch with {self.groups[1]} samples of each"
            )
        elif self.codes is not None:
            parts.append(f"{int(self.codes.max()) + 1} classes in equal parts")
        if self.weights is not None:
            parts.append("by weight" + (", with replacement" if self.replacement else ""))
        if self.length is not None:
            parts.append(f"epochs of {self.length:,} batches, each continues where the last ended")
        return "; ".join(parts)


def check_groups(
    codes: Array, classes: int, samples: int, names: Sequence[object] | None = None
) -> None:
    """Raise ValueError if there are too few classes, or too few samples of a class.

    Args:
        codes: the class of each sample.
        classes: classes per batch.
        samples: samples per class in a batch.
        names: the names of the classes.
    """
    counts = np.bincount(codes)
    if classes > len(counts):
        raise ValueError(
            f"classes={classes} per batch, but the data has {len(counts)}: pass a smaller classes=."
        )
    few = np.flatnonzero(counts < samples)
    if len(few):
        name = int(few[0]) if names is None else names[few[0]]
        others = f", and {len(few) - 1} others have too few" if len(few) > 1 else ""
        raise ValueError(
            f"class {name!r:.80} has {counts[few[0]]} samples{others}, but a batch needs "
            f"samples={samples} different ones of each of its classes: pass a smaller samples=, or "
            "leave such classes out with subset()."
        )
