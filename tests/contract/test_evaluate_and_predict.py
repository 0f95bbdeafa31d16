"""Evaluation and prediction see every sample once, in storage order, whatever fit does around them."""

from __future__ import annotations

import numpy as np
import pytest

import kloaders as kl
from tests.support.assertions import assert_exact, assert_planned, in_storage_order
from tests.support.kinds import FEW, KINDS, SAMPLES, array, kinds, npy, ram_windows
from tests.support.marks import SHUFFLES, scenario
from tests.support.training import Call, Stop, fit, model_for


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


@scenario("predict rows match in on_epoch_begin, with LoaderCallback before or after it")
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
    """A second pass in the middle of fit's own, without the callback, is logged once.

    Stopping a fit logs nothing, and the next fit is a normal one.
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


@scenario("predict rows match the paths, right after fit on the same object")
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


@scenario("predict rows match after a fit that was stopped in mid-epoch")
@kinds(FEW)
def test_predictions_line_up_after_a_stop(make, kind):
    """An unfinished pass does not shift the rows of the next prediction."""
    model, _ = model_for()
    loader = make(kind, 19)
    fit(model, loader, callbacks=[Stop(1)])
    predicted = model.predict(loader, verbose=0)
    np.testing.assert_array_equal(predicted[:, 1], np.arange(19))


@scenario("predict rows match in on_epoch_end")
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
