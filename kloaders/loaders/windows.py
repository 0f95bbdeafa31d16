"""A loader of windows of long series: past values as inputs, future values as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import check_names, checked_count, checked_dtype
from kloaders.core.options import Options, shows_options
from kloaders.loaders.sequence import SequenceLoader
from kloaders.sources.columns import ArrayColumn, CastColumn
from kloaders.sources.given_columns import columns_of
from kloaders.sources.hooks import default_hook
from kloaders.sources.lazy import LazyColumn
from kloaders.sources.tables import listed
from kloaders.sources.windows import Cut, WindowSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["WindowSequenceLoader", "series_of"]


class WindowSequenceLoader(SequenceLoader):
    """Batches of windows of long time series, cut out when they are needed.

    A sample is `window` rows of a series as x, of shape (window, columns), and the next `horizon`
    rows as y, (horizon, targets). Overlapping windows are not copied: only the series itself is in
    memory, mapped, or read from its file. Worker processes and pickles also get the series.

    `split(loader, order="time")` splits in time, so that no window of the validation part shares
    a row with one of the training part.

    Args:
        series: an array with one row for each time step: (steps,), (steps, columns) or more axes;
            also a `np.memmap`, an h5py dataset, a zarr array or a pandas table. A list of arrays
            is several series; no window spans two of them.
        batch_size: samples per batch.
        window: rows in x.
        horizon: rows in y; None: no labels.
        lead: the number of rows between x and y.
        stride: the number of rows between the starts of two windows. Rows at the end that do not
            fill a window are left out.
        step: take every step-th row, for both x and y.
        inputs: the columns of x, by number, or by name for a table; a list of these, or a single
            one, which drops the axis. None: all.
        targets: the columns of y, in the same form. None: all.
        gaps: rows at which a new stretch begins, such as after hours without data: no window spans
            them. For several series, a list of such lists.
        **options: see `SequenceLoader`.

    Raises:
        ValueError: no series is as long as a window; series differ in columns or dtype.
        IndexError: a column or a row does not exist.

    >>> series = np.arange(10)
    >>> x, y = WindowSequenceLoader(series, 4, window=3, horizon=2, stride=2)[0]
    >>> x[1], y[1]
    (array([2, 3, 4]), array([5, 6]))
    """

    @shows_options(Options)
    def __init__(
        self,
        series: Any,
        batch_size: int = 32,
        *,
        window: int,
        horizon: int | None = None,
        lead: int = 0,
        stride: int = 1,
        step: int = 1,
        inputs: Any = None,
        targets: Any = None,
        gaps: Any = None,
        **options: Unpack[Options],
    ) -> None:
        known = (*Options.__annotations__, *(WindowSequenceLoader.__init__.__kwdefaults__ or {}))
        check_names(type(self).__name__, options, known)
        self.window = checked_count(window, "window", 1)
        self.horizon = None if horizon is None else checked_count(horizon, "horizon", 1)
        self.lead, self.step = checked_count(lead, "lead", 0), checked_count(step, "step", 1)
        self.stride = checked_count(stride, "stride", 1)
        for name, value in (("targets", targets), ("lead", lead or None)):
            if value is not None and horizon is None:
                raise ValueError(
                    f"{name}={value!r:.80} is for y, but without horizon= there is none: pass "
                    "horizon=1 for the row after each window."
                )
        columns, names = series_of(series)
        width = _shape(columns[0])
        dtype = checked_dtype(options.get("dtype"))
        cuts = [Cut(0, self.window, self.step, _columns(inputs, "inputs", width, names), dtype)]
        if self.horizon is not None:
            first = (self.window + self.lead) * self.step
            chosen = _columns(targets, "targets", width, names)
            cuts.append(Cut(first, self.horizon, self.step, chosen))
        breaks = _gaps(gaps, columns, isinstance(series, list) and len(columns) > 1)
        self._windows = WindowSource(columns, tuple(cuts), self.stride, breaks)
        self._begin(self._windows, batch_size, options)

    def where(self, index: int) -> tuple[int, int]:
        """The number of a window's series, and the window's first row in that series."""
        return self._windows.where(index)

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One window, x or (x, y). Override it to change the sample."""
        return self._windows.read(index)


def series_of(series: Any) -> tuple[list[ArrayColumn | LazyColumn], list[str] | None]:
    """A column for each series, and the column names, if it is a table.

    Raises:
        TypeError, ValueError: these are not series, or they differ in columns or dtype.
    """
    if isinstance(series, (tuple, dict)):
        raise TypeError(
            f"series is a {type(series).__name__}, which elsewhere means several inputs: pass a list "
            "of arrays for several series, and np.column_stack(...) for several columns of one."
        )
    several = isinstance(series, list) and bool(series) and np.ndim(series[0]) > 0
    several = several and not isinstance(series[0], (list, tuple))
    given = series if several else [series]
    found: list[ArrayColumn | LazyColumn] = []
    for k, one in enumerate(given):
        column = columns_of(one, "series")
        if isinstance(column, CastColumn):  # its array has another byte order, which batches lack
            column = column.column
        if not isinstance(column, (ArrayColumn, LazyColumn)):
            raise TypeError(
                f"series[{k}] is a {type(one).__name__}, expected an array with one row per step."
            )
        if found and _form(column) != _form(found[0]):
            raise ValueError(
                f"series 0 has rows of {_said(found[0])}, but series {k} has rows of {_said(column)}: one "
                "batch contains windows of all, so give them the same shape and dtype."
            )
        found.append(column)
    names = getattr(given[0], "columns", None)
    return found, None if names is None else [str(name) for name in names]


def _shape(column: ArrayColumn | LazyColumn) -> tuple[int, ...]:
    return column.array.shape


def _form(column: ArrayColumn | LazyColumn) -> tuple[Any, ...]:
    return _shape(column)[1:], column.array.dtype


def _said(column: ArrayColumn | LazyColumn) -> str:
    return f"{column.array.dtype}{list(_shape(column)[1:])}"


def _columns(
    chosen: Any, what: str, shape: tuple[int, ...], names: list[str] | None
) -> int | list[int] | None:
    """Column numbers."""
    if chosen is None:
        return None
    if len(shape) < 2:
        raise ValueError(
            f"{what}={chosen!r:.80} are columns, but the series has none: its shape is {shape}. Leave "
            f"{what}= out, or pass series[:, np.newaxis]."
        )
    if isinstance(chosen, (list, tuple, np.ndarray)):
        if not len(chosen):
            raise ValueError(
                f"{what}={chosen!r:.80} is empty, expected at least one column, or None."
            )
        return [_column(one, what, shape[1], names) for one in chosen]
    return _column(chosen, what, shape[1], names)


def _column(chosen: Any, what: str, width: int, names: list[str] | None) -> int:
    if isinstance(chosen, str):
        if names is None or chosen not in names:
            there = f"it has {listed(names)}" if names else f"it has numbers, from 0 to {width - 1}"
            raise IndexError(
                f"{what} has {chosen!r:.80}, but the series has no such column: {there}."
            )
        return names.index(chosen)
    if isinstance(chosen, (bool, np.bool_)) or not isinstance(chosen, (int, np.integer)):
        raise TypeError(
            f"{what} has {chosen!r:.80} ({type(chosen).__name__}), expected the number of a column, or a "
            "name if the series is a table."
        )
    if not -width <= chosen < width:
        raise IndexError(
            f"{what} has column {chosen}, but the series has {width}: 0 to {width - 1}."
        )
    return int(chosen) % width


def _gaps(given: Any, columns: list[Any], several: bool) -> list[Indices]:
    """For each series the rows at which a new stretch begins."""
    if given is None:
        return [np.zeros(0, np.int64) for _ in columns]
    each = given if several else [given]
    if len(each) != len(columns):
        raise ValueError(
            f"gaps has {len(each)} lists for {len(columns)} series, expected one for each; use [] for a "
            "series without gaps."
        )
    found = []
    for k, (rows, column) in enumerate(zip(each, columns, strict=True)):
        array = np.asarray(rows if np.size(rows) else np.zeros(0, np.int64))
        whose = f"gaps[{k}]" if several else "gaps"
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise TypeError(
                f"{whose} is {array.dtype} of shape {array.shape}, expected the numbers of rows at "
                "which a new stretch begins: np.flatnonzero(np.diff(times) > usual) + 1."
            )
        wrong = array[(array <= 0) | (array >= len(column))]
        if wrong.size:
            raise IndexError(
                f"{whose} has row {wrong[0]}, but a new stretch can begin only at rows 1 to "
                f"{len(column) - 1} of {len(column)}."
            )
        found.append(np.unique(array).astype(np.int64))
    return found
