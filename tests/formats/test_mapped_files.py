"""Files side by side in the address space: the rows are theirs, and nothing of them stays."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.formats import mapped_files as joined
from kloaders.formats.errors import DecodeError
from kloaders.formats.mapped_files import JoinedFiles

if joined._calls() is None:
    pytest.skip("files are not joined on this system", allow_module_level=True)


def written(folder: Any, counts: list[int], shape: tuple[int, ...], header: int) -> Any:
    """Files of rows that count on from one file to the next; their paths, and all rows."""
    size = int(np.prod(shape))
    values = np.arange(sum(counts) * size, dtype=np.uint16).reshape(-1, *shape)
    paths, first = [], 0
    for k, count in enumerate(counts):
        paths.append(os.path.join(folder, str(k)))
        with open(paths[-1], "wb") as file:
            file.write(b"\xff" * header + values[first : first + count].tobytes())
        first += count
    return paths, values


@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=5),
    shape=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    header=st.sampled_from([2, 256, 4096, 5000]),
)
def test_all_rows(counts: list[int], shape: tuple[int, ...], header: int) -> None:
    """Rows of any size, in files of any length: each lies where it is said to."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined, "_SPARE_ADDRESSES", 2**40)
        paths, values = written(folder, counts, shape, header)
        found = JoinedFiles.of(paths, counts, shape, values.dtype, header)
        assert found is not None
        places = np.concatenate(
            [first + np.arange(n) for first, n in zip(found.firsts, counts, strict=True)]
        ).astype(np.int64)
        np.testing.assert_array_equal(np.take(found.rows, places, axis=0), values)
        parts = [found.part(k) for k in range(len(counts))]
        np.testing.assert_array_equal(np.concatenate(parts), values)
        for k, end in enumerate(found._layout.ends):
            found.advise(k, 0, end, joined.mmap.MADV_WILLNEED)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    """Of the files that are asked about."""
    paths, values = written(tmp_path, [3, 4, 5], (1000,), 256)
    found = JoinedFiles.of(paths, [3, 4, 5], (1000,), values.dtype, 256)
    assert found is not None
    os.truncate(paths[1], 5000)
    found.check_whole({0, 2})
    for look in (lambda: found.check_whole({0, 1}), lambda: found.part(1)):
        with pytest.raises(DecodeError, match=r"1 was cut short .* 5,000 bytes, .*at 8,256"):
            look()


def test_nothing_stays(tmp_path: Path) -> None:
    """Neither maps nor open files, once nobody has the rows any more."""
    paths, values = written(tmp_path, [3, 4], (1000,), 256)

    def held() -> tuple[int, int]:
        numbers = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        links = [os.readlink(number) for number in numbers if os.path.exists(number)]
        maps = Path("/proc/self/maps").read_text()
        return sum(str(tmp_path) in link for link in links), maps.count(str(tmp_path))

    found = JoinedFiles.of(paths, [3, 4], (1000,), values.dtype, 256)
    assert found is not None
    assert held() == (2, 2)
    rows = found.rows
    del found
    assert held() == (0, 2)
    np.testing.assert_array_equal(rows[:3], values[:3])
    del rows
    assert held() == (0, 0)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """It is named, and the others are closed."""
    paths, values = written(tmp_path, [3, 4], (10,), 256)
    os.unlink(paths[1])
    with pytest.raises(FileNotFoundError) as caught:
        JoinedFiles.of(paths, [3, 4], (10,), values.dtype, 256)
    assert caught.value.filename == paths[1]


@pytest.mark.parametrize(
    ("counts", "row_bytes"),
    [([5, 5], 0), ([2] * 50, 10_000_001), ([2**46], 4096)],
    ids=["rows of nothing", "forty times the addresses", "more than there are"],
)
def test_what_is_not_joined(counts: list[int], row_bytes: int) -> None:
    """The caller has another way. No file is looked at."""
    assert JoinedFiles.of(["none"] * len(counts), counts, (row_bytes,), np.dtype("u1"), 256) is None
