"""The recipes of docs/many-machines.md for Spark and Beam, as they stand there, on this machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from tests.support.parts import data

PAGE = Path(__file__).parents[2] / "docs" / "many-machines.md"


def recipe(title: str) -> str:
    """The Python of a section."""
    section = PAGE.read_text(encoding="utf-8").partition(f"### {title}\n")[2].partition("\n### ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(code)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: Any) -> dict[str, Any]:
    """What a recipe finds; and the pack that it should make, in `whole`."""
    paths = [str(tmp_path / f"{k:02}.png") for k in range(20)]
    for k, path in enumerate(paths):
        cv2.imwrite(path, np.full((5, 6, 3), k, np.uint8))
    labels = list(range(20))
    loader = kl.PathSequenceLoader(paths, labels, size=(224, 224))
    kl.write_pack(loader, tmp_path / "whole", shard_size=150528, progress=False)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("KLOADERS_WORKER", "1")  # those of Spark import no Keras
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return {"paths": paths, "labels": labels}


def run(code: str, scene: dict[str, Any], tmp_path: Path) -> None:
    """With a folder of the test, and shards that are small enough for 16 parts."""
    code = code.replace("/data/", f"{tmp_path}/").replace("part=", "shard_size=150528, part=")
    exec(compile(code, str(PAGE), "exec"), scene)
    assert data(tmp_path / "packed") == data(tmp_path / "whole")
    y = kl.PackSequenceLoader(tmp_path / "packed", 20, shuffle=False)[0][1]
    assert y.tolist() == list(range(20))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_spark(scene: dict[str, Any], tmp_path: Path) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java")
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.getOrCreate()
    try:
        run(recipe("Spark"), {**scene, "spark": spark}, tmp_path)
    finally:
        spark.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_beam(scene: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="apache-beam is not installed")
    write = recipe("Spark").partition("\nspark.")[0]
    run(write + recipe("Beam"), scene, tmp_path)
