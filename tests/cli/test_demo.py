"""Trainings in separate processes, and their results."""

import sys

import pytest

from kloaders.cli import demo


def result(method, accuracy=0.97, **values):
    """A result in the form that a run returns."""
    figures = {"samples_per_second": 1234.5, "first_batch_seconds": 0.25, "step_seconds": 0.02}
    figures |= {"step_alone_seconds": 0.005, "peak_ram_bytes": 3 * 2**20, "backend": "jax"}
    return demo.Result(method, accuracy=accuracy, **{**figures, **values})


def test_waiting_is_measured_against_the_fastest_step_alone():
    """All methods share one figure for the step without a loader, and no wait is negative."""
    first = result("files", step_alone_seconds=0.008)
    second = result("preload", step_seconds=0.004, step_alone_seconds=0.005)
    shares = [r.wait_share for r in demo.with_wait_shares([first, second, demo.Result("tf.data")])]
    assert shares == [0.75, 0.0, None]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_the_last_words_of_a_failed_training_are_told(tmp_path, monkeypatch):
    """The error has the last message of the process, in one line."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nprint('hello')\nraise SystemExit('the disk is full')")
    program.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="'files' ended with exit code 1: the disk is full"):
        demo._in_its_own_process("files", str(tmp_path), 1, progress=False)


def test_the_table_has_what_was_measured():
    """Methods that were skipped stand below it, with the reason."""
    skipped = demo.Result("tf.data", skipped="there is none")
    shown = demo.table(demo.with_wait_shares([result("files"), skipped]))
    lines = shown.splitlines()
    assert lines[0].split()[:2] == ["loader", "samples/s"]
    assert lines[1].split()[:2] == ["files", "1,234"]
    assert "tf.data: skipped, there is none" in lines
    assert demo.METHODS["files"] in shown


def test_what_trained_too_little_has_failed():
    assert demo.failed(result("files", accuracy=0.9), 0.95)
    assert not demo.failed(result("files", accuracy=0.96), 0.95)
    assert not demo.failed(demo.Result("tf.data", skipped="there is none"), 0.95)
