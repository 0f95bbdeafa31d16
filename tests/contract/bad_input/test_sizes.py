"""Bad input: no data, or parts of different lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import (
    EVERY,
    SAMPLES,
    Files,
    Make,
    Own,
    array,
    labels,
    path,
    ram,
    read,
    refused,
)


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
    """Among several inputs or labels the error names the wrong one by its key."""
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


@pytest.mark.parametrize("weights", [["a"] * 12, np.ones(12, complex), [None] * 12, [{}] * 12])
def test_sample_weights_that_are_no_numbers(files: Files, weights: Any) -> None:
    """What cannot be a weight is refused by the option's name, not by NumPy."""
    with refused((ValueError, TypeError), "sample_weights", "number"):
        array(files, sample_weights=weights)
    with refused(ValueError, "sample_weights", "different lengths"):
        array(files, sample_weights=[[1], [2, 3]])
    with refused(ValueError, "weights are a dict of 'a', and labels one array"):
        read(array(files, sample_weights={"a": np.ones(12)}))


def test_weights_without_labels(files: Files) -> None:
    """Keras' TensorFlow backend takes no (x, None, weights): refused, and padding does without."""
    with refused(ValueError, "sample_weights=", "labels"):
        read(kl.PathSequenceLoader(files.npy, sample_weights=np.ones(SAMPLES)))
    batch = kl.PathSequenceLoader(files.npy, batch_size=SAMPLES + 1, pad_last=True)[0]
    assert isinstance(batch, np.ndarray)
    assert len(batch) == SAMPLES + 1
    signature = kl.to_tf_dataset(kl.PathSequenceLoader(files.npy, pad_last=True)).element_spec
    assert signature.shape[0] == 32
