"""Plans batches of samples of similar length: index arithmetic only, as in `plan`."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.plan.epoch import EpochPlan, Order
from kloaders.plan.permutation import mixed, permutation_of, permuted_span

__all__ = ["BucketPlan", "Buckets"]


class Buckets:
    """Assigns samples to buckets of similar length. Takes 5 bytes per sample.

    Args:
        lengths: the length of each sample, in steps.
        boundaries: the lengths that batches are padded to, in ascending order. A sample belongs to
            the first boundary that is not below its length.
    """

    def __init__(self, lengths: Array, boundaries: Array) -> None:
        self.boundaries = boundaries
        self.codes = np.searchsorted(boundaries, lengths).astype(np.uint8)
        wide = np.uint32 if len(lengths) < 2**32 else np.int64
        # A stable sort keeps storage order inside a bucket, so `_firsts` can find the head of an epoch.
        self.members = np.argsort(self.codes, kind="stable").astype(wide)
        counts = np.bincount(self.codes, minlength=len(boundaries))
        self.starts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        #: Steps of all samples, without padding and with the padding of their buckets.
        self.steps = int(np.sum(lengths, dtype=np.int64))
        self.padded = int(np.sum(counts * boundaries))

    @property
    def shapes(self) -> int:
        """The number of possible lengths of a batch."""
        return int(np.count_nonzero(np.diff(self.starts)))


@dataclass(frozen=True)
class BucketPlan(EpochPlan):
    """An EpochPlan whose shuffled batches hold samples of one bucket.

    A shuffled epoch shuffles the samples of each bucket, cuts them into full batches, and serves
    the batches of all buckets in one shuffled order. The remaining samples, less than a batch per
    bucket, form batches of neighbouring buckets. So an epoch has the usual number of batches, all
    full except the last. Storage order is unchanged.

    >>> buckets = Buckets(np.array([3, 9, 2, 8, 1, 7]), np.array([4, 10]))
    >>> plan = BucketPlan(samples=6, batch_size=3, seed=1, buckets=buckets)
    >>> sorted(sorted(plan.indices(plan.shuffled_order(0), b).tolist()) for b in range(2))
    [[0, 2, 4], [1, 3, 5]]
    """

    buckets: Buckets = field(default_factory=lambda: Buckets(np.zeros(0), np.zeros(0, np.int64)))

    @classmethod
    def of(cls, plan: EpochPlan, buckets: Buckets) -> BucketPlan:
        """The same plan with buckets."""
        return cls(
            plan.samples,
            plan.batch_size,
            plan.seed,
            drop_last=plan.drop_last,
            shard=plan.shard,
            buckets=buckets,
        )

    def made_for(self) -> dict[str, Any]:
        """The settings that `position` depends on. Here the order depends on the batch size as well."""
        sums = (
            zlib.crc32(self.buckets.codes.tobytes()),
            zlib.crc32(self.buckets.boundaries.tobytes()),
        )
        buckets = f"{sums[0]:08x}{sums[1]:08x}"
        return {**super().made_for(), "global_batch": self.global_batch, "buckets": buckets}

    def indices(self, order: Order, batch: int) -> Indices:
        """Sample numbers of one batch, int64, in the order in which they are delivered."""
        return self.planned(order, batch)[0]

    def planned(self, order: Order, batch: int) -> tuple[Indices, int]:
        """`indices`, and the padded length of the batch, which is the same for all shards."""
        found = self._everyone(order, batch)
        low, high = self._part(0, len(found))
        longest = int(self.buckets.codes[found].max())
        return found[low:high], int(self.buckets.boundaries[longest])

    def _everyone(self, order: Order, batch: int) -> Indices:
        """The samples of a global batch, for all shards together."""
        size = self.global_batch
        rest = order.rest
        if batch < order.head:
            start = (0 if rest is None else rest.start) + batch * size
            return np.arange(start, min(start + size, self.samples), dtype=np.int64)
        if rest is not None:  # resumed in the middle, with batches cut as before (`made_for`)
            begun = rest.start // size
            order = Order(order.epoch, order.head + begun if rest.stored is None else rest.head)
            batch += begun
        firsts = self._firsts(order)
        counts = self.buckets.starts[1:] - firsts
        full = counts // size
        ends = np.cumsum(full)
        left = counts - full * size
        short = int(left.sum()) % size
        slots = int(ends[-1]) + int(left.sum()) // size
        slot = batch - order.head
        total = int(left.sum())
        # The short batch is the last one of the epoch. Its samples (which drop_last leaves out) are
        # drawn from all remaining samples, so that no length is favoured.
        key = mixed(self.seed, "short", order.epoch, order.head)
        cut = int.from_bytes(key[:8], "little") % max(1, total)
        over = max(0, cut + short - total)  # the part that wraps around to the front

        def several(*spans: tuple[int, int]) -> Indices:
            parts = [self._left(order, firsts, full, left, a, z) for a, z in spans if a < z]
            return np.concatenate(parts)

        if slot == slots:
            return several((0, over), (cut, min(cut + short, total)))
        if slots > 1:
            shuffled = permutation_of(slots, self.seed, "batches", order.epoch, order.head)
            slot = int(shuffled(np.array([slot]))[0])
        if slot < ends[-1]:
            bucket = int(np.searchsorted(ends, slot, side="right"))
            rank = (slot - int(ends[bucket]) + int(full[bucket])) * size
            return self._drawn_of(order, firsts, bucket, rank, rank + size)
        start = over + (slot - int(ends[-1])) * size
        before, behind = min(start + size, cut), max(start, cut) + short
        return several((start, before), (behind, start + size + short))

    def _firsts(self, order: Order) -> Indices:
        """For each bucket, the index in `members` of its first sample after the head of the epoch."""
        starts, done = self.buckets.starts, min(order.head * self.global_batch, self.samples)
        if not done:
            return starts[:-1]
        inside = [
            int(np.searchsorted(self.buckets.members[a:z], done))
            for a, z in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        ]
        return starts[:-1] + np.array(inside, np.int64)

    def _drawn_of(self, order: Order, firsts: Indices, bucket: int, low: int, high: int) -> Indices:
        """The samples at ranks low to high of a shuffled bucket."""
        start = int(firsts[bucket])
        n = int(self.buckets.starts[bucket + 1]) - start
        purpose = ("bucket", order.epoch, order.head, bucket)
        ranks = permuted_span(low, high, n, self.seed, *purpose)
        found: Indices = self.buckets.members[start + ranks].astype(np.int64)
        return found

    def _left(
        self, order: Order, firsts: Indices, full: Indices, left: Indices, low: int, high: int
    ) -> Indices:
        """Samples low to high of those that fill no whole batch of their bucket, bucket by bucket."""
        ends = np.cumsum(left)
        parts = []
        for bucket in range(len(left)):
            start = int(ends[bucket]) - int(left[bucket])
            a, z = max(low, start), min(high, int(ends[bucket]))
            if a < z:
                rank = int(full[bucket]) * self.global_batch - start
                parts.append(self._drawn_of(order, firsts, bucket, rank + a, rank + z))
        return np.concatenate(parts)
