"""Mapped files: where their rows lie, and a look at their size before they are copied."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.mapped_rows import FileRows, check_whole, place_in_file


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    """A map of 100 rows of 40 bytes, behind 128 bytes of header; row k is full of k."""
    np.save(tmp_path / "x.npy", np.repeat(np.arange(100, dtype=np.float32)[:, None], 10, 1))
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@contextlib.contextmanager
def cut(path: str, size: int) -> Iterator[None]:
    """Whole again afterwards: a failed test shows the map, which would be SIGBUS."""
    whole = Path(path).read_bytes()
    os.truncate(path, size)
    try:
        yield
    finally:
        with open(path, "r+b") as file:
            file.write(whole)


@pytest.mark.parametrize("first", [0, 1, 30])
def test_where_rows_lie(mapped: Any, first: int) -> None:
    """Of a part of a map too, whose offset is that of the whole."""
    path, offset = place_in_file(mapped[first:]) or ("", 0)
    assert offset == 128 + 40 * first
    raw = Path(path).read_bytes()
    assert np.frombuffer(raw, np.float32, 10, offset).tolist() == [first] * 10


def test_other_arrays_have_no_file(mapped: Any) -> None:
    """Copies, columns, and what has no rows."""
    for array in (np.array(mapped), mapped[:, 1:], mapped + 1, np.zeros(3)):
        assert place_in_file(array) is None
        assert FileRows.of(array) is None
    assert FileRows.of(mapped[:0]) is None


def test_a_file_cut_short(mapped: Any) -> None:
    """Rows before the cut are there; those behind it are an error that names file and sizes."""
    rows = FileRows.of(mapped)
    assert rows is not None
    rows.check()
    words = r"x\.npy was cut short since it was mapped: it has 2,128 bytes, but the array ends at "
    with cut(mapped.filename, 128 + 40 * 50):
        rows.check(49)
        with pytest.raises(DecodeError, match=words + "2,168"):
            rows.check(50)
        with pytest.raises(DecodeError, match=words + "4,128"):
            rows.check()
        with pytest.raises(DecodeError, match=words + "2,129"):
            check_whole(mapped._mmap, str(mapped.filename), 2129)
        check_whole(mapped._mmap, str(mapped.filename), 2128)
    rows.check()


def test_another_file_of_that_name(mapped: Any) -> None:
    """The file that is mapped is looked at, not the one that has its name by now."""
    rows = FileRows.of(mapped)
    assert rows is not None
    os.unlink(mapped.filename)
    Path(mapped.filename).write_bytes(b"short")
    rows.check()
    assert mapped[99].tolist() == [99] * 10
