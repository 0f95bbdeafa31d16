"""Rows of a Hugging Face Dataset: which row is which, and what is known of it."""

import pickle

import numpy as np
import pytest

from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import fields_of
from kloaders.sources.huggingface import HuggingFaceSource

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")

ROWS = 30


@pytest.fixture
def dataset():
    features = datasets.Features(
        {
            "n": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "array": datasets.Array2D((2, 3), "float32"),
            "box": {"x": datasets.Value("float32"), "y": datasets.Value("float32")},
        }
    )
    columns = {
        "n": list(range(ROWS)),
        "label": [n % 2 for n in range(ROWS)],
        "array": [np.full((2, 3), n, np.float32) for n in range(ROWS)],
        "box": [{"x": n / 2, "y": 0.0} for n in range(ROWS)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def source_of(dataset, x="n", y="label", class_names=None):
    options = (ImageOptions(), None)
    return HuggingFaceSource(dataset, fields_of(x, y, options, options, class_names))


def test_rows_come_by_number(dataset):
    source = source_of(dataset, {"n": "n", "array": "array", "x": "box:x"})
    for n in (0, 7, 29):
        x, y = source.sample(n, Moment())
        assert (x["n"], x["x"], y) == (n, n / 2, n % 2)
        assert x["n"].dtype == np.int32
        np.testing.assert_array_equal(x["array"], np.full((2, 3), n, np.float32))


def test_what_was_selected_counts(dataset):
    source = source_of(dataset.select([5, 3, 8]).with_format("numpy"))
    assert [int(source.sample(k, Moment())[0]) for k in range(3)] == [5, 3, 8]


def test_names_of_classes_and_labels(dataset):
    source = source_of(dataset)
    assert source.class_names() == ["a", "b"]
    assert source.labels().tolist() == [n % 2 for n in range(ROWS)]
    assert source_of(dataset, y=None).class_names() is None
    assert source_of(dataset, y="n").class_names() is None
    assert source_of(dataset, y=["n", "label"]).class_names() is None
    assert source_of(dataset, y="box:x").labels().tolist() == [n / 2 for n in range(ROWS)]


def test_names_fingerprint_and_token(dataset):
    source = source_of(dataset)
    assert source.name(3) == "row 3"
    assert source.fingerprint() == source_of(dataset).fingerprint()
    other = dataset.map(lambda row: {"n": row["n"] + 1})
    assert source.fingerprint() != source_of(other).fingerprint()
    assert source.token not in (None, source_of(other).token)


def test_it_pickles(dataset):
    assert pickle.loads(pickle.dumps(source_of(dataset))).sample(3, Moment())[0] == 3


def test_a_column_that_is_not_there(dataset):
    with pytest.raises(
        ValueError, match="there is no column 'm', the columns are n, label, array, box"
    ):
        source_of(dataset, "m")
