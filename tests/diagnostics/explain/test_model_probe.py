"""Models that are measured, and left as they were."""

import keras
import numpy as np
import pytest

import kloaders as kl


def test_an_unbuilt_model_is_measured_too():
    """Its first weights stay what they were drawn as."""
    loader = kl.ArraySequenceLoader(np.zeros((32, 4), "f4"), np.zeros(32, "f4"), 8, seed=1)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert loader.explain(model, seconds=0.2).best > 0
    assert model.built
    loader.close()


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("a model", TypeError, "model is a str, expected the keras.Model that fit"),
        (keras.Sequential([keras.layers.Dense(1)]), ValueError, "call model.compile\\(\\) first"),
    ],
)
def test_what_is_no_model_is_refused(model, error, words):
    loader = kl.ArraySequenceLoader(np.zeros((32, 4), "f4"), np.zeros(32, "f4"), 8)
    with pytest.raises(error, match=words):
        loader.explain(model, seconds=0.1)
    with pytest.raises(ValueError, match="seconds=0, expected more than 0"):
        loader.explain(seconds=0)
