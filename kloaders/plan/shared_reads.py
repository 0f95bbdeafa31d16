"""Plans several samples per file: apart in the order, but close enough to read the file only once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.plan.epoch import EpochPlan, Order, Window, drawn_for
from kloaders.plan.permutation import permutation_of
from kloaders.plan.rng import Draw

__all__ = ["SharedReadsPlan"]


@dataclass(frozen=True)
class SharedReadsPlan(EpochPlan):
    """An EpochPlan that serves each file `copies` times per epoch.

    Internally it numbers samples: number i is sample i % copies of file i // copies, and `samples`
    is the total. Callers get file numbers, and from `use` the sample's number within its file, from
    which its random numbers are derived.

    draw: "files" shuffles files, cuts that order into RAM batches of whole files, and shuffles the
    samples in each; "windows" takes neighbouring files in storage order.

    >>> plan = SharedReadsPlan(samples=6, batch_size=3, seed=1, copies=2)
    >>> order = plan.storage_order(0)
    >>> [plan.indices(order, b).tolist() for b in range(2)], plan.use(order, 1).tolist()
    ([[0, 0, 1], [1, 2, 2]], [1, 0, 1])
    """

    copies: int = 1

    def made_for(self) -> dict[str, Any]:
        return {**super().made_for(), "samples_per_file": self.copies}

    def indices(self, order: Order, batch: int) -> Indices:
        """The file of each sample of one batch, int64, in the order in which they are delivered."""
        return super().indices(order, batch) // self.copies

    def use(self, order: Order, batch: int) -> Draw:
        """The number within its file of each sample of a batch."""
        return super().indices(order, batch) % self.copies

    def make_window(self, order: Order, window: int) -> Window:
        """The content of a RAM batch: each file once, in the order of first use."""
        found = super().make_window(order, window)
        wanted = found.samples[found.rows] if self.draw == "files" else found.samples
        files, first = np.unique(wanted // self.copies, return_index=True)
        reading = np.argsort(first)
        place = np.empty_like(reading)
        place[reading] = np.arange(len(reading))
        rows = place[np.searchsorted(files, found.samples[found.rows] // self.copies)]
        return Window(files[reading], rows, found.first_batch, found.starts)

    def _stored(self, order: Order, slot: int, members: Indices, size: int) -> Indices:
        if self.draw != "files":
            return super()._stored(order, slot, members, size)
        stored = self._stored_count(order)
        n, ranks = self.samples - stored, slot * size + members
        begun = n % self.copies  # first, the rest of a file that was begun in storage order
        files = permutation_of(n // self.copies, self.seed, "files", order.epoch, drawn_for(order))
        shuffled = ranks >= begun
        file, sample = np.divmod(ranks[shuffled] - begun, self.copies)
        found = ranks.copy()
        found[shuffled] = begun + files(file) * self.copies + sample
        return stored + found

    def _shift(self, order: Order) -> int:
        shift = super()._shift(order)
        return shift - shift % self.copies  # between two files
