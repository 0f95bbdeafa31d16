"""Cases of Keras' own tests of its adapters, and what Keras expects of a Sequence."""

from __future__ import annotations

import keras
import pytest
from keras import ops

import kloaders as kl
from tests.support.assertions import assert_exact, in_storage_order, samples_of
from tests.support.kinds import BATCH, KINDS, SAMPLES, IndexLoader, array, labels, npy, rows
from tests.support.marks import scenario
from tests.support.recording import numbers_of
from tests.support.training import fit, model_for


@scenario("arrays of the backend, with and without threads")
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
