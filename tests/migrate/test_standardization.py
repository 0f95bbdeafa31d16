"""Normalization of images, compared with Keras."""

import keras
import numpy as np
import pytest

from kloaders.migrate import ImageDataGenerator
from tests.support.keras_images import (
    OLD,
    all_of_theirs,
    everything,
)


def negative(x):
    """A preprocessing_function: gets one float32 picture from 0 to 255."""
    assert x.dtype == np.float32
    return 255 - x


@pytest.mark.parametrize(
    "options",
    [
        {"rescale": 1 / 255},
        {"preprocessing_function": negative},
        {"preprocessing_function": negative, "rescale": 1 / 127.5},
        {"samplewise_center": True},
        {"samplewise_std_normalization": True, "rescale": 0.1},
        {"featurewise_center": True},
        {"featurewise_std_normalization": True, "rescale": 1 / 255},
        {"zca_whitening": True, "rescale": 1 / 255},
        {"dtype": "float16", "rescale": 1 / 255},
    ],
    ids="+".join,
)
@pytest.mark.filterwarnings("ignore:This ImageDataGenerator specifies")
def test_normalisation(folder, old, keep, options):
    """The same numbers as Keras', of files and of arrays."""
    size = (6, 5)
    ours, theirs = ImageDataGenerator(**options), old(**options)
    sample, _ = everything(keep(ImageDataGenerator().flow_from_directory(folder, size)))
    if any(name.startswith(("featurewise", "zca")) for name in options):
        with pytest.raises(ValueError, match=r"call datagen.fit\(x\) with some images first"):
            ours.flow_from_directory(folder, size)
        ours.fit(sample)
        theirs.fit(sample)
    mine = keep(ours.flow_from_directory(folder, size, class_mode="sparse"))
    yours = theirs.flow_from_directory(str(folder), size, class_mode="sparse", shuffle=False)
    arrays = keep(ours.flow(sample, np.arange(len(sample))))
    old_arrays = theirs.flow(sample, np.arange(len(sample)), shuffle=False)
    for new, reference in ((mine, yours), (arrays, old_arrays)):
        (x, y), (x_old, y_old) = everything(new), all_of_theirs(reference)
        assert x.dtype == x_old.dtype
        assert y.tolist() == y_old.tolist()
        # Whitening multiplies matrices; the rest is the same to a rounding or two.
        np.testing.assert_allclose(
            x, x_old, rtol=1e-5, atol=2e-3 if "zca_whitening" in options else 1e-5
        )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_each_dtype_is_computed_as_keras_does(folder, keep, dtype):
    """Files in float32, arrays in the dtype itself, to the last bit."""
    ours = ImageDataGenerator(dtype=dtype, preprocessing_function=lambda x: x / 3)
    theirs = OLD["Keras 3"](dtype=dtype, preprocessing_function=lambda x: x / 3)
    x, _ = everything(keep(ours.flow_from_directory(folder, (6, 5), class_mode=None)))
    flow = theirs.flow_from_directory(str(folder), (6, 5), class_mode=None, shuffle=False)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, all_of_theirs(flow)[0])
    arrays = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3))
    x, _ = everything(keep(ours.flow(arrays)))
    np.testing.assert_array_equal(x, all_of_theirs(theirs.flow(arrays, shuffle=False))[0])


def test_floatx_is_the_default_dtype(keep):
    """As for Keras: what the user set there."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        datagen = ImageDataGenerator()
    finally:
        keras.config.set_floatx(before)
    assert keep(datagen.flow(np.zeros((2, 2, 2, 3))))[0].dtype == np.float64


def test_standardize_returns_a_new_array():
    """One image or several; bytes become floats."""
    datagen = ImageDataGenerator(rescale=0.5)
    x = np.full((2, 2, 3), 4, np.uint8)
    got = datagen.standardize(x)
    assert (got.dtype, got.max(), x.max()) == (np.float32, 2, 4)
    assert datagen.standardize(np.stack([x, x]).astype(np.float32)).shape == (2, 2, 2, 3)


def test_integers_hold_no_normalised_values():
    with pytest.raises(ValueError, match=r"dtype='uint8' cannot represent.*leave dtype out"):
        ImageDataGenerator(samplewise_center=True, dtype="uint8")
