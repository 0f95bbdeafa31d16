"""The commands that look at data, as a user or a script runs them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import bench
from kloaders.cli import main as cli

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of pictures that differ in size."""
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("bird", "boat"):
        (folder / name).mkdir()
        for k in range(10):
            picture = noise.integers(0, 255, (40 + k, 50, 3), "uint8")
            assert cv2.imwrite(str(folder / name / f"{k}.jpg"), picture)
    return folder


def invoke(*arguments):
    done = CliRunner().invoke(cli.cli, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


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
    assert "pictures differ in size: they are resized to 224 x 224" in done.stderr


def test_explain_says_it_in_words_and_as_a_page(photos, tmp_path):
    done = invoke(
        "explain", photos, "--size", 16, 16, "--seconds", 0.2, "--html", tmp_path / "page"
    )
    assert "Loading is bound by" in done.stdout
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


def test_any_source_is_taken(photos, tmp_path):
    """A folder of files, a CSV file, a pack and records, as well as a folder of classes."""
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"{p},{k % 2}\n" for k, p in enumerate(paths))
    )
    loader = kl.PathSequenceLoader(paths, np.arange(20) % 2, 4, size=(8, 8))
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    kl.write_tfrecords(paths, np.arange(20) % 2, tmp_path / "records/a", progress=False)
    for source, kind in (
        (photos, "PathSequenceLoader, 20"),
        (photos / "bird", "PathSequenceLoader, 10"),
        (tmp_path / "list.csv", "PathSequenceLoader, 20"),
        (tmp_path / "pack", "PackSequenceLoader, 20"),
        (tmp_path / "records", "TFRecordSequenceLoader, 20"),
        (next((tmp_path / "records").glob("a*.tfrecord")), "TFRecordSequenceLoader, 20"),
    ):
        size = () if "Pack" in kind else ("--size", 8, 8)
        done = invoke("explain", source, *size, "--json", "--seconds", 0.1)
        assert json.loads(done.stdout)["loader"].startswith(kind)


def test_an_empty_folder_is_an_error_in_one_line(tmp_path):
    """Exit code 1, the folder's name and what to name instead."""
    done = CliRunner().invoke(cli.cli, ["explain", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_show_writes_a_picture(photos, tmp_path):
    pytest.importorskip("matplotlib")
    done = invoke("show", photos, "--out", tmp_path / "a.png", "--size", 16, 16)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "classes: 2, bird 10 (50%), boat 10 (50%); balanced" in done.stdout
    done = invoke("show", photos, "--out", tmp_path / "b.svg", "--samples", 2, "--json")
    told = json.loads(done.stdout)
    assert told["class_names"] == ["bird", "boat"]
    assert told["arrays"] == [["uint8", 224, 224, 3], ["int32"]]
    assert "<svg" in (tmp_path / "b.svg").read_text()


def test_bench_measures_each_way(photos):
    """The limit is 1 by definition, every way has a figure, and no bar disturbs a pipe."""
    done = invoke("bench", photos, "--size", 16, 16, "--seconds", 0.05, "--json", "--batch-size", 4)
    told = json.loads(done.stdout)
    rows = {row["name"]: row for row in told["rows"]}
    assert set(rows) == {
        *("limit: read", "limit: decode", "first epoch", "files"),
        *("two-level", "TFRecord", "pack", "preload"),
    }
    assert all(row["rate"] > 0 for row in told["rows"])
    assert rows["limit: decode"]["of_limit"] == 1
    assert "%|" not in done.stderr
    lines = bench.table([bench.Row("files", "as they are", 1234.5, 0.5)]).splitlines()
    assert lines[1].split() == ["files", "1,234", "0.50", "as", "they", "are"]


def test_bench_is_about_files(tmp_path):
    kl.write_pack(
        kl.ArraySequenceLoader(np.zeros((8, 2)), batch_size=4), tmp_path / "p", progress=False
    )
    done = CliRunner().invoke(cli.cli, ["bench", str(tmp_path / "p")])
    assert done.exit_code == 1
    assert "this is a PackSequenceLoader: name a folder of files" in done.stderr


def test_help_of_each_command_has_examples():
    """A line to type for each."""
    said = CliRunner().invoke(cli.cli, ["--help"]).output
    for name in ("show", "explain", "bench"):
        assert f"  {name} " in said
        assert (
            f"kloaders {name} "
            in CliRunner().invoke(cli.cli, [name, "--help"]).output.split("Examples:")[1]
        )
