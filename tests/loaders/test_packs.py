"""Packs: what is written comes back as it was, a kill loses no shard, and damage is named."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kloaders as kl
from kloaders.cli import main as cli
from kloaders.convert import packs as pack_writer
from kloaders.core.structure import flatten, map_structure, same_structure
from kloaders.engine import batches
from kloaders.formats import mapped_files as joined
from kloaders.loaders import packs
from tests.support.recording import our_threads, picture_of, row_of

SAMPLES, BATCH = 20, 4


class Stored(kl.SequenceLoader):
    """Samples of any form, from a list."""

    def __init__(self, stored: list[Any], batch_size: int = BATCH, **options: Any) -> None:
        self.stored = stored
        super().__init__(len(stored), batch_size, **options)

    def load_sample(self, index: int) -> Any:
        found = self.stored[index]
        if isinstance(found, Exception):
            raise found
        return found


def write(data: Any, folder: Path | str, **options: Any) -> Any:
    return kl.write_pack(data, folder, progress=False, **options)


def rows(n: int = SAMPLES) -> Any:
    return np.stack([row_of(k) for k in range(n)])


def small(folder: Path, n: int = SAMPLES, **options: Any) -> Path:
    """A pack of vectors with their number, in shards of 8 samples."""
    loader = kl.ArraySequenceLoader(rows(n), np.arange(n), BATCH)
    write(loader, folder / "pack", shard_size=8 * 16, **options)
    return folder / "pack"


def epoch(loader: Any) -> list[Any]:
    loader.on_epoch_begin()
    found = [loader[k] for k in range(len(loader))]
    loader.on_epoch_end()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def assert_same(a: Any, b: Any) -> None:
    assert same_structure(a, b), (a, b)
    for one, other in zip(flatten(a), flatten(b), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)


# ----------------------------------------------------------------------------------- round trips

DTYPES = ["bool", "uint8", "int16", "uint64", "float16", "float32", "float64", "complex64"]
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
LEAVES = st.tuples(st.sampled_from(DTYPES), st.one_of(SHAPES, st.none()))
FORMS = st.recursive(
    LEAVES.map(lambda leaf: {"leaf": leaf}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)


def sample_of(form: Any, data: Any) -> Any:
    """A sample of a form: a leaf whose shape is None has another one in each sample."""
    if isinstance(form, tuple):
        return tuple(sample_of(part, data) for part in form)
    if set(form) == {"leaf"} and isinstance(form["leaf"][0], str):
        dtype, shape = form["leaf"]
        return data.draw(hnp.arrays(dtype, data.draw(SHAPES) if shape is None else shape))
    return {key: sample_of(part, data) for key, part in form.items()}


@settings(max_examples=60)
@given(
    form=st.tuples(FORMS) | st.tuples(FORMS, FORMS),
    samples=st.integers(1, 7),
    shard_size=st.integers(1, 300),
    data=st.data(),
)
def test_round_trip(form: Any, samples: int, shard_size: int, data: Any) -> None:
    """Any nesting, dtypes and shapes, in shards of any size, come back as the same bits."""
    stored = [sample_of(form, data) for _ in range(samples)]
    numbered = np.arange(samples, dtype=np.float32)
    weights = data.draw(st.sampled_from([None, numbered])) if len(form) == 2 else None
    with tempfile.TemporaryDirectory() as folder:
        loader = Stored(stored, 1, sample_weights=weights, shuffle=False, workers=0)
        write(loader, folder, shard_size=shard_size)
        for name in os.listdir(folder):
            if name.endswith(".npy"):
                np.load(os.path.join(folder, name), allow_pickle=False)
        with kl.PackSequenceLoader(folder, 1, shuffle=False, workers=0) as read:
            assert read.samples == samples
            for index in range(samples):
                assert_same(loader._sample(index), read._sample(index))
                assert_same(
                    map_structure(np.asarray, loader[index]), map_structure(np.asarray, read[index])
                )
            read.verify()


@pytest.mark.parametrize("free", [0, 2**40], ids=["larger than RAM", ""])
@pytest.mark.parametrize("width", [1, 300, 3000])
@pytest.mark.parametrize(("shard_size", "join"), [(None, True), ("30KB", True), ("30KB", False)])
def test_rows_of_one_and_of_many_shards(
    tmp_path: Path, keep: Any, monkeypatch: Any, width: int, shard_size: Any, join: bool, free: int
) -> None:
    """Shuffled over all samples, each once, whichever way rows are gathered and asked for."""
    monkeypatch.setattr(packs, "available_bytes", lambda: free)
    if not join:
        monkeypatch.setattr(joined, "_calls", lambda: None)
    x = np.arange(200)[:, None] * np.ones(width, np.float32)
    write(kl.ArraySequenceLoader(x, np.arange(200), 8), tmp_path, shard_size=shard_size)
    loader = keep(kl.PackSequenceLoader(tmp_path, 8, shuffle=True, seed=1))
    found = epoch(loader)
    for part, numbers in found:
        np.testing.assert_array_equal(part, x[numbers])
    numbers = np.concatenate([y for _, y in found])
    assert sorted(numbers.tolist()) == list(range(200))
    assert np.abs(np.diff(numbers)).mean() > 30  # neighbours come from all over


def test_the_same_batches_as_the_source(tmp_path: Path, keep: Any) -> None:
    """A pack is served in the order of its seed, like any other loader; options keep their meaning."""
    options = {"shuffle": True, "seed": 5, "pad_last": True, "sample_weights": np.arange(20.0)}
    source = keep(kl.ArraySequenceLoader(rows(), np.arange(20), 3, **options))
    write(source, tmp_path)
    loader = keep(kl.PackSequenceLoader(tmp_path, 3, shuffle=True, seed=5, pad_last=True))
    for a, b in zip(epoch(source), epoch(loader), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"drop_last": True}, {"shard": (1, 2)}, {"processes": True}]
)
def test_all_samples_in_storage_order(tmp_path: Path, keep: Any, options: Any) -> None:
    """However the source would serve them."""
    source = kl.ArraySequenceLoader(rows(), np.arange(20), 3, seed=1, workers=1, **options)
    write(source, tmp_path, shard_size=100)
    loader = keep(kl.PackSequenceLoader(tmp_path, SAMPLES, shuffle=False))
    assert_same(loader[0], (rows(), np.arange(20)))


def test_options_of_the_reader(tmp_path: Path, keep: Any) -> None:
    """dtype casts x, a transform draws anew, weights of the user's are taken."""
    folder = small(tmp_path)
    x, y = keep(kl.PackSequenceLoader(folder, SAMPLES, dtype="float16"))[0]
    assert (x.dtype, y.dtype) == (np.dtype("float16"), np.dtype("int64"))
    noisy = keep(
        kl.PackSequenceLoader(
            folder, SAMPLES, seed=1, transform=lambda x, y, rng: (rng.random(), y)
        )
    )
    assert not np.array_equal(*[x for x, _ in epoch(noisy) + epoch(noisy)])
    weighted = keep(kl.PackSequenceLoader(folder, SAMPLES, sample_weights=np.arange(20)))
    assert weighted[0][2].tolist() == list(range(20))


def test_bfloat16(tmp_path: Path, keep: Any) -> None:
    """NumPy has no such type: np.load sees integers, the loader the type."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    write(kl.ArraySequenceLoader(rows(), None, 4, dtype=ml_dtypes.bfloat16), tmp_path)
    assert np.load(tmp_path / "x-00000.npy").dtype == np.uint16
    x = keep(kl.PackSequenceLoader(tmp_path, SAMPLES, shuffle=False))[0]
    assert x.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(x, rows().astype(ml_dtypes.bfloat16))


def test_a_map_larger_than_what_is_allocated(tmp_path: Path, monkeypatch: Any) -> None:
    """64 MiB are packed, and read, with a few runs of samples in memory."""
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(1024, 16384))
    x[:, 0] = np.arange(1024)
    monkeypatch.setattr(batches, "_RUN_BYTES", 2**18)
    tracemalloc.start()
    try:
        with kl.ArraySequenceLoader(x, None, 4) as source:
            write(source, tmp_path / "pack", shard_size="8MiB")
        with kl.PackSequenceLoader(tmp_path / "pack", 4, shuffle=True, seed=1) as loader:
            loader.on_epoch_begin()
            numbers = [int(n) for k in range(len(loader)) for n in loader[k][:, 0]]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(numbers) == list(range(1024))
    assert peak < 10 * 2**20
    assert len(list((tmp_path / "pack").glob("*.npy"))) == 8


def test_dense_files_are_rows(tmp_path: Path) -> None:
    """Anybody can read them."""
    folder = small(tmp_path)
    parts = [np.load(p, mmap_mode="r") for p in sorted(folder.glob("x-*.npy"))]
    assert [len(part) for part in parts] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate(parts), rows())


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


# --------------------------------------------------------------------------------- ragged batches


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Sample k has k // 4 numbers."""
    write(Stored([np.full(k // 4, k, np.float32) for k in range(SAMPLES)], 1), tmp_path / "pack")
    return tmp_path / "pack"


@pytest.mark.parametrize("free", [0, 2**40], ids=["larger than RAM", ""])
def test_batches_of_one_shape(ragged: Path, keep: Any, monkeypatch: Any, free: int) -> None:
    """Shapes may differ from batch to batch."""
    monkeypatch.setattr(packs, "available_bytes", lambda: free)
    loader = keep(kl.PackSequenceLoader(ragged, 4, shuffle=False))
    assert [batch.shape for batch in epoch(loader)] == [(4, k) for k in range(5)]


def test_shapes_that_differ_in_a_batch(ragged: Path, keep: Any) -> None:
    """Both samples are named; what the message advises works."""
    loader = keep(kl.PackSequenceLoader(ragged, 8, shuffle=False))
    with pytest.raises(
        ValueError,
        match=r"row 4 of .*x-00000\.npy is float32 of shape \(1,\), but row 0 of .* is float32 of "
        r"shape \(0,\)\. Bring them to one shape in transform=, use batch_size=1",
    ):
        loader[0]
    assert len(epoch(keep(kl.PackSequenceLoader(ragged, 1)))) == SAMPLES
    padded = keep(
        kl.PackSequenceLoader(ragged, 8, transform=lambda x, y, rng: (np.resize(x, 5), y))
    )
    assert [batch.shape for batch in epoch(padded)] == [(8, 5), (8, 5), (4, 5)]


def test_samples_of_two_dtypes_are_refused(tmp_path: Path) -> None:
    """Both are named; dtype= is what helps."""
    stored = [np.zeros(2, np.uint8), np.zeros(3, np.uint16)]
    with pytest.raises(ValueError, match=r"index 1 is uint16, but index 0 is uint8.*Pass dtype="):
        write(Stored(stored), tmp_path)
    write(Stored(stored, dtype="float32"), tmp_path)


def test_to_tf_dataset(ragged: Path, tmp_path: Path) -> None:
    """Dimensions in which samples differ are None in the signature."""
    pytest.importorskip("tensorflow")
    dataset = kl.to_tf_dataset(kl.PackSequenceLoader(ragged, 4), shuffle=False)
    assert dataset.element_spec.shape.as_list() == [None, None]
    assert [tuple(batch.shape) for batch in dataset] == [(4, k) for k in range(5)]
    folder = small(tmp_path / "dense")
    x, y = next(iter(kl.to_tf_dataset(kl.PackSequenceLoader(folder, 4), shuffle=False)))
    assert x.numpy()[:, 0].tolist() == y.numpy().tolist() == [0, 1, 2, 3]


# -------------------------------------------------------------------------------- files as source


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six pictures, with their number in the colour."""
    import cv2

    for k in range(12):
        folder = tmp_path / "photos" / ("cat" if k < 6 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{k:02}.png"), picture_of(k, 4 + k)[..., ::-1])
    return tmp_path / "photos"


def test_paths(photos: Path, tmp_path: Path, keep: Any) -> None:
    """With paths, the options are PathSequenceLoader's."""
    paths = sorted(photos.glob("*/*"))
    write(paths, tmp_path / "pack", labels=np.arange(12), size=(8, 8))
    loader = keep(kl.PackSequenceLoader(tmp_path / "pack", 12, shuffle=False))
    assert_same(loader[0], keep(kl.PathSequenceLoader(paths, np.arange(12), 12, size=(8, 8)))[0])
    assert loader.job["size"] == [8, 8]


def test_pictures_as_they_are(photos: Path, tmp_path: Path, keep: Any) -> None:
    """Without size=, each keeps its own; class names are kept."""
    whole, _ = kl.from_directory(photos, validation=None)
    write(whole, tmp_path / "pack")
    loader = keep(kl.PackSequenceLoader(tmp_path / "pack", 1, shuffle=False))
    assert loader.class_names == ["cat", "dog"]
    found = epoch(loader)
    assert [x.shape for x, _ in found] == [(1, 4 + k, 4 + k, 3) for k in range(12)]
    assert [int(x[0, 0, 0, 0]) for x, _ in found] == list(range(12))
    assert [int(y[0]) for _, y in found] == [0] * 6 + [1] * 6


def test_a_split_part(photos: Path, tmp_path: Path, keep: Any) -> None:
    """Some samples of a loader are a loader; a pack can be split as well, by its classes."""
    train, _ = kl.from_directory(photos, validation=0.5, seed=1, size=(8, 8))
    write(train, tmp_path / "train")
    loader = keep(kl.PackSequenceLoader(tmp_path / "train", 6, shuffle=False))
    assert_same(
        loader[0], keep(train.view()).__class__(train.paths, loader[0][1], 6, size=(8, 8))[0]
    )
    one, other = kl.split(loader, validation=0.5, stratify=True, seed=1)
    assert [sorted(y.tolist()) for _, y in (keep(one)[0], keep(other)[0])] in (
        [[0, 0, 1], [0, 1, 1]],
        [[0, 1, 1], [0, 0, 1]],
        [[0, 0, 1], [0, 0, 1]],
        [[0, 1, 1], [0, 1, 1]],
    )


@pytest.mark.parametrize("transformed", [False, True])
def test_transforms(tmp_path: Path, keep: Any, transformed: bool) -> None:
    """Samples are written before the transform, or after it if asked, with epoch 0's numbers."""

    def noisy(x: Any, y: Any, rng: Any) -> Any:
        return np.append(x, rng.random(2, np.float32)), y

    source = keep(kl.ArraySequenceLoader(rows(), None, SAMPLES, transform=noisy, seed=3))
    write(source, tmp_path, transformed=transformed)
    loader = keep(kl.PackSequenceLoader(tmp_path, SAMPLES, shuffle=False))
    assert_same(loader[0], source.epoch_batches(0).__next__() if transformed else rows())


def test_a_transform_that_would_be_left_out(tmp_path: Path) -> None:
    """With paths it was meant; a loader's may be for the training."""
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(ValueError, match="pass transformed=True"):
        write([tmp_path / "a.npy"], tmp_path / "p", transform=lambda x, y, rng: (x, y))
    with pytest.raises(ValueError, match="there is no transform"):
        write([tmp_path / "a.npy"], tmp_path / "p", transformed=True)


def test_options_with_a_loader(tmp_path: Path) -> None:
    """They belong to the loader."""
    with pytest.raises(TypeError, match="got a loader, and labels, size with it"):
        write(kl.ArraySequenceLoader(rows()), tmp_path, labels=[1], size=(2, 2))


# ------------------------------------------------------------------------------ what does not load


def test_a_broken_file_is_named(photos: Path, tmp_path: Path, nothing_running: None) -> None:
    """on_error="raise" stops there and leaves no thread; mended, the same call goes on."""
    paths = sorted(photos.glob("*/*"))
    good = paths[9].read_bytes()
    paths[9].write_bytes(b"no picture")
    arguments: dict[str, Any] = {"size": (4, 4), "shard_size": 4 * 48}
    with pytest.raises(kl.SampleError, match=r"sample 9 .*09\.png.*no picture"):
        write(paths, tmp_path / "pack", **arguments)
    assert not our_threads()
    with pytest.raises(FileNotFoundError, match="not finished: run the same write_pack again"):
        kl.PackSequenceLoader(tmp_path / "pack")
    paths[9].write_bytes(good)
    finished = tmp_path / "pack" / "x-00000.npy"
    before = finished.stat().st_mtime_ns
    write(paths, tmp_path / "pack", **arguments)
    assert finished.stat().st_mtime_ns == before
    with kl.PackSequenceLoader(tmp_path / "pack", 12, shuffle=False) as loader:
        loader.verify()
        assert loader[0][:, 0, 0, 0].tolist() == list(range(12))


def test_a_mended_file_may_be_larger(photos: Path, tmp_path: Path) -> None:
    """Where samples differ in size, shards stay as they were cut at first."""
    paths = sorted(photos.glob("*/*"))
    good = paths[11].read_bytes()
    paths[11].write_bytes(b"no picture")
    with pytest.raises(kl.SampleError, match="sample 11"):
        write(paths, tmp_path / "pack", shard_size="1KB")
    paths[11].write_bytes(good)
    write(paths, tmp_path / "pack", shard_size="1KB")
    kl.PackSequenceLoader(tmp_path / "pack").verify()


def test_a_file_that_changed_meanwhile(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Its shard is made again when the call goes on, and no other one."""
    paths = sorted(photos.glob("*/*"))
    fail_at_shard(monkeypatch, 2, RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        write(paths, tmp_path / "pack", size=(4, 4), shard_size=4 * 48)
    monkeypatch.undo()
    paths[5].write_bytes(paths[3].read_bytes())
    finished = tmp_path / "pack" / "x-00000.npy"
    before = finished.stat().st_mtime_ns
    write(paths, tmp_path / "pack", size=(4, 4), shard_size=4 * 48)
    assert finished.stat().st_mtime_ns == before
    with kl.PackSequenceLoader(tmp_path / "pack", 12, shuffle=False) as loader:
        assert loader[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_broken_samples_are_told(
    tmp_path: Path, keep: Any, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are returned and told at the end; labels and weights stay with their samples."""
    stored: list[Any] = [(row_of(k), np.float32(k)) for k in range(SAMPLES)]
    for k in (0, 7, 19):
        stored[k] = OSError(f"bad {k}")
    with caplog.at_level("INFO", "kloaders"):
        written = write(
            Stored(stored, on_error=on_error, sample_weights=np.arange(20), seed=1),
            tmp_path,
            shard_size=100,
        )
    assert [error.index for error in written.errors] == [0, 7, 19]
    there = sorted(str(path) for path in tmp_path.iterdir())
    assert sorted(written.files) == there
    assert written.files[-1] == str(tmp_path / "pack.json")
    assert written.samples == (17 if on_error == "skip" else SAMPLES)
    done = "left out" if on_error == "skip" else "replaced"
    assert f"3 samples do not load and were {done}:\n  sample 0 (index 0)" in caplog.text
    loader = keep(kl.PackSequenceLoader(tmp_path, 32, shuffle=False))
    x, y, weights = loader[0]
    assert x[:, 0].tolist() == y.tolist() == weights.tolist()
    good = [k for k in range(SAMPLES) if k not in (0, 7, 19)]
    if on_error == "skip":
        assert y.tolist() == good
    else:
        assert len(y) == SAMPLES
        assert set(y.tolist()) == set(good)


def test_where_nothing_loads(tmp_path: Path) -> None:
    """The first sample and its cause."""
    with pytest.raises(kl.SampleError, match="bad"):
        write(Stored([OSError("bad")] * 3, on_error="skip"), tmp_path)


def test_skipped_in_another_call(tmp_path: Path, monkeypatch: Any) -> None:
    """What one call skipped and finished, the next one with on_error="raise" tells."""
    stored: list[Any] = [row_of(k) for k in range(SAMPLES)]
    stored[1] = OSError("bad")
    fail_at_shard(monkeypatch, 2, RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        write(Stored(stored, on_error="skip"), tmp_path, shard_size=64)
    monkeypatch.undo()
    with pytest.raises(kl.SampleError, match=r"index 1.*bad"):
        write(Stored(stored), tmp_path, shard_size=64)
    written = write(Stored(stored, on_error="skip"), tmp_path, shard_size=64)
    assert [error.index for error in written.errors] == [1]


# ------------------------------------------------------------------------------ kills and full disks


def fail_at_shard(monkeypatch: Any, shard: int, error: BaseException) -> None:
    """The file of the labels or rows of this shard fails in the middle."""
    real = pack_writer._Values.add

    def add(self: Any, found: Any) -> None:
        if self.name.endswith(f"{shard:05}"):
            self.file.write(b"half")
            raise error
        real(self, found)

    monkeypatch.setattr(pack_writer._Values, "add", add)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()],
    ids=["full", "Ctrl-C"],
)
def test_stopped_in_the_middle(tmp_path: Path, monkeypatch: Any, error: Any) -> None:
    """No half file is left; the same call writes what is missing, and the bytes are the same."""
    whole = contents(small(tmp_path / "whole"))
    fail_at_shard(monkeypatch, 1, error)
    with pytest.raises(type(error), match="run the same again" if error.args else None) as caught:
        small(tmp_path)
    if error.args:
        assert "x-00001.npy" in str(caught.value)
    monkeypatch.undo()
    assert sorted(contents(tmp_path / "pack")) == [
        "unfinished.jsonl",
        "x-00000.npy",
        "y-00000.npy",
    ]
    before = (tmp_path / "pack" / "x-00000.npy").stat().st_mtime_ns
    assert contents(small(tmp_path)) == whole
    assert (tmp_path / "pack" / "x-00000.npy").stat().st_mtime_ns == before


# Runs in a process of its own, without other threads: each try is a fork of it.
KILLS = """
    import os, random, shutil, signal, sys
    import numpy as np
    import kloaders as kl
    from kloaders.convert import packs as pack_writer
    folder, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    n = 60
    lengths = np.arange(n) % 5
    x = {"rows": np.arange(n * 3).reshape(n, 3), "more": [np.full(k, k) for k in lengths]}

    def write(to):
        loader = kl.ArraySequenceLoader(x, np.arange(n), 4, workers=0, sample_weights=np.ones(n))
        kl.write_pack(loader, to, shard_size=500, progress=False)

    def forked(to, moments):
        # Killed after so many function calls and returns; None for never. Gives how many there were.
        out, into = os.pipe()
        child = os.fork()
        if child:
            os.close(into)
            status = os.waitpid(child, 0)[1]
            assert status in (0, signal.SIGKILL), status
            with open(out) as told:
                return told.read()
        done = 0

        def count(*event):
            nonlocal done
            done += 1
            if done == moments:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        write(to)
        sys.setprofile(None)
        os.write(into, str(done).encode())
        os._exit(0)

    def contents(of):
        return {name: open(os.path.join(of, name), "rb").read() for name in os.listdir(of)}

    pack_writer.say = lambda *a, **k: None
    moments = int(forked(folder + "/whole", None))
    whole = contents(folder + "/whole")
    assert len(whole) > 20
    resumed = 0
    for attempt in range(25):
        to = f"{folder}/{attempt}"
        for _ in range(3):
            if forked(to, rng.randrange(moments)):
                break  # it got through
            there = contents(to) if os.path.isdir(to) else {}
            resumed += any(name.endswith(".npy") for name in there)
            # Whatever has a name is whole: the file of an uninterrupted run, byte by byte.
            for name, data in there.items():
                if not name.startswith((".", "unfinished")):
                    assert data == whole[name], name
            if "pack.json" in there:
                kl.PackSequenceLoader(to).verify()
                if "unfinished.jsonl" not in there:
                    break  # killed when all was done: another call would be refused
        else:
            assert forked(to, None)
        assert contents(to) == whole
    print(resumed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """kill -9, then the same call: the bytes of an uninterrupted one; nothing in half has a name."""
    seed = str(np.random.default_rng().integers(2**31))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path), seed],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, "KLOADERS_WORKER": "1"},  # without Keras: each kill is a fork of it
    )
    assert done.returncode == 0, (seed, done.stderr)
    assert int(done.stdout) >= 10, done.stdout


def test_other_arguments(tmp_path: Path, monkeypatch: Any) -> None:
    """A part of another pack is not gone on with; the message says in what it differs."""
    fail_at_shard(monkeypatch, 1, RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        small(tmp_path)
    monkeypatch.undo()
    loader = kl.ArraySequenceLoader(rows() + 1, np.arange(20), BATCH, dtype="float64")
    with pytest.raises(FileExistsError, match=r"data was .*; dtype was None, is 'float64'"):
        write(loader, tmp_path / "pack", shard_size=8 * 16)
    write(loader, tmp_path / "pack", overwrite=True)
    assert len(contents(tmp_path / "pack")) == 3


def test_a_pack_that_is_there(tmp_path: Path) -> None:
    """It is not written over unless that is asked for; then nothing of it stays."""
    folder = small(tmp_path)
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"pack\.json is there already.*overwrite=True"):
        small(tmp_path)
    assert contents(folder) == before
    small(tmp_path, 5, overwrite=True)
    assert sorted(contents(folder)) == ["pack.json", "x-00000.npy", "y-00000.npy"]


def test_a_pack_in_use_is_written_over(tmp_path: Path, keep: Any) -> None:
    """Who reads it goes on with what was mapped."""
    loader = keep(kl.PackSequenceLoader(small(tmp_path), BATCH, shuffle=False))
    epoch(loader)
    small(tmp_path, 5, overwrite=True)
    assert [y.tolist() for _, y in epoch(loader)][4] == [16, 17, 18, 19]


# ------------------------------------------------------------------------------------------ damage


def changed(folder: Path, change: Callable[[Any], None]) -> None:
    """pack.json with a change."""
    content = json.loads((folder / "pack.json").read_text())
    change(content)
    (folder / "pack.json").write_text(json.dumps(content))


def of_file(name: str, value: Any, number: int = 1) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        content["shards"][number]["parts"][0]["values"][name] = value

    return change


def keys(**values: Any) -> Callable[[Any], None]:
    return lambda content: content.update(values)


AGAIN = "write the pack again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_file("shape", [8, 3]), rf"x-00001\.npy has 320 bytes, and pack.json says 352.*{AGAIN}"),
        (of_file("shape", [8, 2**60]), r"x-00001\.npy has 320 bytes, and pack.json says 36,"),
        (of_file("shape", [8, 1, 2]), rf"x-00001\.npy has another header.*\(8, 1, 2\).*{AGAIN}"),
        (of_file("shape", [4, 2]), rf"pack.json is damaged .*x-00001\.npy is not of 8.*{AGAIN}"),
        (of_file("shape", [8, -2]), rf"pack.json is damaged .*shape \(8, -2\).*{AGAIN}"),
        (of_file("shape", [8, 2.0]), r"pack.json is damaged"),
        (of_file("shape", 8), r"pack.json is damaged"),
        (of_file("name", "x-00009.npy"), rf"x-00009\.npy is missing, which pack.json.*{AGAIN}"),
        (of_file("name", 5), r"pack.json is damaged .*name 5"),
        (of_file("crc32", None), r"pack.json is damaged"),
        (keys(samples=21), r"pack.json is damaged .*do not add up to 21"),
        (keys(samples=True), r"pack.json is damaged"),
        (keys(samples=0, shards=[]), r"pack.json is damaged"),
        (keys(leaves=["float32"]), r"pack.json is damaged .*2 arrays for 1 leaves"),
        (keys(leaves=["int32", "int64"]), r"another header than pack.json says: int32 of shape"),
        (keys(leaves=["object", "int64"]), r"pack.json is damaged .*'object'"),
        (keys(leaves=["O4", "int64"]), r"pack.json is damaged"),
        (keys(leaves=["array", "int64"]), r"pack.json is damaged"),
        (keys(structure={"tuple": [0]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"tuple": [0, 1, 1]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"tuple": [1, 0]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"dict": {"x": 0, "y": 1}}), r"pack.json is damaged"),
        (keys(structure=0), r"pack.json is damaged"),
        (keys(shards=5), r"pack.json is damaged"),
        (keys(format="zip"), r"pack.json is damaged .*format 'zip'"),
        (keys(version=2), r"has version 2, and kloaders .* reads 1: upgrade"),
        (lambda content: content.pop("job"), r"pack.json is damaged .*'job'"),
    ],
)
def test_a_manifest_that_does_not_match(tmp_path: Path, change: Any, said: str) -> None:
    """What does not match is named, before anything is allocated."""
    folder = small(tmp_path)
    changed(folder, change)
    with pytest.raises((ValueError, OSError), match=said):
        kl.PackSequenceLoader(folder)


@pytest.mark.parametrize(
    "name",
    ["../x.npy", "/etc/x.npy", "sub/x.npy", "..", "", ".", "..\\x.npy", "x\0.npy", "pack.json"],
)
def test_a_manifest_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    """Only plain names of files in the folder are taken."""
    folder = small(tmp_path)
    shutil.copy(folder / "x-00001.npy", tmp_path / "x.npy")
    changed(folder, of_file("name", name))
    with pytest.raises(ValueError, match=r"names the file .*, expected the plain name"):
        kl.PackSequenceLoader(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b"null", "is damaged"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, text: bytes, said: str) -> None:
    """Whatever lies there by that name."""
    (tmp_path / "pack.json").write_bytes(text)
    with pytest.raises(ValueError, match=said):
        kl.PackSequenceLoader(tmp_path)


def test_folders_that_are_no_pack(tmp_path: Path) -> None:
    """No folder, a file, an empty folder."""
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Relative paths start at"):
        kl.PackSequenceLoader(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no pack .*write_pack\(loader, folder\)"):
        kl.PackSequenceLoader(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file, expected the folder"):
        kl.PackSequenceLoader(tmp_path / "a")


@pytest.mark.parametrize("cut", [0, 100, 256, 300])
def test_files_that_are_cut(tmp_path: Path, cut: int) -> None:
    """The size is looked at when the pack is opened."""
    folder = small(tmp_path)
    os.truncate(folder / "x-00002.npy", cut)
    with pytest.raises(ValueError, match=rf"x-00002\.npy has {cut} bytes, and pack.json says"):
        kl.PackSequenceLoader(folder)


def test_verify_finds_every_flipped_byte(tmp_path: Path) -> None:
    """In values, indices, headers and the manifest: the file is named."""
    ragged = [(np.full(k, k), k) for k in range(5)]
    write(Stored(ragged, 1, sample_weights=np.ones(5)), tmp_path / "pack")
    folder = tmp_path / "pack"
    loader = kl.PackSequenceLoader(folder, 1)
    loader.verify()
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for _ in range(15):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            if path.name != "pack.json":
                with pytest.raises(ValueError, match=path.name.replace(".", r"\.")):
                    loader.verify()
                continue
            if json_of(bad) == json.loads(good):  # white space, or 1 for 1.0
                continue
            with pytest.raises((ValueError, OSError)):
                kl.PackSequenceLoader(folder, 1).verify()
        path.write_bytes(good)
    loader.verify()


def json_of(data: bytes) -> Any:
    try:
        return json.loads(bytes(data))
    except ValueError:
        return None


def test_verify_names_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files that differ, and a bar if asked for."""
    folder = small(tmp_path)
    for name in ("x-00001.npy", "y-00002.npy"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + b"\x80")
    with pytest.raises(ValueError, match=r"x-00001\.npy, .*y-00002\.npy changed since.*copy"):
        kl.PackSequenceLoader(folder).verify(progress=True)
    assert "verify: 100%" in capsys.readouterr().err


def test_an_index_that_lies(tmp_path: Path, keep: Any, monkeypatch: Any) -> None:
    """Values are looked for only where there are some; the sample is named."""
    write(Stored([np.zeros(k) for k in (1, 2, 3, 4)], 1), tmp_path)
    path = tmp_path / "x-00000.index.npy"
    good = path.read_bytes()
    for column, value in ((0, 9), (0, -1), (1, 2**62), (1, 100)):
        index = np.frombuffer(good[256:], np.int64).reshape(4, 2).copy()
        index[2, column] = value
        path.write_bytes(good[:256] + index.tobytes())
        monkeypatch.setattr(packs, "available_bytes", lambda value=value: value % 2)
        loader = keep(kl.PackSequenceLoader(tmp_path, 1, shuffle=False))
        with pytest.raises(kl.SampleError, match=r"index\.npy, row 2, is damaged: it places"):
            loader[2]
        assert loader[3].shape == (1, 4)


# --------------------------------------------------------------------------------- as other loaders


def test_a_pickled_pack_is_names_of_files(tmp_path: Path, keep: Any) -> None:
    """Nothing that was mapped travels; the copy serves the same."""
    loader = kl.ArraySequenceLoader(np.zeros((1000, 1000), np.float32), np.arange(1000), 10)
    write(loader, tmp_path)
    read = keep(kl.PackSequenceLoader(tmp_path, 10, shuffle=False))
    epoch(read)
    sent = pickle.dumps(read)
    assert len(sent) < 20_000
    copy = keep(pickle.loads(sent))
    assert_same(copy[7], read[7])


def test_processes(tmp_path: Path, keep: Any) -> None:
    """Worker processes map the files themselves."""
    options: dict[str, Any] = {"shuffle": True, "seed": 3}
    folder = small(tmp_path)
    ours = keep(kl.PackSequenceLoader(folder, BATCH, workers=1, processes=True, **options))
    for a, b in zip(
        epoch(ours), epoch(keep(kl.PackSequenceLoader(folder, BATCH, **options))), strict=True
    ):
        assert_same(a, b)


def test_from_pack_to_pack(tmp_path: Path, keep: Any) -> None:
    """preload, view, and a pack of a pack."""
    folder = small(tmp_path)
    loader = keep(kl.PackSequenceLoader(folder, SAMPLES, shuffle=False))
    for other in (loader.view(), kl.preload(loader, progress=False)):
        assert_same(keep(other)[0], loader[0])
    write(loader, tmp_path / "again", shard_size=8 * 16)
    ours, again = contents(folder), contents(tmp_path / "again")
    del ours["pack.json"], again["pack.json"]
    assert ours == again


def test_a_pack_onto_itself(tmp_path: Path, keep: Any) -> None:
    """Refused, before anything is removed; a part of it too."""
    folder = small(tmp_path)
    before = contents(folder)
    loader = keep(kl.PackSequenceLoader(folder))
    for source in (loader, kl.split(loader, seed=1)[0]):
        with pytest.raises(ValueError, match="is the pack that is read: write to another folder"):
            write(keep(source), tmp_path / "." / "pack", overwrite=True)
    assert contents(folder) == before


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
    assert mapped() == 6
    loader.close()
    assert mapped() == 0
    assert loader[0][1].tolist() == [0, 1, 2, 3]
    loader.close()


@pytest.mark.parametrize("join", [True, False])
def test_too_many_files(tmp_path: Path, keep: Any, monkeypatch: Any, join: bool) -> None:
    """The limit of open files is explained."""
    loader = keep(kl.PackSequenceLoader(small(tmp_path), SAMPLES, workers=0))
    loader.sample_spec  # noqa: B018

    def refusing(call: Any) -> Any:
        def refuse(path: Any, *arguments: Any) -> Any:
            if str(path).endswith("x-00001.npy"):
                raise OSError(errno.EMFILE, "Too many open files", path)
            return call(path, *arguments)

        return refuse

    if not join:
        monkeypatch.setattr(joined, "_calls", lambda: None)
    monkeypatch.setattr(np, "memmap", refusing(np.memmap))
    monkeypatch.setattr(os, "open", refusing(os.open))
    with pytest.raises(OSError, match=r"ulimit -n 4096.*x-00001\.npy"):
        loader[0]


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    """By default shards grow with the pack."""
    monkeypatch.setattr(pack_writer, "_SHARD_BYTES", 16)
    monkeypatch.setattr(pack_writer, "_SHARDS", 8)
    write(kl.ArraySequenceLoader(np.zeros((100, 2), np.float32), None), tmp_path)
    assert len(list(tmp_path.glob("x-*.npy"))) == 8


def test_keys_must_be_texts(tmp_path: Path) -> None:
    """JSON has no other names."""
    with pytest.raises(TypeError, match=r"the key 1 of a sample is int, expected str"):
        write(Stored([{1: np.zeros(2)}]), tmp_path)


# ------------------------------------------------------------------------------------ the command


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.cli, ["pack", *map(str, arguments)])


def test_the_command_packs_a_folder(photos: Path, tmp_path: Path, keep: Any) -> None:
    """A folder of classes, resized; what comes next is shown, and no bar in a pipe."""
    done = run(photos, tmp_path / "out", "--size", 8, 6, "--shard-size", "1KB", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'out'}: 12 samples" in done.stdout
    assert f"kl.PackSequenceLoader({str(tmp_path / 'out')!r}, 32)" in done.stdout
    assert "it/s" not in done.stderr
    assert "samples/s" not in done.stderr
    loader = keep(kl.PackSequenceLoader(tmp_path / "out", 12, shuffle=False))
    assert loader.class_names == ["cat", "dog"]
    assert loader[0][0].shape == (12, 8, 6, 3)
    again = run(photos, tmp_path / "out")
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    assert "--overwrite" in again.stderr
    assert run(photos, tmp_path / "out", "--overwrite").exit_code == 0


@pytest.mark.parametrize("labels", ["label", ""])
def test_the_command_packs_a_table(photos: Path, tmp_path: Path, keep: Any, labels: str) -> None:
    """A CSV file with paths, from the folder named, and perhaps labels."""
    lines = [f"{p.relative_to(photos)},{p.parent.name}" for p in sorted(photos.glob("*/*"))]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *lines]))
    options = ["--path-column", "file", "--label-column", labels, "--folder", photos]
    done = run(tmp_path / "t.csv", tmp_path / "out", *options, "--channels", 1, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["samples"] == 12
    assert report["shards"] == 1
    assert report["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert report["errors"] == []
    assert report["class_names"] == (["cat", "dog"] if labels else None)
    batch = keep(kl.PackSequenceLoader(tmp_path / "out", 1, shuffle=False))[3]
    x = batch[0] if labels else batch
    assert x.shape == (1, 7, 7, 1)


def test_the_command_and_a_broken_file(photos: Path, tmp_path: Path) -> None:
    """It is named, in one line, or left out and told."""
    (photos / "cat" / "02.png").write_bytes(b"broken")
    done = run(photos, tmp_path / "out", "--size", 4, 4)
    assert done.exit_code == 1
    assert re.search(r"kloaders: sample 2 \(.*02\.png\): .*\n", done.stderr)
    done = run(photos, tmp_path / "out", "--size", 4, 4, "--on-error", "skip", "--json")
    assert done.exit_code == 0
    (error,) = json.loads(done.stdout)["errors"]
    assert error["index"] == 2
    assert error["name"].endswith("02.png")
