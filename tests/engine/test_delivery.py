"""The last step of a batch: weights, padding of a short one, and the form that Keras takes."""

import numpy as np
import pytest

from kloaders.engine.delivery import Delivery

INDICES = np.array([4, 2, 7])
X = np.array([[4.0], [2.0], [7.0]])
Y = np.array([40, 20, 70])
WEIGHTS = np.arange(10, dtype=np.float32) / 10


def plain(value):
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.tolist()


@pytest.mark.parametrize(
    ("parts", "form"), [((X,), X), ((X, Y), (X, Y)), (((X, Y),), ((X, Y),)), ((X, (Y, X)),) * 2]
)
def test_a_lone_x_is_unwrapped(parts, form):
    """But for a tuple of inputs, which Keras would take for x and y."""
    assert plain(Delivery(None, 3)(parts, INDICES)) == plain(form)


def test_each_sample_gets_its_weight():
    x, y, weights = Delivery(WEIGHTS, 3)((X, Y), INDICES)
    assert (plain(x), plain(y)) == (plain(X), plain(Y))
    np.testing.assert_array_equal(weights, np.float32([0.4, 0.2, 0.7]))


def test_a_short_batch_is_padded_with_weight_0():
    """To the batch size, with its first sample; a full one gets weights as well."""
    x, y, weights = Delivery(None, 5, pad_last=True)((X, Y), INDICES)
    assert x.ravel().tolist() == [4, 2, 7, 4, 4]
    assert y.tolist() == [40, 20, 70, 40, 40]
    assert weights.tolist() == [1, 1, 1, 0, 0]
    assert weights.dtype == np.float32
    assert Delivery(None, 3, pad_last=True)((X, Y), INDICES)[2].tolist() == [1, 1, 1]
    weights = Delivery(WEIGHTS, 4, pad_last=True)((X, Y), INDICES)[2]
    np.testing.assert_array_equal(weights, np.float32([0.4, 0.2, 0.7, 0]))
    assert plain(Delivery(None, 4, pad_last=True)((X,), INDICES)) == [*plain(X), [4.0]]


def test_inputs_as_labels_are_the_same_arrays():
    x, y = Delivery(None, 3, inputs_as_labels=True)((X,), INDICES)
    assert x is y is X


def test_weights_without_labels_are_an_error():
    with pytest.raises(ValueError, match="sample_weights= needs labels"):
        Delivery(WEIGHTS, 3)((X,), INDICES)


@pytest.mark.parametrize(
    ("delivery", "parts", "has"),
    [
        (Delivery(None, 3), 2, False),
        (Delivery(WEIGHTS, 3), 2, True),
        (Delivery(None, 3, pad_last=True), 2, True),
        (Delivery(None, 3, pad_last=True), 1, False),
        (Delivery(None, 3, pad_last=True, inputs_as_labels=True), 1, True),
    ],
)
def test_what_is_announced_is_what_comes(delivery, parts, has):
    """`has_weights` and the batch itself agree."""
    assert delivery.has_weights(parts) is has
    batch = delivery((X, Y)[:parts], INDICES)
    assert (isinstance(batch, tuple) and len(batch) == 3) is has
