"""Random generators for samples and batches, each with a key of its own. No global state."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import SeedSequence
from numpy.random.bit_generator import ISpawnableSeedSequence

from kloaders.core.arrays import Indices
from kloaders.plan.permutation import mixed

__all__ = ["Draw", "Moment", "batch_rng", "part_of", "sample_rng"]

#: How often a batch's samples were served before: one number, or one per sample.
Draw = int | Indices


@lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int, use: str) -> int:
    return int.from_bytes(mixed(seed, use, epoch), "little")


def sample_rng(
    seed: int, epoch: int, sample: int, draw: int = 0, use: str = "sample"
) -> np.random.Generator:
    """The random generator of one sample in one epoch, the same in every thread and process.

    `draw` gives each serving of the sample in one epoch other numbers (data echoing), and `use` each
    purpose: "sample" for a transform, "load" for a hook that reads, "preprocess" for preprocessing.

    Philox uses its key directly, and different keys give independent streams (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011). If sample and epoch were added to the
    seed instead, sample i + 1 with one seed would get the same numbers as sample i with the next.
    """
    key = _epoch_key(seed, epoch, use) ^ (sample << 1 | 1) ^ (draw << 64)
    return _generator(key & (1 << 128) - 1)


def batch_rng(seed: int, epoch: int, batch: int, part: int = 0) -> np.random.Generator:
    """The random generator of one batch in one epoch, the same in every thread and process.

    `part` gives each shard of a global batch other numbers.
    """
    key = int.from_bytes(mixed(seed, "batch", epoch, part), "little")
    return _generator(key ^ batch)


def _generator(key: int) -> np.random.Generator:
    """The generator of `Philox(key=key)`, made in a third of the time, whose `spawn` follows from the key.

    Philox(key=...) also asks the operating system for random bytes, and would spawn from these.
    """
    seed: Any = _Key(key)  # NumPy's annotation leaves out what its documentation allows
    return np.random.Generator(np.random.Philox(seed))


class _Key(ISpawnableSeedSequence):
    """A key of 128 bits, as NumPy's bit generators ask for it."""

    def __init__(self, key: int) -> None:
        self.key = key

    @cached_property
    def _family(self) -> SeedSequence:
        """Counts the children, so that further ones differ."""
        return SeedSequence(self.key)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        if n_words == 2 and dtype == np.uint64:  # Philox asks for its key
            return np.frombuffer(self.key.to_bytes(16, "little"), "<u8")
        return self._family.generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        return list(self._family.spawn(n_children))


def part_of(draw: Draw, rows: int | slice | Indices) -> Draw:
    """The value of `EpochPlan.use` for some rows of the batch."""
    if isinstance(draw, int):
        return draw
    return int(draw[rows]) if isinstance(rows, int) else draw[rows]


class Moment(NamedTuple):
    """The epoch in which samples are read, and how often each was served earlier in it.

    A sample's random numbers are derived from the seed, its number and its moment only.
    """

    epoch: int = 0
    draw: Draw = 0

    def part(self, rows: int | slice | Indices) -> Moment:
        """The moment of some rows of a batch, or of one row."""
        return self if isinstance(self.draw, int) else Moment(self.epoch, part_of(self.draw, rows))

    def rng(self, seed: int, sample: int, use: str = "sample") -> np.random.Generator:
        """The random generator of one sample at this moment, which must be that of one row."""
        assert isinstance(self.draw, int)
        return sample_rng(seed, self.epoch, sample, self.draw, use)
