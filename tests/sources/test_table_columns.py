"""Columns of a table as inputs and outputs, nested as their names are."""

import numpy as np
import pytest

from kloaders.sources.table_columns import inputs_of, outputs_of
from kloaders.sources.tables import Table

FRAME = {
    "file": ["a.png", "b.png", "c.png"],
    "other": ["d.png", "e.png", "f.png"],
    "age": [3, 5, 8],
    "size": [0.5, 1.5, 2.5],
    "kind": ["dog", "cat", "dog"],
    "tags": [["new", "red"], [], ["red"]],
    "words": ["new, red", "red", "blue"],
    "numbers": [[0, 2], [1], []],
}


@pytest.fixture
def table():
    return Table(FRAME)


def test_inputs_are_nested_as_their_columns_are(table):
    assert inputs_of(table, "file", "x") == ["x/a.png", "x/b.png", "x/c.png"]
    left, right, age = inputs_of(table, ["file", "other", "age"], None)
    assert (left, right) == (FRAME["file"], FRAME["other"])
    assert (age.tolist(), age.dtype) == ([3, 5, 8], np.int64)
    found = inputs_of(table, {"photo": "file", "facts": ["age", "size"]}, None)
    assert found["photo"] == FRAME["file"]
    assert found["facts"].tolist() == [[3, 0.5], [5, 1.5], [8, 2.5]]
    assert found["facts"].dtype == np.float32


def test_outputs_of_each_kind(table):
    found = outputs_of(
        table,
        {"kind": "kind", "size": "size", "row": ["age", "size"], "tags": "tags"},
        {"kind": ["dog", "cat"]},
        None,
    )
    assert found["kind"].values.tolist() == [0, 1, 0]
    assert found["kind"].names == ["dog", "cat"]
    assert found["size"].values.dtype == found["row"].values.dtype == np.float32
    assert found["tags"].values.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert (found["tags"].names, found["size"].names) == (["new", "red"], None)


def test_one_hot_and_several_labels(table):
    one = outputs_of(table, "kind", None, "categorical")
    assert (one.values.tolist(), one.names, one.one_hot) == ([1, 0, 1], ["cat", "dog"], 2)
    assert outputs_of(table, "age", None, "categorical").one_hot == 9
    words = outputs_of(table, "words", None, "multi_label")
    assert words.names == ["blue", "new", "red"]
    assert words.values.tolist() == [[0, 1, 1], [0, 0, 1], [1, 0, 0]]
    assert outputs_of(table, "words", None, None).names == ["blue", "new, red", "red"]  # classes
    numbers = outputs_of(table, "numbers", None, "multi_label")
    assert (numbers.values.tolist(), numbers.names) == ([[1, 0, 1], [0, 1, 0], [0, 0, 0]], None)
    both = outputs_of(table, {"a": "kind", "b": "kind"}, None, {"b": "categorical"})
    assert (both["a"].one_hot, both["b"].one_hot) == (None, 2)


def test_a_row_without_labels_is_warned_about(caplog):
    found = outputs_of(Table({"tags": ["a,b", None, "b"]}), "tags", None, "multi_label")
    assert found.values.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert "1 of 3 rows have no value in column 'tags': they get no label" in caplog.text


@pytest.mark.parametrize(
    ("columns", "names", "mode", "error", "words"),
    [
        ({}, None, None, ValueError, "label_column is an empty dict"),
        ([], None, None, ValueError, "label_column is an empty list"),
        ({"a": "kind"}, ["x"], None, TypeError, "there are several outputs: pass a dict"),
        ({"a": "kind"}, {"b": ["x"]}, None, ValueError, "class_names names an output 'b'"),
        ({"a": "kind"}, None, {"b": "int"}, ValueError, "label_mode names an output 'b'"),
        ("kind", None, "one-hot", ValueError, "label_mode='one-hot' is not known: choose 'int'"),
        (["age", "size"], None, "int", ValueError, "for one column, but label_column is 2"),
        ("size", None, "categorical", ValueError, "holds float32 such as 0.5"),
        ("age", None, "multi_label", ValueError, "row 0 .*holds 3, expected several labels"),
        ("words", ["red", "new"], "multi_label", ValueError, "row 2 .*'blue' in column 'words'"),
        ("tags", ["new"], None, ValueError, "'red' in column 'tags' is not among class_names"),
        ({"a": "nothing"}, None, None, ValueError, "the table has no column 'nothing'"),
    ],
)
def test_bad_outputs_are_named(table, columns, names, mode, error, words):
    with pytest.raises(error, match=words):
        outputs_of(table, columns, names, mode)


@pytest.mark.parametrize("columns", [7, {}, [], {"a": {"b": "file"}}, {"a": []}])
def test_bad_inputs_are_named(table, columns):
    with pytest.raises(TypeError, match=r"path_column (is|holds) .*expected"):
        inputs_of(table, columns, None)
