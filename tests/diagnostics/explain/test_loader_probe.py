"""Measures loaders without a model, and reading of files alone."""

import os

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import loader_probe
from kloaders.diagnostics.explain.loader_probe import drive, evict, files_per_second


class Counted(kl.SequenceLoader):
    """Notes the samples that are asked for."""

    def __init__(self, *arguments, **options):
        self.seen = []
        super().__init__(*arguments, **options)

    def load_sample(self, index):
        self.seen.append(index)
        return np.float32(index)


def test_as_many_batches_as_are_wanted():
    """At least two batches, over several epochs if necessary; then no thread is left."""
    loader = Counted(10, 4, workers=0, shuffle=False)
    run = drive(loader, 60, at_most=25)
    assert run.rate > 0
    looked, *served = loader.seen
    assert looked == 0  # for its shape
    assert 25 <= len(served) <= 40
    assert served[:20] == [*range(10)] * 2
    assert loader.runner.engine is None
    loader.close()


def test_rates_are_samples_by_time(monkeypatch):
    """With a clock that a test moves: 4 samples each second, half of them on the processor."""
    now = [0.0]
    monkeypatch.setattr(loader_probe.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(loader_probe.time, "process_time", lambda: now[0] / 2)

    class Timed(kl.SequenceLoader):
        def load_batch(self, indices):
            now[0] += 1
            return np.zeros((len(indices), 2), "f4")

    run = drive(Timed(40, 4, workers=0), 5.0)
    assert run.rate == pytest.approx(4)
    assert run.busy == pytest.approx(0.5)


def test_files_are_read_by_threads(tmp_path):
    """Each once, and those that are gone do not matter."""
    names = []
    for k in range(20):
        names.append(str(tmp_path / f"{k}.npy"))
        np.save(names[-1], np.zeros(1000))
    os.remove(names[3])
    evict(names)
    assert files_per_second(names, 3, 30.0) > 0
