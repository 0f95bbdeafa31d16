"""Samples are known by all their files, wherever these lie, and never taken for others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.path_lists import PackedPaths
from tests.sources.cache.pictures import ALL, BATCH, SAMPLES, numbers, write


class Summed(kl.PathSequenceLoader):
    """Two files, and a number beside them, for each sample."""

    def load_sample(self, path):
        return super().load_sample(path)


def two_folders(folder):
    """left/k.png holds k, right/k.png 100 + k."""
    for side, first in (("left", 0), ("right", 100)):
        (folder / side).mkdir(parents=True)
        for k in range(SAMPLES):
            write(folder / side / f"{k:02}.png", first + k)
    return [[str(folder / side / f"{k:02}.png") for k in ALL] for side in ("left", "right")]


def values_of(loader):
    """The colours of both inputs, and the number, of each sample."""
    return [
        tuple(int(part[row].flat[0]) for part in x)
        for (x,) in loader.epoch_batches(0, False)
        for row in range(len(x[0]))
    ]


@pytest.mark.parametrize("kind", [Summed, kl.PathSequenceLoader])
def test_all_inputs_count(tmp_path, keep, where, kind):
    """Paired otherwise, with the same first input: each pair is what its own files hold."""
    left, right = two_folders(tmp_path / "data")
    for shift in (0, 1, 0):
        other = right[shift:] + right[:shift]
        loader = keep(kind((left, other), None, BATCH, cache=where))
        for _ in range(2):
            assert values_of(loader) == [(k, 100 + (k + shift) % SAMPLES) for k in ALL]


@pytest.mark.parametrize("kind", [Summed, kl.PathSequenceLoader])
def test_a_second_input_that_changes_is_read_again(tmp_path, keep, where, kind):
    """By the stamp of every file of the sample."""
    left, right = two_folders(tmp_path / "data")
    loader = keep(kind((left, right), None, BATCH, cache=where))
    assert values_of(loader)[5] == (5, 105)
    write(right[5], 205)
    assert values_of(loader)[5] == (5, 205)


def test_arrays_beside_files_count(tmp_path, keep, where):
    """A number that is no file is part of what is kept: by its value."""
    left, _ = two_folders(tmp_path / "data")
    for first in (0, 50):
        inputs = (left, np.arange(first, first + SAMPLES))
        loader = keep(Summed(inputs, None, BATCH, cache=where))
        for _ in range(2):
            assert values_of(loader) == [(k, first + k) for k in ALL]


def test_data_that_move_keep_their_cache(tmp_path, decoded, keep):
    """The folder is renamed: nothing is decoded, but one sample of a hook for its shape."""
    left, right = two_folders(tmp_path / "data")
    folder = tmp_path / "cache"
    for kind in (Summed, kl.PathSequenceLoader):
        with kind((left, right), None, BATCH, cache=folder) as loader:
            expected = values_of(loader)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        decoded.clear()
        moved = [[p.replace("/data/", "/elsewhere/") for p in paths] for paths in (left, right)]
        loader = keep(kind(tuple(moved), None, BATCH, cache=folder))
        assert values_of(loader) == expected
        assert decoded == (["00.png"] * 2 if kind is Summed else [])
        (tmp_path / "elsewhere").rename(tmp_path / "data")


def test_relative_paths_and_absolute_ones(tmp_path, decoded, monkeypatch, keep):
    left, _ = two_folders(tmp_path / "data")
    with kl.PathSequenceLoader(left, None, BATCH, cache=tmp_path / "cache") as loader:
        assert numbers(loader) == ALL
    decoded.clear()
    monkeypatch.chdir(tmp_path / "data" / "left")
    names = [os.path.basename(path) for path in left]
    loader = keep(kl.PathSequenceLoader(names, None, BATCH, cache=tmp_path / "cache"))
    assert numbers(loader) == ALL
    assert not decoded


def test_other_data_of_the_same_names(tmp_path, keep):
    """Sizes and times are the same, as after unpacking two archives: each gets its own."""
    sides = two_folders(tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.png"):
        os.utime(path, ns=(0, 10**18))
    for first, paths in zip((0, 100), sides, strict=True):
        loader = keep(kl.PathSequenceLoader(paths, None, BATCH, cache=tmp_path / "cache"))
        assert numbers(loader) == [first + k for k in ALL]


def test_a_copy_is_read_anew(tmp_path, decoded, keep):
    """It has other inodes: that it holds the same cannot be known without reading it."""
    left, _ = two_folders(tmp_path / "data")
    with kl.PathSequenceLoader(left, None, BATCH, cache=tmp_path / "cache") as loader:
        assert numbers(loader) == ALL
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copy2)
    decoded.clear()
    copied = [path.replace("/data/", "/copy/") for path in left]
    assert (
        numbers(keep(kl.PathSequenceLoader(copied, None, BATCH, cache=tmp_path / "cache"))) == ALL
    )
    assert len(decoded) == SAMPLES


def test_records_of_a_file_that_moves(tmp_path, keep):
    """Records have their file's name below the common folder."""
    calls = []

    def decode(raw):
        calls.append(1)
        return np.frombuffer(raw, np.uint8)

    source = kl.ArraySequenceLoader(np.arange(SAMPLES, dtype=np.uint8)[:, None])
    kl.write_tfrecords(source, None, tmp_path / "a" / "all", shards=2, progress=False)
    for folder in ("a", "b"):
        files = sorted(map(str, (tmp_path / folder).glob("all*.tfrecord*")))
        files = [file for file in files if "index" not in file]
        options = {"features": {"x": kl.Feature("x", decode=decode)}, "cache_key": "1"}
        loader = keep(kl.TFRecordSequenceLoader(files, cache=tmp_path / "cache", **options))
        assert np.concatenate(list(loader.epoch_batches()))[:, 0].tolist() == ALL
        if folder == "a":
            (tmp_path / "a").rename(tmp_path / "b")
            before = len(calls)
    assert len(calls) == before + 1  # the first one, for its shape


def test_names_below_the_common_folder():
    """Of all files together, so that a sample's name says which of two folders it is in."""
    both = [PackedPaths(["/d/l/a/0", "/d/l/b/0"]), PackedPaths(["/d/r/a/0", "/d/r/b/0"])]
    files = SampleFiles(both)
    assert [files[k] for k in range(2)] == ["l/a/0\0r/a/0", "l/b/0\0r/b/0"]
    # Fewer than one in 256 lies elsewhere: the folder is that of all.
    many = PackedPaths([f"/d/l/{k:05}" for k in range(10_000)] + ["/d/a/0"])
    assert SampleFiles([many])[3] == "l/00003"
    assert SampleFiles([many])[10_000] == "a/0"
    assert SampleFiles([PackedPaths(["a/0", "/b/0"])])[1] == "/b/0"
    assert SampleFiles([PackedPaths(["x"])])[0] == "x"
    valued = SampleFiles([PackedPaths(["/d/0", "/d/1"])], [ArrayColumn(np.array([5, 5]))])
    assert valued[0].partition("\0")[2] == valued[1].partition("\0")[2] != ""


def test_a_sample_without_files_has_a_stamp():
    assert SampleFiles([]).stamp(3) == bytes(16)
    assert SampleFiles([["/not/there"]]).stamp(0) is None
    assert len(SampleFiles([[str(Path(__file__))]]).stamp(0)) == 16
