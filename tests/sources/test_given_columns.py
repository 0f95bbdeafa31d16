"""Columns of whatever a user gives for x, paths and labels; what cannot be one is named."""

from pathlib import Path

import numpy as np
import pytest

from kloaders.core.structure import map_structure
from kloaders.sources.columns import ArrayColumn, CallColumn, CastColumn, ListColumn, PathColumn
from kloaders.sources.given_columns import columns_of
from kloaders.sources.path_lists import PackedPaths


def read(path, out):
    return np.load(path)


def kinds(columns):
    return map_structure(type, columns)


def values(column):
    return [column.read(k).tolist() for k in range(len(column))]


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (np.arange(3), ArrayColumn, [0, 1, 2]),
        ([0, 1, 2], ArrayColumn, [0, 1, 2]),
        ((0, 1, 2), ArrayColumn, [0, 1, 2]),
        ([[0, 1], [2, 3]], ArrayColumn, [[0, 1], [2, 3]]),
        ([np.arange(1), np.arange(2)], ListColumn, [[0], [0, 1]]),
        (["a", "b.c"], ArrayColumn, ["a", "b.c"]),
        (np.array([["a", "b"]]), ArrayColumn, [["a", "b"]]),
        ([np.array(["a"]), np.array(["b", "c"])], ListColumn, [["a"], ["b", "c"]]),
        (np.arange(3, dtype=">i4"), CastColumn, [0, 1, 2]),
    ],
)
def test_numbers_become_columns_of_their_values(given, kind, expected):
    column = columns_of(given, "x")
    assert type(column) is kind
    assert values(column) == expected
    assert column.read(0).dtype.isnative


def test_pythons_floats_become_float32_and_arrays_keep_their_dtype():
    assert columns_of([0.5, 1.5], "x").read(0).dtype == np.float32
    assert columns_of(np.array([0.5, 1.5]), "x").read(0).dtype == np.float64


def test_dicts_and_tuples_are_several_columns():
    column = columns_of({"a": [1, 2], "b": ([3, 4], np.zeros((2, 5)))}, "x")
    assert kinds(column) == {"a": ArrayColumn, "b": (ArrayColumn, ArrayColumn)}
    assert values(column["b"][0]) == [3, 4]


@pytest.mark.parametrize(
    "given",
    [
        ["a.npy", "b.npy"],
        [Path("a.npy"), Path("b.npy")],
        ("a.npy", "b.npy"),
        np.array(["a.npy", "b.npy"]),
        np.array([b"a.npy", b"b.npy"]),
        np.array(["a.npy", Path("b.npy")], object),
        PackedPaths(["a.npy", "b.npy"]),
    ],
    ids=["texts", "paths", "tuple", "array", "bytes", "objects", "packed"],
)
def test_paths_become_columns_of_files(given):
    column = columns_of(given, "paths", read)
    assert type(column) is PathColumn
    assert list(column.paths) == ["a.npy", "b.npy"]


def test_a_function_of_the_path():
    paths = PackedPaths(["a", "bb"])
    column = columns_of(len, "labels", read, paths)
    assert type(column) is CallColumn
    assert values(column) == [1, 2]


def test_a_cast_is_of_arrays_and_not_of_files():
    """`read` casts what it reads."""
    column = columns_of(([1, 2], ["a.npy", "b.npy"]), "x", read, dtype=np.dtype(np.float16))
    assert kinds(column) == (CastColumn, PathColumn)
    assert column[0].read(1).dtype == np.float16


class Sparse:
    def toarray(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("a.npy", TypeError, r"x is the text 'a.npy', expected arrays: np.load"),
        (Sparse(), TypeError, r"x is a sparse Sparse, but batches are dense: pass x.toarray\(\)"),
        (5, TypeError, r"x is a int, expected something with a length"),
        (iter([1]), TypeError, r"expected something with a length.*list\(x\) may do"),
        (np.array(5), ValueError, "x is the single number 5"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "x has dtype datetime64"),
        ([[1, 2], [3]], ValueError, "entries have different lengths"),
        ([np.zeros(2), [0, 1]], TypeError, r"x\[1\] is \[0, 1\] \(list\)"),
        ([np.zeros(2), np.array(["a"])], TypeError, r"x\[1\].*\(<U1\)"),
        ([1, "a"], TypeError, r"x\[0\] is 1 \(int\), expected a text"),
        (["a", 1], TypeError, r"x\[1\] is 1 \(int\), expected a text"),
        ([["a", "b"], ["c", 1.5]], TypeError, r"x\[3\] is 1.5 \(float\), expected a text"),
        ([np.array(["a"]), np.zeros(2)], TypeError, r"x\[1\].*expected an array of texts"),
        ([1, None], TypeError, r"x\[1\] is None: every sample needs a value"),
        (np.array([object(), 1]), TypeError, "x has dtype object"),
        (["a.jpg", "b.jpg"], TypeError, "x are texts such as 'a.jpg', expected arrays"),
        ([Path("a"), Path("b")], TypeError, "x are texts such as .*expected arrays"),
    ],
)
def test_what_is_no_column_of_arrays(given, error, message):
    with pytest.raises(error, match=message):
        columns_of(given, "x")


def test_a_single_path_is_no_list_of_paths():
    with pytest.raises(TypeError, match=r"paths is the single path 'a.npy', expected a list"):
        columns_of("a.npy", "paths", read)


def test_labels_in_words_are_refused_and_files_are_not():
    with pytest.raises(ValueError, match=r"labels are texts such as 'cat', expected numbers"):
        columns_of(["cat", "dog"], "labels", read)
    assert type(columns_of(["a.png", "b.png"], "labels", read)) is PathColumn
