"""A tf.data.Dataset made from a loader keeps the loader's promises."""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest

import kloaders as kl
from kloaders.interop.tf_dataset import _Source
from tests.support.assertions import assert_exact, assert_planned, in_storage_order
from tests.support.kinds import BATCH, FEW, KINDS, SAMPLES, array, kinds, labels, npy, rows
from tests.support.marks import scenario
from tests.support.recording import numbers_of, wait_for_device
from tests.support.training import fit, model_for


@scenario("to_tf_dataset in fit")
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


@scenario("to_tf_dataset in fit without warnings")
def test_dataset_without_warnings(make):
    """fit(dataset, shuffle=False) logs no warning."""
    model, _ = model_for()
    dataset = kl.to_tf_dataset(make(array), shuffle=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(dataset, epochs=2, verbose=0, shuffle=False)
    # torch converts tensors in a way that NumPy 2 calls outdated.
    said = [str(warning.message) for warning in caught]
    assert not [text for text in said if not text.startswith("__array__ implementation")]


@scenario("to_tf_dataset in evaluate and predict")
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
    """TensorFlow's autotuner delays the end of a loop, so it is off; the user can turn it on again."""
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
        (read,) = (o.loader for o in gc.get_objects() if type(o) is _Source)
        return weakref.ref(loader), weakref.ref(read), weakref.ref(x)

    refs = train()
    gc.collect()
    assert [ref() is None for ref in refs] == [True] * 3


def test_dataset_after_dropping_the_loader(files):
    """The Dataset keeps the loader alive."""
    dataset = kl.to_tf_dataset(array(files, SAMPLES), shuffle=False)
    gc.collect()
    found = [number for x, _ in dataset.as_numpy_iterator() for number in numbers_of(x)]
    assert found == list(range(SAMPLES))
