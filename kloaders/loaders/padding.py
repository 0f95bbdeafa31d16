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

# Maximum number of shapes without boundaries.
_SHAPES = 8
# A code for a bucket is a byte.
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
    their bucket share one with neighbouring buckets. Storage order (`predict`) does not change. Each
    array of a batch is padded to the smallest boundary that is not below its longest row: encoder
    texts to one length, decoder texts to another (with `shard=`, both to the longer one, so that all
    shards have the same shape). An array has one shape per boundary; TensorFlow and JAX compile once
    for each shape.

    Args:
        loader: any loader but a two-level one; options and data are shared with it.
        lengths: steps of each sample, as its arrays have them in the end (after the transform), or
            more. None takes the first axis of the inputs, the longest of several: known of arrays in a
            list, otherwise every sample is read once, and how long that takes is shown. A function
            `lengths(x, y)` of one sample, as it is after the transform, says what else samples are to
            be alike in, such as the pixels of an image; y is None without labels. Each array is then
            padded to its own longest in the batch, along any axis, as by `padded_batches`.
        boundaries: the lengths to pad to, rising; at most 255. None: eight, so that each holds as
            many samples.
        pad_value: the value that is appended to inputs. Masking(pad_value) and
            Embedding(mask_zero=True) make a mask of it.
        label_pad_value: likewise for labels that have one value per step, such as -1 with
            SparseCategoricalCrossentropy(ignore_class=-1).
        mask: give the model a mask, too: a bool array (batch, steps), True where there is a step,
            as a last input, or as "mask" where inputs are a dict.

    Arrays whose first axis is as long as the sample are padded, others left alone.

    Raises:
        ValueError: a sample is longer than the last boundary, or lengths are not one a sample.

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
            f"bucket_by_length() got a loader that samples ({loader.sampling}): both decide which "
            "samples share a batch. Leave out epoch_batches=, class_balance= and sampling_weights=, "
            "or weigh samples in the loss by sample_weights=."
        )
    if loader.options.samples_per_file > 1:
        raise ValueError(
            f"bucket_by_length() got a loader with samples_per_file={loader.samples_per_file}, which has an "
            "order of its own: leave that out, or take kl.repeat(loader, times)."
        )
    if lengths is None or callable(lengths):
        known = _lengths_of(loader, lengths)
    else:
        known = _checked_lengths(lengths, loader.samples)
    limits = _even(known) if boundaries is None else _checked_boundaries(boundaries)
    longest = int(known.argmax())
    if known[longest] > limits[-1]:
        raise ValueError(
            f"{visible(loader.source.name(longest))} has {known[longest]} steps, and the last boundary is "
            f"{limits[-1]}: add a boundary of {known[longest]}, or cut in transform= and pass "
            f"lengths=np.minimum(lengths, {limits[-1]})."
        )
    if callable(lengths):
        if mask:
            raise ValueError(
                "bucket_by_length() got lengths= as a function and mask=True: arrays are then padded each "
                "by itself, and have no mask in common. Leave one out; Masking(pad_value) makes a mask."
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
    """A loader of the same kind whose batches may hold samples of any shape, each array padded.

    Each array of a batch is padded at its end to the longest in this batch, along each axis
    that differs, and by itself: the words of an encoder to the longest text, those of a decoder to
    the longest translation, images to the greatest height and width, boxes to the most boxes. Order
    and batches are those of the loader. Every batch may have a shape of its own, and TensorFlow with
    `jit_compile` and JAX compile for each: `bucket_by_length` has few.

    Args:
        loader: any loader but a two-level one; options and data are shared with it.
        pad_value: what inputs are filled up with.
        label_pad_value: likewise for labels that differ, such as -1 with
            SparseCategoricalCrossentropy(ignore_class=-1). Weights are filled up with 0.
        look: samples that are read at first, evenly chosen, to learn which axes differ. A sample that
            differs along another axis is an error that says so. None: all samples.

    Raises:
        TypeError, ValueError: no loader, a loader that pads already, or look is no count.

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
    """Whether the loader's batches can be padded by the function `what`."""
    check_loader(loader, what)
    if loader.plan.window is not None:
        raise ValueError(
            f"{what}({type(loader).__name__}): its order is that of its RAM batches. Use "
            "a loader of one level, such as PathSequenceLoader, and cache= where the disk is slow."
        )
    if loader.options.padding is not None:
        raise ValueError(
            f"{what}() got a loader that pads already: give it the one that this was made from."
        )
    if loader.batch_transform is not None:
        raise ValueError(
            f"{what}() got a loader with batch_transform=, which may change what is padded: "
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
            f"lengths= gave {found!r:.80} for {visible(name)}, expected the number of its steps, 0 or more, "
            "such as lengths=lambda x, y: max(len(x), len(y))."
        )
    return length


def _checked_boundaries(boundaries: Any) -> Array:
    try:
        found = np.array([operator.index(b) for b in boundaries], np.int64)
    except TypeError:
        found = np.zeros(0, np.int64)
    if not 0 < len(found) <= _MOST or found[0] < 1 or np.any(np.diff(found) <= 0):
        raise ValueError(
            f"boundaries={boundaries!r:.80}, expected 1 to {_MOST} rising lengths, such as (16, 32, 64)."
        )
    return found


def _even(lengths: Array) -> Array:
    """Boundaries with as many samples below each."""
    shares = np.arange(1, _SHAPES + 1) / _SHAPES
    found = np.unique(np.quantile(lengths, shares, method="inverted_cdf").astype(np.int64))
    return np.maximum(found, 1) if len(found) == 1 else found[found > 0]


def _lengths_of(loader: SequenceLoader, function: Callable[[Any, Any], Any] | None) -> Array:
    """The length of each sample, by a function, if there is one: known of a list of arrays, else read."""
    pipeline, log = loader.runner.pipeline, loader.runner.log
    if function is None and loader.transform is None:
        known = pipeline.source.lengths()
        if known is not None:
            return known
    without = "" if function else "; bucket_by_length(loader, lengths) leaves that out"
    warn(f"{type(loader).__name__}: every sample is read once, to learn how long it is{without}.")

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
