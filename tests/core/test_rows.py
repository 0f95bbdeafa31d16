"""Rows of a batch: what fits is copied, what does not is reported with its row."""

import numpy as np
import pytest

from kloaders.core.rows import RowMismatch, Rows, copy_into_row, report_at


class Reports(list):
    def __call__(self, row, error):
        self.append((row, error))


def three_rows():
    return Rows((0, {"a": 1}), [np.zeros((3, 2), np.float32), np.zeros(3, np.int64)])


def test_a_sample_goes_into_its_row():
    rows, reports = three_rows(), Reports()
    assert len(rows) == 3
    rows.put(1, (np.float32([4, 5]), {"a": np.int64(6)}), reports)
    assert rows.arrays[0].tolist() == [[0, 0], [4, 5], [0, 0]]
    assert rows.arrays[1].tolist() == [0, 6, 0]
    assert not reports


def test_a_part_shares_memory():
    rows = three_rows()
    rows.part(slice(1, 3)).put(1, (np.float32([4, 5]), {"a": np.int64(6)}), Reports())
    assert rows.arrays[1].tolist() == [0, 0, 6]
    assert len(rows.part(slice(1, 3))) == 2


@pytest.mark.parametrize("value", [np.zeros(3, np.float32), np.zeros(2, np.float64)])
def test_another_shape_or_dtype_is_reported_and_not_written(value):
    """With the array itself, which the whole batch may turn out to have."""
    rows, reports = three_rows(), Reports()
    rows.arrays[0][...] = 7
    rows.put(2, (value, {"a": np.int64(6)}), reports)
    [(row, error)] = reports
    assert (row, error.row, error.leaf) == (2, 2, 0)
    assert error.array is value
    assert (rows.arrays[0] == 7).all()
    assert rows.arrays[1].tolist() == [0, 0, 6]


@pytest.mark.parametrize("sample", [(np.zeros(2),), (np.zeros(2), 1), (np.zeros(2), {"b": 1})])
def test_another_structure_is_an_error(sample):
    with pytest.raises(TypeError, match="nested differently from the first sample"):
        three_rows().put(0, sample, Reports())


def test_reports_of_a_part_count_from_the_whole():
    whole = Reports()
    part = report_at(whole, 10)
    error = ValueError("bad")
    part(2, error)
    copy_into_row(np.zeros(9), np.zeros((5, 2)), 3, 0, part)
    assert whole[0] == (12, error)
    assert whole[1][0] == whole[1][1].row == 13
    assert isinstance(whole[1][1], RowMismatch)


def test_no_arrays_are_no_rows():
    assert len(Rows((), [])) == 0
