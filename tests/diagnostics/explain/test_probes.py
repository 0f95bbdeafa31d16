"""Loaders and models that are really measured."""

import os
import time

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import probes
from kloaders.diagnostics.explain.verdict import judge
from tests.support.object_server import serving
from tests.support.remote import fill


def test_every_stage_of_files_is_measured(pictures):
    """Seconds of each, and a run of the loader on the disk, from memory and from RAM."""
    loader = kl.PathSequenceLoader(pictures, np.zeros(24), 8, size=(16, 16), seed=1)
    found = loader.explain(seconds=0.3)
    m = found.measured
    for name in ("read_s", "read_cached_s", "decode_s", "copy_s", "dct_decode_s", "disk_rate"):
        assert getattr(m, name) > 0, name
    assert m.transform_s == 0
    assert all(run.rate > 0 and run.busy > 0 for run in (m.cold, m.warm, m.ram))
    assert m.settings.kept == 1
    assert m.settings.stored_bytes == pytest.approx(np.mean([os.path.getsize(p) for p in pictures]))
    assert m.step_s is None
    assert 4 <= m.probed <= 24
    loader.close()


def test_measuring_leaves_loader_and_model_alone(pictures):
    """Weights, optimizer, history and epoch are as before, and the cache holds what it held."""
    loader = kl.PathSequenceLoader(pictures, np.zeros(24), 8, size=(16, 16), seed=1)
    model = model_for((16, 16, 3))
    model.fit(loader, epochs=1, verbose=0)
    history = model.history
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    cached = [str(store) for store in loader.source.stores()]
    epoch = loader.runner.tickets._next_epoch
    found = loader.explain(model, seconds=0.3)
    assert found.measured.step_s > 0
    assert found.measured.fit_s > 0
    assert found.measured.model_from == "model"
    for old, now in zip(before, [*model.variables, *model.optimizer.variables], strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(now))
    assert model.history is history
    assert loader.runner.tickets._next_epoch == epoch
    assert [str(store) for store in loader.source.stores()] == cached
    loader.close()


def model_for(shape):
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def test_a_fit_with_the_callback_tells_the_step():
    """No model is needed afterwards."""
    loader = kl.ArraySequenceLoader(np.zeros((64, 4), "f4"), np.zeros(64, "f4"), 8, seed=1)
    model_for((4,)).fit(loader, epochs=3, verbose=0, callbacks=[kl.LoaderCallback(loader)])
    found = loader.explain(seconds=0.2)
    assert found.measured.model_from == "fit"
    steady = loader.runner.last_fit.steady()
    assert found.measured.fit_s == pytest.approx(steady.seconds / steady.steps)
    assert found.now == pytest.approx(8 / found.measured.fit_s)
    loader.close()


def test_a_check_really_runs(pictures):
    loader = kl.PathSequenceLoader(pictures, np.arange(24), 8, size=(16, 16), seed=1, cache=None)
    assert probes.measure_change(loader, "ram", None, seconds=0.1) > 0
    model = model_for((16, 16, 3))
    assert probes.measure_change(loader, "workers", 1, model=model, seconds=0.3) > 0
    loader.close()


def test_a_loader_over_urls(keep):
    """Fetching counts as waiting, decoding as work, and requests are counted."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    with serving() as server:
        urls = fill(server)
        server.latency = 0.01
        loader = keep(kl.PathSequenceLoader(urls, None, 8, cache=None, check_paths=False))
        measured = probes.measure(loader, seconds=1.0)
        loader.close()
    assert measured.settings.remote
    assert not measured.settings.downloads_kept
    assert measured.disk_rate is None
    assert measured.read_s > 0.009
    assert measured.decode_s < 0.009
    assert measured.request_s > 0.009
    assert measured.requests > 1
    # The server takes part of the same cores, and so which of the two it is follows from the machine.
    assert judge(measured).bound in ("network", "cpu")


def _waits(x, y, rng):
    time.sleep(0.02)
    return x, y


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_loader_on_ray(ray):
    """Actors that sleep in a transform count as busy; their work is measured in the actors."""
    x = np.zeros((64, 8), np.float32)
    loader = kl.ArraySequenceLoader(x, np.arange(64), 8, transform=_waits, processes=kl.Ray(cpus=2))
    loader[0]  # its own actors have all CPUs of the cluster
    found = loader.explain(seconds=3)
    assert found.measured.settings.decoders == 2
    assert 0.4 < found.measured.warm.decoding <= 1
    assert found.bottleneck in ("decoders", "network")
    assert "this loader, with 2 Ray actors" in str(found)
    loader.close()
