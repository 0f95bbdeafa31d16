"""The connection to a cluster, and what is put there."""

import builtins
import importlib
import threading

import numpy as np
import pytest

import kloaders as kl
from kloaders.engine.ray import cluster


def test_without_ray_the_error_has_the_pip_line(monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *rest)

    monkeypatch.setattr(cluster, "import_module", missing)
    loader = kl.ArraySequenceLoader(
        np.arange(9), None, 3, transform=lambda x, y, rng: (x, y), processes=kl.Ray(cpus=1)
    )
    with pytest.raises(ImportError, match=r"pip install 'ray\[default\]>=2\.40'"):
        loader[0]


@pytest.mark.ray
def test_what_cannot_be_sent_is_named(ray):
    lock = threading.Lock()

    def locked(x, y, rng):
        with lock:
            return x, y

    with pytest.raises(TypeError, match=r"transform=.*cannot be sent"):
        kl.ArraySequenceLoader(np.arange(9), None, 3, transform=locked, processes=kl.Ray(cpus=1))


@pytest.mark.ray
def test_arrays_are_put_into_the_cluster_once(ray, monkeypatch):
    """However many actors there are: 8 MB go there as one object."""
    sizes = []
    real = ray.put
    monkeypatch.setattr(
        ray, "put", lambda value: (sizes.append(getattr(value, "nbytes", 0)), real(value))[1]
    )
    x = np.zeros((100, 10_000))
    loader = kl.ArraySequenceLoader(
        x, np.arange(100), 10, transform=lambda x, y, rng: (x[:1], y), processes=kl.Ray(cpus=2)
    )
    y = np.concatenate([y for _, y in loader.epoch_batches(0, True)])
    assert sorted(y.tolist()) == list(range(100))
    assert sizes.count(x.nbytes) == 1
    assert builtins.sum(sizes) < 1.1 * x.nbytes
    loader.close()
