"""fit gives every sample once an epoch, x with its own y, in every way to call it.

Sample numbers are written into the data and read back by a layer of the model (`tests/support/recording.py`),
in training, in evaluation and in prediction, with whatever backend KERAS_BACKEND names.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.assertions import assert_exact, assert_planned, in_storage_order, stream_of
from tests.support.kinds import (
    BATCH,
    FEW,
    KINDS,
    SAMPLES,
    array,
    by_batch,
    kinds,
    npy,
    ram_global,
    ram_windows,
    records,
)
from tests.support.marks import SHUFFLES, scenario
from tests.support.recording import Counts, loss, recording_model
from tests.support.training import Stop, fit, model_for


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
    """batch_transform gets every batch once, in fit and in predict, and short ones unpadded."""
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
