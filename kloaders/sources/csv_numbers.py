"""Parses fields of CSV rows as numbers, many rows at a time. No number is rounded without an error."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import shortened

__all__ = ["CsvNumbers", "split_rows"]

# A float holds every integer up to this one.
_EXACT = {"float32": 2**24, "float64": 2**53}
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")


class CsvNumbers:
    """Some columns as one array of numbers, parsed by NumPy's C parser.

    Args:
        names: the names of all columns.
        positions: the positions of the parsed columns, in ascending order.
        dtype: the dtype of the array; None: float32, and an integer that it would round is an error.
        options: for each column the option that sets its dtype, for error messages.
        delimiter, quote: the delimiter and the quote character.
        missing: the number for a field without a value; None: such a field is an error.
        na_values: texts that mean "no value", in addition to an empty field.
    """

    def __init__(
        self,
        names: list[Any],
        positions: list[int],
        dtype: np.dtype[Any] | None,
        options: Mapping[int, str],
        *,
        delimiter: str,
        quote: str | None,
        missing: float | None,
        na_values: Sequence[str],
    ) -> None:
        self.names, self.positions, self.dtype, self.options = names, positions, dtype, options
        self.delimiter, self.quote = delimiter, quote
        self.missing, self.na_values = missing, tuple(na_values)

    def parsed(self, lines: list[str]) -> Array:
        """The columns of these rows, of shape (rows, columns).

        Raises:
            ValueError: a field is not a number, or the dtype does not hold it. For a single row the
                message names the field; for several rows it may not.
        """
        dtype = self.dtype
        try:
            if dtype is not None and dtype.kind in "iu":
                with contextlib.suppress(ValueError):  # fractions and numbers that are too large
                    return self._filled(lines, dtype)
                found = self._filled(lines, np.dtype(np.float64))
                self._check_rounded(lines, found, "float64")
                self._check_held(found, dtype)
                return found.astype(dtype)
            if dtype is not None:
                known = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float32)
                return self._filled(lines, known)
            found = self._filled(lines, np.dtype(np.float64))
            self._check_rounded(lines, found, "float32")
        except ValueError as error:
            if isinstance(error, _UnheldError):
                raise ValueError(str(error)) from None
            if len(lines) > 1:  # the caller will parse row by row to find the one at fault
                raise
            raise ValueError(self._what_is_wrong(lines[0], error)) from None
        with np.errstate(over="ignore"):  # 1e60 becomes infinite
            return found.astype(np.float32)

    def _filled(self, lines: list[str], dtype: np.dtype[Any]) -> Array:
        try:
            return self._loaded(lines, dtype)
        except ValueError:
            if self.missing is None:
                raise
            return self._loaded(self._without_gaps(lines), dtype)

    def _loaded(self, lines: list[str], dtype: np.dtype[Any]) -> Array:
        found: Array = np.loadtxt(
            lines,
            dtype=dtype,
            comments=None,
            delimiter=self.delimiter,
            usecols=self.positions,
            ndmin=2,
            quotechar=self.quote,
        )
        if len(found) < len(lines):  # an empty row
            raise ValueError("a row has no fields")
        return found

    # ------------------------------------------------------------------ missing values

    def _without_gaps(self, lines: list[str]) -> list[str]:
        """The rows, with `missing` in every field without a value."""
        value = float(self.missing or 0.0)
        number = repr(int(value)) if value.is_integer() else repr(value)
        if self.quote is not None and any(self.quote in line for line in lines):
            gaps = {"", *self.na_values}
            rows = [
                [number if field.strip() in gaps else field for field in row]
                for row in split_rows(lines, self.delimiter, self.quote)
            ]
            return [_quoted(row, self.delimiter, self.quote) for row in rows]
        mark = re.escape(self.delimiter)
        blank = "" if self.delimiter.isspace() else " *"
        texts = f"(?:{'|'.join(map(re.escape, self.na_values))})?{blank}" if self.na_values else ""
        gap = re.compile(rf"(?:(?<={mark})|^){blank}{texts}(?={mark}|$)")
        return [gap.sub(number, line) for line in lines]

    # ------------------------------------------------------------------ inexact numbers

    def _check_rounded(self, lines: list[str], found: Array, held_by: str) -> None:
        """Raise ValueError for an integer that this float dtype cannot represent."""
        large = np.abs(found) >= _EXACT[held_by]
        if not large.any():
            return
        for row, column in np.argwhere(large).tolist():
            value = found[row, column]
            if not np.isfinite(value):
                continue
            field = split_rows([lines[row]], self.delimiter, self.quote)[0][self.positions[column]]
            if not _INTEGER.fullmatch(field):
                continue
            number = int(field)
            with np.errstate(over="ignore"):
                held = float(np.dtype(held_by).type(value))
            if held == number:
                continue
            as_float = f"{held:.0f}" if np.isfinite(held) else "infinite"
            option = self.options[self.positions[column]]
            keep = [name for name in ("int64", "float64") if _holds(name, number)]
            keeps = " or ".join(f'{option}="{name}"' for name in keep)
            advice = f"pass {keeps} to keep it" if keep else "shorten it"
            if held_by == "float32":
                advice += f', or {option}="float32" to have such numbers rounded'
            raise _UnheldError(
                f"column {self.names[self.positions[column]]!r:.80} holds {shortened(field.strip(), 80)}, "
                f"which {held_by} would round to {shortened(as_float, 80)}: {advice}."
            )

    def _check_held(self, found: Array, dtype: np.dtype[Any]) -> None:
        """Raise ValueError for a number outside the range of an integer dtype."""
        limits = np.iinfo(dtype)
        whole = np.trunc(found)
        # Converted to float, the upper limit of 64-bit integers is one too large.
        held = (whole >= float(limits.min)) & (whole < float(limits.max) + 1)
        if not held.all():
            row, column = np.argwhere(~held)[0].tolist()
            position = self.positions[column]
            raise _UnheldError(
                f"column {self.names[position]!r:.80} holds {found[row, column]:.17g}, which {dtype} "
                f'does not hold: pass another {self.options[position]}=, such as "int64".'
            )

    # ------------------------------------------------------------------ fields without a number

    def _what_is_wrong(self, line: str, error: ValueError) -> str:
        fields = split_rows([line], self.delimiter, self.quote)[0]
        for position in self.positions:
            text = fields[position]
            if self.missing is not None and text.strip() in ("", *self.na_values):
                continue
            try:
                float(text)
            except ValueError:
                name = self.names[position]
                if not text.strip():
                    return (
                        f"column {name!r} is empty, expected a number: pass missing=, such as 0.0."
                    )
                if text.strip() in self.na_values:
                    return (
                        f"column {name!r} holds {shortened(text, 80)!r}, one of na_values, but there is "
                        "no number to use for it: pass missing=, such as 0.0."
                    )
                return (
                    f"column {name!r} holds {shortened(text, 80)!r}, expected a number: select "
                    "other columns with x= and y=, or pass "
                    f"classes={{{name!r}: [...]}}, the texts that it may hold, or "
                    "na_values=[...] and missing=, if it means that there is no value."
                )
        return str(error)


class _UnheldError(ValueError):
    """A number does not fit the dtype without being changed."""


def _holds(name: str, number: int) -> bool:
    if name.startswith("int"):
        return bool(np.iinfo(name).min <= number <= np.iinfo(name).max)
    return float(number) == number


def split_rows(lines: list[str], delimiter: str, quote: str | None) -> list[list[str]]:
    """The fields of rows, each a str; line breaks inside quotes are kept.

    Raises ValueError if a line is not a CSV row.
    """
    if quote is None:
        return [line.split(delimiter) for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter, quotechar=quote))
    except csv.Error as error:
        raise ValueError(f"it is not a CSV row: {error}.") from None


def _quoted(fields: list[str], delimiter: str, quote: str) -> str:
    return delimiter.join(f"{quote}{field.replace(quote, 2 * quote)}{quote}" for field in fields)
