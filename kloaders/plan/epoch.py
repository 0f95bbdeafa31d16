"""Which samples go into which batch. Index arithmetic only: no files, no Keras, no state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

__all__ = [
    "GOLDEN",
    "EpochPlan",
    "Order",
    "Permutation",
    "Rest",
    "Stream",
    "Window",
    "batch_rng",
    "hashed",
    "mixed",
    "part_of",
    "permuted",
    "sample_rng",
]

Indices = np.ndarray[Any, np.dtype[np.int64]]
# How often a batch's samples were served before: one number for all, or one for each.
Draw = int | Indices

# Eight rounds mix a large domain well; where few permutations exist at all, each of them must come
# up as often as the others, and 24 rounds pass a chi-squared test there (tests/plan/test_epoch.py).
_ROUNDS, _SMALL_ROUNDS, _SMALL = 8, 24, 1024
# Positions are permuted in blocks: NumPy's cost a call is shared by the batches of one block.
_BLOCK = 4096


def _mix(seed: int, *parts: int | str) -> bytes:
    """128 hash bits of a seed and what it is for: streams of different purposes never meet."""
    text = ":".join(map(str, (seed, *parts)))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int) -> int:
    return int.from_bytes(_mix(seed, "sample", epoch), "little")


def sample_rng(seed: int, epoch: int, sample: int, draw: int = 0) -> np.random.Generator:
    """The random generator of one sample in one epoch, whichever thread or process asks.

    `draw` tells apart several uses of the sample in one epoch (data echoing).

    Philox takes its key as it is, and different keys are independent streams (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Adding sample and epoch to the seed
    instead would make sample i + 1 of one seed equal to sample i of the next.
    """
    key = _epoch_key(seed, epoch) ^ (sample << 1 | 1) ^ (draw << 64)
    return np.random.Generator(np.random.Philox(key=key & (1 << 128) - 1))


def batch_rng(seed: int, epoch: int, batch: int, part: int = 0) -> np.random.Generator:
    """The random generator of one batch in one epoch, whichever thread or process asks.

    `part` tells apart the shards of a global batch.
    """
    key = int.from_bytes(_mix(seed, "batch", epoch, part), "little")
    return np.random.Generator(np.random.Philox(key=key ^ batch))


class Permutation:
    """A seeded bijection of range(n) that needs no memory for n.

    A generalised Feistel network on the grid a x b >= n: each round adds a hash of one
    coordinate to the other, modulo its side, which can be undone whatever the hash is; results
    at n or above are sent through again (cycle walking). Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002; the alternating form is from section 4 of Morris,
    Rogaway and Stegers, "How to encipher messages on a small domain", CRYPTO 2009. Sides that
    need not be powers of two keep the grid within a + b of n, so that walking is rare.

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

    def _once(self, x: np.ndarray[Any, np.dtype[np.uint64]]) -> Any:
        left, right = x // self._b, x % self._b
        for r in range(0, len(self._keys), 2):
            left = (left + _hash(right, self._keys[r]) % self._a) % self._a
            right = (right + _hash(left, self._keys[r + 1]) % self._b) % self._b
        return left * self._b + right


def _hash(x: np.ndarray[Any, np.dtype[np.uint64]], key: np.uint64) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), keyed."""
    z = x ^ key
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def mixed(seed: int, *parts: int | str) -> bytes:
    """128 hash bits of a seed and what it is for: streams of different purposes never meet."""
    return _mix(seed, *parts)


# Multiples of 2**64 over the golden ratio: each round of a permutation adds another to its key.
GOLDEN = 0x9E3779B97F4A7C15
_STEPS = [np.uint64(GOLDEN * (r + 1) % 2**64) for r in range(_SMALL_ROUNDS)]


def hashed(x: Any, key: Any) -> Any:
    """64 hash bits for each of the integers `x`; another hash for each key."""
    return _hash(np.asarray(x).astype(np.uint64) + _STEPS[0], key)


def permuted(ranks: Indices, sizes: Any, keys: Any) -> Indices:
    """Images of `ranks` under many permutations at once: rank k under one of range(sizes[k]).

    As `Permutation`, with a key of 64 bits for each rank, and no cost for another permutation.

    ranks: int64 array, each below its size. sizes: one, or one for each. keys: uint64, likewise.
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


def _rounds(x: Any, a: Any, b: Any, keys: Any, n: Any) -> Any:
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
    return left * b + right


@lru_cache(maxsize=256)
def _permutation(n: int, seed: int, *parts: int | str) -> Permutation:
    return Permutation(n, _mix(seed, *parts))


@lru_cache(maxsize=16)
def _block(n: int, seed: int, epoch: int, head: int, block: int) -> Indices:
    positions = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, n), dtype=np.int64)
    found = _permutation(n, seed, "order", epoch, head)(positions)
    found.flags.writeable = False
    return found


class Rest(NamedTuple):
    """What is left of an epoch that was cut into batches in another way, or by another process.

    start: so many samples of the epoch's order, of all shards together, came before.
    stored: how many of the epoch's samples came in storage order before the shuffle began; None
        where it has not begun.
    head: how many batches that were then, which is what the shuffle is drawn for.
    window: the RAM batch that the epoch's order was made with, where it depends on that.
    """

    start: int
    stored: int | None = None
    head: int = 0
    window: int | None = None


class Order(NamedTuple):
    """The order of one epoch: its first `head` batches in storage order, the rest shuffled.

    head = 0 is a shuffled epoch; head = the number of batches is storage order. What lies
    between happens when a request stream began in order and then left it (`tickets.py`).

    rest: the epoch goes on in the middle: its batches are counted, and cut, from there.
    """

    epoch: int
    head: int
    rest: Rest | None = None


@dataclass(frozen=True)
class Window:
    """The samples of one RAM batch, and where each batch finds its own.

    samples: sample numbers in the order in which they are read.
    rows: for each batch of the window, the rows of `samples` that it serves, one after another.
    starts: the first batch of the window, and where each batch's part of `rows` begins.
    """

    samples: Indices
    rows: Indices
    first_batch: int
    starts: Indices

    def rows_of(self, batch: int) -> Indices:
        k = batch - self.first_batch
        return self.rows[self.starts[k] : self.starts[k + 1]]


class Stream(Protocol):
    """An endless order: a pure function from places to sample numbers (`streams.py`)."""

    def samples(self, start: int, stop: int) -> Indices:
        """Sample numbers at places start to stop, int64."""


def part_of(draw: Draw, rows: int | slice) -> Draw:
    """What `EpochPlan.use` said, for some rows of the batch."""
    if isinstance(draw, int):
        return draw
    return int(draw[rows]) if isinstance(rows, int) else draw[rows]


@dataclass(frozen=True)
class EpochPlan:
    """Batches of one epoch as a pure function of (seed, epoch, batch number).

    samples: how many samples there are.
    batch_size: how many this loader delivers a batch.
    seed: fixes every order.
    drop_last: leave out the last batch of an epoch where it is short.
    shard: (k, n): this is part k of n equal parts of each global batch of batch_size * n samples.
    window: RAM batch size in samples (of all shards together); None: one level.
    draw: "windows" cuts storage order into RAM batches, shuffles these and what is in them;
        "front to back" shuffles only what is in them, for files that cannot be read in another
        order; "global" cuts a full shuffle into RAM batches.
    echo: how often a RAM batch is served before the next (Choi et al., "Faster neural network
        training with data echoing", arXiv:1907.05550).
    stream: an endless order, of which each epoch is a piece and the next goes on where it ended;
        batches are full, and a storage order there is only if the stream is one.
    length: batches in an epoch of a stream; None: as many as the samples make.

    >>> plan = EpochPlan(samples=10, batch_size=4, seed=1)
    >>> [plan.indices(plan.storage_order(0), b).tolist() for b in range(plan.batches)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    samples: int
    batch_size: int
    seed: int
    drop_last: bool = False
    shard: tuple[int, int] = (0, 1)
    window: int | None = None
    draw: Literal["windows", "front to back", "global"] = "windows"
    echo: int = 1
    stream: Stream | None = None
    length: int | None = None
    #: Samples in a batch of all shards together.
    global_batch: int = field(init=False)
    #: Batches in an epoch.
    batches: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_batch", self.batch_size * self.shard[1])
        if self.window is not None and self.window % self.global_batch:
            raise AssertionError("a window holds whole global batches")
        object.__setattr__(self, "batches", self._count())

    # ------------------------------------------------------------------ sizes

    @property
    def tail(self) -> int:
        """Samples in the short last batch of an epoch, of all shards together; 0 if there is none."""
        return 0 if self.drop_last or self.stream is not None else self.samples % self.global_batch

    def _count(self) -> int:
        if self.length is not None:
            return self.length
        whole, tail = divmod(self.samples, self.global_batch)
        return (whole + (1 if tail and not self.drop_last else 0)) * self.echo

    def storage_order(self, epoch: int) -> Order:
        return Order(epoch, self.batches)

    def shuffled_order(self, epoch: int) -> Order:
        return Order(epoch, 0)

    def count(self, order: Order) -> int:
        """Batches of this order."""
        if order.rest is None or self.stream is not None:
            return self.batches
        return self._batches_in(self.samples - _start(order)) * self.echo

    def is_stored(self, order: Order) -> bool:
        """Whether this order is storage order to its end."""
        return order.head >= self.count(order)

    # ------------------------------------------------------------------ positions

    def made_for(self) -> dict[str, Any]:
        """What `position` needs to be as it was for `state`."""
        return {
            "samples": self.samples,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "draw": "global" if self.window is None else self.draw,
            "echo": self.echo,
            # Places are counted in batches there, and classes balanced in batches of one size.
            "stream": self.stream
            and f"{self.stream} in {self.batches} batches of {self.global_batch}",
        }

    def state(self, order: Order, batch: int) -> dict[str, Any]:
        """The position before a batch of an order, in integers, for `position`.

        samples: how many of the epoch came before, of all shards together (not with `echo`).
        epoch, batch, start, stored, head, window: the order, and the batch in it.
        global_batch, ram_batch, shards: how the epoch is cut, which may differ at `position`.
        """
        rest = order.rest or Rest(0)
        stored = None if self.is_stored(order) else self._stored_count(order)
        return {
            "epoch": order.epoch,
            "samples": min(_start(order) + batch * self.global_batch, self.samples),
            "batch": batch,
            "start": rest.start,
            "stored": stored,
            "head": 0 if stored is None else _drawn_for(order),
            "window": rest.window,
            "global_batch": self.global_batch,
            "ram_batch": self.window,
            "shards": self.shard[1],
        }

    def position(self, state: dict[str, Any]) -> tuple[Order, int]:
        """Where a loader with this plan goes on: an order, and the first batch to be served of it.

        Exact for any batch size, number of shards and RAM batch size, but for this: where the
        last batch would hold fewer samples than there are shards, the epoch goes on that many
        samples earlier; and with `echo`, where one of the three differs, at the beginning of
        the RAM batch.

        Raises ValueError for what is no position in an epoch of so many samples.
        """
        if self.stream is not None:
            epoch, batch = divmod(state["epoch"] * self.batches + state["batch"], self.batches)
            return Order(epoch, self.batches if state["stored"] is None else 0), batch
        most = {
            "start": self.samples,
            "stored": self.samples,
            "batch": (-(-self.samples // state["global_batch"]) + 1) * self.echo,
        }
        for name, value in most.items():
            if (state[name] or 0) > value:
                raise ValueError(f"the state is damaged: {name} is {state[name]}, above {value}.")
        same = state["global_batch"] == self.global_batch and state["ram_batch"] == self.window
        if self.echo > 1:
            same = same and state["shards"] == self.shard[1]
        cut: int | None = None
        if self.window is not None and self.draw != "global":
            cut = state["window"] or state["ram_batch"]
        else:
            same = (
                same and self.echo > 1
            )  # nothing but the position matters: RAM batches begin there
        epoch, stored = state["epoch"], state["stored"]
        start, batch = (state["start"], state["batch"]) if same else (self._start_of(state), 0)
        rest = Rest(start, stored, state["head"], cut)
        order = self._going_on(epoch, rest)
        if batch >= self.count(order):
            return Order(epoch + 1, self.batches if stored is None else 0), 0
        return order, batch

    def _start_of(self, state: dict[str, Any]) -> int:
        """How many samples came before the position, to be cut anew from there."""
        size = state["global_batch"]
        start: int = state["start"] + state["batch"] * size
        if self.echo > 1:  # begin the RAM batch again that was being served
            begun = replace(
                self, batch_size=size, shard=(0, 1), window=state["ram_batch"] or self.window
            )
            start = state["start"] + begun._place(state["batch"], self.samples - state["start"])[
                0
            ] * (begun.window or 0)
        short = (self.samples - start) % self.global_batch
        if not self.drop_last and 0 < short < self.shard[1]:
            start = max(0, start - (self.shard[1] - short))
        return min(start, self.samples)

    def _going_on(self, epoch: int, rest: Rest) -> Order:
        """The order that a rest belongs to."""
        alike = rest.stored in (None, min(rest.head * self.global_batch, self.samples))
        if not rest.start and alike and rest.window in (None, self.window):
            return Order(epoch, self.batches if rest.stored is None else rest.head)
        order = Order(epoch, 0, rest)
        return order._replace(head=self.count(order)) if rest.stored is None else order

    # ------------------------------------------------------------------ batches

    def indices(self, order: Order, batch: int) -> Indices:
        """Sample numbers of one batch, int64, in the order in which they are delivered."""
        if self.stream is not None:
            return self.stream.samples(*self._places(order, batch))
        if self.window is not None and batch >= order.head:
            return self._in_window(order, batch)
        return self._between(order, *self._span(batch, order))

    def use(self, order: Order, batch: int) -> Draw:
        """How often this batch's samples were served before in this epoch (data echoing).

        Of a stream, in which a sample may come several times even in a batch, a number for each
        place: no two servings draw the same.
        """
        if self.stream is not None:
            low, high = self._places(order, batch)
            first = order.epoch * self.batches * self.global_batch
            return _PLACED + np.arange(low - first, high - first, dtype=np.int64)
        if self.echo == 1:
            return 0
        _, passed, _ = self._place(batch, self.samples - _start(order))
        return passed

    def _places(self, order: Order, batch: int) -> tuple[int, int]:
        """Where in the stream this shard's part of a batch begins and ends."""
        before = order.epoch * self.batches + batch
        return self._part(before * self.global_batch, self.global_batch)

    def _span(self, batch: int, order: Order) -> tuple[int, int]:
        """Positions of this shard's part of a global batch."""
        size = self.global_batch
        start = _start(order) + batch * size
        return self._part(start, min(size, self.samples - start))

    def _part(self, start: int, size: int) -> tuple[int, int]:
        # size=10, shard=(k, 4) -> 3, 3, 2, 2: parts of a short batch differ by one at most
        k, n = self.shard
        if n == 1:
            return start, start + size
        each, more = divmod(size, n)
        low = start + k * each + min(k, more)
        return low, low + each + (k < more)

    def _between(self, order: Order, start: int, stop: int) -> Indices:
        """`_at` positions start to stop."""
        stored = self._stored_count(order)
        if stored <= start < stop and (self.window is None or self.draw == "global"):
            low, high = start - stored, stop - stored
            shuffled, first = self._blocks(order, low, high - 1, self.samples - stored)
            return stored + shuffled[low - first : high - first]
        return self._at(order, np.arange(start, stop, dtype=np.int64))

    def _at(self, order: Order, positions: Indices) -> Indices:
        """Sample numbers at positions of the epoch's order, however that is cut into batches."""
        stored = self._stored_count(order)
        if not positions.size or positions[-1] < stored:
            return positions
        if positions[0] < stored:
            early = positions < stored
            return np.concatenate([positions[early], self._at(order, positions[~early])])
        if self.window is not None and self.draw != "global":
            return self._drawn(order, positions - stored)
        return stored + self._shuffled(order, positions - stored, self.samples - stored)

    def _shuffled(self, order: Order, ranks: Indices, n: int) -> Indices:
        shuffled, first = self._blocks(order, int(ranks[0]), int(ranks[-1]), n)
        return shuffled[ranks - first]

    def _blocks(self, order: Order, low: int, high: int, n: int) -> tuple[Indices, int]:
        """Whole blocks of a shuffle of range(n) that hold ranks low to high, and their first rank."""
        first, last = low // _BLOCK, high // _BLOCK
        key = (n, self.seed, order.epoch, _drawn_for(order))
        if first == last:
            return _block(*key, first), first * _BLOCK
        return np.concatenate([_block(*key, b) for b in range(first, last + 1)]), first * _BLOCK

    def _begin(self, order: Order) -> int:
        """The position at which RAM batches of shuffled samples begin."""
        return min(_start(order) + order.head * self.global_batch, self.samples)

    def _stored_count(self, order: Order) -> int:
        """How many samples of the epoch come in storage order before the shuffle."""
        rest = order.rest
        if rest is None:
            return min(order.head * self.global_batch, self.samples)
        return self._begin(order) if rest.stored is None else rest.stored

    # ------------------------------------------------------------------ RAM batches

    def _in_window(self, order: Order, batch: int) -> Indices:
        """Samples of one batch of a RAM batch; without the others, but for a repeated serving."""
        assert self.window is not None
        rest = self._rest(order)
        slot, passed, inside = self._place(batch - order.head, rest)
        if passed:
            window = self.read_window(order, self.window_of(order, batch))
            return window.samples[window.rows_of(batch)]
        size = min(self.window, rest - slot * self.window)
        start = inside * self.global_batch
        low, high = self._part(start, min(self.global_batch, size - start))
        first = self.samples - rest + slot * self.window
        return self._between(order, first + low, first + high)

    def _inside(self, order: Order, slot: int, size: int, ranks: Indices, echo: int) -> Indices:
        """Where the ranks of a shuffled RAM batch lie in it."""
        key = (self.seed, "inside", order.epoch, _drawn_for(order), slot, echo)
        return _permutation(size, *key)(ranks)

    def _drawn(self, order: Order, ranks: Indices) -> Indices:
        """Sample numbers at ranks of an order that is cut from storage order, and shuffled inside."""
        size = (order.rest and order.rest.window) or self.window
        assert size is not None
        n = self.samples - self._stored_count(order)
        found = []
        for slot in range(int(ranks[0]) // size, int(ranks[-1]) // size + 1):
            here = ranks[(ranks >= slot * size) & (ranks < (slot + 1) * size)] - slot * size
            members = self._inside(order, slot, min(size, n - slot * size), here, 0)
            found.append(self._stored(order, slot, members, size))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _stored(self, order: Order, slot: int, members: Indices, size: int) -> Indices:
        """Sample numbers of the members of a RAM batch of this size, cut from storage order."""
        stored = self._stored_count(order)
        n = self.samples - stored
        whole = n // size
        if slot < whole and self.draw == "windows":
            full = _permutation(whole, self.seed, "windows", order.epoch, _drawn_for(order))
            slot = int(full(np.array([slot]))[0])
        return stored + (slot * size + members + self._shift(order)) % n

    def _shift(self, order: Order) -> int:
        """Where in storage order the cut into RAM batches begins.

        At another sample every epoch, so that neighbours at a boundary, and the short last RAM
        batch, are not the same ones for ever.
        """
        key = (self.seed, "cut", order.epoch, _drawn_for(order))
        shift = int.from_bytes(_mix(*key)[:8], "little")
        return shift % (self.samples - self._stored_count(order))

    def window_of(self, order: Order, batch: int) -> int:
        """Which RAM batch of the epoch, counted in the order of service, holds `batch`."""
        if self.window is None:
            raise AssertionError("this plan has one level")
        if self.stream is not None:
            return batch * self.global_batch // self.window
        if batch < order.head:
            return batch * self.global_batch // self.window
        # Windows of the shuffled rest are counted on from those of the head, however long it was.
        before = -(-order.head * self.global_batch // self.window)
        return before + self._place(batch - order.head, self._rest(order))[0]

    def _rest(self, order: Order) -> int:
        """How many samples are left after the head."""
        return self.samples - self._begin(order)

    def _place(self, batch: int, rest: int | None = None) -> tuple[int, int, int]:
        """-> (window, how often it was served before, batch within it)."""
        assert self.window is not None
        rest = self.samples if rest is None else rest
        per = self.window // self.global_batch
        whole = rest // self.window
        if batch < whole * per * self.echo:
            window, inside = divmod(batch, per * self.echo)
            return window, inside // per, inside % per
        tail, inside = self._batches_in(rest - whole * self.window), batch - whole * per * self.echo
        return whole, inside // tail, inside % tail

    def _batches_in(self, samples: int) -> int:
        whole, tail = divmod(samples, self.global_batch)
        return whole + (1 if tail and not self.drop_last else 0)

    def windows(self, order: Order) -> int:
        """How many RAM batches an epoch of this order reads."""
        return self.window_of(order, self.count(order) - 1) + 1

    def read_window(self, order: Order, window: int) -> Window:
        """What a RAM batch holds, in reading order, and the rows that each batch takes."""
        if self.stream is not None:  # not kept: it may hold an array over all samples
            return self._piece(order, window)
        return _window(self, order, window)

    def _make_window(self, order: Order, window: int) -> Window:
        assert self.window is not None
        before = -(-order.head * self.global_batch // self.window)
        if window < before:  # storage order, for as long as requests come in order
            first = window * self.window // self.global_batch
            last = (window + 1) * self.window // self.global_batch
            last = min(last, order.head, self.count(order))
            spans = [self._span(b, order) for b in range(first, last)]
            samples = np.concatenate([np.arange(a, z, dtype=np.int64) for a, z in spans])
            starts = np.cumsum([0] + [z - a for a, z in spans], dtype=np.int64)
            return Window(samples, np.arange(len(samples)), first, starts)

        rest, slot = self._rest(order), window - before
        whole = rest // self.window
        size = self.window if slot < whole else rest - whole * self.window
        per = self._batches_in(size)
        first = order.head + slot * (self.window // self.global_batch) * self.echo
        spans = [
            self._part(b * self.global_batch, min(self.global_batch, size - b * self.global_batch))
            for b in range(per)
        ]
        # Ranks of this shard inside the window, batch after batch, for each time it is served.
        ranks = np.concatenate([np.arange(a, z, dtype=np.int64) for a, z in spans])
        drawn = self._at(order, self.samples - rest + slot * self.window + ranks)
        everyone = np.arange(len(drawn), dtype=np.int64)
        reading = everyone
        if self.draw != "global":  # as they are stored, from where the cut begins
            stored = self._stored_count(order)
            turned = (drawn - stored - self._shift(order)) % (self.samples - stored)
            reading = np.argsort(turned)
        rows = np.empty_like(reading)
        rows[reading] = everyone
        served = [rows]
        # Each echo serves the same members of this shard in a new order.
        served += [
            self._inside(order, slot, len(drawn), everyone, again) for again in range(1, self.echo)
        ]
        sizes = [z - a for a, z in spans] * self.echo
        starts = np.cumsum([0, *sizes], dtype=np.int64)
        return Window(drawn[reading], np.concatenate(served), first, starts)

    def _piece(self, order: Order, window: int) -> Window:
        """Batches of a stream that a RAM batch serves; a sample that comes again is read once."""
        assert self.window is not None
        per = self.window // self.global_batch
        first, last = window * per, min((window + 1) * per, self.batches)
        found = [self.indices(order, batch) for batch in range(first, last)]
        samples, rows = np.unique(np.concatenate(found), return_inverse=True)
        return Window(samples, rows.reshape(-1), first, np.cumsum([0, *map(len, found)]))


def _start(order: Order) -> int:
    return 0 if order.rest is None else order.rest.start


def _drawn_for(order: Order) -> int:
    """The head that the shuffle of the others is drawn for."""
    if order.rest is None or order.rest.stored is None:
        return order.head
    return order.rest.head


# Above all numbers of other uses of a sample.
_PLACED = 2**40


@lru_cache(maxsize=2)
def _window(plan: EpochPlan, order: Order, window: int) -> Window:
    return plan._make_window(order, window)
