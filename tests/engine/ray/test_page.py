"""docs/many-machines.md: its programs for a cluster and for hosts, as they stand there."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from tests.support.parts import data

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
PAGE = Path(__file__).parents[3] / "docs" / "many-machines.md"
SAMPLES = 96


def program(heading: str, folder: Path) -> str:
    """The first program below a heading, on the cluster of the tests and in a folder of the test's."""
    section = PAGE.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    code = code.replace("cpus=32", "cpus=2").replace(', address="auto"', "")
    return str(code.replace('"/shared/', f'"{folder}/'))


@pytest.fixture
def scene(tmp_path: Path) -> dict[str, Any]:
    """Photographs that show their number, and a model that notes which labels it was given."""
    paths = [str(tmp_path / f"{k:02}.png") for k in range(SAMPLES)]
    for k, path in enumerate(paths):
        cv2.imwrite(path, np.full((64, 64, 3), k, np.uint8))

    class Model:
        def __init__(self) -> None:
            self.given: list[list[int]] = []

        def fit(self, train: Any, epochs: int) -> None:
            for epoch in range(epochs):
                self.given += [y.tolist() for _, y in train.epoch_batches(epoch, True)]

    return {"kl": kl, "paths": paths, "labels": list(range(SAMPLES)), "model": Model()}


def run(heading: str, scene: dict[str, Any], folder: Path) -> Any:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    exec(compile(program(heading, folder), str(PAGE), "exec"), scene)
    return scene["train"]


def test_one_machine_and_a_cluster(ray: Any, scene: dict[str, Any], tmp_path: Path) -> None:
    """Both give the model the same batches."""
    run("## 1. One machine", scene, tmp_path).close()
    alone, scene["model"].given = scene["model"].given, []
    assert sorted(chain.from_iterable(alone)) == sorted([*range(SAMPLES)] * 2)
    run("## 2. Decode on a Ray cluster", scene, tmp_path)
    assert scene["model"].given == alone


def test_two_hosts(scene: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    """The two halves of each batch of one process, by what srun tells its processes."""
    parts = []
    for rank in range(2):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        with run("## 3. Train on several hosts", scene, tmp_path) as train:
            parts.append([y.tolist() for _, y in train.epoch_batches(0, True)])
    assert [len(part) for part in parts] == [3, 3]
    assert set(chain(*parts[0])).isdisjoint(chain(*parts[1]))
    whole = kl.ArraySequenceLoader(
        np.arange(SAMPLES), None, 32, seed=7, shuffle=True, drop_last=True
    )
    together = [sorted(a + b) for a, b in zip(*parts, strict=True)]
    assert together == [sorted(x.tolist()) for x in whole.epoch_batches(0, True)]


def test_a_conversion(ray: Any, scene: dict[str, Any], tmp_path: Path) -> None:
    """On the cluster: the bytes that one process writes."""
    scene["train"] = kl.PathSequenceLoader(scene["paths"], scene["labels"], 16, size=(64, 64))
    run("### Convert on a Ray cluster", scene, tmp_path / "shared")
    kl.write_pack(scene["train"], tmp_path / "here", progress=False)
    assert data(tmp_path / "shared" / "packed") == data(tmp_path / "here")
    (tmp_path / "alone").mkdir()
    out = tmp_path / "alone" / "train"
    kl.write_tfrecords(scene["paths"], scene["labels"], out, shards=64, progress=False)
    assert data(tmp_path / "shared" / "records") == data(tmp_path / "alone")
