"""Trains on all kinds of samples: weights, classes, preprocess=, random reads, changes by epoch."""

import contextlib

import cv2
import keras
import numpy as np
import pytest
from keras import ops

import kloaders as kl
from tests.support.recording import BACKEND

N = 24
COMPILE = {"jit_compile": False} if BACKEND == "tensorflow" else {}


def identity(shape):
    """A model that returns its input, with one unused weight."""
    inputs = keras.Input(shape)
    outputs = keras.layers.DepthwiseConv2D(
        1, depthwise_initializer="ones", use_bias=False, trainable=False
    )(inputs)
    return keras.Model(inputs, outputs)


def apart(y, p):
    return ops.square(y - p)[..., 0]


def test_a_map_of_weights_moves_with_its_pixels():
    """Labels are wrong where weights are 0: the loss is 0 as long as they stay together."""
    rng = np.random.default_rng(0)
    x = rng.random((N, 4, 4, 1)).astype(np.float32)
    weights = (rng.random((N, 4, 4)) < 0.5).astype(np.float32)
    y = np.where(weights[..., None] > 0, x, 9).astype(np.float32)

    def flip(x, y, w, rng):
        if rng.random() < 0.5:
            x, y, w = x[:, ::-1], y[:, ::-1], w[:, ::-1]
        return x, y, w

    model = identity((4, 4, 1))
    model.compile("sgd", apart, **COMPILE)
    loader = kl.ArraySequenceLoader(
        x, y, 5, seed=1, sample_weights=weights, transform=flip, pad_last=True
    )
    history = model.fit(loader, validation_data=loader.view(), epochs=3, verbose=0).history
    assert max(*history["loss"], *history["val_loss"]) == 0
    assert model.evaluate(x, y, verbose=0) > 1  # without weights it is not


def losses(model, loader, arrays):
    """The loss by a loader in one batch, and by arrays in RAM."""
    found = model.evaluate(loader, verbose=0)
    want = model.evaluate(
        *arrays[:2], sample_weight=arrays[2], batch_size=len(arrays[1]), verbose=0
    )
    return found, want


def dense(units=1, name=None):
    return keras.layers.Dense(units, kernel_initializer="ones", name=name)


def test_classes_weigh_with_weights_and_padding():
    """A combination that fit itself rejects: class_weight, sample weights, and a padded batch."""
    x = np.arange(N, dtype=np.float32)[:, None]
    y = (np.arange(N) % 4 == 0).astype(np.int32)
    own = np.linspace(0.5, 2, N).astype(np.float32)
    loader = kl.ArraySequenceLoader(
        x, y, N + 8, sample_weights=own, class_weight={0: 1.0, 1: 9.0}, pad_last=True
    )
    model = keras.Sequential([keras.Input((1,)), dense()])
    model.compile(keras.optimizers.SGD(0.0), "mse", **COMPILE)
    wanted = own * np.where(y == 1, 9, 1)
    padded = [np.concatenate([a, np.zeros((8, *a.shape[1:]), a.dtype)]) for a in (x, y, wanted)]
    found, want = losses(model, loader, padded)
    assert found == pytest.approx(want, rel=1e-5)
    assert model.fit(loader, verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_outputs_have_weights_of_their_own(kind):
    x = np.arange(N, dtype=np.float32)[:, None]
    inputs = keras.Input((1,))
    a, b = dense(name="a")(inputs), dense(2, name="b")(inputs)
    y = [x[:, 0] + 1, np.repeat(x, 2, axis=1) + 2]
    w = [np.linspace(0, 1, N).astype(np.float32), np.linspace(3, 1, N).astype(np.float32)]
    if kind == "dict":
        model = keras.Model(inputs, {"a": a, "b": b})
        y, w = ({"a": one, "b": two} for one, two in (y, w))
    else:
        model = keras.Model(inputs, (a, b))
        y, w = tuple(y), tuple(w)
    mse = {"a": "mse", "b": "mse"} if kind == "dict" else ["mse", "mse"]
    model.compile(keras.optimizers.SGD(0.0), mse, **COMPILE)
    loader = kl.ArraySequenceLoader(x, y, N, sample_weights=w)
    found, want = losses(model, loader, (x, y, w) if kind == "dict" else (x, list(y), list(w)))
    np.testing.assert_allclose(found, want, rtol=1e-5)
    total = found[0] if isinstance(found, list) else found
    assert model.fit(loader, verbose=0).history["loss"][0] == pytest.approx(total, rel=1e-5)


def test_validation_and_predict_are_preprocessed():
    x = np.arange(1000, 1000 + N, dtype=np.float32)[:, None]
    train, val = kl.split(
        kl.ArraySequenceLoader(
            x,
            (x[:, 0] - 1000) / N,
            8,
            seed=1,
            preprocess=lambda x, y: ((x - 1000) / N, y),
            transform=lambda x, y, rng: (x + 0 * rng.random(dtype=np.float32), y),
        ),
        seed=1,
    )
    model = keras.Sequential([keras.Input((1,)), dense()])
    model.compile(keras.optimizers.SGD(0.0), "mse", **COMPILE)
    history = model.fit(train, validation_data=val, verbose=0).history
    assert max(history["loss"][0], history["val_loss"][0]) < 1e-10
    assert model.predict(val, verbose=0).max() <= 1


class Windows(kl.SequenceLoader):
    """Sample k is k itself and the epoch: read by a hook that asks for both."""

    def load_sample(self, index, rng, epoch):
        return np.float32([index, epoch]), np.float32(0)


def test_the_epoch_reaches_a_hook_in_fit():
    seen = []

    class Watched(Windows):
        def load_sample(self, index, rng, epoch):
            seen.append((index, epoch, int(rng.integers(10**6))))
            return super().load_sample(index, rng, epoch)

    model = keras.Sequential([keras.Input((2,)), dense()])
    model.compile("sgd", "mse", **COMPILE)
    loader = Watched(N, 8, seed=3)
    model.fit(loader, epochs=2, verbose=0, callbacks=[kl.LoaderCallback(loader)])
    drawn = {(index, epoch): number for index, epoch, number in seen}
    assert {(k, e) for k in range(N) for e in range(2)} <= set(drawn)
    assert len({drawn[k, e] for k in range(N) for e in range(2)}) > N
    for index, epoch, number in seen:
        assert drawn[index, epoch] == number


@pytest.mark.parametrize("watched", [True, False], ids=["LoaderCallback", "alone"])
def test_a_change_between_epochs_is_what_the_model_gets(watched):
    """A callback sets another transform at the end of an epoch: the next one has it, whole."""
    sums = []

    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            sums.append(logs["mean"])
            n = 10.0 * (epoch + 1)
            loader.set(transform=lambda x, y, rng: (x + np.float32(n), y))

    def mean(y, p):
        return p[:, 0]

    x = np.zeros((N, 1), np.float32)
    model = keras.Sequential([keras.Input((1,)), dense()])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[mean], **COMPILE)
    loader = kl.ArraySequenceLoader(x, x[:, 0], 8, seed=1, transform=lambda x, y, rng: (x, y))
    callbacks = [kl.LoaderCallback(loader)] if watched else []
    model.fit(loader, epochs=3, verbose=0, callbacks=[*callbacks, Adds()])
    assert sums == [0, 10, 20]


def test_a_size_grows_from_epoch_to_epoch(tmp_path):
    """In one fit where the backend takes it; on TensorFlow by one fit a size, and an error says so."""
    paths = [str(tmp_path / f"{k:02}.png") for k in range(N)]
    for k, path in enumerate(paths):
        cv2.imwrite(path, np.full((8, 8, 3), k, np.uint8))
    one_fit = BACKEND != "tensorflow"
    refused = pytest.raises(ValueError, match=r"set\(size=\) during fit")
    widths = []

    class Grows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            widths.append(logs["width"])
            with contextlib.nullcontext() if one_fit else refused:
                loader.set(size=(4 + 2 * (epoch + 1), 4))

    def width(y, p):
        return p[:, 0]

    pixels = keras.Input((None, 4, 3))
    counted = keras.layers.Lambda(
        lambda x: ops.sum(ops.ones_like(x[:, :, :1, 0]), axis=1), output_shape=(1,)
    )(pixels)
    model = keras.Model(pixels, counted)
    model.compile("sgd", "mse", metrics=[width], **COMPILE)
    loader = kl.PathSequenceLoader(paths, np.zeros(N, np.float32), 8, size=(4, 4), seed=1)
    if one_fit:
        model.fit(loader, epochs=3, verbose=0, callbacks=[Grows()])
    else:
        for epoch in range(3):
            loader.set(size=(4 + 2 * epoch, 4))
            model.fit(loader, initial_epoch=epoch, epochs=epoch + 1, verbose=0, callbacks=[Grows()])
    assert widths == [4, 6, 8]
