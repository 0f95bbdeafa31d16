"""Findings that need a comparison of files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import kloaders as kl
from kloaders.diagnostics.verify.comparison import Comparison
from kloaders.diagnostics.verify.report import Report


def test_odd_shapes(tmp_path: Path) -> None:
    """One array of another shape among many; not where shapes differ anyway."""
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + (k == 7), k, np.float32))
    (one,) = kl.verify(tmp_path, workers=0, progress=False).findings
    assert (one.kind, os.path.basename(one.path)) == ("inconsistent", "07.npy")
    assert "float32 of shape (4,), but 19 others are float32 of shape (3,)" in one.message
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + k % 5, k, np.float32))
    assert not kl.verify(tmp_path, workers=0, progress=False).findings


def compared(answers, duplicates=True):
    """The kinds found in these: name, class, digest, form."""
    report = Report("it")
    comparison = Comparison(report)
    for name, label, digest, form in answers:
        answer = {"name": name, "problems": [], "digest": digest, "form": form, "class": label}
        comparison.take((name, label), [answer])
    comparison.finish(duplicates)
    return [(one.kind, one.path) for one in report.findings]


def test_the_first_of_some_alike_is_the_first_by_name():
    """In whatever order the answers come."""
    form = ("picture", "4 x 4", "uint8")
    answers = [("b", "x", "00", form), ("a", "x", "00", form), ("c", "y", "00", form)]
    for order in (answers, answers[::-1]):
        assert compared(order) == [("conflicting labels", "c"), ("duplicate", "b")]
    assert compared(answers, duplicates=False) == []


def test_nothing_is_inconsistent_among_many_kinds():
    """One of another form among twenty is; two among three are not."""
    usual, other = ("array", "(3,) float32"), ("array", "(4,) float32")
    many = [(f"{k:02}", None, f"{k:02}", usual) for k in range(20)]
    assert compared([*many, ("z", None, "ff", other)]) == [("inconsistent", "z")]
    few = many[:1] + [(f"y{k}", None, f"f{k}", other) for k in range(2)]
    assert compared(few) == []
