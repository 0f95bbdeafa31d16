"""Products of weights, what a transform does to them, and whether they fit their labels."""

import numpy as np
import pytest

from kloaders.core.checks import call_of
from kloaders.core.weighting import check_fits, product, with_weights


def ones(*shape):
    return np.ones(shape, np.float32)


def test_a_product_is_for_all_outputs_or_output_by_output():
    per_sample = np.array([1, 2], np.float32)
    pixels = np.full((2, 3, 3), 5, np.float32)
    assert product(per_sample, pixels)[:, 0, 0].tolist() == [5, 10]
    assert product(pixels, per_sample)[:, 2, 2].tolist() == [5, 10]
    nested = product(per_sample, {"a": per_sample, "b": pixels})
    assert nested["a"].tolist() == [1, 4]
    assert nested["b"].shape == (2, 3, 3)
    assert product({"a": per_sample}, {"a": per_sample})["a"].tolist() == [1, 4]
    with pytest.raises(TypeError, match="nested differently"):
        product({"a": per_sample}, (per_sample,))


def plain(x, y, rng):
    return x, y


def weighed(x, y, w, rng):
    return x, y, w


X, Y = ones(3, 3), ones(3, 3)


def test_a_number_goes_with_its_sample_and_a_map_must_be_taken():
    number, pixels = np.asarray(np.float32(2)), ones(3, 3)
    call = call_of(plain, "transform")
    assert with_weights((X, Y), None, call, "transform") == (X, Y)
    assert with_weights((X, Y), number, call, "transform")[2] == 2
    assert with_weights((X, Y, np.asarray(np.float32(3))), number, call, "transform")[2] == 6
    with pytest.raises(TypeError, match=r"of shape \(3, 3\), which would stay untransformed"):
        with_weights((X, Y), pixels, call, "transform")
    with pytest.raises(TypeError, match=r"add a parameter, batch_transform\(x, y, w, rng\)"):
        with_weights((X, Y), ones(4, 3), call_of(plain, "batch_transform"), "batch_transform")
    with_weights((X, Y), ones(4), call_of(plain, "batch_transform"), "batch_transform")
    with pytest.raises(TypeError, match="returned no labels"):
        with_weights((X,), number, call, "transform")


def test_weights_that_were_taken_come_back():
    call = call_of(weighed, "transform")
    assert len(with_weights((X, Y, ones(3, 3)), ones(3, 3), call, "transform")) == 3
    with pytest.raises(TypeError, match="given weights as w, but returned none"):
        with_weights((X, Y), ones(3, 3), call, "transform")


@pytest.mark.parametrize(
    ("weights", "y"),
    [
        (ones(2), ones(2)),
        (ones(2, 1), ones(2)),
        (ones(2), ones(2, 5, 5, 3)),
        (ones(2, 5), ones(2, 5, 5, 3)),
        (ones(2, 5, 5, 1), ones(2, 5, 5, 3)),
        (ones(2), {"a": ones(2), "b": ones(2, 5)}),
        ({"a": ones(2), "b": ones(2, 5)}, {"a": ones(2), "b": ones(2, 5)}),
    ],
    ids=["number", "(1,)", "mask", "rows", "pixels", "all outputs", "each output"],
)
def test_weights_fit(weights, y):
    check_fits(weights, y)


@pytest.mark.parametrize(
    ("weights", "y", "words"),
    [
        (ones(2, 3), ones(2), r"shape \(3,\), and its labels \(\)"),
        (ones(2, 4, 5), ones(2, 5, 5), "two inputs and a label"),
        (ones(2, 5), {"a": ones(2), "b": ones(2, 5)}, "its labels"),
        ({"a": ones(2)}, {"b": ones(2)}, "weights are a dict of 'a', and labels a dict of 'b'"),
        ((ones(2),), ones(2), "weights are a tuple of 1, and labels one array"),
    ],
    ids=["row", "other side", "for one output", "other names", "tuple"],
)
def test_weights_that_do_not_fit(weights, y, words):
    with pytest.raises(ValueError, match=words):
        check_fits(weights, y)
