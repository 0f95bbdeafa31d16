"""inputs_as_labels: x and y of a batch are one array."""

import pickle

import numpy as np
import pytest

import kloaders as kl


def loader_of(x, **options):
    return kl.ArraySequenceLoader(x, None, 4, **options)


X = np.arange(10, dtype=np.float32).reshape(10, 1)


def test_x_is_y():
    loader = kl.inputs_as_labels(loader_of(X))
    for number in range(3):
        x, y = loader[number]
        assert x is y
        np.testing.assert_array_equal(x, X[4 * number : 4 * number + 4])


def test_structures_are_kept():
    x, y = kl.inputs_as_labels(loader_of({"a": X, "b": X + 1}))[0]
    assert sorted(x) == sorted(y) == ["a", "b"]
    assert x["a"] is y["a"]
    np.testing.assert_array_equal(y["b"], X[:4] + 1)


def test_weights_stay_the_third_part():
    loader = kl.inputs_as_labels(loader_of(X, sample_weights=np.arange(10)))
    x, y, weights = loader[1]
    assert x is y
    assert weights.tolist() == [4, 5, 6, 7]


def test_a_transform_gets_the_input_twice():
    """One array for both; what it returns as y is not changed by what it does to x."""
    seen = []

    def noisy(x, y, rng):
        seen.append(x is y)
        return x + 100, y

    x, y = kl.inputs_as_labels(loader_of(X, transform=noisy, workers=0))[0]
    assert seen
    assert all(seen)
    np.testing.assert_array_equal(y, X[:4])
    np.testing.assert_array_equal(x, X[:4] + 100)


def test_the_loader_it_is_made_from_stays_as_it_is():
    loader = loader_of(X)
    made = kl.inputs_as_labels(loader)
    assert type(made) is type(loader)
    assert not loader.options.inputs_as_labels
    np.testing.assert_array_equal(loader[0], X[:4])


def test_views_parts_and_pickles_have_it():
    loader = kl.inputs_as_labels(loader_of(X))
    for other in (loader.view(), kl.take(loader, 5), pickle.loads(pickle.dumps(loader))):
        x, y = other[0]
        assert x is y
        np.testing.assert_array_equal(x, X[:4])


def test_labels_of_its_own_are_refused():
    with pytest.raises(
        ValueError,
        match=r"^inputs_as_labels\(ArraySequenceLoader\): this loader already has labels",
    ):
        kl.inputs_as_labels(kl.ArraySequenceLoader(X, X, 4))


def test_twice_does_no_harm():
    x, y = kl.inputs_as_labels(kl.inputs_as_labels(loader_of(X)))[0]
    assert x is y
