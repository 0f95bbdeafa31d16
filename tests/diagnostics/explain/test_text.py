"""An explanation in words."""

import dataclasses

import pytest

from kloaders.diagnostics.explain.text import (
    RESOURCES,
    as_text,
    limits_of,
    next_step,
    stages_of,
    standing,
    time_of,
    verdict,
)
from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (3e-6, "3 µs"), (0.5, "500.0 ms"), (61, "61.00 s")]
)
def test_times(seconds, text):
    assert time_of(seconds) == text


def test_stages_are_those_that_were_measured():
    """Without a transform and a model there are none of theirs; seconds per sample."""
    assert [name for name, _, _ in stages_of(judge(DECODING))] == ["read", "decode", "copy"]
    found = judge(
        figures(
            {"has_transform": True}, transform_s=1e-3, step_s=32e-3, to_device_s=3.2e-3, fit_s=1
        )
    )
    stages = {name: seconds for name, _, seconds in stages_of(found)}
    assert list(stages) == ["read", "decode", "transform", "copy", "device", "step"]
    assert stages["step"] == pytest.approx(1e-3)
    assert stages["device"] == pytest.approx(1e-4)


def test_limits_are_samples_per_second():
    limits = {name: rate for name, _, rate in limits_of(judge(figures(step_s=4e-3, fit_s=8e-3)))}
    assert limits == {
        "disk": 21_000,
        "cold": 3700,
        "warm": 3900,
        "ram": 300_000,
        "model": 8000,
        "fit": 4000,
    }
    without = {
        name for name, _, _ in limits_of(judge(figures(disk_rate=None, disk_rate_more=None)))
    }
    assert without == {"warm", "ram"}


@pytest.mark.parametrize("name", RESOURCES)
def test_each_bottleneck_has_a_sentence(name):
    """And the GIL is called so."""
    found = dataclasses.replace(judge(DECODING), bottleneck=name)
    assert verdict(found) == f"The bottleneck of loading is {RESOURCES[name]}."
    trained = dataclasses.replace(found, best=1.0, wait=0.5)
    assert verdict(trained).startswith("The bottleneck of training is ")
    assert ("the GIL" in verdict(found)) is (name == "gil")


def test_how_far_it_is():
    found = judge(figures(step_s=4e-3, fit_s=8e-3))
    assert standing(found) == (
        "4,000 samples/s in fit, 100% of what this machine can do; 8,000 if the model never waited for data "
        "(it waits 50% of the time)."
    )
    assert "for the loader alone" in standing(judge(DECODING))


def test_changes_stand_with_what_they_promise_and_what_came_of_them():
    found = judge(DECODING)
    text = as_text(found)
    assert "predicted: 300,000 samples/s, 76.9 times" in text
    assert "measured: " not in text
    tried = [dataclasses.replace(a, measured=390.0) for a in found.advice]
    assert "; measured: 390, 0.1 times" in as_text(dataclasses.replace(found, advice=tried))
    nothing = dataclasses.replace(found, advice=[])
    assert "No setting is expected to gain more than 10%." in as_text(nothing)


def test_it_says_what_to_do_next():
    """One sentence for each outcome, in the terminal and on the page."""
    found = judge(DECODING, "A, 10 samples", {})
    assert f"Next: {next_step(found)}" in as_text(found)
    assert "change the first setting, and run explain() again" in next_step(found)
    for changed, said in (
        ({"advice": (), "bottleneck": "model"}, "make the model's step faster"),
        ({"advice": (), "bottleneck": "cpu", "best": None}, "run explain(model)"),
        ({"advice": (), "bottleneck": "cpu", "best": 9.0}, "make each sample cheaper"),
        ({"busy": ("a",)}, "stop other programs"),
    ):
        assert said in next_step(dataclasses.replace(found, **changed))
