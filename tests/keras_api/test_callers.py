"""Two calls of Keras that read from one loader at once: refused, with what to do instead."""

import threading

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import numbers_of, recording_model, row_of

SAMPLES, BATCH = 23, 4
VIEW = r"loader\.view\(\)"

scenario = pytest.mark.scenario


@pytest.fixture
def loader(keep):
    rows = np.stack([row_of(k) for k in range(SAMPLES)])
    return keep(
        kl.ArraySequenceLoader(
            rows, np.arange(SAMPLES, dtype="float32"), BATCH, shuffle=True, seed=7
        )
    )


def planned(loader, epoch):
    order = loader.plan.shuffled_order(epoch)
    return [loader.plan.indices(order, k).tolist() for k in range(len(loader))]


class At(keras.callbacks.Callback):
    """Calls a function at some moment of the training."""

    def __init__(self, when, function, step=None):
        super().__init__()

        def hook(number, logs=None):
            if step is None or number == step:
                function(self.model)

        setattr(self, when, hook)


@scenario("two fits at once, in threads: the second is rejected, the first is exact")
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_a_call_in_another_thread_is_refused(loader, method):
    model, received = recording_model()
    other, _ = recording_model()
    raised = []

    def use(_):
        def work():
            with pytest.raises(RuntimeError, match=VIEW) as error:
                getattr(other, method)(loader, verbose=0)
            raised.append(str(error.value))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(100)

    model.fit(loader, epochs=2, verbose=0, callbacks=[At("on_train_batch_end", use, 2)])
    assert received.trained == planned(loader, 0) + planned(loader, 1)
    assert len(raised) == 2
    assert f"{method}() was given a loader that fit() is reading from" in raised[0]


@scenario("two fits at once, each on a view")
def test_views_may_be_fitted_at_once(loader):
    model, received = recording_model()
    other, others = recording_model()

    def use(_):
        thread = threading.Thread(target=lambda: other.fit(loader.view(), verbose=0))
        thread.start()
        thread.join(100)

    model.fit(loader, verbose=0, callbacks=[At("on_train_batch_end", use, 2)])
    assert received.trained == others.trained == planned(loader, 0)


def test_one_thread_after_the_other(loader):
    """A fit in a thread that has ended does not block other calls."""
    model, received = recording_model()
    for _ in range(2):
        thread = threading.Thread(target=lambda: model.fit(loader, verbose=0))
        thread.start()
        thread.join(100)
    model.fit(loader, verbose=0)
    assert received.trained == [batch for k in range(3) for batch in planned(loader, k)]


@scenario("a fit inside a fit: rejected")
@pytest.mark.parametrize("when", ["on_train_batch_end", "on_epoch_end"])
def test_a_nested_fit_is_refused(loader, when):
    model, _ = recording_model()
    other, _ = recording_model()
    raised = []

    def use(_):
        with pytest.raises(RuntimeError, match=VIEW):
            other.fit(loader, verbose=0)
        raised.append(when)

    model.fit(loader, epochs=2, verbose=0, callbacks=[At(when, use, 1)])
    assert raised == [when] * (2 if when == "on_train_batch_end" else 1)


def test_a_fit_inside_a_fit_that_only_validates_on_it(loader, keep):
    """One call after another uses the loader: none is rejected, and both are exact."""
    train = keep(loader.view())
    model, received = recording_model()
    other, others = recording_model()
    inner = At("on_epoch_end", lambda _: other.fit(loader, verbose=0))
    model.fit(train, validation_data=loader, epochs=2, verbose=0, callbacks=[inner])
    assert received.trained == planned(loader, 0) + planned(loader, 1)
    for found in (others.trained, received.inferred):
        for one in (found[:6], found[6:]):
            assert sorted(number for batch in one for number in batch) == list(range(SAMPLES))


@scenario("a loop over the loader during a fit: rejected")
def test_a_loop_inside_a_fit_is_refused(loader):
    model, received = recording_model()
    raised = []

    def use(_):
        for begin in (lambda: list(loader), loader.on_epoch_begin):
            with pytest.raises(RuntimeError, match=VIEW):
                begin()
            raised.append(True)
        loader.on_epoch_end()  # the end of that loop is not the end of fit's epoch

    model.fit(loader, epochs=2, verbose=0, callbacks=[At("on_train_batch_end", use, 2)])
    assert received.trained == planned(loader, 0) + planned(loader, 1)
    assert len(raised) == 4


def test_a_look_inside_a_fit_changes_nothing(loader):
    """len(), num_batches and a batch, in a callback, between steps and between epochs."""
    model, received = recording_model()

    def look(_):
        assert len(loader) == loader.num_batches == 6
        assert len(numbers_of(loader[3][0])) in (3, 4)

    callbacks = [At("on_train_batch_end", look), At("on_epoch_end", look)]
    model.fit(loader, epochs=2, verbose=0, callbacks=callbacks)
    numbers = [number for batch in received.trained for number in batch]
    assert sorted(numbers[:SAMPLES]) == sorted(numbers[SAMPLES:]) == list(range(SAMPLES))


def test_a_loop_between_epochs_of_a_fit(loader):
    """No epoch is running then, so this is a separate epoch."""
    model, _ = recording_model()
    found = []

    def use(_):
        found.append(sorted(n for x, _ in loader for n in numbers_of(x)))

    model.fit(loader, epochs=2, verbose=0, callbacks=[At("on_epoch_end", use)])
    assert found == [list(range(SAMPLES))] * 2
