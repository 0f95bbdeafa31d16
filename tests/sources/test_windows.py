"""Windows of series: which rows are in them, and how much is read and sent for them."""

import pickle

import numpy as np
import pytest

from kloaders.core.rows import Rows
from kloaders.core.structure import flatten
from kloaders.plan.rng import Moment
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.lazy import LazyArray, LazyColumn
from kloaders.sources.windows import Cut, WindowSource

NONE = np.zeros(0, np.int64)


def series(steps, first=0, columns=3):
    """Row k is k, k + 0.1, k + 0.2, ..."""
    return (first + np.arange(steps)[:, None] + np.arange(columns) / 10).astype(np.float32)


def source_of(arrays, *cuts, stride=1, gaps=None):
    return WindowSource(
        [ArrayColumn(a) for a in arrays], cuts, stride, gaps or [NONE] * len(arrays)
    )


def filled(source, indices):
    form = source.sample(int(indices[0]), Moment())
    arrays = [np.zeros((len(indices), *leaf.shape), leaf.dtype) for leaf in flatten(form)]
    reports = []
    source.fill(
        np.asarray(indices, np.int64),
        Rows(form, arrays),
        lambda row, error: reports.append((row, str(error))),
        Moment(),
    )
    return arrays, reports


CUTS = [
    Cut(0, 4, 1),
    Cut(0, 4, 3),
    Cut(2, 3, 2),
    Cut(0, 4, 1, [1]),
    Cut(0, 4, 2, [0, 1]),
    Cut(0, 4, 1, [2, 0]),
    Cut(1, 4, 1, 2),
    Cut(0, 4, 1, None, np.dtype(np.float64)),
]


@pytest.mark.parametrize("cut", CUTS, ids=lambda c: f"{c.first},{c.count},{c.step},{c.columns}")
@pytest.mark.parametrize("kind", ["C", "Fortran", "big-endian", "read"])
def test_a_window_has_these_rows_and_columns(cut, kind):
    whole = [series(30), series(20, 100)]
    arrays = {
        "C": whole,
        "Fortran": [np.asfortranarray(a) for a in whole],
        "big-endian": [a.astype(">f4") for a in whole],
        "read": whole,
    }[kind]
    source = source_of(arrays, cut, stride=2)
    if kind == "read":
        source.series = [LazyColumn(LazyArray(Counting(a))) for a in arrays]
    indices = np.random.default_rng(0).permutation(len(source))
    (got,), reports = filled(source, indices)
    assert not reports
    assert got.dtype == (np.float64 if cut.dtype else np.float32)
    for row, index in zip(got, indices.tolist(), strict=True):
        owner, first = source.where(index)
        numbers = first + cut.first + cut.step * np.arange(cut.count)
        want = whole[owner][numbers]
        want = want if cut.columns is None else want[:, cut.columns]
        np.testing.assert_array_equal(row, want.astype(row.dtype))


def test_no_window_reaches_over_a_gap_or_into_the_next_series():
    source = source_of([series(12), series(7, 100)], Cut(0, 3, 1), gaps=[np.array([5, 7]), NONE])
    firsts = [source.where(k) for k in range(len(source))]
    # Rows 5 and 6 are too few for a window.
    assert firsts == [(0, k) for k in (0, 1, 2, 7, 8, 9)] + [(1, k) for k in range(5)]


def test_what_is_too_short_for_a_window_is_logged(caplog):
    source_of([series(12), series(2)], Cut(0, 3, 1))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "1 of 2 stretches of series are shorter than a window" in caplog.text
    assert "their 2 rows are left out" in caplog.text


def test_without_any_window_the_longest_series_is_said():
    with pytest.raises(
        ValueError, match="spans 13 rows with its horizon, but the longest of 2 ser"
    ):
        source_of([series(12), series(2)], Cut(0, 3, 1), Cut(10, 3, 1))


def test_samples_have_names():
    one = source_of([series(9)], Cut(0, 3, 1), Cut(3, 2, 1))
    assert one.name(2) == "rows 2 to 6"
    two = source_of([series(9), series(9)], Cut(0, 3, 1), stride=3)
    assert two.name(4) == "rows 3 to 5 of series 1"


def test_a_pickled_source_has_the_series_and_no_windows(tmp_path):
    """Also after some were read. A memory map is sent as its file's name."""
    array = series(5000)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for values, most in ((array, array.nbytes + 4000), (mapped, 4000)):
        source = source_of([values], Cut(0, 500, 1), Cut(500, 1, 1))
        filled(source, range(10))
        sent = pickle.dumps(source)
        assert len(sent) < most
        np.testing.assert_array_equal(pickle.loads(sent).sample(7, Moment())[0], array[7:507])


def test_a_file_cut_short_costs_the_windows_behind_its_end(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, series(50))
    source = source_of([np.load(path, mmap_mode="r")], Cut(0, 5, 1), stride=5)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 7 * 12)
    (got,), reports = filled(source, range(10))
    assert [row for row, _ in reports] == [8, 9]
    assert all("a.npy was cut short" in text for _, text in reports)
    np.testing.assert_array_equal(got[:8].reshape(-1, 3), series(40))


class Counting:
    """An array that lies elsewhere, and notes which rows are read."""

    def __init__(self, array, broken=None):
        self.array, self.broken, self.reads = array, broken, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        self.reads.append((rows.start, rows.stop))
        if self.broken is not None and rows.start <= self.broken < rows.stop:
            raise OSError(f"row {self.broken} is damaged")
        return self.array[rows]


def test_windows_that_overlap_are_read_as_one():
    rows = Counting(series(100))
    source = WindowSource([LazyColumn(LazyArray(rows))], (Cut(0, 4, 1), Cut(4, 2, 1)), 1, [NONE])
    indices = [30, 3, 4, 5, 33, 60]
    form = source.sample(0, Moment())
    rows.reads.clear()
    arrays = [np.zeros((6, *leaf.shape), leaf.dtype) for leaf in flatten(form)]
    source.fill(np.array(indices), Rows(form, arrays), pytest.fail, Moment())
    assert rows.reads == [(3, 11), (30, 39), (60, 66)]
    assert arrays[0][:, 0, 0].tolist() == indices
    assert arrays[1][:, 0, 0].tolist() == [k + 4 for k in indices]


def test_a_row_that_does_not_load_costs_the_windows_that_have_it():
    rows = Counting(series(100), broken=35)
    source = WindowSource([LazyColumn(LazyArray(rows))], (Cut(0, 4, 1),), 1, [NONE])
    (got,), reports = filled(source, [30, 32, 31, 36, 3])
    assert reports == [(1, "row 35 is damaged")]
    assert got[[0, 2, 3, 4], 0, 0].tolist() == [30, 31, 36, 3]


def test_other_windows_of_the_same_series_are_other_data():
    def made(*cuts, stride=1):
        return source_of([series(50)], *cuts, stride=stride).fingerprint()

    whole = made(Cut(0, 4, 1))
    assert whole == made(Cut(0, 4, 1))
    others = [made(Cut(0, 5, 1)), made(Cut(0, 4, 2)), made(Cut(0, 4, 1), stride=2)]
    assert len({str(one) for one in [whole, *others]}) == 4
