"""Fields as numbers: those that were written, or an error that names the field."""

import numpy as np
import pytest

from kloaders.sources.csv_numbers import CsvNumbers, split_rows


def parsed(rows, dtype=None, *, missing=None, na_values=(), quote='"', positions=(0, 1)):
    columns = CsvNumbers(
        ["a", "b"],
        list(positions),
        None if dtype is None else np.dtype(dtype),
        {0: "dtype", 1: "label_dtype"},
        delimiter=",",
        quote=quote,
        missing=missing,
        na_values=na_values,
    )
    return columns.parsed(rows)


@pytest.mark.parametrize("number", [16777217, -16777217, 33554433, 2**31 + 1, 2**53 + 1, 2**62 + 1])
def test_integers_are_whole_or_an_error(number):
    with pytest.raises(ValueError, match=f"'a' holds {number}, which float32 would round to"):
        parsed([f"{number},1"])
    found = parsed([f"{number},1"], "int64")
    assert (found.dtype, found.tolist()) == (np.int64, [[number, 1]])


def test_advice_names_the_option_of_the_column_and_works():
    with pytest.raises(ValueError, match='pass label_dtype="int64" or label_dtype="float64"'):
        parsed(["1,16777217"])
    with pytest.raises(ValueError, match='pass dtype="int64" to keep it, or dtype="float32" to'):
        parsed([f"{2**53 + 1},1"])
    with pytest.raises(ValueError, match="shorten it"):
        parsed([f"{10**30 + 1},1"])
    assert parsed(["16777217,1"], "float64").tolist() == [[16777217, 1]]
    assert parsed(["16777217,1"], "float32").tolist() == [[16777216, 1]]


def test_what_a_float_holds_is_no_error():
    rows = ["16777216,16777218", "1e20,0.1", "1700000000.5,inf", '"16777217.5",-0']
    found = parsed(rows)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([r.replace('"', "").split(",") for r in rows], float).astype("f4"))  # fmt: skip


def test_integers_beside_fractions():
    """A column of fractions is cast, as asked for; what the type does not hold is an error."""
    assert parsed(["2.7,1e3"], "int32").tolist() == [[2, 1000]]
    for text, dtype in (
        ("300", "uint8"),
        ("-1", "uint8"),
        ("3000000000", "int32"),
        ("nan", "int8"),
    ):
        with pytest.raises(ValueError, match=f"'a' holds {text}, which {dtype} does not hold"):
            parsed([f"{text},1"], dtype)
    with pytest.raises(ValueError, match=f"'a' holds {2**53 + 1}, which float64 would round"):
        parsed([f"{2**53 + 1},0.5"], "int64")


@pytest.mark.parametrize("quote", ['"', None])
@pytest.mark.parametrize("text", ["", "NA", "null", " NA ", "-", "N/A"])
def test_texts_without_a_value(text, quote):
    na = ["NA", "null", "-", "N/A"]
    assert parsed([f"{text},1", f"2,{text}"], missing=-5, na_values=na, quote=quote).tolist() == [
        [-5, 1],
        [2, -5],
    ]
    assert parsed([f"{text},1"], "int64", missing=-5, na_values=na).tolist() == [[-5, 1]]
    if quote:
        assert parsed([f'"{text}","1"'], missing=-5, na_values=na).tolist() == [[-5, 1]]
    if text.strip():
        with pytest.raises(ValueError, match=r"one of na_values.*pass missing="):
            parsed([f"{text},1"], na_values=na)
        with pytest.raises(ValueError, match=r"expected a number.*na_values="):
            parsed([f"{text},1"], missing=-5)


def test_a_minus_is_no_gap_within_a_number():
    assert parsed(["-1,2"], missing=0, na_values=["-"]).tolist() == [[-1, 2]]


def test_rows_of_text():
    assert split_rows(['a 5" disk,"b, c"'], ",", '"') == [['a 5" disk', "b, c"]]
    assert split_rows(['a,"b, c"'], ",", None) == [["a", '"b', ' c"']]
    with pytest.raises(ValueError, match="it is not a CSV row"):
        split_rows(["a\rb,c"], ",", '"')
