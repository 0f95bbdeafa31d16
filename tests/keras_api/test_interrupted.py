"""After a fit is interrupted in mid-epoch, `loader[i]` is batch i, and the next pass is exact.

Keras calls nothing then, neither `on_epoch_end` nor a callback, and on TensorFlow an abandoned
iterator may read once more.
"""

import contextlib
import threading

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, numbers_of, recording_model, row_of

SAMPLES, BATCH, BATCHES = 23, 4, 6
SHUFFLES = [None, True, False]

scenario = pytest.mark.scenario


class Interrupted(Exception):
    """Something that a callback may raise."""


class Numbers(kl.SequenceLoader):
    """Samples that are their number; one fails while `broken` is set."""

    broken = False

    def load_sample(self, index):
        if self.broken and index == 13:
            raise OSError("Expected exception")
        return row_of(index), np.float32(index)


class End(keras.callbacks.Callback):
    """Ends the training after a step, in one way or another."""

    def __init__(self, how, step):
        super().__init__()
        self.how, self.step = how, step

    def on_train_batch_end(self, batch, logs=None):
        if batch != self.step:
            return
        if self.how == "stop_training":
            self.model.stop_training = True
        elif self.how == "exception":
            raise Interrupted
        elif self.how == "Ctrl-C":
            raise KeyboardInterrupt


HOW = ["stop_training", "exception", "Ctrl-C", "error of the loader"]


def interrupt(loader, how, callbacks=(), step=1, **options):
    """A fit of a model that is new, and ends in the middle of an epoch."""
    model, received = recording_model()
    loader.broken = how == "error of the loader"
    over = contextlib.suppress(Interrupted, KeyboardInterrupt)
    if loader.broken:
        over = pytest.raises(Exception, match="Expected exception")
    with over:
        model.fit(loader, epochs=2, verbose=0, callbacks=[*callbacks, End(how, step)], **options)
    loader.broken = False
    return received.trained


def by_number(loader):
    return [numbers_of(loader[k][0]) for k in range(len(loader))]


def by_hand(loader):
    """An epoch of a loop written by hand."""
    loader.on_epoch_begin()
    found = [numbers_of(loader[k][0]) for k in range(len(loader))]
    loader.on_epoch_end()
    return found


def planned(loader, epoch, shuffle):
    order = loader.plan.shuffled_order(epoch) if shuffle else loader.plan.storage_order(epoch)
    return [loader.plan.indices(order, k).tolist() for k in range(BATCHES)]


def made(keep, shuffle, **options):
    return keep(Numbers(SAMPLES, BATCH, shuffle=shuffle, seed=7, **options))


@scenario("interrupted fit, then loader[i], a custom loop, and fit again")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("how", HOW)
def test_after_an_interruption(keep, how, shuffle, callback):
    """Indexed batches and a custom loop belong to the epoch after the interrupted one."""
    loader = made(keep, shuffle)
    ours = [kl.LoaderCallback(loader)] if callback else []
    interrupt(loader, how, ours)
    assert by_number(loader) == planned(loader, 1, shuffle)
    assert numbers_of(loader[3][0]) == planned(loader, 1, shuffle)[3]
    assert len(loader) == BATCHES
    assert by_hand(loader) == planned(loader, 1, shuffle)
    assert by_hand(loader) == planned(loader, 2, shuffle)
    model, received = recording_model()
    model.fit(loader, epochs=1, verbose=0, callbacks=ours)
    found = received.trained
    if shuffle is False:
        assert sorted(found) == planned(loader, 3, shuffle)
    else:
        numbers = [number for batch in found for number in batch]
        assert sorted(numbers) == list(range(SAMPLES))
        if shuffle:
            assert found == planned(loader, 3, shuffle)


@scenario("fit interrupted twice, then a custom loop")
@pytest.mark.parametrize("how", HOW)
def test_a_loop_right_after_it(keep, how):
    """on_epoch_begin() begins an epoch without any batch of the interrupted one."""
    loader = made(keep, True)
    for epoch in (1, 3):
        interrupt(loader, how, step=0)
        assert by_hand(loader) == planned(loader, epoch, True)


@scenario("fit with steps_per_epoch ends in mid-pass, then loader[i] and a custom loop")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
def test_after_a_fit_that_ended_in_mid_pass(keep, callback):
    loader = made(keep, True)
    ours = [kl.LoaderCallback(loader)] if callback else []
    model, _ = recording_model()
    model.fit(loader, epochs=1, steps_per_epoch=2, verbose=0, callbacks=ours)
    assert by_number(loader) == planned(loader, 1, True)
    assert by_hand(loader) == planned(loader, 1, True)


@scenario("interrupted evaluate, then loader[i] and a custom loop")
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_after_an_interrupted_evaluation(keep, method):
    class Fail(keras.callbacks.Callback):
        def fail(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

        on_test_batch_end = on_predict_batch_end = fail

    loader = made(keep, None)
    model, _ = recording_model()
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(loader, verbose=0, callbacks=[Fail()])
    assert by_number(loader) == planned(loader, 0, False)
    assert by_hand(loader) == planned(loader, 0, False)


@scenario("for batch in loader after an interrupted fit")
@pytest.mark.parametrize("how", HOW)
def test_an_iteration_after_it(keep, how):
    loader = made(keep, True)
    interrupt(loader, how)
    assert [numbers_of(x) for x, _ in loader] == planned(loader, 1, True)


def test_the_position_of_an_interrupted_fit(keep):
    """With a callback the position is after the last trained batch; another loader resumes there."""
    loader = made(keep, True)
    trained = interrupt(loader, "Ctrl-C", [kl.LoaderCallback(loader)])
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 2)
    again = made(keep, True)
    again.load_state_dict(state)
    assert trained + [numbers_of(x) for x, _ in again] == planned(loader, 0, True)


def test_the_position_is_unknown_without_a_callback(keep):
    loader = made(keep, True)
    interrupt(loader, "Ctrl-C")
    with pytest.raises(ValueError, match="LoaderCallback"):
        loader.state_dict()
    assert by_hand(loader) == planned(loader, 1, True)
    assert loader.state_dict()["epoch"] == 2


class Gated(Numbers):
    """Keras' read of number `at` in a pass waits at a gate."""

    def __init__(self, *args, **options):
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.passed = threading.Event()
        self.reads, self.at = 0, None
        super().__init__(*args, **options)

    def __getitem__(self, index):
        late = self.at is not None and threading.current_thread() is not threading.main_thread()
        if late:
            self.reads += 1
        if late and self.reads == self.at:
            self.waiting.set()
            assert self.gate.wait(60)
            try:
                return super().__getitem__(index)
            finally:
                self.passed.set()
        return super().__getitem__(index)


@scenario("TensorFlow's abandoned iterator reads during the next pass")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow reads in a thread of its own")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", [None, True])
@pytest.mark.parametrize("what", ["loader[i]", "by hand", "iteration"])
def test_an_abandoned_iterator_disturbs_nothing(keep, what, shuffle, callback):
    """A read of Keras after the end of the fit does not count for the loop, nor end its order."""
    loader = keep(Gated(SAMPLES, BATCH, shuffle=shuffle, seed=7, workers=0))
    ours = [kl.LoaderCallback(loader)] if callback else []

    class Wait(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                assert loader.waiting.wait(60)
                raise KeyboardInterrupt

    model, _ = recording_model()
    loader.at = 3
    with pytest.raises(KeyboardInterrupt) as held:  # and with it Keras' iterator
        model.fit(loader, verbose=0, callbacks=[*ours, Wait()])
    found = []

    def release():
        loader.gate.set()
        assert loader.passed.wait(60)

    if what == "loader[i]":
        release()
        found = by_number(loader)
    elif what == "by hand":
        loader.on_epoch_begin()
        for k in range(len(loader)):
            found.append(numbers_of(loader[k][0]))
            if k == 2:
                release()
        loader.on_epoch_end()
    else:
        for k, (x, _) in enumerate(loader):
            found.append(numbers_of(x))
            if k == 2:
                release()
    assert found == planned(loader, 1, shuffle)
    del held
