"""Time limits of worker processes: read when their pool is made, and clear where they are wrong."""

import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.engine.processes.timeouts import IDLE, SAMPLE, START, Timeouts

NAMES = {"sample": SAMPLE, "start": START, "idle": IDLE}


def test_from_environment(monkeypatch):
    """Each from its own variable; the defaults are those that the docs have."""
    for name in NAMES.values():
        monkeypatch.delenv(name, raising=False)
    assert Timeouts.from_environment() == Timeouts(60.0, 300.0, 60.0)
    for field, name in NAMES.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, "1.5")
            assert Timeouts.from_environment() == Timeouts()._replace(**{field: 1.5})


@pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")
@pytest.mark.parametrize("name", NAMES.values())
def test_a_bad_value_is_an_error_of_the_first_batch(monkeypatch, keep, name):
    monkeypatch.setenv(name, "a while")
    loader = keep(kl.ArraySequenceLoader(np.arange(8.0), batch_size=4, processes=True, workers=1))
    with pytest.raises(ValueError, match=f"{name} is 'a while', expected seconds above 0"):
        loader[0]
    monkeypatch.delenv(name)
    assert sorted([*loader[0].tolist(), *loader[1].tolist()]) == list(range(8))


@pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")
def test_a_start_that_takes_too_long_names_the_variable(monkeypatch, keep):
    monkeypatch.setenv(START, "1e-9")
    loader = keep(kl.ArraySequenceLoader(np.arange(8.0), batch_size=4, processes=True, workers=1))
    with pytest.raises(
        (RuntimeError, kl.SampleError), match=f"while it started.*environment variable {START}"
    ):
        loader[0]
