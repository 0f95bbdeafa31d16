"""`class_weight=`: which label gets which weight, and what is no weights by class."""

import numpy as np
import pytest

from kloaders.engine.class_weights import class_weights_of
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn, ListColumn


def source(y):
    labels = y if isinstance(y, dict | tuple) else ArrayColumn(y)
    return ColumnSource((ArrayColumn(np.zeros(6)), labels))


def weights(given, y, known=None):
    found = class_weights_of(given, None if known is None else source(known))
    return found(y)


GIVEN = {0: 1.0, 1: 10.0, 2: 100.0}
CODES = np.array([0, 2, 1, 1])


@pytest.mark.parametrize(
    ("y", "want"),
    [
        (CODES, [1, 100, 10, 10]),
        (CODES.astype(np.uint8), [1, 100, 10, 10]),
        (CODES.astype(np.float32), [1, 100, 10, 10]),
        (CODES[:, None], [1, 100, 10, 10]),
        (np.eye(3, dtype=np.float32)[CODES], [1, 100, 10, 10]),
        (np.array([[0.5, 0.5, 0]], np.float32), [5.5]),
    ],
    ids=["int", "uint8", "float", "(n, 1)", "one-hot", "soft"],
)
def test_labels_of_one_class(y, want):
    found = weights(GIVEN, y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want)


def test_two_classes_may_be_soft():
    found = weights({0: 1, 1: 3}, np.array([0, 1, 0.5], np.float32))
    assert found.tolist() == [1, 3, 2]
    assert weights({0: 1, 1: 3}, np.array([[True], [False]])).tolist() == [3, 1]


def test_masks_have_a_weight_for_each_pixel():
    mask = np.array([[[0, 1], [2, 0]], [[1, 1], [0, 255]]], np.uint8)
    want = [[[1, 10], [100, 1]], [[10, 10], [1, 0]]]
    assert weights({**GIVEN, 255: 0.0}, mask).tolist() == want
    assert weights({**GIVEN, 255: 0.0}, mask[..., None]).tolist() == want
    rows = np.eye(3, dtype=np.float32)[mask % 253]
    assert weights(GIVEN, rows)[1, 1].tolist() == [1, 100]


def test_outputs_have_weights_of_their_own():
    y = {"a": CODES, "b": CODES % 2}
    found = weights({"a": GIVEN, "b": None}, y)
    assert found["a"].tolist() == [1, 100, 10, 10]
    assert found["b"].tolist() == [1, 1, 1, 1]
    assert weights({"b": {0: 2, 1: 3}}, y)["a"].tolist() == [1, 1, 1, 1]
    assert weights((None, {0: 2, 1: 3}), (CODES, CODES % 2))[1].tolist() == [2, 2, 3, 3]


KNOWN = np.array([0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    "known",
    [KNOWN, KNOWN[:, None], KNOWN.astype(np.float32), np.eye(3, dtype=np.float32)[KNOWN]],
    ids=["int", "(n, 1)", "float", "one-hot"],
)
def test_balanced_classes_count_alike(known):
    found = weights("balanced", known, known)
    sums = [found[k == KNOWN].sum() for k in range(3)]
    np.testing.assert_allclose(sums, [2, 2, 2], rtol=1e-6)


def test_balanced_by_output_and_with_a_class_that_never_comes():
    known = {"a": ArrayColumn(KNOWN), "b": ArrayColumn(KNOWN % 2)}
    found = weights({"a": "balanced"}, {"a": KNOWN, "b": KNOWN % 2}, known)
    assert found["a"].tolist() == pytest.approx([2 / 3] * 3 + [1] * 2 + [2])
    rows = np.eye(4, dtype=np.float32)[KNOWN]
    assert weights("balanced", rows, KNOWN).tolist() == pytest.approx([2 / 3] * 3 + [1] * 2 + [2])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("balance", ValueError, "expected a dict of class to weight"),
        ([1.0, 2.0], TypeError, r"dict\(enumerate\(weights\)\)"),
        ({}, TypeError, "expected a dict"),
        ({0.5: 1}, TypeError, "the class 0.5, expected the number of a class"),
        ({0: "a"}, ValueError, r"class_weight\[0\] is 'a'"),
        ({0: -1}, ValueError, "of at least 0"),
        ({0: float("nan")}, ValueError, "finite"),
        ({"cat": 2.0}, TypeError, "classes are numbers"),
        ("balanced", ValueError, "unknown before they are read"),
    ],
)
def test_what_is_no_class_weight(given, error, words):
    with pytest.raises(error, match=words):
        class_weights_of(given, None)


def test_balanced_needs_classes():
    for known in (np.linspace(0, 1, 6), np.ones((6, 3), np.float32)):
        with pytest.raises(ValueError, match="needs labels that are classes"):
            class_weights_of("balanced", source(known))
    with pytest.raises(ValueError, match=r"there are several outputs.*'a': \"balanced\""):
        class_weights_of("balanced", source({"a": ArrayColumn(KNOWN), "b": ArrayColumn(KNOWN)}))
    with pytest.raises(ValueError, match="unknown before"):
        class_weights_of("balanced", source((ListColumn([KNOWN] * 6),))) if False else (
            class_weights_of(
                "balanced", ColumnSource((ArrayColumn(KNOWN), ListColumn([KNOWN] * 6)))
            )
        )


@pytest.mark.parametrize(
    ("given", "y", "words"),
    [
        (GIVEN, np.array([0, 3]), "y holds 3, but class_weight has the classes"),
        (GIVEN, np.array([0.5, 1]), "y holds 0.5"),
        (GIVEN, np.eye(3, dtype=int), "is that a one-hot row, or a class for each step"),
        (GIVEN, np.ones((2, 3), np.float32), "rows that do not sum to 1"),
        (GIVEN, np.ones((2, 4), np.float32), "rows of 4 numbers"),
        (GIVEN, {"a": CODES}, "several outputs, but class_weight is for one"),
        ({"b": GIVEN}, {"a": CODES}, "for the output 'b', but the outputs have 'a'"),
        ((GIVEN,), CODES, "labels are not such a tuple"),
    ],
    ids=["unknown", "no class", "int rows", "tags", "count", "outputs", "name", "tuple"],
)
def test_labels_that_have_no_weight(given, y, words):
    with pytest.raises(ValueError, match=words):
        weights(given, y)
