"""One contract for every loader: each sample once an epoch in what the model received.

Sample numbers are written into the data and read back by a layer of the model (`tests/support/recording.py`),
in training, in evaluation and in prediction, with whatever backend KERAS_BACKEND names.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import psutil
import pytest
from keras import ops

import kloaders as kl
from kloaders.interop.tf_dataset import _Source
from kloaders.plan.epoch import Order, sample_rng
from tests.support.drawing import draw_number
from tests.support.recording import (
    BACKEND,
    Counts,
    Recorder,
    loss,
    mismatch,
    numbers_of,
    our_threads,
    picture_of,
    recording_model,
    row_of,
    wait_for_device,
)

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH = 11, 4  # batches of 4, 4 and 3
SHUFFLES = [None, True, False]
TF = BACKEND == "tensorflow"

scenario = pytest.mark.scenario
not_on_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras' torch backend takes one step per execution"
)
only_tf = pytest.mark.skipif(not TF, reason="a part of TensorFlow")
only_jax = pytest.mark.skipif(BACKEND != "jax", reason="a part of JAX")


# ---------------------------------------------------------------- one loader of each kind


class RawLoader(kl.PathSequenceLoader):
    """A user's own format: headerless little-endian float32."""

    def load_sample(self, path):
        return np.fromfile(path, "<f4")


class IndexLoader(kl.SequenceLoader):
    """A user's own source, sample by sample."""

    def load_sample(self, index):
        return row_of(index), np.float32(index)


class BatchLoader(kl.SequenceLoader):
    """A user's own source that reads many samples at once."""

    def load_batch(self, indices):
        return np.stack([row_of(i) for i in indices]), indices.astype(np.float32)


class Shared:
    """Files of 24 samples in three formats."""

    def __init__(self, folder):
        import cv2

        self.folder = folder
        self.npy, self.png, self.raw = [], [], []
        for number in range(24):
            name = str(folder / f"{number:03}")
            np.save(name + ".npy", row_of(number))
            cv2.imwrite(name + ".png", picture_of(number)[..., ::-1])
            row_of(number).tofile(name + ".raw")
            for suffix in ("npy", "png", "raw"):
                getattr(self, suffix).append(f"{name}.{suffix}")

    def pack(self, n):
        """A pack of the first n samples, in shards of five."""
        folder = self.folder / f"pack{n}"
        if not folder.exists():
            source = kl.ArraySequenceLoader(rows(n), labels(n))
            kl.write_pack(source, folder, shard_size=5 * 12, progress=False)
        return folder

    def records(self, n, compression=None):
        """TFRecord files of the first n samples."""
        name = self.folder / f"records{n}{compression}"
        if not list(self.folder.glob(f"{name.name}-*")):
            source = kl.ArraySequenceLoader(rows(n), labels(n))
            kl.write_tfrecords(
                source, out=name, shards=min(n, 2), compression=compression, progress=False
            )
        return f"{name}-*"


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("samples"))


def labels(n):
    return np.arange(n, dtype=np.float32)


def rows(n):
    return np.stack([row_of(i) for i in range(n)])


def array(files, n, **options):
    return kl.ArraySequenceLoader(rows(n), labels(n), BATCH, **options)


def npy(files, n, **options):
    return kl.PathSequenceLoader(files.npy[:n], labels(n), BATCH, **options)


def png(files, n, **options):
    return kl.PathSequenceLoader(files.png[:n], labels(n), BATCH, **options)


def ram_windows(files, n, **options):
    return kl.RamBatchSequenceLoader(
        files.npy[:n], labels(n), BATCH, ram_batch_size=8, draw="windows", **options
    )


def ram_global(files, n, **options):
    return kl.RamBatchSequenceLoader(files.npy[:n], labels(n), BATCH, ram_batch_size=8, **options)


def by_path(files, n, **options):
    return RawLoader(files.raw[:n], labels(n), BATCH, **options)


def by_index(files, n, **options):
    return IndexLoader(n, BATCH, **options)


def by_batch(files, n, **options):
    return BatchLoader(n, BATCH, **options)


def preloaded(files, n, **options):
    return kl.preload(npy(files, n, **options), progress=False)


def packed(files, n, **options):
    return kl.PackSequenceLoader(files.pack(n), BATCH, **options)


def records(files, n, **options):
    return kl.TFRecordSequenceLoader(files.records(n), {"x": "x", "y": "label"}, BATCH, **options)


def records_gzip(files, n, **options):
    return kl.TFRecordSequenceLoader(
        files.records(n, "GZIP"), {"x": "x", "y": "label"}, BATCH, ram_batch_size=8, **options
    )


KINDS = [
    array,
    npy,
    png,
    ram_windows,
    ram_global,
    by_path,
    by_index,
    by_batch,
    preloaded,
    packed,
    records,
    records_gzip,
]
# Kinds whose bookkeeping differs; the others differ only in how a sample is read.
FEW = [array, npy, ram_windows, ram_global, by_index]


def kinds(of):
    return pytest.mark.parametrize("kind", of, ids=[kind.__name__ for kind in of])


@pytest.fixture
def make(files, keep):
    """make(kind, samples, **options) -> a loader with a seed, closed when the test ends."""

    def _make(kind, n=SAMPLES, **options):
        return keep(kind(files, n, **{"seed": 7, **options}))

    return _make


# ---------------------------------------------------------------- models, built once


@lru_cache
def _model(form, options):
    shape, dtype = ((4, 4, 3), "uint8") if form == "picture" else ((2,), "float32")
    return recording_model(shape, dtype, **dict(options))


def model_for(kind=None, **options):
    """The model for a kind of loader, and its record, emptied. Tests share it."""
    model, received = _model("picture" if kind is png else "row", tuple(options.items()))
    received.clear()
    model.stop_training = False
    return model, received


def fit(model, data, **options):
    with warnings.catch_warnings():
        # steps_per_epoch beyond the length is among what is tested.
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message=".*`shuffle=True` was passed")
        history = model.fit(data, verbose=0, **options).history
    assert not np.any(history.get("mismatch", 0)), "an x came with another's y"
    return history


class Stop(keras.callbacks.Callback):
    """Sets stop_training after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            self.model.stop_training = True


class Call(keras.callbacks.Callback):
    """Calls a function of the model at some moment of the training."""

    def __init__(self, function, when="on_epoch_end", step=None):
        super().__init__()

        def hook(number, logs=None):
            if step is None or number == step:
                # On JAX this property brings the weights back to the model.
                function(self.model)

        setattr(self, when, hook)


# ---------------------------------------------------------------- what is right


def samples_of(batches):
    return [number for batch in batches for number in batch]


def assert_exact(batches, loader, passes=None):
    """The stream of batches is cut into passes, and each has every sample once."""
    size = len(loader)
    found = [batches[k : k + size] for k in range(0, len(batches), size)]
    if passes is not None:
        assert len(found) == passes, f"{len(batches)} batches"
        assert len(batches) == passes * size
    for one in found:
        numbers = samples_of(one)
        if len(one) == size:
            assert sorted(numbers) == list(range(loader.samples))
        else:
            assert len(set(numbers)) == len(numbers)
    return found


def assert_planned(found, loader, epochs=None):
    """Each pass is the loader's plan for one epoch, batch by batch and sample by sample."""
    for k, one in enumerate(found):
        orders = [
            Order(epoch, head)
            for epoch in ([epochs[k]] if epochs else range(30))
            for head in range(len(loader) + 1)
        ]
        assert any(
            one == [loader.plan.indices(order, b).tolist() for b in range(len(one))]
            for order in orders
        ), f"pass {k} is no order of this loader's plan: {one}"


def in_storage_order(loader):
    starts = range(0, loader.samples, loader.batch_size)
    return [list(range(s, min(s + loader.batch_size, loader.samples))) for s in starts]


# ---------------------------------------------------------------- fit


@scenario("fit of several epochs")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_fit(make, kind, shuffle):
    """fit with Keras' default shuffle gives every sample once an epoch, x with its own y."""
    model, received = model_for(kind)
    loader = make(kind, shuffle=shuffle)
    fit(model, loader, epochs=2)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1])
        assert found[0] != found[1]
    elif kind in (ram_windows, ram_global):
        assert found == [in_storage_order(loader)] * 2
    else:
        assert all(sorted(one) == in_storage_order(loader) for one in found)


@scenario("fit(shuffle=False)")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_fit_unshuffled(make, kind, shuffle):
    """fit(shuffle=False) gets storage order, or the loader's own if it was told shuffle=True."""
    model, received = model_for(kind)
    loader = make(kind, shuffle=shuffle)
    fit(model, loader, epochs=2, shuffle=False)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle:
        assert_planned(found, loader, epochs=[0, 1])
    else:
        assert found == [in_storage_order(loader)] * 2


@scenario("the model is built by fit")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@kinds([array, ram_windows])
def test_fit_of_an_unbuilt_model(make, kind, callback):
    """Batches that Keras reads to build model and metrics are missing from no epoch."""
    model, received = recording_model()
    loader = make(kind)
    fit(model, loader, epochs=2, callbacks=[kl.LoaderCallback(loader)] if callback else [])
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[0, 1])


@scenario("fit, eager")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_fit_eager(make, kind, shuffle):
    """run_eagerly=True changes nothing: fit, stopped, fit again, and evaluate."""
    model, received = model_for(kind, run_eagerly=True)
    loader = make(kind, shuffle=shuffle)
    fit(model, loader, epochs=2)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1])
    fit(model, loader, callbacks=[Stop(0)])
    received.clear()
    fit(model, loader, epochs=3, steps_per_epoch=2)
    assert_exact(received.trained, loader)
    model.evaluate(loader, verbose=0)
    assert_exact(received.inferred, loader, passes=1)


@scenario("fit, counted on the device")
@kinds([array, ram_global])
def test_fit_counted_by_a_metric(make, kind):
    """A compiled metric counts each sample number once an epoch, with Keras' own jit settings."""
    x = inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Rescaling(1e-3)(x)))
    model.compile("sgd", loss, metrics=[Counts(SAMPLES)])
    history = model.fit(make(kind), epochs=2, verbose=0).history
    np.testing.assert_array_equal(history["counts"], np.ones((2, SAMPLES)))


def stream_of(loader, batches):
    """The first batches of a loader's endless order."""
    size = loader.batch_size
    stream = loader.plan.stream
    return [stream.samples(k * size, (k + 1) * size).tolist() for k in range(batches)]


@scenario("epochs of any length, each going on where the last ended")
@pytest.mark.parametrize("length", [1, 2, 7])
@kinds([array, ram_global])
def test_epoch_batches(make, kind, length):
    """Two fits, and a validation, on one stream: nothing is lost between epochs of any length."""
    model, received = model_for()
    loader = make(kind, epoch_batches=length)
    fit(model, loader, epochs=3, validation_data=make(array))
    fit(model, loader, epochs=2)
    assert received.trained == stream_of(loader, 5 * length)
    assert received.inferred == 3 * in_storage_order(make(array))


@scenario("epochs of any length, the model is built by fit")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("length", [1, 4])
def test_epoch_batches_of_an_unbuilt_model(make, length, callback):
    """A batch that Keras reads to build the model is none of the stream."""
    model, received = recording_model()
    loader = make(array, epoch_batches=length)
    fit(model, loader, epochs=3, callbacks=[kl.LoaderCallback(loader)] if callback else [])
    assert received.trained == stream_of(loader, 3 * length)


@scenario("class_balance, sampling_weights and mix")
@pytest.mark.parametrize(
    "options",
    [
        {"class_balance": np.arange(SAMPLES) // 9},
        {"sampling_weights": np.arange(SAMPLES), "epoch_batches": 2},
        {"sampling_weights": np.arange(SAMPLES), "replacement": True},
        {},
    ],
    ids=["class_balance", "sampling_weights", "replacement", "mix"],
)
@kinds([array, ram_global, records])
def test_sampling(make, kind, options):
    """What is drawn is drawn alike by every loader, and reaches the model in the order drawn."""
    model, received = model_for()
    if options:
        loader = make(kind, **options)
    else:
        first = kind if kind is not ram_global else npy
        loader = kl.mix([make(first), make(array, 5, seed=8)], [2, 1], seed=7)
    fit(model, loader, epochs=3)
    want = stream_of(loader, 3 * len(loader))
    if not options:  # numbers of the second loader begin again
        want = [[k if k < SAMPLES else k - SAMPLES for k in batch] for batch in want]
    assert received.trained == want
    loader.close()


@scenario("batch_transform")
@kinds([*FEW, by_batch])
def test_batch_transform(make, kind):
    """Sees every batch once, in fit and in predict, and short ones as they are."""
    model, received = model_for()
    seen = []

    def move(x, y, rng):
        seen.append(len(x))
        return x + np.array([100, 0], x.dtype), y + 100

    loader = make(kind, batch_transform=move)
    fit(model, loader, epochs=2)
    model.predict(loader, verbose=0)
    assert_exact([[k - 100 for k in b] for b in received.trained], loader, passes=2)
    assert [[k - 100 for k in b] for b in received.inferred] == in_storage_order(loader)
    assert set(seen) == {3, 4}


@scenario("epochs of 1, 2 and 3 batches")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("batches", [1, 2, 3])
@kinds(FEW)
def test_short_epochs(make, kind, batches, shuffle):
    """In short epochs a permutation often begins in order, and stays exact."""
    model, received = model_for()
    loader = make(kind, BATCH * batches - 1, shuffle=shuffle)
    fit(model, loader, epochs=6)
    found = assert_exact(received.trained, loader, passes=6)
    if shuffle is not False:
        assert_planned(found, loader)


@scenario("three fits in a row")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_three_fits(make, kind, shuffle):
    """One fit of three epochs and three fits of one are the same training."""
    model, received = model_for()
    loader = make(kind, shuffle=shuffle)
    for _ in range(3):
        fit(model, loader)
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1, 2])


@scenario("stopped in mid-epoch, then fit again")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_stop_and_fit_again(make, kind, shuffle, callback):
    """A fit after stop_training in mid-epoch is exact from its first batch on."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)
    ours = [kl.LoaderCallback(loader)] if callback else []
    for step in (1, 0):
        fit(model, loader, callbacks=[Stop(step), *ours])
        assert len(received.trained) == step + 1
        assert_exact(received.trained, loader)
        received.clear()
    fit(model, loader, epochs=2, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader)


class Interrupted(Exception):
    """Something that a callback may raise."""


@scenario("an exception from a callback in mid-epoch, then predict, evaluate, fit again")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_callback_raises_and_fit_again(make, kind, shuffle, callback):
    """What follows a fit that a callback broke off in mid-epoch is exact.

    Keras tells no callback that a fit has failed: LoaderCallback has to find out.
    """
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)

    def fail(model):
        raise Interrupted

    ours = [kl.LoaderCallback(loader)] if callback else []
    with pytest.raises(Interrupted) as held:  # and with it the frame of fit
        fit(model, loader, epochs=9, callbacks=[*ours, Call(fail, "on_train_batch_end", 1)])
    assert_exact(received.trained, loader)
    model, received = sound_model()
    predicted = model.predict(loader, verbose=0)[:, 1]
    assert sorted(predicted) == list(range(19))
    if not shuffle:
        np.testing.assert_array_equal(predicted, np.arange(19))
    received.clear()
    model.evaluate(loader, verbose=0)
    assert_exact(received.inferred, loader, passes=1)
    fit(model, loader, epochs=3)
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader)
        assert len({tuple(samples_of(one)) for one in found}) == 3
    del held


def sound_model():
    """A model to go on with after a fit that failed.

    On JAX the weights of a model are handed to the training step and lost when it fails.
    """
    if BACKEND == "jax":
        _model.cache_clear()
    return model_for()


class Flaky(kl.SequenceLoader):
    """Raises for one sample as long as `broken` is set."""

    broken = True

    def load_sample(self, index):
        if self.broken and index == 9:
            raise OSError("Expected exception")
        return row_of(index), np.float32(index)


@scenario("an exception from the loader in mid-epoch, then fit again")
@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "threads"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_loader_raises_and_fit_again(keep, shuffle, workers):
    """A sample that does not load ends the fit with its name; mended, the next fit is exact.

    The report is after Keras' py_dataset_adapter_test.py, test_exception_reported.
    """
    model, received = model_for()
    loader = keep(Flaky(19, BATCH, shuffle=shuffle, seed=7, workers=workers))
    with pytest.raises(Exception, match=r"index 9.*Expected exception") as caught:
        fit(model, loader)
    if not TF:
        assert caught.type is kl.SampleError
    model, received = sound_model()
    loader.broken = False
    fit(model, loader, epochs=2)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader)


# ---------------------------------------------------------------- evaluation and prediction


@scenario("the same object as training and validation data")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_validated_on_itself(make, kind, shuffle, callback):
    """Training and validation on one loader are both exact, validation in storage order."""
    model, received = model_for()
    loader = make(kind, shuffle=shuffle)
    ours = [kl.LoaderCallback(loader)] if callback else []
    fit(model, loader, epochs=3, validation_data=loader, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1, 2] if callback else None)
    validated = assert_exact(received.inferred, loader, passes=3)
    if not shuffle:
        assert validated == [in_storage_order(loader)] * 3


@scenario("predict in on_epoch_begin lines up, with LoaderCallback before or after it")
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_predictions_before_each_epoch(make, kind, shuffle, first):
    """A callback that looks at the training data before an epoch does not become that epoch."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)
    inner = Call(lambda m: m.predict(loader, verbose=0), "on_epoch_begin")
    ours = kl.LoaderCallback(loader)
    fit(model, loader, epochs=3, callbacks=[ours, inner] if first else [inner, ours])
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1, 2])
        assert all(one != in_storage_order(loader) for one in found)
    predicted = assert_exact(received.inferred, loader, passes=3)
    if not shuffle:
        assert predicted == [in_storage_order(loader)] * 3


@pytest.mark.parametrize("steps", [None, 2])
def test_what_only_a_callback_could_tell_is_said(make, caplog, steps):
    """A pass that comes in the middle of fit's own, with no callback: said once.

    Nothing is said where a fit is stopped, and the next one is an ordinary one.
    """
    caplog.set_level("INFO", "kloaders")
    model, _ = model_for()
    loader = make(array, 19)
    fit(model, loader, callbacks=[Stop(1)])
    fit(model, loader)
    model.evaluate(loader, verbose=0)
    model.predict(loader, verbose=0)
    fit(model, loader, epochs=2)
    assert not caplog.messages
    if steps:
        fit(model, loader, epochs=5, steps_per_epoch=2, validation_data=loader)
    else:
        inner = Call(lambda m: m.evaluate(loader, verbose=0), "on_train_batch_end", 1)
        fit(model, loader, epochs=2, callbacks=[inner])
    assert len([said for said in caplog.messages if "LoaderCallback(loader)" in said]) == 1


@scenario("evaluate of the same object inside a fit, with LoaderCallback")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_evaluated_inside_fit(make, kind, shuffle):
    """A callback that evaluates the training data in mid-epoch leaves the epoch exact."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)
    inner = Call(lambda m: m.evaluate(loader, verbose=0), "on_train_batch_end", 2)
    fit(model, loader, epochs=2, callbacks=[inner, kl.LoaderCallback(loader)])
    assert_exact(received.trained, loader, passes=2)
    assert_exact(received.inferred, loader, passes=2)


@scenario("evaluate")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_evaluate(make, kind, shuffle):
    """evaluate sees every sample once, before and after a fit on the same loader."""
    model, received = model_for(kind)
    loader = make(kind, shuffle=shuffle)
    for _ in range(2):
        logs = model.evaluate(loader, verbose=0, return_dict=True)
        assert logs["mismatch"] == 0
        (found,) = assert_exact(received.inferred, loader, passes=1)
        if not shuffle:
            assert found == in_storage_order(loader)
        received.clear()
        fit(model, loader)
        assert_exact(received.trained, loader, passes=1)
        received.clear()


@scenario("predict lines up with the paths, right after fit on the same object")
@pytest.mark.parametrize("shuffle", [None, False])
@kinds(KINDS)
def test_predictions_line_up(make, kind, shuffle):
    """Row i of predict(loader) is sample i, the same object fitted just before."""
    model, _ = model_for(kind)
    loader = make(kind, shuffle=shuffle)
    for _ in range(2):
        predicted = model.predict(loader, verbose=0)
        np.testing.assert_array_equal(predicted[:, 1], np.arange(SAMPLES))
        fit(model, loader)


@scenario("predict lines up after a fit that was stopped in mid-epoch")
@kinds(FEW)
def test_predictions_line_up_after_a_stop(make, kind):
    """A pass left half done does not move the rows of the prediction that follows."""
    model, _ = model_for()
    loader = make(kind, 19)
    fit(model, loader, callbacks=[Stop(1)])
    predicted = model.predict(loader, verbose=0)
    np.testing.assert_array_equal(predicted[:, 1], np.arange(19))


@scenario("predict in on_epoch_end lines up")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@kinds(FEW)
def test_predictions_inside_fit_line_up(make, kind, callback):
    """A callback that predicts the training data after each epoch gets its rows in order."""
    model, received = model_for()
    loader = make(kind)
    rows_found = []
    inner = Call(lambda m: rows_found.append(m.predict(loader, verbose=0)[:, 1]))
    fit(
        model,
        loader,
        epochs=3,
        callbacks=[inner, *([kl.LoaderCallback(loader)] if callback else [])],
    )
    np.testing.assert_array_equal(rows_found, [np.arange(SAMPLES)] * 3)
    found = assert_exact(received.trained, loader, passes=3)
    assert_planned(found, loader, epochs=[0, 1, 2] if callback else None)


@scenario("validation_steps")
@kinds([array, ram_windows])
def test_validation_steps(make, kind):
    """Each validation of two steps sees the first two batches as stored."""
    model, received = model_for()
    train, loader = make(array), make(kind, 19)
    fit(model, train, epochs=3, validation_data=loader, validation_steps=2)
    assert received.inferred == in_storage_order(loader)[:2] * 3
    assert_planned(assert_exact(received.trained, train, passes=3), train, epochs=[0, 1, 2])


@scenario("evaluate and predict with steps")
def test_evaluate_and_predict_some_steps(make):
    """evaluate(steps=2) and predict(steps=2) take the first two batches, every time."""
    model, received = model_for()
    loader = make(npy, 19)
    for _ in range(2):
        model.evaluate(loader, steps=2, verbose=0)
        predicted = model.predict(loader, steps=2, verbose=0)
        np.testing.assert_array_equal(predicted[:, 1], np.arange(8))
    assert received.inferred == in_storage_order(loader)[:2] * 4


# ---------------------------------------------------------------- steps and epochs


@scenario("steps_per_epoch below, equal to and above the length")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 7])
@kinds([array, ram_windows])
def test_steps_per_epoch(make, kind, steps, shuffle, callback):
    """The stream of passes stays exact, however Keras cuts it into epochs."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)  # 5 batches
    ours = [kl.LoaderCallback(loader)] if callback else []
    fit(model, loader, epochs=4, steps_per_epoch=steps, callbacks=ours)
    found = assert_exact(received.trained, loader)
    # An epoch of Keras ends early where a pass does.
    assert len(received.trained) == {1: 4, 2: 7, 4: 10, 5: 20, 7: 20}[steps]
    if shuffle is not False:
        assert_planned(found, loader, epochs=list(range(len(found))))


@scenario("initial_epoch, with LoaderCallback the true order of that epoch")
@pytest.mark.parametrize("shuffle", [None, True])
@kinds(FEW)
def test_initial_epoch(make, kind, shuffle):
    """A training that goes on at epoch 2 gets the orders of epochs 2 and 3."""
    model, received = model_for()
    loader = make(kind, shuffle=shuffle)
    fit(model, loader, epochs=4, initial_epoch=2, callbacks=[kl.LoaderCallback(loader)])
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[2, 3])


@scenario("BackupAndRestore, with LoaderCallback the true order of each epoch")
@kinds([array, ram_windows])
def test_backup_and_restore(make, kind, tmp_path):
    """A training that failed in epoch 2 is made again from the start of that epoch."""

    def train(loader, *others):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(model, loader, epochs=4, callbacks=[backup, kl.LoaderCallback(loader), *others])

    model, received = recording_model()  # Keras' models remember the epoch they were restored to
    loader = make(kind)
    steps = itertools.count(1)

    def fail(model):
        if next(steps) > 2 * len(loader):  # past the first step of epoch 2
            raise Interrupted

    with contextlib.suppress(Interrupted):
        train(loader, Call(fail, "on_train_batch_end"))
    model, received = recording_model()
    again = make(kind)
    train(again)
    assert_planned(assert_exact(received.trained, again, passes=2), again, epochs=[2, 3])


@scenario("initial_epoch")
def test_initial_epoch_alone(make):
    """Without the callback the epochs are exact; their orders begin at epoch 0."""
    model, received = model_for()
    loader = make(array)
    fit(model, loader, epochs=4, initial_epoch=2)
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[0, 1])


@scenario("steps_per_execution=4")
@not_on_torch
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds([array, ram_windows])
def test_steps_per_execution(make, kind, shuffle, callback):
    """Several steps in one call of the backend are as exact as one."""
    model, received = model_for(steps_per_execution=4)
    loader = make(kind, 19, shuffle=shuffle)
    ours = [kl.LoaderCallback(loader)] if callback else []
    fit(model, loader, epochs=3, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader, epochs=[0, 1, 2])


@scenario("drop_last")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_drop_last(make, kind, shuffle):
    """Only whole batches come, no sample twice, and other samples are left out each epoch."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle, drop_last=True)
    assert len(loader) == 4
    fit(model, loader, epochs=5)
    assert [len(batch) for batch in received.trained] == [BATCH] * 20
    epochs = [samples_of(received.trained[k : k + 4]) for k in range(0, 20, 4)]
    assert all(len(set(numbers)) == 16 for numbers in epochs)
    if shuffle is not False:
        assert set(range(19)) == set(samples_of(epochs))


@scenario("the last short batch")
@kinds(KINDS)
def test_last_short_batch(make, kind):
    """The short batch of an epoch is its last, shuffled or not."""
    model, received = model_for(kind)
    loader = make(kind)
    fit(model, loader, epochs=2)
    model.evaluate(loader, verbose=0)
    assert [len(batch) for batch in received.trained] == [4, 4, 3] * 2
    assert [len(batch) for batch in received.inferred] == [4, 4, 3]


# ---------------------------------------------------------------- weights


def weighing_model(**options):
    """A model that does not learn: its weighted loss is a sum that can be done by hand."""
    inputs = keras.Input((2,))
    dense = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    model.compile(
        keras.optimizers.SGD(0.0), loss, weighted_metrics=[Counts(SAMPLES)], jit_compile=False
    )
    each = rows(SAMPLES).sum(axis=1) ** 2
    return model, each


def in_batches(weighted):
    """What Keras reports: the mean over samples of losses that it averages batch by batch."""
    return float(np.sum(weighted) / SAMPLES)


@scenario("class_weight")
@kinds([array, npy, ram_windows])
def test_class_weight(files, keep, kind):
    """class_weight takes effect: the loss is the one computed by hand.

    After Keras' py_dataset_adapter_test.py, test_class_weight.
    """
    model, each = weighing_model()
    classes = np.arange(SAMPLES) % 3
    weight = {0: 2.0, 1: 1.0, 2: 3.0}
    source = {"array": rows(SAMPLES)}.get(kind.__name__, files.npy[:SAMPLES])
    if kind is ram_windows:
        loader = kl.RamBatchSequenceLoader(source, classes, BATCH, ram_batch_size=8, seed=1)
    elif kind is array:
        loader = kl.ArraySequenceLoader(source, classes, BATCH, seed=1)
    else:
        loader = kl.PathSequenceLoader(source, classes, BATCH, seed=1)
    history = fit(model, keep(loader), epochs=2, class_weight=weight)
    expected = in_batches(each * np.array([weight[c] for c in classes]))
    np.testing.assert_allclose(history["loss"], [expected] * 2, rtol=1e-5)
    assert abs(expected - in_batches(each)) > 1


@scenario("sample_weights")
@kinds(KINDS)
def test_sample_weights(make, kind):
    """Each sample travels with its own weight, into the loss and into weighted metrics."""
    if kind is png:
        pytest.skip("weights do not depend on what x is")
    model, each = weighing_model()
    weights = np.arange(SAMPLES, dtype=np.float32) / 4
    loader = make(kind, sample_weights=weights)
    history = fit(model, loader, epochs=2)
    np.testing.assert_allclose(history["loss"], [in_batches(each * weights)] * 2, rtol=1e-5)
    np.testing.assert_array_equal(history["counts"], [weights] * 2)


@scenario("pad_last")
@kinds(FEW)
def test_pad_last(make, kind):
    """Every batch is full, and what fills the last one weighs nothing."""
    model, _ = weighing_model()
    loader = make(kind, pad_last=True)
    assert [len(loader[k][0]) for k in range(3)] == [BATCH] * 3
    history = fit(model, loader, epochs=2)
    np.testing.assert_array_equal(history["counts"], np.ones((2, SAMPLES)))


# ---------------------------------------------------------------- several inputs and outputs


def two_in_two_out(names):
    """A model over two inputs and two outputs, by name or by position."""
    _, received = model_for()
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    number = Recorder(received)(a)[:, :1]
    head = keras.layers.Dense(1)(keras.layers.Rescaling(1e-3)(b))
    join = keras.layers.Concatenate
    p, q = join(name="p")([head, number]), join(name="q")([head, b[:, :1]])
    if names:
        model = keras.Model({"a": a, "b": b}, {"p": p, "q": q})
        kinds_of = {"p": loss, "q": loss}, {"p": [mismatch], "q": [mismatch]}
    else:
        model = keras.Model([a, b], [p, q])
        kinds_of = [loss, loss], [[mismatch], [mismatch]]
    model.compile("sgd", kinds_of[0], metrics=kinds_of[1], jit_compile=False)
    return model, received


@scenario("dict inputs and outputs")
def test_dict_inputs_and_outputs(keep):
    """Every part of a dict batch is of the same samples.

    After Keras' py_dataset_adapter_test.py, test_dict_inputs.
    """
    n = SAMPLES
    model, received = two_in_two_out(names=True)
    loader = keep(
        kl.ArraySequenceLoader(
            {"a": rows(n), "b": rows(n)}, {"p": labels(n), "q": labels(n)}, BATCH, seed=7
        )
    )
    history = model.fit(loader, epochs=2, verbose=0, validation_data=loader).history
    assert_planned(assert_exact(received.trained, loader, passes=2), loader)
    assert_exact(received.inferred, loader, passes=2)
    found = [key for key in history if "mismatch" in key]
    assert len(found) == 4
    assert not any(np.any(history[key]) for key in found)
    predicted = model.predict(loader, verbose=0)
    np.testing.assert_array_equal(predicted["q"][:, 1], np.arange(n))


@scenario("several inputs and outputs in tuples")
def test_tuple_inputs_and_outputs(keep, files):
    """Files and arrays side by side, in a tuple, stay together."""
    n = SAMPLES
    model, received = two_in_two_out(names=False)
    loader = keep(
        kl.PathSequenceLoader((files.npy[:n], rows(n)), (labels(n), labels(n)), BATCH, seed=7)
    )
    history = model.fit(loader, epochs=2, verbose=0).history
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[0, 1])
    found = [key for key in history if "mismatch" in key]
    assert len(found) == 2
    assert not any(np.any(history[key]) for key in found)


@scenario("batches of different shapes")
def test_with_different_shapes(keep):
    """Batches may differ in shape, if fit does not shuffle samples between them.

    After Keras' py_dataset_adapter_test.py, test_with_different_shapes.
    """
    received = model_for()[1]
    inputs = keras.Input((None, 1))
    x = Recorder(received)(inputs)
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss, jit_compile=False)
    lengths = [4] * 4 + [5] * 4 + [6] * 3
    x = [np.full((size, 1), i, np.float32) for i, size in enumerate(lengths)]
    loader = keep(kl.ArraySequenceLoader(x, labels(SAMPLES), BATCH))
    model.fit(loader, epochs=2, verbose=0, shuffle=False)
    assert received.trained == in_storage_order(loader) * 2
    with pytest.raises(Exception, match=r"row \d+ is float32 of shape"):
        model.fit(loader, epochs=3, verbose=0)  # samples of other lengths meet in one batch


# ---------------------------------------------------------------- more of Keras' own cases


@scenario("arrays of the backend, threads or none")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("held", ["numpy", "backend"])
def test_basic_flow(keep, held, shuffle, workers):
    """Arrays of NumPy or of the backend come through fit in the order that was asked for.

    After Keras' py_dataset_adapter_test.py, test_basic_flow.
    """
    model, received = model_for()
    x, y = rows(64), labels(64)
    if held == "backend":
        x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    loader = keep(kl.ArraySequenceLoader(x, y, 16, workers=workers))
    fit(model, loader, shuffle=shuffle)
    assert [len(batch) for batch in received.trained] == [16] * 4
    numbers = samples_of(received.trained)
    assert sorted(numbers) == list(range(64))
    assert (numbers == list(range(64))) is not shuffle


def test_iterate_finite(make):
    """A plain for loop over a loader ends after its batches.

    After Keras' py_dataset_adapter_test.py, test_iterate_finite.
    """
    loader = make(npy)
    found = []
    for batch in loader:
        found.append(numbers_of(batch[0]))
        assert len(found) <= 3
    assert found == in_storage_order(loader)


def test_insufficient_data(make):
    """steps_per_epoch beyond the data warns as for any dataset, and trains on all there is.

    After Keras' epoch_iterator_test.py, test_insufficient_data.
    """
    model, received = model_for()
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(make(array), steps_per_epoch=5, verbose=0)
    assert len(received.trained) == 3


def test_steps_are_counted(make):
    """The steps of an epoch are numbered from 0 to len(loader) - 1.

    After Keras' epoch_iterator_test.py, test_basic_flow.
    """
    steps = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps.append(batch)

    fit(model_for()[0], make(array, 24), epochs=2, callbacks=[Steps()])
    assert steps == list(range(6)) * 2


@pytest.mark.parametrize("part", ["y", "sample_weight"])
def test_y_beside_a_loader(make, part):
    """Targets or weights beside a loader are refused by Keras: they belong into it.

    After Keras' epoch_iterator_test.py, test_unsupported_y_arg and its like.
    """
    with pytest.raises(ValueError, match=f"`{part}s?` should not be passed"):
        fit(model_for()[0], make(array), **{part: labels(SAMPLES)})


def test_hooks_of_a_subclass(files, keep):
    """on_epoch_begin and on_epoch_end of a subclass are called in turn, and may call super.

    After Keras' epoch_iterator_test.py, test_epoch_callbacks.
    """
    tracker = []

    class Tracking(IndexLoader):
        def on_epoch_begin(self):
            tracker.append("begin")
            super().on_epoch_begin()

        def on_epoch_end(self):
            tracker.append("end")
            super().on_epoch_end()

    model, received = model_for()
    loader = keep(Tracking(SAMPLES, BATCH, seed=7))
    fit(model, loader, epochs=1)
    tracker.clear()
    received.clear()
    fit(model, loader, epochs=5)
    assert tracker == ["end"] + ["begin", "end"] * 5
    assert_exact(received.trained, loader, passes=5)


def test_a_loader_is_a_sequence(make):
    """Every kind is what Keras calls a Sequence, under either of its names."""
    for kind in KINDS:
        assert isinstance(make(kind), keras.utils.Sequence)
        assert isinstance(make(kind), keras.utils.PyDataset)


# ---------------------------------------------------------------- batches by themselves


def leaves(batch):
    return [np.asarray(part) for part in batch]


def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        for leaf in leaves(batch):
            found.update(str((leaf.dtype.str, leaf.shape)).encode())
            found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def loop(loader, epochs=1):
    """Batches of a hand-written training loop."""
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            yield loader[index]
        loader.on_epoch_end()


@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_batch_i_twice_is_the_same_batch(make, kind, shuffle):
    """loader[i] outside an epoch, and inside one, is the same batch when asked again."""
    loader = make(kind, shuffle=shuffle)
    order = [2, 0, 1, 0, 2]
    outside = [digest([loader[i]]) for i in order]
    assert outside[1] == outside[3]
    assert outside[0] == outside[4]
    loader.on_epoch_begin()
    inside = [digest([loader[i]]) for i in order]
    assert inside[1] == inside[3]
    assert inside[0] == inside[4]
    assert len(set(inside)) == 3


@kinds(KINDS)
def test_hand_written_loop(make, kind):
    """on_epoch_begin, loader[i], on_epoch_end: exact, and a new order each epoch."""
    loader = make(kind, shuffle=True)
    batches = [numbers_of(x) for x, _ in loop(loader, epochs=3)]
    found = assert_exact(batches, loader, passes=3)
    assert_planned(found, loader, epochs=[0, 1, 2])


@kinds(KINDS)
def test_no_aliasing(make, kind):
    """Writing into one batch changes no other, nor what the loader serves later."""
    loader = make(kind)
    expected = [digest([loader[i]]) for i in range(3)]
    batches = [loader[i] for i in range(3)]
    for leaf in leaves(batches[0]):
        leaf[...] = 99
    assert [digest([batches[i]]) for i in (1, 2)] == expected[1:]
    assert [digest([loader[i]]) for i in range(3)] == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["array", "ram"])
def test_a_held_batch_is_never_overwritten(keep, tmp_path, kind, workers):
    """Memory of large batches is used again, but never while somebody holds the batch."""
    n, size = 12, 40_000
    x = np.repeat(np.arange(n, dtype=np.float32), size).reshape(n, size)
    if kind == "array":
        loader = kl.ArraySequenceLoader(x, labels(n), BATCH, workers=workers)
    else:
        paths = [str(tmp_path / f"{i}.npy") for i in range(n)]
        for path, row in zip(paths, x, strict=True):
            np.save(path, row)
        loader = kl.RamBatchSequenceLoader(
            paths, labels(n), BATCH, ram_batch_size=BATCH, workers=workers
        )
    keep(loader)
    held, dropped = [], 0
    for k, batch in enumerate(loop(loader, epochs=6)):
        if k % 2:
            held.append((batch, digest([batch])))
            # A view, or a tensor over the memory, holds it as well as the array itself.
            if k % 4 == 1:
                held[-1] = ((batch[0][1:3],), digest([(batch[0][1:3],)]))
        else:
            dropped += 1
        del batch
    assert dropped
    for batch, expected in held:
        assert digest([batch]) == expected


@kinds(KINDS)
def test_shuffle_changes_order_only(make, kind):
    """A shuffled epoch has the same samples, bit for bit, as an unshuffled one."""

    def samples(shuffle):
        batches = list(loop(make(kind, shuffle=shuffle)))
        found = {}
        for x, y in batches:
            for row, number in zip(x, y, strict=True):
                found[int(number)] = (row.dtype.str, row.tobytes())
        return [int(number) for _, y in batches for number in y], found

    (plain, stored), (shuffled, drawn) = samples(shuffle=False), samples(shuffle=True)
    assert stored == drawn
    assert plain != shuffled


@kinds(KINDS)
def test_pickles(make, kind):
    """An unpickled loader gives the same batches, epoch after epoch."""
    loader = make(kind, shuffle=True)
    list(loop(loader))
    copy = pickle.loads(pickle.dumps(loader))
    fresh = make(kind, shuffle=True)
    assert digest(loop(copy, epochs=2)) == digest(loop(fresh, epochs=2))
    copy.close()


def augment(x, y, rng):
    """A transform that draws integers and fractions."""
    return x + rng.integers(0, 100) + rng.random(x.shape, np.float32), y


# The order and the random numbers are a promise: trainings are repeated on other machines, with
# other versions. Changing this constant breaks them.
GOLDEN = {
    "array": "f924ef15c9873fb7117af9545b48f0ef6296b11eccf22d2260b70f7ac209bd86",
    "ram_windows": "879340379f8f9f6fc3c23b253b4d4b8cbf90376c07180666762cab5e46838536",
    "ram_global": "f924ef15c9873fb7117af9545b48f0ef6296b11eccf22d2260b70f7ac209bd86",  # one order, whether RAM batches are cut from it or not
}


@scenario("the same batches for any number of workers")
@pytest.mark.parametrize("workers", [0, 1, 2, 8, None])
@kinds(FEW)
def test_order_does_not_depend_on_the_machinery(make, kind, workers):
    """Batches with random transforms are the same bits for any number of threads, everywhere."""
    loader = make(kind, shuffle=True, transform=augment, workers=workers)
    found = digest(loop(loader, epochs=2))
    assert found == GOLDEN["array" if kind in (npy, by_index) else kind.__name__]


@scenario("the same random numbers under fit, for threads and processes, any number of them")
@pytest.mark.parametrize(
    ("workers", "processes"),
    [(0, False), (1, False), (2, False), (8, False), (1, True), (2, True), (8, True)],
    ids=["inline", "1 thread", "2 threads", "8 threads", "1 process", "2 processes", "8 processes"],
)
@kinds([npy, ram_global])
def test_random_numbers_under_fit(make, kind, workers, processes):
    """The model receives what seed, epoch and sample number say, whoever drew it."""
    model, received = model_for()
    loader = make(kind, shuffle=True, transform=draw_number, workers=workers, processes=processes)
    with warnings.catch_warnings():
        model.fit(loader, epochs=2, verbose=0)
    drawn = [
        [int(sample_rng(7, epoch, index).integers(2**20)) for index in indices.tolist()]
        for epoch in range(2)
        for indices in (
            loader.plan.indices(loader.plan.shuffled_order(epoch), batch) for batch in range(3)
        )
    ]
    assert received.trained == drawn


def draw(x, y, rng):
    return np.float32(rng.random()), y


@kinds([array, npy, ram_windows, by_batch])
def test_transform_draws_anew_each_epoch(make, kind):
    """A sample gets other random numbers in the next epoch, and no two samples the same."""
    loader = make(kind, shuffle=True, transform=draw)
    batches = list(loop(loader, epochs=2))
    drawn = [
        {int(n): float(v) for x, y in epoch for v, n in zip(x, y, strict=True)}
        for epoch in (batches[:3], batches[3:])
    ]
    assert len({*drawn[0].values(), *drawn[1].values()}) == 2 * SAMPLES
    again = list(loop(make(kind, shuffle=True, transform=draw), epochs=2))
    assert digest(again) == digest(batches)


# ---------------------------------------------------------------- how much work, and when


class CountingRamLoader(kl.RamBatchSequenceLoader):
    """Counts how often each file is read."""

    def __init__(self, paths, *args, **options):
        self.reads = dict.fromkeys(paths, 0)
        self.reads_lock = threading.Lock()
        super().__init__(paths, *args, **options)

    def load_sample(self, path):
        with self.reads_lock:
            self.reads[path] += 1
        return np.fromfile(path, "<f4")


@scenario("each RAM batch is read once an epoch")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("chosen", ["windows", "global"])
def test_locality(files, keep, chosen, shuffle, callback):
    """Under fit's default shuffle a two-level loader reads each RAM batch once an epoch."""
    model, received = model_for()
    loader = keep(
        CountingRamLoader(
            files.raw, labels(24), BATCH, ram_batch_size=8, draw=chosen, shuffle=shuffle, seed=3
        )
    )
    epochs = 4
    ours = [kl.LoaderCallback(loader)] if callback else []
    fit(model, loader, epochs=epochs, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=epochs)
    # An epoch that begins in order has read RAM batches in storage order before it is shuffled:
    # the first one, what was read ahead after it, and what the epoch before had read ahead.
    in_order = sum(one[0] == in_storage_order(loader)[0] for one in found)
    extra = 4 * in_order if shuffle is None else 0
    # Without the callback one is read ahead for an epoch that does not come.
    extra += not callback
    assert 3 * epochs <= loader.ram_batches_read <= 3 * epochs + extra
    # Beside the RAM batches: a first look at sample 0, and the batches 0 and 1 that Keras probes.
    assert sum(loader.reads.values()) <= 8 * loader.ram_batches_read + 2 * BATCH + 2
    assert min(loader.reads.values()) >= epochs


@pytest.mark.parametrize("chosen", ["windows", "global"])
def test_data_that_fit_are_read_once(files, keep, chosen):
    """A RAM batch that holds all samples is read once, for all epochs."""
    model, received = model_for()
    loader = keep(
        CountingRamLoader(files.raw, labels(24), BATCH, ram_batch_size=24, draw=chosen, seed=3)
    )
    fit(model, loader, epochs=3)
    assert_exact(received.trained, loader, passes=3)
    assert loader.ram_batches_read == 1
    assert sum(loader.reads.values()) <= 24 + 2 * BATCH + 2


def test_echo(files, keep):
    """echo=2 serves each sample twice an epoch, from RAM batches that are read once."""
    model, received = model_for()
    loader = keep(CountingRamLoader(files.raw, labels(24), BATCH, ram_batch_size=8, echo=2, seed=3))
    assert len(loader) == 12
    fit(model, loader, epochs=2, callbacks=[kl.LoaderCallback(loader)])
    numbers = samples_of(received.trained)
    for epoch in (numbers[:48], numbers[48:]):
        assert sorted(epoch) == sorted([*range(24), *range(24)])
    assert loader.ram_batches_read == 6


class Watched(kl.SequenceLoader):
    """Counts batches asked for and batches begun; a test can wait for a count."""

    def __init__(self, *args, **options):
        self.changed = threading.Condition()
        self.asked, self.begun, self.most_ahead = 0, [], 0
        super().__init__(*args, **options)

    def __getitem__(self, index):
        with self.changed:
            self.asked += 1
        return super().__getitem__(index)

    def load_sample(self, index):
        with self.changed:
            self.begun.append(index)
            ahead = -(-len(self.begun) // self.batch_size) - self.asked
            self.most_ahead = max(self.most_ahead, ahead)
            self.changed.notify_all()
        threading.Event().wait(0.001)  # as long as reading a small file may take
        return row_of(index), np.float32(index)

    def ready(self):
        """Look at the shape of a sample now, so that it does not count as a batch begun."""
        assert self.sample_spec
        self.begun.clear()
        self.most_ahead = 0
        return self

    def ahead(self):
        return len(self.begun) // self.batch_size - self.asked

    def wait_until_ahead(self, batches):
        with self.changed:
            assert self.changed.wait_for(lambda: self.ahead() >= batches, timeout=30), (
                f"{self.ahead()} batches were begun ahead of the request, expected {batches}"
            )


@scenario("batches are loaded ahead while the model computes")
@pytest.mark.parametrize("workers", [None, 1, 2])
def test_look_ahead_under_fit(keep, workers):
    """While a step runs, the batches after those asked for are begun: counted, not timed.

    What Keras' py_dataset_adapter_test.py, test_speedup, times.
    """
    model, received = model_for()
    loader = keep(Watched(40, BATCH, shuffle=True, seed=1, workers=workers).ready())
    # No matter how long the step takes, there is something ready for the next one.
    step = Call(lambda model: loader.wait_until_ahead(2), "on_train_batch_end")
    fit(model, loader, epochs=2, callbacks=[step])
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[0, 1])


@pytest.mark.parametrize("depth", [1, 3])
def test_look_ahead_is_bounded(keep, depth):
    """Never more than max_queue_size batches are begun ahead of the one asked for."""
    loader = keep(Watched(40, BATCH, shuffle=True, seed=1, workers=2, max_queue_size=depth).ready())
    loader.on_epoch_begin()
    for index in range(len(loader)):
        loader[index]
        loader.wait_until_ahead(depth)
    assert loader.most_ahead == depth


def test_no_look_ahead_without_threads(keep):
    """workers=0 loads in the caller's thread, and only what is asked for."""
    loader = keep(Watched(40, BATCH, seed=1, workers=0).ready())
    list(loop(loader))
    assert loader.most_ahead <= 0
    assert len(loader.begun) == 40
    assert not loader._running().workers.alive


@scenario("the next epoch's head is loaded while validation runs")
@pytest.mark.parametrize(
    ("shuffle", "told"),
    [(None, {}), (True, {}), (None, {"shuffle": False}), (False, {"shuffle": False})],
    ids=["None", "True", "None, fit(shuffle=False)", "False"],
)
def test_next_epoch_is_prefetched_during_validation(keep, make, shuffle, told):
    """When validation begins, the first batches of the next epoch are on their way.

    In storage order only a callback knows that the pass is not one of predict.
    """
    model, _ = model_for()
    loader = keep(Watched(20, BATCH, shuffle=shuffle, seed=1, workers=2).ready())
    seen = []

    def validation(logs=None):
        if len(seen) == 0:
            loader.wait_until_ahead(1)
        seen.append(1)

    waiting = keras.callbacks.Callback()
    waiting.on_test_begin = validation
    ours = [kl.LoaderCallback(loader)] if told else []
    fit(model, loader, epochs=2, validation_data=make(array), callbacks=[*ours, waiting], **told)
    assert len(seen) == 2


# ---------------------------------------------------------------- dtype


@kinds([array, npy, png, ram_global, by_path, by_index, by_batch])
@pytest.mark.parametrize("transform", [None, lambda x, y, rng: (x, y)], ids=["", "transform"])
def test_dtype_is_that_of_x_before_the_transform(make, kind, transform):
    """dtype= means the same for every loader: x is cast, labels are not."""
    plain, cast = make(kind), make(kind, dtype="float16", transform=transform)
    for (x, y), (got, label) in zip(loop(plain), loop(cast), strict=True):
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, x.astype(np.float16))
        assert label.dtype == y.dtype
    assert cast.sample_spec[0].dtype == np.float16


# ---------------------------------------------------------------- nothing is left


def handles():
    return len(os.listdir("/proc/self/fd"))


class Wide(kl.ArraySequenceLoader):
    """4 MB of data, of which the model sees two numbers a sample."""

    def _deliver(self, sample, indices):
        return super()._deliver((sample[0][:, :2], sample[1]), indices)


def wide_array(n=SAMPLES):
    x = np.zeros((n, 100_000), np.float32)
    x[:, :2] = rows(n)
    return x


@scenario("a forgotten loader is collected, or leaves little")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
def test_a_forgotten_loader_is_collected(nothing_running, callback):
    """After del and gc nothing of a fitted loader is left, or what TensorFlow keeps is light."""
    model, _ = model_for()

    def train():
        x = wide_array()
        loader = Wide(x, labels(SAMPLES), BATCH)
        callbacks = [kl.LoaderCallback(loader)] if callback else []
        fit(model, loader, validation_data=loader, callbacks=callbacks)
        model.evaluate(loader, verbose=0)
        model.predict(loader, verbose=0)
        wait_for_device()
        return weakref.ref(loader), weakref.ref(x)

    loader, x = train()
    gc.collect()
    for thread in our_threads():
        thread.join(30)
    assert not our_threads()
    gc.collect()
    assert x() is None, "4 MB of data outlive the loader"
    if TF:
        kept = loader()
        assert kept is None or not vars(kept), "TensorFlow keeps more than an empty object"
    else:
        assert loader() is None


@kinds([ram_windows, png])
def test_a_forgotten_loader_of_files_is_collected(files, nothing_running, kind):
    """Paths, RAM batches and batches made ahead go with the loader that was stopped in mid-epoch."""
    model, _ = model_for(kind)
    loader = kind(files, SAMPLES)
    fit(model, loader, epochs=2, callbacks=[Stop(1)])
    wait_for_device()
    gone, paths = weakref.ref(loader), weakref.ref(loader.paths)
    del loader
    for thread in our_threads():  # one may just be making a batch
        thread.join(30)
    gc.collect()
    assert paths() is None
    assert gone() is None or not vars(gone())


def test_a_loader_that_only_fit_holds_is_not_taken_for_a_forgotten_one(files):
    """Full collections in mid-fit leave a loader alone that was made in the call."""
    model, received = model_for()
    collect = [
        Call(lambda _: gc.collect(), when) for when in ("on_train_batch_end", "on_epoch_end")
    ]
    fit(model, array(files, SAMPLES), epochs=3, callbacks=collect)
    assert sorted(samples_of(received.trained)) == sorted([*range(SAMPLES)] * 3)


@pytest.mark.parametrize("holder", ["closure", "dict", "attribute"])
def test_a_loader_that_somebody_holds_is_not_taken_for_a_forgotten_one(files, holder):
    """Wherever the reference is."""
    model, _ = model_for()

    def held():
        loader = array(files, SAMPLES)
        fit(model, loader)
        match holder:
            case "closure":
                return lambda: loader
            case "dict":
                return {"loader": loader}.copy
            case _:
                return SimpleNamespace(loader=loader)

    kept = held()
    wait_for_device()
    gc.collect()
    match holder:
        case "closure":
            loader = kept()
        case "dict":
            loader = kept()["loader"]
        case _:
            loader = kept.loader
    assert len(loader[0]) == 2


def test_an_unpickled_or_unused_loader_leaves_nothing(files, nothing_running):
    """A loader that was only indexed is collected, threads and all."""
    loader = npy(files, SAMPLES, workers=2)
    list(loop(loader))
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None
    for thread in our_threads():
        thread.join(30)
    assert not our_threads()


@scenario("threads and files are gone after five stopped fits")
@pytest.mark.parametrize("how", ["callback", "close", "forgotten"])
@kinds([npy, ram_windows])
def test_nothing_left_after_stopped_fits(files, nothing_running, kind, how):
    """Five fits stopped in mid-epoch leave no thread and no open file."""
    model, _ = model_for()
    fit(model, array(files, 19))
    gc.collect()
    before = handles(), len(our_threads())
    loader = None
    for _ in range(5):
        loader = kind(files, 19, workers=2)
        ours = [kl.LoaderCallback(loader)] if how == "callback" else []
        fit(model, loader, epochs=2, callbacks=[Stop(1), *ours])
        if how == "close":
            loader.close()
        # On TensorFlow what is left of the fit may ask for one more batch after that.
        if how != "forgotten" and not TF:
            assert not our_threads()
    del loader, ours
    gc.collect()
    for thread in our_threads():
        thread.join(30)
    assert (handles(), len(our_threads())) <= before


@scenario("LoaderCallback frees batches and RAM batches when training ends")
@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
@kinds([npy, ram_windows])
def test_callback_frees_at_train_end(make, kind, stopped):
    """What only training needs is gone after fit, although the loader itself stays."""
    model, _ = model_for()
    loader = make(kind, 23, workers=2)
    stop = [Stop(1)] if stopped else []
    for _ in range(3):
        fit(model, loader, epochs=2, callbacks=[kl.LoaderCallback(loader), *stop])
        gc.collect()  # ends TensorFlow's iterator over the loader
        assert loader._engine is None
        assert not getattr(loader, "_windows", None)


def _fail(model):
    raise Interrupted


def _press_ctrl_c(model):
    signal.raise_signal(signal.SIGINT)


@scenario("threads are gone after an exception, and after Ctrl-C")
@pytest.mark.parametrize("end", [_fail, _press_ctrl_c], ids=["exception", "Ctrl-C"])
@kinds([npy, ram_windows])
def test_nothing_left_after_an_exception(files, nothing_running, kind, end):
    """A with block frees the threads, whatever ended the fit inside it."""
    model, _ = model_for()
    over = contextlib.suppress(Interrupted, KeyboardInterrupt)
    with over, kind(files, 19, workers=2) as loader:
        fit(model, loader, callbacks=[Call(end, "on_train_batch_end", 1)])
    sound_model()
    gc.collect()
    if TF:  # what is left of the fit may ask for one more batch after the block
        for thread in our_threads():
            thread.join(30)
    assert not our_threads()


@scenario("memory stays what it was over 30 fits")
@pytest.mark.parametrize("forgotten", [False, True], ids=["one loader", "a new loader each"])
def test_memory_over_30_fits(nothing_running, forgotten):
    """30 fits of 8 MB: where each left its data or a batch behind, 100 MB or more would be gone."""
    model, _ = model_for()
    x = wide_array(20)
    loader = None
    resident = []
    for _ in range(35):
        if loader is None or forgotten:
            loader = Wide(x.copy() if forgotten else x, labels(20), 5)
        fit(model, loader)
        wait_for_device()
        if forgotten:
            loader = None
            gc.collect()
        resident.append(psutil.Process().memory_info().rss)
    grown = np.median(resident[-5:]) - np.median(resident[5:10])  # after warming up
    assert grown < 40e6, f"{grown / 1e6:.0f} MB more after 25 fits"


def test_an_error_met_ahead_is_not_kept(keep):
    """A batch that failed while it was made ahead is tried again when it is asked for."""
    loader = keep(Flaky(12, BATCH, shuffle=False, workers=1))
    loader.on_epoch_begin()
    loader[0]
    (job,) = [job for (_, batch), job in loader._engine._ahead.items() if batch == 2]
    with pytest.raises(kl.SampleError):  # batch 2 holds the sample that does not load
        job.wait()
    loader.broken = False
    assert numbers_of(loader[1][0]) == [4, 5, 6, 7]
    assert numbers_of(loader[2][0]) == [8, 9, 10, 11]


def test_close_while_a_batch_is_awaited(keep):
    """close() from another thread, as at the end of a fit on TensorFlow, leaves nobody waiting."""
    started, go = threading.Event(), threading.Event()

    class Slow(IndexLoader):
        def load_sample(self, index):
            if index == 1:
                started.set()
                go.wait(30)
            return super().load_sample(index)

    loader = keep(Slow(4, 1, workers=1, shuffle=False))
    loader.on_epoch_begin()
    loader[0]
    ended = []

    def ask(index):
        with contextlib.suppress(Exception):  # an error will do, waiting for ever will not
            loader[index]
        ended.append(index)

    first = threading.Thread(target=ask, args=(1,), daemon=True)
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=ask, args=(2,), daemon=True)  # queued behind the first
    second.start()
    engine = loader._engine
    while len(engine.workers._state.soon) + len(engine._ahead) < 2:
        threading.Event().wait(0.01)
    closing = threading.Thread(target=loader.close, daemon=True)
    closing.start()
    while loader._engine is engine:
        threading.Event().wait(0.01)
    go.set()
    for thread in (closing, first, second):
        thread.join(10)
    assert sorted(ended) == [1, 2]


def test_a_closed_loader_can_be_used_again(make):
    """close() frees, and the next epoch goes on as if nothing had happened."""
    loader, other = make(npy, shuffle=True, workers=2), make(npy, shuffle=True, workers=2)
    found = []
    for _ in range(3):
        found += list(loop(loader))
        loader.close()
    assert digest(found) == digest(loop(other, epochs=3))


# ---------------------------------------------------------------- to_tf_dataset


@scenario("to_tf_dataset under fit")
@pytest.mark.parametrize("shuffle", [True, False])
@kinds(KINDS)
def test_dataset_under_fit(make, kind, shuffle):
    """A Dataset made from a loader gives every sample once an epoch, each epoch a new order."""
    model, received = model_for(kind)
    loader = make(kind)
    dataset = kl.to_tf_dataset(loader, shuffle=shuffle)
    assert dataset.cardinality().numpy() == len(loader)
    fit(model, dataset, epochs=2, shuffle=False)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle:
        assert_planned(found, loader)
        assert found[0] != found[1]
    else:
        assert found == [in_storage_order(loader)] * 2


@pytest.mark.parametrize("shuffle", [True, False])
def test_gathered_dataset_under_fit(make, shuffle):
    """native=True over arrays: the loader's own order, in every epoch."""
    model, received = model_for()
    loader = make(array)
    dataset = kl.to_tf_dataset(loader, shuffle=shuffle, native=True)
    fit(model, dataset, epochs=2, shuffle=False)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle:
        assert_planned(found, loader)
    else:
        assert found == [in_storage_order(loader)] * 2


@scenario("to_tf_dataset under fit without warnings")
def test_dataset_without_warnings(make):
    """fit(dataset, shuffle=False) has nothing to complain about."""
    model, _ = model_for()
    dataset = kl.to_tf_dataset(make(array), shuffle=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(dataset, epochs=2, verbose=0, shuffle=False)
    # torch converts tensors in a way that NumPy 2 calls outdated.
    said = [str(warning.message) for warning in caught]
    assert not [text for text in said if not text.startswith("__array__ implementation")]


@scenario("to_tf_dataset under evaluate and predict")
@kinds(FEW)
def test_dataset_under_evaluate_and_predict(make, kind):
    """Predictions from a Dataset line up with the samples, right after it was evaluated."""
    model, received = model_for()
    loader = make(kind)
    dataset = kl.to_tf_dataset(loader, shuffle=False)
    model.evaluate(dataset, verbose=0)
    assert received.inferred == in_storage_order(loader)
    predicted = model.predict(dataset, verbose=0)
    np.testing.assert_array_equal(predicted[:, 1], np.arange(SAMPLES))


def test_dataset_iterations_are_epochs(make):
    """Iterating again over a Dataset is the next epoch of the plan."""
    loader = make(npy)
    dataset = kl.to_tf_dataset(loader, shuffle=True)
    for epoch in range(3):
        found = [numbers_of(x) for x, _ in dataset.as_numpy_iterator()]
        assert_planned(assert_exact(found, loader, passes=1), loader, epochs=[epoch])


def test_dataset_keeps_structure_and_types(keep):
    """Tuples, dicts, dtypes, weights and static shapes are as the loader has them."""
    import tensorflow as tf

    loader = keep(
        kl.ArraySequenceLoader(
            {"a": rows(SAMPLES), "b": np.zeros((SAMPLES, 3), np.uint8)},
            (labels(SAMPLES), np.arange(SAMPLES)),
            BATCH,
            sample_weights=np.ones(SAMPLES),
        )
    )
    x, y, weights = kl.to_tf_dataset(loader).element_spec
    assert x == {
        "a": tf.TensorSpec((None, 2), tf.float32),
        "b": tf.TensorSpec((None, 3), tf.uint8),
    }
    assert y == (tf.TensorSpec((None,), tf.float32), tf.TensorSpec((None,), tf.int64))
    assert weights == tf.TensorSpec((None,), tf.float32)


def test_dataset_does_not_tune_itself(keep):
    """TensorFlow's tuner makes a loop end late; who wants it turns it on behind the Dataset."""
    import tensorflow as tf

    dataset = kl.to_tf_dataset(keep(kl.ArraySequenceLoader(rows(SAMPLES), None, BATCH)), False)
    assert dataset.options().autotune.enabled is False
    options = tf.data.Options()
    options.autotune.enabled = True
    tuned = dataset.map(lambda x: x, num_parallel_calls=tf.data.AUTOTUNE).with_options(options)
    assert tuned.options().autotune.enabled is True
    assert sum(len(x) for x in tuned) == SAMPLES


@scenario("to_tf_dataset is freed when dropped")
def test_dataset_is_freed(nothing_running):
    """When the Dataset is dropped, loader and data go, although TensorFlow keeps its generator."""
    model, _ = model_for()

    def train():
        x = rows(SAMPLES)
        loader = kl.ArraySequenceLoader(x, labels(SAMPLES), BATCH)
        dataset = kl.to_tf_dataset(loader, shuffle=True)
        fit(model, dataset, epochs=2, shuffle=False)
        wait_for_device()
        (read,) = (o.loader for o in gc.get_objects() if isinstance(o, _Source))
        return weakref.ref(loader), weakref.ref(read), weakref.ref(x)

    refs = train()
    gc.collect()
    assert [ref() is None for ref in refs] == [True] * 3


def test_dataset_after_dropping_the_loader(files):
    """The Dataset alone is enough to go on."""
    dataset = kl.to_tf_dataset(array(files, SAMPLES), shuffle=False)
    gc.collect()
    found = [number for x, _ in dataset.as_numpy_iterator() for number in numbers_of(x)]
    assert found == list(range(SAMPLES))


# ---------------------------------------------------------------- several devices


EXIT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
import keras
import numpy as np
import kloaders as kl
from tests.support.drawing import draw_number

x = np.arange(96, dtype=np.float32).reshape(48, 2)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
end, processes = sys.argv[1], sys.argv[2] == "processes"
loader = kl.ArraySequenceLoader(
    x, x[:, :1], 4, workers=2, processes=processes, transform=draw_number
)

class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and end == "exception":
            raise LookupError("the user's own")
        if batch == 3 and end == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        if batch == 3 and end == "exit":
            sys.exit(3)
        if batch == 3 and end == "stopped":
            self.model.stop_training = True

model.fit(loader, epochs=2, verbose=0, callbacks=[End()])
"""


@scenario("a process ends after a fit that ended well, badly, or not at all")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "workers", "code", "said"),
    [
        ("well", "processes", 0, ""),
        ("stopped", "threads", 0, ""),
        ("exit", "threads", 3, ""),
        ("exception", "threads", 1, "LookupError: the user's own"),
        ("exception", "processes", 1, "LookupError: the user's own"),
        ("Ctrl-C", "threads", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_exit_after_fit(end, workers, code, said):
    """No hang and nothing but the user's own error; after torch's test_proper_exit."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", EXIT, end, workers],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    if said:
        assert said in done.stderr
    else:
        assert "Traceback" not in done.stderr
    assert "resource_tracker" not in done.stderr
    left = [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("PYTHONPATH") == path
        and "KLOADERS_WORKER" in process.info["environ"]
    ]
    assert not psutil.wait_procs(left, timeout=20)[1]


def run_script(code, **environment):
    """Run Python in a process of its own; what it prints last is JSON."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": BACKEND, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import kloaders as kl
from tests.support.recording import recording_model
from tests.contract.test_contract import rows, labels

found = {}
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model, received = recording_model()
for shuffle in (None, True):
    received.clear()
    loader = kl.ArraySequenceLoader(rows(11), labels(11), 4, seed=7, shuffle=shuffle)
    epochs = []

    class Epochs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(sorted(sum(received.trained, [])))
            received.clear()

    model.fit(loader, epochs=3, verbose=0, callbacks=[Epochs()])
    assert all(len(batch) <= 2 for batch in received.trained)
    found[str(shuffle)] = epochs
    if not shuffle:
        found["predicted"] = model.predict(loader, verbose=0)[:, 1].tolist()
print(json.dumps(found))
"""


@scenario("MirroredStrategy on two devices")
@only_tf
def test_mirrored_strategy():
    """Two replicas together receive every sample once an epoch."""
    found = run_script(MIRRORED)
    assert found["None"] == [list(range(11))] * 3
    assert found["True"] == [list(range(11))] * 3
    assert found["predicted"] == list(range(11))


DATA_PARALLEL = """
import json
import jax
import keras
import kloaders as kl
from tests.support.recording import Counts, loss
from tests.contract.test_contract import rows, labels

assert len(jax.devices()) == 2
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
x = inputs = keras.Input((2,))
model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Rescaling(1e-3)(x)))
model.compile("sgd", loss, weighted_metrics=[Counts(11)])
found = {}
for option in ("drop_last", "pad_last"):
    loader = kl.ArraySequenceLoader(rows(11), labels(11), 4, seed=7, **{option: True})
    history = model.fit(loader, epochs=3, verbose=0).history
    found[option] = [[float(n) for n in counts] for counts in history["counts"]]
print(json.dumps(found))
"""


@scenario("JAX DataParallel on two devices, with drop_last or pad_last")
@only_jax
def test_jax_data_parallel():
    """Two devices together count every sample once, or every sample of the whole batches."""
    found = run_script(
        DATA_PARALLEL, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu"
    )
    assert found["pad_last"] == [[1.0] * 11] * 3
    for counts in found["drop_last"]:
        assert sorted(counts) == [0.0] * 3 + [1.0] * 8
