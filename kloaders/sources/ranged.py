"""Samples in remote objects that contain many samples each: byte ranges are fetched before reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kloaders.core.arrays import Indices
from kloaders.core.rows import Report, Rows
from kloaders.formats.opening import Opener
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source, WrappedSource

__all__ = ["RangedSource", "ranged"]


class RangedSource(WrappedSource):
    """A source that reads byte ranges of remote objects.

    Args:
        inner: the source that reads the samples, one after another.
        fetch: `fetch(indices, only_new)` begins to fetch the data of these samples.
    """

    def __init__(self, inner: Source, fetch: Callable[[Indices, bool], list[Claim]]) -> None:
        super().__init__(inner)
        self.fetches, self._fetch = True, fetch

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        return self._fetch(indices, False)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        claims = self._fetch(indices, True)  # all at once, for those that were not announced
        try:
            self.inner.fill(indices, out, report, moment)
        finally:
            for claim in claims:
                claim.release()


def ranged(source: Source, opener: Opener, fetch: Callable[[Indices, bool], list[Claim]]) -> Source:
    """The source, with prefetching if its files are remote objects."""
    return RangedSource(source, fetch) if opener.fetches else source
