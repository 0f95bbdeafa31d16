"""Keras layers instead of the options that draw random numbers."""

import keras
import numpy as np
import pytest

from kloaders.migrate import ImageDataGenerator

DRAWING = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.2,
    "shear_range": 10,
    "zoom_range": 0.3,
    "channel_shift_range": 20,
    "horizontal_flip": True,
    "vertical_flip": True,
    "brightness_range": (0.5, 1.5),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_is_not_forgotten(name):
    """A flow without augmentation raises an error, unless transform=None or a function is passed."""
    datagen = ImageDataGenerator(**{name: DRAWING[name]})
    x = np.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match=rf"{name}=.*datagen.layers\(\) first.*transform=None"):
        datagen.flow(x)
    assert datagen.flow(x, transform=None)[0].max() == 0
    assert datagen.flow(x, transform=lambda x, y, rng: (x + 1, y))[0].max() == 1


def test_layers_name_what_is_missing(caplog):
    """Shifts in pixels and brightness factors have no layer; the suggested code works."""
    with caplog.at_level("INFO", "kloaders"):
        layers = ImageDataGenerator(width_shift_range=3, brightness_range=(0.5, 1.5)).layers()
    assert not layers
    assert "width_shift_range=3 is in pixels" in caplog.text
    advice = caplog.text.split("transform=", 1)[1].split(".\n")[0]
    transform = eval(advice, {"np": np})  # the text that a user would paste
    x, y = transform(np.full((2, 2, 3), 200, np.uint8), 1, np.random.default_rng(0))
    assert x.dtype == np.uint8
    assert (x == x[0, 0, 0]).all()
    assert 100 <= x[0, 0, 0] <= 255
    assert y == 1


def spots(layers, count=200):
    """Where a bright spot, off the middle, is after `layers`: rows of (y, x) from the middle."""
    pictures = np.zeros((count, 65, 65, 1), np.float32)
    pictures[:, 30:35, 50:55] = 1
    moved = keras.ops.convert_to_numpy(keras.Sequential(layers)(pictures, training=True))[..., 0]
    rows, columns = np.mgrid[:65, :65] - 32
    mass = moved.sum((1, 2))
    return np.stack([(moved * rows).sum((1, 2)) / mass, (moved * columns).sum((1, 2)) / mass], 1)


def test_layers_draw_what_was_drawn():
    """Rotations, shifts, zooms, shears and flips as far as Keras' old class makes them."""
    border = {"fill_mode": "constant"}
    there = np.array([0, 20])

    def made(**options):
        return spots(ImageDataGenerator(**options, **border).layers(seed=1))

    turned = made(rotation_range=20)
    angles = np.rad2deg(np.arctan2(turned[:, 0], turned[:, 1]))
    assert 17 < angles.max() < 20.5
    assert -20.5 < angles.min() < -17
    shifted = made(width_shift_range=0.1, height_shift_range=0.2) - there
    assert 5.5 < shifted[:, 1].max() < 6.8
    assert 11 < shifted[:, 0].max() < 13.5
    zoomed = made(zoom_range=(1.2, 1.6))  # above 1 the picture gets smaller
    assert 20 / 1.65 < zoomed[:, 1].min() < zoomed[:, 1].max() < 20 / 1.15
    flipped = made(horizontal_flip=True)
    assert set(np.rint(flipped[:, 1]).tolist()) == {-20, 20}
    assert np.abs(flipped[:, 0]).max() < 0.1
    sheared = made(shear_range=15)  # from the left edge on: 52 columns
    assert 52 * np.sin(np.deg2rad(13.5)) < sheared[:, 0].max() < 52 * np.sin(np.deg2rad(15.2))


def test_layers_know_the_scale():
    """Brightness and borders are those of pictures that `rescale` has made smaller."""
    datagen = ImageDataGenerator(
        channel_shift_range=51,
        width_shift_range=0.5,
        fill_mode="constant",
        cval=255,
        rescale=1 / 255,
    )
    shift, brightness = datagen.layers(seed=0)
    x = np.full((64, 8, 8, 1), 0.5, np.float32)
    shifted = keras.ops.convert_to_numpy(shift(x, training=True))
    assert shifted.max() == pytest.approx(1)
    shone = keras.ops.convert_to_numpy(brightness(x, training=True))
    assert 0.3 <= shone.min() < 0.35
    assert 0.65 < shone.max() <= 0.7
