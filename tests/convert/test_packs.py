"""Writing packs: of any loader or of files, what does not load, kills and full disks, the command."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import main as cli
from kloaders.convert import packs as pack_writer
from kloaders.convert.pack_arrays import ShardArray
from tests.support.packs import (
    BATCH,
    SAMPLES,
    Stored,
    assert_same,
    contents,
    epoch,
    rows,
    small,
    write,
)
from tests.support.recording import our_threads, picture_of, row_of


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


def test_samples_of_two_dtypes_are_refused(tmp_path: Path) -> None:
    """Both are named; dtype= is what helps."""
    stored = [np.zeros(2, np.uint8), np.zeros(3, np.uint16)]
    with pytest.raises(
        ValueError, match=r"index 1\): it is uint16, but index 0 is uint8.*Pass dtype="
    ):
        write(Stored(stored), tmp_path)
    write(Stored(stored, dtype="float32"), tmp_path)


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
    """A subset of a loader can be packed; a pack can be split by its classes."""
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
    """With paths the option is intended; that of a loader may be for training."""
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(ValueError, match="pass transformed=True"):
        write([tmp_path / "a.npy"], tmp_path / "p", transform=lambda x, y, rng: (x, y))
    with pytest.raises(ValueError, match="there is no transform"):
        write([tmp_path / "a.npy"], tmp_path / "p", transformed=True)


def test_options_with_a_loader(tmp_path: Path) -> None:
    """They belong to the loader."""
    with pytest.raises(TypeError, match="got a loader together with labels, size"):
        write(kl.ArraySequenceLoader(rows()), tmp_path, labels=[1], size=(2, 2))


def test_a_broken_file_is_named(
    photos: Path, tmp_path: Path, nothing_running: None, monkeypatch: Any
) -> None:
    """on_error="raise" stops there and leaves no thread; mended, the same call goes on."""
    paths = sorted(photos.glob("*/*"))
    good = paths[9].read_bytes()
    paths[9].write_bytes(b"no picture")
    arguments: dict[str, Any] = {"size": (4, 4), "shard_size": 4 * 48}
    with pytest.raises(kl.SampleError, match=r"sample 9 .*09\.png.*no picture"):
        write(paths, tmp_path / "pack", **arguments)
    assert not our_threads()
    with pytest.raises(FileNotFoundError, match="unfinished pack: run the same write_pack again"):
        kl.PackSequenceLoader(tmp_path / "pack")
    paths[9].write_bytes(good)
    written = shards_written(monkeypatch)
    write(paths, tmp_path / "pack", **arguments)
    assert written == {2}
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
    written = shards_written(monkeypatch)
    write(paths, tmp_path / "pack", size=(4, 4), shard_size=4 * 48)
    assert written == {1, 2}
    with kl.PackSequenceLoader(tmp_path / "pack", 12, shuffle=False) as loader:
        assert loader[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_broken_samples_are_told(
    tmp_path: Path, keep: Any, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors are returned and reported at the end; labels and weights stay with their samples."""
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
    there = sorted(str(path) for path in tmp_path.iterdir() if path.name[0] != ".")
    assert sorted(written.files) == there
    assert written.files[-1] == str(tmp_path / "pack.json")
    assert written.samples == (17 if on_error == "skip" else SAMPLES)
    done = "left out" if on_error == "skip" else "replaced"
    line = r"\n  \S+packs\.py, line \d+, in load_sample: sample 0 \(index 0\)"
    assert re.search(f"3 samples failed to load and were {done}:{line}", caplog.text)
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
    """With on_error="raise" the next call reports the samples that an earlier call skipped."""
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


def shards_written(monkeypatch: Any) -> set[int]:
    """The numbers of the shards that are written from now on."""
    found: set[int] = set()
    real = ShardArray.finish

    def finish(self: Any) -> Any:
        found.add(self.shard)
        return real(self)

    monkeypatch.setattr(ShardArray, "finish", finish)
    return found


def fail_at_shard(monkeypatch: Any, shard: int, error: BaseException) -> None:
    """The file of the labels or rows of this shard fails in the middle."""
    real = ShardArray.add

    def add(self: Any, found: Any) -> None:
        if self.shard == shard:
            real(self, found[: len(found) // 2])
            raise error
        real(self, found)

    monkeypatch.setattr(ShardArray, "add", add)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()],
    ids=["full", "Ctrl-C"],
)
def test_stopped_in_the_middle(tmp_path: Path, monkeypatch: Any, error: Any) -> None:
    """No incomplete file has a final name; the same call completes the pack, to the same bytes."""
    whole = contents(small(tmp_path / "whole"))
    fail_at_shard(monkeypatch, 1, error)
    with pytest.raises(type(error), match="run the same again" if error.args else None) as caught:
        small(tmp_path)
    if error.args:
        assert "x.npy.unfinished" in str(caught.value)
    monkeypatch.undo()
    assert sorted(contents(tmp_path / "pack")) == [
        "unfinished.jsonl",
        "x.npy.unfinished",
        "y.npy.unfinished",
    ]
    written = shards_written(monkeypatch)
    assert contents(small(tmp_path)) == whole
    assert written == {1, 2}


# Runs in a process of its own, without other threads: each try is a fork of it.
KILLS = """
    import faulthandler, os, random, shutil, signal, sys
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
        faulthandler.dump_traceback_later(60, exit=True)  # one that hangs says where
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
        return {name: open(os.path.join(of, name), "rb").read() for name in os.listdir(of) if name[0] != "."}

    pack_writer.say = lambda *a, **k: None
    moments = int(forked(folder + "/whole", None))
    whole = contents(folder + "/whole")
    assert {"x0.npy", "y.npy", "w.npy"} <= whole.keys() and len(whole) > 10, whole.keys()
    resumed = 0
    for attempt in range(25):
        to = f"{folder}/{attempt}"
        for _ in range(3):
            if forked(to, rng.randrange(moments)):
                break  # it got through
            there = contents(to) if os.path.isdir(to) else {}
            resumed += b'"shard"' in there.get("unfinished.jsonl", b"")
            # Whatever has its name is whole: the file of an uninterrupted run, byte by byte.
            for name, data in there.items():
                if not name.startswith((".", "unfinished")) and not name.endswith(".unfinished"):
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
    """It is overwritten only on request, and then completely."""
    folder = small(tmp_path)
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"pack\.json already exists.*overwrite=True"):
        small(tmp_path, if_exists="raise")
    assert contents(folder) == before
    small(tmp_path, 5, overwrite=True)
    assert sorted(contents(folder)) == ["pack.json", "x.npy", "y.npy"]


def test_a_pack_in_use_is_written_over(tmp_path: Path, keep: Any) -> None:
    """A reader keeps the files that it has mapped."""
    loader = keep(kl.PackSequenceLoader(small(tmp_path), BATCH, shuffle=False))
    epoch(loader)
    small(tmp_path, 5, overwrite=True)
    assert [y.tolist() for _, y in epoch(loader)][4] == [16, 17, 18, 19]


def test_a_pack_onto_itself(tmp_path: Path, keep: Any) -> None:
    """Refused, before anything is removed; a part of it too."""
    folder = small(tmp_path)
    before = contents(folder)
    loader = keep(kl.PackSequenceLoader(folder))
    for source in (loader, kl.split(loader, seed=1)[0]):
        with pytest.raises(
            ValueError, match="is the pack that the loader reads: write to another folder"
        ):
            write(keep(source), tmp_path / "." / "pack", overwrite=True)
    assert contents(folder) == before


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    """By default shards grow with the pack: where shapes differ, each has its own files."""
    monkeypatch.setattr(pack_writer, "_SHARD_BYTES", 16)
    monkeypatch.setattr(pack_writer, "_SHARDS", 8)
    write(Stored([np.zeros(k % 5, np.float32) for k in range(100)], 1), tmp_path)
    assert len(list(tmp_path.glob("x-*.index.npy"))) == 8


def test_keys_must_be_texts(tmp_path: Path) -> None:
    """JSON has no other names."""
    with pytest.raises(TypeError, match=r"the key 1 of a sample is int, expected str"):
        write(Stored([{1: np.zeros(2)}]), tmp_path)


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
    assert "already exists" in again.stderr
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
    shown = (p for p in (tmp_path / "out").iterdir() if p.name[0] != ".")
    assert report["bytes"] == sum(p.stat().st_size for p in shown)
    assert report["errors"] == []
    assert report["class_names"] == (["cat", "dog"] if labels else None)
    batch = keep(kl.PackSequenceLoader(tmp_path / "out", 1, shuffle=False))[3]
    x = batch[0] if labels else batch
    assert x.shape == (1, 7, 7, 1)


def test_the_command_and_a_broken_file(photos: Path, tmp_path: Path) -> None:
    """The command names it in one line, or leaves it out and reports it."""
    (photos / "cat" / "02.png").write_bytes(b"broken")
    done = run(photos, tmp_path / "out", "--size", 4, 4)
    assert done.exit_code == 1
    assert re.search(r"kloaders: sample 2 \(.*02\.png\): .*\n", done.stderr)
    done = run(photos, tmp_path / "out", "--size", 4, 4, "--on-error", "skip", "--json")
    assert done.exit_code == 0
    (error,) = json.loads(done.stdout)["errors"]
    assert error["index"] == 2
    assert error["name"].endswith("02.png")
