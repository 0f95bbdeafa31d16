"""image_dataset_from_directory beside Keras' own: same files, classes, parts and images."""

import inspect

import cv2
import keras
import numpy as np
import pytest

from kloaders.migrate import image_dataset_from_directory
from tests.support.keras_images import (
    SIZE,
    apart,
    everything,
)


def theirs_of(folder, **options):
    """Files, classes and arrays of Keras' function, without the shuffle of its Dataset."""
    return keras.utils.image_dataset_from_directory(
        str(folder), image_size=SIZE, batch_size=None, verbose=False, **options
    )


@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
@pytest.mark.parametrize("seed", [None, 7])
def test_datasets(folder, keep, label_mode, seed):
    """Files in Keras' order, class names and labels; JPEGs are a few levels apart."""
    options = {"label_mode": label_mode, "shuffle": False}
    if label_mode == "binary":
        options["class_names"] = ["cat", "ant"]
    if seed is not None:
        options |= {"shuffle": True, "seed": seed}
    theirs = theirs_of(folder, **options)
    ours = keep(image_dataset_from_directory(folder, image_size=SIZE, **options))
    assert ours.file_paths == list(theirs.file_paths)
    assert ours.class_names == theirs.class_names
    reference = theirs_of(folder, **{**options, "shuffle": False, "seed": None})
    by_file = dict(zip(reference.file_paths, reference, strict=True))
    x, y = everything(ours)
    assert x.dtype == np.float32
    for row, file in enumerate(ours.file_paths):
        expected = by_file[file]
        if label_mode is not None:
            expected, label = expected
            np.testing.assert_array_equal(y[row], label.numpy())
            assert y.dtype == label.dtype.as_numpy_dtype
        close(x[row], expected.numpy(), file)


def close(ours, theirs, file, rounding=0.8):
    """As close as the page says: rounded to a level, and TensorFlow decodes JPEG otherwise."""
    error = np.abs(ours - theirs)
    if file.lower().endswith((".jpg", ".jpeg")):
        assert error.mean() < 2.5
        assert error.max() < 16
    else:
        assert error.max() < rounding


@pytest.mark.parametrize("share", [0.2, 0.33])
@pytest.mark.parametrize("options", [{"seed": 3}, {"shuffle": False}])
def test_parts_of_a_dataset(folder, keep, share, options):
    """Which files fall into which part, one by one and both at once."""
    ours = {}
    for subset in ("training", "validation"):
        arguments = {"validation_split": share, "subset": subset, **options}
        ours[subset] = keep(image_dataset_from_directory(folder, image_size=SIZE, **arguments))
        assert ours[subset].file_paths == list(theirs_of(folder, **arguments).file_paths)
    train, val = image_dataset_from_directory(
        folder, image_size=SIZE, validation_split=share, subset="both", **options
    )
    assert keep(train).file_paths == ours["training"].file_paths
    assert keep(val).file_paths == ours["validation"].file_paths


@pytest.mark.parametrize("aspect", ["crop_to_aspect_ratio", "pad_to_aspect_ratio"])
@pytest.mark.parametrize("name", ["bilinear", "nearest", "area"])
def test_aspect_ratios(folder, keep, aspect, name):
    """The same part of the picture, or the same border."""
    options = {aspect: True, "interpolation": name, "shuffle": False}
    x, _ = everything(keep(image_dataset_from_directory(folder, image_size=SIZE, **options)))
    theirs = theirs_of(folder, **options)
    for row, (expected, _), file in zip(x, theirs, theirs.file_paths, strict=True):
        if (
            name == "nearest"
        ):  # where a sample lies between two pixels, TensorFlow may take the other
            same = (np.abs(row - expected.numpy()) < 8).mean()
            assert same > 0.8, file
        else:
            close(row, expected.numpy(), file)


def test_labels_of_ones_own(folder, keep):
    """A list of integers for the files as they are sorted, wherever they lie."""
    labels = list(range(20))
    options = {"labels": labels, "shuffle": False}
    ours, theirs = (
        image_dataset_from_directory(folder, image_size=SIZE, **options),
        theirs_of(folder, **options),
    )
    assert ours.file_paths == list(theirs.file_paths)
    assert ours.class_names == theirs.class_names
    assert everything(keep(ours))[1].tolist() == labels
    with pytest.raises(ValueError, match="one number for each of 20 files"):
        image_dataset_from_directory(folder, labels=[1, 2])


@pytest.mark.parametrize(
    ("suffix", "mean", "most"), [("png", 0.26, 0.8), ("jpg", 1.2, 12)], ids=["png", "jpg"]
)
def test_a_dataset_of_photographs(photographs, keep, suffix, mean, most):
    """As close to Keras' function as the page says."""
    options = {"shuffle": False, "label_mode": None, "image_size": (64, 64)}
    theirs = keras.utils.image_dataset_from_directory(
        str(photographs / suffix), verbose=False, **options
    )
    x, _ = everything(keep(image_dataset_from_directory(photographs / suffix, **options)))
    off = apart(next(iter(theirs)).numpy(), x)
    assert off[0] < mean
    assert off[1] < most


def test_keras_arguments_are_taken(folder, keep):
    """All of them, in Keras' order, with Keras' defaults but for shuffle."""
    theirs = inspect.signature(keras.utils.image_dataset_from_directory).parameters
    ours = inspect.signature(image_dataset_from_directory).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    other = {name for name, p in theirs.items() if ours[name].default != p.default}
    assert other == {"shuffle"}
    given = {name: p.default for name, p in theirs.items() if name != "directory"}
    loader = keep(image_dataset_from_directory(folder, **given))
    assert loader.samples == 20


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_says_how_much_was_found(folder, keep, caplog, verbose):
    with caplog.at_level("INFO", "kloaders"):
        keep(image_dataset_from_directory(folder, verbose=verbose))
    assert ("found 20 files belonging to 3 classes" in caplog.text) is verbose


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grayscale"])
@pytest.mark.parametrize("channels", [0, slice(3), slice(4)], ids=["gray", "colour", "alpha"])
def test_images_of_16_bits_come_as_tensorflow_has_them(tmp_path, keep, mode, channels):
    """Their upper 8 bits; to a level where colour becomes gray."""
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24, 4), np.uint16)
    (tmp_path / "a").mkdir()
    assert cv2.imwrite(str(tmp_path / "a" / "x.png"), deep[..., channels])
    options = {"label_mode": None, "image_size": (20, 24), "color_mode": mode, "shuffle": False}
    theirs = keras.utils.image_dataset_from_directory(str(tmp_path), verbose=False, **options)
    ours, _ = everything(keep(image_dataset_from_directory(tmp_path, **options)))
    error = np.abs(ours - next(iter(theirs)).numpy())
    assert error.max() <= (1 if mode == "grayscale" else 0)
    assert 200 < ours.max() <= 255


@pytest.mark.parametrize("values", [np.linspace(0, 1, 20), list(range(20)), [True, False] * 10])
def test_labels_have_tensorflows_dtype(folder, keep, values):
    """Floats stay floats: a regression on a list of numbers."""
    labels = list(np.asarray(values).tolist())
    options = {"labels": labels, "shuffle": False}
    ours = everything(keep(image_dataset_from_directory(folder, image_size=SIZE, **options)))[1]
    wanted = [np.float32(label) for label in labels]
    np.testing.assert_array_equal(ours.astype(np.float32), wanted)
    if not isinstance(labels[0], bool):
        assert ours.dtype == next(iter(theirs_of(folder, **options)))[1].numpy().dtype


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "torch"}, "`format` should be"),
        ({"labels": [0.5] * 20, "label_mode": "binary"}, "takes integers: number the classes"),
        ({"labels": ["a"] * 20}, "takes integers: number the classes from 0"),
        (
            {"labels": [7] * 20, "label_mode": "categorical"},
            "labels contains 7.*number them from 0",
        ),
        (
            {"validation_split": 0.01, "subset": "both", "seed": 1},
            "of 20 files leaves no file for the validation subset",
        ),
    ],
)
def test_what_is_refused(folder, options, said):
    """With what to do instead."""
    with pytest.raises(ValueError, match=said):
        image_dataset_from_directory(folder, **options)


def test_names_of_filters_in_any_case(folder, keep):
    """As Keras takes them."""
    loader = keep(image_dataset_from_directory(folder, image_size=SIZE, interpolation="Nearest"))
    assert loader.image_options.interpolation == "nearest"
