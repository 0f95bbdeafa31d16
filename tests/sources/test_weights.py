"""Weights beside x and y: what may be given, and that each goes with its sample."""

import pickle

import numpy as np
import pytest

from kloaders.core.rows import Rows
from kloaders.core.structure import flatten
from kloaders.plan.rng import Moment
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.weights import WeightColumns, WeightedSource, taken, weights_of
from tests.support.sources import Numbered

N = 6
NUMBERS = np.arange(N)


@pytest.mark.parametrize(
    "given",
    [NUMBERS, NUMBERS.tolist(), tuple(NUMBERS.tolist()), NUMBERS > 2, NUMBERS.astype(np.float64)],
    ids=["array", "list", "tuple", "bool", "float64"],
)
def test_one_number_a_sample_stays_an_array(given):
    found = weights_of(given, N)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert found.tolist() == [float(v) for v in given]


def values(found, index):
    return [leaf.read(index) for leaf in flatten(found.columns)]


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS[:, None],
        np.repeat(NUMBERS[:, None, None], 3, 1),
        (NUMBERS, NUMBERS * 1.0),
        {"a": NUMBERS, "b": np.repeat(NUMBERS[:, None], 4, 1)},
        [np.full(2 + k, k) for k in NUMBERS],
    ],
    ids=["(n, 1)", "pixels", "tuple", "dict", "arrays of unequal length"],
)
def test_all_else_becomes_columns(given):
    found = weights_of(given, N)
    assert isinstance(found, WeightColumns)
    for leaf in values(found, 4):
        assert leaf.dtype == np.float32
        assert set(np.ravel(leaf)) == {4}
    assert values(found.take(np.array([5, 4])), 1)[0].max() == 4
    assert weights_of(found, N) is found


def test_a_memory_map_stays_one(tmp_path):
    mapped = np.memmap(tmp_path / "w", np.float64, "w+", shape=(N,))
    mapped[:] = NUMBERS
    found = weights_of(mapped, N)
    assert found.columns.column.array is mapped
    assert values(found, 3)[0] == 3


def test_files_and_functions_of_paths(tmp_path):
    paths = []
    for k in NUMBERS:
        np.save(tmp_path / f"{k}.npy", np.full((2, 2), k, np.float64))
        paths.append(str(tmp_path / f"{k}.npy"))
    assert values(weights_of(paths, N), 5)[0].tolist() == [[5, 5], [5, 5]]
    found = weights_of(lambda path: float(path[-5]) / 2, N, paths=paths)
    assert values(found, 3)[0] == 1.5
    with pytest.raises(TypeError, match="have no file paths"):
        weights_of(lambda path: 1.0, N)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (np.ones(5), ValueError, r"shape \(5,\), expected one weight for each of 6 samples"),
        (np.float32(1), ValueError, r"shape \(\)"),
        ({"a": np.ones(5)}, ValueError, r"sample_weights\['a'\] has 5 values"),
        ({}, ValueError, "is empty"),
        ([None] * N, TypeError, "expected one number for each"),
        ([{}] * N, TypeError, "expected one number for each"),
        (np.ones(N, complex), TypeError, "expected one number for each"),
    ],
    ids=["short", "number", "short output", "no output", "None", "dicts", "complex"],
)
def test_what_is_no_weights(given, error, words):
    with pytest.raises(error, match=words):
        weights_of(given, N)


def test_weights_of_some_samples():
    assert taken(None, np.array([1])) is None
    assert taken(np.arange(4.0), np.array([3, 1])).tolist() == [3, 1]
    assert taken(np.arange(4.0), None).tolist() == [0, 1, 2, 3]


def weighted(x=None):
    columns = (ArrayColumn(NUMBERS), ArrayColumn(NUMBERS * 10))
    w = weights_of({"a": NUMBERS, "b": np.repeat(NUMBERS[:, None], 3, 1)}, N).columns
    return WeightedSource(ColumnSource(columns), w)


@pytest.mark.parametrize("numbers", [None, [4, 2, 0]], ids=["all", "some"])
def test_each_weight_goes_with_its_sample(numbers):
    source = weighted()
    source = pickle.loads(pickle.dumps(source)).for_worker()
    if numbers is not None:
        source = source.take(np.array(numbers))
    whole = range(N) if numbers is None else numbers
    form = source.sample(0, Moment())
    indices = np.array([2, 0, 1])
    rows = Rows(form, [np.empty((3, *leaf.shape), leaf.dtype) for leaf in flatten(form)])
    source.fill(indices, rows, lambda row, error: pytest.fail(str(error)), Moment())
    by_one = [read() for _, read in source.readers(indices, Moment())]
    for row, index in enumerate(indices):
        for parts in (source.sample(int(index), Moment()), source.read(int(index)), by_one[row]):
            x, y, w = parts
            assert y == 10 * x == 10 * whole[index]
            assert w["a"] == x
            assert w["b"].tolist() == [x] * 3
        assert [leaf[row].max() for leaf in rows.arrays] == [
            whole[index] * k for k in (1, 10, 1, 1)
        ]
    assert set(source.fingerprint()) == {"data", "labels", "weights"}
    source.prefetch(indices)
    source.close()


def test_weights_need_labels_and_come_from_one_place():
    alone = ColumnSource((ArrayColumn(NUMBERS),))
    with pytest.raises(ValueError, match="needs labels"):
        WeightedSource(alone, ArrayColumn(NUMBERS)).read(0)
    with pytest.raises(TypeError, match="already has weights"):
        WeightedSource(weighted(), ArrayColumn(NUMBERS)).read(0)


def test_labels_are_changed_below_the_weights():
    changed = weighted().with_labels(lambda column: ArrayColumn(NUMBERS + 1))
    x, y, w = changed.read(3)
    assert (x, y, w["a"]) == (3, 4, 3)
    assert WeightedSource(Numbered(N), ArrayColumn(NUMBERS)).with_labels(lambda c: c) is None
