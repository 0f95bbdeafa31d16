"""Columns of CSV files that are split at each delimiter: their values, and how these are packed."""

import numpy as np
import pytest

from kloaders.sources import plain_csv, tables
from kloaders.sources.plain_csv import parsed, plain_columns


def columns(text, delimiter=","):
    return plain_columns(text.encode(), delimiter)


@pytest.fixture(params=[1, 3, 8192])
def rows_at_a_time(request, monkeypatch):
    """Whether a part ends in the middle, or anywhere."""
    monkeypatch.setattr(plain_csv, "_ROWS", request.param)


def test_both_ways_to_read_a_csv_file_agree(rows_at_a_time):
    """Whatever is split without csv, csv reads as the same values."""
    draw, taken = np.random.default_rng(3), 0
    marks = np.array(["a", "1", ",", ",", "\n", "\n", "\r\n", "\r", '"', " ", "é"])
    shares = np.array([8, 8, 6, 6, 4, 4, 2, 0.2, 0.2, 1, 1])
    for _ in range(2000):
        text = "".join(draw.choice(marks, draw.integers(1, 14), p=shares / shares.sum()))
        found = columns(text)
        if found is not None:
            taken += 1
            names, values = tables._csv_columns(text.encode(), ",", "t.csv")
            assert found[0] == names, repr(text)
            for column, expected in zip(found[1], values, strict=True):
                assert column.tolist() == list(column) == expected, repr(text)
                assert len(column) == len(expected)
    assert taken > 60


@pytest.mark.parametrize(
    "values",
    [
        ["cat", "dog", "cat", "a"],
        ["12345678", "123456789", "1234567x", "12345678x", "12345678"],
        ["x" * 64, "x" * 63, "x" * 63 + "y"],
        ["x" * 65, "y", "x"],
        ["é", "z", "😀", "ß", "é"],
        ["a", "", "b"],
        [" a", "a ", "a"],
    ],
    ids=["short", "a word", "longest", "too long", "UTF-8", "empty", "blanks"],
)
def test_distinct_texts_of_any_length(values, rows_at_a_time):
    column = columns("a,b\n" + "".join(f"{value},1\n" for value in values))[1][0]
    expected = [value or None for value in values]
    assert column.tolist() == list(column) == expected
    assert column.to_numpy().tolist() == expected
    assert column.to_numpy().dtype == object
    if column.codes is not None:
        names, codes = column.codes
        assert names == sorted(set(values))
        assert [names[k] for k in codes] == values
    assert (column.codes is None) == ("" in values or max(map(len, values)) > 64)


@pytest.mark.parametrize(
    ("texts", "dtype"),
    [
        (["1", "-2", "01", "1"], "int64"),
        (["1", "2.5", "1e3"], "float64"),
        (["1", "nan", "2"], "float64"),
        (["1", "", "2"], "object"),
        ([str(2**63), str(2**63)], "uint64"),
        ([str(2**63), "1"], "float64"),
        ([str(2**70), "1"], "object"),
        ([f"{k}.25" for k in range(9000)], "float64"),
        (["1", "x"], "object"),
    ],
    ids=["int", "float", "NaN", "empty", "64 bits", "both", "more bits", "all distinct", "a text"],
)
def test_numbers_are_as_numpy_makes_them_of_a_list(texts, dtype):
    column = columns("a,b\n" + "".join(f"x,{text}\n" for text in texts))[1][1]
    expected = parsed([text or None for text in texts])
    assert repr(column.tolist()) == repr(expected)
    texts = any(isinstance(value, str) for value in expected)
    array = np.array(expected, object) if texts else np.asarray(expected)
    assert repr(column.to_numpy().tolist()) == repr(array.tolist())
    assert column.to_numpy().dtype == array.dtype == dtype
    assert not column.is_text


def test_many_distinct_texts_are_not_sorted_for_their_codes():
    values = [f"{k:06}" + "x" for k in range(9000)]
    column = columns("a,b\n" + "".join(f"1,{value}\n" for value in values))[1][1]
    assert column.codes is None
    assert column.tolist() == values


@pytest.mark.parametrize("others", [",1", ""], ids=["two columns", "a column of its own"])
def test_paths_in_one_block(others, rows_at_a_time):
    values = ["a/0.png", "ü.png", " b", "c" * 300, "d"]
    names, (column, *_) = columns(
        "a,b"[: 1 + len(others)] + "\n" + "\n".join(v + others for v in values)
    )
    assert names[0] == "a"
    assert column.is_text
    assert list(column.packed()) == values
    packed = column.packed("/ä \udce9/")
    assert list(packed) == [f"/ä \udce9/{value}" for value in values]
    assert packed.joined().count(b"\0") == len(values)
    assert packed.nbytes == len(packed.joined()) + 4 * len(values)


def test_what_is_in_a_column_and_not_in_its_neighbours():
    text = "path,b\na.png,x:*\nsub/b.png,/y\n"
    paths, others = columns(text)[1]
    assert [paths.has(mark) for mark in ":*/"] == [False, False, True]
    assert others.has(":")
    assert not paths.begins_with("/", "\\")
    assert others.begins_with("/")


def test_a_column_without_rows():
    for column in columns("a,b\n")[1]:
        assert column.tolist() == list(column) == []
        assert (column.codes, column.is_text, len(column)) == (None, False, 0)
