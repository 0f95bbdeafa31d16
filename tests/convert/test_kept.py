"""A finished conversion is kept: a script that converts and trains can run twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl

SAMPLES = 12


def rows() -> Any:
    return np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], 3, axis=1)


def arrays(changed: int | None = None, labels: Any = None) -> kl.ArraySequenceLoader:
    x = rows()
    if changed is not None:
        x[changed] += 100
    return kl.ArraySequenceLoader(x, np.arange(SAMPLES) if labels is None else labels, 4)


def pack(loader: Any, folder: Path, **options: Any) -> Any:
    return kl.write_pack(loader, folder / "a", **{"progress": False, **options})


def records(loader: Any, folder: Path, **options: Any) -> Any:
    return kl.write_tfrecords(loader, out=folder / "a", **{"progress": False, **options})


WRITERS = pytest.mark.parametrize("write", [pack, records])


def state(written: Any) -> dict[str, tuple[int, int]]:
    """Inode and time of each file, which change when it is rewritten."""
    return {f: (os.stat(f).st_ino, os.stat(f).st_mtime_ns) for f in written.files}


@WRITERS
def test_the_same_call_again_has_nothing_to_do(tmp_path: Path, write: Any, caplog: Any) -> None:
    first = write(arrays(), tmp_path)
    before = state(first)
    with caplog.at_level("INFO", "kloaders"):
        again = write(arrays(), tmp_path)
    assert again == first
    assert state(again) == before
    assert "already has all 12 samples of the same conversion" in caplog.text
    assert "resuming" not in caplog.text
    assert write(arrays(), tmp_path) == first  # and again


@WRITERS
@pytest.mark.parametrize("changed", range(SAMPLES))
def test_a_row_that_changed_is_other_data(tmp_path: Path, write: Any, changed: int) -> None:
    """Any row, in RAM: all of them are compared."""
    before = state(write(arrays(), tmp_path))
    with pytest.raises(
        FileExistsError,
        match=r"already exists, made with other arguments: .*data was .*overwrite",
    ):
        write(arrays(changed), tmp_path)
    assert state(write(arrays(), tmp_path)) == before
    labels = np.arange(SAMPLES)
    labels[changed] = 99
    with pytest.raises(FileExistsError, match="already exists, made with other arguments"):
        write(arrays(labels=labels), tmp_path)


@WRITERS
def test_one_hot_labels_and_lists_are_compared_whole(tmp_path: Path, write: Any) -> None:
    lists = [np.full(3, n, np.float32) for n in range(200)]
    write(kl.ArraySequenceLoader(lists, None, 4), tmp_path)
    lists[101] = lists[101] + 1
    with pytest.raises(FileExistsError, match="made with other arguments"):
        write(kl.ArraySequenceLoader(lists, None, 4), tmp_path)


@WRITERS
def test_files_that_changed(tmp_path: Path, write: Any) -> None:
    for n in range(SAMPLES):
        np.save(tmp_path / f"{n:02}.npy", np.full(3, n, np.float32))
    paths = sorted(map(str, tmp_path.glob("*.npy")))
    loader = kl.PathSequenceLoader(paths, np.arange(SAMPLES), 4)
    first = write(loader, tmp_path / "out")
    assert write(loader, tmp_path / "out") == first
    np.save(paths[3], np.full(3, 77, np.float32))
    os.utime(paths[3], ns=(1, 1))
    with pytest.raises(FileExistsError, match="1 of 1 shards are out of date"):
        write(loader, tmp_path / "out")
    anew = write(loader, tmp_path / "out", if_exists="overwrite")
    assert anew.samples == SAMPLES
    assert write(loader, tmp_path / "out") == anew


def test_a_map_of_a_file_that_changed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(4000.0).reshape(1000, 4))

    def loader() -> Any:
        return kl.ArraySequenceLoader(np.load(tmp_path / "x.npy", mmap_mode="r"), None, 4)

    first = pack(loader(), tmp_path)
    assert pack(loader(), tmp_path) == first
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    with pytest.raises(FileExistsError, match="data was"):
        pack(loader(), tmp_path)


@WRITERS
def test_other_arguments(tmp_path: Path, write: Any) -> None:
    write(arrays(), tmp_path)
    x = kl.ArraySequenceLoader(rows(), np.arange(SAMPLES), 4, dtype="float64")
    with pytest.raises(FileExistsError, match="dtype was None, is 'float64'"):
        write(x, tmp_path)
    assert write(x, tmp_path, if_exists="overwrite").samples == SAMPLES
    assert write(x, tmp_path).samples == SAMPLES


@WRITERS
def test_a_file_that_is_gone(tmp_path: Path, write: Any) -> None:
    first = write(arrays(), tmp_path, **({"shards": 3} if write is records else {}))
    os.unlink(first.files[0])
    with pytest.raises(FileExistsError, match="shards are out of date"):
        write(arrays(), tmp_path, **({"shards": 3} if write is records else {}))
    for file in first.files[1:]:
        os.unlink(file)  # all gone: there is nothing to keep
    again = write(arrays(), tmp_path, **({"shards": 3} if write is records else {}))
    assert again == first


@WRITERS
def test_if_exists(tmp_path: Path, write: Any) -> None:
    write(arrays(), tmp_path, if_exists="raise")
    with pytest.raises(FileExistsError, match="already exists"):
        write(arrays(), tmp_path, if_exists="raise")
    with pytest.raises(ValueError, match=r"if_exists='skip' is not known: choose \"keep\""):
        write(arrays(), tmp_path, if_exists="skip")
    with pytest.raises(ValueError, match="contradicts if_exists"):
        write(arrays(), tmp_path, if_exists="raise", overwrite=True)


@WRITERS
def test_what_is_behind_a_hook_cannot_be_compared(tmp_path: Path, write: Any, caplog: Any) -> None:
    """The pack is kept, and a warning names what was not compared."""

    class Loader(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.full(3, index, np.float32)

    write(Loader(SAMPLES, 4), tmp_path)
    with caplog.at_level("WARNING", "kloaders"):
        assert write(Loader(SAMPLES, 4), tmp_path).samples == SAMPLES
    assert "is not known whether they were made with the same data behind Loader" in caplog.text


def test_features_alone_are_compared_whole(tmp_path: Path, caplog: Any) -> None:
    values = list(range(500))
    big = np.zeros((500, 2000))
    call: Any = {"paths_or_loader": None, "out": tmp_path / "a", "progress": False}
    first = kl.write_tfrecords(features={"n": values, "v": big}, **call)
    with caplog.at_level("WARNING", "kloaders"):
        assert kl.write_tfrecords(features={"n": values, "v": big}, **call) == first
    assert not caplog.text
    values[77] = -1
    with pytest.raises(FileExistsError, match=r"[:;] n was"):
        kl.write_tfrecords(features={"n": values, "v": big}, **call)
    values[77] = 77
    big[300, 1000] = 1
    with pytest.raises(FileExistsError, match="v was"):
        kl.write_tfrecords(features={"n": values, "v": big}, **call)


def test_errors_are_told_again(tmp_path: Path, caplog: Any) -> None:
    """Files that the first call skipped are reported by the second, too."""
    for n in range(4):
        np.save(tmp_path / f"{n}.npy", np.full(3, n, np.float32))
    (tmp_path / "2.npy").write_bytes(b"broken")
    paths = sorted(map(str, tmp_path.glob("*.npy")))
    first = kl.write_pack(paths, tmp_path / "a", on_error="skip", progress=False)
    caplog.clear()
    with caplog.at_level("WARNING", "kloaders"):
        again = kl.write_pack(paths, tmp_path / "a", on_error="skip", progress=False)
    assert (again.samples, len(again.errors)) == (first.samples, 1) == (3, 1)
    assert "2.npy" in caplog.text
