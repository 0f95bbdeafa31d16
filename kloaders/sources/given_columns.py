"""Turns a user's x, paths, labels or weights into columns; rejects what cannot be one."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible, warn
from kloaders.core.structure import Structure, as_texts, is_numeric, is_text, map_structure
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.sources.columns import (
    ArrayColumn,
    CallColumn,
    CastColumn,
    Column,
    ListColumn,
    PathColumn,
    ReadPath,
)
from kloaders.sources.given_files import files_matching
from kloaders.sources.lazy import LazyArray, LazyColumn, is_lazy
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.tables import encoded

__all__ = ["columns_of"]


def columns_of(
    values: Structure,
    what: Literal["x", "paths", "labels", "sample_weights", "series"],
    read: ReadPath | None = None,
    paths: PackedPaths | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Structure:
    """A column for every leaf of an argument.

    read: reads files, for leaves that are paths. paths: the arguments of a labels function.
    dtype: the dtype to cast arrays to; `read` casts files itself.
    """
    if dtype is not None:
        return map_structure(
            lambda c: c if isinstance(c, PathColumn) or _has_texts(c) else CastColumn(c, dtype),
            columns_of(values, what, read, paths),
        )
    # A tuple of paths or numbers is a single column that happens to be a tuple.
    one = isinstance(values, tuple) and bool(values)
    if one and (np.isscalar(values[0]) or isinstance(values[0], os.PathLike)):
        values = list(values)
    if isinstance(values, dict):
        return {k: columns_of(v, what, read, paths) for k, v in values.items()}
    if isinstance(values, tuple):
        return tuple(columns_of(v, what, read, paths) for v in values)
    return _column(values, what, read, paths)


def _column(values: Any, what: str, read: ReadPath | None, paths: PackedPaths | None) -> Column:
    if callable(values) and paths is not None:
        return _of_function(values, what, read, paths)
    if isinstance(values, PackedPaths):
        assert read is not None
        return PathColumn(values, read)
    if isinstance(values, _PATH) and read is None:
        raise TypeError(
            f"{what} is the text '{visible(os.fspath(values))}', expected arrays: np.load(path, "
            'mmap_mode="r") maps an .npy file of many samples. For one file per sample use '
            "PathSequenceLoader."
        )
    if isinstance(values, _PATH) and what == "paths" and glob.has_magic(os.fspath(values)):
        assert read is not None
        return PathColumn(PackedPaths(files_matching(os.fspath(values))), read)
    if isinstance(values, _PATH):
        raise TypeError(
            f"{what} is the single path '{visible(os.fspath(values))}', expected a list: [{what}]. All files "
            f"{_MANY[what == 'paths']}."
        )
    first = values[0] if isinstance(values, list) and values else values
    if isinstance(values, np.ma.MaskedArray) or isinstance(first, np.ma.MaskedArray):
        raise TypeError(
            f"{what} is a masked array, and its mask would be lost: fill it, {what}.filled(0), and give "
            "masked values a weight of 0 (sample_weights=), or a label of their own."
        )
    if hasattr(values, "toarray"):  # sparse matrices of SciPy
        raise TypeError(
            f"{what} is a sparse {type(values).__name__}, but batches are dense: pass {what}.toarray(), or "
            "make dense rows in load_sample()."
        )
    if is_lazy(values):
        lazy = LazyArray(values, what)
        _check_numeric(lazy.dtype, what)
        return LazyColumn(lazy)
    if not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise TypeError(
            f"{what} is a {type(values).__name__}, expected something with a length and an "
            f"order: an array, a list, or a tuple or dict of these. list({what}) may do."
        )
    first = values[0] if isinstance(values, list) and values else None
    if isinstance(first, _PATH) and (what != "x" or _is_file(values[:1])):
        return _texts(values, what, read)
    if isinstance(first, str):  # NumPy would turn numbers among them into texts
        array = np.empty(len(values), object)
        array[:] = values
        return _text_column(array, what)
    if is_lazy(first):
        raise TypeError(
            f"{what} is a list of {len(values)} arrays outside RAM ({type(first).__name__}): for "
            f"several inputs or outputs pass a tuple, tuple({what}), or a dict with names; for one array "
            f"per sample, pass np.asarray() of each."
        )
    if not isinstance(first, np.ndarray) and getattr(first, "shape", None):  # tensors
        values = [np.asarray(one) for one in values]
        first = values[0]
    if isinstance(first, np.ndarray) and first.ndim:
        return _arrays_in_a_list(values, what)
    array = values if isinstance(values, np.ndarray) else _array(values, what)
    if array.dtype.kind in "USOT":
        if what == "x" and not (array.ndim == 1 and _is_file(array[:1])):
            made = array.dtype.kind == "U" and not isinstance(values, np.ndarray)
            own = np.array(values, object) if made else array  # numbers among them stay numbers
            return _text_column(own, what)
        if array.ndim != 1 and array.dtype.kind in "US":
            raise ValueError(
                f"{what} holds texts in an array of shape {array.shape}, expected one for each "
                f"sample: {what}.ravel(), or a tuple of columns for several."
            )
        items = values if isinstance(values, list) else array.tolist()
        if array.dtype.kind == "S" and len(items):
            items = [os.fsdecode(item) for item in items]
        _check_mixture(items, what)
        if items and isinstance(items[0], _PATH):
            return _texts(items, what, read)
        empty = next((k for k, item in enumerate(items) if item is None), None)
        if empty is not None:
            raise TypeError(f"{what}[{empty}] is None: every sample needs a value.")
        raise _object(what)
    _check_numeric(array.dtype, what)
    if array.ndim == 0:
        raise ValueError(f"{what} is the single number {array}, expected one value per sample.")
    column = ArrayColumn(array)
    if array.dtype.isnative:
        return column
    return CastColumn(column, array.dtype.newbyteorder("="))


_PATH = (str, os.PathLike)
_KNOWN = IMAGE_SUFFIXES | ARRAY_SUFFIXES


# How to pass many files, for labels and for inputs.
_MANY = (
    "that belong to inputs come from a function of the path, or use from_folders()",
    "of a folder are a pattern, folder + '/*.jpg', or use from_directory()",
)


def _is_file(first: Any) -> bool:
    """Whether the first value of a column is a path: a `Path`, or a text that looks like one."""
    return len(first) > 0 and (
        isinstance(first[0], os.PathLike)
        or (isinstance(first[0], str) and suffix_of(first[0]) in _KNOWN and " " not in first[0])
    )


def _text_column(array: Array, what: str) -> Column:
    """A column of texts that are inputs."""
    if array.dtype.kind == "S":
        raise TypeError(
            f"{what} holds bytes such as {array.ravel()[:1].tolist()!r:.80}, expected texts: "
            f"[one.decode() for one in {what}]."
        )
    texts = as_texts(array)
    if texts is not None:
        return ArrayColumn(texts)
    items = array.ravel().tolist()
    if not any(isinstance(one, str) for one in items):
        empty = next((k for k, one in enumerate(items) if one is None), None)
        if empty is not None:
            raise TypeError(f"{what}[{empty}] is None: every sample needs a value.")
        raise _object(what)
    odd = next(k for k, one in enumerate(items) if not isinstance(one, str))
    raise TypeError(
        f"{what}[{odd}] is {items[odd]!r:.80} ({type(items[odd]).__name__}), expected a text like the "
        'others: use "" for a missing text.'
    )


def _has_texts(column: Any) -> bool:
    return isinstance(column, ArrayColumn) and is_text(column.array.dtype)


def _check_numeric(dtype: np.dtype[Any], what: str) -> None:
    if not is_numeric(dtype):
        raise TypeError(
            f"{what} has dtype {dtype}, which Keras does not accept: convert it to numbers first."
        )


def _of_function(
    function: Callable[[str], Any], what: str, read: ReadPath | None, paths: PackedPaths
) -> Column:
    """The results of a function of the path: numbers, class names, or paths of files."""
    try:
        first = function(paths[0])
    except Exception:  # the error is raised again, with the sample's name, when that sample is read
        return CallColumn(function, paths)
    if not isinstance(first, _PATH):
        return CallColumn(function, paths)
    given = [function(path) for path in paths]
    odd = next((k for k, one in enumerate(given) if not isinstance(one, _PATH)), None)
    if odd is not None:
        raise TypeError(
            f"the {what} function returned {given[odd]!r:.80} for {paths[odd]}, but the text {first!r:.80} "
            f"for {paths[0]}: return only numbers, only class names or only paths."
        )
    if suffix_of(os.fspath(first)) in _KNOWN or getattr(read, "decode", None) is not None:
        assert read is not None
        return PathColumn(PackedPaths(given, what), read)
    names, codes = encoded([os.fspath(one) for one in given])
    if len(names) == len(paths) > 2:
        warn(
            f"the {what} function returned another text for each of {len(paths):,} paths, such as "
            f"{first!r:.80} for {paths[0]}, but texts are class names: return the name of a class, or a path "
            "with its suffix."
        )
    return ArrayColumn(codes.astype(np.int32), names)


def _arrays_in_a_list(values: list[Any], what: str) -> Column:
    _check_mixture(values, what)
    texts = what == "x" and as_texts(values[0]) is not None
    for k, value in enumerate(values):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        if not isinstance(value, np.ndarray) or texts or not is_numeric(value.dtype):
            if texts and isinstance(value, np.ndarray) and as_texts(value) is not None:
                continue
            raise TypeError(
                f"{what}[{k}] is {value!r:.80} ({kind}), expected an array of "
                f"{'texts' if texts else 'numbers'}, one per sample."
            )
    return ListColumn([as_texts(v) for v in values] if texts else values)


def _check_mixture(items: list[Any], what: str) -> None:
    """Raise an error for an item that is not a path in a list of paths."""
    if any(isinstance(item, _PATH) for item in items):
        for k, item in enumerate(items):
            if not isinstance(item, _PATH):
                raise TypeError(
                    f"{what}[{k}] is {item!r:.80} ({type(item).__name__}), expected str or "
                    "pathlib.Path like the others."
                )


def _array(values: Any, what: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError:  # a ragged list
        if isinstance(values, list):
            _check_mixture(values, what)
            raise ValueError(
                f"{what} is a list whose entries have different lengths: pass one NumPy array per "
                f"sample, [np.asarray(v) for v in {what}], with equal shapes in each batch, or pad them."
            ) from None
        raise
    if array.dtype == np.float64 and isinstance(values, (list, tuple)):
        # Python's floats express no choice of precision; use Keras' default.
        return array.astype(np.float32)
    return array


def _object(what: str) -> TypeError:
    return TypeError(
        f"{what} has dtype object, which can't be put into a batch: use numbers, a list of one numeric "
        f"array per sample, or np.stack({what}) if all have the same shape."
    )


def _texts(values: list[Any], what: str, read: ReadPath | None) -> Column:
    if what == "paths":
        values = _expanded(values)
    suffix = suffix_of(os.fspath(values[0]))
    known = suffix in _KNOWN
    if what == "sample_weights" and not known and getattr(read, "decode", None) is None:
        raise TypeError(
            f"sample_weights are texts such as {values[0]!r:.80}, expected numbers (or paths of .npy "
            "files or images, with a weight for each pixel)."
        )
    if what == "labels" and not known and getattr(read, "decode", None) is None:
        raise ValueError(
            f"labels are texts such as {values[0]!r:.80}, expected numbers (or paths of files). Encode "
            "them: names, labels = np.unique(labels, return_inverse=True); from_directory() and "
            "from_dataframe() do it for you. For files of a format of your own, pass "
            'label_options={"decode": a function of their bytes}.'
        )
    if read is None:
        raise TypeError(
            f"{what} are texts such as {values[0]!r:.80}, expected arrays. For files use "
            "PathSequenceLoader."
        )
    return PathColumn(PackedPaths(values, what), read)


def _expanded(paths: list[Any]) -> list[Any]:
    """Paths, with patterns replaced by their matches. A file whose name is the pattern itself is kept."""
    with contextlib.suppress(TypeError):  # not all items are strings
        if "*" not in "".join(paths):  # 50 times faster than a test of each path
            return paths
    found: list[Any] = []
    for path in paths:
        pattern = isinstance(path, _PATH) and "*" in os.fspath(path) and not os.path.exists(path)
        found += files_matching(os.fspath(path)) if pattern else [path]
    return found
