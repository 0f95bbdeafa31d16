"""Keras' own image loaders, to compare the drop-ins of kloaders.migrate with."""

from __future__ import annotations

import os

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("PIL")
pytest.importorskip("pandas")

# The name under which TensorFlow still offers it, and Keras 2.
OLD = {"Keras 3": pytest.importorskip("tensorflow.keras.preprocessing.image").ImageDataGenerator}
try:
    import tf_keras
except ImportError:
    pass
else:
    OLD["Keras 2"] = tf_keras.preprocessing.image.ImageDataGenerator
SIZE = (12, 14)


def photo(number, height, width):
    """An image with edges and gradients, different for each number."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(number).integers(0, 20, (height, width, 3))
    wave = 90 + 80 * np.sin(rows / 3 + number)[..., None] * np.cos(columns / 4)[..., None]
    return np.clip(wave + noise, 0, 255).astype(np.uint8)


def everything(loader):
    """x and y of a whole epoch in storage order."""
    batches = list(loader.epoch_batches(0, False))
    if not isinstance(batches[0], tuple):
        return np.concatenate(batches), None
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


def all_of_theirs(flow):
    """The same of one of Keras' iterators, made with shuffle=False."""
    batches = [flow[k] for k in range(len(flow))]
    if not isinstance(batches[0], tuple):
        return np.concatenate(batches), None
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


def assert_same(ours, theirs):
    """Attributes, and all arrays of an epoch with their dtypes."""
    assert ours.samples == theirs.samples
    assert ours.filenames == theirs.filenames
    assert ours.filepaths == theirs.filepaths
    if hasattr(theirs, "class_indices"):
        assert ours.class_indices == theirs.class_indices
        assert list(ours.classes) == list(theirs.classes)
    for mine, yours in zip(everything(ours), all_of_theirs(theirs), strict=True):
        if yours is None:
            assert mine is None
        else:
            assert mine.dtype == yours.dtype
            np.testing.assert_array_equal(mine, yours)


def as_text(value):
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def apart(x, y):
    """Mean and maximal difference, in levels of 255."""
    error = np.abs(x.astype(np.float64) - y)
    return error.mean(), error.max()
