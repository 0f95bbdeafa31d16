"""The command line as a whole: help, versions, errors."""

import importlib
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kloaders.cli.main import cli
from kloaders.core.progress import Progress
from tests.support.commands import run


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    """Help is there at once: no Keras, no TensorFlow, no OpenCV, no NumPy."""
    code = (
        "import sys\nfrom kloaders.cli.main import cli\n"
        f"cli({arguments!r}, standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'matplotlib', 'numpy', 'sklearn', 'pandas'}\n"
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


def test_commands_are_grouped_and_their_lines_fit():
    """In a terminal of 80 columns, under headings."""
    said = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    listed = said.split("Try it:")[1]
    assert "..." not in listed.split("`kloaders COMMAND")[0]
    assert [line for line in listed.splitlines() if line.endswith(":")] == [
        "Look at data:",
        "Make training faster:",
        "Convert and keep data:",
    ]
    assert max(map(len, said.splitlines())) <= 80


def test_each_command_is_there_once():
    assert list(cli.commands) == [
        "demo",
        "show",
        "verify",
        "explain",
        "bench",
        "pack",
        "tfrecord",
        "cache",
    ]


def test_ctrl_c_says_what_was_done(tmp_path):
    """The output has the final count even without a progress bar, and the next step."""

    @cli.command("stops")
    def stops():
        with Progress(total=9, unit=" files", disable=True) as bar:
            bar.update(4)
            raise KeyboardInterrupt

    try:
        done = CliRunner().invoke(cli, ["stops"])
        assert (done.exit_code, done.stderr) == (130, "\nkloaders: stopped after 4 of 9 files.\n")
    finally:
        del cli.commands["stops"]


@pytest.mark.parametrize(
    ("command", "module", "function", "says"),
    [
        (
            "verify",
            "kloaders.diagnostics.verify.run",
            "inspect",
            "The findings so far are above.",
        ),
        ("pack", "kloaders.convert.packs", "write_shards", "continues where it stopped."),
        ("bench", "kloaders.cli.bench", "write_pack", "The results so far are above."),
    ],
)
def test_ctrl_c_in_a_command(photos, tmp_path, monkeypatch, command, module, function, says):
    """Results until then are printed, and the exit code is that of an interrupt."""
    module = importlib.import_module(module)
    real, calls = getattr(module, function), []

    def stop_later(*arguments, **options):
        calls.append(1)
        if command != "verify" or len(calls) > 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, function, stop_later)
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "bird" / "0.jpg").write_bytes(b"")
    more = {
        "verify": ["--workers", "0"],
        "pack": [str(tmp_path / "out"), "--size", "8", "--on-error", "skip"],
        "bench": ["--size", "8", "--on-error", "skip", "--seconds", "0.05"],
    }[command]
    done = CliRunner().invoke(cli, [command, str(folder), *more])
    assert done.exit_code == 130
    assert says in done.stderr
    assert "stopped after " in done.stderr
    if command == "verify":
        assert f"empty: {folder / 'bird' / '0.jpg'}" in done.stdout
    if command == "bench":
        assert "two-level: " in done.stdout
