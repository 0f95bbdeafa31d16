"""Runs the command line, in this process or in a separate one."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from kloaders.cli.main import cli


def run(*arguments):
    """Run `python -m kloaders` in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "kloaders", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def invoke(*arguments):
    """Run a command in this process; it must succeed."""
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done
