"""Rows of a batch to be filled with samples, and how a failed row is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kloaders.core.arrays import Array
from kloaders.core.structure import Structure, flatten, same_structure

__all__ = ["Report", "RowMismatch", "Rows", "copy_into_row", "report_at"]


class RowMismatch(Exception):
    """A sample whose array does not fit its row. It is kept with the row until the batch is complete."""

    def __init__(self, row: int, leaf: int, array: Array) -> None:
        super().__init__(row, leaf, array)
        self.row, self.leaf, self.array = row, leaf, array


#: report(row, error): loading this row failed (any exception), or it does not fit (RowMismatch).
Report = Callable[[int, Exception], None]


def copy_into_row(value: Array, out: Array, row: int, leaf: int, report: Report) -> None:
    """Copy a sample's array into its row; report a RowMismatch if it does not fit."""
    if value.shape == out.shape[1:] and value.dtype == out.dtype:
        out[row, ...] = value  # "out[row] =" would store an array of one string as an object
    else:
        report(row, RowMismatch(row, leaf, value))


def report_at(report: Report, first: int) -> Report:
    """A report function for part of the rows; the part begins at row `first` of the whole."""

    def reported(row: int, error: Exception) -> None:
        if isinstance(error, RowMismatch):
            error.row += first
        report(first + row, error)

    return reported


class Rows:
    """Arrays with one row per sample, and the structure of a sample.

    Attributes:
        form: the structure of a sample, (x,) or (x, y); its leaves are ignored.
        arrays: one array for each leaf of `form`, in the order of `flatten`. Each has one row for each
            sample to be read. The filling code owns the arrays until `fill` returns.
    """

    __slots__ = ("arrays", "form")

    def __init__(self, form: Structure, arrays: list[Array]) -> None:
        self.form, self.arrays = form, arrays

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    def part(self, rows: slice) -> Rows:
        """A slice of the rows; it shares their memory."""
        return Rows(self.form, [array[rows] for array in self.arrays])

    def put(self, row: int, sample: tuple[Any, ...], report: Report) -> None:
        """Copy one sample, a tuple of parts, into its row; report an array that does not fit.

        Raises:
            TypeError: the sample's structure differs from that of the first sample.
        """
        if not same_structure(sample, self.form):
            raise TypeError(
                "this sample's x and y are nested differently from the first sample's: return the same "
                "tuples and dicts for every sample."
            )
        for leaf, value in enumerate(flatten(sample)):
            copy_into_row(value, self.arrays[leaf], row, leaf, report)
