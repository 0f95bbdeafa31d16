"""Samples of several sources, numbered one source after another. Each keeps its own transforms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, RowMismatch, Rows, report_at
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources.cache.store import Store
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.source import Source

__all__ = ["MixtureSource"]


class MixtureSource(Source):
    """The samples of several pipelines, each transformed by its own pipeline."""

    random = True
    not_kept = (
        "samples of several loaders are transformed each time, and cannot be cached: preload "
        "or pack the loaders first, then mix or concatenate the results."
    )

    def __init__(self, pipelines: list[SamplePipeline]) -> None:
        self.pipelines = pipelines
        sizes = [len(pipeline.source) for pipeline in pipelines]
        self._firsts: Indices = np.cumsum([0, *sizes]).astype(np.int64)
        self.runs_user_code = any(pipeline.runs_user_code for pipeline in pipelines)
        self.whole_batches = any(pipeline.source.whole_batches for pipeline in pipelines)
        self.fetches = any(pipeline.source.fetches for pipeline in pipelines)
        if all(pipeline.transforms.transform is None for pipeline in pipelines):
            self.not_kept = ""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def _where(self, index: int) -> tuple[SamplePipeline, int]:
        """The pipeline of a sample, and its number there."""
        k = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self.pipelines[k], index - int(self._firsts[k])

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        pipeline, number = self._where(index)
        return pipeline.sample(number, moment)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        if not len(indices):
            return
        owners = np.searchsorted(self._firsts, indices, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(indices)]
        at_once = [k for k, p in enumerate(self.pipelines) if p.source.whole_batches]
        for owner in at_once:
            self._fill_at_once(owner, np.flatnonzero(owners == owner), indices, out, report, moment)
        for start, stop in itertools.pairwise(cuts):
            rows, owner = slice(start, stop), int(owners[start])
            if owner in at_once:
                continue
            self.pipelines[owner].fill(
                indices[rows] - self._firsts[owner],
                out.part(rows),
                report_at(report, start),
                moment.part(rows),
            )

    def _fill_at_once(
        self,
        owner: int,
        rows: Indices,
        indices: Indices,
        out: Rows,
        report: Report,
        moment: Moment,
    ) -> None:
        """Fill rows that are not adjacent with one call, for sources where each call is expensive."""
        if not len(rows):
            return

        def reported(row: int, error: Exception) -> None:
            if isinstance(error, RowMismatch):
                error.row = int(rows[row])
            report(int(rows[row]), error)

        apart = Rows(out.form, [np.empty_like(array[: len(rows)]) for array in out.arrays])
        numbers = indices[rows] - self._firsts[owner]
        self.pipelines[owner].fill(numbers, apart, reported, moment.part(rows))
        for array, made in zip(out.arrays, apart.arrays, strict=True):
            array[rows] = made

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        owners = np.searchsorted(self._firsts, indices, side="right") - 1
        return [
            claim
            for k in np.unique(owners).tolist()
            for claim in self.pipelines[k].source.fetch_ahead(
                indices[owners == k] - self._firsts[k]
            )
        ]

    def prepare(self) -> None:
        for pipeline in self.pipelines:
            pipeline.source.prepare()

    def name(self, index: int) -> str:
        pipeline, number = self._where(index)
        return pipeline.source.name(number)

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        pipeline, number = self._where(index)
        # The loader distinguishes labels; here all arrays count as inputs of the pipeline at fault.
        return pipeline.advice(number, leaf, dtype_differs, raw=False, inputs=leaf + 1)

    def fingerprint(self) -> dict[str, str]:
        return {
            f"{name} of loader {k}": text
            for k, pipeline in enumerate(self.pipelines)
            for name, text in pipeline.source.fingerprint().items()
        }

    def labels(self) -> Array | None:
        if any(pipeline.transforms.transform is not None for pipeline in self.pipelines):
            return None  # the transform may change the labels
        found = [pipeline.source.labels() for pipeline in self.pipelines]
        known = [labels for labels in found if labels is not None]
        if len(known) < len(found) or len({labels.shape[1:] for labels in known}) > 1:
            return None
        return np.concatenate(known)

    def _each(self, change: Callable[[Source], Source]) -> Source:
        return MixtureSource([replace(p, source=change(p.source)) for p in self.pipelines])

    def held(self) -> Source:
        return self._each(lambda source: source.held())

    def rebound(self, old: Any, new: Any) -> Source:
        return self._each(lambda source: source.rebound(old, new))

    def without_transforms(self) -> Source:
        return MixtureSource([pipeline.without_transforms() for pipeline in self.pipelines])

    def for_worker(self) -> Source:
        return MixtureSource([pipeline.for_worker() for pipeline in self.pipelines])

    def stores(self) -> list[Store]:
        return [store for pipeline in self.pipelines for store in pipeline.source.stores()]

    def close(self) -> None:
        for pipeline in self.pipelines:
            pipeline.source.close()
