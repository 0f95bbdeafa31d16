"""text_dataset_from_directory beside Keras' own: the same files, parts, labels and texts."""

import inspect

import numpy as np
import pytest

from kloaders.migrate import text_dataset_from_directory

N = 21


@pytest.fixture
def texts(tmp_path):
    """Files with their number at the beginning, in folders of three classes; one is empty."""
    for n in range(N):
        folder = tmp_path / "abc"[n % 3] / ("" if n % 4 else "deeper")
        folder.mkdir(exist_ok=True, parents=True)
        text = f"{n} müde Löwen\r\nund Ende\n" * (n % 5)
        (folder / f"{n:02}.txt").write_bytes(text.encode())
    (tmp_path / "a" / "notes.md").write_text("no text")
    return tmp_path


def plain(batch):
    """Parts of a batch, with texts as str."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    found = [np.asarray(part) for part in parts]
    found[0] = np.array([t.decode() if isinstance(t, bytes) else t for t in found[0]], object)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"shuffle": False, "label_mode": "categorical"},
        {"shuffle": False, "label_mode": None},
        {"shuffle": False, "labels": list(range(N))},
        {"shuffle": False, "class_names": ["c", "a", "b"]},
        {"shuffle": False, "label_mode": "binary", "class_names": ["c", "a"]},
        {"shuffle": False, "max_length": 3},
        {"shuffle": False, "batch_size": None},
        {"shuffle": False, "validation_split": 0.3, "subset": "training"},
        {"shuffle": False, "validation_split": 0.3, "subset": "validation"},
        {"seed": 5, "validation_split": 0.3, "subset": "both"},
        {},
    ],
    ids=str,
)
def test_batches_are_those_of_keras(texts, options):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    options = {"batch_size": 4, "verbose": False, **options}
    theirs = keras.utils.text_dataset_from_directory(texts, **options)
    ours = text_dataset_from_directory(texts, **options)
    if options.get("subset") != "both":
        theirs, ours = (theirs,), (ours,)
    for dataset, loader in zip(theirs, ours, strict=True):
        if options.get("label_mode", "int") is not None:
            assert loader.class_names == dataset.class_names
        alone = options["batch_size"] is None
        wanted = [plain(batch) for batch in (dataset.batch(1) if alone else dataset)]
        found = [plain(batch) for batch in loader.epoch_batches(0, shuffle=False)]
        if options.get("shuffle") is not False:  # another order, of the same files
            wanted, found = ([in_order(batches)] for batches in (wanted, found))
        for one, other in zip(found, wanted, strict=True):
            assert len(one) == len(other)
            for mine, yours in zip(one, other, strict=True):
                assert mine.dtype == yours.dtype
                assert mine.tolist() == yours.tolist()


def in_order(batches):
    x, *y = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    order = np.argsort([f"{t}{label}" for t, label in zip(x, y[0], strict=True)])
    return [part[order] for part in (x, *y)]


def test_arguments_and_defaults_are_those_of_keras():
    keras = pytest.importorskip("keras")
    if not hasattr(keras.utils, "text_dataset_from_directory"):
        pytest.skip("no such function in this Keras")
    own = inspect.signature(text_dataset_from_directory).parameters
    for name, theirs in inspect.signature(
        keras.utils.text_dataset_from_directory
    ).parameters.items():
        assert own[name].default == theirs.default, name


def test_what_has_no_counterpart_is_named(texts, tmp_path):
    for options, words in [
        ({"format": "torch"}, "`format` should be"),
        ({"label_mode": "words"}, "label_mode='words' is not known"),
        ({"validation_split": 0.2}, "pass both, or neither"),
        (
            {"labels": "other"},
            "labels='other', expected \"inferred\", None, or one number for each",
        ),
        ({"max_length": 0}, "max_length=0 is too small"),
    ]:
        with pytest.raises(ValueError, match=words):
            text_dataset_from_directory(texts, **options)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no files that end in \.txt"):
        text_dataset_from_directory(tmp_path / "empty")
