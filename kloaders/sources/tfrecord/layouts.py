"""Records of one form, read at once: large values straight into the batch, the rest as a matrix.

Records by one writer mostly differ in their values only: names, lengths and order are the same
bytes at the same places. A `Layout` is learnt from one such record. Others of its size are read
with the values' bytes going to where they are wanted, and are then compared with it in a few calls
of NumPy: what differs in any byte that is not a value is read again by itself, and parsed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.positioned_reads import Buffers, Part, read_many
from kloaders.formats.tfrecord.crc32c import crc32c, mask_all
from kloaders.formats.tfrecord.examples import Found
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import FOOTER, HEADER
from kloaders.sources.tfrecord.leaves import Leaf, Slot

__all__ = ["Jobs", "Layout", "learnt", "read_rows"]


# Values of at least this many bytes are read straight into the batch: one buffer more for the
# system call, and one copy less.
_DIRECT = 2048
# Maximum number of bytes of neighbouring records that are read in one call.
_AT_ONCE = 1 << 24


class Layout:
    """Where the bytes of a record belong, frame included. Threads share it.

    raw: a record with its frame. slots: of each leaf. form: which bytes all such records share, as
    a mask. direct: leaves whose values are read in place, in the order of their bytes.
    siblings: itself, and others of this size that records read for it may be of instead. It has
    none where values are read in place, since theirs would lie in another place.
    """

    def __init__(self, raw: bytes, slots: list[Slot], form: Array, direct: list[int]) -> None:
        self.size = len(raw)
        self.slots = slots
        self.direct = direct
        # The part of a record that is not read in place is a row of the matrix.
        cuts = [HEADER + cut for k in direct for cut in (slots[k].start, slots[k].stop)]
        outside = list(zip([0, *cuts[1::2]], [*cuts[::2], len(raw)], strict=True))
        self.cuts = list(itertools.accumulate((z - a for a, z in outside), initial=0))
        kept = np.concatenate([np.arange(a, z) for a, z in outside])
        self.form = form[kept]
        self.want = np.frombuffer(raw, np.uint8)[kept] & self.form
        self.same = tuple(slots), self.want.tobytes(), self.form.tobytes()
        self.siblings = [self]
        inside = [k for k in range(len(slots)) if k not in direct]
        self.columns = {k: int(np.searchsorted(kept, HEADER + slots[k].start)) for k in inside}
        self.varints = {
            k: _Varints(raw[HEADER + slots[k].start : HEADER + slots[k].stop])
            for k in inside
            if slots[k].stored is None
        }

    def parts(self, lines: Array, out: list[Array], rows: Array) -> list[Part]:
        """Where records are read to: pieces of a row of the matrix, and rows of the batch."""
        parts: list[Part] = [(lines[:, : self.cuts[1]], None)]
        for number, leaf in enumerate(self.direct, 1):
            parts.append((out[leaf], rows))
            parts.append((lines[:, self.cuts[number] : self.cuts[number + 1]], None))
        return parts

    def place(self, lines: Array, rows: Array, out: list[Array]) -> None:
        """Values from rows of the matrix into rows of the batch."""
        if len(rows):
            for leaf in self.columns:
                out[leaf][rows] = self._values(leaf, lines)

    def _values(self, leaf: int, lines: Array) -> Array:
        slot, column = self.slots[leaf], self.columns[leaf]
        block = lines[:, column : column + slot.stop - slot.start]
        if slot.stored is None:
            values = self.varints[leaf](block)
        else:
            values = np.ascontiguousarray(block).view(slot.stored)
        return values.reshape(len(lines), *slot.shape)


class _Varints:
    """Decodes rows of numbers that take as many bytes each as these do."""

    def __init__(self, block: bytes) -> None:
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) < 0x80)
        self.starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
        sizes = ends - self.starts + 1
        places = np.arange(len(block)) - np.repeat(self.starts, sizes)
        self.shifts = (7 * places).astype(np.uint64)

    def __call__(self, rows: Array) -> Array:
        bits = (rows & 0x7F).astype(np.uint64) << self.shifts
        return np.add.reduceat(bits, self.starts, axis=1).view(np.int64)


def learnt(
    raw: bytes,
    record: bytes,
    found: dict[str, Found],
    leaves: Sequence[Leaf],
    out: Sequence[Array],
) -> Layout | None:
    """The layout of a record; None where a leaf is no plain block of values.

    raw, record: with its frame, and without. out: arrays of the leaves, with a row a sample.
    """
    slots: list[Slot] = []
    for leaf, rows in zip(leaves, out, strict=True):
        slot = leaf.slot(record, found)
        # An empty block has no place; a feature that two leaves share has one only.
        if slot is None or slot.shape != rows.shape[1:] or slot.start == slot.stop:
            return None
        if any(slot.start == other.start for other in slots):
            return None
        slots.append(slot)
    form = np.full(len(raw), 0xFF, np.uint8)
    form[-FOOTER:] = 0
    companions = {f"{leaf.name}/{what}" for leaf in leaves for what in ("shape", "dtype")}
    for name, feature in found.items():
        if name not in companions:
            for start, stop in feature.spans:
                form[HEADER + start : HEADER + stop] = 0
    for leaf, slot in zip(leaves, slots, strict=True):
        # In front of the values lies form again, and each number keeps its count of bytes.
        start = found[leaf.name].spans[0][0]
        form[HEADER + start : HEADER + slot.start] = 0xFF
        form[HEADER + slot.start : HEADER + slot.stop] = 0x80 if slot.stored is None else 0
    direct = [
        k
        for k, (slot, rows) in enumerate(zip(slots, out, strict=True))
        if slot.stored == rows.dtype and slot.stop - slot.start >= _DIRECT
    ]
    return Layout(raw, slots, form, sorted(direct, key=lambda k: slots[k].start))


class Jobs(NamedTuple):
    """Records that are to be read into rows of a batch, sorted by file and by place in it.

    records: their numbers among all records of all files. files, starts, ends: where they lie.
    """

    records: Array
    files: Array
    starts: Array
    ends: Array
    rows: Array
    layouts: list[Layout]


class _Group:
    """Jobs of one layout. places: their numbers among all jobs; lines: what is no direct value."""

    def __init__(self, layout: Layout, places: list[int]) -> None:
        self.layout, self.places = layout, np.array(places)
        self.lines = np.empty((len(places), len(layout.form)), np.uint8)


def read_rows(files: RecordFiles, jobs: Jobs, out: list[Array]) -> list[int]:
    """Fill rows of `out`; gives those whose record has another form or is damaged, in any order.

    Neighbours in a file are one read, and all reads are submitted together (`read_many`).
    """
    by_layout: dict[Layout, list[int]] = {}
    for place, layout in enumerate(jobs.layouts):
        by_layout.setdefault(layout, []).append(place)
    groups = [_Group(layout, places) for layout, places in by_layout.items()]
    buffers = Buffers(len(jobs.layouts))
    for group in groups:
        parts = group.layout.parts(group.lines, out, jobs.rows[group.places])
        buffers.add(group.places, parts)
    to_check, changes = files.to_check(jobs.records, jobs.files)
    bounds = _bounds(jobs)
    firsts = bounds[:-1]
    starts = jobs.starts[firsts]
    sizes = jobs.ends[bounds[1:] - 1] - starts
    opened = files.opened_at_once(jobs.files[firsts].tolist())
    descriptors = [-1 if file is None else file.number for file in opened]
    whole = read_many(descriptors, starts, sizes, bounds, buffers)
    bad = jobs.rows[np.repeat(~whole, np.diff(bounds))].tolist()
    sums: dict[int, int] = {}
    if to_check.any():
        pieces = buffers.pieces()
        sums = {place: _checksum(pieces[place]) for place in np.flatnonzero(to_check).tolist()}
    for group in groups:
        bad += _place(files, changes, jobs, group, sums, out)
    return list(dict.fromkeys(bad))


def _bounds(jobs: Jobs) -> Array:
    """Jobs from one bound to the next are read at once: they lie side by side in a file."""
    starts, ends, count = jobs.starts, jobs.ends, len(jobs.starts)
    follows = np.zeros(count + 1, bool)
    follows[1:-1] = (jobs.files[1:] == jobs.files[:-1]) & (starts[1:] == ends[:-1])
    if follows.any():
        first = np.maximum.accumulate(np.where(follows[:-1], 0, np.arange(count)))
        parts = (starts - starts[first]) // _AT_ONCE
        follows[1:-1] &= parts[1:] == parts[:-1]
    return np.flatnonzero(~follows)


def _place(
    files: RecordFiles,
    changes: int,
    jobs: Jobs,
    group: _Group,
    sums: dict[int, int],
    out: list[Array],
) -> list[int]:
    """Copy values from the matrix to the batch; returns rows with another layout, or damaged ones."""
    layout, lines, rows = group.layout, group.lines, jobs.rows[group.places]
    bad: list[int] = []
    if sums:
        whole = np.ones(len(rows), bool)
        summed = np.array([place in sums for place in group.places.tolist()])
        places = group.places[summed]
        stored = np.ascontiguousarray(lines[summed, -FOOTER:]).view("<u4")[:, 0]
        found = np.array([sums[place] for place in places.tolist()], np.uint32)
        whole[summed] = sound = mask_all(found) == stored
        files.checked(jobs.records[places[sound]], changes)
        if not whole.all():
            bad = rows[~whole].tolist()
            lines, rows = lines[whole], rows[whole]
    for one in layout.siblings:
        right = ((lines & one.form) == one.want).all(axis=1)
        if right.all():
            one.place(lines, rows, out)
            return bad
        one.place(lines[right], rows[right], out)
        lines, rows = lines[~right], rows[~right]
    bad += rows.tolist()
    return bad


def _checksum(pieces: Sequence[Array]) -> int:
    """The checksum of a record's data that was read in pieces, frame included."""
    if len(pieces) == 1:
        return crc32c(pieces[0][HEADER:-FOOTER])
    crc = crc32c(pieces[0][HEADER:])
    for piece in pieces[1:-1]:
        crc = crc32c(piece, crc)
    return crc32c(pieces[-1][:-FOOTER], crc)
