"""Arrays of files: values, one read each, and nothing open behind it."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kloaders.formats import npy
from kloaders.formats.errors import DecodeError
from kloaders.formats.npy import read_array, row_reader

pytestmark = pytest.mark.usefixtures("no_leaks")


numbers = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
)
arrays = hnp.arrays(numbers, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@settings(max_examples=250, deadline=None)
@given(arrays, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]), st.booleans())
def test_npy_round_trip(tmp_path_factory, array, fortran, version, zipped):
    """Any numbers in any shape, order and byte order come back with their values, ready to use."""
    path = str(tmp_path_factory.getbasetemp() / ("a.npz" if zipped else "a.npy"))
    array = np.asfortranarray(array) if fortran and array.ndim else array
    if zipped:
        np.savez_compressed(path, array)
    else:
        with Path(path).open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
    wanted = np.load(path)["arr_0"] if zipped else np.load(path)
    native = array.dtype.newbyteorder("=")
    out = np.ones(array.shape, native)
    for given_out in (None, out, out, np.ones((2, 3, 4, 5, 6), native), np.ones(array.shape, "U3")):
        got = read_array(path, given_out)
        assert (got is given_out) == (given_out is out)
        assert got.shape == array.shape
        assert got.dtype == native
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, wanted)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_npy(tmp_path_factory, data):
    """Changed, cut or extended bytes: an error that names the file, or what np.load reads."""
    zipped = data.draw(st.booleans())
    path = str(tmp_path_factory.getbasetemp() / ("b.npz" if zipped else "b.npy"))
    array = np.arange(60, dtype=np.float32).reshape(5, 12)
    (np.savez if zipped else np.save)(path, array)
    with Path(path).open("rb") as file:
        raw = bytearray(file.read())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with Path(path).open("wb") as file:
        file.write(raw + data.draw(st.sampled_from([b"", b"more"])))
    for out in (None, np.empty((5, 12), np.float32)):
        try:
            got = read_array(path, out)
        except DecodeError as error:
            named = path in str(error)
            assert named
            continue
        wanted = np.load(path)
        if zipped:
            (wanted,) = wanted.values()
        np.testing.assert_array_equal(got, wanted)


def test_row_of_a_batch(tmp_path):
    """Files of one shape are read into their rows, whichever header came before."""
    batch = np.zeros((10, 4, 3), np.float32)
    paths = []
    for number in range(10):
        paths.append(str(tmp_path / f"{number}.npy"))
        with Path(paths[-1]).open("wb") as file:
            array = np.full((4, 3), number, np.float32)
            np.lib.format.write_array(file, array, version=(1 + number % 2, 0))
    for number, path in enumerate(paths):
        row = batch[number]
        assert read_array(path, row) is row
    assert batch[:, 2, 1].tolist() == list(range(10))
    # another shape between them, of the same number of bytes: never taken for the first
    np.save(tmp_path / "other.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    got = read_array(str(tmp_path / "other.npy"), batch[0])
    assert got.shape == (3, 4)
    assert got[2].tolist() == [8, 9, 10, 11]


def test_one_read_for_a_known_header(tmp_path, monkeypatch):
    """After the first file of its kind, a sample costs one call and no look at its size."""
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.full((5, 7), number, np.int16))
    out = np.zeros((5, 7), np.int16)
    read_array(str(tmp_path / "0.npy"), out)
    if not npy._HAS_PREADV:
        pytest.skip("this system has no preadv")
    with monkeypatch.context() as without:
        without.setattr(os, "fstat", None)
        without.setattr(os, "read", None)
        assert read_array(str(tmp_path / "1.npy"), out) is out
    assert (out == 1).all()


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="not on Windows")
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)])
def test_rows_of_a_batch_are_read_with_one_lookup(tmp_path, shape):
    """A file that is not as expected, or not there, is left to `read_array`, with its own error."""
    out = np.zeros((3, *shape), np.float32)
    np.save(tmp_path / "a.npy", np.full(shape, 5, np.float32))
    read_array(str(tmp_path / "a.npy"), out[0, ...])  # its header is known from here on
    others = []

    def otherwise(path, row):
        others.append(Path(path).name)
        return read_array(path, row)

    read = row_reader(out, otherwise)
    row = out[1, ...]
    assert read(str(tmp_path / "a.npy"), row) is row
    assert (out[1] == 5).all()
    assert not others
    np.save(tmp_path / "wide.npy", np.full(shape, 6, np.float64))
    np.save(tmp_path / "b", np.full(shape, 7, np.float32))
    (tmp_path / "b.npy").rename(tmp_path / "b.NPY")
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:100])
    (tmp_path / "folder.npy").mkdir()
    assert read(str(tmp_path / "wide.npy"), row).dtype == np.float64
    assert read(str(tmp_path / "b.NPY"), row) is row
    assert (out[1] == 7).all()
    with pytest.raises(DecodeError, match="truncated"):
        read(str(tmp_path / "short.npy"), row)
    for name in ("none.npy", "folder.npy"):
        with pytest.raises(OSError, match=name):
            read(str(tmp_path / name), row)
    assert others == ["wide.npy", "b.NPY", "short.npy", "none.npy", "folder.npy"]


def test_rows_that_cannot_be_read_straight(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(3, np.int16))
    out = np.zeros((2, 3), np.int16)
    read_array(str(tmp_path / "a.npy"), out[0])
    assert row_reader(np.zeros((2, 99), np.int16), read_array) is None  # no such file was read yet
    assert row_reader(np.zeros((2, 6), np.int16)[:, ::2], read_array) is None
    monkeypatch.setattr(npy, "_HAS_PREADV", False)
    assert row_reader(out, read_array) is None


def test_read_without_preadv(tmp_path, monkeypatch):
    """Systems without preadv read the same."""
    monkeypatch.setattr(npy, "_HAS_PREADV", False)
    np.save(tmp_path / "a.npy", np.arange(6))
    out = np.zeros(6, int)
    for _ in range(2):
        assert read_array(str(tmp_path / "a.npy"), out) is out
        assert out.tolist() == [0, 1, 2, 3, 4, 5]


def test_npz_and_npy_by_content(tmp_path):
    """An archive called .npy and an array called .npz are read as what they are."""
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.npy").rename(tmp_path / "b.npz")
    assert read_array(str(tmp_path / "b.npz")).tolist() == [0, 1, 2]
    np.savez(tmp_path / "c.npz", np.arange(4))
    (tmp_path / "c.npz").rename(tmp_path / "d.npy")
    assert read_array(str(tmp_path / "d.npy")).tolist() == [0, 1, 2, 3]
