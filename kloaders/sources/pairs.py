"""Samples with partners of the same or another class, drawn again in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import Structure
from kloaders.plan.permutation import hashed, mixed, permuted
from kloaders.plan.rng import Moment
from kloaders.sources.mixture import MixtureSource
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.source import Source

__all__ = ["PairSource"]


class PairSource(MixtureSource):
    """Sample i of a pipeline with one or two partners.

    codes: the class of each sample, numbered from 0 without gaps. same: the share of partners from the
    same class; None: each sample has one partner of its class and one of another (a triplet, without
    labels).

    The share is exact in each epoch. Seed, epoch and sample number determine which samples get a partner
    of their class, and the partners. A partner is transformed with random numbers of its own.
    """

    random = True
    not_kept = (
        "partners are drawn in each epoch, and cannot be cached: preload or pack the loader first, "
        "then make pairs of the result."
    )

    def __init__(self, pipeline: SamplePipeline, codes: Indices, same: float | None) -> None:
        super().__init__([pipeline])
        self.not_kept = type(self).not_kept
        self.codes, self.same = codes, same
        self.members: Indices = np.argsort(codes, kind="stable").astype(np.int64)
        self.places = np.empty_like(self.members)
        self.places[self.members] = np.arange(len(codes))
        self.ends: Indices = np.cumsum(np.bincount(codes)).astype(np.int64)
        self._seed = pipeline.seed ^ int.from_bytes(b"pair", "little")

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        rng = moment.rng(self._seed, index)
        first = self._x(index, moment)
        if self.same is None:
            wanted = [self._like(index, rng), self._unlike(index, rng)]
            return ((first, *(self._x(k, moment, n, index) for n, k in enumerate(wanted))),)
        alike = self.is_alike(index, moment.epoch)
        partner = (self._like if alike else self._unlike)(index, rng)
        return (first, self._x(partner, moment, 0, index)), np.asarray(alike, np.float32)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        Source.fill(self, indices, out, report, moment)

    def is_alike(self, index: int, epoch: int) -> bool:
        """Whether the partner of a sample is of the same class in this epoch."""
        assert self.same is not None
        samples = len(self)
        key = int.from_bytes(mixed(self._seed, "alike")[:8], "little")
        rank = permuted(np.array([index]), samples, hashed(np.array([epoch]), np.uint64(key)))
        return bool(rank[0] < round(self.same * samples))

    def _x(self, number: int, moment: Moment, use: int | None = None, anchor: int = 0) -> Structure:
        if use is not None:  # as a partner, with random numbers that depend on its anchor
            assert isinstance(moment.draw, int)
            moment = Moment(moment.epoch, (2 * moment.draw + use + 1) << 40 | anchor)
        return self.pipelines[0].sample(number, moment)[0]

    def _span(self, index: int) -> tuple[int, int]:
        code = int(self.codes[index])
        return int(self.ends[code - 1]) if code else 0, int(self.ends[code])

    def _like(self, index: int, rng: np.random.Generator) -> int:
        start, end = self._span(index)
        place = start + int(rng.integers(end - start - 1))
        return int(self.members[place + (place >= self.places[index])])

    def _unlike(self, index: int, rng: np.random.Generator) -> int:
        start, end = self._span(index)
        place = int(rng.integers(len(self) - (end - start)))
        return int(self.members[place if place < start else place + end - start])

    def labels(self) -> Array | None:
        return None

    def take(self, numbers: Indices) -> Source:
        raise ValueError(
            "partners are drawn from all samples, so that both parts would share some: split or select "
            "first, then make pairs of each part."
        )

    def _each(self, change: Callable[[Source], Source]) -> Source:
        pipeline = self.pipelines[0]
        return PairSource(replace(pipeline, source=change(pipeline.source)), self.codes, self.same)

    def for_worker(self) -> Source:
        return PairSource(self.pipelines[0].for_worker(), self.codes, self.same)
