"""Samples that are windows of long series, cut out when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import warn
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import as_sample
from kloaders.plan.rng import Moment
from kloaders.sources import fingerprint
from kloaders.sources.columns import ArrayColumn, Column, labels_of
from kloaders.sources.lazy import LazyColumn
from kloaders.sources.source import Source
from kloaders.sources.spans import Spans

__all__ = ["Cut", "WindowSource"]


@dataclass(frozen=True)
class Cut:
    """The rows and columns of a window that become an array. Rows count from the window's start.

    Attributes:
        first: the first row.
        count: the number of rows.
        step: the distance between rows.
        columns: the columns; a single number drops this axis, None takes all.
        dtype: the dtype; None keeps that of the series.
    """

    first: int
    count: int
    step: int
    columns: int | list[int] | None = None
    dtype: np.dtype[Any] | None = None

    @property
    def length(self) -> int:
        """The number of rows from the start of the window to the last row taken."""
        return self.first + (self.count - 1) * self.step + 1

    def of(self, rows: Array) -> Array:
        """The array of one window, from the window's rows."""
        return self._picked(rows[self.first : self.length : self.step], 1)

    def view(self, series: Array) -> Array:
        """A view with, for each row of a series, the array of the window that begins at that row."""
        span = self.length - self.first
        windows = sliding_window_view(series[self.first :], span, axis=0)
        return np.moveaxis(windows, -1, 1)[:, :: self.step]

    def fill(self, view: Array, firsts: Indices, out: Array, rows: Indices | slice) -> None:
        """Copy the arrays of windows that begin at `firsts` to rows of a batch."""
        chosen = self.columns
        if isinstance(chosen, list) and np.all(np.diff(chosen) == 1):
            out[rows] = view[:, :, chosen[0] : chosen[-1] + 1][firsts]  # copy only these columns
        else:
            out[rows] = self._picked(view[firsts], 2)

    def _picked(self, rows: Array, axis: int) -> Array:
        return rows if self.columns is None else np.take(rows, self.columns, axis)


class WindowSource(Source):
    """Windows of rows of one or several series. No window spans two series, or a gap.

    Args:
        series: a column for each series, whose values are its rows.
        cuts: the arrays of a sample: x, and optionally y.
        stride: the number of rows between the starts of two windows.
        gaps: for each series the rows at which a new stretch begins, ascending.
        labels: y, with one value for each window, if it is not part of the series.

    Raises:
        ValueError: no stretch is as long as a window.
    """

    reads_many = True

    def __init__(
        self,
        series: list[ArrayColumn | LazyColumn],
        cuts: tuple[Cut, ...],
        stride: int,
        gaps: list[Indices],
        labels: Column | None = None,
    ) -> None:
        self.series, self.cuts, self.stride, self.label_column = series, cuts, stride, labels
        self.length = max(cut.length for cut in cuts)
        owners, begins, counts, stretches = [], [], [], []
        for k, (column, breaks) in enumerate(zip(series, gaps, strict=True)):
            ends = [*breaks.tolist(), len(column)]
            for begin, end in zip([0, *breaks.tolist()], ends, strict=True):
                owners.append(k)
                begins.append(begin)
                stretches.append(end - begin)
                counts.append(max(0, (end - begin - self.length) // stride + 1))
        if not sum(counts):
            what = "series" if len(stretches) == len(series) else "stretches between gaps"
            raise ValueError(
                f"a window spans {self.length:,} rows with its horizon, but the longest of "
                f"{len(stretches)} {what} has {max(stretches):,}: lower window or horizon."
            )
        if 0 in counts:
            left = np.array(stretches)[np.array(counts) == 0]
            warn(
                f"{len(left):,} of {len(stretches):,} stretches of series are shorter than a window, "
                f"which spans {self.length:,} rows with its horizon: their {left.sum():,} rows are left "
                "out."
            )
        self._owners = np.array(owners, np.int64)
        self._begins = np.array(begins, np.int64)
        self._before = np.cumsum([0, *counts]).astype(np.int64)
        self._views: dict[int, list[Array]] = {}

    def __len__(self) -> int:
        return int(self._before[-1])

    def places(self, indices: Indices) -> tuple[Indices, Indices]:
        """The series of each of these windows, and its first row in the series."""
        stretch = np.searchsorted(self._before, indices, side="right") - 1
        firsts = self._begins[stretch] + (indices - self._before[stretch]) * self.stride
        return self._owners[stretch], firsts

    def where(self, index: int) -> tuple[int, int]:
        """The series of a window, and its first row in the series."""
        owners, firsts = self.places(np.array([index], np.int64))
        return int(owners[0]), int(firsts[0])

    def spans(self) -> Spans:
        return Spans(*self.places(np.arange(len(self), dtype=np.int64)), self.length)

    # ------------------------------------------------------------------ reading

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        owner, first = self.where(index)
        rows = self._rows(self.series[owner], first, first + self.length)
        parts = [np.array(cut.of(rows), cut.dtype) for cut in self.cuts]
        if self.label_column is not None:
            parts.append(self.label_column.read(index))
        return as_sample(tuple(parts))

    def _rows(self, column: ArrayColumn | LazyColumn, start: int, stop: int) -> Array:
        if isinstance(column, LazyColumn):
            return column.array.rows(start, stop)
        if column.file is not None:
            column.file.check(stop - 1)
        return column.array[start:stop]

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        owners, firsts = self.places(indices)
        outs = out.arrays[: len(self.cuts)]
        for owner in np.unique(owners).tolist():
            column, rows = self.series[owner], np.flatnonzero(owners == owner)
            if isinstance(column, LazyColumn) or not self._is_whole(column):
                self._fill_read(column, indices, firsts, rows, outs, report)
                continue
            some: Any = slice(None) if len(rows) == len(indices) else rows
            for cut, view, array in zip(self.cuts, self._views_of(owner), outs, strict=True):
                cut.fill(view, firsts[some], array, some)
        if self.label_column is not None:
            self.label_column.fill(indices, out.arrays[-1], len(self.cuts), report)

    def _is_whole(self, column: ArrayColumn) -> bool:
        try:
            if column.file is not None:
                column.file.check()
        except Exception:  # the rows at fault are found one by one, and reported
            return False
        return True

    def _views_of(self, owner: int) -> list[Array]:
        found = self._views.get(owner)
        if found is None:
            column = self.series[owner]
            assert isinstance(column, ArrayColumn)
            found = self._views[owner] = [cut.view(column.array) for cut in self.cuts]
        return found

    def _fill_read(
        self,
        column: ArrayColumn | LazyColumn,
        indices: Indices,
        firsts: Indices,
        rows: Indices,
        outs: list[Array],
        report: Report,
    ) -> None:
        """Fill rows of a batch with windows of one series; overlapping windows are read at once."""
        order = rows[np.argsort(firsts[rows], kind="stable")]
        apart = np.flatnonzero(np.diff(firsts[order]) >= self.length) + 1
        for some in np.split(order, apart):
            begin, end = int(firsts[some[0]]), int(firsts[some[-1]]) + self.length
            stall_watch.at(self, int(indices[some[0]]))
            try:
                block = self._rows(column, begin, end)
            except (
                Exception
            ):  # an error of the library: read one window at a time to find the bad ones
                block = None
            for row in some.tolist():
                first = int(firsts[row])
                try:
                    if block is None:
                        mine = self._rows(column, first, first + self.length)
                    else:
                        mine = block[first - begin : first - begin + self.length]
                except Exception as error:
                    report(row, error)
                    continue
                for cut, array in zip(self.cuts, outs, strict=True):
                    array[row] = cut.of(mine)

    # ------------------------------------------------------------------ properties

    def name(self, index: int) -> str:
        owner, first = self.where(index)
        column = self.series[owner]
        said = f"rows {first} to {first + self.length - 1}"
        if isinstance(column, LazyColumn):
            place = column.array.place
        else:
            place = "" if column.file is None else column.file.path
        if len(self.series) > 1:
            said += f" of series {owner}"
        return f"{said} of {place}" if place else said

    def fingerprint(self) -> dict[str, str]:
        cuts = "; ".join(f"{c.first}+{c.count}x{c.step} of {c.columns}" for c in self.cuts)
        windows = f"{len(self)} windows, every {self.stride}: {cuts}"
        found = {"data": fingerprint.of_columns(tuple(self.series)), "windows": windows}
        if self.label_column is not None:
            found["labels"] = fingerprint.of_columns(self.label_column)
        return found

    def labels(self) -> Array | None:
        return None if self.label_column is None else labels_of((None, self.label_column))

    def close(self) -> None:
        for column in self.series:
            if isinstance(column, LazyColumn):
                column.close()

    def __getstate__(self) -> dict[str, Any]:
        # Pickling views would copy every window.
        return {**self.__dict__, "_views": {}}
