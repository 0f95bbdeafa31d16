"""Assigns samples to batches. Index arithmetic only: no files, no Keras, no state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.plan.permutation import mixed, permutation_of, permuted_span
from kloaders.plan.rng import Draw
from kloaders.plan.streams import Stream

__all__ = ["EpochPlan", "Order", "Rest", "Window", "drawn_for"]


class Rest(NamedTuple):
    """The rest of an epoch whose beginning was cut into batches differently, or by another process.

    Attributes:
        start: the number of samples delivered before, of all shards together.
        stored: the number of samples delivered in storage order before the shuffle began; None
            if the shuffle has not begun.
        head: the number of batches delivered in storage order, on which the shuffle depends.
        window: the RAM batch size that the epoch's order was made with, if the order depends on it.
    """

    start: int
    stored: int | None = None
    head: int = 0
    window: int | None = None


class Order(NamedTuple):
    """The order of one epoch: its first `head` batches in storage order, the rest shuffled.

    head = 0 is a shuffled epoch; head = the number of batches is storage order. Values in between
    occur if requests come in order at first and then in another (`tickets.py`). `rest`: the epoch
    resumes in the middle, and batches are counted and cut from there.
    """

    epoch: int
    head: int
    rest: Rest | None = None


@dataclass(frozen=True)
class Window:
    """The samples of one RAM batch, and which of them each batch has.

    Attributes:
        samples: sample numbers in reading order.
        rows: for each batch of the window, its rows of `samples`, concatenated.
        first_batch: the first batch of the window.
        starts: where the rows of each batch begin in `rows`, and the end of the last.
    """

    samples: Indices
    rows: Indices
    first_batch: int
    starts: Indices

    def rows_of(self, batch: int) -> Indices:
        k = batch - self.first_batch
        return self.rows[self.starts[k] : self.starts[k + 1]]


@dataclass(frozen=True)
class EpochPlan:
    """Batches of one epoch as a pure function of (seed, epoch, batch number).

    Attributes:
        samples: number of samples.
        batch_size: samples per batch of this loader.
        seed: determines every order.
        drop_last: whether to leave out a short last batch.
        shard: (k, n): this is part k of n equal parts of each global batch of batch_size * n samples.
        window: RAM batch size in samples (of all shards together); None for one level.
        draw: "windows" cuts storage order into RAM batches, shuffles the RAM batches, and shuffles
            the samples in each; "front to back" shuffles only the samples in each, for files that
            must be read in order; "global" cuts a full shuffle into RAM batches.
        echo: how often a RAM batch is served before the next (Choi et al., "Faster neural network
            training with data echoing", arXiv:1907.05550).
        stream: an endless order, cut into consecutive epochs; all batches are full. Storage order
            exists only if the stream itself is in storage order.
        length: batches per epoch of a stream; None for as many as one pass over the samples has.
        neighbours: whether each RAM batch is read in storage order even if it is served in another.

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
    draw: Literal["windows", "front to back", "global", "files"] = "windows"
    echo: int = 1
    stream: Stream | None = None
    length: int | None = None
    neighbours: bool = False
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
        """The settings that `position` depends on, for `state`."""
        return {
            "samples": self.samples,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "draw": "global" if self.window is None else self.draw,
            "echo": self.echo,
            # Positions in a stream are counted in batches, and classes are balanced within a batch.
            "stream": self.stream
            and f"{self.stream} in {self.batches} batches of {self.global_batch}",
        }

    def state(self, order: Order, batch: int) -> dict[str, Any]:
        """The position before a batch of an order, as integers that `position` understands.

        samples: the number of samples of the epoch before it, of all shards together (not with `echo`).
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
            "head": 0 if stored is None else drawn_for(order),
            "window": rest.window,
            "global_batch": self.global_batch,
            "ram_batch": self.window,
            "shards": self.shard[1],
        }

    def position(self, state: dict[str, Any]) -> tuple[Order, int]:
        """The point at which a loader with this plan resumes: an order, and its next batch.

        Exact for any batch size, number of shards and RAM batch size, with two exceptions: an epoch
        resumes a few samples earlier if its last batch would have fewer samples than there are shards;
        and with `echo`, if one of the three differs, it resumes at the beginning of the RAM batch.

        Raises ValueError for an invalid position in an epoch of this many samples.
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
            same = same and self.echo > 1  # RAM batches begin at the position, wherever it is
        epoch, stored = state["epoch"], state["stored"]
        start, batch = (state["start"], state["batch"]) if same else (self._start_of(state), 0)
        rest = Rest(start, stored, state["head"], cut)
        order = self._going_on(epoch, rest)
        if batch >= self.count(order):
            return Order(epoch + 1, self.batches if stored is None else 0), 0
        return order, batch

    def _start_of(self, state: dict[str, Any]) -> int:
        """The number of samples before the position. The rest is cut into batches again."""
        size = state["global_batch"]
        start: int = state["start"] + state["batch"] * size
        if self.echo > 1:  # restart the RAM batch that was being served
            begun = replace(
                self, batch_size=size, shard=(0, 1), window=state["ram_batch"] or self.window
            )
            window, _, _ = begun.place(state["batch"], self.samples - state["start"])
            start = state["start"] + window * (begun.window or 0)
        short = (self.samples - start) % self.global_batch
        if not self.drop_last and 0 < short < self.shard[1]:
            start = max(0, start - (self.shard[1] - short))
        return min(start, self.samples)

    def _going_on(self, epoch: int, rest: Rest) -> Order:
        """The order that the rest of an epoch belongs to."""
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
        """How often this batch's samples were served earlier in this epoch (data echoing).

        In a stream a sample may occur several times even in one batch. So each position has a number
        of its own there, and no two occurrences draw the same random numbers.
        """
        if self.stream is not None:
            low, high = self._places(order, batch)
            first = order.epoch * self.batches * self.global_batch
            return _PLACED + np.arange(low - first, high - first, dtype=np.int64)
        if self.echo == 1:
            return 0
        _, passed, _ = self.place(batch, self.samples - _start(order))
        return passed

    def number(self, order: Order, batch: int) -> int:
        """A batch's number in its epoch, from which its random numbers are derived.

        In a resumed epoch it is counted from the epoch's beginning: a run that was stopped and resumed
        draws the same random numbers as an uninterrupted run.
        """
        start = _start(order)
        whole, inside = divmod(start, self.global_batch)
        if self.echo == 1 and not inside:
            return whole + batch
        return start * self.echo + batch  # above all earlier numbers, for any batch size

    def _places(self, order: Order, batch: int) -> tuple[int, int]:
        """The start and end of this shard's part of a batch in the stream."""
        before = order.epoch * self.batches + batch
        return self._part(before * self.global_batch, self.global_batch)

    def _span(self, batch: int, order: Order) -> tuple[int, int]:
        """The positions of this shard's part of a global batch: start and end."""
        size = self.global_batch
        start = _start(order) + batch * size
        return self._part(start, min(size, self.samples - start))

    def _part(self, start: int, size: int) -> tuple[int, int]:
        # size=10, shard=(k, 4) -> 3, 3, 2, 2: the parts of a short batch differ by one at most
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
            return stored + self._shuffled(order, low, high, self.samples - stored)
        return self._at(order, np.arange(start, stop, dtype=np.int64))

    def _at(self, order: Order, positions: Indices) -> Indices:
        """Sample numbers at positions of the epoch's order, which does not depend on the batch size."""
        stored = self._stored_count(order)
        if not positions.size or positions[-1] < stored:
            return positions
        if positions[0] < stored:
            early = positions < stored
            return np.concatenate([positions[early], self._at(order, positions[~early])])
        if self.window is not None and self.draw != "global":
            return self._drawn(order, positions - stored)
        ranks = positions - stored
        low, high = int(ranks[0]), int(ranks[-1]) + 1
        return stored + self._shuffled(order, low, high, self.samples - stored)[ranks - low]

    def _shuffled(self, order: Order, low: int, high: int, n: int) -> Indices:
        """Ranks low to high of a shuffle of range(n)."""
        return permuted_span(low, high, n, self.seed, "order", order.epoch, drawn_for(order))

    def _begin(self, order: Order) -> int:
        """The position at which the RAM batches of shuffled samples begin."""
        return min(_start(order) + order.head * self.global_batch, self.samples)

    def _stored_count(self, order: Order) -> int:
        """The number of samples in storage order before the shuffle of the epoch begins."""
        rest = order.rest
        if rest is None:
            return min(order.head * self.global_batch, self.samples)
        return self._begin(order) if rest.stored is None else rest.stored

    # ------------------------------------------------------------------ RAM batches

    def _in_window(self, order: Order, batch: int) -> Indices:
        """The samples of one batch of a RAM batch; computed alone, except when data echoing repeats it."""
        assert self.window is not None
        rest = self._rest(order)
        slot, passed, inside = self.place(batch - order.head, rest)
        if passed:
            window = self.read_window(order, self.window_of(order, batch))
            return window.samples[window.rows_of(batch)]
        size = min(self.window, rest - slot * self.window)
        start = inside * self.global_batch
        low, high = self._part(start, min(self.global_batch, size - start))
        first = self.samples - rest + slot * self.window
        return self._between(order, first + low, first + high)

    def _inside(self, order: Order, slot: int, size: int, ranks: Indices, echo: int) -> Indices:
        """The positions in a RAM batch of these ranks of its shuffle."""
        key = (self.seed, "inside", order.epoch, drawn_for(order), slot, echo)
        return permutation_of(size, *key)(ranks)

    def _drawn(self, order: Order, ranks: Indices) -> Indices:
        """Sample numbers at ranks of an order of RAM batches that are cut from storage order."""
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
            full = permutation_of(whole, self.seed, "windows", order.epoch, drawn_for(order))
            slot = int(full(np.array([slot]))[0])
        return stored + (slot * size + members + self._shift(order)) % n

    def _shift(self, order: Order) -> int:
        """The sample in storage order at which the first RAM batch begins.

        It differs in every epoch, so that the boundaries and the short last RAM batch fall on other
        samples each time.
        """
        key = (self.seed, "cut", order.epoch, drawn_for(order))
        shift = int.from_bytes(mixed(*key)[:8], "little")
        return shift % (self.samples - self._stored_count(order))

    def window_of(self, order: Order, batch: int) -> int:
        """The number of the RAM batch that contains `batch`, in the order in which they are served."""
        if self.window is None:
            raise AssertionError("this plan has one level")
        if self.stream is not None:
            return batch * self.global_batch // self.window
        if batch < order.head:
            return batch * self.global_batch // self.window
        # Windows of the shuffled rest are numbered after those of the head.
        before = -(-order.head * self.global_batch // self.window)
        return before + self.place(batch - order.head, self._rest(order))[0]

    def _rest(self, order: Order) -> int:
        """The number of samples after the head."""
        return self.samples - self._begin(order)

    def place(self, batch: int, rest: int | None = None) -> tuple[int, int, int]:
        """-> (window, how often it was served before, the batch within it)."""
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
        """Number of RAM batches per epoch of this order."""
        return self.window_of(order, self.count(order) - 1) + 1

    def read_window(self, order: Order, window: int) -> Window:
        """The content of a RAM batch in reading order, and the rows of each batch."""
        if self.stream is not None:  # not cached: it may hold an array over all samples
            return self._piece(order, window)
        return _window(self, order, window)

    def make_window(self, order: Order, window: int) -> Window:
        assert self.window is not None
        before = -(-order.head * self.global_batch // self.window)
        if window < before:  # storage order, as long as requests come in order
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
        # The ranks of this shard inside the window, batch after batch.
        ranks = np.concatenate([np.arange(a, z, dtype=np.int64) for a, z in spans])
        drawn = self._at(order, self.samples - rest + slot * self.window + ranks)
        everyone = np.arange(len(drawn), dtype=np.int64)
        reading = everyone
        if self.draw != "global" or self.neighbours:  # read in storage order, from the shift on
            stored = self._stored_count(order)
            turned = (drawn - stored - self._shift(order)) % (self.samples - stored)
            reading = np.argsort(turned)
        rows = np.empty_like(reading)
        rows[reading] = everyone
        served = [rows]
        # Each echo serves the same samples of this shard in a new order.
        served += [
            self._inside(order, slot, len(drawn), everyone, again) for again in range(1, self.echo)
        ]
        sizes = [z - a for a, z in spans] * self.echo
        starts = np.cumsum([0, *sizes], dtype=np.int64)
        return Window(drawn[reading], np.concatenate(served), first, starts)

    def _piece(self, order: Order, window: int) -> Window:
        """The content of a RAM batch of a stream; repeated samples are read once."""
        assert self.window is not None
        per = self.window // self.global_batch
        first, last = window * per, min((window + 1) * per, self.batches)
        found = [self.indices(order, batch) for batch in range(first, last)]
        samples, rows = np.unique(np.concatenate(found), return_inverse=True)
        return Window(samples, rows.reshape(-1), first, np.cumsum([0, *map(len, found)]))


def _start(order: Order) -> int:
    return 0 if order.rest is None else order.rest.start


def drawn_for(order: Order) -> int:
    """The `head` on which the shuffle after it depends."""
    if order.rest is None or order.rest.stored is None:
        return order.head
    return order.rest.head


# Above all other values of `use`, which count servings.
_PLACED = 2**40


@lru_cache(maxsize=2)
def _window(plan: EpochPlan, order: Order, window: int) -> Window:
    return plan.make_window(order, window)
