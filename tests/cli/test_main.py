"""The command line as a whole: help, versions, errors."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from kloaders.cli.main import cli
from tests.support.commands import run


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
    said = CliRunner().invoke(cli, ["--help"]).output
    assert "\n      kloaders demo\n" in said
    assert "model.fit(train, validation_data=val, epochs=10)" in said
    said = CliRunner().invoke(cli, ["demo", "--help"]).output
    assert "kloaders demo --loader files --loader two-level --json > costs.json" in said


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

    @cli.command("fail")
    def fail():
        raise error

    try:
        done = CliRunner().invoke(cli, ["fail"])
        assert (done.exit_code, done.stderr, done.stdout) == (1, line, "")
        assert CliRunner().invoke(cli, ["--debug", "fail"]).exception is error
    finally:
        del cli.commands["fail"]


def test_help_of_each_command_has_examples():
    """A line to type for each."""
    said = CliRunner().invoke(cli, ["--help"]).output
    for name in ("demo", "show", "explain", "bench", "verify", "pack", "tfrecord", "cache"):
        assert f"  {name} " in said
        assert (
            f"kloaders {name} "
            in CliRunner().invoke(cli, [name, "--help"]).output.split("Examples:")[1]
        )


def test_each_command_is_there_once():
    assert list(cli.commands) == [
        "demo",
        "show",
        "explain",
        "bench",
        "verify",
        "pack",
        "tfrecord",
        "cache",
    ]
