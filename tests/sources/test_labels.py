"""Classes of samples that are known before any is read; and what is said where they are not."""

import numpy as np
import pytest

from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn, ListColumn, OneHotColumn
from kloaders.sources.labels import classes_of, codes_of, known_labels
from tests.support.sources import Numbered


def source_of(*labels):
    x = ArrayColumn(np.zeros((4, 2)))
    return ColumnSource((x, *labels))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0, 1, 2]),
        np.array([2.0, 0.0, 1.0, 2.0]),
        np.array([[2], [0], [1], [2]]),
        np.eye(3)[[2, 0, 1, 2]],
    ],
    ids=["integers", "whole floats", "a column", "one-hot rows"],
)
def test_classes_of_labels(labels):
    source = source_of(ArrayColumn(labels))
    assert classes_of(source, "stratify").tolist() == [2, 0, 1, 2]
    assert known_labels(source).tolist() == [2, 0, 1, 2]


def test_one_hot_columns_know_their_classes():
    source = source_of(OneHotColumn(ArrayColumn(np.array([2, 0, 1, 2])), 3))
    assert known_labels(source).tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    "labels",
    [
        ArrayColumn(np.array([0.5, 1, 2, 3])),
        ArrayColumn(np.array([[1, 1], [0, 1], [1, 0], [1, 0]])),
        ArrayColumn(np.zeros((4, 2, 2))),
        ListColumn([np.zeros(k) for k in range(4)]),
        (ArrayColumn(np.arange(4)), ArrayColumn(np.arange(4))),
    ],
    ids=["halves", "several ones", "pictures", "lists", "two outputs"],
)
def test_labels_that_are_no_classes(labels):
    source = source_of(labels)
    assert known_labels(source) is None
    with pytest.raises(ValueError, match=r"stratify=True needs labels that are classes"):
        classes_of(source, "stratify")


def test_no_labels():
    with pytest.raises(ValueError, match=r"balance=True needs labels, but there are none"):
        classes_of(source_of(), "balance")


def test_samples_of_a_hook():
    with pytest.raises(ValueError, match=r"makes its samples in a hook.*pass stratify="):
        classes_of(Numbered(4), "stratify")
    assert known_labels(Numbered(4)) is None


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        ([30, 10, 30], [10, 30], [1, 0, 1]),
        (np.array([[3], [1], [3]]), [1, 3], [1, 0, 1]),
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        (np.array(["b", "a", "b"]), ["a", "b"], [1, 0, 1]),
        ([True, False, True], [False, True], [1, 0, 1]),
    ],
)
def test_codes_are_numbers_of_sorted_values(values, names, codes):
    found, numbers = codes_of(values, 3, "groups")
    assert found == names
    assert numbers.tolist() == codes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "lengths differ: groups has 2 values, but there are 3 samples"),
        (np.zeros((3, 2)), r"groups has shape \(3, 2\), expected one value for each of 3"),
        ([1.0, np.nan, 2.0], r"groups\[1\] is missing \(nan\)"),
        (["a", "b", None], r"groups\[2\] is missing \(None\)"),
    ],
)
def test_values_that_are_no_codes(values, message):
    with pytest.raises(ValueError, match=message):
        codes_of(values, 3, "groups")
