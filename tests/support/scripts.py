"""Runs Python in a separate process, for tests that set devices or end the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.recording import BACKEND

ROOT = Path(__file__).parents[2]


def environment(**others):
    """Variables for a process that imports the tests and runs on the same backend."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": BACKEND, **others}


def run_program(code, **variables):
    """Run Python in a separate process; return the completed process, with its output as text."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_script(code, **variables):
    """Run Python in a separate process; its last line of output is JSON."""
    done = run_program(code, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
