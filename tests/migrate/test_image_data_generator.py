"""The drop-ins of kloaders.migrate beside Keras' own: same files, classes, labels and pictures."""

import os
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.migrate import ImageDataGenerator, image_dataset_from_directory
from tests.support.recording import numbers_of, picture_of, recording_model

tf = pytest.importorskip("tensorflow")
pytest.importorskip("PIL")
pandas = pytest.importorskip("pandas")

# The name under which TensorFlow still offers it, and Keras 2.
OLD = {"Keras 3": pytest.importorskip("tensorflow.keras.preprocessing.image").ImageDataGenerator}
try:
    import tf_keras
except ImportError:
    pass
else:
    OLD["Keras 2"] = tf_keras.preprocessing.image.ImageDataGenerator
SIZE = (12, 14)


@pytest.fixture(params=sorted(OLD))
def old(request):
    """Keras' own class."""
    return OLD[request.param]


def photo(number, height, width):
    """Something with edges and gradients, another one for each number."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(number).integers(0, 20, (height, width, 3))
    wave = 90 + 80 * np.sin(rows / 3 + number)[..., None] * np.cos(columns / 4)[..., None]
    return np.clip(wave + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Classes of several sizes, suffixes in both cases, folders inside a class, other files."""
    root = tmp_path_factory.mktemp("photos")
    number = 0
    for name, count in (("cat", 7), ("Zebra", 4), ("ant", 9)):
        for k in range(count):
            suffix = (".png", ".jpg", ".BMP", ".jpeg")[k % 4]
            inside = ("", "more", "a/b")[k % 3]
            path = root / name / inside / f"{(k * 7) % 10}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = photo(number, 20 + 3 * k, 31 - k)
            assert cv2.imwrite(str(path), picture[..., ::-1])
            number += 1
        (root / name / "notes.txt").write_text("no picture")
    (root / "readme.md").write_text("no class")
    return root


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


# ---------------------------------------------------------------------------- flow_from_directory


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input", None])
def test_class_modes(folder, old, keep, class_mode):
    """Class indices, the order of files, labels and pictures are Keras'."""
    arguments = (folder, SIZE, "rgb", None, class_mode, 8, False)
    assert_same(
        keep(ImageDataGenerator().flow_from_directory(*arguments)),
        old().flow_from_directory(*map(_text, arguments)),
    )


def _text(value):
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def test_two_classes_in_a_given_order(folder, old, keep):
    """`classes` gives the numbers; "binary" is for two."""
    arguments = {"target_size": SIZE, "classes": ["cat", "Zebra"], "class_mode": "binary"}
    ours = keep(ImageDataGenerator().flow_from_directory(folder, shuffle=False, **arguments))
    assert ours.class_indices == {"cat": 0, "Zebra": 1}
    assert ours.class_names == ["cat", "Zebra"]
    assert_same(ours, old().flow_from_directory(str(folder), shuffle=False, **arguments))
    with pytest.raises(ValueError, match="has 3: Zebra, ant, cat"):
        ImageDataGenerator().flow_from_directory(folder, class_mode="binary")


@pytest.mark.parametrize("share", [0.2, 0.25, 0.5, 0.29, 0.9])
def test_the_parts_are_keras_own(folder, old, keep, share):
    """The first files of each class validate, as many as Keras takes."""
    ours, theirs = ImageDataGenerator(validation_split=share), old(validation_split=share)
    names = []
    for subset in ("training", "validation"):
        arguments = {"target_size": SIZE, "shuffle": False, "subset": subset}
        mine = keep(ours.flow_from_directory(folder, **arguments))
        assert_same(mine, theirs.flow_from_directory(str(folder), **arguments))
        names += mine.filenames
    whole = keep(ours.flow_from_directory(folder, target_size=SIZE))
    assert sorted(names) == sorted(whole.filenames)


@given(count=st.integers(1, 40), percent=st.integers(1, 99))
@settings(max_examples=50)
def test_parts_of_any_size(count, percent):
    """Cut where Keras cuts, whatever rounding does."""
    share = percent / 100
    x, y = np.zeros((count, 1, 1, 1)), np.arange(count)
    for subset in ("training", "validation"):
        theirs = OLD["Keras 3"](validation_split=share).flow(
            x, y, subset=subset, shuffle=False, ignore_class_split=True
        )
        if not theirs.n:
            continue
        ours = ImageDataGenerator(validation_split=share).flow(
            x, y, count, subset=subset, ignore_class_split=True, workers=0
        )
        assert ours[0][1].tolist() == theirs.y.tolist()


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "hamming", "box"])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(9, 8), (64, 50)])
def test_the_same_pixels(folder, keep, name, crop, size):
    """Bit for bit, smaller and larger, with every filter."""
    arguments = {
        "target_size": size,
        "interpolation": name,
        "keep_aspect_ratio": crop,
        "shuffle": False,
    }
    ours = keep(ImageDataGenerator().flow_from_directory(folder, **arguments))
    assert_same(ours, OLD["Keras 3"]().flow_from_directory(str(folder), **arguments))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """scikit-learn's two, as PNG and as JPEG."""
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("two")
    for suffix in ("png", "jpg"):
        (root / suffix / "a").mkdir(parents=True)
        for k, picture in enumerate(load_sample_images().images):
            assert cv2.imwrite(str(root / suffix / "a" / f"{k}.{suffix}"), picture[..., ::-1])
    return root


def apart(x, y):
    """Levels of 255 on average, and at most."""
    error = np.abs(x.astype(np.float64) - y)
    return error.mean(), error.max()


# What docs/migrate.md says: levels of 255 between Pillow's filters and OpenCV's, at 64 x 64.
FILTERS = {
    ("bilinear", "bilinear"): 7.9,
    ("bicubic", "bicubic"): 8.9,
    ("lanczos", "lanczos"): 9.2,
    ("bilinear", "area"): 1.8,
    ("bicubic", "area"): 1.4,
    ("hamming", "area"): 0.8,
    ("lanczos", "area"): 1.9,
    ("box", "area"): 0.5,
}


@pytest.mark.parametrize(("theirs", "ours"), FILTERS)
def test_opencvs_filters_are_others(photographs, keep, theirs, ours):
    """As far apart as the page says, where photographs get smaller."""
    flow = OLD["Keras 3"]().flow_from_directory(
        str(photographs / "png"), (64, 64), class_mode=None, shuffle=False, interpolation=theirs
    )
    x, _ = everything(
        keep(
            kl.from_directory(
                photographs / "png",
                size=(64, 64),
                interpolation=ours,
                label_mode=None,
                validation=None,
            )[0]
        )
    )
    assert apart(flow[0], x)[0] == pytest.approx(FILTERS[theirs, ours], abs=0.06)


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


@pytest.mark.parametrize(("mode", "off"), [("grayscale", 1), ("rgba", 0)])
def test_colour_modes(folder, keep, mode, off):
    """Grey is within a level of Keras'; alpha is full where a file has none."""
    arguments = (SIZE, mode, None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(folder, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(folder), *arguments))
    assert x.shape == y.shape
    assert np.abs(x - y).max() <= off


def test_transparent_files(tmp_path, keep):
    """Alpha is dropped, as Keras does."""
    (tmp_path / "a").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    assert cv2.imwrite(str(tmp_path / "a" / "0.png"), picture)
    arguments = ((6, 7), "rgb", None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(tmp_path, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(tmp_path), *arguments))
    np.testing.assert_array_equal(x, y)


def test_photographs_are_upright(tmp_path, keep):
    """Keras leaves one lying that was taken with the camera on its side: ours turns it, on purpose."""
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    exif = pillow.Exif()
    exif[274] = 6  # turn clockwise
    pillow.fromarray(photo(1, 20, 20)).save(tmp_path / "a" / "0.jpg", exif=exif)
    arguments = ((20, 20), "rgb", None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(tmp_path, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(tmp_path), *arguments))
    np.testing.assert_array_equal(x[0], np.rot90(y[0], -1))


def test_hidden_folders_are_no_classes(tmp_path, keep):
    """Keras takes a notebook's .ipynb_checkpoints for class 0: ours does not, on purpose."""
    for name in (".ipynb_checkpoints", "a", "b"):
        (tmp_path / name).mkdir()
        assert cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((4, 4, 3), np.uint8))
    ours = keep(ImageDataGenerator().flow_from_directory(tmp_path, (4, 4)))
    theirs = OLD["Keras 3"]().flow_from_directory(str(tmp_path), (4, 4))
    assert ours.class_indices == {"a": 0, "b": 1}
    assert theirs.class_indices == {".ipynb_checkpoints": 0, "a": 1, "b": 2}


@pytest.mark.parametrize("follow", [False, True])
def test_links(tmp_path, folder, keep, follow):
    """A class may be a link; links inside are followed where that is asked for."""
    (tmp_path / "one").symlink_to(folder / "cat")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "ants").symlink_to(folder / "ant")
    (tmp_path / "two" / "z.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    arguments = {"target_size": SIZE, "shuffle": False, "follow_links": follow}
    assert_same(
        keep(ImageDataGenerator().flow_from_directory(tmp_path, **arguments)),
        OLD["Keras 3"]().flow_from_directory(str(tmp_path), **arguments),
    )


# ------------------------------------------------------------------------------- what normalises


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
        with pytest.raises(ValueError, match=r"call datagen.fit\(x\) with some pictures first"):
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


# ------------------------------------------------------------------------------------------- flow


def test_flow(old, keep):
    """Arrays, labels and weights; other inputs beside the pictures."""
    x = np.random.default_rng(0).integers(0, 256, (10, 3, 3, 1)).astype(np.uint8)
    y, w, table = np.arange(10), np.linspace(0, 1, 10), np.arange(20.0).reshape(10, 2)
    ours = keep(ImageDataGenerator().flow(x, y, 4, sample_weight=w))
    theirs = old().flow(x, y, 4, sample_weight=w, shuffle=False)
    for mine, yours in zip(everything(ours), all_of_theirs(theirs), strict=True):
        np.testing.assert_allclose(mine, yours)
    (first, second), labels = keep(ImageDataGenerator(rescale=2.0).flow((x, table), y, 10))[0]
    np.testing.assert_array_equal(first, 2.0 * x)
    np.testing.assert_array_equal(second, table)
    assert labels.tolist() == y.tolist()


def test_flow_wants_all_labels_in_both_parts():
    """As Keras does: labels that are sorted would leave a class out of the training."""
    x, y = np.zeros((4, 2, 2, 1)), np.array([0, 0, 1, 1])
    datagen = ImageDataGenerator(validation_split=0.5)
    with pytest.raises(ValueError, match="ignore_class_split=True"):
        datagen.flow(x, y, subset="training")
    loader = datagen.flow(x, y, subset="training", ignore_class_split=True)
    assert loader[0][1].tolist() == [1, 1]
    np.random.default_rng(3).shuffle(y)
    assert datagen.flow(x, np.array([0, 1, 0, 1]), subset="validation").samples == 2


# ----------------------------------------------------------------------------- flow_from_dataframe


@pytest.fixture
def table(folder):
    """A row for each picture, one of a file that is not there, and one that is no picture."""
    files = sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*.*") if p.suffix not in (".txt", ".md")
    )
    names = [Path(file).parts[0] for file in files]
    rows = np.arange(len(files))
    return pandas.DataFrame(
        {
            "filename": [*files, "missing.png"],
            "class": [*names, "cat"],
            "many": [[n, "all"] if n != "cat" else [n] for n in [*names, "cat"]],
            "two": [*("odd" if k % 2 else "even" for k in rows), "odd"],
            "a": np.arange(len(files) + 1, dtype=np.float32),
            "b": np.arange(len(files) + 1, dtype=np.float32) ** 2,
            "weight": np.linspace(0.5, 2, len(files) + 1),
        }
    )


@pytest.mark.parametrize(
    ("y_col", "class_mode", "more"),
    [
        ("class", "categorical", {}),
        ("class", "sparse", {"classes": ["cat", "ant"]}),
        ("many", "categorical", {}),
        ("many", "categorical", {"classes": ["all", "cat"]}),
        ("two", "binary", {}),
        ("a", "raw", {}),
        (["a", "b"], "raw", {}),
        ("class", "input", {}),
        ("class", None, {}),
        ("class", "categorical", {"weight_col": "weight"}),
    ],
)
@pytest.mark.parametrize("subset", [None, "training", "validation"])
def test_dataframes(folder, table, keep, y_col, class_mode, more, subset):
    """Rows, classes, labels, weights and parts are Keras'; files that are not there are left out."""
    arguments = {"y_col": y_col, "class_mode": class_mode, "target_size": SIZE, "shuffle": False}
    arguments |= {"subset": subset, **more}
    split = {"validation_split": 0.3}
    with pytest.warns(UserWarning, match="invalid image filename"):
        theirs = OLD["Keras 3"](**split).flow_from_dataframe(table, str(folder), **arguments)
    ours = keep(ImageDataGenerator(**split).flow_from_dataframe(table, folder, **arguments))
    assert ours.samples == theirs.samples
    assert ours.filenames == theirs.filenames
    assert ours.filepaths == theirs.filepaths
    if class_mode in ("categorical", "sparse", "binary"):
        assert ours.class_indices == theirs.class_indices
        assert ours.classes == theirs.classes
    if class_mode not in ("input", None):
        np.testing.assert_array_equal(
            np.asarray(ours.labels, object), np.asarray(theirs.labels, object)
        )
    for mine, yours in zip(everything(ours), all_of_theirs(theirs), strict=True):
        if yours is None:
            assert mine is None
        else:
            np.testing.assert_allclose(mine, yours)


def test_several_outputs_of_a_dataframe(folder, table, keep):
    """An array for each column: a tuple, where Keras has a list."""
    whole = table[:-1]
    arguments = {"y_col": ["a", "b"], "class_mode": "multi_output", "target_size": SIZE}
    loader = keep(ImageDataGenerator().flow_from_dataframe(whole, str(folder), **arguments))
    old = OLD["Keras 3"]().flow_from_dataframe(whole, str(folder), shuffle=False, **arguments)
    _, (a, b) = loader[0]
    _, (a_old, b_old) = old[0]
    np.testing.assert_array_equal(a, a_old)
    np.testing.assert_array_equal(b, b_old)
    assert [values.tolist() for values in loader.labels] == [v.tolist() for v in old.labels]


def test_dataframe_without_looking_at_files(folder, table):
    """validate_filenames=False takes every row, and a missing file is an error when it is read."""
    loader = ImageDataGenerator().flow_from_dataframe(
        table, folder, target_size=SIZE, validate_filenames=False, workers=0
    )
    assert loader.samples == len(table)
    with pytest.raises(kl.SampleError, match=r"missing\.png"):
        loader[len(loader) - 1]


def test_tables_that_are_no_pandas(folder, table, keep):
    """A dict of lists will do."""
    plain = {name: table[name].tolist() for name in ("filename", "class")}
    loader = keep(ImageDataGenerator().flow_from_dataframe(plain, folder, target_size=SIZE))
    assert loader.samples == len(table) - 1


# ------------------------------------------------------------------------------------ augmentation

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
    """A flow that would leave it out says so, and takes transform=None or a function."""
    datagen = ImageDataGenerator(**{name: DRAWING[name]})
    x = np.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match=rf"{name}=.*datagen.layers\(\) first.*transform=None"):
        datagen.flow(x)
    assert datagen.flow(x, transform=None)[0].max() == 0
    assert datagen.flow(x, transform=lambda x, y, rng: (x + 1, y))[0].max() == 1


def test_layers_name_what_is_missing(caplog):
    """Pixels and factors of brightness have no layer: what to write instead is said, and works."""
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


# ------------------------------------------------------------------ image_dataset_from_directory


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
    with pytest.raises(ValueError, match="one integer for each of 20 files"):
        image_dataset_from_directory(folder, labels=[1, 2])


# --------------------------------------------------------------------------------------- in a fit


@pytest.fixture
def numbered(tmp_path):
    """Pictures with their number in each pixel, in two classes."""
    for k in range(14):
        path = tmp_path / f"class {k % 2}" / f"{k:02}.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), picture_of(k)[..., ::-1])
    return tmp_path


def test_a_fit_gets_every_sample(numbered, keep):
    """Training files in fit, shuffled anew; validation files in order, whatever shuffle says."""
    datagen = ImageDataGenerator(validation_split=0.3, preprocessing_function=np.array)
    arguments = {"target_size": (4, 4), "class_mode": "sparse", "batch_size": 4, "seed": 1}
    train = keep(datagen.flow_from_directory(numbered, subset="training", **arguments))
    val = keep(datagen.flow_from_directory(numbered, subset="validation", **arguments))
    of_val, of_train = [0, 2, 1, 3], [4, 6, 8, 10, 12, 5, 7, 9, 11, 13]
    assert [int(Path(name).stem) for name in val.filenames] == of_val
    model, received = recording_model((4, 4, 3))
    model.fit(train, epochs=2, validation_data=val, verbose=0)
    trained = [number for batch in received.trained for number in batch]
    assert sorted(trained[:10]) == sorted(trained[10:]) == sorted(of_train)
    assert trained[:10] != trained[10:]
    assert [number for batch in received.inferred for number in batch] == of_val * 2
    received.clear()
    model.predict(train, verbose=0)
    assert [number for batch in received.inferred for number in batch] == of_train


def test_in_worker_processes(numbered, keep):
    """A loader with a preprocessing function goes to other processes."""
    loader = keep(
        ImageDataGenerator(preprocessing_function=np.negative).flow_from_directory(
            numbered, (4, 4), class_mode=None, processes=True, workers=1
        )
    )
    assert sorted(numbers_of(-everything(loader)[0])) == list(range(14))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda f: ImageDataGenerator(data_format="channels_first"), ValueError, "Permute"),
        (lambda f: ImageDataGenerator(validation_split=2), ValueError, "between 0 and 1"),
        (lambda f: ImageDataGenerator(zoom_range="x"), ValueError, "zoom_range='x'"),
        (lambda f: ImageDataGenerator(rescale=0.1, dtype="uint8"), ValueError, "cannot hold"),
        (lambda f: ImageDataGenerator().fit(np.zeros((2, 2))), ValueError, "has shape"),
        (
            lambda f: ImageDataGenerator().fit(np.zeros((1, 2, 2, 1)), augment=True),
            ValueError,
            r"datagen.layers\(\)\)\(x, training=True\)",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_directory(f, subset="training"),
            ValueError,
            "validation_split=0.2",
        ),
        (
            lambda f: ImageDataGenerator(validation_split=0.2).flow_from_directory(f, subset="x"),
            ValueError,
            "subset='x'",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_directory(f, interpolation="area"),
            ValueError,
            "'area' has no counterpart here: choose one of nearest, bilinear",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_directory(f, color_mode="bgr"),
            ValueError,
            "color_mode='bgr'",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_directory(f, class_mode="raw"),
            ValueError,
            "class_mode='raw'",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_directory(f, save_to_dir="x"),
            TypeError,
            "save_to_dir= has no counterpart",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_dataframe(
                {"filename": ["a"], "class": [1]}, validate_filenames=False
            ),
            TypeError,
            "row 0 of column 'class' holds 1.*class_mode=\"raw\"",
        ),
        (
            lambda f: image_dataset_from_directory(f, validation_split=0.2, subset="training"),
            ValueError,
            "needs seed=",
        ),
        (
            lambda f: image_dataset_from_directory(f, validation_split=0.2),
            ValueError,
            "give both, or neither",
        ),
        (
            lambda f: image_dataset_from_directory(f, interpolation="gaussian"),
            ValueError,
            "'gaussian' has no counterpart",
        ),
    ],
)
def test_what_is_refused(folder, call, error, said):
    """With what to do instead."""
    with pytest.raises(error, match=said):
        call(folder)
