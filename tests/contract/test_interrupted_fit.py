"""After a fit that was stopped or that failed, the next passes are exact."""

from __future__ import annotations

import numpy as np
import pytest

import kloaders as kl
from tests.support.assertions import assert_exact, assert_planned, samples_of
from tests.support.kinds import BATCH, FEW, Flaky, kinds
from tests.support.marks import SHUFFLES, TF, scenario
from tests.support.training import Call, Interrupted, Stop, fit, model_for, sound_model


@scenario("stopped in mid-epoch, then fit again")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_stop_and_fit_again(make, kind, shuffle, callback):
    """A fit after stop_training in mid-epoch is exact from its first batch on."""
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)
    ours = [kl.LoaderCallback(loader)] if callback else []
    for step in (1, 0):
        fit(model, loader, callbacks=[Stop(step), *ours])
        assert len(received.trained) == step + 1
        assert_exact(received.trained, loader)
        received.clear()
    fit(model, loader, epochs=2, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader)


@scenario("an exception from a callback in mid-epoch, then predict, evaluate, fit again")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(FEW)
def test_callback_raises_and_fit_again(make, kind, shuffle, callback):
    """After a callback raises in mid-epoch, the next passes are exact.

    Keras tells no callback that a fit has failed: LoaderCallback has to find out.
    """
    model, received = model_for()
    loader = make(kind, 19, shuffle=shuffle)

    def fail(model):
        raise Interrupted

    ours = [kl.LoaderCallback(loader)] if callback else []
    with pytest.raises(Interrupted) as held:  # and with it the frame of fit
        fit(model, loader, epochs=9, callbacks=[*ours, Call(fail, "on_train_batch_end", 1)])
    assert_exact(received.trained, loader)
    model, received = sound_model()
    predicted = model.predict(loader, verbose=0)[:, 1]
    assert sorted(predicted) == list(range(19))
    if not shuffle:
        np.testing.assert_array_equal(predicted, np.arange(19))
    received.clear()
    model.evaluate(loader, verbose=0)
    assert_exact(received.inferred, loader, passes=1)
    fit(model, loader, epochs=3)
    found = assert_exact(received.trained, loader, passes=3)
    if shuffle is not False:
        assert_planned(found, loader)
        assert len({tuple(samples_of(one)) for one in found}) == 3
    del held


@scenario("an exception from the loader in mid-epoch, then fit again")
@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "threads"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_loader_raises_and_fit_again(keep, shuffle, workers):
    """A sample that fails to load ends the fit with its name; once repaired, the next fit is exact.

    The report is after Keras' py_dataset_adapter_test.py, test_exception_reported.
    """
    model, received = model_for()
    loader = keep(Flaky(19, BATCH, shuffle=shuffle, seed=7, workers=workers))
    with pytest.raises(Exception, match=r"index 9.*Expected exception") as caught:
        fit(model, loader)
    if not TF:
        assert caught.type is kl.SampleError
    model, received = sound_model()
    loader.broken = False
    fit(model, loader, epochs=2)
    found = assert_exact(received.trained, loader, passes=2)
    if shuffle is not False:
        assert_planned(found, loader)
