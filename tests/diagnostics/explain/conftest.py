"""Files that explanations are measured on."""

import numpy as np
import pytest


@pytest.fixture
def pictures(tmp_path):
    """JPEGs of noise."""
    cv2 = pytest.importorskip("cv2")
    paths, noise = [], np.random.default_rng(0)
    for k in range(24):
        paths.append(str(tmp_path / f"{k}.jpg"))
        assert cv2.imwrite(paths[-1], noise.integers(0, 255, (64, 64, 3), "uint8"))
    return paths
