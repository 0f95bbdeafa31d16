"""Reads files at many positions; on Linux, many reads take a single system call.

Each system call releases the GIL, and with two threads on two cores, reacquiring it takes longer than
the kernel needs for a small read. `io_submit` (Linux' asynchronous I/O, io_submit(2), in every kernel
since 2.6) accepts a list of reads, and, for files in the page cache, performs them in the calling
thread. A failed read is an error; with a memory map it would be SIGBUS, which ends the process. The
environment variable `KLOADERS_IO_SUBMIT=0` turns it off; each read is then a separate call.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import sys
import threading
from collections.abc import Sequence
from io import FileIO
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array

__all__ = ["Buffers", "Part", "read_at", "read_many"]

# An array, and the row that each read fills; None if the k-th read fills the k-th row.
Part = tuple[Array, Array | None]

# The maximum number of buffers per read on Linux and macOS (IOV_MAX).
_BUFFERS = 1024
_seek_lock = threading.Lock()


def read_at(descriptor: int, buffers: Sequence[Any], offset: int, size: int) -> int:
    """Fill writable buffers with `size` bytes in total, one after another, from a position of a file.

    Returns the number of bytes, which is smaller only at the end of the file. This is a positioned read
    and not a memory map, so that a file that another process truncates is an error, and does not end
    this process.
    """
    if len(buffers) <= _BUFFERS:  # the usual case, in which one call reads all
        done = _read_once(descriptor, buffers, offset)
        return done if done == size else _read_rest(descriptor, buffers, offset, done)
    done = 0
    for start in range(0, len(buffers), _BUFFERS):
        part = list(buffers[start : start + _BUFFERS])
        want = sum(memoryview(b).nbytes for b in part)
        got = _read_once(descriptor, part, offset + done)
        if got < want:  # end of the file, a signal, or more than 2 GiB
            got = _read_rest(descriptor, part, offset + done, got)
        done += got
        if got < want:
            break
    return done


def _read_once(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, buffers, offset)
    with _seek_lock:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        return FileIO(descriptor, closefd=False).readinto(buffers[0]) or 0


def _read_rest(descriptor: int, buffers: Sequence[Any], offset: int, done: int) -> int:
    skip = done
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        if skip >= len(view):
            skip -= len(view)
            continue
        view, skip = view[skip:], 0
        while len(view):
            got = _read_once(descriptor, [view], offset + done)
            if not got:
                return done
            done += got
            view = view[got:]
    return done


# ---------------------------------------------------------------------------- many reads at once


class Buffers:
    """The destinations of several reads: for each read, rows of arrays, one after another.

    Call `add` until each read has its rows, then `read_many`.
    """

    def __init__(self, reads: int) -> None:
        self._reads = reads
        self._added: list[tuple[Array, list[Part]]] = []
        self._pieces: list[tuple[Array, ...]] = []

    def add(self, reads: Array, parts: list[Part]) -> None:
        """Add reads, by their numbers in ascending order, and the rows that they fill."""
        for values, rows in parts:
            # The kernel gets only the addresses of the rows.
            if not values[0].flags.c_contiguous or not values.flags.writeable:
                raise ValueError("a row to be read into must be contiguous and writable")
            if rows is None:
                fits = len(values) == len(reads)
            else:
                fits = 0 <= int(rows.min()) <= int(rows.max()) < len(values)
            if not fits:
                raise IndexError(
                    f"{len(reads)} reads, but rows {rows} of an array of {len(values)}"
                )
        self._added.append((reads, parts))

    def pieces(self) -> list[tuple[Array, ...]]:
        """The rows themselves, for each read."""
        if not self._pieces:
            found: list[tuple[Array, ...]] = [()] * self._reads
            for reads, parts in self._added:
                columns = [
                    list(values) if rows is None else [values[row] for row in rows.tolist()]
                    for values, rows in parts
                ]
                for read, piece in zip(reads.tolist(), zip(*columns, strict=True), strict=True):
                    found[read] = piece
            self._pieces = found
        return self._pieces

    def table(self, bounds: Array) -> tuple[Array, Array, Array]:
        """Addresses and sizes of all rows as struct iovec; for each piece, its first entry and their number.

        A piece is the reads between two bounds.
        """
        table = np.concatenate([_addresses(len(reads), parts) for reads, parts in self._added])
        counts = np.empty(self._reads, np.int64)
        begins = np.empty(self._reads, np.int64)
        place = 0
        for reads, parts in self._added:
            size = len(parts)
            counts[reads] = size
            begins[reads] = range(place, place + size * len(reads), size)
            place += size * len(reads)
        if len(bounds) - 1 < self._reads:  # the entries of a piece must be adjacent
            firsts = np.cumsum(counts) - counts
            table = table[np.repeat(begins - firsts, counts) + np.arange(len(table))]
            begins, counts = firsts[bounds[:-1]], np.add.reduceat(counts, bounds[:-1])
        return table, begins, counts


def _addresses(count: int, parts: list[Part]) -> Array:
    """Address and size of the rows of each part, read after read: int64 of shape (rows, 2)."""
    block = np.empty((count, len(parts), 2), np.int64)
    every = np.arange(count)
    for number, (values, rows) in enumerate(parts):
        places = (every if rows is None else rows) * values.strides[0]
        places += values.__array_interface__["data"][0]
        block[:, number, 0] = places
        block[:, number, 1] = values.nbytes // len(values)
    return block.reshape(-1, 2)


def read_many(
    descriptors: Sequence[int], offsets: Array, sizes: Array, bounds: Array, buffers: Buffers
) -> Array:
    """Read pieces of files; return for each piece whether it was read completely.

    Piece k is sizes[k] bytes from offsets[k] of an open file, for the rows that `buffers` has for
    the reads from bounds[k] to bounds[k + 1]. A descriptor of -1 means no file.
    """
    whole = np.zeros(len(sizes), bool)
    submitter = _submitter()
    if submitter is not None:
        submitter.read(descriptors, offsets, sizes, bounds, buffers, whole)
        if whole.all():
            return whole
    pieces = buffers.pieces()
    for k in np.flatnonzero(~whole).tolist():
        rows = [row for piece in pieces[bounds[k] : bounds[k + 1]] for row in piece]
        with contextlib.suppress(OSError):  # raised again when the caller reads that piece alone
            whole[k] = read_at(descriptors[k], rows, int(offsets[k]), int(sizes[k])) == sizes[k]
    return whole


# struct iocb and struct io_event of linux/aio_abi.h, on a little-endian machine.
_IOCB = np.dtype(
    [
        ("data", "<u8"),
        ("key", "<u4"),
        ("rw_flags", "<i4"),
        ("opcode", "<u2"),
        ("priority", "<i2"),
        ("descriptor", "<i4"),
        ("buffers", "<u8"),
        ("count", "<u8"),
        ("offset", "<i8"),
        ("reserved", "<u8"),
        ("flags", "<u4"),
        ("event_descriptor", "<u4"),
    ]
)
_EVENT = np.dtype([("data", "<u8"), ("iocb", "<u8"), ("result", "<i8"), ("result2", "<i8")])
_PREADV = 7  # IOCB_CMD_PREADV
# The system call numbers of io_setup, io_submit and io_getevents.
_CALLS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}
_AT_ONCE = 128


class _Submitter:
    """Linux' io_submit. Several threads may use it; each takes a separate context for a call."""

    def __init__(self) -> None:
        self._setup, self._submit, self._events = _CALLS[platform.machine()]
        self._call = ctypes.CDLL(None, use_errno=True).syscall  # releases the GIL
        self._call.restype = ctypes.c_long
        self._call.argtypes = [ctypes.c_long, ctypes.c_ulong] + [ctypes.c_void_p] * 4
        # A context that was not returned because of an exception stays in this list: memory that the
        # kernel may still write to must not be freed.
        self._all: list[_Context] = []
        self._idle: list[_Context] = []
        forks.watch(self)

    def after_fork(self) -> None:
        self._all, self._idle = [], []  # a context belongs to the process that created it

    def read(
        self,
        descriptors: Sequence[int],
        offsets: Array,
        sizes: Array,
        bounds: Array,
        buffers: Buffers,
        whole: Array,
    ) -> None:
        """Set `whole` for pieces that were read; the others have to be read in another way."""
        context = self._taken()
        if context is None:
            return
        table, begins, counts = buffers.table(bounds)
        context.held = buffers, table
        requests, address = context.requests, table.ctypes.data
        for start in range(0, len(sizes), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(sizes))
            some = requests[: stop - start]
            some["descriptor"] = descriptors[start:stop]
            some["buffers"] = address + 16 * begins[start:stop]
            some["count"] = counts[start:stop]
            some["offset"] = offsets[start:stop]
            done = self._carried_out(context, stop - start)
            if done is None:
                return
            which = start + done["data"].astype(np.int64)
            whole[which] = done["result"] == sizes[which]
        context.held = None
        self._idle.append(context)

    def _taken(self) -> _Context | None:
        try:
            return self._idle.pop()
        except IndexError:
            return self._new()

    def _new(self) -> _Context | None:
        context = _Context()
        if self._call(self._setup, _AT_ONCE, ctypes.byref(context.number), None, None, None):
            return None  # the system-wide limit, /proc/sys/fs/aio-max-nr
        self._all.append(context)
        return context

    def _carried_out(self, context: _Context, count: int) -> Array | None:
        """The results of the first requests, as many as the kernel accepted."""
        number = context.number.value
        sent = self._call(self._submit, number, count, context.addresses_at, None, None)
        got = 0
        while got < sent:
            at = context.events_at + got * _EVENT.itemsize
            more = self._call(self._events, number, sent - got, sent - got, at, None)
            if more < 0 and ctypes.get_errno() != errno.EINTR:
                return None
            got += max(more, 0)
        return context.events[: max(sent, 0)]


class _Context:
    """The state with which one thread at a time submits reads."""

    def __init__(self) -> None:
        self.number = ctypes.c_ulong(0)
        self.requests = np.zeros(_AT_ONCE, _IOCB)
        self.requests["data"] = np.arange(_AT_ONCE)
        self.requests["opcode"] = _PREADV
        addresses = self.requests.ctypes.data + np.arange(_AT_ONCE) * _IOCB.itemsize
        self.events = np.zeros(_AT_ONCE, _EVENT)
        self.events_at = self.events.ctypes.data
        self.addresses, self.addresses_at = addresses, addresses.ctypes.data
        # Memory that the kernel reads and writes while requests are in progress.
        self.held: Any = None


@functools.cache
def _submitter() -> _Submitter | None:
    """The submitter; None if io_submit does not exist, is not permitted, or is turned off."""
    wanted = os.environ.get("KLOADERS_IO_SUBMIT", "1")
    if wanted not in ("0", "1"):
        raise ValueError(
            f"KLOADERS_IO_SUBMIT={wanted!r:.80} in the environment, expected 0 (each read is a separate "
            "system call) or 1 (Linux performs the reads of a batch in one call): unset it."
        )
    known = sys.platform == "linux" and platform.machine() in _CALLS and sys.byteorder == "little"
    if wanted == "0" or not known or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        descriptor = os.open(sys.executable or "", os.O_RDONLY)
    except OSError:
        return None
    try:
        want = np.frombuffer(os.pread(descriptor, 256, 0), np.uint8)
        rows = np.zeros((1, len(want)), np.uint8)
        buffers, whole = Buffers(1), np.zeros(1, bool)
        buffers.add(np.arange(1), [(rows, None)])
        submitter = _Submitter()
        submitter.read(
            [descriptor], np.zeros(1, np.int64), np.array([len(want)]), np.arange(2), buffers, whole
        )
        return submitter if whole[0] and (rows[0] == want).all() else None
    finally:
        os.close(descriptor)
