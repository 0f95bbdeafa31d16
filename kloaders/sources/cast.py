"""Samples of any source, converted to another dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from kloaders.core.arrays import Indices
from kloaders.core.checks import checked_dtype
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import cast
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source, WrappedSource

__all__ = ["CastSource"]


class CastSource(WrappedSource):
    """Another source, with inputs or labels converted to another dtype as they are read.

    The sources in this package convert while copying, which is faster.
    """

    def __init__(self, inner: Source, dtype: Any, labels: Any = None) -> None:
        super().__init__(inner)
        self.columns = None  # the inner source's columns have other values than this source
        self.dtypes = checked_dtype(dtype), checked_dtype(labels)

    @classmethod
    def of(cls, samples: Any, dtype: Any) -> Any:
        """Return `samples` with a cast; unchanged if it is not a source, or there is nothing to cast."""
        return cls(samples, dtype) if dtype is not None and isinstance(samples, Source) else samples

    def _cast(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        cut = len(self.dtypes)
        made = [
            part if dtype is None else cast(part, dtype)
            for part, dtype in zip(parts, self.dtypes, strict=False)
        ]
        return *made, *parts[cut:]

    def _cast_of(self, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        return self._cast(read())

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self._cast(self.inner.sample(index, moment))

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        for index, read in self.inner.readers(indices, moment):
            yield index, functools.partial(self._cast_of, read)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        for row, (_, read) in enumerate(self.readers(indices, moment)):
            try:
                out.put(row, read(), report)
            except Exception as error:  # user code failed for this sample
                report(row, error)

    def take(self, numbers: Indices) -> Source:
        return CastSource(self.inner.take(numbers), *self.dtypes)
