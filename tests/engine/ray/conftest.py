"""Files for the tests of this folder."""

import numpy as np
import pytest


@pytest.fixture
def files(tmp_path):
    """.npy files that hold their number three times."""
    from tests.engine.processes.hooks import SAMPLES

    for k in range(SAMPLES):
        np.save(tmp_path / f"{k:02}.npy", np.full(3, k))
    return [str(tmp_path / f"{k:02}.npy") for k in range(SAMPLES)]
