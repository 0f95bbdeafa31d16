"""Bad input: a message names the thing, its value, what was expected, and what to do.

Where a message gives advice, the test follows it and sees it work.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl

SAMPLES, BATCH = 12, 4

Make = Callable[..., Any]


@contextlib.contextmanager
def refused(kind: type[BaseException], *words: str) -> Iterator[None]:
    """The block raises `kind`, and its message holds each of `words`."""
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value)
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in the message: {said}"


# ---------------------------------------------------------------- one loader of each kind


class Own(kl.SequenceLoader):
    """A user's own source of one number a sample."""

    def load_sample(self, index: int) -> Any:
        return np.float32([index]), np.float32(index)


class Files:
    """Twelve arrays of three numbers; four pictures of 4 x 4 and 5 x 4 pixels, in turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.npy = [str(folder / f"{k:02}.npy") for k in range(SAMPLES)]
        for k, path in enumerate(self.npy):
            np.save(path, np.full(3, k, np.float32))
        self.own = [str(folder / f"{k:02}.own") for k in range(SAMPLES)]
        for k, path in enumerate(self.own):
            Path(path).write_bytes(b"." * (k + 1))
        self.png = [str(folder / f"{k:02}.png") for k in range(4)]
        for k, path in enumerate(self.png):
            cv2.imwrite(path, np.full((4 + k % 2, 4, 3), k, np.uint8))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def labels(n: int = SAMPLES) -> Any:
    return np.arange(n, dtype=np.float32)


def array(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    y = options.pop("y", labels())
    return kl.ArraySequenceLoader(np.arange(12.0).reshape(12, 1), y, batch_size, **options)


def over_path(paths: Any, y: Any = None, batch_size: Any = BATCH, **options: Any) -> Any:
    return kl.PathSequenceLoader(paths, y, batch_size, **options)


def over_ram(paths: Any, y: Any = None, batch_size: Any = BATCH, **options: Any) -> Any:
    if "ram_budget" not in options:
        options.setdefault("ram_batch_size", 8)
    return kl.RamBatchSequenceLoader(paths, y, batch_size, **options)


def path(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return over_path(files.npy, options.pop("y", labels()), batch_size, **options)


def ram(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return over_ram(files.npy, options.pop("y", labels()), batch_size, **options)


def own(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return Own(SAMPLES, batch_size, **options)


EVERY = pytest.mark.parametrize("make", [array, path, ram, own])
WITH_LABELS = pytest.mark.parametrize("make", [array, path, ram])
# Loaders over files, made from any paths and labels.
OVER_FILES = pytest.mark.parametrize("over", [over_path, over_ram])


def read(loader: Any) -> list[Any]:
    """One epoch, as in a hand-written training loop."""
    with loader:
        loader.on_epoch_begin()
        batches = [loader[k] for k in range(len(loader))]
        loader.on_epoch_end()
    return batches


def numbers(loader: Any) -> list[int]:
    """The labels of one epoch, which are the samples' numbers, in order."""
    return sorted(int(y) for batch in read(loader) for y in batch[1])


@lru_cache
def model() -> Any:
    """Takes batches of three numbers."""
    found = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    found.compile("sgd", "mse")
    return found


def weeks(n: int = SAMPLES) -> Any:
    return np.arange(n).astype("datetime64[W]")


# ---------------------------------------------------------------- how much data


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: kl.ArraySequenceLoader([]), ["ArraySequenceLoader", "len(x)"]),
        (lambda: kl.ArraySequenceLoader(np.zeros((0, 3))), ["ArraySequenceLoader", "len(x)"]),
        (lambda: kl.PathSequenceLoader([]), ["PathSequenceLoader", "len(paths)"]),
        (lambda: kl.PathSequenceLoader([], []), ["PathSequenceLoader", "len(paths)"]),
        (lambda: kl.RamBatchSequenceLoader([]), ["RamBatchSequenceLoader", "len(paths)"]),
        (lambda: Own(0), ["Own"]),
    ],
    ids=["list", "array", "paths", "paths and labels", "ram", "own"],
)
def test_no_samples(make: Make, words: list[str]) -> None:
    """An empty data set is refused by the loader's name, with what to look at."""
    with refused(ValueError, "no samples", *words):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda files: kl.ArraySequenceLoader(()), "x"),
        (lambda files: kl.ArraySequenceLoader({}, labels()), "x"),
        (lambda files: kl.PathSequenceLoader({}), "paths"),
        (lambda files: kl.PathSequenceLoader((), labels()), "paths"),
        (lambda files: kl.ArraySequenceLoader(labels(), ()), "y"),
        (lambda files: kl.PathSequenceLoader(files.npy, {}), "labels"),
    ],
    ids=["x", "x with y", "paths", "paths with labels", "y", "labels"],
)
def test_a_tuple_or_dict_without_arrays(files: Files, make: Make, name: str) -> None:
    """A tuple or dict that holds nothing is refused, and not taken for no samples or no labels."""
    with refused(ValueError, name, "empty", "at least one"):
        make(files)


def test_lengths_differ(files: Files) -> None:
    """Both lengths are named, by the arguments' own names."""
    with refused(ValueError, "x has 12", "y has 5"):
        array(files, y=labels(5))
    for make in (path, ram):
        with refused(ValueError, "paths has 12", "labels has 5"):
            make(files, y=labels(5))


def test_lengths_differ_inside_a_dict(files: Files) -> None:
    """Of several inputs or labels the one at fault is named, by its key."""
    with refused(ValueError, "image", "12", "depth", "4"):
        kl.ArraySequenceLoader({"image": labels(), "depth": labels(4)}, labels())
    with refused(ValueError, "image", "12", "depth", "4"):
        kl.PathSequenceLoader({"image": files.npy, "depth": files.npy[:4]})
    with refused(ValueError, "box", "3", "12"):
        kl.PathSequenceLoader(files.npy, {"class": labels(), "box": labels(3)})


@EVERY
def test_sample_weights_of_another_length(files: Files, make: Make) -> None:
    """sample_weights must be one for each sample: its shape and the number wanted are named."""
    with refused(ValueError, "sample_weights", "(3,)", "12 samples"):
        make(files, sample_weights=np.ones(3))
    with refused(ValueError, "sample_weights", "()", "12 samples"):
        make(files, sample_weights=1.0)
    assert len(read(make(files, sample_weights=np.ones(12)))[0]) == 3


@pytest.mark.parametrize("weights", [["a"] * 12, {"a": np.ones(12)}, [None] * 12, [[1], [2, 3]]])
def test_sample_weights_that_are_no_numbers(files: Files, weights: Any) -> None:
    """What cannot be a weight is refused by the option's name, not by NumPy."""
    with refused((ValueError, TypeError), "sample_weights", "number"):
        array(files, sample_weights=weights)


# ---------------------------------------------------------------- paths


@OVER_FILES
def test_a_path_that_does_not_exist(files: Files, over: Make, monkeypatch: Any) -> None:
    """It is named before anything is trained, with how many others, and where it was looked for."""
    monkeypatch.chdir(files.folder)
    with refused(FileNotFoundError, "gone.npy", "does not exist", str(files.folder)):
        over([*files.npy, "gone.npy"])
    with refused(FileNotFoundError, "gone0.npy", "6 others", "19 looked at"):
        over([*files.npy, *(f"gone{k}.npy" for k in range(7))])
    # The advice: relative paths start at the current folder.
    assert over([Path(file).name for file in files.npy]).samples == SAMPLES


def test_a_missing_label_file(files: Files) -> None:
    """Files of labels, masks for example, are looked for as well."""
    with refused(FileNotFoundError, "gone.npy", "does not exist"):
        kl.PathSequenceLoader(files.npy[:2], [files.npy[0], str(files.folder / "gone.npy")])


def test_of_many_paths_some_are_looked_at(files: Files) -> None:
    """The check up front costs a bounded number of looks; True looks at all paths."""
    many = [*files.npy * 500, *("gone.npy" for _ in range(6000))]
    with refused(FileNotFoundError, "gone.npy", "2,000 looked at of 12,000"):
        kl.PathSequenceLoader(many)
    few = [*files.npy * 500, "gone.npy", *files.npy * 500]
    with refused(FileNotFoundError, "gone.npy", "12,001 looked at"):
        kl.PathSequenceLoader(few, check_paths=True)


@OVER_FILES
def test_the_check_of_paths_is_optional(files: Files, over: Make) -> None:
    """check_paths=False looks at none; the file is then named when its turn comes."""
    gone = str(files.folder / "gone.npy")
    with refused(FileNotFoundError, "check_paths=False"):
        over([*files.npy, gone], labels(13), BATCH)
    loader = over([*files.npy, gone], labels(13), BATCH, check_paths=False, shuffle=False)
    with refused(kl.SampleError, "sample 12", gone, "No such file"):
        read(loader)


def test_check_paths_of_another_kind(files: Files) -> None:
    """check_paths names its choices."""
    with refused(ValueError, "check_paths='all'", '"sample"', "True", "False"):
        kl.PathSequenceLoader(files.npy, check_paths="all")


@OVER_FILES
@pytest.mark.parametrize("name", ["folder", "folder.npy", "folder.d"])
def test_a_folder_among_the_paths(files: Files, over: Make, name: str) -> None:
    """It is named as a folder, whatever it is called; listing its files, as advised, works."""
    folder = files.folder / name
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros(3, np.float32))
    with refused(IsADirectoryError, str(folder), "folder", "list its files", "from_directory"):
        over([*files.npy, str(folder)])
    assert over([*files.npy, *map(str, folder.iterdir())]).samples == SAMPLES + 1
    train, _ = kl.from_directory(files.folder, validation=None)  # a folder of the class's name
    assert train.samples == 1


def test_a_folder_met_while_reading(files: Files) -> None:
    """Without the check up front a folder is named when its turn comes."""
    folder = files.folder / "folder.npy"
    folder.mkdir()
    loader = kl.PathSequenceLoader([*files.npy, str(folder)], check_paths=False)
    with refused(kl.SampleError, "sample 12", str(folder), "directory"):
        read(loader)


@pytest.mark.parametrize("given_as", [str, Path])
def test_one_path_instead_of_a_list(files: Files, given_as: Make) -> None:
    """A lone path is not taken for a list of its letters: it is named, and [path] advised."""
    with refused(TypeError, "paths", files.npy[0], "list"):
        kl.PathSequenceLoader(given_as(files.npy[0]))


@OVER_FILES
def test_a_suffix_without_a_decoder(files: Files, over: Make) -> None:
    """The message names the suffixes known and both hooks, and both hooks work."""
    raw = [str(files.folder / f"{k}.raw") for k in range(8)]
    for k, file in enumerate(raw):
        np.full(3, k, "<f4").tofile(file)
    words = ["0.raw", "'.raw'", ".jpg", ".png", ".npy", "decode=", "load_sample(path)"]
    with refused(ValueError, *words):
        over(raw)

    loader = over(raw, np.arange(8), BATCH, decode=lambda content: np.frombuffer(content, "<f4"))
    assert all((x[:, 0] == y).all() for x, y in read(loader))

    class RawLoader(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            return np.fromfile(path, "<f4")

    assert all((x[:, 0] == y).all() for x, y in read(RawLoader(raw, np.arange(8), BATCH)))


def test_no_suffix_at_all(files: Files) -> None:
    """A file without a suffix is refused in the same words."""
    plain = files.folder / "plain"
    plain.write_bytes(b"1")
    with refused(ValueError, str(plain), "no suffix", ".png", "decode=", "load_sample(path)"):
        kl.PathSequenceLoader([str(plain)])


@pytest.mark.parametrize("bad", [3, None, np.zeros(2), ["a.npy"]], ids=type)
@pytest.mark.parametrize("place", [0, 3])
def test_something_else_among_the_paths(files: Files, bad: Any, place: int) -> None:
    """What is no path is named with its position and type."""
    mixed = [*files.npy[:place], bad, *files.npy[place:]]
    with refused(TypeError, f"paths[{place}]", type(bad).__name__, "str or pathlib.Path"):
        kl.PathSequenceLoader(mixed)


def test_something_else_among_the_label_paths(files: Files) -> None:
    """The argument at fault is named: labels, not paths."""
    with refused(TypeError, "labels[1]", "3", "int"):
        kl.PathSequenceLoader(files.npy[:2], [files.npy[0], 3])


def test_a_path_with_a_nul_character() -> None:
    """No file name holds a NUL: the path is shown as it is."""
    with refused(ValueError, "'a\\x00.npy'", "NUL"):
        kl.PathSequenceLoader(["a\0.npy"], check_paths=False)


def test_arrays_for_a_path_loader(files: Files) -> None:
    """Arrays given as paths: the message names the loader for arrays, and it takes them."""
    for x in (np.zeros((12, 3)), [np.zeros(3)] * 12, {"a": np.zeros(12)}, [1, 2, 3]):
        with refused(TypeError, "paths", "str or pathlib.Path", "ArraySequenceLoader"):
            kl.PathSequenceLoader(x)
        assert kl.ArraySequenceLoader(x).samples in (3, 12)


@pytest.mark.parametrize("given_as", [list, np.array, lambda p: list(map(Path, p))])
def test_paths_for_an_array_loader(files: Files, given_as: Make) -> None:
    """Paths given as arrays: the message shows one and names the loader for files."""
    x = given_as(files.npy)
    with refused(TypeError, "x ", files.npy[0], "PathSequenceLoader"):
        kl.ArraySequenceLoader(x)
    assert kl.PathSequenceLoader(x).samples == SAMPLES


# ---------------------------------------------------------------- the content of files


def cut_png(file: str) -> None:
    whole = cv2.imencode(".png", np.zeros((30, 30, 3), np.uint8))[1].tobytes()
    Path(file).write_bytes(whole[: len(whole) // 2])


def text(file: str) -> None:
    Path(file).write_bytes(b"<html>404</html>")


def nothing(file: str) -> None:
    Path(file).write_bytes(b"")


def pickled(file: str) -> None:
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)


BROKEN = pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (cut_png, "bad.png", ["truncated", "leave it out"]),
        (text, "bad.jpg", ["no picture", "decode="]),
        (text, "bad.npy", ["no .npy file", "load_sample(path)"]),
        (nothing, "bad.npy", ["empty", "leave it out"]),
        (pickled, "bad.npy", ["Python objects", "never unpickled", "np.save(path, np.asarray("]),
    ],
    ids=["cut png", "text as jpg", "text as npy", "empty", "pickle"],
)


@OVER_FILES
@BROKEN
def test_a_file_that_does_not_decode(
    files: Files, over: Make, spoil: Make, name: str, words: list[str]
) -> None:
    """The sample's number, its file, what is wrong and what to do are named."""
    bad = str(files.folder / name)
    spoil(bad)
    paths = [*files.npy[:10], bad, *files.npy[10:]]
    with refused(kl.SampleError, "sample 10", bad, *words):
        read(over(paths, labels(13), BATCH))
    # The advice, each of two ways to leave it out:
    assert numbers(over(files.npy, labels(12), BATCH)) == list(range(12))
    loader = over(paths, labels(13), BATCH, on_error="skip")
    assert numbers(loader) == [k for k in range(13) if k != 10]
    assert [(error.index, error.name) for error in loader.errors] == [(10, bad)]


def test_a_sample_error_tells_its_parts(files: Files) -> None:
    """Number, name and cause can be read from the error, and the cause is chained."""
    bad = str(files.folder / "bad.npy")
    text(bad)
    with pytest.raises(kl.SampleError) as caught:
        read(kl.PathSequenceLoader([*files.npy, bad]))
    error = caught.value
    assert (error.index, error.name) == (12, bad)
    assert "no .npy file" in error.cause
    assert isinstance(error.__cause__, kl.DecodeError)


class _Variable:
    """Something in a variable of a function that an error went through."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("policy", ["skip", "replace", "raise"])
def test_kept_errors_hold_nothing_but_words(policy: str, workers: int) -> None:
    """No batch that was being made, no variable of a hook, nor of whoever asked for the batch.

    A night with thousands of bad files would otherwise end in the OOM killer.
    """
    variables: list[weakref.ref[_Variable]] = []

    def variable() -> _Variable:
        new = _Variable()
        variables.append(weakref.ref(new))
        return new

    class Broken(Own):
        def load_sample(self, index: int) -> Any:
            mine = variable()
            if index in (3, 7):
                try:
                    raise KeyError(index)
                except KeyError:
                    raise LookupError(f"{mine} has no {index}") from None
            return super().load_sample(index)

    loader = Broken(SAMPLES, BATCH, workers=workers, on_error=policy)

    def ask() -> None:
        mine = variable()
        for k in range(len(loader)):
            with contextlib.suppress(kl.SampleError):
                loader[k]
        del mine

    loader[0] if policy != "raise" else None
    gc.collect()
    gc.disable()  # not even until a collection
    try:
        ask()
        loader.close()
        if policy == "raise":  # Python's own: an error that is raised holds what raised it
            gc.collect()
        assert [error.index for error in loader.errors] == [3, 7]
        assert len(variables) > SAMPLES
        assert not [found for found in variables if found() is not None]
    finally:
        gc.enable()
    if policy != "raise":
        assert isinstance(loader.errors[0].__cause__, LookupError)


@OVER_FILES
@pytest.mark.parametrize("how", ["fit", "evaluate", "predict"])
def test_a_broken_file_under_keras(files: Files, over: Make, how: str) -> None:
    """Keras' own error still says which file it was, also when it is the last of all."""
    bad = str(files.folder / "bad.npy")
    text(bad)
    loader = over([*files.npy, bad], labels(13), BATCH)
    with loader, refused(Exception, "sample 12", bad, "no .npy file"):
        getattr(model(), how)(loader, verbose=0)
    model.cache_clear()  # on JAX a failed step takes the weights with it
    gc.collect()  # ends what TensorFlow still holds of the failed pass


def test_a_pickle_saved_as_advised(files: Files) -> None:
    """np.save(path, np.asarray(x, dtype=np.float32)), as the message says, makes a file of it."""
    bad = str(files.folder / "bad.npy")
    np.save(bad, np.array([1, 2, 3], object), allow_pickle=True)
    with refused(kl.SampleError, "np.save(path, np.asarray(x, dtype=np.float32))"):
        read(kl.PathSequenceLoader([bad]))
    x = np.load(bad, allow_pickle=True)
    np.save(bad, np.asarray(x, dtype=np.float32))
    assert read(kl.PathSequenceLoader([bad]))[0].tolist() == [[1, 2, 3]]


@OVER_FILES
def test_an_image_beyond_the_pixel_bound(files: Files, over: Make) -> None:
    """Size, pixels and bound are named; the number advised is just enough."""
    with refused(kl.SampleError, files.png[1], "5 x 4", "20 pixels", "16", "max_pixels=20"):
        read(over(files.png, labels(4), 4, size=(4, 4), max_pixels=16))
    assert numbers(over(files.png, labels(4), 4, size=(4, 4), max_pixels=20)) == [0, 1, 2, 3]
    assert numbers(over(files.png, labels(4), 4, size=(4, 4), max_pixels=16, on_error="skip")) == [
        0,
        2,
    ]


def test_the_pixel_bound_holds_for_masks(files: Files) -> None:
    """A label that is a picture is bounded as the inputs are."""
    with refused(kl.SampleError, files.png[0], "max_pixels=16"):
        read(kl.PathSequenceLoader(files.npy[:4], files.png, size=(4, 4), max_pixels=15))


# ---------------------------------------------------------------- samples that differ


@OVER_FILES
def test_pictures_of_different_size(files: Files, over: Make) -> None:
    """Both files and both shapes are named, and either advice works."""
    words = [*files.png[:2], "(5, 4, 3)", "(4, 4, 3)", "size=(height, width)", "load_sample()"]
    with refused(ValueError, *words):
        read(over(files.png, labels(4), 4, shuffle=False))
    assert numbers(over(files.png, labels(4), 4, size=(4, 4))) == [0, 1, 2, 3]

    class Resized(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            return cv2.resize(super().load_sample(path), (4, 4))

    assert numbers(Resized(files.png, labels(4), 4)) == [0, 1, 2, 3]


@OVER_FILES
@pytest.mark.parametrize("decode", [None, lambda content: np.zeros(len(content))])
def test_arrays_of_different_shape(files: Files, over: Make, decode: Any) -> None:
    """For arrays and for decode= no `size=` is advised, which would change nothing."""
    np.save(files.npy[1], np.zeros(4, np.float32))
    with pytest.raises(ValueError) as caught:
        read(over(files.npy, labels(), BATCH, decode=decode, shuffle=False))
    said = str(caught.value)
    assert files.npy[0] in said
    assert files.npy[1] in said
    assert "size=(" not in said
    assert "decode=" in said if decode else "load_sample" in said
    assert over is over_path or "batch_size=1" not in said  # a RAM batch has one shape


def test_pictures_of_different_depth(files: Files) -> None:
    """8 and 16 bits in one batch: both are named, and dtype= works as advised."""
    cv2.imwrite(files.png[1], np.full((4, 4, 3), 1, np.uint16))
    words = [*files.png[:2], "uint16", "uint8", "dtype="]
    with refused(ValueError, *words):
        read(kl.PathSequenceLoader(files.png[:2], labels(2)))
    assert numbers(kl.PathSequenceLoader(files.png[:2], labels(2), dtype="float32")) == [0, 1]


def test_arrays_in_a_list_of_different_shape() -> None:
    """Rows and shapes are named; padding and batches of one work as advised."""
    x = [np.ones(2), np.ones(3)]
    with refused(ValueError, "row 1", "row 0", "(3,)", "(2,)", "Pad", "batch_size=1"):
        read(kl.ArraySequenceLoader(x, labels(2)))
    assert [b[0].shape for b in read(kl.ArraySequenceLoader(x, labels(2), 1))] == [(1, 2), (1, 3)]
    assert numbers(kl.ArraySequenceLoader([np.resize(a, 3) for a in x], labels(2))) == [0, 1]


def test_arrays_in_a_list_of_different_dtype() -> None:
    """Of equal shape and different dtype: one dtype is advised, and no padding."""
    x = [np.ones(2, np.float32), np.ones(2, np.int64)]
    with pytest.raises(ValueError) as caught:
        read(kl.ArraySequenceLoader(x, labels(2)))
    said = str(caught.value)
    assert "int64" in said
    assert "float32" in said
    assert "dtype=" in said
    assert "Pad" not in said
    assert numbers(kl.ArraySequenceLoader(x, labels(2), dtype="float32")) == [0, 1]


def test_samples_of_a_hook_of_different_shape() -> None:
    """A user's own loader is told the sample numbers; transform= mends it as advised."""

    class Ragged(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.ones(index + 1, np.float32), np.float32(index)

    with refused(ValueError, "index 1", "index 0", "(2,)", "(1,)", "transform=", "batch_size=1"):
        read(Ragged(2))
    assert numbers(Ragged(2, transform=lambda x, y, rng: (np.resize(x, 3), y))) == [0, 1]
    assert numbers(Ragged(2, batch_size=1)) == [0, 1]


# ---------------------------------------------------------------- labels


def made_with(y: Any) -> Any:
    return kl.ArraySequenceLoader(np.zeros((len(y), 2)), y, 3)


@pytest.mark.parametrize(
    "given_as",
    [list, tuple, np.array, lambda y: np.array(y, object), lambda y: np.array(y, "S")],
    ids=["list", "tuple", "str array", "object array", "bytes array"],
)
def test_text_labels(given_as: Make) -> None:
    """The message shows one and gives a line that encodes them; the line works."""
    labels = given_as(["dog", "cat", "dog"])
    line = "names, labels = np.unique(labels, return_inverse=True)"
    with refused(ValueError, "labels", "'dog'", "expected numbers", line):
        made_with(labels)
    found: dict[str, Any] = {"np": np, "labels": labels}
    exec(line, found)
    assert read(made_with(found["labels"]))[0][1].tolist() == [1, 0, 1]
    assert [str(np.asarray(n).astype(str)) for n in found["names"]] == ["cat", "dog"]


def test_text_labels_from_pandas() -> None:
    """A column of a table is told in the same words."""
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(["dog", "cat"])
    with refused(ValueError, "'dog'", "np.unique(labels, return_inverse=True)"):
        made_with(column)
    with refused(ValueError, "'dog'", "np.unique(labels, return_inverse=True)"):
        made_with(column.astype("category"))
    assert read(made_with(np.unique(column, return_inverse=True)[1]))[0][1].tolist() == [1, 0]


def test_text_labels_for_files(files: Files) -> None:
    """Loaders over files say the same, and the helpers that the message names do it."""
    text_labels = ["dog", "cat"]
    with refused(ValueError, "'dog'", "from_directory()", "from_dataframe()"):
        kl.PathSequenceLoader(files.npy[:2], text_labels)
    frame = {"file": files.npy[:2], "kind": text_labels}
    train, _ = kl.from_dataframe(frame, "file", "kind", validation=None)
    assert read(train)[0][1].tolist() == [1, 0]
    for kind in text_labels:
        (files.folder / "all" / kind).mkdir(parents=True)
        np.save(files.folder / "all" / kind / "a.npy", np.zeros(3))
    train, _ = kl.from_directory(files.folder / "all", validation=None)
    assert train.class_names == ["cat", "dog"]
    assert read(train)[0][1].tolist() == [0, 1]


def test_text_labels_in_a_dict(files: Files) -> None:
    """One text among several labels is found."""
    with refused(ValueError, "labels", "'dog'", "np.unique"):
        kl.PathSequenceLoader(files.npy[:2], {"age": [1, 2], "kind": ["dog", "cat"]})


def test_a_labels_function_that_gives_text(files: Files) -> None:
    """The file and the text are named; names.index(...), as advised, works."""
    names = [Path(file).stem for file in files.npy]
    with refused(kl.SampleError, files.npy[0], "'00'", "expected numbers", "names.index("):
        read(kl.PathSequenceLoader(files.npy, lambda path: Path(path).stem))
    assert numbers(
        kl.PathSequenceLoader(files.npy, lambda path: names.index(Path(path).stem))
    ) == list(range(SAMPLES))


# ---------------------------------------------------------------- arrays


@WITH_LABELS
@pytest.mark.parametrize("what", ["generator", "map", "number", "None in a list"])
def test_labels_without_a_length(files: Files, make: Make, what: str) -> None:
    """What has no length, or no number in it, is refused by name and type."""
    y = {
        "generator": (k for k in range(12)),
        "map": map(float, range(12)),
        "number": 5,
        "None in a list": [None] * 12,
    }[what]
    words = ["labels[0] is None"] if what == "None in a list" else [type(y).__name__, "length"]
    with refused(TypeError, "labels", *words):
        make(files, y=y)


def test_a_generator_as_data(files: Files) -> None:
    """A generator is named as one, and list(x) makes data of it as advised."""
    with refused(TypeError, "x is a generator", "length", "list(x)"):
        kl.ArraySequenceLoader(k for k in range(3))
    x = (k for k in range(3))
    assert read(kl.ArraySequenceLoader(list(x)))[0].tolist() == [0, 1, 2]
    with refused(TypeError, "paths is a generator", "length", "list(paths)"):
        kl.PathSequenceLoader(file for file in files.npy)
    paths = (file for file in files.npy)
    assert kl.PathSequenceLoader(list(paths)).samples == SAMPLES
    with refused(TypeError, "paths", "NoneType", "length"):
        kl.PathSequenceLoader(None)


def test_a_single_number_as_data() -> None:
    """An array without axes has no samples in it."""
    with refused(ValueError, "x is the single number 3", "one value a sample"):
        kl.ArraySequenceLoader(np.array(3))


def test_object_arrays() -> None:
    """dtype object is refused, and np.stack, as advised, makes numbers of it."""
    x = np.empty(3, object)
    x[:] = [np.ones(2), np.ones(2), np.ones(2)]
    with refused(TypeError, "x has dtype object", "numbers", "np.stack(x)"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(np.stack(x)))[0].shape == (3, 2)
    assert read(kl.ArraySequenceLoader(list(x)))[0].shape == (
        3,
        2,
    )  # "one array a sample in a list"
    with refused(TypeError, "labels has dtype object", "np.stack(labels)"):
        kl.ArraySequenceLoader(np.zeros(3), x)


def test_a_ragged_list() -> None:
    """Lists of different lengths: an array for each, as advised, makes batches of equal shapes."""
    x = [[1, 2], [3]]
    with refused(ValueError, "x is a list", "different lengths", "np.asarray(v) for v in x"):
        kl.ArraySequenceLoader(x)
    loader = kl.ArraySequenceLoader([np.asarray(v) for v in x], batch_size=1)
    assert [batch.tolist() for batch in read(loader)] == [[[1, 2]], [[3]]]


@pytest.mark.parametrize(
    "second", [[3, 4], "text", None, np.array(["a", "b"]), np.array([1, None]), weeks(2)], ids=type
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_list_of_arrays_and_something_else(second: Any, place: int) -> None:
    """Of a list of arrays the entry that is none, or holds no numbers, is named."""
    x = [np.ones(2), np.ones(2)]
    x.insert(place, second)
    if isinstance(second, list) and place == 0:
        assert kl.ArraySequenceLoader(x).samples == 3  # NumPy makes one array of it
        return
    with refused((TypeError, ValueError), "x"):
        kl.ArraySequenceLoader(x)


@pytest.mark.parametrize("unit", ["datetime64[W]", "timedelta64[s]"])
def test_dates(unit: str) -> None:
    """Dates are refused by their dtype, and numbers made of them are taken."""
    x = np.arange(3).astype(unit)
    with refused(TypeError, "x has dtype", unit, "convert", "numbers"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(x.astype("int64")))[0].tolist() == [0, 1, 2]


def test_records() -> None:
    """Structured arrays are refused, and a column of them is taken."""
    x = np.zeros(3, [("age", "f4"), ("kind", "i4")])
    with refused(TypeError, "x has dtype", "age", "convert", "numbers"):
        kl.ArraySequenceLoader(x)
    assert read(kl.ArraySequenceLoader(x["age"]))[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "complex64", "complex128", "bool", "int8", "uint64", ">f4"]
)
def test_unusual_numbers_are_kept(dtype: str) -> None:
    """Any kind of number is served as it is, in this machine's byte order."""
    x = np.array([0, 1, 1], dtype)
    (batch,) = read(kl.ArraySequenceLoader(x))
    assert batch.dtype == x.dtype.newbyteorder("=")
    np.testing.assert_array_equal(batch, x)


# ---------------------------------------------------------------- options of every loader


def test_counts_that_are_none() -> None:
    """Whatever is no integer, or too small, is refused by name, value, type and bound."""
    for name in ("batch_size", "workers", "max_queue_size", "seed"):
        least = 1 if name == "batch_size" else 0
        with refused(ValueError, f"{name}={least - 1}", f"at least {least}"):
            Own(4, **{name: least - 1})
        for wrong in (True, np.True_, 2.0, np.float64(2), "2", [2]):
            kind = type(wrong).__name__
            with refused(TypeError, f"{name}={wrong!r}", kind, f"integer of at least {least}"):
                Own(4, **{name: wrong})


@EVERY
@pytest.mark.parametrize("wrong", [0, -3, True, 4.0, "4", None])
def test_batch_size(files: Files, make: Make, wrong: Any) -> None:
    """batch_size must be an integer of at least 1, for every loader."""
    kind = ValueError if type(wrong) is int else TypeError
    with refused(kind, f"batch_size={wrong!r}", "at least 1"):
        make(files, batch_size=wrong)


@EVERY
def test_any_integer_type_will_do(files: Files, make: Make) -> None:
    """NumPy's integers are integers."""
    assert len(make(files, batch_size=np.int64(4), workers=np.uint8(1), seed=np.int32(3))) == 3


@EVERY
@pytest.mark.parametrize("name", ["drop_last", "pad_last", "processes"])
@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_flags(files: Files, make: Make, name: str, wrong: Any) -> None:
    """A text or a number is not taken for True."""
    with refused(TypeError, f"{name}={wrong!r}", "True or False"):
        make(files, **{name: wrong})


@EVERY
def test_options_that_contradict_each_other(files: Files, make: Make) -> None:
    """The short last batch is left out or filled up, not both."""
    with refused(ValueError, "drop_last=True", "pad_last=True", "choose one"):
        make(files, drop_last=True, pad_last=True)


@EVERY
def test_cache(files: Files, make: Make) -> None:
    """What a cache could not do is refused, with what to use instead."""
    for fine in (None, "auto"):
        assert len(make(files, cache=fine)) == 3
    for wrong in (True, 5):
        with refused(TypeError, f"cache={wrong!r}", '"auto"', '"ram"', "a folder", "None"):
            make(files, cache=wrong)
    with refused(ValueError, "cache_budget='much'", "4GiB"):
        make(files, cache_budget="much")
    if make is array:
        with refused(ValueError, "cache='ram'", "preload(loader)"):
            make(files, cache="ram")
    if make is own:
        with refused(ValueError, "cache='/tmp/there'", 'cache="ram"'):
            make(files, cache="/tmp/there")
    if make in (path, ram):
        with refused(ValueError, 'cache="ram"', "cache=<folder>"):
            make(files, cache="ram", processes=True)
        with refused(NotADirectoryError, files.npy[0], "folder"):
            make(files, cache=files.npy[0])


@EVERY
@pytest.mark.parametrize("wrong", ["ignore", None, True])
def test_on_error(files: Files, make: Make, wrong: Any) -> None:
    """on_error names its choices, and what each does."""
    with refused(ValueError, f"on_error={wrong!r}", '"raise"', '"skip"', '"replace"'):
        make(files, on_error=wrong)
    for known in ("raise", "skip", "replace"):
        make(files, on_error=known)


@EVERY
@pytest.mark.parametrize("wrong", ["yes", 1, 0, 0.5, "batch"])
def test_shuffle(files: Files, make: Make, wrong: Any) -> None:
    """shuffle names its choices; Keras' "batch" is none of them."""
    with refused(TypeError, f"shuffle={wrong!r}", "None", "True", "False"):
        make(files, shuffle=wrong)
    for known in (None, True, False, np.True_):
        make(files, shuffle=known)


@EVERY
@pytest.mark.parametrize("wrong", [(2, 2), (-1, 2), (0, 0), (5, 3)])
def test_shard_out_of_range(files: Files, make: Make, wrong: Any) -> None:
    """shard=(k, n) says how k counts."""
    with refused(ValueError, f"shard={wrong!r}", "0 <= k < n"):
        make(files, shard=wrong)


@EVERY
@pytest.mark.parametrize("wrong", [3, (0,), (0, 1, 2), "01", (0.0, 2), (None, 2)])
def test_shard_of_another_form(files: Files, make: Make, wrong: Any) -> None:
    """shard says what the pair means."""
    with refused(TypeError, f"shard={wrong!r}", "(k, n)"):
        make(files, shard=wrong)


@pytest.mark.parametrize("make", [array, path, own])
def test_shards_that_would_get_no_sample(files: Files, make: Make) -> None:
    """A last batch too short for all shards is named; each advice makes it work."""
    with refused(ValueError, "2 samples for 5 shards", "drop_last=True", "batch_size"):
        make(files, batch_size=2, shard=(0, 5))
    assert len(make(files, batch_size=2, shard=(0, 5), drop_last=True)) == 1
    assert len(make(files, batch_size=1, shard=(0, 4))) == 3


@EVERY
def test_drop_last_that_leaves_nothing(files: Files, make: Make) -> None:
    """Fewer samples than a batch: both ways out are named, and work."""
    options: dict[str, Any] = {"batch_size": 32, "drop_last": True}
    if make is ram:
        options["ram_batch_size"] = 64
    with refused(ValueError, "12 samples", "full batch of 32", "batch_size", "drop_last=False"):
        make(files, **options)
    assert len(make(files, **{**options, "batch_size": 12})) == 1
    assert len(make(files, **{**options, "drop_last": False})) == 1


@EVERY
@pytest.mark.parametrize("wrong", ["image", "datetime64[s]", object, "U5", 3])
def test_dtype(files: Files, make: Make, wrong: Any) -> None:
    """dtype shows what it got, and an example that works."""
    with refused(TypeError, f"dtype={wrong!r}", '"uint8"', '"float32"'):
        make(files, dtype=wrong)
    for known in ("uint8", np.float32, np.dtype("float64")):
        assert read(make(files, dtype=known))[0][0].dtype == known


@EVERY
def test_a_misspelt_option(files: Files, make: Make) -> None:
    """An option that does not exist is named."""
    with refused(TypeError, "shufle"):
        make(files, shufle=True)


@EVERY
@pytest.mark.parametrize("value", [True, 1])
def test_use_multiprocessing(files: Files, make: Make, value: Any) -> None:
    """Keras' process pool is refused, in the constructor and later; ours is named, and works."""
    with refused(ValueError, "use_multiprocessing=True", "workers="):
        make(files, use_multiprocessing=value)
    loader = make(files, workers=2)
    with refused(ValueError, "use_multiprocessing=True", "workers="):
        loader.use_multiprocessing = value
    loader.use_multiprocessing = False
    assert loader.use_multiprocessing is False
    assert len(read(loader)) == 3


@EVERY
def test_workers_set_later(files: Files, make: Make) -> None:
    """Keras' attribute is not ours to change: the message says where the option goes."""
    loader = make(files)
    with refused(ValueError, "workers=4", "pass workers= when making it"):
        loader.workers = 4
    with refused(ValueError, "max_queue_size=-1", "at least 0"):
        loader.max_queue_size = -1
    assert make(files, workers=4).thread_count == 4


def test_processes_without_workers(files: Files) -> None:
    """processes=True with workers=0 contradict each other."""
    with refused(ValueError, "processes=True", "workers=0", "workers=1"):
        path(files, processes=True, workers=0)


@EVERY
@pytest.mark.parametrize("index", [-1, 3, 10**12])
def test_an_index_out_of_range(files: Files, make: Make, index: int) -> None:
    """The index, the loader and the range are named; no index wraps around."""
    loader = make(files)
    with refused(IndexError, f"batch {index} of {type(loader).__name__}", "from 0 to 2"):
        loader[index]
    with loader:
        assert loader[2] is not None


@EVERY
@pytest.mark.parametrize("index", [1.0, None, "1", slice(0, 2), [0]])
def test_an_index_that_is_no_number(files: Files, make: Make, index: Any) -> None:
    """Slices and the like are refused by their value."""
    with refused(TypeError, "batch number", repr(index)):
        make(files)[index]


@given(index=st.integers())
def test_no_integer_reaches_another_batch(index: int) -> None:
    """Any integer is one of the batches or an IndexError."""
    loader = Own(10, BATCH, workers=0)
    if 0 <= index < 3:
        assert loader[index][1][0] == BATCH * index
    else:
        with refused(IndexError, str(index)):
            loader[index]


# ---------------------------------------------------------------- transforms and hooks


@EVERY
@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda x, y, rng: None, ["NoneType"]),
        (lambda x, y, rng: x, ["ndarray"]),
        (lambda x, y, rng: [x, y], ["list"]),
        (lambda x, y, rng: (x, y, y), ["tuple of 3"]),
        (lambda x, y, rng: (x,), ["tuple of 1"]),
    ],
    ids=["nothing", "x alone", "a list", "three", "one"],
)
def test_a_transform_that_returns_another_thing(
    files: Files, make: Make, transform: Make, words: list[str]
) -> None:
    """What came back is named beside what was expected, and the sample it came from."""
    with refused(kl.SampleError, "sample 0", "transform", *words, "a tuple (x, y)"):
        read(make(files, transform=transform))
    assert numbers(make(files, transform=lambda x, y, rng: (x, y))) == list(range(12))


def test_a_transform_without_labels(files: Files) -> None:
    """The advice for loaders without labels: y is None."""
    with refused(kl.SampleError, "ndarray", "y is None where there are no labels"):
        read(path(files, y=None, transform=lambda x, y, rng: x))
    batches = read(path(files, y=None, transform=lambda x, y, rng: (x + 1, None), shuffle=False))
    assert batches[0][:, 0].tolist() == [1, 2, 3, 4]


@EVERY
def test_a_transform_that_gives_text(files: Files, make: Make) -> None:
    """What can't be put into a batch is shown."""
    with refused(kl.SampleError, "'cat'", "expected numbers"):
        read(make(files, transform=lambda x, y, rng: (x, "cat")))


@EVERY
@pytest.mark.parametrize("wrong", [3, "flip", keras.layers], ids=["number", "text", "module"])
def test_a_transform_that_is_no_function(files: Files, make: Make, wrong: Any) -> None:
    """It is refused when the loader is made, not when the first batch is."""
    with refused(TypeError, "transform", "transform(x, y, rng)"):
        make(files, transform=wrong)


def test_a_transform_of_other_arguments(files: Files) -> None:
    """A function of x and y alone is told what it is called with."""
    with refused((TypeError, kl.SampleError), "transform", "(x, y, rng)"):
        read(path(files, transform=lambda x, y: (x, y)))


@EVERY
def test_a_transform_that_raises(files: Files, make: Make) -> None:
    """Its own error arrives with the sample's name, type and text."""

    def fail(x: Any, y: Any, rng: Any) -> Any:
        if y == 5:
            raise KeyError("no such thing")
        return x, y

    with refused(kl.SampleError, "sample 5", "KeyError", "no such thing"):
        read(make(files, transform=fail))


def test_a_loader_without_a_hook() -> None:
    """The base class alone names the two hooks."""

    class Empty(kl.SequenceLoader):
        pass

    with refused(kl.SampleError, "Empty", "load_sample(index)", "load_batch(indices)"):
        read(Empty(3))


def test_a_hook_that_gives_three_parts() -> None:
    """Weights and second inputs have another place: both pieces of advice work."""

    class Three(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.float32(index), np.float32(index), np.float32(1)

    class Two(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return (np.float32(index), np.float32(1)), np.float32(index)

    with refused(kl.SampleError, "3 parts", "sample_weights=", "((x1, x2), y)"):
        read(Three(3))
    assert numbers(Two(3)) == [0, 1, 2]
    assert numbers(Own(3, sample_weights=np.ones(3))) == [0, 1, 2]


def test_a_hook_that_nests_otherwise() -> None:
    """A sample whose x and y nest otherwise than the first one's is named."""

    class Nesting(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return ({"a": np.float32(1)} if index == 2 else np.float32(1)), np.float32(index)

    with refused(kl.SampleError, "sample 2", "nest otherwise", "same tuples and dicts"):
        read(Nesting(3))


def test_a_batch_hook_of_another_length() -> None:
    """load_batch must give a row for each index."""

    class Short(kl.SequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            return np.zeros((max(1, len(indices) - 1), 2), np.float32)

    with refused(ValueError, "load_batch(4 indices)", "3 rows", "one row for each index"):
        read(Short(4, workers=0))


# ---------------------------------------------------------------- options of loaders over files


@pytest.mark.parametrize(
    ("option", "wrong", "words"),
    [
        ("size", 224, ["size=224", "size=(height, width)"]),
        ("size", (0, 3), ["size=(0, 3)", "at least one pixel"]),
        ("channels", 2, ["channels=2", "1", "3", "4", "None"]),
        ("interpolation", "magic", ["interpolation='magic'", "bilinear"]),
        ("dtype", "image", ["dtype='image'", "uint8", "float32"]),
        ("dtype", "datetime64[s]", ["dtype=", "uint8", "float32"]),
        ("rescale", "1/255", ["rescale='1/255'", "rescale=1/255"]),
        ("max_pixels", 0, ["max_pixels=0", "at least 1"]),
        ("decode", "jpeg", ["decode='jpeg'", "function"]),
        ("label_options", {"sizes": 3}, ["label_options", "sizes", "size"]),
        ("label_options", 3, ["label_options", "3", "dict"]),
    ],
)
def test_options_of_pictures(files: Files, option: str, wrong: Any, words: list[str]) -> None:
    """An option of pictures is refused when the loader is made, by name and value."""
    with refused((TypeError, ValueError), *words):
        kl.PathSequenceLoader(files.png, files.png, **{option: wrong})


# ---------------------------------------------------------------- options of RAM batches


def test_a_ram_batch_smaller_than_a_batch(files: Files) -> None:
    """Both sizes are named; a larger RAM batch works."""
    with refused(ValueError, "ram_batch_size=8", "batch_size=32", "times as large"):
        kl.RamBatchSequenceLoader(files.npy, labels(), 32, ram_batch_size=8)
    assert len(kl.RamBatchSequenceLoader(files.npy, labels(), 2, ram_batch_size=200)) == 6


def test_two_sizes_of_ram_batches(files: Files) -> None:
    """ram_batch_size and ram_budget together contradict each other; either alone works."""
    with refused(ValueError, "ram_batch_size=8", "ram_budget='1MB'", "choose one"):
        ram(files, ram_batch_size=8, ram_budget="1MB")
    assert ram(files, ram_batch_size=8).ram_batch_size == 8
    assert ram(files, ram_budget="1MB").ram_batch_size == 12


@pytest.mark.parametrize("size", [12, 3_000, 90_000, 1_200_000])
def test_a_budget_too_small(files: Files, size: int) -> None:
    """What was given, what a sample takes and what is needed are named; the latter is enough."""

    def decode(content: bytes) -> Any:
        return np.zeros(size, np.uint8)

    with pytest.raises(ValueError) as caught:
        ram(files, ram_budget=100, decode=decode)
    said = str(caught.value)
    for word in ("ram_budget=100 bytes", "each", "batch_size=4", "Raise ram_budget"):
        assert word in said
    (need,) = re.findall(r"needs ([\d.]+ \w+)", said)
    assert ram(files, ram_budget=need, decode=decode).ram_batch_size >= BATCH
    # The other advice: a smaller batch needs less.
    assert ram(files, batch_size=1, ram_budget=need, decode=decode).ram_batch_size > BATCH


@pytest.mark.parametrize(
    "wrong",
    ["lots", "4 parsecs", "GiB", "", "nan", "inf GB", "-1", 0, -5, True, None, [1], float("nan")],
)
def test_a_budget_that_is_no_size(files: Files, wrong: Any) -> None:
    """ram_budget shows what it got, and how sizes are written; that way works."""
    if wrong is None:
        assert ram(files, ram_budget=None).samples == 12
        return
    with refused((ValueError, TypeError), f"ram_budget={wrong!r}", "bytes"):
        ram(files, ram_budget=wrong)


@pytest.mark.parametrize("right", ["4GiB", "500MB", "500 MB", 10**6, 1e6, np.int64(10**6)])
def test_a_budget_as_advised(files: Files, right: Any) -> None:
    """The ways of writing a size that the messages give are taken."""
    assert ram(files, ram_budget=right).ram_batch_size == 12


@pytest.mark.parametrize("wrong", [0, -1, 64.0, True, "64"])
def test_ram_batch_size_that_is_no_count(files: Files, wrong: Any) -> None:
    """ram_batch_size must be a positive integer."""
    with refused((ValueError, TypeError), f"ram_batch_size={wrong!r}", "at least 1"):
        ram(files, ram_batch_size=wrong)


def test_draw(files: Files) -> None:
    """draw names its choices, and both work."""
    with refused(ValueError, "draw='random'", '"global"', '"windows"'):
        ram(files, ram_batch_size=8, draw="random")
    for known in ("global", "windows"):
        assert numbers(ram(files, ram_batch_size=8, draw=known)) == list(range(12))


def test_echo(files: Files) -> None:
    """echo must be a positive integer, and cannot go with storage order."""
    with refused(ValueError, "echo=0", "at least 1"):
        ram(files, ram_batch_size=8, echo=0)
    with refused(TypeError, "echo=1.5", "integer"):
        ram(files, ram_batch_size=8, echo=1.5)
    with refused(ValueError, "echo=2", "shuffle=False", "leave shuffle out"):
        ram(files, ram_batch_size=8, echo=2, shuffle=False)
    assert numbers(ram(files, ram_batch_size=8, echo=2)) == sorted([*range(12)] * 2)
    assert numbers(ram(files, ram_batch_size=8, shuffle=False)) == list(range(12))


# ---------------------------------------------------------------- functions over loaders


@pytest.mark.parametrize("function", [kl.preload, kl.to_tf_dataset])
def test_functions_that_take_a_loader(files: Files, function: Make) -> None:
    """What is no loader is refused by name, not with a missing attribute."""
    with refused(TypeError, function.__name__, "list", "loader"):
        function(files.npy)


# ---------------------------------------------------------------- what a second look found


def test_split_takes_no_batch_of_nothing(files: Files) -> None:
    """0 and False are no way to say "the default"."""
    for value in (0, False, 0.0):
        with refused((ValueError, TypeError), f"batch_size={value!r}", "batch_size=32"):
            kl.split(files.npy, None, value)


def test_what_cannot_be_changed_later(files: Files) -> None:
    """An attribute that a batch follows from does not lie."""
    loader = path(files)
    for name in ("batch_size", "shuffle", "seed", "drop_last", "shard"):
        with refused(AttributeError, name, "make another one"):
            setattr(loader, name, 1)


def test_a_subclass_without_super() -> None:
    """What is missing is said, not which attribute."""

    class Forgetful(kl.SequenceLoader):
        def __init__(self) -> None:
            pass

    with refused(AttributeError, "Forgetful", "super().__init__(samples, batch_size)"):
        len(Forgetful())


@WITH_LABELS
def test_an_option_spelt_wrong(files: Files, make: Make) -> None:
    """The one that may be meant is named."""
    with refused(TypeError, "shufle", "did you mean shuffle=?"):
        make(files, shufle=True)


def test_image_options_that_decode_would_ignore(files: Files) -> None:
    """An option that can mean nothing is refused; those that do mean something are not."""
    for options in ({"size": (2, 2)}, {"rescale": 0.5}, {"channels": 1}, {"dct_scaling": True}):
        with refused(ValueError, next(iter(options)), "decode="):
            kl.PathSequenceLoader(files.npy, decode=np.frombuffer, **options)
    kl.PathSequenceLoader(files.npy, decode=len, dtype="float32", max_pixels=5)
    with refused(ValueError, "label_options", "leave them out"):
        kl.PathSequenceLoader(files.npy, labels(), label_options={"size": (2, 2)})


def test_labels_in_files_of_an_own_format(files: Files) -> None:
    """decode is for the inputs; label_options have their own, and the message says so."""
    with refused(ValueError, 'label_options={"decode"'):
        kl.PathSequenceLoader(files.npy, files.own)
    loader = kl.PathSequenceLoader(files.npy, files.own, label_options={"decode": len})
    assert loader[0][1].tolist() == [os.path.getsize(file) for file in files.own]


def test_weights_without_labels(files: Files) -> None:
    """Keras' TensorFlow backend takes no (x, None, weights): refused, and padding does without."""
    with refused(ValueError, "sample_weights=", "labels"):
        read(kl.PathSequenceLoader(files.npy, sample_weights=np.ones(SAMPLES)))
    batch = kl.PathSequenceLoader(files.npy, batch_size=SAMPLES + 1, pad_last=True)[0]
    assert isinstance(batch, np.ndarray)
    assert len(batch) == SAMPLES + 1
    signature = kl.to_tf_dataset(kl.PathSequenceLoader(files.npy, pad_last=True)).element_spec
    assert signature.shape[0] == 32


def test_shapes_that_differ_where_size_cannot_help(files: Files) -> None:
    """Labels and transforms get advice of their own."""
    y = [np.ones(2 + k % 2, np.float32) for k in range(SAMPLES)]
    with refused(ValueError, "the label of", "Give labels of one shape"):
        read(path(files, y=y))
    with refused(ValueError, "transform= return arrays of one shape"):
        read(path(files, transform=lambda x, y, rng: (x[: int(y) % 2 + 1], y)))


def test_lists_from_hooks(files: Files) -> None:
    """A list is an array; an input and its label come in a tuple."""

    class Rows(kl.SequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            return [[float(i), 0.0] for i in indices]

    assert Rows(5, 5)[0].shape == (5, 2)

    class Pair(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return [np.ones(3), index]

    with refused(kl.SampleError, "tuple (x, y)"):
        Pair(5, 5)[0]


def test_tuples_of_rows() -> None:
    """A tuple means several inputs; thousands of lengths are not listed."""
    rows = tuple(np.ones((k % 3 + 1, 2)) for k in range(1000))
    with pytest.raises(ValueError, match=r"1000 in all.*list\(\.\.\.\)") as caught:
        kl.ArraySequenceLoader(rows)
    assert len(str(caught.value)) < 400


def test_data_of_unusual_kinds(files: Files) -> None:
    """Each is told from what is the matter with it."""
    with refused(TypeError, "paths is a set", "list(paths)"):
        kl.PathSequenceLoader(set(files.npy))
    with refused(TypeError, "np.load(path"):
        kl.ArraySequenceLoader("x.npy")
    with refused(ValueError, "shape (12, 1)", "paths.ravel()"):
        kl.PathSequenceLoader(np.array(files.npy).reshape(-1, 1))
    for paths in (np.array(files.npy), [os.fsencode(file) for file in files.npy]):
        assert read(kl.PathSequenceLoader(paths))[0][:, 0].tolist() == list(range(SAMPLES))
    sparse = pytest.importorskip("scipy.sparse")
    with refused(TypeError, "sparse", "x.toarray()"):
        kl.ArraySequenceLoader(sparse.eye(3).tocsr())
    with refused(ValueError, "interpolation=['area']"):
        kl.PathSequenceLoader(files.npy, interpolation=["area"])


def test_front_doors_given_what_they_do_not_take(files: Files, tmp_path: Path) -> None:
    """A loader in the place of a class, labels for folders, files in the place of labels."""
    with refused(TypeError, "split(loader)"):
        kl.split(files.npy, loader=path(files))
    with refused(TypeError, "label_mode="):
        kl.from_directory(tmp_path, labels="inferred")
    table = {"file": files.npy, "mask": files.npy, "class": [0, 1, 2] * 4}
    with refused(ValueError, "'mask' holds files", "split(paths, masks)"):
        kl.from_dataframe(table, "file", "mask")
    with refused(ValueError, "2 in column 'class'", "from 0 to 1"):
        kl.from_dataframe(table, "file", "class", class_names=["a", "b"])


def test_a_dataset_of_shapes_that_differ() -> None:
    """A list of arrays tells its shapes; files need a signature, and the error says so."""
    tf = pytest.importorskip("tensorflow")
    x = [np.ones((k // 4 + 1, 2), np.float32) for k in range(8)]
    dataset = kl.to_tf_dataset(kl.ArraySequenceLoader(x, None, 4), shuffle=False)
    assert tuple(dataset.element_spec.shape) == (None, None, 2)
    assert [batch.shape for batch in dataset.as_numpy_iterator()] == [(4, 1, 2), (4, 2, 2)]

    class Growing(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return x[index]

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"batch 1 .*output_signature="):
        list(kl.to_tf_dataset(Growing(8, 4), shuffle=False))
    signature = tf.TensorSpec((None, None, 2), tf.float32)
    dataset = kl.to_tf_dataset(Growing(8, 4), shuffle=False, output_signature=signature)
    assert [batch.shape for batch in dataset.as_numpy_iterator()] == [(4, 1, 2), (4, 2, 2)]


@pytest.mark.parametrize("make", [path, ram])
def test_a_batch_of_nothing_but_bad_samples(files: Files, make: Make) -> None:
    """on_error="skip" does not end a night's training where a bad sample is alone in its batch."""
    paths = [*files.npy[:4], files.npy[0] + ".gone.npy"]
    loader = (
        kl.PathSequenceLoader(paths, labels(5), 4, on_error="skip", check_paths=False)
        if make is path
        else kl.RamBatchSequenceLoader(
            paths, labels(5), 4, ram_batch_size=8, on_error="skip", check_paths=False
        )
    )
    found = [batch[1].tolist() for batch in loader.epoch_batches(shuffle=False)]
    assert found[0] == [0, 1, 2, 3]
    assert len(found[1]) == 1
    assert found[1][0] in found[0]
    assert [error.index for error in loader.errors] == [4]
    assert found == [batch[1].tolist() for batch in loader.epoch_batches(shuffle=False)]


def test_several_inputs_through_a_hook(files: Files) -> None:
    """load_sample is asked for each input that is a file; no input is lost."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            return np.float32(Path(path).stem)

    x = {"a": files.npy, "b": files.npy[::-1], "c": np.arange(12)}
    inputs, y = Own(x, labels(), 12)[0]
    assert inputs["a"].tolist() == list(range(12))
    assert inputs["b"].tolist() == list(range(12))[::-1]
    assert inputs["c"].tolist() == list(range(12))
    assert y.tolist() == list(range(12))
