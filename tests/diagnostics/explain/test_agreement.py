"""Contradictory figures are reported, and lead to no advice."""

import pytest

from kloaders.diagnostics.explain.agreement import contradictions, reconciled
from kloaders.diagnostics.explain.html import page
from kloaders.diagnostics.explain.measured import Run
from kloaders.diagnostics.explain.text import as_text, verdict
from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures

BUSY = {
    "a step alone slower than in fit": (
        {"step_s": 0.56, "fit_s": 0.37},
        "took 560.0 ms, but a step in fit",
    ),
    "memory slower than the disk": (
        {"cold": Run(3700), "warm": Run(1000)},
        "files in memory gave 1,000 samples/s, but files on the disk, which need more work, gave 3,700",
    ),
    "RAM slower than files": (
        {"ram": Run(2000)},
        "decoded samples in RAM gave 2,000 samples/s, but files in memory, which need more work, gave 3,900",
    ),
}


def test_what_agrees():
    for m in (
        DECODING,
        figures(step_s=4e-3, fit_s=8e-3),
        figures(step_s=4.4e-3, fit_s=4e-3, warm=Run(3600), ram=Run(3500)),  # noise
        figures(cold=Run(9000), disk_rate=None),  # nothing came from a disk
    ):
        assert contradictions(m) == []
        assert judge(m).busy == []


def test_what_is_a_part_is_no_slower_than_the_whole():
    m = reconciled(figures(step_s=4.4e-3, fit_s=4e-3, warm=Run(3600), ram=Run(3500)))
    assert (m.step_s, m.warm.rate, m.ram.rate) == (4e-3, 3700, 3700)
    found = judge(figures(step_s=4.4e-3, fit_s=4e-3))
    assert found.best == found.now == pytest.approx(8000)
    assert found.wait == 0


@pytest.mark.parametrize(("values", "words"), BUSY.values(), ids=list(BUSY))
def test_a_busy_machine_is_said_to_be_busy(values, words):
    """Instead of three digits, a bottleneck and advice."""
    found = judge(figures(**values))
    assert len(found.busy) == 1
    assert words in found.busy[0]
    assert found.advice == []
    assert verdict(found).startswith("The machine is busy with other programs")
    assert "the machine is busy" in repr(found)
    assert found.to_dict()["busy"] == found.busy
    for text in (as_text(found), page(found)):
        assert "The machine is busy with other programs" in text
        assert words in text
        assert "Run it again when no other program runs." in text
        assert "of what this machine can do" not in text
        assert "No setting is expected" not in text
        assert "about 4,000" in text or "about 2,000" in text
        assert "if the model never waited" not in text
