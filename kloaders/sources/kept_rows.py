"""Rows of encoded values, without those on an exclude list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import inform
from kloaders.sources.encoded import Block, EncodedSource
from kloaders.sources.quarantine import excluded, say_left_out, whole_name
from kloaders.sources.weights import taken, weights_of

__all__ = ["KeptRows", "files_kept", "without"]


class KeptRows(EncodedSource):
    """Some samples of another source of rows.

    Args:
        rows: the other source.
        kept: the numbers of the samples to keep, in ascending order.
    """

    def __init__(self, rows: EncodedSource, kept: Indices) -> None:
        super().__init__(rows.fields)
        self.rows, self.kept = rows, kept
        self.opener, self.neighbours = rows.opener, rows.neighbours

    def __len__(self) -> int:
        return len(self.kept)

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        return self.rows.blocks(self.kept[indices])

    def ranges(self, indices: Indices) -> Iterable[tuple[str, int, int]]:
        return self.rows.ranges(self.kept[indices])

    def name(self, index: int) -> str:
        return self.rows.name(int(self.kept[index]))

    def names_of(self, index: int) -> tuple[str, ...]:
        return self.rows.names_of(int(self.kept[index]))

    def file_of(self, index: int) -> str:
        return self.rows.file_of(int(self.kept[index]))

    @property
    def paths_of_all(self) -> list[str]:
        return self.rows.paths_of_all

    @property
    def file_firsts(self) -> Indices:
        return np.searchsorted(self.kept, self.rows.file_firsts)

    @property
    def token(self) -> str | None:
        return self.rows.token

    @property
    def kind(self) -> str:
        return self.rows.kind

    def labels(self) -> Array | None:
        found = self.rows.labels()
        return None if found is None else found[self.kept]

    def extent(self) -> Iterable[Array]:
        return [*self.rows.extent(), self.kept]

    def close(self) -> None:
        self.rows.close()


def files_kept(files: list[str], exclude: Any, quarantine: Any) -> list[str]:
    """The files that are not on the exclude list, since a file on it may be too damaged to open.

    Raises:
        ValueError: no file is left.
    """
    names = excluded(exclude, quarantine)
    kept = [path for path in files if whole_name(path) not in names] if names else files
    if len(kept) < len(files):
        if not kept:
            raise ValueError(
                f"exclude= leaves out all {len(files):,} files, so that none is left to load: check "
                "its content, or leave exclude= out."
            )
        inform(f"exclude: {len(files) - len(kept):,} of {len(files):,} files are left out.")
    return kept


def without(rows: EncodedSource, names: set[str], options: Any) -> EncodedSource:
    """The rows whose name (`whole_name`) is not in `names`; `options` holds their weights.

    The name of a row group excludes all its rows.

    Raises:
        ValueError: no row is left.
    """
    keep = np.ones(len(rows), bool)
    firsts = rows.file_firsts.tolist()
    for path, first, end in zip(rows.paths_of_all, firsts, firsts[1:], strict=False):
        whole = whole_name(path)
        # Checking each sample takes a second per million, and most files are not listed at all.
        if any(name.startswith(f"{whole}, ") for name in names):
            for index in range(first, end):
                keep[index] = not any(whole_name(n) in names for n in rows.names_of(index))
    count = len(keep) - int(keep.sum())
    say_left_out(count, len(rows), names)
    if count == len(rows):
        raise ValueError(
            f"exclude= leaves out all {len(rows):,} samples, so that none is left to load: check "
            "its content, or leave exclude= out."
        )
    kept = np.flatnonzero(keep)
    weights = weights_of(options.get("sample_weights"), len(rows))
    options["sample_weights"] = taken(weights, kept if count else None)
    return KeptRows(rows, kept) if count else rows
