"""Seeded permutations of range(n) in constant memory, and the hashes that make their keys.

There are two versions of one construction. Both stay, since existing orders must not change, and each
is faster for its purpose. `Permutation` has one key of 1,024 bits or more for many positions: for
shuffled epochs. `permuted` has a key of 64 bits for each position and no set-up cost per permutation:
for streams, which pass over small sets of samples many times.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices

__all__ = [
    "GOLDEN",
    "Permutation",
    "hashed",
    "mixed",
    "permutation_of",
    "permuted",
    "permuted_span",
]

# Eight rounds are enough to mix a large range. In a small range all permutations must be equally
# likely; 24 rounds pass a chi-squared test for that (tests/plan/test_permutation.py).
_ROUNDS, _SMALL_ROUNDS, _SMALL = 8, 24, 1024
# Positions are permuted in blocks, which share NumPy's cost per call.
_BLOCK = 4096

#: 2**64 divided by the golden ratio. Each round of `permuted` adds another multiple of it to its key.
GOLDEN = 0x9E3779B97F4A7C15
_STEPS = [np.uint64(GOLDEN * (r + 1) % 2**64) for r in range(_SMALL_ROUNDS)]

_Words = np.ndarray[Any, np.dtype[np.uint64]]


def mixed(seed: int, *parts: int | str) -> bytes:
    """128 hash bits of a seed and a purpose: random numbers for different purposes are independent."""
    text = ":".join(map(str, (seed, *parts)))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Permutation:
    """A seeded permutation of range(n) in constant memory.

    A generalised Feistel network on the grid a x b >= n: each round adds a hash of one
    coordinate to the other, modulo its side, which is invertible for any hash; results that are n
    or above go through the rounds again (cycle walking). Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002; the alternating form is from section 4 of Morris,
    Rogaway and Stegers, "How to encipher messages on a small domain", CRYPTO 2009. The sides need
    not be powers of two, so the grid has at most a + b more cells than n, and walking is rare.

    >>> sorted(Permutation(7, b"key")(np.arange(7)).tolist())
    [0, 1, 2, 3, 4, 5, 6]
    """

    __slots__ = ("_a", "_b", "_keys", "n")

    def __init__(self, n: int, key: bytes) -> None:
        self.n = n
        side = int(np.sqrt(float(max(n, 1))))
        while side * side < n:  # the square root of a large integer may be one off
            side += 1
        self._a = np.uint64(max(side, 1))
        self._b = np.uint64(max(-(-n // max(side, 1)), 1))
        rounds = _SMALL_ROUNDS if n <= _SMALL else _ROUNDS
        raw = b"".join(
            hashlib.blake2b(key, digest_size=64, salt=bytes([i])).digest()
            for i in range(rounds // 8)
        )
        self._keys = np.frombuffer(raw, "<u8").astype(np.uint64)

    def __call__(self, positions: Indices) -> Indices:
        """The images of `positions` (int64 array of values in range(n)), a new int64 array."""
        x = self._once(np.asarray(positions).astype(np.uint64))
        out = np.flatnonzero(x >= np.uint64(self.n))
        while out.size:
            x[out] = self._once(x[out])
            out = out[x[out] >= np.uint64(self.n)]
        return np.asarray(x, np.int64)

    def _once(self, x: _Words) -> _Words:
        left, right = x // self._b, x % self._b
        for r in range(0, len(self._keys), 2):
            left = (left + _hash(right, self._keys[r]) % self._a) % self._a
            right = (right + _hash(left, self._keys[r + 1]) % self._b) % self._b
        return left * self._b + right


def _hash(x: Any, key: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), keyed."""
    z = x ^ key
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


@lru_cache(maxsize=256)
def permutation_of(n: int, seed: int, *purpose: int | str) -> Permutation:
    """The permutation of range(n) for this seed and purpose."""
    return Permutation(n, mixed(seed, *purpose))


def permuted_span(low: int, high: int, n: int, seed: int, *purpose: int | str) -> Indices:
    """Images of low to high (exclusive) under `permutation_of(n, seed, *purpose)`; read-only."""
    first, last = low // _BLOCK, (high - 1) // _BLOCK
    blocks = [_permuted_block(k, n, seed, *purpose) for k in range(first, last + 1)]
    joined = blocks[0] if first == last else np.concatenate(blocks)
    return joined[low - first * _BLOCK : high - first * _BLOCK]


@lru_cache(maxsize=64)
def _permuted_block(block: int, n: int, seed: int, *purpose: int | str) -> Indices:
    positions = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, n), dtype=np.int64)
    found = permutation_of(n, seed, *purpose)(positions)
    found.flags.writeable = False
    return found


def hashed(x: Any, key: Any) -> Any:
    """64 hash bits for each of the integers `x`; each key gives another hash function."""
    return _hash(np.asarray(x).astype(np.uint64) + _STEPS[0], key)


def permuted(ranks: Indices, sizes: Any, keys: Any) -> Indices:
    """Images of `ranks` under many permutations at once: ranks[k] under one of range(sizes[k]).

    Like `Permutation`, with a key of 64 bits for each rank and no set-up cost per permutation.

    Args:
        ranks: int64 array, each below its size.
        sizes: one size, or one for each rank.
        keys: uint64, one key, or one for each rank.
    """
    n = np.broadcast_to(np.asarray(sizes).astype(np.uint64), ranks.shape)
    keys = np.broadcast_to(np.asarray(keys, np.uint64), ranks.shape)
    side = np.sqrt(n.astype(np.float64)).astype(np.uint64)
    side = side + (side * side < n)  # the square root is rounded down, or one off
    side = np.maximum(side + (side * side < n), np.uint64(1))
    other = (n + side - np.uint64(1)) // side
    x = _rounds(np.asarray(ranks).astype(np.uint64), side, other, keys, n)
    out = np.flatnonzero(x >= n)
    while out.size:
        x[out] = _rounds(x[out], side[out], other[out], keys[out], n[out])
        out = out[x[out] >= n[out]]
    return np.asarray(x, np.int64)


def _rounds(x: Array, a: Array, b: Array, keys: Array, n: Array) -> Array:
    left, right = x // b, x % b
    for r in range(0, _ROUNDS, 2):
        left = (left + _hash(right, keys + _STEPS[r]) % a) % a
        right = (right + _hash(left, keys + _STEPS[r + 1]) % b) % b
    small = np.flatnonzero(n <= np.uint64(_SMALL))
    if small.size:
        up, down, high, wide = left[small], right[small], a[small], b[small]
        keys = keys[small]
        for r in range(_ROUNDS, _SMALL_ROUNDS, 2):
            up = (up + _hash(down, keys + _STEPS[r]) % high) % high
            down = (down + _hash(up, keys + _STEPS[r + 1]) % wide) % wide
        left[small], right[small] = up, down
    found: Array = left * b + right
    return found
