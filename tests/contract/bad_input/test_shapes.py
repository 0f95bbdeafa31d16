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
    """8 and 16 bits in one batch: both are named, and depth=8 works as advised."""
    cv2.imwrite(files.png[1], np.full((4, 4, 3), 257, np.uint16))
    words = [*files.png[:2], "uint16", "uint8", "depth=8", "dtype= alone does not scale"]
    with refused(ValueError, *words):
        read(kl.PathSequenceLoader(files.png[:2], labels(2), size=(4, 4)))
    advised = kl.PathSequenceLoader(files.png[:2], labels(2), size=(4, 4), depth=8)
    assert numbers(advised) == [0, 1]
    np.testing.assert_array_equal(advised[0][0][1], np.ones((4, 4, 3)))


def test_depths_that_are_cast_are_reported(files: Files, caplog: Any, monkeypatch: Any) -> None:
    """A dtype hides that one image has 257 times the values of another."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    monkeypatch.setattr("kloaders.formats.images._depths", {})
    caplog.set_level("WARNING", "kloaders")
    read(kl.PathSequenceLoader(files.png, labels(4), size=(4, 4), dtype="float32"))
    assert not caplog.text
    cv2.imwrite(files.png[1], np.full((4, 4, 3), 257, np.uint16))
    read(kl.PathSequenceLoader(files.png, labels(4), size=(4, 4), dtype="float32"))
    assert files.png[1] in caplog.text
    assert "257 times" in caplog.text
    assert "depth=8" in caplog.text


ODD = 1
RAGGED = {
    "dtype": lambda x: x.astype(np.float64),
    "shape": lambda x: np.concatenate([x, x]),
}


def odd_files(files: Files, change: Any) -> list[str]:
    for k, file in enumerate(files.npy):
        np.save(file, np.full(3, k, np.float32))
    np.save(files.npy[ODD], change(np.full(3, ODD, np.float32)))
    return files.npy


def odd_hook(files: Files, change: Any) -> type[kl.SequenceLoader]:
    class Odd(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            x = np.full(3, index, np.float32)
            return (change(x) if index == ODD else x), np.int32(index)

    return Odd


def made_odd(files: Files, change: Any) -> Any:
    def transform(x: Any, y: Any, rng: Any) -> Any:
        return (change(x) if int(y) == ODD else x), y

    return transform


ODD_LOADERS: dict[str, Any] = {
    "files": lambda files, change, **o: kl.PathSequenceLoader(
        odd_files(files, change), labels(), BATCH, **o
    ),
    "RAM batches": lambda files, change, **o: kl.RamBatchSequenceLoader(
        odd_files(files, change), labels(), BATCH, ram_batch_size=SAMPLES, **o
    ),
    "hook": lambda files, change, **o: odd_hook(files, change)(SAMPLES, BATCH, **o),
    "transform": lambda files, change, **o: kl.ArraySequenceLoader(
        np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], 3, 1),
        labels(),
        BATCH,
        transform=made_odd(files, change),
        **o,
    ),
    "labels": lambda files, change, **o: kl.PathSequenceLoader(
        files.npy, [odd_label(k, change) for k in range(SAMPLES)], BATCH, **o
    ),
}


def odd_label(k: int, change: Any) -> Any:
    label = np.full(3, k, np.float32)
    return change(label) if k == ODD else label


@pytest.mark.parametrize("kind", ODD_LOADERS)
@pytest.mark.parametrize("change", RAGGED.values(), ids=RAGGED)
@pytest.mark.parametrize("workers", [0, 2])
def test_on_error_covers_what_does_not_fit(
    files: Files, kind: str, change: Any, workers: int
) -> None:
    """One sample of another shape or dtype: left out, replaced, or raised by its name; and listed."""

    def loader(**options: Any) -> Any:
        return ODD_LOADERS[kind](files, change, shuffle=False, workers=workers, **options)

    def arrived(loader: Any) -> list[int]:
        part = 1 if kind == "labels" else 0
        return [int(v) for batch in loader for v in np.asarray(batch[part])[:, 0]]

    skipping = loader(on_error="skip")
    for _ in range(2):
        assert sorted(arrived(skipping)) == [k for k in range(SAMPLES) if k != ODD]
    (error,) = skipping.errors
    assert error.index == ODD
    assert "in the same batch" in error.cause or "RAM batch" in error.cause
    replacing = loader(on_error="replace", seed=1)
    got = arrived(replacing)
    assert len(got) == SAMPLES
    assert ODD not in got
    assert [error.index for error in replacing.errors] == [ODD]
    with refused(kl.SampleError, "of shape"):
        arrived(loader())
    with pytest.raises(kl.SampleError, match="max_errors=0"):
        arrived(loader(on_error="skip", max_errors=0))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_preloaded_without_what_does_not_fit(files: Files, on_error: str) -> None:
    """Another dtype is an error; another shape is accepted, as in preload."""
    paths = odd_files(files, RAGGED["dtype"])
    whole = kl.preload(
        kl.PathSequenceLoader(paths, labels(), BATCH, on_error=on_error, seed=1, shuffle=False),
        progress=False,
    )
    got = [int(v) for x, _ in whole for v in x[:, 0]]
    assert ODD not in got
    assert len(got) == SAMPLES - (on_error == "skip")


def test_most_of_a_batch_decides(files: Files) -> None:
    """If no sample of a batch has the shape of sample 0, on_error applies to the rarest shape."""
    for k, file in enumerate(files.npy):
        np.save(file, np.full(2 if k < 4 else 4 if k == 4 else 3, k, np.float32))
    loader = kl.PathSequenceLoader(files.npy, labels(), BATCH, on_error="skip", shuffle=False)
    assert [batch[1].tolist() for batch in loader] == [[0, 1, 2, 3], [5, 6, 7], [8, 9, 10, 11]]
    assert [error.index for error in loader.errors] == [4]


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
    """Custom loaders get the sample numbers in the error; transform= fixes it as advised."""

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
    """A list of arrays has known shapes; files need a signature, and the error says so."""
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
