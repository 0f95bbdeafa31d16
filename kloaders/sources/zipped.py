"""Samples that are composed of one sample from each of several sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, RowMismatch, Rows
from kloaders.core.structure import Structure, flatten, map_structure, unflatten
from kloaders.plan.rng import Moment
from kloaders.sources.cache.store import Store
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.source import Source

__all__ = ["ZippedSource"]


class ZippedSource(Source):
    """Sample k of several pipelines as one sample, each part transformed by its own pipeline.

    Args:
        pipelines: the pipelines; all have the same number of samples.
        form: the structure of x, and optionally of y. Its leaves are pairs of numbers (pipeline, part),
            and contain every part of every pipeline once.
    """

    random = True
    not_kept = (
        "samples of zipped loaders are transformed each time, and cannot be cached: preload or pack the "
        "loaders first, then zip the results."
    )

    def __init__(self, pipelines: list[SamplePipeline], form: tuple[Structure, ...]) -> None:
        self.pipelines, self.form = pipelines, tuple(map(_as_leaves, form))
        self.runs_user_code = any(pipeline.runs_user_code for pipeline in pipelines)
        self.whole_batches = any(pipeline.source.whole_batches for pipeline in pipelines)
        if all(pipeline.transforms.transform is None for pipeline in pipelines):
            self.not_kept = ""
            self.random = any(pipeline.source.random for pipeline in pipelines)

    def __len__(self) -> int:
        return len(self.pipelines[0].source)

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        found = [pipeline.sample(index, moment) for pipeline in self.pipelines]
        parts: tuple[Any, ...] = map_structure(
            lambda leaf: found[leaf.pipeline][leaf.part], self.form
        )
        return parts

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        # The pipeline and part of each array.
        numbers = unflatten(out.form, list(range(len(out.arrays))))
        mine: dict[int, dict[int, Structure]] = {}
        _collect(self.form, numbers, mine)
        for k, pipeline in enumerate(self.pipelines):
            form = tuple(mine[k][part] for part in sorted(mine[k]))
            places = flatten(form)
            rows = Rows(form, [out.arrays[place] for place in places])
            pipeline.fill(indices, rows, _reported(report, places), moment)

    def prepare(self) -> None:
        for pipeline in self.pipelines:
            pipeline.source.prepare()

    def prefetch(self, indices: Indices) -> None:
        for pipeline in self.pipelines:
            pipeline.source.prefetch(indices)

    def name(self, index: int) -> str:
        return " with ".join(dict.fromkeys(p.source.name(index) for p in self.pipelines))

    def fingerprint(self) -> dict[str, str]:
        return {
            f"{name} of loader {k}": text
            for k, pipeline in enumerate(self.pipelines)
            for name, text in pipeline.source.fingerprint().items()
        }

    def labels(self) -> Array | None:
        if len(self.form) < 2 or not isinstance(self.form[1], _Leaf):
            return None
        leaf = self.form[1]
        pipeline = self.pipelines[leaf.pipeline]
        if leaf.part == 0 or pipeline.transforms.transform is not None:
            return None
        return pipeline.source.labels()

    def _each(self, change: Callable[[SamplePipeline], SamplePipeline]) -> Source:
        found: Source = ZippedSource([change(p) for p in self.pipelines], self.form)
        return found

    def held(self) -> Source:
        return self._each(lambda p: replace(p, source=p.source.held()))

    def rebound(self, old: Any, new: Any) -> Source:
        return self._each(lambda p: replace(p, source=p.source.rebound(old, new)))

    def without_transforms(self) -> Source:
        return self._each(SamplePipeline.without_transforms)

    def for_worker(self) -> Source:
        return self._each(SamplePipeline.for_worker)

    def stores(self) -> list[Store]:
        return [store for pipeline in self.pipelines for store in pipeline.source.stores()]

    def close(self) -> None:
        for pipeline in self.pipelines:
            pipeline.source.close()


class _Leaf:
    """A part of a pipeline's samples. It is not a tuple, because a tuple would be a structure."""

    def __init__(self, pipeline: int, part: int) -> None:
        self.pipeline, self.part = pipeline, part


def _as_leaves(form: Structure) -> Structure:
    """The same structure, with each pair of numbers as one leaf."""
    if isinstance(form, _Leaf):
        return form
    if isinstance(form, dict):
        return {name: _as_leaves(one) for name, one in form.items()}
    if len(form) == 2 and all(isinstance(one, int) for one in form):
        return _Leaf(*form)
    return tuple(_as_leaves(one) for one in form)


def _collect(form: Structure, numbers: Structure, found: dict[int, dict[int, Structure]]) -> None:
    """For each pipeline and part, the numbers of its arrays, nested like the part."""
    if isinstance(form, _Leaf):
        found.setdefault(form.pipeline, {})[form.part] = numbers
        return
    for name in form if isinstance(form, dict) else range(len(form)):
        _collect(form[name], numbers[name], found)


def _reported(report: Report, places: list[int]) -> Report:
    """A report function for arrays with these positions in the whole sample."""

    def reported(row: int, error: Exception) -> None:
        if isinstance(error, RowMismatch):
            error.leaf = places[error.leaf]
        report(row, error)

    return reported
