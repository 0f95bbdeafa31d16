"""Processes that read files: if one ends or hangs, only its current file is reported."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kloaders as kl
from kloaders.diagnostics.verify import worker as inspection


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
    assert finding.message.endswith("cat/0.jpg crashes the process that reads it (signal 6)")


def test_a_process_that_is_ended_by_others_is_replaced(photos: Path) -> None:
    """The kernel may kill it for lack of memory, so no file is reported for that."""
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
    """After a time limit the file is given up, and the next one is read."""
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
