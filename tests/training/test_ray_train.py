"""docs/ray-train.md: Ray Train with two workers, one of which is killed; and Tune, which prunes and resumes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
PAGE = Path(__file__).parents[2] / "docs" / "ray-train.md"
SAMPLES, BATCH = 96, 8
Lines = list[dict[str, Any]]


def run(name: str, folder: Path, **kill: Any) -> tuple[str, Lines]:
    """Run a program of the page; return its output, and the samples of each step."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("ray.train", reason="Ray is not installed")
    (code,) = re.findall(rf"```python\n# {name}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    code = code.replace("    model.compile(", "    recorded(model).compile(")
    code = code.replace(
        "import kloaders as kl",
        "import kloaders as kl\n    from tests.support.ray_programs import recorded",
    )
    code = code.replace(
        "ray.init(", 'ray.init(address="local", num_cpus=3, include_dashboard=False, '
    )
    (folder / name).write_text(code, "utf-8")
    (folder / "received").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RECEIVED": str(folder / "received"),
        "KILL": json.dumps(kill),
    }
    for _ in range(3):  # Ray's own start has a fixed limit
        done = subprocess.run(
            [sys.executable, name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=380,
            check=False,
            env=environment,
        )
        if done.returncode == 0 or any((folder / "received").iterdir()):
            break
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "killed").exists()
    files = sorted((folder / "received").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return done.stdout, [json.loads(line) for file in files for line in file.open()]


def epochs_of(lines: Lines, ranks: int) -> list[Counter[int]]:
    """The samples that the model was trained on, by epoch; of repeated steps the last one counts.

    Steps after the last state are repeated, from the weights of that state.
    """
    last = {(line["step"], line["rank"]): line["samples"] for line in lines}
    steps = SAMPLES // (ranks * BATCH)
    found = [Counter[int]() for _ in range(1 + max(step for step, _ in last) // steps)]
    for (step, _), samples in last.items():
        found[step // steps].update(samples)
    return found


def test_train(tmp_path: Path) -> None:
    """Both workers resume after one is killed: each sample comes once per epoch."""
    _, lines = run("train.py", tmp_path, rank=1, step=9, rate="0.1")
    assert epochs_of(lines, 2) == [Counter(range(SAMPLES))] * 3
    assert len({line["pid"] for line in lines}) == 4  # two workers, and two after the death
    second = [line for line in lines if line["pid"] == lines[-1]["pid"]]
    assert second[0]["step"] == 8  # in the second epoch, behind the last state


def test_trials(tmp_path: Path) -> None:
    """One run is killed and resumes to its end; the scheduler stops the other after two epochs."""
    said, lines = run("trials.py", tmp_path, rank=0, step=40, rate="0.1")
    assert "rate 0.1: 6 epochs" in said
    assert "rate 1e-06: 2 epochs" in said
    good = [line for line in lines if line["rate"] == "0.1"]
    poor = [line for line in lines if line["rate"] == "1e-06"]
    assert epochs_of(good, 1) == [Counter(range(SAMPLES))] * 6
    assert epochs_of(poor, 1)[:2] == [Counter(range(SAMPLES))] * 2
    assert len({line["pid"] for line in good}) == 2
