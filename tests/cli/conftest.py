"""Images for the commands."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of images that differ in size."""
    import cv2

    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("bird", "boat"):
        (folder / name).mkdir()
        for k in range(10):
            image = noise.integers(0, 255, (40 + k, 50, 3), "uint8")
            assert cv2.imwrite(str(folder / name / f"{k}.jpg"), image)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A few files of the demo."""
    from kloaders.cli.demo_images import write_images

    folder = tmp_path_factory.mktemp("demo")
    assert write_images(str(folder), crops=20, progress=False) == 1797 + 40
    return folder
