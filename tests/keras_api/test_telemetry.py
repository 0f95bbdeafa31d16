"""What LoaderCallback adds to Keras' logs: measured with a clock of our own, and in real fits."""

import csv
import weakref

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.keras_api.telemetry import LOGGED, Epoch, Fit, Meter


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def metered(samples=12, batch_size=4):
    loader = kl.ArraySequenceLoader(np.zeros((samples, 2)), np.zeros(samples), batch_size)
    clock = Clock()
    return loader, clock, Meter(loader, clock)


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def batch(rows):
    return np.zeros((rows, 2)), np.zeros(rows)


def test_the_wait_is_from_the_last_step_to_the_hand_over():
    """The training thread itself requests a batch and waits for it."""
    _loader, clock, meter = metered()
    clock.now = 10
    meter.epoch_begin(new_pass=True)
    for begin, rows in ((10, 4), (20, 4), (30, 3)):
        clock.now = begin + 3  # three seconds of loading
        meter.handed(batch(rows), ready=lambda: 2)
        clock.now = begin + 10  # seven of training
        meter.step_end(1)
    epoch = meter.epoch_end()
    assert (epoch.steps, epoch.samples, epoch.seconds, epoch.wait_seconds) == (3, 11, 30, 9)
    assert epoch.batches_ahead == 2
    assert epoch.logs()["samples_per_s"] == pytest.approx(11 / 30)


def test_what_was_handed_over_ahead_of_the_step_is_no_wait():
    """As on TensorFlow, where a thread prefetches: the model waits only for the first batch."""
    _loader, clock, meter = metered()
    meter.epoch_begin(new_pass=True)
    for at in (2, 3, 4):
        clock.now = at
        meter.handed(batch(4), ready=lambda: 0)
    for at in (10, 20, 30):
        clock.now = at
        meter.step_end(1)
    assert meter.epoch_end().wait_seconds == 2


def test_batches_of_one_call_are_taken_together():
    """steps_per_execution=2 of three batches: two calls, three batches, every sample once."""
    _loader, clock, meter = metered()
    meter.epoch_begin(new_pass=True)
    for at, rows in ((1, 4), (2, 4), (3, 3)):
        clock.now = at
        meter.handed(batch(rows), ready=lambda: 0)
    for at in (10, 20):
        clock.now = at
        meter.step_end(2)
    epoch = meter.epoch_end()
    assert (epoch.samples, epoch.wait_seconds) == (11, 2)


def test_a_pass_that_goes_on_keeps_what_was_read_ahead():
    """steps_per_epoch below the length: a batch handed over in one epoch is trained on in the next."""
    _loader, clock, meter = metered()
    meter.epoch_begin(new_pass=True)
    for _ in range(2):
        meter.handed(batch(4), ready=lambda: 0)
    clock.now = 1
    meter.step_end(1)
    assert meter.epoch_end().samples == 4
    meter.epoch_begin(new_pass=False)
    clock.now = 2
    meter.step_end(1)
    assert meter.epoch_end().samples == 4
    meter.handed(batch(4), ready=lambda: 0)
    meter.epoch_begin(new_pass=True)
    meter.step_end(1)
    assert meter.epoch_end().samples == 0


def test_a_meter_keeps_no_loader_alive():
    """Keras keeps callbacks; the data must be free to go."""
    loader, _, meter = metered()
    gone = weakref.ref(loader)
    del loader
    assert gone() is None
    meter.epoch_begin(new_pass=True)
    assert meter.epoch_end().cache_hits == 0


def test_steady_leaves_the_first_epoch_out():
    """It compiles the model; a fit of a single epoch has no other."""
    slow = Epoch(10, 100, 9.0, 5.0, 0.0, 0.0, 0)
    quick = Epoch(10, 100, 2.0, 0.5, 4.0, 1.0, 1)
    last = Epoch(30, 300, 6.0, 1.5, 8.0, 1.0, 2)
    assert Fit([]).steady() is None
    assert Fit([slow]).steady() == slow
    assert Fit([slow, quick, last]).steady() == Epoch(40, 400, 8.0, 2.0, 7.0, 1.0, 2)


@pytest.mark.parametrize("steps", [None, 2], ids=["whole passes", "steps_per_epoch"])
def test_history_has_every_figure_of_every_epoch(steps):
    """And the samples are those that the model was given."""
    loader = kl.ArraySequenceLoader(np.zeros((15, 2), "f4"), np.zeros(15, "f4"), 4, seed=1)
    callback = kl.LoaderCallback(loader)
    history = small_model().fit(
        loader, epochs=3, steps_per_epoch=steps, verbose=0, callbacks=[callback]
    )
    for name in LOGGED:
        assert len(history.history[name]) == 3, name
        assert all(isinstance(value, float) and value >= 0 for value in history.history[name])
    assert all(value > 0 for value in history.history["samples_per_s"])
    epochs = loader.runner.last_fit.epochs
    # 4, 4, 4 and 3 samples a pass, which two epochs of two steps go through.
    expected = [15, 15, 15] if steps is None else [8, 7, 8]
    assert [epoch.samples for epoch in epochs] == expected
    assert all(epoch.wait_seconds <= epoch.seconds for epoch in epochs)
    loader.close()


def test_cache_hits_and_errors_are_those_of_the_epoch(tmp_path):
    """All of it is kept after the first epoch; a file that is broken in each is counted once."""
    paths = []
    for k in range(12):
        paths.append(tmp_path / f"{k}.npy")
        np.save(paths[-1], np.full(2, k, "f4"))
    paths[5].write_bytes(b"no array")
    loader = kl.PathSequenceLoader(
        paths, np.zeros(12, "f4"), 4, seed=1, workers=0, on_error="skip", cache_budget=10**6
    )
    found = small_model().fit(
        loader, epochs=3, verbose=0, callbacks=[kl.LoaderCallback(loader)], shuffle=True
    )
    # Keras reads a batch or two before the first epoch, to learn their shapes.
    assert found.history["cache_hits"][0] < 11 / 12
    assert found.history["cache_hits"][1:] == pytest.approx([11 / 12] * 2)
    assert found.history["sample_errors"] == [1, 1, 1]
    assert [epoch.samples for epoch in loader.runner.last_fit.epochs] == [11, 11, 11]
    loader.close()


@pytest.mark.parametrize("first", [True, False], ids=["listed before ours", "listed after ours"])
def test_csv_logger_has_the_columns(tmp_path, first):
    """CSVLogger fixes its columns in the first epoch, and reads the logs when its turn comes."""
    loader = kl.ArraySequenceLoader(np.zeros((8, 2), "f4"), np.zeros(8, "f4"), 4, seed=1)
    ours, theirs = kl.LoaderCallback(loader), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    callbacks = [theirs, ours] if first else [ours, theirs]
    small_model().fit(
        loader, validation_data=loader.view(), epochs=2, verbose=0, callbacks=callbacks
    )
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert set(LOGGED) | {"loss", "val_loss", "epoch"} == set(row)
        assert float(row["samples_per_s"]) > 0
    assert [c for c in callbacks if type(c) is not type(theirs)] == [ours]
    loader.close()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorBoard's writer is TF's")
def test_tensorboard_has_the_figures(tmp_path):
    """In the event files that TensorBoard itself reads."""
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    loader = kl.ArraySequenceLoader(np.zeros((8, 2), "f4"), np.zeros(8, "f4"), 4, seed=1)
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    small_model().fit(loader, epochs=2, verbose=0, callbacks=[board, kl.LoaderCallback(loader)])
    read = events.EventAccumulator(str(tmp_path / "train"))
    read.Reload()
    for name in LOGGED:
        values = [
            float(tensor_util.make_ndarray(event.tensor_proto))
            for event in read.Tensors(f"epoch_{name}")
        ]
        assert len(values) == 2
        assert values[0] == pytest.approx(loader.runner.last_fit.epochs[0].logs()[name])
    loader.close()


def test_log_false_adds_nothing():
    """log=False measures nothing."""
    loader = kl.ArraySequenceLoader(np.zeros((8, 2), "f4"), np.zeros(8, "f4"), 4, seed=1)
    callback = kl.LoaderCallback(loader, log=False)
    history = small_model().fit(loader, verbose=0, callbacks=[callback])
    assert set(history.history) == {"loss"}
    assert loader.runner.last_fit is None
    loader.close()


def test_a_fit_leaves_the_users_list_of_callbacks_alone():
    """One callback object may serve several fits, one after another."""
    loader = kl.ArraySequenceLoader(np.zeros((8, 2), "f4"), np.zeros(8, "f4"), 4, seed=1)
    callbacks = [kl.LoaderCallback(loader)]
    model = small_model()
    for _ in range(2):
        history = model.fit(loader, epochs=2, verbose=0, callbacks=callbacks)
        assert len(history.history["data_wait_s"]) == 2
        assert len(loader.runner.last_fit.epochs) == 2
    assert len(callbacks) == 1
    loader.close()
