"""The columns of a pack: rows gathered from files that are mapped."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.pack import read_manifest
from kloaders.sources import pack as columns
from tests.support.packs import (
    BATCH,
    SAMPLES,
    Stored,
    epoch,
    small,
    write,
)


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Sample k has k // 4 numbers."""
    write(Stored([np.full(k // 4, k, np.float32) for k in range(SAMPLES)], 1), tmp_path / "pack")
    return tmp_path / "pack"


@pytest.mark.parametrize("free", [0, 2**40], ids=["larger than RAM", ""])
@pytest.mark.parametrize("width", [1, 300, 3000])
@pytest.mark.parametrize("shard_size", [None, "30KB"])
def test_rows_of_one_and_of_many_shards(
    tmp_path: Path, keep: Any, monkeypatch: Any, width: int, shard_size: Any, free: int
) -> None:
    """Shuffled over all samples, each once, whichever way rows are gathered and asked for."""
    monkeypatch.setattr(columns, "available_bytes", lambda: free)
    x = np.arange(200)[:, None] * np.ones(width, np.float32)
    write(kl.ArraySequenceLoader(x, np.arange(200), 8), tmp_path, shard_size=shard_size)
    loader = keep(kl.PackSequenceLoader(tmp_path, 8, shuffle=True, seed=1))
    found = epoch(loader)
    for part, numbers in found:
        np.testing.assert_array_equal(part, x[numbers])
    numbers = np.concatenate([y for _, y in found])
    assert sorted(numbers.tolist()) == list(range(200))
    assert np.abs(np.diff(numbers)).mean() > 30  # neighbours come from all over


@pytest.mark.parametrize("free", [0, 2**40], ids=["larger than RAM", ""])
def test_batches_of_one_shape(ragged: Path, keep: Any, monkeypatch: Any, free: int) -> None:
    """Shapes may differ from batch to batch."""
    monkeypatch.setattr(columns, "available_bytes", lambda: free)
    loader = keep(kl.PackSequenceLoader(ragged, 4, shuffle=False))
    assert [batch.shape for batch in epoch(loader)] == [(4, k) for k in range(5)]


def test_an_index_that_lies(tmp_path: Path, keep: Any, monkeypatch: Any) -> None:
    """Values are looked for only where there are some; the sample is named."""
    write(Stored([np.zeros(k) for k in (1, 2, 3, 4)], 1), tmp_path)
    path = tmp_path / "x-00000.index.npy"
    good = path.read_bytes()
    for column, value in ((0, 9), (0, -1), (1, 2**62), (1, 100)):
        index = np.frombuffer(good[256:], np.int64).reshape(4, 2).copy()
        index[2, column] = value
        path.write_bytes(good[:256] + index.tobytes())
        monkeypatch.setattr(columns, "available_bytes", lambda value=value: value % 2)
        loader = keep(kl.PackSequenceLoader(tmp_path, 1, shuffle=False))
        with pytest.raises(kl.SampleError, match=r"index\.npy, row 2, is damaged: it refers to"):
            loader[2]
        assert loader[3].shape == (1, 4)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
def test_close_lets_go_of_the_files(tmp_path: Path) -> None:
    """Mapped while they are read, and again afterwards if they are read again."""

    def mapped() -> int:
        links = 0
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the folder's own
                links += str(tmp_path) in os.readlink(f"/proc/self/fd/{number}")
        return links

    loader = kl.PackSequenceLoader(small(tmp_path), BATCH, shuffle=False, workers=0)
    assert mapped() == 0
    epoch(loader)
    assert mapped() == 2
    loader.close()
    assert mapped() == 0
    assert loader[0][1].tolist() == [0, 1, 2, 3]
    loader.close()


def test_too_many_files(tmp_path: Path, keep: Any, monkeypatch: Any) -> None:
    """The limit of open files is explained."""
    loader = keep(kl.PackSequenceLoader(small(tmp_path), SAMPLES, workers=0))
    loader.sample_spec  # noqa: B018
    loader.close()
    real = np.memmap

    def refuse(path: Any, *arguments: Any) -> Any:
        if str(path).endswith("x.npy"):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return real(path, *arguments)

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(OSError, match=r"ulimit -n 4096.*x\.npy"):
        loader[0]


# ------------------------------------------------------------------------------ as it was before

OLD = Path(__file__).parents[1] / "formats" / "data" / "pack-version-1"
OLD_SAMPLES = 20


def test_a_pack_of_version_1(keep: Any) -> None:
    """Where each shard has files of its own: sample k is full of k."""
    loader = keep(kl.PackSequenceLoader(OLD, 1, shuffle=False))
    assert loader.class_names == ["even", "odd"]
    assert len(loader) == OLD_SAMPLES
    for k, (x, y, weights) in enumerate(epoch(loader)):
        np.testing.assert_array_equal(x["rows"], np.full((1, 3, 2), k, np.float32))
        np.testing.assert_array_equal(x["lengths"], np.full((1, k % 3, 2), k, np.uint8))
        assert (y.tolist(), weights.tolist()) == ([k % 2], [k])
    loader.verify()
    assert kl.verify(OLD, progress=False).ok


@pytest.mark.parametrize("free", [0, 2**40], ids=["larger than RAM", ""])
def test_rows_from_several_files(monkeypatch: Any, free: int) -> None:
    """In whatever order, into rows of a batch; each shard by itself."""
    monkeypatch.setattr(columns, "available_bytes", lambda: free)
    manifest = read_manifest(str(OLD))
    starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)])
    assert len(starts) == 3
    column = columns.PackColumn(
        str(OLD), [shard.parts[0] for shard in manifest.shards], starts, np.dtype(np.float32)
    )
    indices = np.random.default_rng(0).permutation(OLD_SAMPLES)
    out = np.empty((OLD_SAMPLES, 3, 2), np.float32)
    column.fill(indices, out, 0, lambda row, error: pytest.fail(f"{row}: {error}"))
    assert out[:, 2, 1].tolist() == indices.tolist()
    assert column.name(12) == f"row 2 of {OLD / 'x0-00001.npy'}"
    assert len(column.files) == 2


def test_damage_in_a_pack_of_version_1(tmp_path: Path) -> None:
    """The file of the shard is named."""
    folder = tmp_path / "pack"
    shutil.copytree(OLD, folder)
    path = folder / "x0-00001.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"x0-00001\.npy changed since the pack was written"):
        kl.PackSequenceLoader(folder, 1).verify()
    path.write_bytes(raw[:-1])
    with pytest.raises(ValueError, match=r"x0-00001\.npy has 495 bytes, but pack\.json says 496"):
        kl.PackSequenceLoader(folder, 1)


@pytest.mark.parametrize("batch", [1, 4, SAMPLES])
def test_a_file_cut_short_while_it_is_mapped(tmp_path: Path, keep: Any, batch: int) -> None:
    """An error for the samples that are gone, and no SIGBUS; those before the cut come."""
    folder = small(tmp_path, 5000)
    loader = keep(kl.PackSequenceLoader(folder, batch, shuffle=False, workers=0))
    loader[0]
    os.truncate(folder / "x.npy", 256 + 2000 * 8)
    x, y = loader[2000 // batch - 1]
    assert y.tolist() == x[:, 0].tolist() == list(range(2000 - batch, 2000))
    with pytest.raises(kl.SampleError, match=r"row 2000 of .*x\.npy.* was cut short since it was"):
        loader[2000 // batch]
