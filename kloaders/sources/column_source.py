"""Samples whose arrays come from columns: arrays, lists, files, or functions of a path."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import no_samples
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import ArraySpec, Structure, flatten, map_structure, names_of
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import stores_in
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import (
    CallColumn,
    PathColumn,
    close_column,
    fetch_ahead,
    fetches,
    labels_of,
    lengths_of,
    prefetch,
    spec_of_all,
)
from kloaders.sources.source import Source

__all__ = ["ColumnSource", "checked_columns"]


class ColumnSource(Source):
    """Samples that are composed of one value from each column.

    Args:
        columns: (x,) or (x, y): a column for each array, nested like the arrays of a sample.
        paths: the file of each sample, if it has one.
    """

    reads_many = True

    def __init__(self, columns: tuple[Any, ...], paths: Any = None) -> None:
        self.columns: tuple[Any, ...] = columns
        self._leaves: list[Any] = flatten(columns)
        self.paths = paths
        self.runs_user_code = any(runs_user_code(column) for column in self._leaves)
        self.fetches = any(fetches(column) for column in self._leaves)

    def __len__(self) -> int:
        return len(self._leaves[0])

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        parts: tuple[Any, ...] = map_structure(lambda column: column.read(index), self.columns)
        return parts

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        for leaf, column in enumerate(self._leaves):
            column.fill(indices, out.arrays[leaf], leaf, report)

    def prefetch(self, indices: Indices) -> None:
        for column in self._leaves:
            prefetch(column, indices)

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        return [claim for column in self._leaves for claim in fetch_ahead(column, indices)]

    def name(self, index: int) -> str:
        found: str = self._leaves[0].name(index)
        return found

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        if dtype_differs:
            return "Pass dtype=, or convert the arrays to one dtype."
        return "Pad them with kl.padded_batches(loader), or use batch_size=1."

    def fingerprint(self) -> dict[str, str]:
        return fingerprint.of_parts(self.columns)

    def labels(self) -> Array | None:
        return labels_of(self.columns)

    def lengths(self) -> Array | None:
        if self.runs_user_code:
            return None
        for column in flatten(self.columns[0]):
            found = lengths_of(column)
            if found is not None:
                return found
        return None

    def delivered(self, spec: Structure) -> Structure:
        if self.runs_user_code:
            return spec
        found: Structure = map_structure(_spec, self.columns, spec)
        return found

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        if len(self.columns) < 2:
            return None
        labels = map_structure(change, self.columns[1])
        return self.with_columns((self.columns[0], labels, *self.columns[2:]))

    def with_columns(self, columns: tuple[Any, ...]) -> Source:
        """The same samples with other columns, nested in the same way."""
        found: Source = self._with(columns=columns, _leaves=flatten(columns))
        return found

    def stores(self) -> list[Store]:
        return stores_in(self.columns)

    def close(self) -> None:
        for column in self._leaves:
            close_column(column)


def _spec(column: Any, spec: ArraySpec) -> ArraySpec:
    return spec_of_all(column, spec)


def runs_user_code(column: Any) -> bool:
    """Whether reading a column calls a user's function."""
    while column is not None:
        if isinstance(column, CallColumn):
            return False  # a cheap function of the path, already known for all samples
        if isinstance(column, PathColumn):
            return getattr(column.read_path, "decode", None) is not None
        column = getattr(column, "column", None)
    return False


def _check_lists(parts: list[tuple[Any, str]], lengths: dict[str, int]) -> None:
    """Raise ValueError for a list of equally long arrays that may be several inputs or outputs.

    To Keras users `[x1, x2]` means two inputs; here a list holds one array per sample. The lengths of
    the other parts usually show which is meant. If they do not, a list with fewer arrays than each
    array has rows is ambiguous.
    """
    leaves = [
        (part, name, column)
        for part, called in parts
        if part is not None
        for name, column in zip(names_of(part, called), flatten(part), strict=True)
    ]
    rows = {name: _rows_of(column) for _, name, column in leaves}
    others = {lengths[name] for name, each in rows.items() if each is None}
    for part, name, column in leaves:
        each, count = rows[name], len(column)
        if each is None or count < 2 or isinstance(part, (tuple, dict)):
            continue
        unclear = not others and count < each
        if not unclear and (count in others or each not in others):
            continue
        several = "inputs" if part is parts[0][0] else "outputs"
        raise ValueError(
            f"{name} is a list of {count} arrays with {each:,} rows each, which may be {count} {several} "
            f"or {count} samples: for {several} pass a tuple, tuple({name}), or a dict with names; for "
            f"samples pass one array, np.stack({name})."
        )


def _rows_of(column: Any) -> int | None:
    """The number of rows of each array in a list, if it is the same for all; None for other columns."""
    found = lengths_of(column)
    return int(found[0]) if found is not None and len(set(found.tolist())) == 1 else None


def checked_columns(
    owner: str, x: Structure, y: Structure | None, names: tuple[str, str]
) -> tuple[Any, ...]:
    """Check that the columns of both parts have the same length.

    Args:
        owner: the class that owns them, for error messages.
        x: columns, nested.
        y: columns, nested; None for no labels.
        names: the argument names of x and y.

    Raises:
        ValueError: lengths differ, or there are no samples.
    """
    lengths: dict[str, int] = {}
    for part, name in ((x, names[0]), (y, names[1])):
        if part is None:
            continue
        leaves = names_of(part, name)
        if not leaves:
            raise ValueError(
                f"{name} is an empty {type(part).__name__}, expected at least one array or list."
            )
        lengths |= dict(zip(leaves, map(len, flatten(part)), strict=True))
    _check_lists([*zip((x, y), names, strict=True)], lengths)
    samples = next(iter(lengths.values()))
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in itertools.islice(lengths.items(), 4))
        many = len(lengths) > 4
        raise ValueError(
            f"lengths differ: {said}{f' and so on, {len(lengths)} in all' if many else ''}. Every "
            "sample needs one value in each. A tuple means several inputs or outputs: if yours "
            "has one row per sample, pass list(...) of it."
        )
    if samples == 0:
        raise ValueError(no_samples(owner, f"print len({names[0]}), or the pattern that found it"))
    return (x,) if y is None else (x, y)
