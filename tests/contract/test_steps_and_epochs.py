"""The stream of samples is exact for any steps and epochs of Keras."""

from __future__ import annotations

import contextlib
import itertools

import keras
import pytest

import kloaders as kl
from tests.support.assertions import (
    assert_exact,
    assert_planned,
    in_storage_order,
    samples_of,
    stream_of,
)
from tests.support.kinds import BATCH, FEW, KINDS, array, kinds, ram_global, ram_windows
from tests.support.marks import SHUFFLES, not_on_torch, scenario
from tests.support.recording import recording_model
from tests.support.training import Call, Interrupted, fit, model_for


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
    """A training that continues at epoch 2 gets the orders of epochs 2 and 3."""
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


@scenario("epochs of any length, each continuing after the last")
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
    """A batch that Keras reads to build the model does not count."""
    model, received = recording_model()
    loader = make(array, epoch_batches=length)
    fit(model, loader, epochs=3, callbacks=[kl.LoaderCallback(loader)] if callback else [])
    assert received.trained == stream_of(loader, 3 * length)
