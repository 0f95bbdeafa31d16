"""Labels from a table, compared with those of Keras' iterator."""

import numpy as np
import pandas as pd
import pytest

from kloaders.migrate import ImageDataGenerator
from kloaders.migrate.targets import hot_rows, targets_of
from kloaders.sources.tables import Table
from tests.support.keras_images import OLD, SIZE

LARGE = 2**24 + 1  # no float32 has this value


@pytest.fixture
def table(folder):
    """A few files, with columns of several dtypes."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))[:4]
    return pd.DataFrame(
        {
            "filename": files,
            "double": np.array([0.1, LARGE, 1e-300, np.pi]),
            "single": np.array([0.1, 2, 3, 4], np.float32),
            "whole": np.array([1, LARGE, -3, 2**53]),
            "flag": [True, False, True, True],
        }
    )


@pytest.mark.parametrize(
    "y_col", ["double", "single", "whole", "flag", ["double"], ["double", "whole"]]
)
def test_raw_keeps_the_dtype_of_its_column(folder, table, keep, y_col):
    """And so each value: Keras hands over what the table has."""
    arguments = {"y_col": y_col, "class_mode": "raw", "target_size": SIZE, "shuffle": False}
    ours = keep(ImageDataGenerator().flow_from_dataframe(table, folder, **arguments))
    theirs = OLD["Keras 3"]().flow_from_dataframe(table, str(folder), **arguments)
    got, want = ours[0][1], theirs[0][1]
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_array_equal(got, want)
    assert ours.labels.dtype == theirs.labels.dtype


def test_several_outputs_keep_theirs(folder, table, keep):
    arguments = {"y_col": ["double", "whole"], "class_mode": "multi_output", "target_size": SIZE}
    ours = keep(ImageDataGenerator().flow_from_dataframe(table, folder, **arguments))
    theirs = OLD["Keras 3"]().flow_from_dataframe(table, str(folder), shuffle=False, **arguments)
    for mine, yours in zip(ours[0][1], theirs[0][1], strict=True):
        assert mine.dtype == yours.dtype
        np.testing.assert_array_equal(mine, yours)


def test_a_table_of_lists_is_as_precise():
    """Python's floats are doubles."""
    _, labels, _ = targets_of(Table({"y": [0.1, float(LARGE)]}), "y", "raw", None, [0, 1])
    assert labels.dtype == np.float64
    assert labels.tolist() == [0.1, LARGE]


def test_texts_are_no_numbers():
    with pytest.raises(ValueError, match="column 'y' holds 'cat', expected a number"):
        targets_of(Table({"y": ["cat", "dog"]}), "y", "raw", None, [0, 1])


@pytest.mark.parametrize("class_mode", ["raw", "input", None])
def test_classes_that_change_nothing_are_reported(caplog, class_mode):
    """Keras warns, too."""
    with caplog.at_level("INFO", "kloaders"):
        targets_of(Table({"y": [1, 2]}), "y", class_mode, ["a"], [0, 1])
    assert f"classes= has no effect with class_mode={class_mode!r}" in caplog.text


def test_rows_of_several_classes():
    rows = hot_rows([0, [2, 1]], 3, np.dtype(np.float16))
    assert rows.dtype == np.float16
    assert rows.tolist() == [[1, 0, 0], [0, 1, 1]]
