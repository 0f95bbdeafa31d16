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
    """The rest of an epoch that was cut into batches in another way, or by another process.

    start: samples of the epoch's order, of all shards together, that came before.
    stored: samples of the epoch that came in storage order before the shuffle began; None
        if it has not begun.
    head: the number of those batches then, which the shuffle depends on.
    window: the RAM batch size that the epoch's order was made with, if it depends on that.
    """

    start: int
    stored: int | None = None
    head: int = 0
    window: int | None = None


class Order(NamedTuple):
    """The order of one epoch: its first `head` batches in storage order, the rest shuffled.

    head = 0 is a shuffled epoch; head = the number of batches is storage order. Values in between
    occur when requests began in order and then left it (`tickets.py`).

    rest: the epoch resumes in the middle: batches are counted and cut from there.
    """

    epoch: int
    head: int
    rest: Rest | None = None


@dataclass(frozen=True)
class Window:
    """The samples of one RAM batch, and where each batch finds its own.

    samples: sample numbers in reading order.
    rows: for each batch of the window, the rows of `samples` that it serves, concatenated.
    starts: the first batch of the window, and where each batch's part of `rows` begins.
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

    samples: number of samples.
    batch_size: samples per batch of this loader.
    seed: fixes every order.
    drop_last: leave out a short last batch.
    shard: (k, n): this is part k of n equal parts of each global batch of batch_size * n samples.
    window: RAM batch size in samples (of all shards together); None: one level.
    draw: "windows" cuts storage order into RAM batches, shuffles these and what is in them;
        "front to back" shuffles only what is in them, for files that cannot be read in another
        order; "global" cuts a full shuffle into RAM batches.
    echo: how often a RAM batch is served before the next (Choi et al., "Faster neural network
        training with data echoing", arXiv:1907.05550).
    stream: an endless order, cut into epochs one after another; batches are full, and a storage
        order exists only if the stream is one.
    length: batches per epoch of a stream; None: as many as the samples make.
    neighbours: fill each RAM batch in storage order, whatever the order in which it is served.

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
            # Positions are counted in batches there, and classes balanced in batches of one size.
            "stream": self.stream
            and f"{self.stream} in {self.batches} batches of {self.global_batch}",
        }

    def state(self, order: Order, batch: int) -> dict[str, Any]:
        """The position before a batch of an order, in integers, for `position`.

        samples: samples of the epoch that came before, of all shards together (not with `echo`).
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
        """The resume point for a loader with this plan: an order, and its first batch.

        Exact for any batch size, number of shards and RAM batch size, with two exceptions: if the last
        batch would hold fewer samples than there are shards, the epoch resumes that many samples
        earlier; and with `echo`, if one of the three differs, at the beginning of the RAM batch.

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
            same = same and self.echo > 1  # only the position matters: RAM batches begin there
        epoch, stored = state["epoch"], state["stored"]
        start, batch = (state["start"], state["batch"]) if same else (self._start_of(state), 0)
        rest = Rest(start, stored, state["head"], cut)
        order = self._going_on(epoch, rest)
        if batch >= self.count(order):
            return Order(epoch + 1, self.batches if stored is None else 0), 0
        return order, batch

    def _start_of(self, state: dict[str, Any]) -> int:
        """Samples before the position; the rest is cut anew."""
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
        """How often this batch's samples were served before in this epoch (data echoing).

        In a stream a sample may come several times even in one batch: there it is a number for each
        position, so that no two servings draw the same random numbers.
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
        """A batch's number in its epoch, which its random numbers are derived from.

        In a resumed epoch it is counted from the epoch's beginning: a stopped run then draws the same
        random numbers as one that was not stopped.
        """
        start = _start(order)
        whole, inside = divmod(start, self.global_batch)
        if self.echo == 1 and not inside:
            return whole + batch
        return start * self.echo + batch  # above all earlier numbers, however they were cut

    def _places(self, order: Order, batch: int) -> tuple[int, int]:
        """The start and end of this shard's part of a batch in the stream."""
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
            return stored + self._shuffled(order, low, high, self.samples - stored)
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
        ranks = positions - stored
        low, high = int(ranks[0]), int(ranks[-1]) + 1
        return stored + self._shuffled(order, low, high, self.samples - stored)[ranks - low]

    def _shuffled(self, order: Order, low: int, high: int, n: int) -> Indices:
        """Ranks low to high of a shuffle of range(n)."""
        return permuted_span(low, high, n, self.seed, "order", order.epoch, drawn_for(order))

    def _begin(self, order: Order) -> int:
        """The position where RAM batches of shuffled samples begin."""
        return min(_start(order) + order.head * self.global_batch, self.samples)

    def _stored_count(self, order: Order) -> int:
        """Number of samples of the epoch in storage order before the shuffle."""
        rest = order.rest
        if rest is None:
            return min(order.head * self.global_batch, self.samples)
        return self._begin(order) if rest.stored is None else rest.stored

    # ------------------------------------------------------------------ RAM batches

    def _in_window(self, order: Order, batch: int) -> Indices:
        """Samples of one batch of a RAM batch; computed without the others, except for repeated servings."""
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
        """Positions of ranks of a shuffled RAM batch."""
        key = (self.seed, "inside", order.epoch, drawn_for(order), slot, echo)
        return permutation_of(size, *key)(ranks)

    def _drawn(self, order: Order, ranks: Indices) -> Indices:
        """Sample numbers at ranks of an order that is cut from storage order and shuffled inside."""
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
        """Where in storage order the cut into RAM batches begins.

        It differs in every epoch, so that boundaries and the short last RAM batch do not always hit
        the same samples.
        """
        key = (self.seed, "cut", order.epoch, drawn_for(order))
        shift = int.from_bytes(mixed(*key)[:8], "little")
        return shift % (self.samples - self._stored_count(order))

    def window_of(self, order: Order, batch: int) -> int:
        """The number of the RAM batch, in order of service, that holds `batch`."""
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
        """Number of samples after the head."""
        return self.samples - self._begin(order)

    def place(self, batch: int, rest: int | None = None) -> tuple[int, int, int]:
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
        # Ranks of this shard inside the window, batch after batch, for each serving.
        ranks = np.concatenate([np.arange(a, z, dtype=np.int64) for a, z in spans])
        drawn = self._at(order, self.samples - rest + slot * self.window + ranks)
        everyone = np.arange(len(drawn), dtype=np.int64)
        reading = everyone
        if self.draw != "global" or self.neighbours:  # as stored, from the start of the cut
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
        """Batches of a stream that a RAM batch serves; repeated samples are read once."""
        assert self.window is not None
        per = self.window // self.global_batch
        first, last = window * per, min((window + 1) * per, self.batches)
        found = [self.indices(order, batch) for batch in range(first, last)]
        samples, rows = np.unique(np.concatenate(found), return_inverse=True)
        return Window(samples, rows.reshape(-1), first, np.cumsum([0, *map(len, found)]))


def _start(order: Order) -> int:
    return 0 if order.rest is None else order.rest.start


def drawn_for(order: Order) -> int:
    """The head that the shuffle of the rest depends on."""
    if order.rest is None or order.rest.stored is None:
        return order.head
    return order.rest.head


# Above all numbers of other uses of a sample.
_PLACED = 2**40


@lru_cache(maxsize=2)
def _window(plan: EpochPlan, order: Order, window: int) -> Window:
    return plan.make_window(order, window)
