"""The last step of a batch: adds weights, pads a short batch, unwraps a single x."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import ArraySpec, Structure, map_structure, padded_rows
from kloaders.core.weighting import check_fits, product
from kloaders.engine.batch_ids import BatchIds
from kloaders.engine.class_weights import ClassWeights

__all__ = ["Delivery"]


@dataclass(frozen=True)
class Delivery:
    """Turns the parts of a batch into what Keras accepts.

    Attributes:
        weights: one per sample, or None.
        batch_size: samples per batch; short batches are padded to it if `pad_last`.
        pad_last: pad with samples of weight 0.
        inputs_as_labels: whether x is also y: the same arrays.
        classes: class weights, or None.
        ids: records the sample numbers of delivered batches.
    """

    weights: Array | None
    batch_size: int
    pad_last: bool = False
    inputs_as_labels: bool = False
    classes: ClassWeights | None = None
    ids: BatchIds = field(default_factory=BatchIds, compare=False)

    def __call__(self, parts: tuple[Any, ...], indices: Indices) -> Any:
        """A batch: x, (x, y) or (x, y, weights). indices: sample numbers of its rows."""
        weights = self.weights_of(parts, indices)
        parts = parts[:2]
        missing = self.batch_size - len(indices)
        if self.pad_last:
            if weights is None:
                weights = np.ones(len(indices), np.float32)
            if missing > 0:
                parts = map_structure(lambda a: padded_rows(a, missing), parts)
                weights = map_structure(
                    lambda w: np.concatenate([w, np.zeros((missing, *w.shape[1:]), w.dtype)]),
                    weights,
                )
            indices = np.concatenate([indices, np.full(max(0, missing), -1, np.int64)])
        self.ids.note(parts[0], indices)
        if self.inputs_as_labels and len(parts) == 1:
            parts = parts * 2  # the same arrays, not copies
        if weights is not None and len(parts) > 1:
            return parts[0], parts[1], weights
        if len(parts) == 1 and not isinstance(parts[0], tuple):
            return parts[0]
        return parts

    def weights_of(self, parts: tuple[Any, ...], indices: Indices) -> Structure | None:
        """The weights of samples with these parts and numbers, before padding; None for none.

        The samples' own weights, and those by sample number and by class are multiplied.

        Raises:
            ValueError: there are no labels, or weights do not fit them.
        """
        if self.inputs_as_labels and len(parts) == 1:
            parts = parts * 2
        if len(parts) == 1 and not (self.weights is None and self.classes is None):
            name = "sample_weights" if self.weights is not None else "class_weight"
            raise ValueError(
                f"{name}= needs labels: Keras applies weights to a loss, and without labels "
                "there is none. Leave the weights out, or pass labels."
            )
        found: Structure | None = parts[2] if len(parts) > 2 else None
        if found is not None:
            check_fits(found, parts[1])
        others = [] if self.weights is None else [self.weights[indices]]
        if self.classes is not None:
            others.append(self.classes(parts[1]))
        for other in others:
            found = other if found is None else product(found, other)
        return found

    def has_weights(self, parts: int) -> bool:
        """Whether batches of samples with this many parts have weights."""
        labels = self.inputs_as_labels or parts > 1
        own = parts > 2 or self.weights is not None or self.classes is not None
        return (own or self.pad_last) and labels

    def weights_spec(self, form: tuple[Any, ...]) -> Structure:
        """The ArraySpec of each weights array, for samples whose parts have these specs."""
        few, more = (self._weights_of_nothing(form, unknown) for unknown in (2, 3))
        return map_structure(
            lambda a, b: ArraySpec(
                tuple(m if m == n else None for m, n in zip(a.shape[1:], b.shape[1:], strict=True)),
                np.dtype(np.float32),
            ),
            few,
            more,
        )

    def _weights_of_nothing(self, form: tuple[Any, ...], unknown: int) -> Structure:
        """Empty weights arrays, with this size for unknown dimensions."""
        empty = map_structure(
            lambda s: np.empty((0, *[unknown if n is None else n for n in s.shape]), s.dtype), form
        )
        found = self.weights_of(empty, np.empty(0, np.int64))
        return np.empty(0, np.float32) if found is None else found
