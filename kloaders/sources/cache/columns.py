"""Caches in front of a reader, so that later epochs need not read and decode again.

`CachedColumn` caches a column of files, and `HookCache` the samples of a loader's own hook. Both
store arrays in a `RamCache` or a `FolderCache`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, RowMismatch, copy_into_row
from kloaders.core.structure import Structure, flatten, map_structure, same_structure, unflatten
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.folder import FolderCache
from kloaders.sources.cache.ram import Budget, RamCache
from kloaders.sources.cache.store import MadeBy, Stamp, Store, stamp_of
from kloaders.sources.columns import PathColumn

__all__ = [
    "CachedColumn",
    "HookCache",
    "Place",
    "bypassed",
    "leaf_store",
    "paused",
    "store_at",
    "stores_in",
]


class CachedColumn:
    """A column of files whose arrays are cached in a store."""

    def __init__(self, column: PathColumn, store: Store) -> None:
        self.column = column
        self.store = store

    def __len__(self) -> int:
        return len(self.column)

    def _stamp(self, index: int) -> Stamp:
        return _stamp_in(self.store, self._stamp_of_file(index))

    def _stamp_of_file(self, index: int) -> Stamp:
        return stamp_of(self.column.paths[index])

    def read(self, index: int) -> Array:
        kept = self.store.get(index, self._stamp)
        if kept is None:
            stamp, changes = self._stamp(index), _changes(self.store)
            kept = self.column.read(index)
            if changes == _changes(self.store):
                self.store.put(index, stamp, kept)
        return kept

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        def read(wanted: Indices, rows: list[Array], report: Report) -> None:
            self.column.fill(wanted, rows[0], leaf, report)

        _fill([self.store], self._stamp, indices, [out], report, read, [leaf])

    def name(self, index: int) -> str:
        return self.column.name(index)


# A function that reads samples into rows of arrays; same arguments as a loader's `_fill_stored`.
Read = Callable[[Indices, list[Array], Report], None]


def _fill(
    stores: list[Store],
    stamp: Callable[[int], Stamp],
    indices: Indices,
    out: list[Array],
    report: Report,
    read: Read,
    leaves: Sequence[int],
) -> None:
    """Fill row r of the arrays `out` with sample indices[r]: from the cache, or with `read`.

    Samples that `read` loads are cached. Arrays whose shape or dtype differs from the row's are reported.

    leaves: the positions in a sample of the arrays `out`.
    """
    served = [store.serve(indices, leaf, stamp) for store, leaf in zip(stores, out, strict=True)]
    missing = functools.reduce(np.union1d, served)
    if len(missing):
        missing = _others(stores, stamp, indices, served, missing, out, report, leaves)
    if not len(missing):
        return
    some = len(missing) < len(indices)
    wanted = indices[missing]
    rows = [np.empty((len(missing), *a.shape[1:]), a.dtype) for a in out] if some else out
    stamps, changes = [stamp(index) for index in wanted.tolist()], _changes(stores[0])
    failed = set()
    others: dict[tuple[int, int], Array] = {}

    def noted(row: int, error: Exception) -> None:
        if isinstance(error, RowMismatch):
            others[error.leaf, row] = error.array
            error.row = int(missing[row])
        else:
            failed.add(row)
        report(int(missing[row]), error)

    read(wanted, rows, noted)
    for store, lacked, leaf, made, k in zip(stores, served, out, rows, leaves, strict=True):
        if some:
            leaf[missing] = made
        if changes != _changes(store):
            continue
        for row in np.flatnonzero(np.isin(missing, lacked)).tolist():
            if row not in failed:
                store.put(int(wanted[row]), stamps[row], others.get((k, row), made[row]))


def _others(
    stores: list[Store],
    stamp: Callable[[int], Stamp],
    indices: Indices,
    served: list[Indices],
    missing: Indices,
    out: list[Array],
    report: Report,
    leaves: Sequence[int],
) -> Indices:
    """Fill rows that the stores keep outside their row arrays; return those still missing.

    Such an array may fit its row after all, if the row array had no room for it. It is copied if it
    fits, and reported otherwise.
    """
    left = []
    for row in missing.tolist():
        index, found = int(indices[row]), []
        for store, lacked, leaf, rows in zip(stores, served, leaves, out, strict=True):
            if row in lacked:
                found.append((leaf, rows, store.other(index, stamp)))
        if any(array is None for _, _, array in found):
            left.append(row)
            continue
        for leaf, rows, array in found:
            assert array is not None
            copy_into_row(array, rows, row, leaf, report)
    return np.array(left, np.int64)


def _stamp_in(store: Store, of_files: Stamp) -> Stamp:
    """The stamp for a sample made now: that of its files, combined with that of its functions."""
    return of_files if store.made_by is None else store.made_by.stamp(of_files)


def _changes(store: Store) -> int:
    """How often the functions changed. A result whose reading began before a change is not stored."""
    return 0 if store.made_by is None else store.made_by.changes


class HookCache:
    """A cache for the whole samples that a hook returns: one store for each array of a sample.

    Args:
        make: `make(key, k, beside)` creates the store of array k; `beside` is the size in bytes of the
            arrays after it.
        files: the files that samples are read from.
        key: a key for everything else that determines a sample; None: set it before the first sample.
    """

    def __init__(
        self, make: Callable[[str, int, int], Store], files: SampleFiles, key: str | None = None
    ) -> None:
        self.make = make
        self.files = files
        self.key = key
        self.made_by: MadeBy | None = None
        self.stores: list[Store] = []
        self._form: Structure = None
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("make", "files", "key", "made_by")
        return {name: vars(self)[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made_by = state.pop("made_by")
        HookCache.__init__(self, **state)
        self.made_by = made_by

    def remember(self, index: int, load: Callable[[], Structure]) -> Structure:
        """Return sample `index` from the cache; if it is not cached, call `load` and cache the result."""
        arrays = [store.get(index, self.stamp) for store in self.stores]
        if arrays and all(array is not None for array in arrays):
            return unflatten(self._form, arrays)
        stamp, changes = self.stamp(index), 0 if self.made_by is None else self.made_by.changes
        sample = load()
        self._begin(sample, [array.nbytes for array in flatten(sample)])
        if same_structure(sample, self._form) and changes == _changes(self.stores[0]):
            kept = arrays or [None] * len(self.stores)
            for store, array, old in zip(self.stores, flatten(sample), kept, strict=True):
                if old is None:
                    store.put(index, stamp, array)
        return sample

    def fill(
        self, form: Structure, indices: Indices, out: list[Array], report: Report, read: Read
    ) -> None:
        """Fill row r of the arrays `out`, of samples with this form, with sample indices[r].

        Samples that are not cached come from `read`, and are cached.
        """
        self._begin(form, [array[:1].nbytes for array in out])
        _fill(self.stores, self.stamp, indices, out, report, read, range(len(out)))

    def stamp(self, index: int) -> Stamp:
        """The stamp that decides whether a cached sample is still valid."""
        found = self.files.stamp(index)
        return found if self.made_by is None else self.made_by.stamp(found)

    def _begin(self, form: Structure, sizes: list[int]) -> None:
        """Create the stores for samples whose arrays have these sizes in bytes."""
        with self._lock:
            if not self.stores:
                key = self.key
                assert key is not None
                self._form = map_structure(lambda _: None, form)
                made = [self.make(key, k, sum(sizes[k + 1 :])) for k in range(len(sizes))]
                for store in made:
                    store.made_by = self.made_by
                self.stores = made


# Where a cache is: a RAM budget, or a folder and its maximum size in bytes.
Place = Budget | tuple[str, "int | None"]


def store_at(place: Place, key: str, samples: int, names: Any, beside: int = 0) -> Store:
    """A store for this many samples; for `key` and `names` see `FolderCache`, for `beside` `RamCache`."""
    if isinstance(place, Budget):
        return RamCache(samples, place, beside)
    folder, budget = place
    return FolderCache(folder, key, samples, names, budget)


def leaf_store(place: Place, samples: int, names: Any, key: str, leaf: int, beside: int) -> Store:
    """The store of array `leaf`, for `HookCache`."""
    return store_at(place, f"{key}-{leaf}", samples, names, beside)


def stores_in(columns: Structure) -> list[Store]:
    """The stores of columns, and of the columns inside them."""
    found = []
    for column in flatten(columns):
        inner = column
        while inner is not None:
            if isinstance(inner, CachedColumn):
                found.append(inner.store)
            inner = getattr(inner, "column", None)
    return found


@contextmanager
def paused(stores: list[Store]) -> Iterator[None]:
    """A context in which nothing new is cached."""
    with _pausing:
        for store in stores:
            store.paused += 1
    try:
        yield
    finally:
        with _pausing:
            for store in stores:
                store.paused -= 1


@contextmanager
def bypassed(stores: list[Store]) -> Iterator[None]:
    """A context in which everything is read as if there were no cache. Cached samples are kept."""
    with _pausing:
        for store in stores:
            store.bypassed += 1
    try:
        yield
    finally:
        with _pausing:
            for store in stores:
                store.bypassed -= 1


_pausing = threading.Lock()
