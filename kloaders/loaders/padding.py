"""Batches of samples of unequal length: which come together, and how they are filled up."""

from __future__ import annotations

import operator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kloaders.core.errors import explain
from kloaders.core.messages import say
from kloaders.core.structure import ArraySpec, Structure, flatten, names_of, pack
from kloaders.core.threads import usable_cores
from kloaders.engine.batches import BatchBuild
from kloaders.engine.lookahead import Build
from kloaders.loaders.sequence import SequenceLoader, check_loader
from kloaders.plan.buckets import BucketPlan, Buckets
from kloaders.plan.epoch import EpochPlan, Order
from kloaders.sources.columns import Column, ListColumn, Odd, SubsetColumn

__all__ = ["bucket_by_length"]

Array = np.ndarray[Any, Any]

# Without boundaries: so many shapes at most.
_SHAPES = 8
# A code for a bucket is a byte.
_MOST = 255
# Samples looked at to learn which arrays differ in length, where the first ones do not load.
_TRIES = 20


def bucket_by_length(
    loader: Any,
    lengths: Any = None,
    boundaries: Any = None,
    *,
    pad_value: float = 0,
    label_pad_value: float | None = None,
    mask: bool = False,
) -> Any:
    """A loader of the same kind whose batches hold samples of like length, padded to one.

    Shuffled, the batches of an epoch are each of one bucket, in a random order; all are full but the
    last, and there are as many as before. What does not fill a batch of its bucket shares one with
    neighbouring buckets. In storage order (`predict`) samples stay where they are. A batch is padded
    to the smallest boundary that holds all of it, with whatever is in it: so many shapes there are,
    and on TensorFlow and JAX so many compilations.

    Args:
        loader: any loader but a two-level one; options and data are shared with it.
        lengths: steps of each sample, as its arrays have them in the end (after the transform), or
            more. None takes the first axis of the arrays: known of arrays in a list, otherwise every
            sample is read once, and how long that takes is shown.
        boundaries: the lengths to pad to, rising; at most 255. None: eight, so that each holds as
            many samples.
        pad_value: what inputs are filled up with, behind their end. Masking(pad_value) and
            Embedding(mask_zero=True) make a mask of it.
        label_pad_value: likewise for labels that have a value a step, such as -1 with
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
    check_loader(loader, "bucket_by_length")
    if loader.plan.window is not None:
        raise ValueError(
            f"bucket_by_length({type(loader).__name__}): its order is that of its RAM batches. Use "
            "a loader of one level, such as PathSequenceLoader, and cache= where the disk is slow."
        )
    if loader._buckets is not None:
        raise ValueError("bucket_by_length() got a loader that has buckets already.")
    if loader.sampling:
        raise ValueError(
            f"bucket_by_length() got a loader that samples ({loader.sampling}): both decide which "
            "samples share a batch. Leave out epoch_batches=, class_balance= and sampling_weights=, "
            "or weigh samples in the loss by sample_weights=."
        )
    if loader.batch_transform is not None:
        raise ValueError(
            "bucket_by_length() got a loader with batch_transform=, which may change what is padded: "
            "use transform=, or a layer in the model."
        )
    known = _lengths_of(loader) if lengths is None else _checked_lengths(lengths, loader.samples)
    limits = _even(known) if boundaries is None else _checked_boundaries(boundaries)
    longest = int(known.argmax())
    if known[longest] > limits[-1]:
        raise ValueError(
            f"{loader._name(longest)} has {known[longest]} steps, and the last boundary is "
            f"{limits[-1]}: add a boundary of {known[longest]}, or cut in transform= and pass "
            f"lengths=np.minimum(lengths, {limits[-1]})."
        )
    new = loader.view()
    own = vars(new)
    own["_buckets"] = Padding(known, limits, pad_value, label_pad_value, bool(mask))
    own["plan"] = new._checked_plan()
    new._set_up()
    return new


class Padding:
    """What `bucket_by_length` was told; a loader that has one is asked for padded batches."""

    def __init__(
        self,
        lengths: Array,
        boundaries: Array,
        pad_value: float,
        label_pad_value: float | None,
        mask: bool,
    ) -> None:
        self.lengths = lengths
        self.buckets = Buckets(lengths, boundaries)
        self.pad_value = pad_value
        self.label_pad_value = label_pad_value
        self.mask = mask
        #: Leaves of a sample that are padded, and with what; known after a look at two samples.
        self.padded: dict[int, float] | None = None

    def of(self, numbers: Array) -> Padding:
        """The same for some of the samples."""
        return Padding(
            self.lengths[numbers],
            self.buckets.boundaries,
            self.pad_value,
            self.label_pad_value,
            self.mask,
        )

    def plan(self, loader: SequenceLoader) -> EpochPlan:
        """The order of a loader with these buckets."""
        return BucketPlan(
            loader.samples,
            loader.batch_size,
            loader.seed,
            drop_last=loader.drop_last,
            shard=loader.shard,
            buckets=self.buckets,
        )

    def build(self, loader: SequenceLoader, order: Order, batch: int, more: int = 0) -> Build:
        """A batch, padded; `more`: steps added to its length."""
        plan = loader.plan
        assert isinstance(plan, BucketPlan)
        indices, length = plan.planned(order, batch)
        return _PaddedBuild(loader, self, indices, order.epoch, length + more)

    def look(self, loader: SequenceLoader) -> Build | None:
        """Batch 0 as it is shown to Keras on TensorFlow, which fixes what shapes may come.

        It takes a dimension to vary if it differs between batches 0 and 1, which it reads before it
        begins, and for nothing else. They may well be of one length.
        """
        if self.buckets.shapes < 2 or len(loader) < 2:
            return None
        return self.build(loader, loader.plan.storage_order(0), 0, more=1)

    def leaves(self, loader: SequenceLoader) -> dict[int, float]:
        """Numbers of the arrays of a sample that are padded, and what with."""
        if self.padded is None:
            self.padded = self._find(loader)
        return self.padded

    def _find(self, loader: SequenceLoader) -> dict[int, float]:
        order = np.argsort(self.lengths, kind="stable")
        short = self._spec_of_one(loader, order[:_TRIES])
        long = self._spec_of_one(loader, order[::-1][:_TRIES])
        alike = self.lengths[order[0]] == self.lengths[order[-1]]
        form = loader.sample_spec
        inputs = len(flatten(form[0]))
        names = [*names_of(form[0], "x"), *(names_of(form[1], "y") if len(form) > 1 else [])]
        found: dict[int, float] = {}
        for leaf, (a, b) in enumerate(zip(flatten(short), flatten(long), strict=True)):
            if not a.shape or len(a.shape) != len(b.shape):
                continue
            # Where all samples are of one length, only the number itself says what is one.
            one = alike and a.shape[0] == self.lengths[order[0]] and leaf < inputs
            if a.shape[0] == b.shape[0] and not one:
                continue
            value = self.pad_value if leaf < inputs else self.label_pad_value
            if value is None:
                raise ValueError(
                    f"{names[leaf]} has {a.shape[0]} values for {loader._name(int(order[0]))}, and "
                    f"{b.shape[0]} for {loader._name(int(order[-1]))}: pass label_pad_value= to "
                    "bucket_by_length(), what labels are filled up with, such as -1."
                )
            found[leaf] = value
        if not found:
            raise ValueError(
                f"{loader._name(int(order[0]))} has {self.lengths[order[0]]} steps by lengths=, and "
                f"{loader._name(int(order[-1]))} has {self.lengths[order[-1]]}, but their inputs "
                f"have the shapes {_shapes(short[0])} and {_shapes(long[0])}: steps are the first "
                "axis, and a transform must not pad."
            )
        return found

    def _spec_of_one(self, loader: SequenceLoader, candidates: Array) -> Structure:
        for index in candidates.tolist():
            try:
                return loader._look(index, loader.transform is None)
            except Exception as error:
                failure = explain(index, loader._name(index), error)
                if loader.on_error == "raise":
                    raise failure from error
        raise failure

    def delivered(self, loader: SequenceLoader, spec: Structure) -> Structure:
        """The form of a sample as it comes out: None for the steps, and a mask where asked for."""
        padded = self.leaves(loader)
        specs = [
            ArraySpec((None, *s.shape[1:]), s.dtype) if leaf in padded else s
            for leaf, s in enumerate(flatten(spec))
        ]
        known: tuple[Any, ...] = pack(spec, specs)
        if not self.mask:
            return known
        return self.with_mask(known[0], ArraySpec((None,), np.dtype(bool))), *known[1:]

    def with_mask(self, x: Structure, mask: Any) -> Structure:
        """Inputs and one more."""
        if isinstance(x, dict):
            return {**x, "mask": mask}
        return (*x, mask) if isinstance(x, tuple) else (x, mask)

    def __str__(self) -> str:
        used = self.buckets.boundaries[np.diff(self.buckets.starts) > 0].tolist()
        share = 1 - self.buckets.steps / max(1, self.buckets.padded)
        return f"padded to {', '.join(map(str, used))} steps, {share:.0%} of them padding"


def _shapes(spec: Structure) -> str:
    return ", ".join(str(s.shape) for s in flatten(spec))


class _PaddedBuild(BatchBuild):
    """A batch whose rows are filled up to one length."""

    def __init__(
        self, loader: SequenceLoader, padding: Padding, indices: Array, epoch: int, length: int
    ) -> None:
        self.padding = padding
        self.padded = padding.leaves(loader)
        self.length = length
        self.counts = np.full(len(indices), length, np.int64)
        self.keep: Array | None = None
        super().__init__(loader, indices, epoch)

    def _fresh(self) -> list[Array]:
        needs = [
            ((self.rows, *self._shape(leaf, spec)), spec.dtype)
            for leaf, spec in enumerate(flatten(self.form))
        ]
        if self.processes is not None:
            return self.processes.memory.take(needs)
        return [self.loader._pool.take(shape, dtype) for shape, dtype in needs]

    def _shape(self, leaf: int, spec: ArraySpec) -> tuple[int, ...]:
        shape = tuple(n or 1 for n in spec.shape)
        return (self.length, *shape[1:]) if leaf in self.padded else shape

    def settle(self) -> Array | None:
        self.keep = super().settle()
        return self.keep

    def _fit(self, leaf: int, odd: list[Odd], failed: dict[int, Exception]) -> None:
        """Rows of another length are what this batch is made for."""
        want = self.leaves[leaf]
        fits = [o.array.shape[1:] == want.shape[2:] and o.array.dtype == want.dtype for o in odd]
        if leaf not in self.padded or not all(fits):
            super()._fit(leaf, odd, failed)
            return
        for o in odd:
            self._check(o)
        self.length = max(self.length, self._limit(max(len(o.array) for o in odd)))
        if self.length > want.shape[1]:  # a sample that replaces another may be longer
            shape = (self.rows, self.length, *want.shape[2:])
            larger = self.loader._pool.take(shape, want.dtype)
            larger[:, : want.shape[1]] = want
            larger[:, want.shape[1] :] = self.padded[leaf]
            self.leaves[leaf] = larger
        counted = leaf == min(self.padded)
        for o in odd:
            row, steps = self.leaves[leaf][o.row], len(o.array)
            row[:steps] = o.array
            row[steps:] = self.padded[leaf]
            if counted:
                self.counts[o.row] = steps

    def _limit(self, steps: int) -> int:
        boundaries = self.padding.buckets.boundaries
        return int(boundaries[min(int(np.searchsorted(boundaries, steps)), len(boundaries) - 1)])

    def _check(self, odd: Odd) -> None:
        index = int(self.indices[odd.row])
        allowed = self._limit(int(self.padding.lengths[index]))
        if len(odd.array) > allowed:
            raise ValueError(
                f"{self.loader._name(index)} has {len(odd.array)} steps, and "
                f"{self.padding.lengths[index]} by the lengths= of bucket_by_length(): give lengths "
                "as they are after the transform, or longer."
            )

    def finish(self) -> Any:
        indices, leaves = self.finish_leaves()
        counts = self.counts if self.keep is None else self.counts[self.keep]
        if not len(indices):
            indices, leaves = self._one_instead()
            counts = self.counts[:1]
        sample = pack(self.form, leaves)
        if self.padding.mask:
            steps = leaves[min(self.padded)].shape[1]
            there = np.arange(steps) < counts[:, None]
            sample = self.padding.with_mask(sample[0], there), *sample[1:]
        return self.loader._deliver(sample, indices)


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


def _checked_boundaries(boundaries: Any) -> Array:
    try:
        found = np.array([operator.index(b) for b in boundaries], np.int64)
    except TypeError:
        found = np.zeros(0, np.int64)
    if not 0 < len(found) <= _MOST or found[0] < 1 or np.any(np.diff(found) <= 0):
        raise ValueError(
            f"boundaries={boundaries!r}, expected 1 to {_MOST} rising lengths, such as (16, 32, 64)."
        )
    return found


def _even(lengths: Array) -> Array:
    """Boundaries with as many samples below each."""
    shares = np.arange(1, _SHAPES + 1) / _SHAPES
    found = np.unique(np.quantile(lengths, shares, method="inverted_cdf").astype(np.int64))
    return np.maximum(found, 1) if len(found) == 1 else found[found > 0]


def _lengths_of(loader: SequenceLoader) -> Array:
    """The length of each sample: known of a list of arrays, else read."""
    if loader.transform is None and not loader._runs_users_code():
        columns = loader._columns()
        for column in flatten(columns[0]) if columns is not None else ():
            found = _known(column)
            if found is not None:
                return found
    say(
        f"{type(loader).__name__}: every sample is read once, to learn how long it is; "
        "bucket_by_length(loader, lengths) leaves that out."
    )

    def one(index: int) -> int:
        try:
            spec = loader._sample(index)
            if loader.transform is not None:
                spec = loader._transformed(index, spec, 0, 0)
        except Exception as error:
            if loader.on_error == "raise":
                raise explain(index, loader._name(index), error) from error
            return 0
        return max((a.shape[0] for a in flatten(spec[0]) if a.shape), default=0)

    count = loader.thread_count or usable_cores()
    with (
        ThreadPoolExecutor(count, "kloaders-lengths") as threads,
        tqdm(total=loader.samples, unit=" samples", desc="lengths", delay=1) as bar,
    ):
        found = np.zeros(loader.samples, np.int64)
        for index, steps in enumerate(threads.map(one, range(loader.samples), chunksize=64)):
            found[index] = steps
            bar.update(1)
    return found


def _known(column: Column) -> Array | None:
    if isinstance(column, SubsetColumn):
        found = _known(column.column)
        return None if found is None else found[column.numbers]
    column = getattr(column, "column", column)  # cast
    if isinstance(column, ListColumn):
        return np.array([len(a) for a in column.arrays], np.int64)
    return None
