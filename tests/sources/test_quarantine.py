"""Samples that do not load: the limit, the list that runs share, and what a later run leaves out."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import threading
import warnings
from collections import Counter
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.sources.quarantine import Quarantine, excluded, whole_name
from tests.support.recording import recording_model

SAMPLES, BATCH = 24, 4
BAD = (3, 9, 10)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arrays that hold their own number; three of them are none."""
    paths = [str(tmp_path / f"{k:02}.npy") for k in range(SAMPLES)]
    for k, path in enumerate(paths):
        np.save(path, np.full(2, k, np.float32))
    for k in BAD:
        Path(paths[k]).write_bytes(b"no array")
    return paths


def rows_of(path: Any) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def paths_of(path: Any) -> list[str]:
    return [row["path"] for row in rows_of(path)]


def epoch(loader: Any) -> list[Any]:
    """The numbers in the batches of one epoch, as in a hand-written loop."""
    loader.on_epoch_begin()
    batches = [loader[k] for k in range(len(loader))]
    loader.on_epoch_end()
    return [(x[0] if isinstance(x, tuple) else x)[..., 0].astype(int).tolist() for x in batches]


def flat(batches: Any) -> list[int]:
    return list(chain.from_iterable(batches))


LOADERS = pytest.mark.parametrize("two_levels", [False, True], ids=["files", "two levels"])


def loader_of(files: Any, labels: Any = None, two_levels: bool = False, **options: Any) -> Any:
    options.setdefault("cache", None)
    if two_levels:
        return kl.RamBatchSequenceLoader(files, labels, BATCH, ram_batch_size=12, **options)
    return kl.PathSequenceLoader(files, labels, BATCH, **options)


# ---------------------------------------------------------------------------------------- the limit


@LOADERS
@pytest.mark.parametrize("on_error", ["skip", "replace"])
@pytest.mark.parametrize(("limit", "enough"), [(3, True), (2, False), (0.13, True), (0.1, False)])
def test_the_limit(
    files: Any, keep: Any, two_levels: bool, on_error: str, limit: Any, enough: bool
) -> None:
    """A count or a share: at the limit an epoch ends well, one more raises and names everything."""
    loader = keep(loader_of(files, None, two_levels, on_error=on_error, max_errors=limit))
    if enough:
        for _ in range(3):  # the same three count once
            arrived = flat(epoch(loader))
            assert set(arrived) == set(range(SAMPLES)) - set(BAD)
            assert len(arrived) == SAMPLES - (len(BAD) if on_error == "skip" else 0)
        assert sorted(error.index for error in loader.errors) == list(BAD)
        return
    with pytest.raises(kl.SampleError) as caught:
        epoch(loader)
    said = str(caught.value)
    assert f"3 of 24 samples did not load, and max_errors={limit}" in said
    assert all(files[k] in said for k in BAD)
    assert "exclude=" in said
    with pytest.raises(kl.SampleError, match="max_errors"):  # asked again, it still holds
        epoch(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_limit_holds_across_epochs(files: Any, keep: Any, workers: int) -> None:
    """What breaks in a later epoch counts with what was broken before."""
    loader = keep(loader_of(files, on_error="skip", max_errors=3, workers=workers))
    assert len(flat(epoch(loader))) == SAMPLES - 3
    Path(files[20]).write_bytes(b"gone bad")
    with pytest.raises(kl.SampleError, match=r"20\.npy.*4 of 24 samples"):
        epoch(loader)


def test_the_limit_over_processes(files: Any, keep: Any) -> None:
    """Samples that fail in worker processes are counted in the loader's own."""
    options = {"processes": True, "workers": 2, "on_error": "skip"}
    loader = keep(loader_of(files, max_errors=2, **options))
    with pytest.raises(kl.SampleError, match="3 of 24 samples did not load, and max_errors=2"):
        epoch(loader)
    assert sorted(error.index for error in loader.errors) == list(BAD)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"max_errors": -1}, ValueError, "is negative"),
        ({"max_errors": 1.5}, ValueError, "between 0 and 1"),
        ({"max_errors": "few"}, TypeError, "max_errors='few' is not a number"),
        ({"max_errors": True}, TypeError, "max_errors=True is not a number"),
        ({"max_errors": float("nan")}, TypeError, "is not a number"),
        ({"max_errors": 5, "on_error": "raise"}, ValueError, "stops at the first sample"),
    ],
)
def test_limits_that_make_no_sense(files: Any, options: Any, kind: Any, words: str) -> None:
    """Refused when the loader is made, with two values that work."""
    with pytest.raises(kind, match=words):
        loader_of(files, **{"on_error": "skip", **options})


@pytest.mark.parametrize("make", ["array", "pack", "records", "own"])
def test_every_loader_has_the_options(make: str, tmp_path: Path, keep: Any) -> None:
    """max_errors and quarantine belong to all loaders; a transform that fails counts as well."""

    def fails(x: Any, y: Any, rng: Any) -> Any:
        if int(x.flat[0]) in BAD:
            raise KeyError("no such class")
        return x, y

    class Own(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.full(2, index, np.float32)

    values = np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], 2, axis=1)
    options: Any = {"transform": fails, "on_error": "skip", "quarantine": tmp_path / "bad.csv"}
    if make == "array":
        loader = kl.ArraySequenceLoader(values, None, BATCH, max_errors=2, **options)
    elif make == "own":
        loader = Own(SAMPLES, BATCH, max_errors=2, **options)
    elif make == "pack":
        kl.write_pack(kl.ArraySequenceLoader(values), tmp_path / "pack", progress=False)
        loader = kl.PackSequenceLoader(tmp_path / "pack", BATCH, max_errors=2, **options)
    else:
        source = kl.ArraySequenceLoader(values)
        (file,) = kl.write_tfrecords(source, None, tmp_path / "all", progress=False).files
        loader = kl.TFRecordSequenceLoader(file, {"x": "x"}, BATCH, max_errors=2, **options)
    with pytest.raises(kl.SampleError, match=r"KeyError.*max_errors=2"):
        epoch(keep(loader))
    assert len(rows_of(tmp_path / "bad.csv")) == 3


def test_what_is_told(tmp_path: Path, keep: Any, caplog: Any) -> None:
    """Each bad sample once, whatever the epochs; of very many the first ten, then each tenfold."""

    class Own(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            if index % 4 == 1:
                raise OSError(f"sector {index}")
            return np.float32([index])

    loader = keep(Own(480, 8, on_error="skip", workers=0))
    with caplog.at_level("INFO", "kloaders"):
        for _ in range(3):
            epoch(loader)
    told = [line for line in caplog.messages if "sector" in line]
    assert len(told) == 11
    assert len(loader.errors) == 120
    assert "the 100th of 480 samples" in told[-1]


# ----------------------------------------------------------------------------------------- raise


@LOADERS
@pytest.mark.parametrize("processes", [False, True])
def test_raise_names_file_position_and_cause_through_fit(
    files: Any, keep: Any, two_levels: bool, processes: bool, tmp_path: Path
) -> None:
    """Out of a thread or a process, and through whatever backend Keras runs on."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    options = {"processes": True, "workers": 1} if processes else {}
    quarantine = tmp_path / "bad.csv"
    loader = keep(
        loader_of(files, np.zeros(SAMPLES), two_levels, quarantine=quarantine, seed=1, **options)
    )
    with pytest.raises(Exception, match=r"sample \d+ \(.*") as caught:
        model.fit(loader, epochs=1, verbose=0)
    index, name = re.search(r"sample (\d+) \((.*?)\)", str(caught.value)).groups()  # type: ignore[union-attr]
    assert files[int(index)] == name
    assert int(index) in BAD
    assert "not an .npy file: it begins with b'no array'" in str(caught.value)
    assert name in paths_of(quarantine)  # so that the next run can do without it


@LOADERS
def test_a_first_sample_that_raises_is_written_down(
    files: Any, tmp_path: Path, keep: Any, two_levels: bool
) -> None:
    """The one that is looked at for its shape: a second run leaves it out and goes on."""
    Path(files[0]).write_bytes(b"no array")
    bad = tmp_path / "bad.csv"

    def run() -> None:
        # Closed before the list is looked at: threads that read ahead add to it.
        with loader_of(files, None, two_levels, quarantine=bad, exclude=bad) as loader:
            epoch(loader)

    with pytest.raises(kl.SampleError, match=r"00\.npy"):
        run()
    assert paths_of(bad) == [files[0]]
    while len(paths_of(bad)) < 1 + len(BAD):  # each run names at least one more
        with pytest.raises(kl.SampleError, match=r"not an \.npy file"):
            run()
    loader = keep(loader_of(files, None, two_levels, quarantine=bad, exclude=bad))
    assert flat(epoch(loader)) == sorted(set(range(SAMPLES)) - {0, *BAD})


def test_skip_keeps_counts_right_in_fit(files: Any, keep: Any) -> None:
    """What the model receives is every sound sample once an epoch; steps stay the same."""
    loader = keep(loader_of(files, np.arange(SAMPLES, dtype=np.float32), on_error="skip"))
    model, received = recording_model()
    history = model.fit(loader, epochs=3, verbose=0).history
    assert len(received.trained) == 3 * len(loader)
    assert Counter(flat(received.trained)) == {k: 3 for k in range(SAMPLES) if k not in BAD}
    assert history["mismatch"] == [0, 0, 0]


def test_skip_with_full_batches(files: Any, keep: Any) -> None:
    """pad_last fills a batch up to its size, with rows of weight 0: no step is compiled anew."""
    labels = np.arange(SAMPLES, dtype=np.float32)
    loader = keep(loader_of(files, labels, on_error="skip", pad_last=True))
    batches = [loader[k] for k in range(len(loader))]
    assert {len(x) for x, _, _ in batches} == {BATCH}
    counted = [int(y) for _, ys, ws in batches for y, w in zip(ys, ws, strict=True) if w]
    assert sorted(counted) == sorted(set(range(SAMPLES)) - set(BAD))


def test_replacements_are_the_same_for_everybody(files: Any, keep: Any) -> None:
    """For any number of threads, processes, runs; others in another epoch."""
    options: Any = {"on_error": "replace", "shuffle": True, "seed": 5}
    several = [{"workers": 0}, {"workers": 3}, {"workers": 2, "processes": True}]
    found = []
    for way in several:
        loader = keep(loader_of(files, **options, **way))
        found.append([epoch(loader) for _ in range(2)])
    assert found[0] == found[1] == found[2]
    assert all(len(batch) == BATCH for one in found[0] for batch in one)


# ---------------------------------------------------------------------------------- the quarantine


def test_columns_and_time(files: Any, tmp_path: Path, keep: Any) -> None:
    """path, error, first_seen: absolute, one line, UTC."""
    loader = keep(loader_of(files, on_error="skip", quarantine=tmp_path / "new" / "bad.csv"))
    assert (tmp_path / "new" / "bad.csv").read_text() == "path,error,first_seen\n"
    epoch(loader)
    rows = rows_of(tmp_path / "new" / "bad.csv")
    assert sorted(row["path"] for row in rows) == [files[k] for k in BAD]
    assert all("not an .npy file" in row["error"] for row in rows)
    for row in rows:
        seen = datetime.fromisoformat(row["first_seen"])
        assert abs(datetime.now(timezone.utc) - seen) < timedelta(minutes=5)


def test_addresses_stay_as_they_are(tmp_path: Path, keep: Any) -> None:
    """What a hook of the user's reads need not be a file of this machine."""
    urls = [f"gs://bucket/{k}.raw" for k in range(4)]

    class Remote(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            if path.endswith("2.raw"):
                raise OSError("403 Forbidden")
            return np.float32([1])

    options: Any = {"check_paths": False, "quarantine": tmp_path / "bad.csv"}
    epoch(keep(Remote(urls, None, 4, on_error="skip", **options)))
    assert paths_of(tmp_path / "bad.csv") == [urls[2]]
    assert list(keep(Remote(urls, exclude=tmp_path / "bad.csv", **options)).paths) == [
        url for url in urls if url != urls[2]
    ]


def test_a_resumed_run_adds_no_doubles(
    files: Any, tmp_path: Path, keep: Any, monkeypatch: Any
) -> None:
    """Not in later epochs, other loaders, shards, or another folder; times stay the first ones."""
    bad = tmp_path / "bad.csv"
    for shard in (None, (0, 2), (1, 2)):
        loader = keep(loader_of(files, on_error="skip", quarantine=bad, shard=shard))
        epoch(loader)
        epoch(loader)
        before = bad.read_bytes()
    monkeypatch.chdir(tmp_path)
    epoch(keep(loader_of([os.path.basename(f) for f in files], on_error="skip", quarantine=bad)))
    assert bad.read_bytes() == before
    assert sorted(paths_of(bad)) == [files[k] for k in BAD]


ADD = """
import sys
from kloaders.sources.quarantine import Quarantine
mine = Quarantine(sys.argv[1])
for k in range(50):
    who = sys.argv[2]
    mine.add([(f"/data/{k}", f"of {who}, in\\ntwo lines"), (f"/data/{who}-{k}", "own")])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_many_processes_and_threads_at_once(tmp_path: Path) -> None:
    """Each name once, every line whole; of one quarantine in two threads, and two in processes."""
    path = str(tmp_path / "bad.csv")
    shared = Quarantine(path)

    def add(who: int) -> None:
        for k in range(50):
            shared.add([(f"/data/{k}", "of a thread"), (f"/data/{who}-{k}", "own")])

    begun = [subprocess.Popen([sys.executable, "-c", ADD, path, str(k)]) for k in range(2)]
    threads = [threading.Thread(target=add, args=(k,)) for k in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert [process.wait(100) for process in begun] == [0, 0]
    wanted = [f"/data/{k}" for k in range(50)]
    wanted += [f"/data/{who}-{k}" for who in range(4) for k in range(50)]
    assert Counter(paths_of(path)) == Counter(wanted)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=6),
            st.text(max_size=8),
        ),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_a_killed_writer_leaves_no_half_line(tmp_path_factory: Any, rows: Any, data: Any) -> None:
    """Cut at any byte, the next writer goes on after the last whole line; nothing is lost."""
    path = tmp_path_factory.mktemp("q") / "bad.csv"
    names = ["/" + name.replace("/", "-") for name, _ in rows]
    Quarantine(path).add([(name, error) for name, (_, error) in zip(names, rows, strict=True)])
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    again = Quarantine(path)
    again.add([("/new", "line")])
    again.add([(name, "again") for name in names])
    found = Counter(paths_of(path))
    assert found == Counter({*map(whole_name, names), "/new"})


def test_a_file_without_its_last_line_break(tmp_path: Path) -> None:
    """As an editor may leave it: the last line stays."""
    path = tmp_path / "bad.csv"
    path.write_text("path,error,first_seen\n/a,odd,2026-01-01T00:00:00+00:00")
    Quarantine(path).add([("/b", "worse")])
    assert paths_of(path) == ["/a", "/b"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """It is named, with what was expected, and is left as it is."""
    path = tmp_path / "labels.csv"
    for content in (b"file,label\na,1\n", b"file,label", b"\x89PNG\0", b"path,label\na,1\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"labels\.csv is not a list.*path,error"):
            Quarantine(path)
        assert path.read_bytes() == content
        if b"path" not in content:
            with pytest.raises(ValueError, match=r"labels\.csv is not a list.*column called path"):
                excluded(path)


def test_what_the_machine_lacks_is_not_the_files_fault(tmp_path: Path, keep: Any) -> None:
    """Out of memory or descriptors: skipped and counted, and not written down."""

    class Own(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            if index == 4:
                raise MemoryError
            if index == 5:
                raise OSError(24, "Too many open files")
            if index == 6:
                raise OSError(5, "Input/output error")
            return np.float32([index])

    loader = keep(Own(8, 8, on_error="skip", quarantine=tmp_path / "bad.csv"))
    epoch(loader)
    assert [error.index for error in loader.errors] == [4, 5, 6]
    assert paths_of(tmp_path / "bad.csv") == ["index 6"]


def test_a_long_error_leaves_the_list_readable(files: Any, tmp_path: Path, keep: Any) -> None:
    """200 kB of what a library says: one short line; and a list that has such a line is read."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            if path == files[7]:
                raise ValueError(f"begin {b'x' * 200_000!r}\n\x1b[31mred\0 end")
            return np.float32([1])

    bad = tmp_path / "bad.csv"
    loader = keep(Own(files, None, BATCH, on_error="skip", quarantine=bad))
    epoch(loader)
    text = bad.read_text()
    assert len(text.splitlines()) == 2
    assert len(text) < 500
    assert "begin" in text
    assert text.splitlines()[1].count("end,") == 1
    assert "\x1b" not in text
    assert len(loader.errors[0].cause) < 1100
    with bad.open("a") as file:
        file.write(f'{files[3]},"{"y" * 200_000}",2026-01-01T00:00:00+00:00\n')
    left = keep(kl.PathSequenceLoader(files, None, BATCH, exclude=bad))
    assert list(left.paths) == [file for k, file in enumerate(files) if k not in (3, 7)]
    assert Quarantine(bad).add([(files[3], "again")]) == 0


@pytest.mark.skipif(os.name != "posix", reason="a folder in place of a file")
def test_a_list_that_cannot_be_written_does_not_end_the_run(
    files: Any, tmp_path: Path, keep: Any
) -> None:
    """It is checked when the loader is made; what happens later is told, and the run goes on."""
    folder = tmp_path / "taken"
    folder.mkdir()
    with pytest.raises(OSError, match="taken"):
        loader_of(files, on_error="skip", quarantine=folder)
    loader = keep(loader_of(files, on_error="skip", quarantine=tmp_path / "bad.csv"))
    os.unlink(tmp_path / "bad.csv")
    os.mkdir(tmp_path / "bad.csv")
    assert len(flat(epoch(loader))) == SAMPLES - 3


# ---------------------------------------------------------------------------------------- exclude


@LOADERS
def test_the_next_run_leaves_them_out(
    files: Any, tmp_path: Path, keep: Any, two_levels: bool
) -> None:
    """One line for both runs: the second has full batches, labels and weights in their places."""
    bad, labels = tmp_path / "bad.csv", np.arange(SAMPLES, dtype=np.float32)

    def run() -> Any:
        weights = np.arange(SAMPLES) + 100
        options: Any = {"quarantine": bad, "exclude": bad, "sample_weights": weights}
        return keep(loader_of(files, labels, two_levels, on_error="skip", **options))

    first = run()
    assert first.samples == SAMPLES
    assert sorted(flat(epoch(first))) == sorted(set(range(SAMPLES)) - set(BAD))
    second = run()
    assert second.samples == SAMPLES - 3
    assert list(second.paths) == [file for k, file in enumerate(files) if k not in BAD]
    for k in range(len(second)):
        x, y, w = second[k]
        assert len(x) == (BATCH if k < 5 else 1)
        assert x[:, 0].tolist() == y.tolist() == (w - 100).tolist()
    assert not second.errors


def test_exclude_through_hooks_masks_and_functions(files: Any, tmp_path: Path) -> None:
    """A sample goes if any of its files is listed; hooks and label functions see the right ones."""
    (tmp_path / "list.csv").write_text(
        "note,path\nwhy,{}\n,{}\n".format(files[0], os.path.join(files[1], "..", "01.npy"))
    )
    lists = [tmp_path / "list.csv"]
    left = kl.PathSequenceLoader(files[4:8], files[:4][::-1], 4, exclude=lists, on_error="skip")
    assert list(left.paths) == files[4:6]

    def number(path: str) -> int:
        return int(Path(path).stem)

    x, y = kl.PathSequenceLoader(files[:3], number, 4, exclude=lists)[0]
    assert (x[:, 0].tolist(), y.tolist()) == ([2], [2])

    class Hooked(kl.PathSequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            return np.stack([np.load(self.paths[k]) for k in indices.tolist()])

    x, y = Hooked(files[:3], number, 4, exclude=lists)[0]
    assert (x[:, 0].tolist(), y.tolist()) == ([2], [2])


def test_exclude_in_the_front_doors(tmp_path: Path) -> None:
    """Classes, groups and the split follow what is left."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(10):
            np.save(tmp_path / "data" / name / f"{k}.npy", np.float32([k]))
    gone = [str(tmp_path / "data" / "a" / f"{k}.npy") for k in (0, 4)]
    Quarantine(tmp_path / "bad.csv").add([(path, "bad") for path in gone])
    train, val = kl.from_directory(
        tmp_path / "data", seed=1, validation=0.5, exclude=tmp_path / "bad.csv"
    )
    assert train.samples + val.samples == 18
    assert not {*train.paths, *val.paths} & {*gone}
    for loader in (train, val):
        labels = np.concatenate([loader[k][1] for k in range(len(loader))])
        assert labels.tolist() == [int("/b/" in path) for path in loader.paths]
    files = sorted(map(str, (tmp_path / "data").glob("*/*.npy")))
    frame = {"file": files, "kind": [p.split("/")[-2] for p in files], "who": list(range(20))}
    frame["who"] = [k // 4 for k in frame["who"]]
    options: Any = {"exclude": str(tmp_path / "bad.csv"), "seed": 1, "validation": 0.5}
    train, val = kl.from_dataframe(frame, "file", "kind", **options)
    assert (train.samples, val.samples) == (9, 9)
    train, val = kl.from_dataframe(frame, "file", "kind", groups="who", stratify=False, **options)
    who = dict(zip(files, frame["who"], strict=True))
    assert not {who[p] for p in train.paths} & {who[p] for p in val.paths}


def test_exclude_in_the_converters(tmp_path: Path) -> None:
    """kloaders pack and kloaders tfrecord leave out what is listed."""
    from click.testing import CliRunner

    from kloaders.cli.main import cli

    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(5):
            np.save(tmp_path / "data" / name / f"{k}.npy", np.float32([k]))
    bad = tmp_path / "bad.csv"
    (tmp_path / "data" / "a" / "2.npy").write_bytes(b"no array")
    Quarantine(bad).add([(str(tmp_path / "data" / "a" / "2.npy"), "bad")])
    for command in ("pack", "tfrecord"):
        arguments = [
            command,
            str(tmp_path / "data"),
            str(tmp_path / command),
            "--exclude",
            str(bad),
        ]
        assert CliRunner().invoke(cli, arguments).exit_code == 0
    packed = kl.PackSequenceLoader(tmp_path / "pack", 10)[0]
    records = kl.TFRecordSequenceLoader(
        str(tmp_path / "tfrecord" / "*"), {"x": "image_raw", "y": "label"}, 10
    )[0]
    for x, y in (packed, records):
        assert x[:, 0].tolist() == [0, 1, 3, 4, 0, 1, 2, 3, 4]
        assert y.tolist() == [0] * 4 + [1] * 5


def test_exclude_of_records(tmp_path: Path, keep: Any) -> None:
    """A record that was damaged in one run is left out by the next, weights included."""
    values = np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], 2, axis=1)
    written = kl.write_tfrecords(
        kl.ArraySequenceLoader(values), None, tmp_path / "all", shards=2, progress=False
    )
    second = bytearray(Path(written.files[1]).read_bytes())
    second[len(second) // 2] ^= 1
    Path(written.files[1]).write_bytes(second)
    bad = tmp_path / "bad.csv"
    options: Any = {"on_error": "skip", "quarantine": bad, "exclude": bad, "batch_size": BATCH}
    options["features"] = {"x": "x"}
    first = keep(kl.TFRecordSequenceLoader(written.files, **options))
    before = flat(epoch(first))
    (error,) = first.errors
    assert paths_of(bad) == [error.name]
    again = keep(kl.TFRecordSequenceLoader(written.files, **options))
    assert (again.samples, len(again)) == (SAMPLES - 1, 6)
    assert flat(epoch(again)) == before
    assert not again.errors
    two = keep(kl.TFRecordSequenceLoader(written.files, ram_batch_size=8, **options))
    assert sorted(flat(epoch(two))) == sorted(before)
    with pytest.raises(ValueError, match="exclude="):
        kl.to_tf_dataset(
            kl.TFRecordSequenceLoader(written.files, {"x": "x"}, 4, exclude=bad), native=True
        )


def test_wrong_lists(files: Any, tmp_path: Path, caplog: Any) -> None:
    """A list that is not there, leaves nothing, or has nothing to do with the data."""
    with pytest.raises(FileNotFoundError, match=r"exclude='gone.csv' does not exist.*kloaders ver"):
        loader_of(files, exclude="gone.csv")
    with pytest.raises(TypeError, match=r"exclude=3, expected the path of a CSV"):
        loader_of(files, exclude=[3])
    Quarantine(tmp_path / "all.csv").add([(file, "bad") for file in files])
    with pytest.raises(ValueError, match="leaves out all 24 samples"):
        loader_of(files, exclude=tmp_path / "all.csv")
    Quarantine(tmp_path / "other.csv").add([("/elsewhere/00.npy", "bad")])
    with caplog.at_level("INFO", "kloaders"):
        assert loader_of(files, exclude=tmp_path / "other.csv").samples == SAMPLES
    assert "none of the listed paths is among these" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_does_not_wait_for_the_parents_lock(tmp_path):
    """A lock that a thread of the parent holds at the moment of a fork is free in the child."""
    listed = Quarantine(tmp_path / "bad.csv")
    with listed._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads run: that is the point
        child = os.fork()
        if child == 0:
            added = listed._lock.acquire(blocking=False)
            os._exit(0 if added else 1)
    assert os.waitpid(child, 0)[1] == 0
