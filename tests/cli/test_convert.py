"""The commands that write a data set anew. What they write is tested with the loaders that read it."""

import json

import pytest

import kloaders as kl
from kloaders.places import access
from tests.support.commands import invoke
from tests.support.s3 import moto


@pytest.mark.parametrize("command", ["pack", "tfrecord"])
def test_a_report_for_scripts(photos, tmp_path, command):
    """Alone on stdout: counts, bytes and what did not load."""
    bad = tmp_path / "in" / "a" / "bad.jpg"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"")
    (bad.parent / "good.jpg").write_bytes((photos / "bird" / "0.jpg").read_bytes())
    arguments = [command, tmp_path / "in", tmp_path / "out", "--on-error", "skip", "--json"]
    report = json.loads(invoke(*arguments).stdout)
    assert report["samples"] == 1
    assert report["class_names"] == ["a"]
    assert [error["name"] for error in report["errors"]] == [str(bad)]
    kinds = (".npy", ".json", ".tfrecord")
    written = [path for path in (tmp_path / "out").iterdir() if path.suffix in kinds]
    assert report["bytes"] == sum(path.stat().st_size for path in written)
    assert report["version"] == kl.__version__


@pytest.mark.parametrize("command", ["pack", "tfrecord"])
def test_lines_of_python_that_read_it(photos, tmp_path, command):
    """They run."""
    done = invoke(
        command, photos, tmp_path / "out", *(["--size", 8, 8] if command == "pack" else [])
    )
    lines = done.stdout.split("In Python:\n")[1]
    names = {}
    exec("\n".join(line.strip() for line in lines.splitlines()), names)
    loader = names["train"]
    assert loader.samples == (16 if command == "pack" else 20)
    loader.close()


def test_what_is_listed_is_left_out(photos, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text(
        f"path,error,first_seen\n{photos / 'bird' / '0.jpg'},it,2020-01-01T00:00:00+00:00\n"
    )
    done = invoke("pack", photos, tmp_path / "out", "--size", 8, 8, "--exclude", bad, "--json")
    assert json.loads(done.stdout)["samples"] == 19


@pytest.mark.parametrize("command", ["pack", "tfrecord"])
def test_to_a_bucket(photos, tmp_path, command):
    """OUT may be a URL: the same files, counted alike, and made in the folder that --staging names."""
    with moto() as s3:
        report, local = (
            json.loads(invoke(command, photos, out, *more, "--json").stdout)
            for out, more in (
                (s3.url("out"), ["--on-error", "skip", "--staging", tmp_path / "staging"]),
                (tmp_path / "out", ["--on-error", "skip"]),
            )
        )
        names = {name for name, _ in access.list_below(s3.url("out")) if not name.startswith(".")}
        assert names == {p.name for p in (tmp_path / "out").iterdir() if p.name[0] != "."}
        same = ("samples", "bytes", "class_names", "shards")
        assert [report.get(key) for key in same] == [local.get(key) for key in same]
        assert list((tmp_path / "staging").iterdir()) == []
