"""`preprocess=`: a user's function that is part of the data, and is applied whenever a sample is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.calls import Call
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import Structure, texts_as_str, transformed_parts
from kloaders.core.weighting import with_weights
from kloaders.plan.rng import Moment, sample_rng
from kloaders.sources.source import Source, WrappedSource

__all__ = ["PreprocessedSource"]


class PreprocessedSource(WrappedSource):
    """The samples of another source, processed by a function.

    Its random numbers depend only on the sample's number. A sample is therefore the same in each epoch,
    whatever the loader's seed, and may be cached.

    Args:
        inner: the source of the samples.
        call: the function.
    """

    runs_user_code = True

    def __init__(self, inner: Source, call: Call) -> None:
        super().__init__(inner)
        self.call = call
        self.runs_user_code, self.reads_many = True, False

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self._made(index, self.inner.sample(index, moment))

    def _made(self, index: int, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        x, y, w = (*parts, None, None)[:3]
        rng = sample_rng(0, 0, index, use="preprocess") if self.call.takes("rng") else None
        got = self.call(x=texts_as_str(x), y=y, w=w, rng=rng)
        return with_weights(transformed_parts(got, "preprocess"), w, self.call, "preprocess")

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        # The sample numbers are this source's own, because they determine the random numbers.
        for index, (_, read) in zip(
            indices.tolist(), self.inner.readers(indices, moment), strict=True
        ):
            yield index, functools.partial(self._read, index, read)

    def _read(self, index: int, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        return self._made(index, read())

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        for row, (_, read) in enumerate(self.readers(indices, moment)):
            try:
                out.put(row, read(), report)
            except Exception as error:  # user code failed for this sample
                report(row, error)

    def lengths(self) -> Array | None:
        return None

    def delivered(self, spec: Structure) -> Structure:
        return spec

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        inner = self.inner.with_labels(change)
        return None if inner is None else PreprocessedSource(inner, self.call)
