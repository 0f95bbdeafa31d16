"""From a loader's options to the stream that its batches are pieces of; nothing is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.plan.epoch import Stream
from kloaders.plan.streams import (
    Balanced,
    InOrder,
    ShuffledPasses,
    WeightedSystematic,
    WeightedWithReplacement,
)
from kloaders.sources.labels import classes_of, codes_of

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["Sampling", "checked"]


class Sampling:
    """Which samples come how often.

    What a loader's options `epoch_batches`, `class_balance`, `sampling_weights` and `replacement`
    say, checked.

    length: batches in an epoch; None: as many as the samples make.
    codes: class of each sample, unsigned, from 0 without gaps; None where classes do not matter.
    weights: how often each sample comes in proportion, float64; None: each as often.
    replacement: draw each place anew.
    source: the stream itself, where a loader mixes others.
    """

    def __init__(
        self,
        length: int | None = None,
        codes: Array | None = None,
        weights: Array | None = None,
        replacement: bool = False,
        source: Stream | None = None,
    ) -> None:
        self.length, self.codes, self.weights = length, codes, weights
        self.replacement, self.source = replacement, source

    def __bool__(self) -> bool:
        """Whether there is a stream at all."""
        return self.length is not None or self.drawn

    @property
    def drawn(self) -> bool:
        """Whether samples come in other proportions than they are there."""
        return not (self.codes is None and self.weights is None and self.source is None)

    def stream(self, loader: SequenceLoader, size: int) -> Stream | None:
        """The stream of a loader whose global batches have so many samples."""
        if not self:
            return None
        if self.source is not None:
            return self.source
        if self.codes is not None:
            return Balanced(self.codes, size, loader.seed)
        if self.weights is not None:
            kind = WeightedWithReplacement if self.replacement else WeightedSystematic
            return kind(self.weights, loader.seed)
        if loader.shuffle is False:
            return InOrder(loader.samples)
        return ShuffledPasses(loader.samples, loader.seed)

    def of(self, numbers: Array) -> Sampling:
        """The same for some of the samples.

        Raises:
            ValueError: none of them has a weight, or the stream is a mixture.
        """
        if self.source is not None:
            raise ValueError(
                "samples of a mixed loader cannot be chosen: split, take or preload the loaders "
                "first, and mix what comes of it."
            )
        codes = None
        if self.codes is not None:  # a class may be gone
            _, found = np.unique(self.codes[numbers], return_inverse=True)
            codes = found.reshape(-1).astype(self.codes.dtype)
        weights = None if self.weights is None else self.weights[numbers]
        if weights is not None and not weights.any():
            raise ValueError("all sampling_weights of these samples are 0: leave it out for them.")
        return Sampling(self.length, codes, weights, self.replacement)

    def __str__(self) -> str:
        parts = []
        if self.source is not None:
            parts.append("mixed")
        if self.codes is not None:
            parts.append(f"{int(self.codes.max()) + 1} classes in equal parts")
        if self.weights is not None:
            parts.append("by weight" + (", with replacement" if self.replacement else ""))
        if self.length is not None:
            parts.append(f"epochs of {self.length:,} batches, each goes on where the last ended")
        return "; ".join(parts)


def checked(
    loader: SequenceLoader,
    length: int | None,
    class_balance: Any,
    sampling_weights: Any,
    replacement: bool,
) -> Sampling:
    """The options of a loader, whose samples, shuffle and columns are there.

    Raises:
        ValueError, TypeError: an option is out of range, or two contradict each other.
    """
    codes = weights = None
    if class_balance is not None and class_balance is not False:
        if sampling_weights is not None:
            raise ValueError(
                "class_balance and sampling_weights are both given: choose one. Weights that "
                "balance classes are 1 / (how many samples the sample's class has)."
            )
        values = classes_of(loader, "class_balance") if class_balance is True else class_balance
        names, codes = codes_of(values, loader.samples, "class_balance")
        codes = codes.astype(np.min_scalar_type(len(names)))
    if sampling_weights is not None:
        weights = _weights(sampling_weights, loader.samples)
    elif replacement:
        raise ValueError(
            "replacement=True says how sampling_weights are drawn, and there are none: for equal "
            "ones pass sampling_weights=np.ones(samples)."
        )
    found = Sampling(length, codes, weights, replacement)
    if found.drawn and loader.shuffle is False:
        name = "class_balance" if codes is not None else "sampling_weights"
        raise ValueError(
            f"{name}= draws samples, which shuffle=False forbids: leave shuffle out, or {name}."
        )
    return found


def _weights(values: Any, samples: int) -> Array:
    try:
        weights = np.asarray(values)
    except ValueError:  # a ragged list
        weights = np.empty(0, object)
    if weights.dtype.kind not in "biuf":
        raise TypeError(
            f"sampling_weights is a {type(values).__name__} of {weights.dtype}, expected one number "
            f"for each of {samples} samples: np.asarray(weights, np.float64)."
        )
    if weights.shape != (samples,):
        raise ValueError(
            f"sampling_weights has shape {weights.shape}, expected one number for each of "
            f"{samples} samples."
        )
    weights = weights.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise ValueError(
            f"sampling_weights[{wrong[0]}] is {weights[wrong[0]]}, expected a finite number of at "
            "least 0; a sample of weight 0 never comes."
        )
    if not weights.any():
        raise ValueError(
            "all sampling_weights are 0, so that no sample would come: leave them out."
        )
    return weights
