"""Samples put together from several sources: which array goes where, and what is reported of it."""

import numpy as np
import pytest

from kloaders.core.options import TransformOptions
from kloaders.core.rows import RowMismatch, Rows
from kloaders.plan.rng import Moment
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn, ListColumn
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.zipped import ZippedSource


def arrays(first, labels=None):
    x = ArrayColumn(np.arange(5) + first)
    return ColumnSource((x,) if labels is None else (x, ArrayColumn(np.arange(5) + labels)))


def zipped(sources, form, **transforms):
    pipelines = [SamplePipeline(source, TransformOptions(**transforms)) for source in sources]
    return ZippedSource(pipelines, form)


def test_arrays_go_where_the_form_says():
    """Labels of the first lie behind the input of the second."""
    source = zipped([arrays(0, 30), arrays(10)], (({"a": (0, 0)}, (1, 0)), (0, 1)))
    form = source.sample(0, Moment())
    assert str(source.sample(2, Moment())) == str(
        (({"a": np.array(2)}, np.array(12)), np.array(32))
    )
    out = [np.zeros(2, np.int64) for _ in range(3)]
    source.fill(np.array([4, 1]), Rows(form, out), pytest.fail, Moment())
    assert [row.tolist() for row in out] == [[4, 1], [14, 11], [34, 31]]


def test_an_array_that_does_not_fit_is_reported_with_its_number_in_the_whole():
    ragged = ColumnSource((ListColumn([np.zeros(2 + (k == 3)) for k in range(5)]),))
    source = zipped([arrays(0, 30), ragged], (((0, 0), (1, 0)), (0, 1)))
    form = source.sample(0, Moment())
    out = [np.zeros(2, np.int64), np.zeros((2, 2)), np.zeros(2, np.int64)]
    found = []
    source.fill(np.array([0, 3]), Rows(form, out), lambda row, e: found.append((row, e)), Moment())
    ((row, error),) = found
    assert isinstance(error, RowMismatch)
    assert (row, error.row, error.leaf) == (1, 1, 1)


def test_labels_are_known_where_they_are_those_of_one_source():
    plain = zipped([arrays(0, 30), arrays(10)], (((0, 0), (1, 0)), (0, 1)))
    assert plain.labels().tolist() == [30, 31, 32, 33, 34]
    assert zipped([arrays(0), arrays(1)], ((0, 0), (1, 0))).labels() is None
    changed = zipped([arrays(0, 30), arrays(1)], (((0, 0), (1, 0)), (0, 1)), transform=max)
    assert changed.labels() is None


def test_what_is_transformed_may_not_be_kept():
    form = ((0, 0), (1, 0))
    plain, transformed = (
        zipped([arrays(0), arrays(1)], form, transform=transform) for transform in (None, max)
    )
    assert plain.not_kept == ""
    assert "zip the results" in transformed.not_kept
    assert transformed.without_transforms().not_kept == ""


def test_a_sample_is_called_by_all_its_names():
    source = zipped([arrays(0), arrays(1)], ((0, 0), (1, 0)))
    assert source.name(2) == "row 2"
    source.pipelines[1].source.name = lambda index: f"b{index}"
    assert source.name(2) == "row 2 with b2"
