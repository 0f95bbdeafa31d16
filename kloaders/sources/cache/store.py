"""The interface of a store of decoded samples: arrays by sample number. Nothing is stored here.

What is kept is known by the stamp of its files: a file that changed is read again, at the latest
CHECK_SECONDS later.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import is_text

__all__ = [
    "CHECK_SECONDS",
    "NO_FILES",
    "STAMP_BYTES",
    "MadeBy",
    "SharedStore",
    "Stamp",
    "Store",
    "check_kept",
    "renew",
    "stamp_of",
]


STAMP_BYTES = 16
# The state of files, to detect changes; None if one cannot be checked.
Stamp = bytes | None
# For a sample without files.
NO_FILES = bytes(STAMP_BYTES)

# A stored file is checked again before it is served, unless that was done this many seconds ago.
CHECK_SECONDS = 2.0


def stamp_of(*paths: str) -> Stamp:
    """Size, times of modification and change, and inode of files, in a few bytes.

    Tools that copy files set the time of modification (rsync -t, tar), and it may be the same for all
    files of a data set. The time of change no tool sets, and another file has another inode. Both
    stay when a folder above is renamed; a copy of the file has others.
    """
    facts = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            return None
        facts += [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return hashlib.blake2b(repr(facts).encode(), digest_size=STAMP_BYTES).digest()


class Store(Protocol):
    """Arrays by sample number. All methods may be called from several threads at once."""

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        """Row r of `out` becomes the array of sample indices[r]; the rows that are not here."""

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """A fresh copy of one sample's array, if it is here."""

    def other(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """The same for what `serve` could not give, since its rows have another shape or dtype."""

    def missing(self, indices: Indices, stamp: Callable[[int], Stamp]) -> Indices:
        """The samples that are not stored, as far as is known without reading any."""

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        """Keep an array, if there is room. `stamp` was taken before its file was read."""

    def use(self, loader: Any) -> None:
        """A loader begins to read through it."""

    def release(self, loader: Any) -> None:
        """A loader does so no longer: memory and files go with the last one. Folders stay."""

    def expected_share(self, sample_bytes: int, free_bytes: int) -> float:
        """The expected share of stored samples after all were read.

        Args:
            sample_bytes: bytes per stored sample.
            free_bytes: RAM that is free.
        """

    def look_again(self) -> None:
        """Check all stored samples again, whenever they were last checked."""

    #: What makes the arrays; None where no user's function does.
    made_by: MadeBy | None
    #: While more than 0, nothing new is kept.
    paused: int
    #: While more than 0, nothing is served either: as if there were no cache.
    bypassed: int
    #: Arrays served, and asked for, by this process.
    counts: tuple[int, int]

    def __str__(self) -> str:
        """The content, in words."""


class MadeBy:
    """The functions that make the stored samples, and whether something that they read was reassigned.

    Its part of a stamp is empty until then: arrays of before are found, and none of after.

    Args:
        state: what the functions read now; compared with what it gave before.
        key: a text for what they make, as a folder has it.

    Attributes:
        first: the key when this was made.
        changes: how often they began to make others.
    """

    def __init__(self, state: Callable[[], Any], key: Callable[[], str]) -> None:
        self._state: Callable[[], Any] | None = state
        self._key = key
        self._before, self.first = state(), key()
        self._part = b""
        self.changes = 0

    def changed(self) -> bool:
        """Whether they make others now than when this was last asked."""
        if self._state is None:
            return False
        before, self._before = self._before, self._state()
        if self._before == before:
            return False
        now, part = self._key(), self._part
        self._part = b"" if now == self.first else now.encode()
        self.changes += part != self._part
        return part != self._part

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, whose functions stay as they are."""
        kept = {name: vars(self)[name] for name in ("first", "_part", "changes")}
        return {**kept, "_state": None}

    def stamp(self, of_files: Stamp) -> Stamp:
        """The stamp of files, for samples made now."""
        if of_files is None or not self._part:
            return of_files
        return hashlib.blake2b(of_files + self._part, digest_size=STAMP_BYTES).digest()


def renew(stores: list[Store]) -> bool:
    """A pass begins: what functions made that read something else now is not served any more.

    -> whether there is such.
    """
    changed = {made_by for store in stores if (made_by := store.made_by) and made_by.changed()}
    for store in stores:
        if store.made_by in changed:
            store.look_again()
    return bool(changed)


def check_kept(dtype: np.dtype[Any]) -> None:
    """TypeError for texts."""
    if is_text(dtype):
        raise TypeError(
            "cache= keeps arrays of numbers, and this is a text: leave cache out, preload(loader), or "
            "let preprocess= make numbers of the texts."
        )


class SharedStore:
    """Shared by several views of a loader: cleared when the last one is closed."""

    # By sample or slot, by time.monotonic().
    _looked_at: Array = np.zeros(0)

    def __init__(self) -> None:
        self.made_by: MadeBy | None = None
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self.paused = self.bypassed = 0
        self.counts = (0, 0)
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock, self._count_lock = threading.Lock(), threading.Lock()

    def _note(self, hits: int, asked: int) -> None:
        with self._count_lock:
            self.counts = self.counts[0] + hits, self.counts[1] + asked

    def use(self, loader: Any) -> None:
        self._users.add(loader)

    def release(self, loader: Any) -> None:
        self._users.discard(loader)
        if not self._users:
            self.clear()

    def look_again(self) -> None:
        self._looked_at[:] = -CHECK_SECONDS - 1

    def clear(self) -> None:
        raise NotImplementedError
