"""`kloaders verify`: what is damaged is found at whatever byte, what is sound is not accused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.main import cli
from kloaders.diagnostics.verify import run as verification
from kloaders.diagnostics.verify import worker as inspection
from kloaders.diagnostics.verify.report import ERRORS
from tests.support.pillow_images import JPEGS, picture, saved

# ---------------------------------------------------------------------------------------- a folder


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes = b"") -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT") + chunk(b"IEND")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six sound pictures each, in a folder of their own."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(6):
            raw = saved(picture(60, 80, 10 * k + n), "JPEG")
            (tmp_path / "photos" / name / f"{n}.jpg").write_bytes(raw)
    return tmp_path / "photos"


@pytest.fixture
def spoilt(photos: Path) -> dict[str, str]:
    """What is wrong in `photos` from now on: paths and kinds."""
    cat, dog = photos / "cat", photos / "dog"
    sound = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (cat / "none.jpg").write_bytes(b"")
    (cat / "html.jpg").write_bytes(b"<html>404</html>")
    (cat / "lie.jpg").write_bytes(saved(picture(60, 80, 90), "PNG"))
    (dog / "bomb.png").write_bytes(bomb())
    (dog / "gone.jpg").symlink_to(dog / "nowhere.jpg")
    os.mkfifo(dog / "pipe.jpg")
    (dog / "again.jpg").write_bytes((dog / "1.jpg").read_bytes())
    (dog / "both.jpg").write_bytes(sound)
    (dog / "grey.png").write_bytes(saved(picture(60, 80, 91)[..., 0], "PNG"))
    (dog / "notes.txt").write_text("left out")
    (dog / ".hidden.jpg").write_text("left out")
    return {
        str(cat / "cut.jpg"): "truncated",
        str(cat / "none.jpg"): "empty",
        str(cat / "html.jpg"): "broken",
        str(cat / "lie.jpg"): "misnamed",
        str(dog / "bomb.png"): "too many pixels",
        str(dog / "gone.jpg"): "unreadable",
        str(dog / "pipe.jpg"): "unreadable",
        str(dog / "both.jpg"): "conflicting labels",
        str(dog / "again.jpg"): "duplicate",
        str(dog / "grey.png"): "inconsistent",
    }


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_found(photos: Path, spoilt: dict[str, str], workers: int) -> None:
    """In this process or in others: the same report, the worst first."""
    report = kl.verify(photos, workers=workers, progress=False)
    assert {one.path: one.kind for one in report.findings} == spoilt
    assert len(report.findings) == len(spoilt)
    assert (report.files, report.left_out) == (12 + 10, 1)
    assert [one.kind for one in report.errors] == sorted(
        (kind for kind in spoilt.values() if kind in ERRORS),
        key=ERRORS.index,
    )
    assert not report.ok


def test_a_sound_folder(photos: Path) -> None:
    """Exit code 0, one line."""
    done = run(photos)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(photos))}: 12 read in [\d.]+ s, all sound\.\n", done.stdout
    )


def test_as_a_user_runs_it(photos: Path, spoilt: dict[str, str]) -> None:
    """In a pipe: no bar, nothing of the decoders' own; exit code 1, and every name."""
    done = subprocess.run(
        [sys.executable, "-m", "kloaders", "verify", str(photos)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    for path, kind in spoilt.items():
        assert re.search(rf"^{kind}: {re.escape(path)} ", done.stdout, re.MULTILINE)


def test_warnings_do_not_fail(photos: Path) -> None:
    """Duplicates and odd shapes are told with exit code 0, and with 1 if asked for."""
    (photos / "cat" / "again.jpg").write_bytes((photos / "cat" / "1.jpg").read_bytes())
    assert run(photos).exit_code == 0
    assert "duplicate: " in run(photos).stdout
    assert run(photos, "--strict").exit_code == 1
    done = run(photos, "--strict", "--no-duplicates")
    assert (done.exit_code, "duplicate" in done.stdout) == (0, False)


def test_json(photos: Path, spoilt: dict[str, str], tmp_path: Path) -> None:
    """To a file, or alone on stdout."""
    done = run(photos, "--json", "-")
    report = json.loads(done.stdout)
    assert done.exit_code == 1
    assert not report["ok"]
    assert {one["path"]: one["kind"] for one in report["findings"]} == spoilt
    assert report["counts"]["unreadable"] == 2
    assert {one["severity"] for one in report["findings"] if one["kind"] == "inconsistent"} == {
        "warning"
    }
    assert "cut.jpg" in run(photos, "--json", tmp_path / "report.json").stdout
    assert json.loads((tmp_path / "report.json").read_text())["findings"] == report["findings"]


def test_the_csv_is_what_exclude_takes(
    photos: Path, spoilt: dict[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    """verify --csv, then exclude=: an epoch without an error, and every sound file in it."""
    monkeypatch.chdir(tmp_path)
    done = run("photos", "--csv", "bad.csv")
    assert "exclude='bad.csv'" in done.stdout
    with open("bad.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {path: kind for path, kind in spoilt.items() if kind in ERRORS}
    assert {row["path"]: row["error"].split(":")[0] for row in rows} == errors
    train, _ = kl.from_directory(photos, validation=None, size=(8, 8), exclude="bad.csv")
    with train:
        assert sum(len(train[k][1]) for k in range(len(train))) == 12 + 3
    # Again, after one was mended: it is gone from the list, others keep their time.
    before = {row["path"]: row["first_seen"] for row in rows}
    (photos / "cat" / "none.jpg").unlink()
    aged = Path("bad.csv").read_text().replace("first_seen", "FS").replace("20", "19")
    Path("bad.csv").write_text(aged.replace("FS", "first_seen"))
    run("photos", "--csv", "bad.csv")
    with open("bad.csv", newline="") as file:
        after = {row["path"]: row["first_seen"] for row in csv.DictReader(file)}
    assert set(after) == set(before) - {str(photos / "cat" / "none.jpg")}
    assert all(time.startswith("19") for time in after.values())


def test_a_csv_of_another_kind_stays(photos: Path, spoilt: dict[str, str], tmp_path: Path) -> None:
    """A table of labels, named by mistake, is not overwritten."""
    table = tmp_path / "train.csv"
    table.write_text("file,label\na,1\n")
    done = run(photos, "--csv", table)
    assert done.exit_code == 2
    assert "train.csv is no list of bad files" in done.stderr
    assert table.read_text() == "file,label\na,1\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'SOURCE...'"),
        (["gone"], "gone does not exist. Relative paths start at"),
        (["empty"], "holds nothing that is read here"),
        (["table.csv"], "no column 'path', it has file, label"),
        (["table.csv", "--path-column", "file", "--max-pixels", "x"], "is not a valid int"),
    ],
)
def test_usage(arguments: list[str], words: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Exit code 2, so that a script can tell it from a broken file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("file,label\na.jpg,1\n")
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("\n", " ").split())


def test_a_table(photos: Path, tmp_path: Path) -> None:
    """Paths and classes come from columns; what it lists and is not there is named."""
    rows = [("cat/0.jpg", "a"), ("dog/0.jpg", "b"), ("cat/0.jpg", "b"), ("cat/gone.jpg", "a")]
    text = "\n".join(["file,kind", *(",".join(row) for row in rows)])
    (tmp_path / "all.csv").write_text(text + "\n")
    options = ["--path-column", "file", "--label-column", "kind", "--folder", photos]
    done = run(tmp_path / "all.csv", *options)
    assert done.exit_code == 1
    assert f"unreadable: {photos}/cat/gone.jpg cannot be read: No such file" in done.stdout
    assert "(class b) has the content of" in done.stdout


def test_names_that_are_not_utf8(photos: Path) -> None:
    """Printed with escapes, listed byte for byte, and excluded."""
    name = os.fsencode(photos / "cat") + b"/\xff.jpg"
    try:
        with open(name, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    bad = photos.parent / "bad.csv"
    done = run(photos, "--csv", bad)
    assert done.exit_code == 1
    assert b"/\xff.jpg" in bad.read_bytes()
    train, _ = kl.from_directory(photos, validation=None, exclude=bad)
    assert train.samples == 12


def test_odd_shapes(tmp_path: Path) -> None:
    """One array of another shape among many; not where shapes differ anyway."""
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + (k == 7), k, np.float32))
    (one,) = kl.verify(tmp_path, workers=0, progress=False).findings
    assert (one.kind, os.path.basename(one.path)) == ("inconsistent", "07.npy")
    assert "float32 of shape (4,), and 19 others are float32 of shape (3,)" in one.message
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + k % 5, k, np.float32))
    assert not kl.verify(tmp_path, workers=0, progress=False).findings


# ------------------------------------------------------------------------------- records and packs


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_records(photos: Path, tmp_path: Path, compression: Any) -> None:
    """A picture cut short inside a sound record, the same one with two labels, and file names."""
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:-300])
    Path(paths[8]).write_bytes(Path(paths[1]).read_bytes())
    labels = [int("dog" in path) for path in paths]
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "out" / "x", compression=compression, on_error="skip",
        progress=False,
    )  # fmt: skip
    assert written.samples == 11  # the converter sees it too; so it is put in by hand
    report = kl.verify(tmp_path / "out", progress=False)
    assert (report.files, [one.kind for one in report.findings]) == (11, ["conflicting labels"])
    assert "record 7 at byte" in report.findings[0].path


def test_a_cut_picture_in_a_record(tmp_path: Path) -> None:
    """Written by somebody else: the record is sound, and what is in it is not."""
    from kloaders.formats.tfrecord.examples import encode_example
    from kloaders.formats.tfrecord.framing import framed

    raw = JPEGS["baseline"]
    pictures = [raw, saved(picture(seed=3), "JPEG"), JPEGS["progressive"][:-100]]
    path = tmp_path / "a.tfrecord"
    examples = [encode_example({"image": p, "label": k}) for k, p in enumerate(pictures)]
    path.write_bytes(b"".join(map(framed, examples)))
    (one,) = kl.verify(path, progress=False).findings
    assert one.kind == "truncated"
    assert re.match(r".*a\.tfrecord, record 2 at byte \d+, image is truncated", one.message)


def test_damaged_records(tmp_path: Path) -> None:
    """A changed byte costs one record, a cut the last one; the list excludes them."""
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    written = kl.write_tfrecords(
        kl.ArraySequenceLoader(values), None, tmp_path / "all", progress=False
    )
    raw = bytearray(Path(written.files[0]).read_bytes())
    raw[len(raw) // 2] ^= 1
    Path(written.files[0]).write_bytes(raw[:-5])
    bad = tmp_path / "bad.csv"
    done = run(written.files[0], "--csv", bad)
    assert done.exit_code == 1
    assert re.search(
        r"^truncated: .*record 19 at byte \d+: it is truncated", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^broken: .*record \d+ at byte \d+: its .* checksum", done.stdout, re.MULTILINE
    )
    with kl.TFRecordSequenceLoader(written.files, {"x": "x"}, 6, exclude=bad) as loader:
        assert loader.samples == 18
        assert len(np.concatenate([loader[k] for k in range(3)])) == 18


@pytest.mark.parametrize("content", [b"", b"no records at all, but a text of some length"])
def test_files_that_hold_no_records(tmp_path: Path, content: bytes) -> None:
    """Named, among others that are sound."""
    (tmp_path / "a.tfrecord").write_bytes(content)
    (one,) = kl.verify(tmp_path, progress=False).findings
    assert one.path == str(tmp_path / "a.tfrecord")
    assert one.kind == ("broken" if content else "empty")


def test_packs(tmp_path: Path) -> None:
    """Sums, sizes, headers, and the manifest itself."""
    pack = tmp_path / "pack"
    x = np.random.default_rng(0).random((40, 30), np.float32)
    kl.write_pack(kl.ArraySequenceLoader(x, np.arange(40)), pack, shard_size=1500, progress=False)
    report = kl.verify(pack, progress=False)
    assert report.ok
    assert report.files == len(list(pack.glob("*.npy")))
    x, y = pack / "x.npy", pack / "y.npy"
    raw = bytearray(x.read_bytes())
    raw[-7] ^= 1
    x.write_bytes(raw)
    y.write_bytes(y.read_bytes()[:-1])
    found = {one.path: (one.kind, one.message) for one in kl.verify(pack, progress=False).findings}
    assert {path: kind for path, (kind, _) in found.items()} == {
        str(x): "broken",
        str(y): "truncated",
    }
    assert "x.npy (rows 33 to 39) changed since the pack was written" in found[str(x)][1]
    y.unlink()
    found = {one.path: one.kind for one in kl.verify(pack, progress=False).findings}
    assert found == {str(x): "broken", str(y): "unreadable"}
    (pack / "pack.json").write_text("{}")
    done = run(pack)
    assert (done.exit_code, "pack.json is damaged" in done.stdout) == (1, True)


# --------------------------------------------------------------------------------------- processes


def test_workers_bring_in_nothing_heavy() -> None:
    """No Keras, no TensorFlow: a process is there in half a second."""
    code = (
        "import sys, kloaders.diagnostics.verify.run; "
        "print(sorted({'keras', 'tensorflow', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_that_ends_the_decoder_is_named(photos: Path, monkeypatch: Any) -> None:
    """Its process is gone, and so is a second one: the file is reported."""
    program = "import os, sys; sys.stdin.readline(); os.abort()"
    popen = subprocess.Popen
    monkeypatch.setattr(
        inspection.subprocess, "Popen", lambda _, **o: popen([sys.executable, "-c", program], **o)
    )
    report = kl.verify(photos / "cat" / "0.jpg", progress=False)
    (finding,) = report.findings
    assert finding.kind == "broken"
    assert finding.message.endswith("cat/0.jpg ends the process that reads it (signal 6)")


def test_a_process_that_is_ended_by_others_is_replaced(photos: Path) -> None:
    """The kernel may take it for lack of memory: no file is accused of that."""
    inspector = inspection.Inspector()
    task = {"path": str(photos / "cat" / "0.jpg"), "max_pixels": 10**6}
    with contextlib.closing(inspector):
        assert inspector.ask(task)[0]["problems"] == []
        first = inspector._process
        assert first is not None
        first.kill()
        first.wait()
        assert inspector.ask(task)[0]["problems"] == []
        assert inspector._process is not first


def test_a_file_that_hangs_is_named(photos: Path, monkeypatch: Any) -> None:
    """After a while it is given up, and the next one is read."""
    monkeypatch.setattr(inspection, "HANG_SECONDS", 0.2)
    inspector = inspection.Inspector()
    task = {"path": str(photos / "cat" / "0.jpg"), "max_pixels": 10**6}
    with contextlib.closing(inspector):
        assert inspector.ask(task)[0]["problems"] == []
        assert inspector._process is not None
        inspector._process.send_signal(signal.SIGSTOP)
        (answer,) = inspector.ask({**task, "hangs": True})
        assert "takes more than 0 seconds to read" in answer["problems"][0][1]
        assert inspector.ask(task)[0]["problems"] == []


def test_nothing_is_left_of_one_that_was_stopped(photos: Path, monkeypatch: Any) -> None:
    """Ctrl-C in the middle: the processes end."""
    begun = []
    started = inspection.Inspector._started

    def noted(self: Any) -> Any:
        process = started(self)
        begun.append(process)
        return process

    monkeypatch.setattr(inspection.Inspector, "_started", noted)
    tasks = [(str(path), None) for path in photos.glob("*/*.jpg")]
    answers = verification._answers(tasks, 2, 10**6)
    next(answers)
    answers.close()
    assert begun
    assert all(process.poll() is not None for process in begun)
