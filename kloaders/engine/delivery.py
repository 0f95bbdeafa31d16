"""The last step of a batch: weights are added, a short batch is padded, a lone x is unwrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import map_structure, padded_rows

__all__ = ["Delivery"]


@dataclass(frozen=True)
class Delivery:
    """Parts of a batch -> what Keras takes.

    Attributes:
        weights: one for each sample, or None.
        batch_size: samples per batch, which a short one is padded to if `pad_last`.
        pad_last: pad with samples of weight 0.
        inputs_as_labels: x is y, too: the same arrays.
    """

    weights: Array | None
    batch_size: int
    pad_last: bool = False
    inputs_as_labels: bool = False

    def __call__(self, parts: tuple[Any, ...], indices: Indices) -> Any:
        """A batch: x, (x, y) or (x, y, weights). indices: sample numbers of its rows."""
        weights = None if self.weights is None else self.weights[indices]
        missing = self.batch_size - len(indices)
        if self.pad_last:
            if weights is None:
                weights = np.ones(len(indices), np.float32)
            if missing > 0:
                parts = map_structure(lambda a: padded_rows(a, missing), parts)
                weights = np.concatenate(
                    [weights, np.zeros((missing, *weights.shape[1:]), weights.dtype)]
                )
        if self.inputs_as_labels and len(parts) == 1:
            parts = parts * 2  # the same arrays, not copies
        if len(parts) == 1 and self.weights is not None:
            raise ValueError(
                "sample_weights= need labels beside them: Keras weights a loss, and without labels "
                "there is none. Leave them out, or give labels."
            )
        if weights is not None and len(parts) > 1:
            return parts[0], parts[1], weights
        if len(parts) == 1 and not isinstance(parts[0], tuple):
            return parts[0]
        return parts

    def has_weights(self, parts: int) -> bool:
        """Whether batches have weights, where samples have so many parts."""
        labels = self.inputs_as_labels or parts > 1
        return (self.weights is not None or self.pad_last) and labels
