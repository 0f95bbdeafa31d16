"""Rows of a batch that are to be filled with samples, and how a row that fails is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kloaders.core.arrays import Array
from kloaders.core.structure import Structure, flatten, same_structure

__all__ = ["Report", "RowMismatch", "Rows", "copy_into_row", "report_at"]


class RowMismatch(Exception):
    """A sample whose array does not fit its row: kept, with the row, until the batch is whole."""

    def __init__(self, row: int, leaf: int, array: Array) -> None:
        super().__init__(row, leaf, array)
        self.row, self.leaf, self.array = row, leaf, array


#: report(row, error): the row did not load (any exception), or does not fit (RowMismatch).
Report = Callable[[int, Exception], None]


def copy_into_row(value: Array, out: Array, row: int, leaf: int, report: Report) -> None:
    """Copy a sample's array into its row, or report that it does not fit."""
    if value.shape == out.shape[1:] and value.dtype == out.dtype:
        out[row, ...] = value  # "out[row] =" would store an array of one text as an object
    else:
        report(row, RowMismatch(row, leaf, value))


def report_at(report: Report, first: int) -> Report:
    """A report for rows of a part, which begins at row `first` of the whole."""

    def reported(row: int, error: Exception) -> None:
        if isinstance(error, RowMismatch):
            error.row += first
        report(first + row, error)

    return reported


class Rows:
    """Arrays with one row per sample, and the structure of a sample.

    Attributes:
        form: the structure of a sample, (x,) or (x, y); its leaves are ignored.
        arrays: one array for each leaf of `form`, in the order of `flatten`. All have as many rows
            as there are samples to be read; who fills them owns them until `fill` returns.
    """

    __slots__ = ("arrays", "form")

    def __init__(self, form: Structure, arrays: list[Array]) -> None:
        self.form, self.arrays = form, arrays

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    def part(self, rows: slice) -> Rows:
        """Some of the rows; they share memory with these."""
        return Rows(self.form, [array[rows] for array in self.arrays])

    def put(self, row: int, sample: tuple[Any, ...], report: Report) -> None:
        """Copy one sample, a tuple of parts, into its row; an array that does not fit is reported.

        Raises:
            TypeError: the sample has another structure than the first one.
        """
        if not same_structure(sample, self.form):
            raise TypeError(
                "this sample's x and y nest otherwise than the first sample's: return the same "
                "tuples and dicts for every sample."
            )
        for leaf, value in enumerate(flatten(sample)):
            copy_into_row(value, self.arrays[leaf], row, leaf, report)
