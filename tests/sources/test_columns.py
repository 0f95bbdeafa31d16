"""One value for each sample: whatever a column reads from, `read` and `fill` agree, and errors name rows."""

import pickle

import numpy as np
import pytest

from kloaders.core.rows import RowMismatch
from kloaders.core.structure import ArraySpec
from kloaders.formats.errors import DecodeError
from kloaders.sources import columns
from kloaders.sources.columns import (
    ArrayColumn,
    CallColumn,
    CastColumn,
    ListColumn,
    OneHotColumn,
    PathColumn,
    SubsetColumn,
)
from kloaders.sources.path_lists import PackedPaths

COUNT = 6
ORDER = np.array([4, 1, 1, 5, 0], np.int64)
PATHS = PackedPaths([f"{k}.txt" for k in range(COUNT)])


def rows():
    """Row k is (k, k)."""
    return np.repeat(np.arange(COUNT, dtype=np.float32)[:, None], 2, axis=1)


def number_in(path, out=None):
    """What is read of a path: an array of its number."""
    return np.full(2, float(path.removesuffix(".txt")), np.float32)


def in_place(path, out):
    if out is None:
        return number_in(path)
    out[...] = number_in(path)
    return out


def scalar_of(path):
    return int(path.removesuffix(".txt"))


KINDS = {
    "array": lambda: ArrayColumn(rows()),
    "Fortran array": lambda: ArrayColumn(np.asfortranarray(rows())),
    "list": lambda: ListColumn(list(rows())),
    "cast array": lambda: CastColumn(ArrayColumn(rows().astype(np.int16)), np.dtype(np.float32)),
    "cast list": lambda: CastColumn(ListColumn(list(rows().astype(int))), np.dtype(np.float32)),
    "paths": lambda: PathColumn(PATHS, number_in),
    "paths in place": lambda: PathColumn(PATHS, in_place),
    "some": lambda: SubsetColumn(ArrayColumn(rows()[::-1]), np.arange(COUNT)[::-1]),
    "numbers": lambda: ArrayColumn(np.arange(COUNT)),
    "call": lambda: CallColumn(scalar_of, PATHS),
}


@pytest.fixture(params=KINDS)
def column(request):
    return KINDS[request.param]()


def failed(row, error):
    pytest.fail(f"row {row}: {error!r}")


def filled(column, indices, report=failed):
    first = column.read(0)
    out = np.full((len(indices), *first.shape), -1, first.dtype)
    column.fill(indices, out, 3, report)
    return out


def test_read_and_fill_agree(column):
    assert len(column) == COUNT
    assert [np.unique(column.read(k)).tolist() for k in range(COUNT)] == [[k] for k in range(COUNT)]
    out = filled(column, ORDER)
    for row, index in zip(out, ORDER.tolist(), strict=True):
        np.testing.assert_array_equal(row, column.read(index))
    assert isinstance(column.name(2), str)


def test_a_value_is_the_readers_own(column):
    value = column.read(3)
    if value.ndim:
        value[...] = 99
    assert np.unique(column.read(3)).tolist() == [3]


def test_a_pickled_column_has_the_same_values(column):
    copy = pickle.loads(pickle.dumps(column))
    np.testing.assert_array_equal(filled(copy, ORDER), filled(column, ORDER))


def test_rows_taken_by_number(column):
    """Columns of files stay columns of files, which are read ahead."""
    taken = columns.take_rows(column, np.array([5, 2]))
    assert [np.unique(taken.read(k)).tolist() for k in range(2)] == [[5], [2]]
    assert taken.name(1) == column.name(2)
    if isinstance(column, PathColumn | CallColumn):
        assert type(taken) is type(column)


@pytest.mark.parametrize("odd", [np.zeros(3, np.float32), np.zeros(2, np.float64)])
def test_a_value_that_does_not_fit_is_reported(odd):
    values = list(rows())
    values[1] = odd
    found = []
    out = filled(ListColumn(values), ORDER, lambda row, error: found.append((row, error)))
    assert [(row, error.row, error.leaf) for row, error in found] == [(1, 1, 3), (2, 2, 3)]
    assert all(type(error) is RowMismatch and error.array.shape == odd.shape for _, error in found)
    assert out[[0, 3, 4], 0].tolist() == [4, 5, 0]


@pytest.mark.parametrize("kind", [CallColumn, PathColumn])
def test_a_function_that_fails_belongs_to_its_row(kind):
    def read(path, out=None):
        if path == "1.txt":
            raise LookupError("not this one")
        return number_in(path)

    column = kind(read, PATHS) if kind is CallColumn else kind(PATHS, read)
    found = []
    out = filled(column, ORDER, lambda row, error: found.append((row, str(error))))
    assert found == [(1, "not this one"), (2, "not this one")]
    assert out[[0, 3, 4], 0].tolist() == [4, 5, 0]


def test_a_labels_function_that_gives_texts():
    with pytest.raises(ValueError, match=r"returned 'cat' for 0.txt, expected a number"):
        CallColumn(lambda path: "cat", PATHS).read(0)


# ---------------------------------------------------------------- memory maps


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, rows())
    return path, ArrayColumn(np.load(path, mmap_mode="r"))


def test_a_memory_map_pickles_as_the_name_of_its_file(mapped):
    path, column = mapped
    data = pickle.dumps(column)
    assert path.name.encode() in data
    copy = pickle.loads(data)
    assert isinstance(copy.array, np.memmap)
    assert filled(copy, ORDER)[:, 0].tolist() == ORDER.tolist()
    assert column.name(4) == f"row 4 of {path}"


def test_rows_of_a_file_cut_short_are_reported(mapped):
    """Those that are there still come, and none is read beyond the end, which would kill the process."""
    path, column = mapped
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 12)  # row 5, and half of row 4
    found = []
    out = np.zeros((len(ORDER), 2), np.float32)
    column.fill(ORDER, out, 0, lambda row, error: found.append((row, type(error))))
    assert found == [(0, DecodeError), (3, DecodeError)]
    assert out[[1, 2, 4], 0].tolist() == [1, 1, 0]
    with pytest.raises(DecodeError):
        column.read(4)


# ---------------------------------------------------------------- one-hot


def test_one_hot_rows():
    column = OneHotColumn(ArrayColumn(np.array([2, 0, 1])), 3)
    assert column.read(0).tolist() == [0, 0, 1]
    out = np.full((3, 3), 9, np.float32)
    column.fill(np.array([1, 2, 0]), out, 0, failed)
    assert out.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert columns.values_of(column).tolist() == [2, 0, 1]
    assert column.name(1) == "row 1"


# ---------------------------------------------------------------- what is known without reading


def test_known_values():
    numbers = ArrayColumn(np.arange(COUNT) * 10)
    some = SubsetColumn(numbers, np.array([3, 1]))
    assert columns.values_of(numbers).tolist() == [0, 10, 20, 30, 40, 50]
    assert columns.values_of(some).tolist() == [30, 10]
    assert columns.values_of(CallColumn(scalar_of, PATHS)).tolist() == list(range(COUNT))
    for unknown in (ListColumn(list(rows())), PathColumn(PATHS, number_in)):
        assert columns.values_of(unknown) is None
        assert columns.values_of(SubsetColumn(unknown, np.array([1]))) is None


def test_labels_are_known_where_y_is_one_column():
    x, y = ArrayColumn(rows()), ArrayColumn(np.arange(COUNT))
    assert columns.labels_of((x, y)).tolist() == list(range(COUNT))
    assert columns.labels_of((x, (y,))).tolist() == list(range(COUNT))
    assert columns.labels_of((x, (y, y))) is columns.labels_of((x,)) is columns.labels_of(None)


def test_lengths_of_arrays_in_a_list():
    ragged = ListColumn([np.zeros((k, 2)) for k in (3, 1, 2)])
    assert columns.lengths_of(ragged).tolist() == [3, 1, 2]
    assert columns.lengths_of(CastColumn(ragged, np.dtype("f4"))).tolist() == [3, 1, 2]
    assert columns.lengths_of(SubsetColumn(ragged, np.array([2, 0]))).tolist() == [2, 3]
    assert columns.lengths_of(ArrayColumn(rows())) is None


def test_dimensions_that_differ_are_none():
    spec = ArraySpec((3, 2), np.dtype("f4"))
    ragged = ListColumn([np.zeros((k, 2)) for k in (3, 1, 2)])
    assert columns.spec_of_all(CastColumn(ragged, spec.dtype), spec).shape == (None, 2)
    assert columns.spec_of_all(ListColumn([np.zeros((3, 2))] * 2), spec).shape == (3, 2)
    assert columns.spec_of_all(ArrayColumn(rows()), spec) == spec


def test_arrays_in_ram_and_their_rows(mapped):
    array = ArrayColumn(rows())
    some = SubsetColumn(
        CastColumn(SubsetColumn(array, np.array([5, 3, 1])), np.dtype("i2")), np.array([2, 0])
    )
    found, numbers = columns.in_ram(some)
    assert found is array.array
    assert numbers.tolist() == [1, 5]
    assert columns.in_ram(array) == (array.array, None)
    assert (
        columns.in_ram(mapped[1]) is columns.in_ram(SubsetColumn(mapped[1], np.array([0]))) is None
    )
    assert columns.inner_column(some) is array


def test_files_are_read_ahead_by_their_own_numbers(monkeypatch):
    """Through casts and subsets; columns in RAM have nothing to read ahead."""
    asked = []
    monkeypatch.setattr(columns.files, "read_ahead", asked.append)
    paths = CastColumn(PathColumn(PATHS, number_in), np.dtype("f4"))
    columns.prefetch(SubsetColumn(paths, np.array([5, 3, 1])), np.array([2, 0]))
    assert asked == ["1.txt", "5.txt"]
    columns.prefetch(ArrayColumn(rows()), np.array([2]))
    assert len(asked) == 2
