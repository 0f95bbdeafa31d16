"""One training of the demo, in this process."""

import functools
import sys

import pytest

from kloaders.cli import demo
from kloaders.cli.demo_training import train


@pytest.fixture(scope="module")
def trained(images):
    """trained(method) -> the result of `train` and its reports; each method trains once."""

    @functools.cache
    def trained(method):
        if method == "tf.data":
            pytest.importorskip("tensorflow")
        told = []
        return train(method, str(images), 3, told.append), told

    return trained


def test_methods_of_one_order_end_at_one_accuracy(trained):
    """The Dataset begins with epoch 0 like the others: the first batch is measured on another Dataset."""
    files = trained("files")[0]["accuracy"]
    assert trained("tf.data")[0]["accuracy"] == pytest.approx(files, abs=1e-6)


@pytest.mark.parametrize("method", list(demo.METHODS))
def test_each_method_trains(trained, method):
    """Phases and progress are told, and every figure is there."""
    found, told = trained(method)
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
