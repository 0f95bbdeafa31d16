"""Several inputs and outputs, batches of different shapes, dtypes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.assertions import assert_exact, assert_planned, in_storage_order
from tests.support.batches import loop
from tests.support.kinds import (
    BATCH,
    SAMPLES,
    array,
    by_batch,
    by_index,
    by_path,
    kinds,
    labels,
    npy,
    png,
    ram_global,
    rows,
)
from tests.support.marks import scenario
from tests.support.recording import Recorder, loss, mismatch
from tests.support.training import model_for


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
    with pytest.raises(Exception, match=r"row \d+\): it is float32 of shape"):
        model.fit(loader, epochs=3, verbose=0)  # samples of other lengths meet in one batch


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
