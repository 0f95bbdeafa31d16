"""Workers that die or hang at a sample: it is tried again, and then named."""

import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.engine.processes import timeouts
from tests.engine.processes.hooks import (
    BATCH,
    SAMPLES,
    ByBatch,
    ends_at_19,
    epoch_of,
    fails_at_19,
    hangs_at_19,
    killed_at_first,
    loader_of,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")


@pytest.mark.parametrize(
    ("transform", "sample", "how"),
    [(ends_at_19, 19, "exit code 3"), (killed_at_first, 0, "SIGKILL")],
)
def test_deaths_at_one_sample_name_it(files, transform, sample, how):
    """Grain's test_reports_worker_crash; even the sample that the shapes are taken from."""
    with loader_of(files, transform=transform) as loader:
        with pytest.raises(kl.SampleError, match=rf"{how}.*3 times") as caught:
            epoch_of(loader)
        assert caught.value.index == sample
        assert caught.value.name == files[sample]


def test_deaths_in_load_batch_are_traced_to_the_sample():
    """The hook gets whole parts; after two deaths it gets them one by one."""
    loader = ByBatch(SAMPLES, BATCH, workers=2, processes=True, seed=1)
    loader.bad = 13
    with loader, pytest.raises(kl.SampleError, match=r"sample 13 .*exit code 1") as caught:
        epoch_of(loader)
    assert caught.value.index == 13


def test_hang_names_the_sample(files, monkeypatch):
    """torch's test_timeout, with the name of the sample."""
    monkeypatch.setenv(timeouts.SAMPLE, "0.4")
    with loader_of(files, transform=hangs_at_19) as loader:
        with pytest.raises(kl.SampleError, match=r"TimeoutError.*0.4 seconds.*KLOADERS_WORKER_T"):
            epoch_of(loader)
        with pytest.raises(kl.SampleError) as caught:
            epoch_of(loader)
        assert caught.value.index == 19


@pytest.mark.parametrize("policy", ["skip", "replace"])
@pytest.mark.parametrize("transform", [ends_at_19, fails_at_19])
def test_on_error(files, transform, policy):
    """A sample that ends its worker is dealt with like one that does not load."""
    with loader_of(files, transform=transform, on_error=policy) as loader:
        y = np.concatenate([y for _, y in epoch_of(loader)]).tolist()
        assert [error.index for error in loader.errors] == [19]
    assert len(y) == SAMPLES - (policy == "skip")
    assert sorted(set(y)) == [k for k in range(SAMPLES) if k != 19]
