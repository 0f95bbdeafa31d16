"""Samples put together from columns: what is known of them, and columns that do not go together."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.structure import ArraySpec
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources import columns
from kloaders.sources.column_source import ColumnSource, checked_columns, runs_user_code
from kloaders.sources.columns import (
    ArrayColumn,
    CallColumn,
    CastColumn,
    ListColumn,
    OneHotColumn,
    PathColumn,
)
from kloaders.sources.files import FileReader
from kloaders.sources.path_lists import PackedPaths

PATHS = PackedPaths(["0.npy", "1.npy", "2.npy"])
NAMES = ("x", "labels")


def numbers(count=3):
    return ArrayColumn(np.arange(count))


def ragged():
    return ListColumn([np.full((k + 1, 2), k, np.float32) for k in range(3)])


def read_of(decode=None):
    return FileReader(ImageOptions(), decode)


def test_what_is_known_of_columns():
    source = ColumnSource((ragged(), numbers()))
    assert source.labels().tolist() == [0, 1, 2]
    assert source.lengths().tolist() == [1, 2, 3]
    spec = ArraySpec((1, 2), np.dtype("f4")), ArraySpec((), np.dtype("i8"))
    x, y = source.delivered(spec)
    assert (x.shape, y.shape) == ((None, 2), ())


def test_nothing_is_said_of_what_a_function_makes():
    """The columns hold paths then, and what becomes of these only the function knows."""
    source = ColumnSource(({"a": PathColumn(PATHS, read_of(len)), "b": ragged()},))
    spec = ({"a": ArraySpec((1,), np.dtype("f4")), "b": ArraySpec((1, 2), np.dtype("f4"))},)
    assert source.lengths() is None
    assert source.delivered(spec) is spec


@pytest.mark.parametrize(
    ("column", "own"),
    [
        (numbers(), False),
        (CallColumn(len, PATHS), False),
        (PathColumn(PATHS, read_of()), False),
        (PathColumn(PATHS, read_of(len)), True),
        (CastColumn(PathColumn(PATHS, read_of(len)), np.dtype("f4")), True),
    ],
)
def test_whether_a_function_of_the_users_is_called(column, own):
    assert runs_user_code(column) is own
    assert ColumnSource((numbers(), column)).runs_user_code is own


def test_labels_changed_leave_the_source_as_it_was():
    source = ColumnSource((numbers(), {"a": numbers(), "b": numbers()}))
    changed = source.with_labels(lambda column: OneHotColumn(column, 3))
    assert changed.sample(1, Moment())[1]["b"].tolist() == [0, 1, 0]
    assert source.sample(1, Moment())[1]["b"] == 1
    assert ColumnSource((numbers(),)).with_labels(str) is None


def test_all_columns_are_read_ahead(monkeypatch):
    asked = []
    monkeypatch.setattr(columns.files, "read_ahead", asked.append)
    column = PathColumn(PATHS, read_of())
    ColumnSource((column, column)).prefetch(np.array([2, 0]))
    assert asked == ["2.npy", "0.npy"] * 2


def test_columns_below_others_are_closed():
    class Open(ArrayColumn):
        closed = 0

        def close(self):
            self.closed += 1

    column = Open(np.arange(3))
    ColumnSource((CastColumn(column, np.dtype("f4")), column)).close()
    assert column.closed == 2


def test_columns_that_go_together():
    x, y = numbers(), numbers()
    assert checked_columns("Loader", x, None, NAMES) == (x,)
    assert checked_columns("Loader", x, y, NAMES) == (x, y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (numbers(3), numbers(2), "lengths differ: x has 3, labels has 2"),
        ({"a": numbers(3), "b": numbers(4)}, None, r"x\['a'\] has 3, x\['b'\] has 4"),
        ((numbers(1), *[numbers(2)] * 5), None, "and so on, 6 in all"),
        ({}, None, "x is an empty dict"),
        (numbers(), (), "labels is an empty tuple"),
        (numbers(0), numbers(0), r"Loader.*print len\(x\)"),
    ],
)
def test_columns_that_do_not(x, y, message):
    with pytest.raises(ValueError, match=message):
        checked_columns("Loader", x, y, NAMES)


TWO = [np.zeros((20, 2)), np.ones((20, 2))]
BOTH = "{} is a list of 2 arrays with 20 rows each, which may be 2 {} or 2 samples: for {} pass a tuple"


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (TWO, None, BOTH.format("x", "inputs", "inputs")),
        (TWO, np.arange(20), BOTH.format("x", "inputs", "inputs")),
        (TWO, TWO, BOTH.format("x", "inputs", "inputs")),
        (np.arange(20), TWO, BOTH.format("y", "outputs", "outputs")),
    ],
)
def test_a_list_of_equally_long_arrays_is_asked_about(x, y, said):
    with pytest.raises(ValueError, match=said):
        kl.ArraySequenceLoader(x, y, 5)
    many = kl.ArraySequenceLoader(tuple(x), tuple(y) if y is TWO else y, 5) if x is TWO else None
    if many is not None:
        assert many.samples == 20


def test_lists_of_arrays_whose_number_of_samples_is_known():
    assert kl.ArraySequenceLoader(TWO, [0, 1], 2).samples == 2
    assert kl.ArraySequenceLoader(np.stack(TWO), None, 2).samples == 2
    assert kl.ArraySequenceLoader([np.zeros(3)] * 20, None, 2).samples == 20
    assert kl.ArraySequenceLoader([np.zeros(30)] * 20, np.arange(20), 2).samples == 20
    assert kl.ArraySequenceLoader([np.zeros(30), np.zeros(31)], None, 2).samples == 2
    assert kl.ArraySequenceLoader(TWO[0], [np.zeros(4)] * 20, 2).samples == 20


def test_a_list_of_weights_for_several_outputs_says_so():
    labels = {"a": np.arange(20), "b": np.arange(20)}
    with pytest.raises(ValueError, match="sample_weights is a list of 2 arrays of 20 values: for"):
        kl.ArraySequenceLoader(np.zeros(20), labels, 5, sample_weights=[np.ones(20)] * 2)


def test_a_list_of_arrays_that_lie_elsewhere(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = file["b"] = np.zeros((20, 2))
        with pytest.raises(TypeError, match=r"x is a list of 2 arrays outside RAM .*tuple\(x\)"):
            kl.ArraySequenceLoader([file["a"], file["b"]])
