"""The verdict on figures that a test makes up."""

import pytest

from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures, settings_of


def test_decoding_keeps_the_cores_busy():
    """The CPU is the bottleneck; data that fit in RAM should be cached, and no gain exceeds a factor of 2."""
    found = judge(DECODING)
    assert (found.bound, found.stage) == ("cpu", "decode")
    assert "99% of the work on 8 cores is decoding" in found.why
    assert found.reached == pytest.approx(3900 * 2.02e-3 / 8, rel=1e-3)
    assert found.best is None
    assert found.wait is None
    assert settings_of(found) == ['cache_budget="14.0GiB"']
    assert found.advice[0].predicted == 300_000
    assert "explain() after a fit with LoaderCallback" in str(found)


def test_with_a_model_a_gain_ends_where_the_step_begins():
    """A loader that is a hundred times as fast only saves the time that the model waited."""
    found = judge(figures(step_s=4e-3, step_cpu_s=1e-3, fit_s=8e-3, model_from="model"))
    assert found.bound == "cpu"
    assert (found.now, found.best, found.wait) == (4000, 8000, 0.5)
    assert found.advice[0].predicted == 8000
    assert found.advice[0].gain == 2


def test_samples_from_the_cache_are_copied():
    """The figures are those after the first epoch, which is reported separately."""
    found = judge(figures({"kept": 1.0}))
    assert (found.bound, found.now, found.first) == ("copy", 300_000, 3700)
    assert found.first_bound == "cpu"
    assert found.advice == []
    assert "In the first epoch, the loader alone makes 3,700 samples/s" in str(found)
