"""Bad input: files that do not decode."""

from __future__ import annotations

import contextlib
import gc
import weakref
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import (
    BATCH,
    OVER_FILES,
    SAMPLES,
    Files,
    Make,
    Own,
    labels,
    model,
    numbers,
    path,
    ram,
    read,
    refused,
)


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
        (text, "bad.jpg", ["not an image", "decode="]),
        (text, "bad.npy", ["not an .npy file", "load_sample(path)"]),
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
    assert "not an .npy file" in error.cause
    assert isinstance(error.__cause__, kl.DecodeError)


class _Variable:
    """A marker in a variable of a function that raises, to see whether the traceback keeps it."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("policy", ["skip", "replace", "raise"])
def test_kept_errors_hold_nothing_but_words(policy: str, workers: int) -> None:
    """A kept error holds no partial batch, no variable of a hook, and none of the caller.

    Otherwise training on thousands of bad files would run out of memory.
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
    with loader, refused(Exception, "sample 12", bad, "not an .npy file"):
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
    """max_pixels applies to labels that are images, too."""
    with refused(kl.SampleError, files.png[0], "max_pixels=16"):
        read(kl.PathSequenceLoader(files.npy[:4], files.png, size=(4, 4), max_pixels=15))


@pytest.mark.parametrize("make", [path, ram])
def test_a_batch_of_nothing_but_bad_samples(files: Files, make: Make) -> None:
    """on_error="skip" does not end a training if a bad sample is alone in its batch."""
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
