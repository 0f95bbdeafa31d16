"""How a loader is sent to worker processes, and what cannot be sent."""

import sys
import threading

import numpy as np
import psutil
import pytest

import kloaders as kl
from tests.engine.processes.hooks import SAMPLES, assert_exact, epoch_of, loader_of, slow

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")


def test_arrays_in_ram_are_shared_not_copied_to_each_worker():
    """One copy for all workers."""
    x = np.arange(100).repeat(500_000).reshape(100, -1)  # 400 MB
    with kl.ArraySequenceLoader(x, batch_size=1, workers=2, processes=True) as loader:
        for k in (0, 99):
            assert (loader[k] == k).all()
        for pid in loader.runner._processes.pids:
            assert psutil.Process(pid).memory_full_info().uss < 150 * 2**20


def test_lambdas_closures_and_local_classes(files):
    pytest.importorskip("cloudpickle")
    offset = 1000

    class Local(kl.PathSequenceLoader):
        def load_sample(self, path):
            return super().load_sample(path) + offset

    options = {"seed": 1, "workers": 2, "processes": True}
    loader = Local(
        files, np.arange(SAMPLES), 8, transform=lambda x, y, rng: (x - offset, y), **options
    )
    with loader:
        assert_exact(epoch_of(loader))


def test_lambda_without_cloudpickle_is_refused_at_construction(files, monkeypatch):
    """Grain's process_prefetch_test.py, test_reports_unpicklable_transform, before it begins."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(
        TypeError, match=r"transform=<function .*<lambda>.* pip install cloudpickle"
    ):
        loader_of(files, transform=lambda x, y, rng: (x, y))

    class Local(kl.PathSequenceLoader):
        def load_sample(self, path):
            return np.zeros(3)

    with pytest.raises(TypeError, match=r"class .*Local.* pip install cloudpickle"):
        Local(files, processes=True)


def test_what_cannot_be_sent_is_named(files):
    """Grain's process_prefetch_test.py, test_reports_unpicklable_transform."""
    lock = threading.Lock()

    def guarded(x, y, rng):
        with lock:
            return x, y

    with pytest.raises(TypeError, match=r"transform=<function .*guarded.* cannot be sent"):
        loader_of(files, transform=guarded)


def test_module_functions_need_no_cloudpickle(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with loader_of(files, transform=slow) as loader:
        assert_exact(epoch_of(loader))
