"""Samples that are pieces of series: which rows each one covers, and how they are parted in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kloaders.core.arrays import Indices

__all__ = ["Spans"]


@dataclass(frozen=True)
class Spans:
    """The rows that each sample covers: `length` of them, from row `first` of series `series` on.

    Attributes:
        series: a number for each sample.
        first: a row for each sample.
        length: rows of every sample.
    """

    series: Indices
    first: Indices
    length: int

    @classmethod
    def of_single(cls, samples: int) -> Spans:
        """Samples that share nothing, one after another in storage order."""
        return cls(np.zeros(samples, np.int64), np.arange(samples, dtype=np.int64), 1)

    def take(self, numbers: Indices) -> Spans:
        """For the samples with these numbers."""
        return Spans(self.series[numbers], self.first[numbers], self.length)

    def cut(self, share: float, gap: int) -> tuple[Indices, Indices]:
        """Earlier and later samples of each series, by number, sorted.

        The later ones are `share` of a series' samples, to the nearest. Of the others those stay that
        end `gap` rows before the first of the later ones, or earlier. Either may be empty.
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
        """Those of `numbers` that cover a row which one of `others` covers, too."""
        # Rows of all series on one axis, so far apart that none reaches into the next.
        wide = int(self.first.max(initial=0)) + 2 * self.length
        places = np.unique(self.series[others] * wide + self.first[others])
        mine = self.series[numbers] * wide + self.first[numbers]
        at = np.searchsorted(
            places, mine - self.length, side="right"
        )  # the first that may reach it
        near = at < len(places)
        near[near] = places[at[near]] < mine[near] + self.length
        return numbers[near]
