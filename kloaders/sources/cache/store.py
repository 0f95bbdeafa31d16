"""The interface of a store of decoded samples: arrays by sample number. Nothing is stored here.

A stored array is valid while the stamp of its files is unchanged. After a file changes, the array
is read again CHECK_SECONDS later at the latest.
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
# The state of files, to detect changes; None if it cannot be determined.
Stamp = bytes | None
# The stamp of a sample without files.
NO_FILES = bytes(STAMP_BYTES)

# Before a stored array is served, its files are checked, unless that was done this recently.
CHECK_SECONDS = 2.0


def stamp_of(*paths: str) -> Stamp:
    """A short digest of files' sizes, modification and change times, and inodes.

    Tools that copy files set the modification time (rsync -t, tar), and it may be the same for all files
    of a data set. No tool sets the change time, and another file has another inode. Both are unchanged
    when a parent folder is renamed, but differ for a copy of the file.
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
    """Arrays by sample number. Several threads may call all methods at once."""

    def serve(self, indices: Indices, out: Array, stamp: Callable[[int], Stamp]) -> Indices:
        """Copy the array of sample indices[r] to row r of `out`; return the rows that are not stored."""

    def get(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """A new copy of one sample's array, or None if it is not stored."""

    def other(self, index: int, stamp: Callable[[int], Stamp]) -> Array | None:
        """Like `get`, for an array that `serve` cannot return: it differs from rows in shape or dtype."""

    def missing(self, indices: Indices, stamp: Callable[[int], Stamp]) -> Indices:
        """The samples that are not stored, as far as this is known without reading."""

    def put(self, index: int, stamp: Stamp, array: Array) -> None:
        """Store an array if there is room. `stamp` was taken before its file was read."""

    def use(self, loader: Any) -> None:
        """A loader begins to use the store."""

    def release(self, loader: Any) -> None:
        """A loader no longer uses the store. After the last one, memory and files are released."""

    def expected_share(self, sample_bytes: int, free_bytes: int) -> float:
        """The expected share of samples that are stored after all were read once.

        Args:
            sample_bytes: bytes per stored sample.
            free_bytes: bytes of free RAM.
        """

    def look_again(self) -> None:
        """Check every stored array again before it is served, even if it was checked recently."""

    #: The functions that make the arrays; None if no user function does.
    made_by: MadeBy | None
    #: While this is above 0, nothing new is stored.
    paused: int
    #: While this is above 0, nothing is stored or served, as if there were no cache.
    bypassed: int
    #: The number of arrays that this process got from the store, and that it asked for.
    counts: tuple[int, int]

    def __str__(self) -> str:
        """A description of the content."""


class MadeBy:
    """The functions that make the stored samples. Detects when a variable that they read is reassigned.

    Before the first change, `stamp` returns the stamp of the files alone, so that samples from earlier
    runs are found. After a change it differs, so that outdated samples are not found.

    Args:
        state: returns what the functions read now; compared with its previous result.
        key: computes a key for the functions, which a folder cache stores.

    Attributes:
        first: the key at the beginning.
        changes: how often the functions have changed.
    """

    def __init__(self, state: Callable[[], Any], key: Callable[[], str]) -> None:
        self._state: Callable[[], Any] | None = state
        self._key = key
        self._before, self.first = state(), key()
        self._part = b""
        self.changes = 0

    def changed(self) -> bool:
        """Whether the functions have changed since the last call."""
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
        """The state for a worker process, in which the functions do not change."""
        kept = {name: vars(self)[name] for name in ("first", "_part", "changes")}
        return {**kept, "_state": None}

    def stamp(self, of_files: Stamp) -> Stamp:
        """Combine a stamp of files with the current state of the functions."""
        if of_files is None or not self._part:
            return of_files
        return hashlib.blake2b(of_files + self._part, digest_size=STAMP_BYTES).digest()


def renew(stores: list[Store]) -> bool:
    """At the start of a pass, stop serving samples that changed functions made.

    Returns:
        Whether any function has changed.
    """
    changed = {made_by for store in stores if (made_by := store.made_by) and made_by.changed()}
    for store in stores:
        if store.made_by in changed:
            store.look_again()
    return bool(changed)


def check_kept(dtype: np.dtype[Any]) -> None:
    """Raise TypeError for texts, which are not cached."""
    if is_text(dtype):
        raise TypeError(
            "cache= stores arrays of numbers, but this is a text: leave cache= out, use preload(loader), "
            "or let preprocess= turn texts into numbers."
        )


class SharedStore:
    """A store that several views of a loader share. It is cleared when the last one is closed."""

    # When each sample or row was last checked, as time.monotonic().
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
