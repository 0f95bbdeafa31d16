"""The rows of a series that samples cover, and how to split samples in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kloaders.core.arrays import Indices

__all__ = ["Spans"]


@dataclass(frozen=True)
class Spans:
    """The rows that each sample covers: `length` rows of series `series`, starting at row `first`.

    Attributes:
        series: for each sample, the number of its series.
        first: for each sample, its first row.
        length: the number of rows of every sample.
    """

    series: Indices
    first: Indices
    length: int

    @classmethod
    def of_single(cls, samples: int) -> Spans:
        """Spans of samples that share no rows, one after another in storage order."""
        return cls(np.zeros(samples, np.int64), np.arange(samples, dtype=np.int64), 1)

    def take(self, numbers: Indices) -> Spans:
        """The spans of the samples with these numbers."""
        return Spans(self.series[numbers], self.first[numbers], self.length)

    def cut(self, share: float, gap: int) -> tuple[Indices, Indices]:
        """The numbers of the earlier and the later samples of each series, sorted.

        The later part is `share` of each series' samples, rounded. The earlier part is the samples that end
        at least `gap` rows before the first later one. Either part may be empty.
        """
        early, late = [], []
        order = np.lexsort((self.first, self.series))
        _, starts = np.unique(self.series[order], return_index=True)
        for numbers in np.split(order, starts[1:]):
            count = round(share * len(numbers))
            if count == 0:
                early.append(numbers)
                continue
            first = self.first[numbers]
            begin = first[len(numbers) - count]
            late.append(numbers[first >= begin])
            early.append(numbers[first + self.length + gap <= begin])
        none = np.zeros(0, np.int64)
        return np.sort(np.concatenate([none, *early])), np.sort(np.concatenate([none, *late]))

    def sharing(self, numbers: Indices, others: Indices) -> Indices:
        """Those of `numbers` that share a row with one of `others`."""
        # Put the rows of all series on one axis, far enough apart that no two series overlap.
        wide = int(self.first.max(initial=0)) + 2 * self.length
        places = np.unique(self.series[others] * wide + self.first[others])
        mine = self.series[numbers] * wide + self.first[numbers]
        at = np.searchsorted(places, mine - self.length, side="right")  # the first that may overlap
        near = at < len(places)
        near[near] = places[at[near]] < mine[near] + self.length
        return numbers[near]
