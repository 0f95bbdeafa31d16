"""Which epoch of the order a fit's epoch means, as far as its callbacks tell."""

import pytest

from kloaders.keras_api.fit_events import FitEvents


def begun(epochs=3, next_epoch=0):
    fit = FitEvents()
    fit.begin(epochs, None, None, next_epoch)
    return fit


def orders(fit, epochs, passes=1, resumed=None):
    return [fit.epoch_begin(epoch, passes, resumed) for epoch in epochs]


def test_a_first_fit_has_the_epochs_of_keras():
    fit = begun(3)
    assert orders(fit, range(3)) == [0, 1, 2]
    assert fit.last_epoch == 2


def test_a_fit_from_0_goes_on_behind_the_epochs_already_served():
    fit = begun(2, next_epoch=5)
    assert orders(fit, range(2)) == [5, 6]
    assert fit.last_epoch == 6


def test_a_fit_that_starts_later_means_that_very_epoch():
    """As with initial_epoch, or in a run restored by Keras."""
    fit = begun(10, next_epoch=1)
    assert orders(fit, [7, 8, 9]) == [7, 8, 9]
    assert fit.last_epoch == 9


def test_several_epochs_of_keras_share_a_pass():
    """steps_per_epoch below the length of the loader."""
    fit = begun(5, next_epoch=2)
    assert orders(fit, range(5), passes=2) == [2, 2, 3, 3, 4]
    assert fit.last_epoch == 4


def test_a_resumed_order_is_the_one_that_is_due():
    fit = begun(6)
    assert orders(fit, [0, 1], resumed=4) == [4, 5]
    assert fit.last_epoch == 9


@pytest.mark.parametrize(("trained", "expected"), [(False, [3, 4]), (True, [2, 3])])
def test_a_restored_run_says_which_epoch_is_due(trained, expected):
    """Keras' epoch 5 is order 3, or the next epoch is, if epoch 5 is already trained."""
    fit = begun(8, next_epoch=3)
    fit.resume(5, trained)
    assert orders(fit, [5, 6]) == expected


def test_the_end_leaves_nothing_due():
    fit = begun(3)
    fit.due = fit.armed = True
    orders(fit, [0])
    fit.end()
    assert (fit.running, fit.due, fit.armed) == (False,) * 3
    assert fit.ended is fit.last_epoch is None
    fit.begin(2, lambda: True, False, 1)
    assert fit.running
    assert (fit.consumed, fit.shuffle, fit.ended()) == (0, False, True)
    assert orders(fit, range(2)) == [1, 2]
