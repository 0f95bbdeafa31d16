"""A source with stores in front of it that cache whole samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, Rows
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources.cache.columns import HookCache
from kloaders.sources.cache.store import MadeBy, Store
from kloaders.sources.source import Source, WrappedSource

__all__ = ["CachedSource"]


class CachedSource(WrappedSource):
    """The samples of another source, cached when they are first read.

    Args:
        inner: the source of the samples.
        cache: the cache.
        key: `key(inner)` describes everything except files that determines a sample; None if nothing does.
    """

    def __init__(
        self, inner: Source, cache: HookCache, key: Callable[[Source], MadeBy] | None = None
    ) -> None:
        super().__init__(inner)
        self.cache, self.key = cache, key

    def prepare(self) -> None:
        super().prepare()
        if self.key is None or self.cache.made_by is not None:
            return
        made_by = self.key(self.inner)
        if self.cache.key is None:
            self.cache.key = made_by.first
        self.cache.made_by = made_by

    def for_worker(self) -> Source:
        found: Source = self._with(inner=self.inner.for_worker(), key=None)
        return found

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        self._begin()
        found: tuple[Any, ...] = self.cache.remember(
            index, functools.partial(self.inner.sample, index, moment)
        )
        return found

    def readers(self, indices: Indices, moment: Moment) -> Any:
        return Source.readers(self, indices, moment)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        if not self.reads_many:  # one sample at a time, as the inner source reads
            Source.fill(self, indices, out, report, moment)
            return
        self._begin()

        def read(wanted: Indices, arrays: list[Array], report: Report) -> None:
            self.inner.fill(wanted, Rows(out.form, arrays), report, moment)

        self.cache.fill(out.form, indices, out.arrays, report, read)

    def _begin(self) -> None:
        if self.key is not None and self.cache.made_by is None:
            self.prepare()

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        stores, stamp = self.cache.stores, self.cache.stamp
        if stores:  # only samples that at least one store lacks
            indices = np.unique(np.concatenate([store.missing(indices, stamp) for store in stores]))
        return self.inner.fetch_ahead(indices) if len(indices) else ()

    def stores(self) -> list[Store]:
        return [*self.cache.stores, *super().stores()]
