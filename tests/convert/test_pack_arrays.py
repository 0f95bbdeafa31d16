"""The files of a pack: one for each array, and those of shards whose samples differ in shape."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import kloaders as kl
from kloaders.convert.pack_arrays import ShardArray, finish_shared, is_written
from kloaders.core.structure import ArraySpec
from kloaders.formats.pack import File, Part, Shard, files_of, read_manifest
from kloaders.formats.pack_files import check_files, crc_of_piece, pieces_of
from tests.support.packs import (
    SAMPLES,
    Stored,
    assert_same,
    contents,
    epoch,
    rows,
    small,
    write,
)
from tests.support.recording import row_of


def test_an_array_is_one_file(tmp_path: Path) -> None:
    """One .npy file for all shards, which any program can read."""
    folder = small(tmp_path)
    assert sorted(contents(folder)) == ["pack.json", "x.npy", "y.npy"]
    np.testing.assert_array_equal(np.load(folder / "x.npy", mmap_mode="r"), rows())
    assert np.load(folder / "y.npy").tolist() == list(range(SAMPLES))
    shards = read_manifest(str(folder)).shards
    assert [(s.samples, s.parts[0].values.first) for s in shards] == [(8, 0), (8, 8), (4, 16)]


def test_samples_left_out_leave_their_rows(tmp_path: Path, keep: Any) -> None:
    """Left-out rows are zeros if other shards follow; the last shard has none. They are not served."""
    stored: list[Any] = [(row_of(k), np.int64(k)) for k in range(SAMPLES)]
    for k in (1, 9, 15, 18, 19):
        stored[k] = OSError("bad")
    write(Stored(stored, on_error="skip"), tmp_path, shard_size=8 * 16)
    good = [k for k in range(18) if k not in (1, 9, 15)]
    assert np.load(tmp_path / "y.npy").tolist() == [
        *(k for k in range(8) if k != 1), 0, *(k for k in range(8, 16) if k not in (9, 15)), 0, 0,
        16, 17,
    ]  # fmt: skip
    for batch in (1, 4, 32):
        loader = keep(kl.PackSequenceLoader(tmp_path, batch, shuffle=False))
        found = epoch(loader)
        assert [n for _, y in found for n in y.tolist()] == good
        assert [int(n) for x, _ in found for n in x[:, 0]] == good
    loader.verify()


def test_a_shard_of_another_shape_has_its_own_file(tmp_path: Path, keep: Any) -> None:
    """With all its samples, those too that were rows of all at first; the others stay rows."""
    stored = [np.full((3 if k == 13 else 2, 2), k, np.float32) for k in range(SAMPLES)]
    write(Stored(stored, 1), tmp_path, shard_size=8 * 16)
    assert sorted(contents(tmp_path)) == ["pack.json", "x-00001.index.npy", "x-00001.npy", "x.npy"]
    parts = [shard.parts[0] for shard in read_manifest(str(tmp_path)).shards]
    assert [part.values.name for part in parts] == ["x.npy", "x-00001.npy", "x.npy"]
    loader = keep(kl.PackSequenceLoader(tmp_path, 1, shuffle=False))
    for k, batch in enumerate(epoch(loader)):
        assert_same(batch, stored[k][None])
    loader.verify()


def test_a_shard_that_is_all_of_another_shape(tmp_path: Path, keep: Any) -> None:
    """It has rows, in a separate file."""
    stored = [np.full((2 if k < 8 else 3,), k, np.float32) for k in range(16)]
    write(Stored(stored, 1), tmp_path, shard_size=8 * 8)
    loader = keep(kl.PackSequenceLoader(tmp_path, 4, shuffle=False))
    assert [batch.shape for batch in epoch(loader)] == [(4, 2), (4, 2), (4, 3), (4, 3)]
    assert [int(n) for batch in epoch(loader) for n in batch[:, 0]] == list(range(16))


def test_the_index_of_ragged_files(tmp_path: Path) -> None:
    """Where each sample's values begin, and their shape."""
    arrays = [np.full((k, 2), k) for k in (1, 0, 3)]
    write(Stored(arrays, 1), tmp_path)
    index = np.load(tmp_path / "x-00000.index.npy")
    assert index.tolist() == [[0, 1, 2], [2, 0, 2], [2, 3, 2]]
    values = np.load(tmp_path / "x-00000.npy")
    for (start, *shape), array in zip(index.tolist(), arrays, strict=True):
        found = values[start : start + int(np.prod(shape))].reshape(shape)
        np.testing.assert_array_equal(found, array)


def test_threads_write_their_own_rows(tmp_path: Path) -> None:
    """Shards of one array at a time, in any order; one of them is of another shape."""
    spec = ArraySpec((3,), np.dtype(np.float32))
    stored = [np.full((20, 3 if shard != 5 else 4), shard, np.float32) for shard in range(12)]
    begun = threading.Barrier(4, timeout=30)

    def write_one(shard: int) -> Part:
        with contextlib.ExitStack() as stack:
            array = ShardArray(stack, str(tmp_path), "x", shard, spec, 20 * shard, 20 * shard + 20)
            array.add(stored[shard][:7])
            if shard < 4:  # all four have the file open
                begun.wait()
            array.add(stored[shard][7:])
            return array.finish()

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(write_one, range(12)))
    assert parts[5].values.name == "x-00005.npy"
    assert all(is_written(str(tmp_path), part.values, spec.dtype) for part in parts)
    assert not is_written(str(tmp_path), File("x.npy", (21, 3), 0, 220), spec.dtype)
    shards = [Shard(20, [part]) for part in parts]
    files = files_of(shards, [spec.dtype])
    finish_shared(str(tmp_path), ["x.npy"], files)
    check_files(str(tmp_path), shards, [spec.dtype])
    found = np.load(tmp_path / "x.npy")
    assert found.shape == (240, 3)
    for shard in set(range(12)) - {5}:
        assert (found[20 * shard : 20 * shard + 20] == shard).all()
    assert (np.load(tmp_path / "x-00005.npy") == stored[5]).all()
    for piece in pieces_of(str(tmp_path), shards, [spec.dtype]):
        assert crc_of_piece(piece.path, piece.begin, piece.end) == piece.crc32
    finish_shared(str(tmp_path), ["x.npy"], files)  # as one that goes on does once more
    assert np.load(tmp_path / "x.npy").shape == (240, 3)


def test_a_shared_file_without_rows_is_removed(tmp_path: Path) -> None:
    """All shards that began in it met another shape."""
    spec = ArraySpec((2,), np.dtype(np.int16))
    with contextlib.ExitStack() as stack:
        array = ShardArray(stack, str(tmp_path), "y", 0, spec, 0, 3)
        array.add(np.array([[1, 2]], np.int16))
        array.add([np.array([3], np.int16), np.array([4, 5], np.int16)])
        part = array.finish()
    assert sorted(contents(tmp_path)) == ["y-00000.index.npy", "y-00000.npy", "y.npy.unfinished"]
    finish_shared(str(tmp_path), ["y.npy"], files_of([Shard(3, [part])], [spec.dtype]))
    assert sorted(contents(tmp_path)) == ["y-00000.index.npy", "y-00000.npy"]
    assert np.load(tmp_path / "y-00000.npy").tolist() == [1, 2, 3, 4, 5]


def test_arrays_of_no_bytes(tmp_path: Path, keep: Any) -> None:
    """Rows of shape (0,) are rows; shards of them are kept as any other."""
    write(Stored([np.zeros((0, 3), np.float32)] * 5, 1), tmp_path, shard_size=1)
    assert np.load(tmp_path / "x.npy").shape == (5, 0, 3)
    assert keep(kl.PackSequenceLoader(tmp_path, 5))[0].shape == (5, 0, 3)
