"""Files of a loader's samples, and how their images are decoded."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.structure import flatten
from kloaders.diagnostics.explain.file_columns import (
    image_options,
    paths_of,
    uncached,
    with_dct_scaling,
)


class Hooked(kl.PathSequenceLoader):
    def load_sample(self, path):
        return np.zeros(2, "f4")


def columns(loader):
    return flatten(loader.source.columns)


def test_each_file_of_a_sample(pictures):
    """An image and its mask; of a subset those of the whole."""
    loader = kl.PathSequenceLoader(pictures, pictures[::-1], 4, size=(8, 8))
    assert paths_of(loader)(0) == [pictures[0], pictures[-1]]
    assert paths_of(kl.subset(loader, np.array([5, 2])))(1) == [pictures[2], pictures[-3]]
    assert paths_of(Hooked(pictures))(3) == [pictures[3]]
    assert paths_of(kl.ArraySequenceLoader(np.zeros((4, 2)), batch_size=2)) is None


def test_options_of_what_is_decoded_here(pictures):
    """Not of what a function of the user's decodes."""
    x, y = columns(kl.PathSequenceLoader(pictures, np.arange(24), 4, size=(8, 8)))
    assert image_options(x).size == (8, 8)
    assert image_options(y) is None
    (own,) = columns(kl.PathSequenceLoader(pictures, batch_size=4, decode=lambda raw: np.zeros(2)))
    assert image_options(own) is None


@pytest.mark.parametrize("cache", [None, "ram"])
def test_scaled_decoding_is_of_a_copy(pictures, cache):
    """Without the cache; the loader's own column is as it was."""
    loader = kl.PathSequenceLoader(pictures, batch_size=4, size=(8, 8), cache=cache)
    (column,) = columns(kl.subset(loader, np.array([3, 1])))
    scaled = with_dct_scaling(column)
    assert image_options(scaled).dct_scaling
    assert not image_options(column).dct_scaling
    assert scaled.read(0).shape == (8, 8, 3)
    assert np.abs(scaled.read(0).astype(int) - column.read(0)).mean() < 60
    (own,) = columns(loader)
    assert hasattr(own, "store") is (cache == "ram")
    assert not hasattr(uncached(own), "store")
    loader.close()
