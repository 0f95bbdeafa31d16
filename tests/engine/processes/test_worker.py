"""What a worker process is and does: what it imports, how errors come back, when it leaves."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.engine.processes import timeouts
from tests.engine.processes.hooks import (
    assert_exact,
    epoch_of,
    fails_at_19,
    fails_oddly_at_19,
    grows,
    leaves_at_19,
    loader_of,
    slow,
    witness,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")


def test_workers_import_no_framework_and_use_one_thread(files):
    """Two processes, neither this one, without Keras (Grain's workers import JAX lazily)."""
    with loader_of(files, transform=witness) as loader:
        x = np.concatenate([x for x, _ in epoch_of(loader)])
    pids, heavy, threads = x.T
    assert os.getpid() not in pids
    assert len(set(pids)) == 2
    assert set(heavy) == {0}
    assert set(threads) <= {0, 1}


def test_error_crosses_with_file_cause_and_traceback(files):
    """Grain's process_prefetch_test.py, test_propagates_transform_error."""
    with loader_of(files, transform=fails_at_19) as loader:
        with pytest.raises(kl.SampleError, match="KeyError: 'no such class'") as caught:
            epoch_of(loader)
        assert caught.value.name == files[19]
        assert isinstance(caught.value.__cause__, KeyError)
        assert "in fails_at_19" in str(caught.value.__cause__.__cause__)
        pickle.loads(pickle.dumps(caught.value))


def test_broken_file_is_named(files):
    """Grain's process_prefetch_test.py, test_propagates_transform_error, for a file."""
    Path(files[3]).write_bytes(b"no array")
    with loader_of(files) as loader, pytest.raises(kl.SampleError, match=r"003\.npy"):
        epoch_of(loader)


def test_error_that_does_not_pickle_crosses_as_text(files):
    with loader_of(files, transform=fails_oddly_at_19) as loader:
        with pytest.raises(kl.SampleError, match="Odd: 1 and 2") as caught:
            epoch_of(loader)
        assert caught.value.index == 19


def test_exit_in_a_hook_arrives(files):
    """sys.exit() in a worker means what it means in a thread: Grain's test_reports_worker_crash."""
    with loader_of(files, transform=leaves_at_19) as loader, pytest.raises(SystemExit):
        epoch_of(loader)


def test_idle_workers_leave(files, monkeypatch):
    """Of a loader that something keeps alive; the next epoch has new ones."""
    monkeypatch.setenv(timeouts.IDLE, "0.2")
    with loader_of(files, transform=slow) as loader:
        assert_exact(epoch_of(loader))
        children = [each.process for each in loader.runner._processes._group.all]
        assert [child.wait(10) for child in children] == [0, 0]
        assert_exact(epoch_of(loader, 1))


def test_samples_of_another_shape_cross(files):
    """A batch takes the shape that all its samples have; the error names two that differ."""
    with loader_of(files, transform=grows) as loader:
        shapes = [x.shape for x, _ in epoch_of(loader, shuffle=False)]
        assert shapes == [(8, 1, 2), (8, 2, 2), (8, 3, 2), (6, 4, 2)]
        with pytest.raises(ValueError, match="in the same batch"):
            epoch_of(loader, shuffle=True)
