"""Batches of arrays that differ in shape, padded to the batch's maximum (`padded_batches`)."""

from __future__ import annotations

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

__all__ = ["LOOK", "RaggedPadding"]

#: The number of samples that are read to find the axes that differ.
LOOK = 64


class RaggedPadding:
    """The settings of `padded_batches`, or of `bucket_by_length` with a function.

    Attributes:
        samples: the number of samples.
        pad_value: the padding value of inputs.
        label_pad_value: the padding value of labels; None: labels must not differ in shape.
        look_at: the number of samples that are read to find their shapes; None: all.
        lengths, boundaries: which samples share a batch, as for `Padding`; None: any samples.
    """

    def __init__(
        self,
        samples: int,
        pad_value: float,
        label_pad_value: float | None,
        look_at: int | None = LOOK,
        lengths: Array | None = None,
        boundaries: Array | None = None,
    ) -> None:
        self.samples, self.look_at = samples, look_at
        self.pad_value, self.label_pad_value = pad_value, label_pad_value
        self.lengths, self.boundaries = lengths, boundaries
        self.buckets = None
        if lengths is not None and boundaries is not None:
            self.buckets = Buckets(lengths, boundaries)
        self._axes: dict[int, dict[int, int]] | None = None

    def of(self, numbers: Array) -> RaggedPadding:
        """The same settings for some of the samples."""
        lengths = None if self.lengths is None else self.lengths[numbers]
        given = (self.pad_value, self.label_pad_value, self.look_at)
        return RaggedPadding(len(numbers), *given, lengths, self.boundaries)

    def plan(self, plan: EpochPlan) -> EpochPlan:
        """The epoch plan: batches of similar length, if there are lengths."""
        return plan if self.buckets is None else BucketPlan.of(plan, self.buckets)

    def build(self, maker: Maker, plan: EpochPlan, order: Order, batch: int) -> Build:
        """A padded batch."""
        moment = Moment(order.epoch, plan.use(order, batch))
        return _RaggedBuild(maker, self, plan.indices(order, batch), moment)

    def look(self, maker: Maker, plan: EpochPlan) -> Build | None:
        """A batch in a larger shape, to show Keras on TensorFlow which dimensions vary.

        Keras reads two batches beforehand, only to find the dimensions that differ between them. This one
        is larger than all samples that were read. No model is trained on it.
        """
        axes = self.axes(maker)
        if not any(axes.values()):
            return None
        more = {
            leaf: {axis: most + 1 + most // 4 for axis, most in found.items()}
            for leaf, found in axes.items()
        }
        model = np.array([maker.specs.model_sample], np.int64)
        return _RaggedBuild(maker, self, model, Moment(), more)

    def axes(self, maker: Maker) -> dict[int, dict[int, int]]:
        """For each array of a sample, the axes that differ and the longest length found."""
        if self._axes is None:
            self._axes = self._find(maker)
        return self._axes

    def _find(self, maker: Maker) -> dict[int, dict[int, int]]:
        form = maker.specs.delivered  # reads a sample that loads
        raw, look = maker.pipeline.transforms.transform is None, maker.specs.looker()
        count = self.samples if self.look_at is None else min(self.look_at, self.samples)
        found = [flatten(form)]
        for index in np.unique(np.linspace(0, self.samples - 1, count).astype(np.int64)).tolist():
            try:
                found.append(flatten(look(index, raw)))
            except WorkerPoolError:
                raise
            except Exception as error:  # a user's hook may raise anything
                failure = maker.log.explained(index, error)
                if maker.log.policy == "raise" or never_skipped([failure]):
                    raise failure from error
        axes: dict[int, dict[int, int]] = {}
        for leaf, first in enumerate(found[0]):
            shapes = [s[leaf].shape for s in found if len(s[leaf].shape) == len(first.shape)]
            sizes = np.array(shapes).reshape(len(shapes), -1)
            most, least = sizes.max(axis=0), sizes.min(axis=0)
            axes[leaf] = {int(a): int(most[a]) for a in np.flatnonzero(most > least)}
        self._check_labels(form, axes)
        return axes

    def _check_labels(self, form: Structure, axes: dict[int, dict[int, int]]) -> None:
        first, end = len(flatten(form[0])), len(flatten(form[:2]))
        differ = [leaf for leaf in range(first, end) if axes[leaf]]
        if differ and self.label_pad_value is None:
            name = names_of(form[1], "y")[differ[0] - first]
            raise ValueError(
                f"{visible(name)} differs in shape: pass label_pad_value= to "
                f"{'padded_batches' if self.buckets is None else 'bucket_by_length'}(), the value to pad "
                "labels with, such as -1."
            )

    def fills(self, form: Structure) -> list[float]:
        """The padding value of each array of a sample; 0 for weights."""
        counts = [len(flatten(part)) for part in form]
        values = (self.pad_value, self.label_pad_value or 0.0, 0.0)
        return [v for v, n in zip(values, counts, strict=False) for _ in range(n)]

    def delivered(self, maker: Maker, spec: Structure) -> Structure:
        """The spec of delivered samples: None for the axes that differ."""
        axes = self.axes(maker)
        specs = [
            ArraySpec(tuple(None if a in axes[k] else n for a, n in enumerate(s.shape)), s.dtype)
            for k, s in enumerate(flatten(spec))
        ]
        known: Structure = unflatten(spec, specs)
        return known

    def __str__(self) -> str:
        alike = "" if self.buckets is None else ", batches of similar length"
        return f"each array padded to its maximum in the batch{alike}"


class _RaggedBuild(BatchBuild):
    """A batch whose arrays are padded to their longest row.

    least: the minimum length of axes, for each array.
    """

    def __init__(
        self,
        maker: Maker,
        padding: RaggedPadding,
        indices: Indices,
        moment: Moment,
        least: dict[int, dict[int, int]] | None = None,
    ) -> None:
        self.axes = padding.axes(maker)
        self.padding, self.least = padding, least
        #: For each array with rows of different shapes, the shape of each row.
        self.sizes: dict[int, Array] = {}
        self.keep: Mask | None = None
        super().__init__(maker, indices, moment)
        self.fills = padding.fills(self.form)

    def _load_one(
        self, index: int, row: int, scratch: list[Array] | None = None
    ) -> Exception | None:
        for leaf, sizes in self.sizes.items() if scratch is None else ():
            sizes[row] = self.leaves[leaf].shape[1:]  # unless the row is reported as a mismatch
        return super()._load_one(index, row, scratch)

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        """Pad rows of other shapes, which are expected here."""
        want = flatten(self.form)[leaf]
        axes = self.axes[leaf]
        if not axes or any(
            len(o.array.shape) != len(want.shape) or o.array.dtype != want.dtype for o in odd
        ):
            return super()._fit(leaf, odd, failed)
        unfit: dict[int, Exception] = {
            o.row: error for o in odd if (error := self._error(o, want)) is not None
        }
        odd = [o for o in odd if o.row not in unfit]
        old = self.leaves[leaf]
        sizes = self.sizes.setdefault(leaf, np.tile(np.array(old.shape[1:]), (self.rows, 1)))
        for o in odd:
            sizes[o.row] = o.array.shape
        rows = [row for row in range(self.rows) if row not in failed and row not in unfit]
        if not rows:
            return unfit
        given = {o.row: o.array for o in odd}
        new = self._filled(leaf, tuple(sizes[rows].max(axis=0).tolist()))
        for row in rows:
            part = tuple(slice(n) for n in sizes[row].tolist())
            new[row][part] = given[row] if row in given else old[row][part]
        self.leaves[leaf] = new
        return unfit

    def _filled(self, leaf: int, shape: tuple[int, ...]) -> Array:
        new = self.maker.pool.take((self.rows, *shape), self.leaves[leaf].dtype)
        new[...] = "" if is_text(new.dtype) else self.fills[leaf]
        return new

    def _error(self, odd: RowMismatch, want: ArraySpec) -> SampleError | None:
        """The error for a row that differs along an axis where none of the samples read beforehand did."""
        pairs = enumerate(zip(odd.array.shape, want.shape, strict=True))
        other = [a for a, (n, m) in pairs if n != m and a not in self.axes[odd.leaf]]
        if not other:
            return None
        index, name = int(self.indices[odd.row]), names_of(self.form, "")[odd.leaf]
        parts = ("x", "y", "weights")
        name = parts[int(name[1])] + name[3:]
        return SampleError(
            index,
            self.log.name(index),
            f"{visible(name)} is {odd.array.shape}, but axis {other[0]} of all samples that "
            f"were read beforehand is {want.shape[other[0]]}: "
            + (
                "let transform= return that size for all samples in all epochs."
                if self.padding.look_at is None
                else f"{self.padding.look_at} were read; padded_batches(loader, look=None) reads all."
            ),
        )

    def settle(self) -> Mask | None:
        self.keep = super().settle()
        return self.keep

    def finish_leaves(self) -> tuple[Indices, list[Array]]:
        indices, leaves = super().finish_leaves()
        for leaf, sizes in self.sizes.items():  # skipped rows may have been the longest
            kept = sizes if self.keep is None else sizes[self.keep]
            if len(kept):
                part = tuple(slice(n) for n in kept.max(axis=0).tolist())
                leaves[leaf] = np.ascontiguousarray(leaves[leaf][(slice(None), *part)])
        for leaf, axes in (self.least or {}).items():
            shape = list(leaves[leaf].shape)
            for axis, size in axes.items():
                shape[1 + axis] = max(size, shape[1 + axis])
            larger = self._filled(leaf, tuple(shape[1:]))
            larger[tuple(slice(n) for n in leaves[leaf].shape)] = leaves[leaf]
            leaves[leaf] = larger
        return indices, leaves
