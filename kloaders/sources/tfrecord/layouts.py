"""Reads similar records together: large values straight into the batch, everything else as a matrix.

Records by the same writer mostly differ only in their values: names, lengths and order are the same
bytes at the same offsets. A `Layout` is learnt from one such record. Other records of the same size
are read so that the bytes of large values go directly to their rows of the batch. A few calls of
NumPy then compare the other bytes with the layout. If a record differs in any byte that is not part
of a value, it is read again and parsed separately.
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


# Values of at least this size are read straight into the batch. This costs one more buffer in the
# system call, and saves a copy.
_DIRECT = 2048
# The maximum number of bytes of adjacent records that are read in one call.
_AT_ONCE = 1 << 24


class Layout:
    """Where the bytes of a record belong, including its frame. Several threads may use it.

    raw: a record with its frame. slots: the values of each leaf. form: a mask of the bytes that all
    such records have in common. direct: leaves whose values are read straight into the batch, in byte
    order. siblings: this layout, and other layouts of the same size that a record read with this one may
    have instead. There are no others if values are read straight into the batch, because another layout
    has its values at other offsets.
    """

    def __init__(self, raw: bytes, slots: list[Slot], form: Array, direct: list[int]) -> None:
        self.size = len(raw)
        self.slots = slots
        self.direct = direct
        # The bytes of a record that are not read straight into the batch are a row of the matrix.
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
        """The destinations of records' bytes: pieces of rows of the matrix, and rows of the batch."""
        parts: list[Part] = [(lines[:, : self.cuts[1]], None)]
        for number, leaf in enumerate(self.direct, 1):
            parts.append((out[leaf], rows))
            parts.append((lines[:, self.cuts[number] : self.cuts[number + 1]], None))
        return parts

    def place(self, lines: Array, rows: Array, out: list[Array]) -> None:
        """Copy values from rows of the matrix to rows of the batch."""
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
    """Decodes rows of varints whose sizes in bytes are those of `block`."""

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
    """The layout of a record; None if a leaf is not a plain block of values.

    raw, record: with and without its frame. out: the arrays of the leaves, with a row per sample.
    """
    slots: list[Slot] = []
    for leaf, rows in zip(leaves, out, strict=True):
        slot = leaf.slot(record, found)
        # An empty block has no position, and two leaves cannot share a feature.
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
        # The bytes before the values must match again, and each varint must keep its size.
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
    """Records to read into rows of a batch, sorted by file and position.

    records: their numbers among all records of all files. files, starts, ends: where they are.
    """

    records: Array
    files: Array
    starts: Array
    ends: Array
    rows: Array
    layouts: list[Layout]


class _Group:
    """Jobs with the same layout. places: their numbers among all jobs; lines: rows of the matrix."""

    def __init__(self, layout: Layout, places: list[int]) -> None:
        self.layout, self.places = layout, np.array(places)
        self.lines = np.empty((len(places), len(layout.form)), np.uint8)


def read_rows(files: RecordFiles, jobs: Jobs, out: list[Array]) -> list[int]:
    """Fill rows of `out`; return, in any order, the rows whose record is damaged or has another layout.

    Adjacent records of a file are one read, and all reads are submitted together (`read_many`).
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
    """Jobs between two bounds are read at once, because they are adjacent in a file."""
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
    """Copy values from the matrix to the batch; return rows that are damaged or have another layout."""
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
    """The checksum of a record's data, from the pieces that were read, which include the frame."""
    if len(pieces) == 1:
        return crc32c(pieces[0][HEADER:-FOOTER])
    crc = crc32c(pieces[0][HEADER:])
    for piece in pieces[1:-1]:
        crc = crc32c(piece, crc)
    return crc32c(pieces[-1][:-FOOTER], crc)
