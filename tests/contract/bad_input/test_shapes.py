"""Bad input: samples of one batch that differ in shape or dtype."""

from __future__ import annotations

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
    labels,
    numbers,
    over_path,
    path,
    read,
    refused,
)


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


def test_shapes_that_differ_where_size_cannot_help(files: Files) -> None:
    """Labels and transforms get advice of their own."""
    y = [np.ones(2 + k % 2, np.float32) for k in range(SAMPLES)]
    with refused(ValueError, "the label of", "Give labels of one shape"):
        read(path(files, y=y))
    with refused(ValueError, "transform= return arrays of one shape"):
        read(path(files, transform=lambda x, y, rng: (x[: int(y) % 2 + 1], y)))


def test_tuples_of_rows() -> None:
    """A tuple means several inputs; thousands of lengths are not listed."""
    rows = tuple(np.ones((k % 3 + 1, 2)) for k in range(1000))
    with pytest.raises(ValueError, match=r"1000 in all.*list\(\.\.\.\)") as caught:
        kl.ArraySequenceLoader(rows)
    assert len(str(caught.value)) < 400


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
