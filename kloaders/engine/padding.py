"""Batches of samples of different lengths, padded to the same length: `bucket_by_length`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices, Mask
from kloaders.core.errors import SampleError, WorkerPoolError, never_skipped
from kloaders.core.messages import visible
from kloaders.core.rows import RowMismatch
from kloaders.core.structure import ArraySpec, Structure, flatten, is_text, names_of, unflatten
from kloaders.engine.batches import BatchBuild, Maker
from kloaders.engine.lookahead import Build
from kloaders.plan.buckets import BucketPlan, Buckets
from kloaders.plan.epoch import EpochPlan, Order
from kloaders.plan.rng import Moment

__all__ = ["Padding"]

# If the first samples fail to load, try this many to find the arrays that differ in length.
_TRIES = 20
# The number of samples read if there are several arrays, whose lengths may differ.
_LOOK = 32


class Padding:
    """The settings of `bucket_by_length`: which samples have similar lengths, and the padding value."""

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
        #: The padded leaves of a sample, with their padding values; known after reading two samples.
        self.padded: dict[int, float | str] | None = None

    def of(self, numbers: Array) -> Padding:
        """The same settings for some of the samples."""
        return Padding(
            self.lengths[numbers],
            self.buckets.boundaries,
            self.pad_value,
            self.label_pad_value,
            self.mask,
        )

    def plan(self, plan: EpochPlan) -> BucketPlan:
        """An epoch plan with batches of similar length, to replace this plan."""
        return BucketPlan.of(plan, self.buckets)

    def build(
        self, maker: Maker, plan: EpochPlan, order: Order, batch: int, more: int = 0
    ) -> Build:
        """A padded batch; `more`: steps added to its length."""
        assert isinstance(plan, BucketPlan)
        indices, length = plan.planned(order, batch)
        # Shards know only the lengths of their own samples, but their arrays must have one shape.
        alone = plan.shard[1] == 1 and not more
        return _PaddedBuild(maker, self, indices, order.epoch, length + more, alone)

    def look(self, maker: Maker, plan: EpochPlan) -> Build | None:
        """Batch 0 in another shape, to show Keras on TensorFlow which dimensions vary.

        Keras reads batches 0 and 1 beforehand, only to find the dimensions that differ between them. Both
        batches may happen to have the same length.
        """
        if plan.batches < 2 or (self.buckets.shapes < 2 and not self._may_differ(maker)):
            return None
        return self.build(maker, plan, plan.storage_order(0), 0, more=1)

    def _may_differ(self, maker: Maker) -> bool:
        """Whether an array may be padded to another length than its sample's longest array."""
        return len(self.buckets.boundaries) > 1 and len(self.leaves(maker)) > 1

    def leaves(self, maker: Maker) -> dict[int, float | str]:
        """The numbers of a sample's padded arrays, with their padding values."""
        if self.padded is None:
            self.padded = self._find(maker)
        return self.padded

    def _find(self, maker: Maker) -> dict[int, float | str]:
        order = np.argsort(self.lengths, kind="stable")
        short = self._spec_of_one(maker, order[:_TRIES])
        long = self._spec_of_one(maker, order[::-1][:_TRIES])
        looked = [(int(order[0]), flatten(short)), (int(order[-1]), flatten(long))]
        if sum(bool(spec.shape) for spec in looked[0][1]) > 1:
            places = np.linspace(0, len(order) - 1, min(_LOOK, len(order))).astype(np.int64)
            for index in np.setdiff1d(order[np.unique(places)], order[[0, -1]]).tolist():
                try:
                    looked.append((index, flatten(self._spec_of_one(maker, [index]))))
                except SampleError as error:
                    if maker.log.policy == "raise" or never_skipped([error]):
                        raise
        alike = self.lengths[order[0]] == self.lengths[order[-1]]
        form = maker.specs.delivered
        inputs = len(flatten(form[0]))
        names = [
            name
            for part, called in zip(form, ("x", "y", "weights"), strict=False)
            for name in names_of(part, called)
        ]
        before_weights = len(flatten(form[:2]))
        found: dict[int, float | str] = {}
        for leaf, a in enumerate(looked[0][1]):
            if not a.shape or len(a.shape) != len(looked[1][1][leaf].shape):
                continue
            # A sample of another length if there is one, otherwise the longest.
            others = [(k, specs[leaf]) for k, specs in looked[1:] if specs[leaf].shape]
            other, b = next((one for one in others if one[1].shape[0] != a.shape[0]), others[0])
            # If all samples have the same length, that length identifies the padded axis.
            one = alike and a.shape[0] == self.lengths[order[0]] and leaf < inputs
            if a.shape[0] == b.shape[0] and not one:
                continue
            value = self.pad_value if leaf < inputs else self.label_pad_value
            value = value if leaf < before_weights else 0.0
            if value is None:
                raise ValueError(
                    f"{visible(names[leaf])} has {a.shape[0]} values for "
                    f"{visible(maker.log.name(int(order[0])))}, but {b.shape[0]} for "
                    f"{visible(maker.log.name(other))}: pass label_pad_value= to "
                    "bucket_by_length(), the value to pad labels with, such as -1."
                )
            found[leaf] = "" if is_text(a.dtype) else value
        if not found:
            raise ValueError(
                f"{visible(maker.log.name(int(order[0])))} has {self.lengths[order[0]]} steps, and "
                f"{visible(maker.log.name(int(order[-1])))} has {self.lengths[order[-1]]}, according to "
                f"lengths=, but their inputs have the shapes {_shapes(short[0])} and {_shapes(long[0])}: "
                "steps must be the first axis, and a transform must not pad."
            )
        return found

    def _spec_of_one(self, maker: Maker, candidates: Any) -> Structure:
        raw = maker.pipeline.transforms.transform is None
        look = maker.specs.looker()
        for index in map(int, candidates):
            try:
                return look(index, raw)
            except WorkerPoolError:
                raise
            except Exception as error:  # a user's hook may raise anything
                failure: SampleError = maker.log.explained(index, error)
                if maker.log.policy == "raise" or never_skipped([failure]):
                    raise failure from error
        raise failure

    def delivered(self, maker: Maker, spec: Structure) -> Structure:
        """The spec of delivered samples: None for the steps, plus a mask if requested."""
        padded = self.leaves(maker)
        specs = [
            ArraySpec((None, *s.shape[1:]), s.dtype) if leaf in padded else s
            for leaf, s in enumerate(flatten(spec))
        ]
        known: tuple[Any, ...] = unflatten(spec, specs)
        if not self.mask:
            return known
        return self.with_mask(known[0], ArraySpec((None,), np.dtype(bool))), *known[1:]

    def with_mask(self, x: Structure, mask: Any) -> Structure:
        """The inputs with one more array."""
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
    """A batch whose rows are padded to the same length, or each array to its own length.

    own: whether a shorter array is padded only to the boundary for its longest row.
    """

    def __init__(
        self, maker: Maker, padding: Padding, indices: Indices, epoch: int, length: int, own: bool
    ) -> None:
        self.padding = padding
        self.padded = padding.leaves(maker)
        self.length = length
        self.own = own
        #: For each padded array, the length of each row.
        self.counts = {leaf: np.full(len(indices), length, np.int64) for leaf in self.padded}
        self.keep: Mask | None = None
        super().__init__(maker, indices, Moment(epoch))

    def _fresh(self) -> list[Array]:
        needs = [
            ((self.rows, *self._shape(leaf, spec)), spec.dtype)
            for leaf, spec in enumerate(flatten(self.form))
        ]
        if self.processes is not None:
            taken: list[Array] = self.processes.memory.take(needs)
            return taken
        return [self.maker.pool.take(shape, dtype) for shape, dtype in needs]

    def _shape(self, leaf: int, spec: ArraySpec) -> tuple[int, ...]:
        shape = tuple(n or 1 for n in spec.shape)
        return (self.length, *shape[1:]) if leaf in self.padded else shape

    def _load_one(
        self, index: int, row: int, scratch: list[Array] | None = None
    ) -> Exception | None:
        for leaf, counts in self.counts.items() if scratch is None else ():
            counts[row] = self.leaves[leaf].shape[1]  # unless the row is reported as a mismatch
        return super()._load_one(index, row, scratch)

    def settle(self) -> Mask | None:
        self.keep = super().settle()
        return self.keep

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        """Pad rows of other lengths, which are expected here."""
        want = self.leaves[leaf]
        fits = [o.array.shape[1:] == want.shape[2:] and o.array.dtype == want.dtype for o in odd]
        if leaf not in self.padded or not all(fits):
            return super()._fit(leaf, odd, failed)
        for o in odd:
            self._check(o)
        self.length = max(self.length, self._limit(max(len(o.array) for o in odd)))
        if self.length > want.shape[1]:  # a replacement may be longer
            shape = (self.rows, self.length, *want.shape[2:])
            larger = self.maker.pool.take(shape, want.dtype)
            larger[:, : want.shape[1]] = want
            larger[:, want.shape[1] :] = self.padded[leaf]
            self.leaves[leaf] = larger
        for o in odd:
            row, steps = self.leaves[leaf][o.row], len(o.array)
            row[:steps] = o.array
            row[steps:] = self.padded[leaf]
            self.counts[leaf][o.row] = steps
        return {}

    def _limit(self, steps: int) -> int:
        boundaries = self.padding.buckets.boundaries
        return int(boundaries[min(int(np.searchsorted(boundaries, steps)), len(boundaries) - 1)])

    def _check(self, mismatch: RowMismatch) -> None:
        index = int(self.indices[mismatch.row])
        allowed = self._limit(int(self.padding.lengths[index]))
        if len(mismatch.array) > allowed:
            raise ValueError(
                f"{visible(self.maker.log.name(index))} has {len(mismatch.array)} steps, but only "
                f"{self.padding.lengths[index]} according to the lengths= of bucket_by_length(): pass "
                "lengths after the transform, or longer ones."
            )

    def finish(self) -> Any:
        indices, leaves = self.finish_leaves()
        keep: Any = slice(None) if self.keep is None else self.keep
        if not len(indices):
            indices, leaves = self.one_instead()
            keep = slice(1)
        counts = {leaf: found[keep] for leaf, found in self.counts.items()}
        for leaf, found in counts.items() if self.own else ():
            most = self._limit(int(found.max()))
            if most < leaves[leaf].shape[1]:
                leaves[leaf] = np.ascontiguousarray(leaves[leaf][:, :most])
        sample = unflatten(self.form, leaves)
        if self.padding.mask:
            first = min(self.padded)
            there = np.arange(leaves[first].shape[1]) < counts[first][:, None]
            sample = self.padding.with_mask(sample[0], there), *sample[1:]
        return self.maker.delivery(sample, indices)
