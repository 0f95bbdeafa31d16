"""What an explanation consists of: values that do not change."""

import dataclasses

import pytest

from kloaders.diagnostics.explain.findings import Advice, Findings
from tests.support.explain_figures import DECODING


def findings(**values):
    known = {
        "title": "it",
        "measured": DECODING,
        "bottleneck": "cpu",
        "stage": "decode",
        "why": "it is so",
        "now": 100.0,
        "first": 50.0,
        "first_bottleneck": "disk",
        "first_why": "it was so",
        "loading": 100.0,
        "ceiling": 200.0,
        "reached": 0.5,
        "best": None,
        "wait": None,
    }
    return Findings(**{**known, **values})


def test_values_stay_what_they_are():
    advice = Advice("workers=4", "they wait", 200.0, 2.0)
    assert advice.change is None
    assert advice.measured is None
    for value, name in ((advice, "gain"), (findings(), "now")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 0)


def test_each_has_lists_of_its_own():
    one, other = findings(), findings()
    assert one.advice == []
    assert one.advice is not other.advice
    assert one == other
