"""Columns of Arrow tables as arrays: which values come, and of which dtype."""

import datetime as dt
import decimal
import sys

import numpy as np
import pytest

from kloaders.formats import arrow
from kloaders.formats.arrow import class_names_in, import_pyarrow, values_of
from kloaders.formats.errors import DecodeError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int64", "float16", "float32", "float64", "bool"]
)
def test_numbers_keep_their_dtype(dtype):
    want = np.arange(5).astype(dtype)
    found = values_of(pa.array(want), "x")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, want)


def test_chunks_are_one_column():
    found = values_of(pa.chunked_array([[1, 2], [], [3]]), "x")
    assert found.tolist() == [1, 2, 3]
    assert values_of(pa.chunked_array([], pa.int32()), "x").tolist() == []


def test_missing_values_are_none():
    assert values_of(pa.array([1, None]), "x") == [1, None]
    assert isinstance(values_of(pa.array([1, None], pa.int16()), "x")[0], np.int16)
    assert values_of(pa.array([None, None]), "x") == [None, None]
    assert values_of(pa.array([None, b"a"]), "x") == [None, b"a"]
    first, second = values_of(pa.array([None, [1, 2]]), "x")
    assert first is None
    assert second.tolist() == [1, 2]


def test_bytes_texts_and_structs():
    assert values_of(pa.array([b"a", b""]), "x") == [b"a", b""]
    assert values_of(pa.array(["a", "é"], pa.large_string()), "x") == ["a", "é"]
    assert values_of(pa.array(["a", "b", "a"]).dictionary_encode(), "x") == ["a", "b", "a"]
    assert values_of(pa.array([{"a": 1, "b": "c"}]), "x") == [{"a": 1, "b": "c"}]
    assert values_of(pa.array([decimal.Decimal("1.5"), None]), "x") == [1.5, None]


def test_an_image_as_hugging_face_stores_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"file")
    rows = [
        {"bytes": b"inside", "path": "gone.jpg"},
        {"bytes": None, "path": str(tmp_path / "a.jpg")},
        {"bytes": None, "path": None},
        None,
    ]
    assert values_of(pa.array(rows), "x") == [b"inside", b"file", None, None]


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 2)],
    ids=["list", "large", "fixed"],
)
def test_lists_are_arrays(kind):
    found = values_of(pa.array([[1, 2], [3, 4], [5, 6]], kind)[1:], "x")
    assert [row.tolist() for row in found] == [[3, 4], [5, 6]]
    assert found[0].dtype == np.int32
    found = values_of(pa.array([[1, 2], None, [5, 6]], kind)[1:], "x")
    assert found[0] is None
    assert found[1].tolist() == [5, 6]


def test_lists_of_lists_and_of_any_length():
    ragged = values_of(pa.array([[1], [], [2, 3]]), "x")
    assert [row.tolist() for row in ragged] == [[1], [], [2, 3]]
    nested = values_of(pa.array([[[1, 2], [3, 4]], [[5, 6]]]), "x")
    assert [row.tolist() for row in nested] == [[[1, 2], [3, 4]], [[5, 6]]]
    fixed = values_of(pa.array([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.float32(), 2), 2)), "x")
    assert fixed.shape == (1, 2, 2)
    assert values_of(pa.array([["a", "b"]]), "x") == [["a", "b"]]
    with pytest.raises(DecodeError, match=r"arrays of different shapes: \(1,\), \(2,\)"):
        values_of(pa.array([[[1], [3, 4]]]), "x")


def test_a_type_without_numbers_is_named():
    with pytest.raises(DecodeError, match="column 'day' has type date32"):
        values_of(pa.array([dt.date(2020, 1, 1)]), "day")


def test_names_of_classes_in_metadata():
    text = b'{"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "n": {"_type": "Value"}}}}'
    assert class_names_in({b"huggingface": text}, "label") == ["a", "b"]
    for metadata, column in [
        ({b"huggingface": text}, "n"),
        ({b"huggingface": text}, "z"),
        ({b"huggingface": b"[]"}, "label"),
        ({b"huggingface": b"{"}, "label"),
        ({}, "label"),
        (None, "label"),
    ]:
        assert class_names_in(metadata, column) is None


def test_without_pyarrow_the_pip_line_is_said(monkeypatch):
    assert import_pyarrow("this") is pa
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ImportError, match=r"ParquetSequenceLoader needs pyarrow: pip install pyarrow"
    ):
        arrow.import_pyarrow("ParquetSequenceLoader")
