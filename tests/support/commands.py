"""The command line, in this process and in one of its own."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from kloaders.cli.main import cli


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


def invoke(*arguments):
    """In this process; it has to succeed."""
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done
