"""`kloaders verify` as a user or a script runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.main import cli
from kloaders.diagnostics.verify.report import ERRORS
from tests.support.spoilt_photos import spoil, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six sound images each, in a folder of their own."""
    return write_photos(tmp_path)


@pytest.fixture
def spoilt(photos: Path) -> dict[str, str]:
    """Damage files in `photos`; return their paths and the kinds of damage."""
    return spoil(photos)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


def test_a_sound_folder(photos: Path) -> None:
    """Exit code 0, one line."""
    done = run(photos)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(photos))}: 12 read in [\d.]+ s, no findings\.\n", done.stdout
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
    """Duplicates and odd shapes are reported with exit code 0, or 1 if requested."""
    (photos / "cat" / "again.jpg").write_bytes((photos / "cat" / "1.jpg").read_bytes())
    assert run(photos).exit_code == 0
    assert "duplicate: " in run(photos).stdout
    assert run(photos, "--strict").exit_code == 1
    done = run(photos, "--strict", "--no-duplicates")
    assert (done.exit_code, "duplicate" in done.stdout) == (0, False)


def test_json(photos: Path, spoilt: dict[str, str], tmp_path: Path) -> None:
    """The report is written to a file, or nothing else is on stdout."""
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
    assert "train.csv is not a list of bad files" in done.stderr
    assert table.read_text() == "file,label\na,1\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'SOURCE...'"),
        (["gone"], "gone does not exist. Relative paths start at"),
        (["empty"], "has no files of a known format"),
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
    """Paths and classes come from columns; listed files that do not exist are named."""
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
