"""Finds the files of a loader's columns, and the options for decoding their images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten
from kloaders.formats.options import ImageOptions
from kloaders.sources.columns import PathColumn, inner_column

__all__ = ["image_options", "paths_of", "uncached", "with_dct_scaling"]


def uncached(column: Any) -> Any:
    return column.column if hasattr(column, "store") else column


def paths_of(loader: Loader) -> Callable[[int], list[str]] | None:
    """The files of a sample; None for a loader whose samples are not files."""
    columns = loader.source.columns
    files = [
        column
        for column in flatten(columns if columns is not None else ())
        if isinstance(inner_column(column), PathColumn)
    ]
    return (lambda index: [column.name(index) for column in files]) if files else None


def image_options(column: Any) -> ImageOptions | None:
    read = getattr(inner_column(column), "read_path", None)
    if getattr(read, "decode", None) is not None:
        return None
    found: ImageOptions | None = getattr(read, "options", None)
    return found


def with_dct_scaling(column: Any) -> Any:
    """A copy of the column with dct_scaling=True: JPEGs are decoded at a fraction of their size."""
    new = copy.copy(column)
    if hasattr(column, "store"):
        return with_dct_scaling(column.column)
    if hasattr(column, "column"):
        new.column = with_dct_scaling(column.column)
    elif (options := image_options(column)) is not None and isinstance(column, PathColumn):
        read: Any = copy.copy(column.read_path)
        read.options = dataclasses.replace(options, dct_scaling=True)
        new.read_path = read
    return new
