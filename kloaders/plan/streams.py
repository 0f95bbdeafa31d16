"""Endless orders of samples, called streams. Index arithmetic only, as in `plan`.

The samples at positions start to stop depend on these two numbers only. An epoch of any length is a
piece of the stream, and the next epoch continues after it.

A saved position contains the `repr` of its stream, which therefore must never change. Some of these
texts have the name that the class had when the first positions were saved.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.plan.permutation import GOLDEN, Permutation, hashed, mixed, permuted

__all__ = [
    "Balanced",
    "ClassGroups",
    "InOrder",
    "Mixture",
    "ShuffledPasses",
    "Stream",
    "WeightedSystematic",
    "WeightedWithReplacement",
    "pattern_of",
]

# Positions are computed in blocks, which share NumPy's cost per call.
_BLOCK = 4096
# The longest pattern of a mixture. Shares that are not simple fractions are rounded to 1/10,000.
_PATTERN = 10_000


class Stream(Protocol):
    """An endless order: a pure function from positions to sample numbers."""

    def samples(self, start: int, stop: int) -> Indices:
        """Sample numbers at positions start to stop, int64."""


class _Blocks:
    """Caches the last few blocks of a stream. If two threads compute a block twice, it does no harm."""

    def __init__(self) -> None:
        self._kept: dict[int, Indices] = {}

    def samples(self, start: int, stop: int) -> Indices:
        """Sample numbers at positions start to stop, int64."""
        if start >= stop:
            return np.empty(0, np.int64)
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        blocks = [self._block(k) for k in range(first, last + 1)]
        joined = blocks[0] if first == last else np.concatenate(blocks)
        return joined[start - first * _BLOCK : stop - first * _BLOCK]

    def _block(self, number: int) -> Indices:
        found = self._kept.get(number)
        if found is None:
            places = np.arange(number * _BLOCK, (number + 1) * _BLOCK, dtype=np.int64)
            found = self._at(places)
            found.flags.writeable = False
            # A new dict each time, so that no thread reads a dict while it changes.
            recent = list(self._kept.items())[-3:]
            self._kept = dict([*recent, (number, found)])
        return found

    def _at(self, places: Indices) -> Indices:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}


def _key(seed: int, what: str) -> np.uint64:
    return np.uint64(int.from_bytes(mixed(seed, what)[:8], "little"))


def _digest(*arrays: Array) -> str:
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


class InOrder:
    """Storage order, repeated without end."""

    def __init__(self, n: int) -> None:
        self.n = n

    def samples(self, start: int, stop: int) -> Indices:
        """Sample numbers at positions start to stop, int64."""
        return np.arange(start, stop, dtype=np.int64) % self.n

    def __repr__(self) -> str:
        return f"InOrder({self.n})"


class ShuffledPasses(_Blocks):
    """Shuffled passes over n samples, one after another; each pass has every sample exactly once.

    >>> stream = ShuffledPasses(3, seed=1)
    >>> sorted(stream.samples(0, 3).tolist()), sorted(stream.samples(3, 6).tolist())
    ([0, 1, 2], [0, 1, 2])
    """

    def __init__(self, n: int, seed: int) -> None:
        super().__init__()
        self.n, self.seed = n, seed

    def _at(self, places: Indices) -> Indices:
        passed, rank = np.divmod(places, self.n)
        return permuted(rank, self.n, hashed(passed, _key(self.seed, "passes")))

    def __repr__(self) -> str:
        return f"Passes({self.n}, seed={self.seed})"


class Balanced(_Blocks):
    """Equal numbers of samples of each class, to within one, in every global batch and its parts.

    Classes take turns. Within a class, samples come in shuffled passes: every sample once before any
    is repeated. The order of the classes changes after whole batches only. If there are more classes
    than fit into a batch, a class is with other classes each time. Takes 4 bytes per sample (8 above
    2**32 samples).

    Args:
        codes: class of each sample, int in range(classes), each class at least once.
        size: samples per global batch.
        seed: determines the order.
    """

    def __init__(self, codes: Array, size: int, seed: int) -> None:
        super().__init__()
        wide = np.uint32 if len(codes) < 2**32 else np.int64
        self.members = np.argsort(codes, kind="stable").astype(wide)
        self.counts: Indices = np.bincount(codes).astype(np.int64)
        self.starts: Indices = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.size, self.seed = size, seed

    def _at(self, places: Indices) -> Indices:
        classes = len(self.counts)
        cycle = math.lcm(classes, self.size)  # whole batches, and whole turns of the classes
        turn, place = np.divmod(places, cycle)
        keys = hashed(turn, _key(self.seed, "turns"))
        code = permuted(place % classes, classes, keys)
        rank = turn * (cycle // classes) + place // classes
        passed, inside = np.divmod(rank, self.counts[code])
        keys = hashed(passed, hashed(code, _key(self.seed, "class")))
        within = permuted(inside, self.counts[code], keys)
        found: Indices = self.members[self.starts[code] + within].astype(np.int64)
        return found

    def __repr__(self) -> str:
        return (
            f"Balanced({len(self.counts)} classes, {len(self.members)} samples, size={self.size}, "
            f"seed={self.seed}, {_digest(self.members, self.counts)})"
        )


class ClassGroups(_Blocks):
    """Groups with a fixed number of classes and of samples per class, without repeats in a group.

    Classes take turns. If the number of all classes is a multiple of the classes per group, every class
    comes once before any is repeated; otherwise all come equally often over a few groups. The samples
    of a class come in shuffled passes. Samples at the end of a pass that are too few for a group are
    left out; they are other samples in each pass.

    Args:
        codes: class of each sample, int in range(classes).
        classes: classes per group.
        samples: samples per class in a group; no class has fewer.
        seed: determines the order.
    """

    def __init__(self, codes: Array, classes: int, samples: int, seed: int) -> None:
        super().__init__()
        wide = np.uint32 if len(codes) < 2**32 else np.int64
        self.members = np.argsort(codes, kind="stable").astype(wide)
        self.counts: Indices = np.bincount(codes).astype(np.int64)
        self.starts: Indices = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.classes, self.size, self.seed = classes, samples, seed

    def _at(self, places: Indices) -> Indices:
        every = len(self.counts)
        visit, within = np.divmod(places, self.size)
        cycle = math.lcm(every, self.classes)  # whole groups, and whole turns
        turn, place = np.divmod(visit, cycle)
        code = permuted(place % every, every, hashed(turn, _key(self.seed, "class groups")))
        visited = turn * (cycle // every) + place // every
        passed, share = np.divmod(visited, self.counts[code] // self.size)
        keys = hashed(passed, hashed(code, _key(self.seed, "class")))
        inside = permuted(share * self.size + within, self.counts[code], keys)
        found: Indices = self.members[self.starts[code] + inside].astype(np.int64)
        return found

    def __repr__(self) -> str:
        return (
            f"ClassGroups({self.classes} of {len(self.counts)} classes, {self.size} samples of each, "
            f"{len(self.members)} samples, seed={self.seed}, {_digest(self.members, self.counts)})"
        )


class WeightedSystematic(_Blocks):
    """Draws each sample in proportion to its weight, to within one, in every pass of n draws.

    Systematic sampling (Madow, "On the theory of systematic sampling, II", Annals of Mathematical
    Statistics 20, 1949): samples lie on a line, each as long as its weight, and n equidistant points
    select among them. In each pass the first point moves by the golden ratio, so that the proportions
    hold over several passes as well. The order of the samples on the line is shuffled, and so are the
    points. Takes 8 bytes per sample.

    Args:
        weights: float64, not negative, not all zero.
        seed: determines the order.
    """

    _saved_as = "Shares"

    def __init__(self, weights: Array, seed: int) -> None:
        super().__init__()
        self.n, self.seed = len(weights), seed
        self._lie = Permutation(self.n, mixed(seed, "lie"))
        lying = weights[self._lie(np.arange(self.n, dtype=np.int64))]
        self.ends = np.cumsum(lying, dtype=np.float64)
        self._last = int(np.flatnonzero(lying)[-1])

    def _at(self, places: Indices) -> Indices:
        passed, rank = np.divmod(places, self.n)
        point = permuted(rank, self.n, hashed(passed, _key(self.seed, "points")))
        with np.errstate(over="ignore"):
            begin = _key(self.seed, "begin") + passed.astype(np.uint64) * np.uint64(GOLDEN)
        # Not exactly at the end of a sample, where rounding would choose the sample.
        shift = np.clip((begin >> np.uint64(11)) * 2.0**-53, 1e-6, 1 - 1e-6)
        return self._found((point + shift) * (self.ends[-1] / self.n))

    def _found(self, points: Array) -> Indices:
        order = np.argsort(points)  # sorted points access memory in order
        found = np.empty(len(points), np.int64)
        found[order] = np.searchsorted(self.ends, points[order], side="right")
        return self._lie(np.minimum(found, self._last))

    def __repr__(self) -> str:
        return f"{self._saved_as}({self.n}, seed={self.seed}, {_digest(self.ends)})"


class WeightedWithReplacement(WeightedSystematic):
    """Draws each position by weight, independently of all others: with replacement."""

    _saved_as = "Draws"

    def _at(self, places: Indices) -> Indices:
        number = hashed(places, _key(self.seed, "draws"))
        return self._found((number >> np.uint64(11)) * 2.0**-53 * self.ends[-1])


class Mixture:
    """Mixes several streams in fixed shares. A requested piece is grouped by stream.

    Args:
        parts: streams, and the number of samples of each; sample numbers are consecutive over the parts.
        pattern: the part at each position; it is repeated.
    """

    def __init__(self, parts: list[tuple[Stream, int]], pattern: Indices) -> None:
        self.parts = [stream for stream, _ in parts]
        self.firsts = np.cumsum([0, *(n for _, n in parts)])[:-1].tolist()
        #: Row k: how many of the first t positions of the pattern belong to part k.
        self.before = np.stack(
            [np.concatenate([[0], np.cumsum(pattern == k)]) for k in range(len(parts))]
        )

    def samples(self, start: int, stop: int) -> Indices:
        """Sample numbers at positions start to stop, int64, grouped by part."""
        counts = [self.count(place) for place in (start, stop)]
        found = [
            first + stream.samples(int(a), int(z))
            for stream, first, a, z in zip(self.parts, self.firsts, *counts, strict=True)
        ]
        return np.concatenate(found)

    def count(self, place: int) -> Indices:
        """How many of the first `place` positions belong to each part."""
        rounds, rest = divmod(place, self.before.shape[1] - 1)
        return np.asarray(rounds * self.before[:, -1] + self.before[:, rest])

    def __repr__(self) -> str:
        return f"Mixture({self.parts}, {_digest(self.before)})"


def pattern_of(shares: list[float]) -> Indices:
    """A pattern in which each part has its share, to within one, after any number of positions.

    Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980. It is the shortest
    pattern with exactly these shares (up to 1,000 positions), or else one of 10,000 positions.

    >>> pattern_of([0.5, 0.25, 0.25]).tolist()
    [0, 1, 2, 0]
    """
    total = sum(shares)
    wanted = np.array([share / total for share in shares])
    for length in range(1, 1001):
        counts = np.rint(wanted * length)
        if np.all(np.abs(wanted * length - counts) < 1e-9 * length) and counts.min() > 0:
            break
    else:
        length = _PATTERN
        counts = np.floor(wanted * length)
        rest = np.argsort(counts - wanted * length, kind="stable")[: length - int(counts.sum())]
        counts[rest] += 1
        counts = np.maximum(counts, 1)
        counts[np.argmax(counts)] += length - counts.sum()
    wanted, had = counts / length, np.zeros(len(counts))
    least = 1 / (2 * len(counts) - 2) if len(counts) > 1 else 0.0
    found = np.empty(length, np.int64)
    for place in range(length):
        owed = wanted * (place + 1) - had
        # Among the parts that may take the position, the one with the earliest deadline.
        due = np.where(owed >= least - 1e-12, (1 - least - owed) / wanted, np.inf)
        found[place] = chosen = int(np.argmin(due))
        had[chosen] += 1
    return found
