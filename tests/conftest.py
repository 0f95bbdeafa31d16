"""What every test starts from: the same random state, and no deadline on a loaded machine."""

import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Keras reads this when it is first imported. Tests of one backend set their own.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def same_random_state():
    """No test sees what another drew: a loader without a seed takes one from NumPy's generator."""
    before = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
