"""The commands that look at data, as a user or a script runs them."""

import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kloaders.cli.main import cli
from tests.support.commands import invoke


def test_explain_prints_json_and_nothing_else_on_stdout(photos):
    """In a process of its own, as a script calls it; pictures of several sizes are resized."""
    done = subprocess.run(
        [sys.executable, "-m", "kloaders", "explain", str(photos), "--json", "--seconds", "0.3"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["loader"] == "PathSequenceLoader, 20 samples in batches of 32"
    assert told["measured"]["settings"]["sample_bytes"] == 224 * 224 * 3 + 4
    assert "images differ in size: they are resized to 224 x 224" in done.stderr


def test_explain_says_it_in_words_and_as_a_page(photos, tmp_path):
    done = invoke(
        "explain", photos, "--size", 16, 16, "--seconds", 0.2, "--save", tmp_path / "page"
    )
    # Whatever other tests run beside it.
    assert "The bottleneck of loading is " in done.stdout or "The machine is busy" in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_explain_takes_a_saved_model(photos, tmp_path):
    """And options of the loader, by which it is judged."""
    import keras

    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "model.keras")
    done = invoke(
        *("explain", photos, "--size", 16, 16, "--model", tmp_path / "model.keras", "--json"),
        *("--seconds", 0.3, "--workers", 1, "--cache", "none", "--batch-size", 4),
    )
    told = json.loads(done.stdout)
    assert told["samples_per_s"]["best"] > 0
    assert told["measured"]["settings"]["workers"] == 1
    assert told["measured"]["settings"]["cache"] is None
    assert told["loader"].endswith("batches of 4")


def test_an_empty_folder_is_an_error_in_one_line(tmp_path):
    """Exit code 1, the folder's name and what to name instead."""
    done = CliRunner().invoke(cli, ["explain", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_show_writes_a_picture(photos, tmp_path):
    pytest.importorskip("matplotlib")
    done = invoke("show", photos, "--save", tmp_path / "a.png", "--size", 16)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "classes: 2, bird 10 (50%), boat 10 (50%); balanced" in done.stdout
    done = invoke("show", photos, "--save", tmp_path / "b.svg", "--samples", 2, "--json")
    told = json.loads(done.stdout)
    assert told["class_names"] == ["bird", "boat"]
    assert told["arrays"] == [["uint8", 224, 224, 3], ["int32"]]
    assert "<svg" in (tmp_path / "b.svg").read_text()


@pytest.fixture
def spoilt(photos, tmp_path):
    """A folder with a bad file, and a list that names it."""
    folder = tmp_path / "spoilt"
    shutil.copytree(photos, folder)
    (folder / "bird" / "3.jpg").write_bytes(b"no image")
    listed = tmp_path / "bad.csv"
    listed.write_text(f"path,error,first_seen\n{folder / 'bird' / '3.jpg'},x,2020-01-01\n")
    return folder, listed


@pytest.mark.parametrize("command", ["show", "explain", "bench"])
def test_bad_files_are_skipped_or_left_out(spoilt, tmp_path, command):
    """With --on-error skip, and with --exclude; the list is one that verify --csv wrote."""
    folder, listed = spoilt
    arguments = [command, folder, "--size", "16x16", "--json"]
    arguments += {
        "show": ["--save", tmp_path / "a.png"],
        "explain": ["--seconds", 0.1],
        "bench": ["--seconds", 0.05, "--files", 20],
    }[command]
    for more in (["--on-error", "skip"], ["--exclude", listed]):
        found = json.loads(invoke(*arguments, *more).stdout)
        left = 20 if more[0] == "--on-error" and command != "bench" else 19
        if command == "show":
            assert found["samples"] == left
        elif command == "explain":
            assert found["loader"].startswith(f"PathSequenceLoader, {left} samples")
        else:
            assert all(row["rate"] > 0 for row in found["rows"])


def test_a_pack_has_no_files_to_leave_out(spoilt, tmp_path):
    folder, listed = spoilt
    invoke("pack", folder, tmp_path / "pack", "--size", 8, "--exclude", listed)
    done = CliRunner().invoke(cli, ["show", str(tmp_path / "pack"), "--exclude", str(listed)])
    assert done.exit_code == 1
    assert "pass --exclude to `kloaders pack`" in done.stderr
