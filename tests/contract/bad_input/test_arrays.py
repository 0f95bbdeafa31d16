"""Bad input: data that cannot become an array."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import SAMPLES, WITH_LABELS, Files, Make, read, refused, weeks


@WITH_LABELS
@pytest.mark.parametrize("what", ["generator", "map", "number", "None in a list"])
def test_labels_without_a_length(files: Files, make: Make, what: str) -> None:
    """Objects without a length or without numbers are rejected by name and type."""
    y = {
        "generator": (k for k in range(12)),
        "map": map(float, range(12)),
        "number": 5,
        "None in a list": [None] * 12,
    }[what]
    words = ["labels[0] is None"] if what == "None in a list" else [type(y).__name__, "length"]
    with refused(TypeError, "labels", *words):
        make(files, y=y)


def test_a_generator_as_data(files: Files) -> None:
    """A generator is named as one, and list(x) makes data of it as advised."""
    with refused(TypeError, "x is a generator", "length", "list(x)"):
        kl.ArraySequenceLoader(k for k in range(3))
    x = (k for k in range(3))
    assert read(kl.ArraySequenceLoader(list(x)))[0].tolist() == [0, 1, 2]
    with refused(TypeError, "paths is a generator", "length", "list(paths)"):
        kl.PathSequenceLoader(file for file in files.npy)
    paths = (file for file in files.npy)
    assert kl.PathSequenceLoader(list(paths)).samples == SAMPLES
    with refused(TypeError, "paths", "NoneType", "length"):
        kl.PathSequenceLoader(None)


def test_a_single_number_as_data() -> None:
    """An array without axes has no samples in it."""
    with refused(ValueError, "x is the single number 3", "one value per sample"):
        kl.ArraySequenceLoader(np.array(3))


def test_object_arrays() -> None:
    """dtype object is refused, and np.stack, as advised, makes numbers of it."""
    x = np.empty(3, object)
    x[:] = [np.ones(2), np.ones(2), np.ones(2)]
    with refused(TypeError, "x has dtype object", "numbers", "np.stack(x)"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(np.stack(x)))[0].shape == (3, 2)
    assert read(kl.ArraySequenceLoader(list(x)))[0].shape == (
        3,
        2,
    )  # "one array a sample in a list"
    with refused(TypeError, "labels has dtype object", "np.stack(labels)"):
        kl.ArraySequenceLoader(np.zeros(3), x)


def test_a_ragged_list() -> None:
    """Lists of different lengths: an array for each, as advised, makes batches of equal shapes."""
    x = [[1, 2], [3]]
    with refused(ValueError, "x is a list", "different lengths", "np.asarray(v) for v in x"):
        kl.ArraySequenceLoader(x)
    loader = kl.ArraySequenceLoader([np.asarray(v) for v in x], batch_size=1)
    assert [batch.tolist() for batch in read(loader)] == [[[1, 2]], [[3]]]


@pytest.mark.parametrize(
    "second", [[3, 4], "text", None, np.array(["a", "b"]), np.array([1, None]), weeks(2)], ids=type
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_list_of_arrays_and_something_else(second: Any, place: int) -> None:
    """The error names the entry of a list that is not an array or holds no numbers."""
    x = [np.ones(2), np.ones(2)]
    x.insert(place, second)
    if isinstance(second, list) and place == 0:
        assert kl.ArraySequenceLoader(x).samples == 3  # NumPy makes one array of it
        return
    with refused((TypeError, ValueError), "x"):
        kl.ArraySequenceLoader(x)


@pytest.mark.parametrize("unit", ["datetime64[W]", "timedelta64[s]"])
def test_dates(unit: str) -> None:
    """Dates are refused by their dtype, and numbers made of them are taken."""
    x = np.arange(3).astype(unit)
    with refused(TypeError, "x has dtype", unit, "convert", "numbers"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(x.astype("int64")))[0].tolist() == [0, 1, 2]


def test_records() -> None:
    """Structured arrays are refused, and a column of them is taken."""
    x = np.zeros(3, [("age", "f4"), ("kind", "i4")])
    with refused(TypeError, "x has dtype", "age", "convert", "numbers"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(x["age"]))[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "complex64", "complex128", "bool", "int8", "uint64", ">f4"]
)
def test_unusual_numbers_are_kept(dtype: str) -> None:
    """Any kind of number is served as it is, in this machine's byte order."""
    x = np.array([0, 1, 1], dtype)
    (batch,) = read(kl.ArraySequenceLoader(x))
    assert batch.dtype == x.dtype.newbyteorder("=")
    np.testing.assert_array_equal(batch, x)


def test_data_of_unusual_kinds(files: Files) -> None:
    """Each kind of bad input has its own message."""
    with refused(TypeError, "paths is a set", "list(paths)"):
        kl.PathSequenceLoader(set(files.npy))
    with refused(TypeError, "np.load(path"):
        kl.ArraySequenceLoader("x.npy")
    with refused(ValueError, "shape (12, 1)", "paths.ravel()"):
        kl.PathSequenceLoader(np.array(files.npy).reshape(-1, 1))
    for paths in (np.array(files.npy), [os.fsencode(file) for file in files.npy]):
        assert read(kl.PathSequenceLoader(paths))[0][:, 0].tolist() == list(range(SAMPLES))
    sparse = pytest.importorskip("scipy.sparse")
    with refused(TypeError, "sparse", "x.toarray()"):
        kl.ArraySequenceLoader(sparse.eye(3).tocsr())
    with refused(ValueError, "interpolation=['area']"):
        kl.PathSequenceLoader(files.npy, interpolation=["area"])
