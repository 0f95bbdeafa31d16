"""Models that are measured, and left as they were."""

import time

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import model_probe
from kloaders.diagnostics.explain.model_probe import measure_model


def test_an_unbuilt_model_is_measured_too():
    """The model keeps its initial weights."""
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


def compiled():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Slow(kl.SequenceLoader):
    """40 ms a batch of 8, in one thread; the model needs one."""

    def load_sample(self, index):
        time.sleep(0.005)
        return np.zeros(4, "f4"), np.float32(0)


@pytest.mark.parametrize("samples", [8000, 64], ids=["long epochs", "short epochs"])
def test_a_slow_loader_is_not_measured_for_ever(samples):
    """About as long as it was told, not as many steps as a quick model could take in that time; and what
    was made ahead is not taken for speed."""
    loader, model = Slow(samples, 8, workers=1, seed=1), compiled()
    model.fit(np.zeros((8, 4), "f4"), np.zeros(8, "f4"), verbose=0)
    begin = time.perf_counter()
    found = measure_model(model, loader, 1.0)
    assert time.perf_counter() - begin < 15  # of 8 s and more, if each run had only 50 steps
    assert found["fit_s"] > 0.035
    assert found["step_s"] < found["fit_s"]
    loader.close()


@pytest.mark.parametrize(
    ("alone", "together", "rounds"),
    [([1.0] * 5, [1.0] * 5, 2), ([9, 8, 7, 1, 1], [2] * 5, 4), ([9] * 5, [1] * 5, 5)],
    ids=["they agree", "one was slowed down", "they never agree"],
)
def test_the_step_alone_and_the_fit_are_measured_in_turns(monkeypatch, alone, together, rounds):
    """All epochs are equal and the fastest counts, so the step alone is never slower than the fit."""
    seen = []

    def run(keras, model, data, seconds):
        seen.append(data)
        if seconds == 0:  # it compiles
            return 0.0, 0.0
        turn, second = divmod(len(seen) - 2, 2)
        return float((together if second else alone)[turn]), 0.5

    monkeypatch.setattr(model_probe, "_run", run)
    loader = kl.ArraySequenceLoader(np.zeros((64, 4), "f4"), np.zeros(64, "f4"), 8, seed=1)
    found = measure_model(compiled(), loader, 1.0)
    assert [len(data) for data in seen] == [8] * (1 + 2 * rounds)
    assert [data is loader for data in seen] == [False] + [False, True] * rounds
    assert found["step_s"] == min(alone[:rounds])
    assert found["fit_s"] == min(together[:rounds])
    loader.close()


def test_a_fit_that_pauses_between_epochs_is_not_slow():
    """What passes between the last step of an epoch and the next epoch is no part of a step."""

    class Pausing(kl.ArraySequenceLoader):
        def on_epoch_end(self):
            super().on_epoch_end()
            time.sleep(0.3)

    loader = Pausing(np.zeros((64, 4), "f4"), np.zeros(64, "f4"), 8, seed=1)
    seconds, _ = model_probe._run(keras, compiled(), loader, 1.0)
    assert seconds < 0.3 / 8
    loader.close()


def test_steps_are_counted_where_several_are_one_call():
    loader = kl.ArraySequenceLoader(np.zeros((512, 4), "f4"), np.zeros(512, "f4"), 8, seed=1)
    model = compiled()
    one = measure_model(model, loader, 0.5)["step_s"]
    model.compile("sgd", "mse", steps_per_execution=16)
    assert measure_model(model, loader, 0.5)["step_s"] < 2 * one
    loader.close()
