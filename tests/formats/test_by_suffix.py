"""One file by its suffix."""

import numpy as np
import pytest

from kloaders.formats.by_suffix import read_sample
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, picture


def test_content_counts_not_the_name(tmp_path):
    """A PNG that is called .jpg is decoded as the PNG it is."""
    image = picture()
    (tmp_path / "a.jpg").write_bytes(encoded(".png", image))
    np.testing.assert_array_equal(read_sample(str(tmp_path / "a.jpg"), ImageOptions()), image)


def test_read_sample(tmp_path):
    """By suffix: pictures with the options, arrays as saved, and nothing else."""
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.PNG").write_bytes(encoded(".png", picture()))
    options = ImageOptions(size=(8, 9))
    assert read_sample(str(tmp_path / "a.npy"), options).tolist() == [0, 1, 2]
    row = np.zeros((2, 8, 9, 3), np.uint8)[1]
    assert read_sample(str(tmp_path / "a.PNG"), options, row) is row
    with pytest.raises(ValueError, match="suffixes known"):
        read_sample(str(tmp_path / "a.txt"), options)
