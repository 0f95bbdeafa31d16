"""One training of the demo, in this process."""

import sys

import pytest

from kloaders.cli import demo
from kloaders.cli.demo_training import train


@pytest.mark.parametrize("method", list(demo.METHODS))
def test_each_method_trains(images, method):
    """Phases and progress are told, and every figure is there."""
    if method == "tf.data":
        pytest.importorskip("tensorflow")
    told = []
    found = train(method, str(images), 3, told.append)
    assert found["accuracy"] > 0.8
    assert found["samples_per_second"] > 0
    assert found["step_seconds"] > 0
    assert [said["phase"] for said in told if "phase" in said] == [
        "importing Keras",
        "measuring the step alone",
        "training",
        "validating",
    ]
    total = next(said["total"] for said in told if "total" in said)
    assert max(said["done"] for said in told if "done" in said) == total


def test_tf_data_is_skipped_without_tensorflow(images, monkeypatch):
    """Other backends need no TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert "cannot be imported" in train("tf.data", str(images), 1, lambda _: None)["skipped"]
