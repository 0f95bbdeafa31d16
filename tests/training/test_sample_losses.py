"""The loss of each sample of an epoch, by name, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kloaders as kl
from kloaders.training.sample_losses import SampleResults

SAMPLES, BATCH = 22, 4
LABELS = (np.arange(SAMPLES) % 3).astype(np.float32)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Files that hold their number, and another value."""
    found = [str(tmp_path / f"{k:02}.npy") for k in range(SAMPLES)]
    for k, path in enumerate(found):
        np.save(path, np.array([k, k % 5], np.float32))
    return found


def model_of(loss: Any = "mse", outputs: int = 1, **options: Any) -> Any:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Rescaling(0.1), keras.layers.Dense(outputs)]
    )
    model.compile(keras.optimizers.SGD(0.01), loss, **options)
    return model


def trained(model: Any, loader: Any, epochs: int = 1, **options: Any) -> SampleResults:
    callback = kl.LoaderCallback(loader)
    model.fit(loader, epochs=epochs, verbose=0, callbacks=[callback], **options)
    assert callback.samples is not None
    return callback.samples


def alone(model: Any, x: Any, y: Any) -> list[float]:
    """The loss of each sample, computed by Keras for batches of one."""
    return [float(model.evaluate(x[k : k + 1], y[k : k + 1], verbose=0)) for k in range(len(y))]


X = np.stack([np.arange(SAMPLES), np.arange(SAMPLES) % 5], axis=1).astype(np.float32)


@pytest.mark.parametrize("shuffle", [None, True, False])
def test_each_file_has_its_loss(paths: list[str], keep: Any, shuffle: bool | None) -> None:
    """By name, in the order of the data, whatever the order of training was."""
    loader = keep(
        kl.PathSequenceLoader(paths, LABELS, BATCH, shuffle=shuffle, with_ids=True, seed=3)
    )
    model = model_of()
    found = trained(model, loader, epochs=2)
    assert found.epoch == 1
    assert found.ids.tolist() == list(range(SAMPLES))
    assert found.names == paths
    want = alone(model, X, LABELS)
    np.testing.assert_allclose(found.losses, want, rtol=1e-4)
    np.testing.assert_allclose(found.predictions, model.predict(X, verbose=0), rtol=1e-4)
    order = np.argsort(want)[::-1][:3]
    assert [name for name, _ in found.worst(3)] == [paths[k] for k in order]


def squared(y: Any, p: Any) -> Any:
    """A loss of the user's, with a mean over the last axis."""
    return ops.mean(ops.square(ops.cast(y, p.dtype) - p), axis=-1)


class Doubled(keras.losses.Loss):
    """A class of the user's."""

    def call(self, y: Any, p: Any) -> Any:
        return 2 * ops.mean(ops.square(ops.cast(y, p.dtype) - p), axis=-1)


@pytest.mark.parametrize(
    ("loss", "outputs", "labels"),
    [
        ("binary_crossentropy", 1, LABELS % 2),
        (keras.losses.BinaryCrossentropy(from_logits=True), 1, (LABELS % 2)[:, None]),
        (keras.losses.MeanSquaredError(reduction="sum"), 2, X / 10),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3, LABELS.astype(int)),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=7),
            3,
            LABELS.astype(int),
        ),
        (squared, 2, X / 10),
        (Doubled(), 1, LABELS[:, None]),
    ],
    ids=["name", "logits", "sum", "sparse", "ignored", "function", "class"],
)
def test_any_loss(loss: Any, outputs: int, labels: Any, keep: Any) -> None:
    loader = keep(kl.ArraySequenceLoader(X, labels, BATCH, with_ids=True, shuffle=True, seed=3))
    model = model_of(loss, outputs)
    found = trained(model, loader)
    want = alone(model, X, labels)
    np.testing.assert_allclose(found.losses, want, rtol=1e-4, atol=1e-6)


def test_several_outputs_and_regularization(keep: Any) -> None:
    """Outputs are weighted as in compile; regularization does not count for a sample."""
    inputs = keras.Input((2,))
    small = keras.layers.Rescaling(0.1)(inputs)
    a = keras.layers.Dense(1, kernel_regularizer="l2", name="a")(small)
    b = keras.layers.Dense(2, name="b")(small)
    model = keras.Model(inputs, {"a": a, "b": b})
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 3.0})
    y = {"a": LABELS[:, None], "b": X / 10}
    loader = keep(kl.ArraySequenceLoader(X, y, BATCH, with_ids=True, seed=3))
    found = trained(model, loader)
    out = model.predict(X, verbose=0)
    want = (out["a"][:, 0] - LABELS) ** 2 + 3 * np.abs(out["b"] - X / 10).mean(axis=1)
    np.testing.assert_allclose(found.losses, want, rtol=1e-4)
    assert found.predictions is None


def test_padding_and_samples_that_do_not_load_are_not_there(paths: list[str], keep: Any) -> None:
    Path(paths[5]).write_bytes(b"spoilt")
    loader = keep(
        kl.PathSequenceLoader(
            paths, LABELS, 5, with_ids=True, shuffle=True, seed=3, on_error="skip", pad_last=True
        )
    )
    model = model_of()
    found = trained(model, loader)
    others = [k for k in range(SAMPLES) if k != 5]
    assert found.ids.tolist() == others
    np.testing.assert_allclose(found.losses, alone(model, X[others], LABELS[others]), rtol=1e-4)
    assert len(loader.errors) == 1


def test_weights_are_no_part_of_a_loss(keep: Any) -> None:
    weights = np.arange(SAMPLES, dtype=np.float32)
    options = {"sample_weights": weights, "class_weight": {0: 1.0, 1: 5.0, 2: 0.0}}
    labels = LABELS.astype(int)
    loader = keep(kl.ArraySequenceLoader(X, labels, BATCH, with_ids=True, **options))
    model = model_of(keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3)
    found = trained(model, loader)
    np.testing.assert_allclose(found.losses, alone(model, X, labels), rtol=1e-4, atol=1e-6)


def test_shards_have_their_own_samples(keep: Any) -> None:
    """Together all of them."""
    options = {"with_ids": True, "shuffle": True, "seed": 3, "drop_last": True}
    seen: list[int] = []
    for k in range(2):
        loader = keep(kl.ArraySequenceLoader(X, LABELS, 2, shard=(k, 2), **options))
        model = model_of()
        found = trained(model, loader)
        want = alone(model, X[found.ids], LABELS[found.ids])
        np.testing.assert_allclose(found.losses, want, rtol=1e-4)
        seen += found.ids.tolist()
    assert len(set(seen)) == len(seen) == SAMPLES // 4 * 4


def test_the_samples_are_those_of_the_epoch(keep: Any) -> None:
    """A transform repeats its random numbers of the epoch; the loader keeps its position."""
    drawn: dict[int, list[float]] = {}

    def moved(x: Any, y: Any, rng: Any, epoch: int) -> Any:
        value = rng.random()
        drawn.setdefault(epoch, []).append(value)
        return x + np.float32(value), y

    loader = keep(
        kl.ArraySequenceLoader(
            X, LABELS, BATCH, with_ids=True, shuffle=True, seed=3, transform=moved, workers=0
        )
    )
    trained(model_of(), loader, epochs=3, initial_epoch=1)
    assert set(drawn) <= {0, 1, 2}
    for epoch in (1, 2):
        assert len(set(drawn[epoch])) == SAMPLES


def test_a_sample_that_comes_several_times_has_the_mean(paths: list[str], keep: Any) -> None:
    def either(x: Any, y: Any, rng: Any) -> Any:
        return x + np.float32(rng.normal()), y

    loader = keep(
        kl.PathSequenceLoader(
            paths, LABELS, BATCH, with_ids=True, seed=3, samples_per_file=3, transform=either
        )
    )
    model = model_of()
    found = trained(model, loader)
    assert found.ids.tolist() == list(range(SAMPLES))
    every = [
        (k, loss)
        for batch in loader.epoch_batches(0, shuffle=True)
        for k, loss in zip(loader.ids_of(batch), alone(model, *batch), strict=True)
    ]
    want = [np.mean([loss for k, loss in every if k == n]) for n in range(SAMPLES)]
    np.testing.assert_allclose(found.losses, want, rtol=1e-4)


def test_without_the_option_nothing_is_collected(keep: Any) -> None:
    loader = keep(kl.ArraySequenceLoader(X, LABELS, BATCH))
    callback = kl.LoaderCallback(loader)
    model_of().fit(loader, verbose=0, callbacks=[callback])
    assert callback.samples is None
    with pytest.raises(TypeError, match="with_ids=1"):
        kl.ArraySequenceLoader(X, LABELS, BATCH, with_ids=1)


def results(losses: Any) -> SampleResults:
    return SampleResults(0, np.arange(3), ["a", "b", "c"], losses, None)


def test_the_worst_come_first() -> None:
    assert [n for n, _ in results(np.array([1.0, np.nan, 3.0])).worst()] == ["b", "c", "a"]
    assert results(np.array([1.0, 2.0, 3.0])).worst(1) == [("c", 3.0)]
    with pytest.raises(ValueError, match="count=0"):
        results(np.zeros(3)).worst(0)
    with pytest.raises(ValueError, match="has no labels"):
        results(None).worst()


# ---------------------------------------------------------------- ids_of


MAKERS: dict[str, Callable[..., Any]] = {
    "arrays": lambda **o: kl.ArraySequenceLoader(X, LABELS, BATCH, **o),
    "padded": lambda **o: kl.padded_batches(
        kl.ArraySequenceLoader([np.full(1 + k % 4, k) for k in range(SAMPLES)], LABELS, BATCH, **o)
    ),
    "bucketed": lambda **o: kl.bucket_by_length(
        kl.ArraySequenceLoader([np.full(1 + k % 4, k) for k in range(SAMPLES)], LABELS, BATCH, **o)
    ),
    "a dict": lambda **o: kl.ArraySequenceLoader({"a": X, "b": X}, LABELS, BATCH, **o),
    "inputs alone": lambda **o: kl.ArraySequenceLoader(X, None, BATCH, **o),
    "autoencoder": lambda **o: kl.inputs_as_labels(kl.ArraySequenceLoader(X, None, BATCH, **o)),
    "batch_transform": lambda **o: kl.ArraySequenceLoader(
        X, LABELS, BATCH, batch_transform=lambda x, y, rng: (x + 0, y), **o
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_ids_of_a_batch(kind: str, workers: int, keep: Any) -> None:
    loader = keep(MAKERS[kind](shuffle=True, seed=3, workers=workers))
    seen = []
    for batch in loader:
        ids = loader.ids_of(batch)
        assert ids.dtype == np.int64
        x = batch[0] if isinstance(batch, tuple) else batch
        x = x["a"] if isinstance(x, dict) else x
        np.testing.assert_array_equal(x[:, 0], ids)
        np.testing.assert_array_equal(loader.ids_of(x), ids)
        seen += ids.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    with pytest.raises(ValueError, match="as this loader"):
        loader.ids_of(np.array(x))


def test_ids_of_padding_are_minus_one(keep: Any) -> None:
    loader = keep(kl.ArraySequenceLoader(X, LABELS, 5, pad_last=True, shuffle=False))
    assert loader.ids_of(loader[4]).tolist() == [20, 21, -1, -1, -1]
    with pytest.raises(ValueError, match="another"):
        loader.ids_of(loader.view()[0])
