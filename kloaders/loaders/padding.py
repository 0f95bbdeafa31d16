"""Batches of samples that differ in shape: `bucket_by_length` and `padded_batches`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.checks import checked_count
from kloaders.core.errors import never_skipped
from kloaders.core.messages import visible, warn
from kloaders.core.progress import Progress
from kloaders.core.structure import flatten
from kloaders.core.threads import ThreadPool, usable_cores
from kloaders.engine.padding import Padding
from kloaders.engine.ragged import LOOK, RaggedPadding
from kloaders.engine.retries import Names, read_patiently
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.plan.rng import Moment

__all__ = ["bucket_by_length", "padded_batches"]

L = TypeVar("L", bound=SequenceLoader)

# The maximum number of shapes if no boundaries are given.
_SHAPES = 8
# The bucket of a sample is stored in one byte.
_MOST = 255


def bucket_by_length(
    loader: L,
    lengths: Any = None,
    boundaries: Any = None,
    *,
    pad_value: float = 0,
    label_pad_value: float | None = None,
    mask: bool = False,
) -> L:
    """A loader of the same kind whose batches have samples of similar length, padded to one length.

    With shuffling, each batch of an epoch comes from one bucket, in a random order; all batches
    except the last are full, and their number does not change. Samples that do not fill a batch of
    their bucket share one with adjacent buckets. Storage order (`predict`) does not change. Each
    array of a batch is padded to the smallest boundary that is not below its longest row: encoder
    texts to one length, decoder texts to another (with `shard=`, both to the longer one, so that all
    shards have the same shape). An array has one shape per boundary; TensorFlow and JAX compile once
    for each shape.

    Args:
        loader: any loader without RAM batches; options and data are shared with it.
        lengths: the number of steps of each sample after the transform, or more. None uses the first
            axis of the inputs (of several inputs the longest): for arrays in a list it is known,
            otherwise every sample is read once, with a progress bar. A function `lengths(x, y)`
            of a transformed sample returns another number by which samples should be similar, such
            as the pixels of an image; y is None without labels. Each array is then padded to its
            own maximum in the batch, along any axis, as by `padded_batches`.
        boundaries: the lengths to pad to, ascending; at most 255. None: eight, chosen so that each
            bucket has the same number of samples.
        pad_value: the value that is appended to inputs. Masking(pad_value) and
            Embedding(mask_zero=True) make a mask of it.
        label_pad_value: the same for labels that have one value per step, such as -1 with
            SparseCategoricalCrossentropy(ignore_class=-1).
        mask: also pass a mask to the model: a bool array (batch, steps), True for each real step, as
            the last input, or as "mask" if inputs are a dict.

    Arrays whose first axis is as long as the sample are padded; others are not changed.

    Raises:
        ValueError: a sample is longer than the last boundary, or there is not one length per sample.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> words = [np.full(n, n) for n in (2, 5, 1, 6)]
    >>> loader = bucket_by_length(
    ...     ArraySequenceLoader(words, batch_size=2, shuffle=True, seed=1), boundaries=[2, 6]
    ... )
    >>> sorted(sorted(loader[i].tolist()) for i in range(2))
    [[[1, 0], [2, 2]], [[5, 5, 5, 5, 5, 0], [6, 6, 6, 6, 6, 6]]]
    """
    _check(loader, "bucket_by_length")
    if loader.sampling:
        raise ValueError(
            f"bucket_by_length() got a loader that draws samples ({loader.sampling}): both decide which "
            "samples share a batch. Leave out epoch_batches=, class_balance= and sampling_weights=, "
            "or weight samples in the loss with sample_weights=."
        )
    if loader.options.samples_per_file > 1:
        raise ValueError(
            f"bucket_by_length() got a loader with samples_per_file={loader.samples_per_file}, which has "
            "its own order: leave that out, or use kl.repeat(loader, times)."
        )
    if lengths is None or callable(lengths):
        known = _lengths_of(loader, lengths)
    else:
        known = _checked_lengths(lengths, loader.samples)
    limits = _even(known) if boundaries is None else _checked_boundaries(boundaries)
    longest = int(known.argmax())
    if known[longest] > limits[-1]:
        raise ValueError(
            f"{visible(loader.source.name(longest))} has {known[longest]} steps, but the last boundary is "
            f"{limits[-1]}: add a boundary of {known[longest]}, or cut in transform= and pass "
            f"lengths=np.minimum(lengths, {limits[-1]})."
        )
    if callable(lengths):
        if mask:
            raise ValueError(
                "bucket_by_length() got lengths= as a function and mask=True: arrays are then padded "
                "separately, and have no common mask. Leave one out; Masking(pad_value) makes a mask."
            )
        ragged = RaggedPadding(loader.samples, pad_value, label_pad_value, LOOK, known, limits)
        return loader.replace(padding=ragged)
    padding = Padding(known, limits, pad_value, label_pad_value, bool(mask))
    return loader.replace(padding=padding)


def padded_batches(
    loader: L,
    *,
    pad_value: float = 0,
    label_pad_value: float | None = None,
    look: int | None = LOOK,
) -> L:
    """A loader of the same kind whose batches may contain samples of any shape, each array padded.

    Each array of a batch is padded at its end to its maximum in this batch, along each axis that
    differs, and independently: an encoder's words to the longest text, a decoder's words to the longest
    translation, images to the greatest height and width, boxes to the largest number of boxes. Order and
    batches are the loader's. Every batch may have a different shape, and TensorFlow with `jit_compile`
    and JAX compile for each shape: `bucket_by_length` has only a few.

    Args:
        loader: any loader without RAM batches; options and data are shared with it.
        pad_value: the value that is appended to inputs.
        label_pad_value: the same for labels whose shape differs, such as -1 with
            SparseCategoricalCrossentropy(ignore_class=-1). Weights are padded with 0.
        look: the number of samples that are read at first, evenly spread, to find out which axes
            differ. A sample that differs along another axis is an error. None: all samples.

    Raises:
        TypeError, ValueError: not a loader, a loader that already pads, or look is not a count.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> words = [np.full(n, n) for n in (2, 3, 1, 4)]
    >>> loader = padded_batches(ArraySequenceLoader(words, batch_size=2))
    >>> loader[0].tolist(), loader[1].tolist()
    ([[2, 2, 0], [3, 3, 3]], [[1, 0, 0, 0], [4, 4, 4, 4]])
    """
    _check(loader, "padded_batches")
    if look is not None:
        look = checked_count(look, "look", 2)
    padding = RaggedPadding(loader.samples, pad_value, label_pad_value, look)
    return loader.replace(padding=padding)


def _check(loader: Any, what: str) -> None:
    """Check that the function `what` can pad the loader's batches."""
    check_loader(loader, what)
    if loader.plan.window is not None:
        raise ValueError(
            f"{what}({type(loader).__name__}): RAM batches have their own order. Use "
            "a loader without RAM batches, such as PathSequenceLoader, with cache= if the disk is slow."
        )
    if loader.options.padding is not None:
        raise ValueError(
            f"{what}() got a loader that already pads: pass the loader that it was made from."
        )
    if loader.batch_transform is not None:
        raise ValueError(
            f"{what}() got a loader with batch_transform=, which may change the padded arrays: "
            "use transform=, or a layer in the model."
        )


# ------------------------------------------------------------------------------- lengths, boundaries


def _checked_lengths(lengths: Any, samples: int) -> Array:
    found = np.asarray(lengths)
    if found.shape != (samples,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"lengths is {found.dtype} of shape {found.shape}, expected one integer for each of "
            f"{samples} samples: [len(sample) for sample in samples]."
        )
    if found.min() < 0:
        raise ValueError(f"lengths[{int(found.argmin())}] is {found.min()}, expected 0 or more.")
    return found.astype(np.int64)


def _given(found: Any, name: str) -> int:
    """The result of a user's function for the length of a sample with this name."""
    try:
        length = operator.index(found)
    except TypeError:
        length = -1
    if length < 0:
        raise ValueError(
            f"lengths= returned {found!r:.80} for {visible(name)}, expected the number of its steps, 0 or "
            "more, such as lengths=lambda x, y: max(len(x), len(y))."
        )
    return length


def _checked_boundaries(boundaries: Any) -> Array:
    try:
        found = np.array([operator.index(b) for b in boundaries], np.int64)
    except TypeError:
        found = np.zeros(0, np.int64)
    if not 0 < len(found) <= _MOST or found[0] < 1 or np.any(np.diff(found) <= 0):
        raise ValueError(
            f"boundaries={boundaries!r:.80}, expected 1 to {_MOST} ascending lengths, such as (16, 32, 64)."
        )
    return found


def _even(lengths: Array) -> Array:
    """Boundaries such that each bucket has the same number of samples."""
    shares = np.arange(1, _SHAPES + 1) / _SHAPES
    found = np.unique(np.quantile(lengths, shares, method="inverted_cdf").astype(np.int64))
    return np.maximum(found, 1) if len(found) == 1 else found[found > 0]


def _lengths_of(loader: SequenceLoader, function: Callable[[Any, Any], Any] | None) -> Array:
    """The length of each sample: by the function if there is one, known for a list of arrays, or read."""
    pipeline, log = loader.runner.pipeline, loader.runner.log
    if function is None and loader.transform is None:
        known = pipeline.source.lengths()
        if known is not None:
            return known
    without = "" if function else "; bucket_by_length(loader, lengths) avoids that"
    warn(f"{type(loader).__name__}: every sample is read once, to find its length{without}.")

    names = Names(loader.samples, log.name)

    def one(index: int) -> int:
        try:
            sample = read_patiently(lambda k: pipeline.sample(k, Moment()), index, names)
        except Exception as error:  # a user's hook may raise anything
            failure = log.explained(index, error)
            if log.policy == "raise" or never_skipped([failure]):
                raise failure from error
            return 0
        if function is None:
            return max((a.shape[0] for a in flatten(sample[0]) if a.shape), default=0)
        return _given(function(sample[0], sample[1] if len(sample) > 1 else None), log.name(index))

    count = loader.thread_count or usable_cores()
    with (
        ThreadPool(count, "kloaders-lengths") as threads,
        Progress(total=loader.samples, unit=" samples", desc="lengths", delay=1) as bar,
    ):
        found = np.zeros(loader.samples, np.int64)
        for index, steps in enumerate(threads.map(one, range(loader.samples), chunksize=64)):
            found[index] = steps
            bar.update(1)
    return found
