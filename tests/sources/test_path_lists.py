"""Paths in one block of bytes, and some of them by number: they come back as they were given."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from kloaders.sources.path_lists import PackedPaths, SubsetPaths

NAMES = ["a/0.png", "b/1.png", "", "ü/2.png", "no utf-8 \udce9", "last"]


@pytest.mark.parametrize("paths", [NAMES, tuple(NAMES), iter(NAMES)], ids=["list", "tuple", "iter"])
def test_paths_are_as_they_were_given(paths):
    packed = PackedPaths(paths)
    assert len(packed) == len(NAMES)
    assert list(packed) == NAMES
    assert packed[-1] == "last"
    assert packed[1:4] == NAMES[1:4]
    assert list(pickle.loads(pickle.dumps(packed))) == NAMES


@pytest.mark.parametrize("kinds", [(Path, Path), (str, Path), (Path, str)])
def test_objects_of_pathlib_become_texts(kinds):
    """Also where there are both, whichever comes first."""
    first, second = kinds
    assert list(PackedPaths([first("a/0.png"), second("b")])) == ["a/0.png", "b"]


def test_no_paths():
    assert list(PackedPaths([])) == []


def test_many_at_once():
    packed, order = PackedPaths(NAMES), [5, 0, 2, 0, 4]
    assert packed.at(np.array(order)) == [NAMES[k] for k in order]
    assert packed.at(np.array([], np.int64)) == []


@pytest.mark.parametrize("index", [6, -7])
def test_a_number_out_of_range(index):
    with pytest.raises(IndexError, match=f"path {index} of 6"):
        PackedPaths(NAMES)[index]


def test_what_is_no_path_is_named():
    with pytest.raises(TypeError, match=r"labels\[2\] is 7 \(int\), expected a file's path"):
        PackedPaths(["a", "b", 7], "labels")


def test_a_nul_character_is_named():
    with pytest.raises(ValueError, match="'b\\\\x00c' contains a NUL character"):
        PackedPaths(["a", "b\0c"])


def test_five_bytes_a_path_beside_its_own():
    paths = [f"{k:06}" for k in range(1000)]
    assert PackedPaths(paths).nbytes == 1000 * (6 + 5)


def test_a_block_that_is_there_already():
    packed = PackedPaths(NAMES)
    block = packed.joined()
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 0)
    again = PackedPaths.of_block(block, ends)
    assert list(again) == NAMES
    assert (again.joined(), again.nbytes) == (block, packed.nbytes)


def test_some_of_them_by_number():
    """Packed anew, or by reference: the same paths, also as a block."""
    packed, numbers = PackedPaths(NAMES), np.array([4, 0, 4], np.uint32)
    expected = [NAMES[k] for k in (4, 0, 4)]
    taken, some = packed.take(numbers.astype(np.int64)), SubsetPaths(packed, numbers)
    assert list(taken) == list(some) == expected
    assert some[1:] == expected[1:]
    assert some[-1] == NAMES[4]
    assert some.joined() == taken.joined()
    assert some.nbytes == packed.nbytes + numbers.nbytes
    with pytest.raises(IndexError, match=r"path 3 of 3"):
        some[3]
