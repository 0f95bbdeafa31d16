"""The suggested changes, for made-up figures."""

import pytest

from kloaders.diagnostics.explain.advice import advise
from kloaders.diagnostics.explain.bottleneck import EpochCost
from kloaders.diagnostics.explain.measured import Run
from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures, settings_of


def test_a_cache_that_was_turned_off_is_asked_for():
    """The advice is code to type: cache= if there is no cache, a larger budget if it is too small."""
    assert settings_of(judge(figures({"cache": None}))) == ['cache="ram"']


def test_what_does_not_fit_in_ram_is_packed():
    """At the speed at which the disk gives decoded bytes."""
    (advice,) = judge(figures({"free_bytes": 10**9})).advice
    assert advice.setting == "write_pack(loader, folder)"
    assert advice.predicted == pytest.approx(21_000 * 100_000 / 150_000)
    assert advice.change is None


def test_floats_that_were_bytes_are_copied_for_nothing():
    """If copying is the bottleneck, the suggested setting reduces the bytes."""
    widened = {"kept": 1.0, "widened": 4.0, "sample_bytes": 600_000}
    (advice,) = judge(figures(widened)).advice
    assert advice.setting == "leave dtype= and rescale= out"
    assert advice.gain == pytest.approx(4)


def test_nothing_ahead_is_waiting():
    """workers=0 adds loading to the step; threads overlap with it."""
    found = judge(
        figures(
            {"workers": 0, "free_bytes": 0},
            cold=Run(490, 1.0),
            warm=Run(490, 1.0),
            step_s=10e-3,
            step_cpu_s=1e-3,
            fit_s=75e-3,
            model_from="model",
        )
    )
    assert found.bound == "waiting"
    assert settings_of(found) == ["leave workers out"]
    assert found.advice[0].predicted == pytest.approx(32 / 10e-3)


def test_scaled_decoding_is_advised_by_what_it_measured():
    """Decoding in a third of the time is three times as fast, except for the other stages."""
    found = judge(figures({"free_bytes": 0}, dct_decode_s=6e-4))
    assert "dct_scaling=True" in settings_of(found)
    (advice,) = [a for a in found.advice if a.setting == "dct_scaling=True"]
    assert advice.gain == pytest.approx(2.02 / 0.62, rel=1e-3)


def test_at_most_two_the_better_one_first():
    """Advice that gains less than 10% is left out, and all advice if the model is the bottleneck."""
    few = {"cacheable": False, "workers": 4}
    cost = EpochCost(figures(few, dct_decode_s=6e-4, warm=Run(1950, 3.9)))
    found = advise(cost, "cpu", "decode")
    assert [a.setting for a in found] == ["dct_scaling=True", "workers=8"]
    assert found[0].gain > found[1].gain
    cost = EpochCost(figures({"cacheable": False}, dct_decode_s=1.9e-3))
    assert advise(cost, "cpu", "decode") == []
    assert advise(EpochCost(DECODING), "model", None) == []


def test_a_transform_is_left_to_the_model():
    """Where it is most of the work."""
    own = {"has_transform": True, "cacheable": False}
    (advice,) = judge(figures(own, transform_s=6e-3, warm=Run(990, 7.9), cold=Run(980, 7.9))).advice
    assert advice.setting == "Keras layers instead of transform="
    assert advice.change == ("transform", None)


def test_a_transform_that_decodes_is_not():
    """With decode=kl.keep_encoded; no layer of a model decodes images."""
    own = {"has_transform": True, "cacheable": False, "transform_decodes": True}
    found = judge(figures(own, transform_s=6e-3, warm=Run(990, 7.9), cold=Run(980, 7.9)))
    assert found.advice == []
