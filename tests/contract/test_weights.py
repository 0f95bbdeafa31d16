"""Weights reach the loss: sample_weights, class_weight, and the zeros of padding."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.kinds import (
    BATCH,
    FEW,
    KINDS,
    SAMPLES,
    array,
    kinds,
    npy,
    png,
    ram_windows,
    rows,
)
from tests.support.marks import scenario
from tests.support.recording import Counts, loss
from tests.support.training import fit


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
    """The loss that Keras reports: losses averaged per batch, then over samples."""
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
    """Every batch is full, and the padding of the last one has weight 0."""
    model, _ = weighing_model()
    loader = make(kind, pad_last=True)
    assert [len(loader[k][0]) for k in range(3)] == [BATCH] * 3
    history = fit(model, loader, epochs=2)
    np.testing.assert_array_equal(history["counts"], np.ones((2, SAMPLES)))
