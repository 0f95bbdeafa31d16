"""The command line and the demo: what is printed, what is imported, how errors end."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kloaders.cli import demo
from kloaders.cli import main as cli


def run(*arguments):
    """`python -m kloaders` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "kloaders", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def result(way, accuracy=0.97, **values):
    """A result as a training gives it."""
    figures = {"samples_per_second": 1234.5, "first_batch_seconds": 0.25, "step_seconds": 0.02}
    figures |= {"step_alone_seconds": 0.005, "peak_ram_bytes": 3 * 2**20, "backend": "jax"}
    return demo.Result(way, accuracy=accuracy, **{**figures, **values})


@pytest.fixture
def measured(monkeypatch):
    """`kloaders demo` with figures that nobody had to wait for."""

    def with_results(*results):
        monkeypatch.setattr(demo, "compare", lambda *a, **k: demo._shares(list(results)))

    return with_results


# ---------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    """Help is there at once: no Keras, no TensorFlow, no OpenCV, no plots."""
    code = (
        "import sys\nfrom kloaders.cli.main import cli\n"
        f"cli({arguments!r}, standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'matplotlib', 'sklearn', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_teaches_by_example():
    """A command to type, and the lines of Python that come next."""
    said = CliRunner().invoke(cli.cli, ["--help"]).output
    assert "\n      kloaders demo\n" in said
    assert "model.fit(train, validation_data=val, epochs=10)" in said
    said = CliRunner().invoke(cli.cli, ["demo", "--help"]).output
    assert "kloaders demo --way files --way two-level --json > costs.json" in said


def test_the_choices_of_ways_are_those_of_the_demo():
    """The command lists the ways without importing them."""
    (option,) = [o for o in cli.demo.params if o.name == "ways"]
    assert list(option.type.choices) == list(demo.WAYS)


def test_version_and_module():
    """`python -m kloaders` is the command."""
    assert "kloaders, version " in run("--version").stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("photos is empty:\n  add files"), "kloaders: photos is empty: add files\n"),
        (FileNotFoundError("x does not exist"), "kloaders: x does not exist\n"),
        (KeyError("y"), "kloaders: KeyError: 'y' (kloaders --debug ... shows where)\n"),
    ],
)
def test_an_error_is_one_line(error, line):
    """No traceback but with --debug; the exit code is 1."""

    @cli.cli.command("fail")
    def fail():
        raise error

    try:
        done = CliRunner().invoke(cli.cli, ["fail"])
        assert (done.exit_code, done.stderr, done.stdout) == (1, line, "")
        assert CliRunner().invoke(cli.cli, ["--debug", "fail"]).exception is error
    finally:
        del cli.cli.commands["fail"]


def test_a_wrong_option_is_a_usage_error():
    """Click's own messages and exit code stay."""
    done = CliRunner().invoke(cli.cli, ["demo", "--way", "tape"])
    assert done.exit_code == click.UsageError.exit_code == 2
    assert "'tape' is not one of 'preload', 'files'" in done.stderr


# ------------------------------------------------------------------------------------------ demo


def test_demo_prints_a_table_and_draws_it(measured, tmp_path):
    """Figures in rows, a way that was skipped with its reason, the picture's name."""
    pytest.importorskip("matplotlib")
    measured(result("files"), demo.Result("tf.data", skipped="TensorFlow cannot be imported"))
    done = CliRunner().invoke(cli.cli, ["demo", "--out", str(tmp_path / "new")])
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["files", "1,234", "0.25", "s", "3.0", "MiB", "75%", "0.970"] in rows
    assert "tf.data: skipped, TensorFlow cannot be imported" in done.stdout
    assert (tmp_path / "new" / "kloaders-demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_fails_below_the_accuracy(measured, tmp_path):
    """The exit code is 1, and the way is named."""
    measured(result("files"), result("preload", accuracy=0.5))
    done = CliRunner().invoke(cli.cli, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "preload reached an accuracy of 0.500, expected at least 0.95" in done.stderr
    assert "files reached" not in done.stderr


def test_demo_without_matplotlib_says_how_to_get_it(measured, tmp_path, monkeypatch):
    """The table is there all the same."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    measured(result("files"))
    done = CliRunner().invoke(cli.cli, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "python -m pip install matplotlib" in done.stdout
    assert not list(tmp_path.iterdir())


def test_waiting_is_measured_against_the_fastest_step_alone():
    """One model, one figure for the step without a loader; never less than nothing."""
    first = result("files", step_alone_seconds=0.008)
    second = result("preload", step_seconds=0.004, step_alone_seconds=0.005)
    shares = [r.wait_share for r in demo._shares([first, second, demo.Result("tf.data")])]
    assert shares == [0.75, 0.0, None]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_the_last_words_of_a_failed_training_are_told(tmp_path, monkeypatch):
    """What the process said last, in one line."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nprint('hello')\nraise SystemExit('the disk is full')")
    program.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="'files' ended with exit code 1: the disk is full"):
        demo._in_its_own_process("files", str(tmp_path), 1, progress=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    assert demo.write_images(str(folder), crops=20, progress=False) == 1797 + 40
    return folder


def test_files_of_the_demo_are_real_images(images):
    """PNG and JPEG, in a folder a class."""
    assert [p.name for p in sorted(images.iterdir())] == [*"0123456789", "china", "flower"]
    assert (images / "3" / "0003.png").read_bytes().startswith(b"\x89PNG")
    assert (images / "china" / "0000.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize("way", list(demo.WAYS))
def test_each_way_trains(images, way):
    """Phases and progress are told, and every figure is there."""
    if way == "tf.data":
        pytest.importorskip("tensorflow")
    told = []
    found = demo.train(way, str(images), 3, told.append)
    assert found["accuracy"] > 0.8
    assert found["samples_per_second"] > 0
    assert found["step_seconds"] > 0
    assert [said["phase"] for said in told if "phase" in said] == [
        "importing Keras",
        "measuring the step alone",
        "training",
        "validating",
    ]
    total = next(said["total"] for said in told if "total" in said)
    assert max(said["done"] for said in told if "done" in said) == total


def test_tf_data_is_skipped_without_tensorflow(images, monkeypatch):
    """Other backends need no TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert "cannot be imported" in demo.train("tf.data", str(images), 1, lambda _: None)["skipped"]


def test_demo_as_a_user_runs_it(tmp_path):
    """The whole of it, on few files: JSON on stdout, a picture, exit code 0."""
    arguments = ["demo", "--json", "--crops", "20", "--epochs", "2", "--accuracy", "0.5"]
    done = run(*arguments, "--way", "two-level", "--out", str(tmp_path))
    report = json.loads(done.stdout)
    (way,) = report["ways"]
    assert way["way"] == "two-level"
    assert way["accuracy"] > 0.5
    assert 0 <= way["wait_share"] < 1
    assert way["peak_ram_bytes"] > 0
    assert report["plot"] is None or Path(report["plot"]).parent == tmp_path
