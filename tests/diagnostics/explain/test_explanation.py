"""An explanation as text, JSON and files."""

import dataclasses
import json

import pytest

from kloaders.diagnostics.explain.text import RESOURCES
from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures


def test_an_explanation_is_plain_data_and_text():
    """Every figure survives JSON; every verdict has words."""
    found = judge(figures(step_s=4e-3, fit_s=8e-3, model_from="fit"), "a loader", {"cores": 8})
    told = json.loads(found.to_json())
    assert told["bottleneck"] == told["bound"] == found.bottleneck == found.bound
    assert told["bottleneck"] in RESOURCES
    assert told["first_epoch"]["bottleneck"] == told["first_epoch"]["bound"] == found.first_bound
    assert told["samples_per_s"] == {
        "now": 4000,
        "first_epoch": 3700,
        "loader_alone": 3900,
        "ceiling": pytest.approx(found.ceiling, rel=1e-3),
        "best": 8000,
    }
    assert told["advice"][0]["measured"] is None
    assert told["measured"]["settings"]["cores"] == 8
    assert "a loader" in str(found)
    assert repr(found) == "<Explanation: the bottleneck is cpu, 4,000 samples/s>"


def test_saved_by_the_name_it_is_given(tmp_path):
    """JSON, text or a page; nothing half-written is left."""
    found = judge(DECODING, "a loader")
    for name in ("a.json", "a.txt", "a.html"):
        found.save(tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text())["loader"] == "a loader"
    assert (tmp_path / "a.txt").read_text().startswith("a loader\n")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert len(list(tmp_path.iterdir())) == 3


def test_older_names_still_work():
    """Old names, until 0.2: the bottleneck now and in the first epoch."""
    found = judge(DECODING)
    assert (found.bound, found.first_bound) == (found.bottleneck, found.first_bottleneck)
    assert found.bottleneck == "cpu"


def test_what_cannot_be_written_in_json_is_none():
    """The rate of zero samples in zero seconds."""
    found = dataclasses.replace(judge(DECODING), now=float("inf"), machine={"a": [1.23456789]})
    content = json.loads(found.to_json())
    assert content["samples_per_s"]["now"] is None
    assert content["machine"] == {"a": [1.235]}
