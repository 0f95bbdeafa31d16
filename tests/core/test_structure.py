"""Nested tuples and dicts of arrays: taken apart and put together, and what they may hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.core.structure import (
    ArraySpec,
    as_arrays,
    as_sample,
    flatten,
    map_structure,
    names_of,
    padded_rows,
    same_structure,
    spec_of,
    transformed_parts,
    unflatten,
)

leaves = st.integers() | st.lists(st.integers(), max_size=2)
structures = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=8,
)


@given(structures)
def test_unflatten_is_the_inverse_of_flatten(structure):
    """Whatever nests in whatever; lists are leaves."""
    found = flatten(structure)
    assert unflatten(structure, found) == structure
    assert len(names_of(structure, "x")) == len(found)
    numbered = unflatten(structure, list(range(len(found))))
    assert flatten(numbered) == list(range(len(found)))
    assert same_structure(numbered, structure)


@given(structures)
def test_map_goes_over_the_leaves_in_order(structure):
    count = len(flatten(structure))
    numbers = unflatten(structure, list(range(count)))
    paired = map_structure(lambda k, leaf: [k, leaf], numbers, structure)
    assert flatten(paired) == [[k, leaf] for k, leaf in enumerate(flatten(structure))]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 2, True),
        ([1, 2], [1], True),
        ((1, 2), (1, 2, 3), False),
        ((1, {"a": 2}), (1, {"b": 2}), False),
        ({"a": 1, "b": 2}, {"b": 3, "a": 4}, True),
        ({"a": 1}, (1,), False),
        ((1,), 1, False),
        (1, (1,), False),
        ({"a": (1, 2)}, {"a": (1, (2,))}, False),
    ],
)
def test_same_structure(a, b, same):
    assert same_structure(a, b) is same
    assert same_structure(b, a) is same


def test_names_say_where_a_leaf_is():
    assert names_of({"a": 1, "b": (2, {"c": 3})}, "x") == ["x['a']", "x['b'][0]", "x['b'][1]['c']"]


def test_specs():
    """Of a sample; bytes count unknown dimensions as one."""
    spec = spec_of((np.zeros((3, 2), np.float32), {"n": np.int16(4)}))
    assert spec == (
        ArraySpec((3, 2), np.dtype(np.float32)),
        {"n": ArraySpec((), np.dtype(np.int16))},
    )
    assert [s.nbytes for s in flatten(spec)] == [24, 2]
    unknown = ArraySpec((None, 5), np.dtype(np.float64))
    assert (unknown.known, unknown.nbytes) == (False, 40)
    assert spec[0].known


def test_samples_are_arrays_of_native_numbers():
    """Python's floats become float32; another byte order this machine's; the rest stays."""
    x, y = as_sample(({"a": 1.5, "b": np.arange(3, dtype=">i4")}, True))
    assert (x["a"].dtype, x["a"].shape) == (np.float32, ())
    assert x["b"].dtype == np.dtype("i4")
    assert x["b"].dtype.isnative
    assert x["b"].tolist() == [0, 1, 2]
    assert y.dtype == np.bool_
    assert as_arrays(np.array(1.0)).dtype == np.float64
    assert as_sample(7)[0].tolist() == 7


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"text", r"'text'.*expected numbers or texts"),
        (([1], "text"), "a label is the text .*expected numbers"),
        ([[1], [1, 2]], "a list of 2 items that is not an array"),
        ((1, 2, 3, 4), r"a tuple of 4 parts, expected x, \(x, y\) or \(x, y, weights\)"),
        ((1, 2, 3j), "weights are complex128, expected real numbers"),
        ((), "a tuple of 0 parts"),
    ],
)
def test_what_is_no_sample(value, words):
    with pytest.raises(TypeError, match=words):
        as_sample(value)


@pytest.mark.parametrize("got", [np.zeros(3), (np.zeros(3),), [1, 2], None])
def test_a_transform_returns_a_pair(got):
    with pytest.raises(TypeError, match=rf"transform returned a {type(got).__name__}"):
        transformed_parts(got, "transform")


def test_no_labels_are_no_part():
    assert len(transformed_parts((np.zeros(3), None), "transform")) == 1
    assert len(transformed_parts((np.zeros(3), 1), "transform")) == 2


def test_rows_are_padded_with_the_first():
    rows = np.array([[5, 6], [7, 8]])
    assert padded_rows(rows, 2).tolist() == [[5, 6], [7, 8], [5, 6], [5, 6]]
