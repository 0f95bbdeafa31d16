"""explain() as a whole, on each kind of loader."""

import time

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import probes
from kloaders.diagnostics.explain.text import RESOURCES


def test_predictions_are_checked_when_asked(pictures, monkeypatch):
    """Each advice that can be tried is, and its figure stands beside the prediction."""
    loader = kl.PathSequenceLoader(pictures, np.arange(24), 8, size=(16, 16), seed=1, cache=None)
    asked = []

    def tried(loader, change, value, model, seconds):
        asked.append((change, value))
        return 123.0

    monkeypatch.setattr(probes, "measure_change", tried)
    found = loader.explain(seconds=0.2, check=True)
    assert asked == [advice.change for advice in found.advice if advice.change]
    assert all(advice.measured == 123 for advice in found.advice if advice.change)
    assert loader.explain(seconds=0.2).advice != found.advice or not asked
    loader.close()


class Hooked(kl.SequenceLoader):
    def load_sample(self, index):
        time.sleep(2e-3)
        return np.full(3, index, "f4"), np.float32(index)


class Batched(kl.SequenceLoader):
    def load_batch(self, indices):
        return np.ones((len(indices), 3), "f4")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hooked(20, 4),
        lambda: Batched(20, 4),
        lambda: kl.ArraySequenceLoader(np.zeros((20, 3)), batch_size=4, shuffle=False),
        lambda: kl.ArraySequenceLoader(
            {"a": np.zeros((20, 3)), "b": np.zeros(20)}, np.zeros(20), 4
        ),
        lambda: kl.ArraySequenceLoader(
            np.zeros((20, 3)), batch_size=32, shard=(1, 2), seed=1, shuffle=True
        ),
    ],
    ids=["load_sample", "load_batch", "array", "dict", "shard"],
)
def test_any_loader_can_be_explained(make):
    """Whatever its samples come from."""
    loader = make()
    found = loader.explain(seconds=0.15)
    assert found.bound in RESOURCES
    assert found.now > 0
    assert found.to_html().startswith("<!doctype html>")
    loader.close()


def test_two_levels_packs_records_and_subsets_can_be_explained(pictures, tmp_path):
    """Through RAM batches, memory maps, records and the sides of a split."""
    labels = np.arange(24)
    files = kl.PathSequenceLoader(pictures, labels, 4, size=(16, 16), seed=1)
    kl.write_pack(files, tmp_path / "pack", progress=False)
    written = kl.write_tfrecords(pictures, labels, tmp_path / "records", progress=False)
    features = {"x": "image_raw", "y": "label"}
    for loader in (
        kl.RamBatchSequenceLoader(pictures, labels, 4, ram_batch_size=8, size=(16, 16), seed=1),
        kl.PackSequenceLoader(tmp_path / "pack", 4),
        kl.TFRecordSequenceLoader(written.files, features, 4, size=(16, 16)),
        kl.split(files, seed=1)[0],
    ):
        found = loader.explain(seconds=0.15)
        assert found.now > 0
        assert found.measured.ram.rate > 0
        loader.close()
