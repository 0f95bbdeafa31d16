"""Models that record what they receive, and callbacks that disturb a fit."""

from __future__ import annotations

import warnings
from functools import lru_cache

import keras
import numpy as np

from tests.support.kinds import png
from tests.support.recording import BACKEND, recording_model


@lru_cache
def _model(form, options):
    shape, dtype = ((4, 4, 3), "uint8") if form == "picture" else ((2,), "float32")
    return recording_model(shape, dtype, **dict(options))


def model_for(kind=None, **options):
    """The model for a kind of loader, and its record, emptied. Tests share it."""
    model, received = _model("picture" if kind is png else "row", tuple(options.items()))
    received.clear()
    model.stop_training = False
    return model, received


def fit(model, data, **options):
    with warnings.catch_warnings():
        # steps_per_epoch beyond the length is among what is tested.
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message=".*`shuffle=True` was passed")
        history = model.fit(data, verbose=0, **options).history
    assert not np.any(history.get("mismatch", 0)), "an x came with another's y"
    return history


class Stop(keras.callbacks.Callback):
    """Sets stop_training after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            self.model.stop_training = True


class Call(keras.callbacks.Callback):
    """Calls a function of the model at some moment of the training."""

    def __init__(self, function, when="on_epoch_end", step=None):
        super().__init__()

        def hook(number, logs=None):
            if step is None or number == step:
                # On JAX this property brings the weights back to the model.
                function(self.model)

        setattr(self, when, hook)


class Interrupted(Exception):
    """Something that a callback may raise."""


def sound_model():
    """A model to continue with after a failed fit.

    On JAX the weights of a model are handed to the training step and lost when it fails.
    """
    if BACKEND == "jax":
        _model.cache_clear()
    return model_for()
