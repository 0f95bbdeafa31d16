"""Findings as lines, JSON and a list that loaders take."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import kloaders as kl
from kloaders.diagnostics.verify import report as report_module
from kloaders.diagnostics.verify.report import ERRORS, WARNINGS, Finding, Report, lines_of, summary


@pytest.fixture
def report() -> Report:
    """One finding of each kind, two of one."""
    found = Report("photos", files=30, left_out=2, seconds=1.5)
    for kind in (*ERRORS, *WARNINGS):
        found.add(f"/{kind}.jpg", kind, f"/{kind}.jpg is {kind}")
    found.add("/other.jpg", "empty", "/other.jpg is empty")
    return found


def test_errors_and_warnings(report: Report) -> None:
    """Errors would break a training; warnings may be intended."""
    assert {one.kind for one in report.errors} == set(ERRORS)
    assert {one.kind for one in report.warnings} == set(WARNINGS)
    assert not report.ok
    assert Report("it", findings=[Finding("a", "duplicate", "")]).ok
    assert list(report.counts()) == [*ERRORS, *WARNINGS]
    assert report.counts()["empty"] == 2


def test_the_kinds_have_the_fields_names() -> None:
    """Which scripts read; see docs/faults.md."""
    assert (
        *("unreadable", "empty", "truncated", "broken", "unsupported"),
        *("too many pixels", "misnamed"),
    ) == ERRORS
    assert WARNINGS == ("conflicting labels", "duplicate", "inconsistent")
    page = (Path(__file__).parents[3] / "docs" / "faults.md").read_text(encoding="utf-8")
    for kind in (*ERRORS, *WARNINGS):
        assert f"| {kind} |" in page


def test_json(report: Report) -> None:
    content = json.loads(report.to_json())
    assert content["counts"] == report.counts()
    assert {one["severity"] for one in content["findings"]} == {"error", "warning"}
    assert (content["source"], content["files"], content["left_out"]) == ("photos", 30, 2)


def test_lines_for_people(report: Report) -> None:
    """So many of each kind, then how many others."""
    lines = list(lines_of(report, most=1))
    assert "empty: /empty.jpg is empty" in lines
    assert "empty: and 1 more; --json FILE and --csv FILE list all" in lines
    assert len(lines) == len(ERRORS) + len(WARNINGS) + 1
    said = summary(report)
    assert said.startswith("photos: 30 read in 1.5 s, 1 unreadable, 2 empty, ")
    assert said.endswith("1 inconsistent. 2 files with other suffixes were left out.")
    assert summary(Report("it", files=1)) == "it: 1 read in 0.0 s, no findings."


@pytest.mark.parametrize("warnings", [False, True])
def test_a_list_for_loaders(report: Report, tmp_path: Path, warnings: bool) -> None:
    """Errors, and warnings where they are asked for."""
    path = tmp_path / "new" / "bad.csv"
    rows = report.write_csv(path, warnings=warnings)
    with open(path, newline="") as file:
        listed = list(csv.DictReader(file))
    assert rows == len(listed) == len(ERRORS) + 1 + (len(WARNINGS) if warnings else 0)
    assert listed[0]["error"] == "unreadable: /unreadable.jpg is unreadable"


def test_files_of_a_disk_that_was_away_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that could not be checked are not listed, since exclude= would drop them for ever."""
    report = Report("it")
    for name in ("away/0.jpg", "away/1.jpg", "empty/2.jpg", "refused/3.jpg", "there/4.jpg"):
        report.add(str(tmp_path / name), "unreadable", f"{name} cannot be read: Input/output error")
    for name in ("empty", "refused", "there"):
        (tmp_path / name).mkdir()
    for name in ("refused/3.jpg", "refused/5.jpg", "there/6.jpg"):
        (tmp_path / name).touch()
    opened = open

    def refused(path: str, *more: str) -> object:
        if "refused" in str(path):
            raise OSError(5, "Input/output error", path)
        return opened(path, *more)

    monkeypatch.setattr(report_module, "open", refused, raising=False)
    assert report.write_csv(tmp_path / "bad.csv") == 1
    assert str(tmp_path / "there" / "4.jpg") in (tmp_path / "bad.csv").read_text()
    assert "4 files that cannot be read are not written to" in caplog.text
    assert not report.ok  # they are findings all the same


def test_lists_with_older_names_are_read(tmp_path: Path) -> None:
    """Files that say "bomb" or "odd" exclude as before, and keep when they first saw something."""
    when = "2020-01-01T00:00:00+00:00"
    for k in range(4):
        (tmp_path / f"{k}.jpg").write_bytes(b"")
    paths = [str(tmp_path / f"{k}.jpg") for k in range(4)]
    bad = tmp_path / "bad.csv"
    old = [f"{paths[0]},bomb: it is 30000 x 30000,{when}", f"{paths[1]},two classes: it,{when}"]
    bad.write_text("\n".join(["path,error,first_seen", *old, f"{paths[2]},odd: it,{when}", ""]))
    assert kl.PathSequenceLoader(paths, exclude=bad).paths[0] == paths[3]
    report = Report("it")
    report.add(paths[0], "too many pixels", f"{paths[0]} is large")
    report.write_csv(bad)
    (row,) = csv.DictReader(bad.read_text().splitlines())
    assert (row["error"].split(":")[0], row["first_seen"]) == ("too many pixels", when)


def test_a_report_describes_itself():
    """In a sentence, and in a notebook with each finding."""
    report = Report("photos", files=3, seconds=0.5)
    assert str(report) == "photos: 3 read in 0.5 s, no findings."
    assert "<table>" not in report._repr_html_()
    report.add("<a>.png", "empty", "0 bytes")
    assert str(report) == "photos: 3 read in 0.5 s, 1 empty."
    assert ">&lt;a&gt;.png</td>" in report._repr_html_()
