"""Records of one form, read at once: large values straight into the batch, the rest as a matrix.

Records by one writer mostly differ in their values only: names, lengths and order are the same
bytes at the same places. A `Layout` is learnt from one such record. Others of its size are read
with the values' bytes going to where they are wanted, and are then compared with it in a few calls
of NumPy: what differs in any byte that is not a value is read again by itself, and parsed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kloaders.crc32c import crc32c, mask_all
from kloaders.examples import Found
from kloaders.features import Leaf, Slot
from kloaders.records import FOOTER, HEADER, RecordFiles, read_at

__all__ = ["Job", "Layout", "learnt", "read_rows"]

Array = np.ndarray[Any, Any]

# Values of at least so many bytes are read straight into the batch: one buffer more for the
# system call, and one copy less.
_DIRECT = 2048
# Neighbouring records are read in one call of at most so many bytes.
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
        # A record without what is read in place is a row of the matrix.
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

    def buffers(self, line: Array, out: list[Array], row: int) -> list[Array]:
        """Where a record is read to: pieces of a row of the matrix, and rows of the batch."""
        if not self.direct:
            return [line]
        pieces = [line[: self.cuts[1]]]
        for number, leaf in enumerate(self.direct, 1):
            pieces += [out[leaf][row], line[self.cuts[number] : self.cuts[number + 1]]]
        return pieces

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
        self.sizes = ends - self.starts + 1

    def __call__(self, rows: Array) -> Array:
        values = np.zeros((len(rows), len(self.starts)), np.uint64)
        for place in range(int(self.sizes.max())):
            has = self.sizes > place
            bits = (rows[:, self.starts[has] + place] & 0x7F).astype(np.uint64)
            values[:, has] |= bits << np.uint64(7 * place)
        return values.view(np.int64)


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


class Job(NamedTuple):
    """A record that is to be read into a row of a batch.

    record: its number among all records of all files.
    """

    record: int
    file: int
    start: int
    row: int
    layout: Layout


class _Group:
    """Records of one layout."""

    def __init__(self, jobs: int, layout: Layout) -> None:
        self.lines = np.empty((jobs, len(layout.form)), np.uint8)
        self.rows: list[int] = []
        # Checksums of what was read, the places of those records in `rows`, and their numbers.
        self.sums: list[int] = []
        self.summed: list[int] = []
        self.records: list[int] = []
        self.sound: list[int] = []  # those whose checksum is right


def read_rows(files: RecordFiles, jobs: list[Job], out: list[Array]) -> list[int]:
    """Fill rows of `out`; gives those whose record has another form or is damaged, in any order.

    jobs: sorted by file and start. What lies in a file side by side is read by one call.
    """
    counts: dict[Layout, int] = {}
    for job in jobs:
        counts[job.layout] = counts.get(job.layout, 0) + 1
    groups = {layout: _Group(count, layout) for layout, count in counts.items()}
    to_check, changes = files.to_check([job.record for job in jobs], {job.file for job in jobs})
    bad: list[int] = []
    run: list[tuple[Job, list[Array], int]] = []
    size = 0

    def read() -> None:
        first = run[0][0]
        buffers = run[0][1] if len(run) == 1 else [b for _, pieces, _ in run for b in pieces]
        try:
            got = read_at(files.opened(first.file).number, buffers, first.start, size)
        except OSError:
            got = 0
        if got < size:
            bad.extend(job.row for job, _, _ in run)
        for job, pieces, place in run:
            if job.record in to_check:  # while the bytes are in the processor's cache
                group = groups[job.layout]
                group.sums.append(_checksum(pieces))
                group.summed.append(place)
                group.records.append(job.record)

    for job in jobs:
        group = groups[job.layout]
        if run:
            first = run[0][0]
            beside = first.file == job.file and first.start + size == job.start
            if not beside or size > _AT_ONCE:
                read()
                run, size = [], 0
        place = len(group.rows)
        run.append((job, job.layout.buffers(group.lines[place], out, job.row), place))
        group.rows.append(job.row)
        size += job.layout.size
    if run:
        read()
    for layout, group in groups.items():
        bad += _place(layout, group, out)
        files.checked(np.array(group.sound, np.int64), changes)
    return list(dict.fromkeys(bad))


def _place(layout: Layout, group: _Group, out: list[Array]) -> list[int]:
    """Values from the matrix into the batch; rows that are of no such layout, or damaged."""
    lines, rows = group.lines, np.array(group.rows)
    whole = np.ones(len(rows), bool)
    if group.sums:
        summed = np.array(group.summed)
        stored = np.ascontiguousarray(lines[summed, -FOOTER:]).view("<u4")[:, 0]
        sound = mask_all(np.array(group.sums, np.uint32)) == stored
        whole[summed] = sound
        group.sound = np.array(group.records)[sound].tolist()
    bad: list[int] = rows[~whole].tolist()
    if bad:
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


def _checksum(pieces: list[Array]) -> int:
    """Of the data of a record that was read in pieces, frame included."""
    if len(pieces) == 1:
        return crc32c(pieces[0][HEADER:-FOOTER])
    crc = crc32c(pieces[0][HEADER:])
    for piece in pieces[1:-1]:
        crc = crc32c(piece, crc)
    return crc32c(pieces[-1][:-FOOTER], crc)
