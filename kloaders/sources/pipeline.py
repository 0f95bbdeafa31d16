"""Turns a sample number into the delivered arrays: a source, followed by its transforms."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.calls import Call
from kloaders.core.options import TransformOptions
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import (
    Structure,
    flatten,
    names_of,
    spec_of,
    texts_as_str,
    transformed_parts,
)
from kloaders.core.weighting import with_weights
from kloaders.plan.rng import Moment, batch_rng
from kloaders.sources.source import Source

__all__ = ["SamplePipeline"]


@dataclass(frozen=True)
class SamplePipeline:
    """Transformed samples of a source: a pure function of (seed, epoch, sample number, draw).

    It is all that a worker process needs of a loader. Several threads may use it.

    Attributes:
        source: the source of the samples.
        transforms: the transforms to apply.
        seed: fixes the random numbers of transforms.
        part: the shard's number; batch transforms of different shards draw different random numbers.
        inputs_as_labels: whether transforms get x as y, too.
        weights: one number for each sample, for a transform that takes weights.
    """

    source: Source
    transforms: TransformOptions = field(default_factory=TransformOptions)
    seed: int = 0
    part: int = 0
    inputs_as_labels: bool = False
    weights: Array | None = None

    @property
    def runs_user_code(self) -> bool:
        """Whether reading a sample calls a user's function, which may hold the GIL."""
        return self.transforms.transform is not None or self.source.runs_user_code

    def sample(self, index: int, moment: Moment, raw: bool = False) -> tuple[Any, ...]:
        """One sample as a tuple of parts, as it is delivered, or as it is stored (raw)."""
        stall_watch.at(self.source, index)
        found = self.source.sample(index, moment)
        return (
            found
            if raw or self.transforms.transform is None
            else self.transformed(index, found, moment)
        )

    def look(self, index: int, raw: bool) -> Structure:
        """The ArraySpec of each array of one sample."""
        return spec_of(self.sample(index, Moment(), raw))

    def transformed(self, index: int, sample: tuple[Any, ...], moment: Moment) -> tuple[Any, ...]:
        """The result of `transform` for the parts of a sample. It may modify these."""
        call = self.transforms.calls["transform"]
        x, y, w = self._arguments(sample, call, index)
        x = texts_as_str(x)
        rng = moment.rng(self.seed, index)
        if call.plain:
            got = call.function(x, y, rng)
        else:
            got = call(x=x, y=y, w=w, rng=rng, epoch=moment.epoch)
        return with_weights(transformed_parts(got, "transform"), w, call, "transform")

    def _arguments(
        self, parts: tuple[Any, ...], call: Call, indices: int | Indices
    ) -> tuple[Any, Any, Any]:
        """x, y and weights for a transform; None for those that are missing."""
        y = parts[1] if len(parts) > 1 else None
        w = parts[2] if len(parts) > 2 else None
        if w is None and self.weights is not None and call.takes("w"):
            w = np.asarray(self.weights[indices])
        return parts[0], parts[0] if self.inputs_as_labels else y, w

    def fill(
        self, indices: Indices, out: Rows, report: Report, moment: Moment, raw: bool = False
    ) -> None:
        """Fill row r of `out` with sample indices[r]; report rows that fail.

        Several threads call this at once, each with its own rows.
        """
        if raw or self.transforms.transform is None:
            self.source.fill(indices, out, report, moment)
            return
        for row, (index, read) in enumerate(self.source.readers(indices, moment)):
            stall_watch.at(self.source, index)
            try:
                self.put(index, read(), out, row, report, moment.part(row))
            except Exception as error:  # a user's function may raise anything
                report(row, error)

    def put(
        self,
        index: int,
        stored: tuple[Any, ...],
        out: Rows,
        row: int,
        report: Report,
        moment: Moment,
    ) -> None:
        """Transform one stored sample, and write the result to its row."""
        out.put(row, self.transformed(index, stored, moment), report)

    def batch_transformed(
        self, parts: tuple[Any, ...], epoch: int, batch: int, indices: Indices
    ) -> Any:
        """The result of `batch_transform` for the parts of a batch, with the same number of rows.

        indices: the sample numbers of the rows.

        Raises:
            RuntimeError: the transform raised an error.
            ValueError, TypeError: it did not return (x, y) or (x, y, weights) with the same number
                of rows.
        """
        call = self.transforms.calls["batch_transform"]
        x, y, w = self._arguments(parts, call, indices)
        rng = batch_rng(self.seed, epoch, batch, self.part)
        rows = len(flatten(x)[0])
        try:
            got = call(x=x, y=y, w=w, rng=rng, epoch=epoch)
        except Exception as error:  # a user's function may raise anything
            raise RuntimeError(
                f"batch_transform failed for batch {batch} of epoch {epoch}, with {rows} samples: "
                f"{type(error).__name__}: {error}"
            ) from error
        made = with_weights(transformed_parts(got, "batch_transform"), w, call, "batch_transform")
        for name, part in zip(("x", "y", "weights"), made, strict=False):
            for leaf_name, leaf in zip(names_of(part, name), flatten(part), strict=True):
                if leaf.shape[:1] != (rows,):
                    raise ValueError(
                        f"batch_transform returned {leaf_name} of shape {leaf.shape} for a batch of "
                        f"{rows} samples, expected {rows} rows: weights and rows of predict() belong to "
                        "rows. Take the number of rows from len(x); the last batch may be shorter."
                    )
        return made

    def advice(self, index: int, leaf: int, dtype_differs: bool, raw: bool, inputs: int) -> str:
        """Advice for array `leaf` of a sample whose dtype or shape differs.

        inputs: the number of arrays that x has as stored.
        """
        pad = "" if dtype_differs else ", or pad them: kl.padded_batches(loader)"
        if self.transforms.transform is not None and not raw:
            return f"Let transform= return arrays of one shape and dtype for all samples{pad}."
        if self.transforms.preprocess is not None:
            return f"Let preprocess= return arrays of one shape and dtype for all samples{pad}."
        if leaf >= inputs:
            pad = pad.replace("loader)", "loader, label_pad_value=-1)")
            return f"Give labels of one shape and dtype{pad}."
        return self.source.advice(index, leaf, dtype_differs)

    def without_transforms(self) -> SamplePipeline:
        """This pipeline for validation: samples as they are stored."""
        source = self.source.without_transforms()
        transforms = replace(self.transforms, transform=None, batch_transform=None)
        return replace(self, source=source, transforms=transforms)

    def for_worker(self) -> SamplePipeline:
        """This pipeline without what workers do not need: this process transforms whole batches."""
        return replace(
            self,
            source=self.source.for_worker(),
            transforms=replace(self.transforms, preprocess=None, batch_transform=None),
        )

    def twin(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """The parts of a sample or batch; if inputs are labels, y is the same arrays as x."""
        return parts * 2 if self.inputs_as_labels and len(parts) == 1 else parts
