"""Trainings that are killed and resumed: the short version of tests/campaign/kill_and_resume.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]


KINDS = (
    ["path", "two-level", "records", "pack"],
    ["weights", "mixup", "buckets", "mixture"],
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("kinds", KINDS, ids=["plain", "with options"])
def test_killed_trainings_end_as_if_they_had_not_been(tmp_path, kinds):
    """SIGKILL at random moments, 1, 2 and 4 shards in turn: every sample once, equal weights."""
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "tests.campaign.kill_and_resume",
        "--kills",
        "1",
        "--epochs",
        "2",
    ]
    backend = keras.backend.backend()
    done = subprocess.run(
        [*command, "--backend", backend, "--loaders", ",".join(kinds), "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())["loaders"]
    assert list(found) == kinds
    for kind, figures in found.items():
        assert figures["kills"] == 1, kind
        assert figures["samples_checked"] >= 408, kind
        assert figures["samples_lost"] == figures["samples_repeated"] == 0, kind
        assert figures["weights_equal"] == figures["trainings"] > 0, kind
