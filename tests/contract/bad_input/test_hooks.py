"""Bad input: what transforms and hooks return."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import EVERY, Files, Make, Own, numbers, path, read, refused


@EVERY
@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda x, y, rng: None, ["NoneType"]),
        (lambda x, y, rng: x, ["ndarray"]),
        (lambda x, y, rng: [x, y], ["list"]),
        (lambda x, y, rng: (x, y, y, y), ["tuple of 4"]),
        (lambda x, y, rng: (x,), ["tuple of 1"]),
    ],
    ids=["nothing", "x alone", "a list", "four", "one"],
)
def test_a_transform_that_returns_another_thing(
    files: Files, make: Make, transform: Make, words: list[str]
) -> None:
    """The error has the returned value, the expected one, and the sample."""
    with refused(kl.SampleError, "sample 0", "transform", *words, "a tuple (x, y)"):
        read(make(files, transform=transform))
    assert numbers(make(files, transform=lambda x, y, rng: (x, y))) == list(range(12))


def test_a_transform_without_labels(files: Files) -> None:
    """The advice for loaders without labels: y is None."""
    with refused(kl.SampleError, "ndarray", "y is None if there are no labels"):
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
    """The error for a function of x and y alone shows how transforms are called."""
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


def test_a_hook_that_gives_too_many_parts() -> None:
    """A third part is weights, which must match the labels; several inputs belong into x."""

    class Four(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.float32(index), np.float32(index), np.float32(1), np.float32(1)

    class Three(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.float32(index), np.zeros(4, np.float32), np.zeros(3, np.float32)

    class Two(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return (np.float32(index), np.float32(1)), np.float32(index)

    with refused(kl.SampleError, "4 parts", "(x, y, weights)", "((x1, x2), y)"):
        read(Four(3))
    with refused(ValueError, "weights of a sample have shape (3,)", "((x1, x2), y)"):
        read(Three(3))
    assert numbers(Two(3)) == [0, 1, 2]
    assert numbers(Own(3, sample_weights=np.ones(3))) == [0, 1, 2]


def test_a_hook_that_nests_otherwise() -> None:
    """A sample whose x and y nest otherwise than the first one's is named."""

    class Nesting(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return ({"a": np.float32(1)} if index == 2 else np.float32(1)), np.float32(index)

    with refused(kl.SampleError, "sample 2", "nested differently", "same tuples and dicts"):
        read(Nesting(3))


def test_a_batch_hook_of_another_length() -> None:
    """load_batch must give a row for each index."""

    class Short(kl.SequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            return np.zeros((max(1, len(indices) - 1), 2), np.float32)

    with refused(ValueError, "load_batch(4 indices)", "3 rows", "one row for each index"):
        read(Short(4, workers=0))


def test_a_subclass_without_super() -> None:
    """The error names the missing call, not the missing attribute."""

    class Forgetful(kl.SequenceLoader):
        def __init__(self) -> None:
            pass

    with refused(AttributeError, "Forgetful", "super().__init__(samples, batch_size)"):
        len(Forgetful())


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("to_tf_dataset", kl.to_tf_dataset),
        ("epoch_batches", lambda loader: loader.epoch_batches()),
        ("preload", lambda loader: kl.preload(loader, progress=False)),
        ("mix", lambda loader: kl.mix([loader, Own(4)])),
        ("write_pack", lambda loader: kl.write_pack(loader, "unwritten", progress=False)),
        ("write_tfrecords", lambda loader: kl.write_tfrecords(loader, out="unwritten")),
    ],
)
def test_batches_of_ones_own_are_not_passed_over(name: str, use: Make) -> None:
    """Overriding __getitem__ is rejected: other functions that read samples would not call it."""

    class Doubled(Own):
        def __getitem__(self, index: int) -> Any:
            x, y = super().__getitem__(index)
            return 2 * x, y

    with Doubled(4, 2) as loader:
        assert loader[1][0].ravel().tolist() == [4, 6]
        with refused(TypeError, "Doubled overrides __getitem__", f"{name}()", "batch_transform="):
            use(loader)
        assert [x.ravel().tolist() for x, _ in loader] == [[0, 2], [4, 6]]


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
