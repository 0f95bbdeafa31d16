"""What stands in the first records of a file about structure, dtypes and classes."""

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord.examples import encode_example, parse_example
from kloaders.sources.tfrecord.features import Feature
from kloaders.sources.tfrecord.forms import (
    FORM,
    Form,
    feature_of,
    features_for,
    form_among,
)


def records(*found):
    """A `read` of these records; None is one that is damaged."""

    def read(index):
        if found[index] is None:
            raise DecodeError("damaged")
        return found[index]

    return read


def test_a_form_is_read_as_it_was_written():
    form = Form(
        {
            "x": {"a": Feature("a", (), "float64"), "b": (Feature("b/0"), Feature("b/1", (None,)))},
            "y": Feature("label", (), "int32"),
        },
        ["cat", "dog"],
    )
    record = encode_example({"label": 3}) + form.example()
    assert parse_example(record)["label"].tolist() == [3]
    assert form_among(records(record), 0, 1) == form


def test_a_damaged_record_is_passed_by():
    form = Form({"x": Feature("x")})
    other = encode_example({"x": 1.0})
    assert form_among(records(None, other + form.example()), 0, 2) == form
    assert form_among(records(other, other + form.example()), 0, 2) is None  # by others
    assert form_among(records(None, None, None, other), 0, 4) is None


@pytest.mark.parametrize(
    "content", ["no json", "[]", "{}", '{"version": 1}', '{"version": 1, "x": 7, "class_names": 1}']
)
def test_what_others_call_so_is_none(content):
    assert form_among(records(encode_example({FORM: content})), 0, 1) is None


def test_a_later_version_is_named():
    with pytest.raises(ValueError, match=r"version 2, but this kloaders reads 1: upgrade"):
        form_among(records(encode_example({FORM: '{"version": 2}'})), 0, 1)


@pytest.mark.parametrize(
    ("array", "label", "names", "feature"),
    [
        (np.float64(0.1), True, ["y", "y/float64"], Feature("y/float64", (), "float64")),
        (np.float64(0.1), False, ["y", "y/float64"], Feature("y/float64", (), "float64")),
        (np.float32(0.1), True, ["y"], Feature("y", ())),
        (np.float16(0.1), True, ["y"], Feature("y", (), "float16")),
        (np.int32(7), True, ["y"], Feature("y", (), "int32")),
        (np.bool_(1), False, ["y"], Feature("y", (), "bool")),
        (np.int64(7), True, ["y"], Feature("y", ())),
        (np.ones((2, 2), np.uint8), False, ["y", "y/dtype", "y/shape"], Feature("y")),
        (np.ones(2, np.uint8), True, ["y"], Feature("y", (None,), "uint8")),
    ],
)
def test_the_features_of_an_array(array, label, names, feature):
    array = np.asarray(array)
    assert sorted(features_for("y", array, label)) == names
    assert feature_of("y", array, label) == feature
