"""The commands that compare loaders, as a user or a script runs them."""

import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import bench, demo
from kloaders.cli.main import cli
from tests.support.commands import invoke, run


def result(method, accuracy=0.97, **values):
    """A result in the form that a run returns."""
    figures = {"samples_per_second": 1234.5, "first_batch_seconds": 0.25, "step_seconds": 0.02}
    figures |= {"step_alone_seconds": 0.005, "peak_ram_bytes": 3 * 2**20, "backend": "jax"}
    return demo.Result(method, accuracy=accuracy, **{**figures, **values})


@pytest.fixture
def measured(monkeypatch):
    """`kloaders demo` with made-up figures, so that no test trains."""

    def with_results(*given):
        def compare(*_, results):
            results += demo.with_wait_shares(list(given))

        monkeypatch.setattr(demo, "compare", compare)

    return with_results


def test_the_choices_of_loaders_are_those_of_the_demo():
    """The command lists the methods without importing them."""
    for name in ("loaders", "older_name"):
        (option,) = [o for o in cli.commands["demo"].params if o.name == name]
        assert list(option.type.choices) == list(demo.METHODS)


def test_a_wrong_option_is_a_usage_error():
    """Click's own messages and exit code stay."""
    done = CliRunner().invoke(cli, ["demo", "--loader", "tape"])
    assert done.exit_code == click.UsageError.exit_code == 2
    assert "'tape' is not one of 'preload', 'files'" in done.stderr


def test_demo_prints_a_table_and_draws_it(measured, tmp_path):
    """Figures in rows, a way that was skipped with its reason, the picture's name."""
    pytest.importorskip("matplotlib")
    measured(result("files"), demo.Result("tf.data", skipped="TensorFlow cannot be imported"))
    done = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path / "new")])
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["files", "1,234", "0.25", "s", "3.0", "MiB", "75%", "0.970"] in rows
    assert "tf.data: skipped, TensorFlow cannot be imported" in done.stdout
    assert (tmp_path / "new" / "kloaders-demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_fails_below_the_accuracy(measured, tmp_path):
    """The exit code is 1, and the way is named."""
    measured(result("files"), result("preload", accuracy=0.5))
    done = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "preload reached an accuracy of 0.500, expected at least 0.95" in done.stderr
    assert "files reached" not in done.stderr


def test_demo_without_matplotlib_says_how_to_get_it(measured, tmp_path, monkeypatch):
    """The table is printed anyway."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    measured(result("files"))
    done = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "python -m pip install matplotlib" in done.stdout
    assert not list(tmp_path.iterdir())


def test_demo_as_a_user_runs_it(tmp_path):
    """The whole of it, on few files: JSON on stdout, a picture, exit code 0."""
    arguments = ["demo", "--json", "--crops", "20", "--epochs", "2", "--accuracy", "0.5"]
    done = run(*arguments, "--loader", "two-level", "--out", str(tmp_path))
    report = json.loads(done.stdout)
    (found,) = report["methods"]
    assert found["method"] == "two-level"
    assert found["accuracy"] > 0.5
    assert 0 <= found["wait_share"] < 1
    assert found["peak_ram_bytes"] > 0
    assert report["ways"] == [{"way": "two-level", **found}]
    assert report["plot"] is None or Path(report["plot"]).parent == tmp_path


def test_bench_measures_each_loader(photos):
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
    done = CliRunner().invoke(cli, ["bench", str(tmp_path / "p")])
    assert done.exit_code == 1
    assert "this is a PackSequenceLoader: pass a folder of files" in done.stderr


@pytest.mark.parametrize("option", ["--loader", "--way"])
def test_loaders_are_chosen(monkeypatch, tmp_path, option):
    """The old name, which the help no longer lists, works too; rows are in the order of the table."""
    asked = []

    def compare(methods, epochs, crops, results):
        asked.extend(methods)
        results += [result(method) for method in methods]

    monkeypatch.setattr(demo, "compare", compare)
    done = invoke("demo", "--json", "--out", tmp_path, option, "two-level", option, "files")
    assert asked == ["files", "two-level"]
    report = json.loads(done.stdout)
    assert [one["method"] for one in report["methods"]] == asked
    assert [one["way"] for one in report["ways"]] == asked
    assert ("--way" in invoke("demo", "--help").output) is False
