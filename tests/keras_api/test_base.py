"""Which class Keras knows a loader by: that of the Keras in use, and none in a worker process."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from kloaders.keras_api import base

ROOT = Path(__file__).parents[2]


def run(code, **environment):
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_loader_is_a_dataset_of_keras():
    assert base.Sequence is keras.utils.PyDataset


def test_a_worker_process_imports_no_keras():
    """Which takes seconds, and hundreds of MB."""
    code = (
        "import sys; from kloaders.keras_api import base; s = base.Sequence(workers=3);"
        "print(base.Sequence.__name__, 'keras' in sys.modules, 'tensorflow' in sys.modules,"
        "base.keeps_adapters())"
    )
    assert run(code, **{base.WORKER: "1"}) == ["_Plain", "False", "False", "False"]


@pytest.mark.parametrize(
    ("backend", "keeps"), [("tensorflow", True), ("torch", False), ("jax", False)]
)
def test_only_tensorflow_keeps_what_keras_makes(monkeypatch, backend, keeps):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert base.keeps_adapters() is keeps


def test_without_keras_nothing_is_kept(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    assert not base.keeps_adapters()
