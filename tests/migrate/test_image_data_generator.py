"""The flows of ImageDataGenerator beside Keras' own: same files, classes, labels and images."""

import inspect
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.migrate import ImageDataGenerator, image_dataset_from_directory
from tests.support.keras_images import (
    OLD,
    SIZE,
    all_of_theirs,
    as_text,
    assert_same,
    everything,
)
from tests.support.recording import numbers_of, picture_of, recording_model

# ---------------------------------------------------------------------------- flow_from_directory


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input", None])
def test_class_modes(folder, old, keep, class_mode):
    """Class indices, the order of files, labels and pictures are Keras'."""
    arguments = (folder, SIZE, "rgb", None, class_mode, 8, False)
    assert_same(
        keep(ImageDataGenerator().flow_from_directory(*arguments)),
        old().flow_from_directory(*map(as_text, arguments)),
    )


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
    return pd.DataFrame(
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


@pytest.mark.parametrize("name", ["flow", "flow_from_directory", "flow_from_dataframe", "__init__"])
def test_keras_arguments_are_taken(name):
    """All of them, in Keras' order, with Keras' defaults but for shuffle."""
    theirs = inspect.signature(getattr(OLD["Keras 3"], name)).parameters
    ours = inspect.signature(getattr(ImageDataGenerator, name)).parameters
    names = [name for name, p in theirs.items() if p.kind is not p.VAR_KEYWORD]
    assert list(ours)[: len(names)] == names
    other = {name for name in names if ours[name].default != theirs[name].default}
    assert other <= {"shuffle"}


def test_keras_defaults_may_be_given(folder, keep):
    """By position, too, as far as Keras' own calls go."""
    saving = (None, "", "png")
    x = np.zeros((4, 2, 2, 3))
    flow = keep(ImageDataGenerator().flow(x, None, 2, True, None, None, *saving, False, None))
    assert (flow.batch_size, flow.shuffle) == (2, True)
    files = keep(
        ImageDataGenerator().flow_from_directory(
            folder, SIZE, "rgb", None, "sparse", 5, True, 3, *saving, False, None, "nearest", False
        )
    )
    assert (files.batch_size, files.seed, files.class_mode) == (5, 3, "sparse")


@pytest.mark.parametrize("name", ["has_ext", "sort", "drop_duplicates"])
def test_what_keras_ignores_is_ignored_aloud(folder, table, keep, caplog, name):
    with caplog.at_level("INFO", "kloaders"):
        keep(
            ImageDataGenerator().flow_from_dataframe(
                table, folder, target_size=SIZE, **{name: True}
            )
        )
    assert f"{name}=True has no effect, as in Keras" in caplog.text


def test_attributes_of_the_generator(old):
    """Each that Keras' class has, with its value."""
    options = {"rotation_range": 5, "brightness_range": [0.5, 1.5], "cval": 2.0, "rescale": 0.5}
    ours, theirs = ImageDataGenerator(**options), old(**options)
    for name, value in vars(theirs).items():
        if not name.startswith("_"):
            assert getattr(ours, name) == value, name


@pytest.mark.parametrize("name", ["random_transform", "get_random_transform", "apply_transform"])
def test_methods_that_draw_name_the_layers(name):
    with pytest.raises(AttributeError, match=rf"no attribute {name}: .*datagen.layers\(\)"):
        getattr(ImageDataGenerator(), name)
    assert not hasattr(ImageDataGenerator(), "nothing")


def test_rows_of_other_lengths_are_refused():
    """A part of them might fit, with the labels of other images."""
    x, datagen = np.zeros((10, 2, 2, 3)), ImageDataGenerator(validation_split=0.2)
    for options in ({"y": np.zeros(12)}, {"sample_weight": np.zeros(9)}):
        with pytest.raises(
            ValueError, match=r"lengths differ: \w+ has \d+ rows, but there are 10 images"
        ):
            datagen.flow(x, subset="validation", **options)
    with pytest.raises(ValueError, match="another input in x has 3 rows"):
        datagen.flow((x, np.zeros((3, 2))))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda f: ImageDataGenerator(data_format="channels_first"), ValueError, "Permute"),
        (lambda f: ImageDataGenerator(validation_split=2), ValueError, "between 0 and 1"),
        (
            lambda f: ImageDataGenerator(zoom_range="x"),
            ValueError,
            "zoom_range='x', expected a number or two",
        ),
        (lambda f: ImageDataGenerator(zoom_range=("a", "b")), ValueError, "zoom_range="),
        (
            lambda f: ImageDataGenerator(brightness_range=0.5),
            ValueError,
            r"brightness_range=0.5, expected two numbers, as in brightness_range=\(0.8, 1.2\)",
        ),
        (lambda f: ImageDataGenerator(brightness_range=[1, 2, 3]), ValueError, "two numbers"),
        (lambda f: ImageDataGenerator(brightness_range=("a", 1)), ValueError, "two numbers"),
        (lambda f: ImageDataGenerator(rescale=0.1, dtype="uint8"), ValueError, "cannot represent"),
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
            "'area' is not supported: choose one of nearest, bilinear",
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
            "save_to_dir= is not supported",
        ),
        (
            lambda f: ImageDataGenerator().flow_from_dataframe(
                {"filename": ["a"], "class": [1]}, validate_filenames=False
            ),
            TypeError,
            "row 0 of column 'class' has 1.*class_mode=\"raw\"",
        ),
        (
            lambda f: image_dataset_from_directory(f, validation_split=0.2, subset="training"),
            ValueError,
            "needs seed=",
        ),
        (
            lambda f: image_dataset_from_directory(f, validation_split=0.2),
            ValueError,
            "pass both, or neither",
        ),
        (
            lambda f: image_dataset_from_directory(f, interpolation="gaussian"),
            ValueError,
            "'gaussian' is not supported",
        ),
    ],
)
def test_what_is_refused(folder, call, error, said):
    """With what to do instead."""
    with pytest.raises(error, match=said):
        call(folder)
