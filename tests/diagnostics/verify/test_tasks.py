"""What there is to read in a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.verify.report import Report
from kloaders.diagnostics.verify.tasks import as_question, plan_source, size_of


@pytest.mark.parametrize("content", [b"", b"no records at all, but a text of some length"])
def test_files_that_hold_no_records(tmp_path: Path, content: bytes) -> None:
    """Named, among others that are sound."""
    (tmp_path / "a.tfrecord").write_bytes(content)
    (one,) = kl.verify(tmp_path, progress=False).findings
    assert one.path == str(tmp_path / "a.tfrecord")
    assert one.kind == ("broken" if content else "empty")


def planned(name, columns=("path", "label", None)):
    report, tasks = Report("it"), []
    plan_source(str(name), columns, report, tasks)
    return tasks, report


def test_folders_of_classes(photos: Path) -> None:
    """Each file with the folder right below the source; other suffixes are counted."""
    (photos / "notes.txt").write_text("left out")
    (photos / ".hidden.jpg").write_text("left out")
    (photos / "top.jpg").write_bytes(b"1")
    tasks, report = planned(photos)
    assert report.left_out == 1
    assert (str(photos / "cat" / "0.jpg"), "cat") in tasks
    assert (str(photos / "top.jpg"), None) in tasks
    assert len(tasks) == sum(map(size_of, tasks)) == 13


def test_links_in_a_circle_end(photos: Path) -> None:
    (photos / "cat" / "again").symlink_to(photos)
    assert len(planned(photos)[0]) == 12


def test_a_table_has_paths_and_classes(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("file,kind\ncat/0.jpg,7\ndog/1.jpg,8\n")
    tasks, _ = planned(table, ("file", "kind", photos))
    assert tasks == [(f"{photos}/cat/0.jpg", "7"), (f"{photos}/dog/1.jpg", "8")]
    tasks, _ = planned(table, ("file", "no such column", photos))
    assert [label for _, label in tasks] == [None, None]


def test_records_are_read_some_at_a_time(tmp_path: Path) -> None:
    """Each of them once; compressed ones all in one."""
    values = np.zeros((600, 3), np.float32)
    for compression, parts in ((None, 3), ("GZIP", 1)):
        written = kl.write_tfrecords(
            kl.ArraySequenceLoader(values), None, tmp_path / f"{compression}",
            compression=compression, progress=False,
        )  # fmt: skip
        tasks, report = planned(written.files[0])
        assert report.findings == []
        assert len(tasks) == parts
        ends = [(task["first"], task["first"] + task["count"]) for task in tasks]
        assert [a for a, _ in ends] == [0, *[b for _, b in ends[:-1]]]
        assert ends[-1][1] == sum(map(size_of, tasks)) == 600


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none-\*\.tfrecord does not exist"):
        planned(tmp_path / "none-*.tfrecord")


@pytest.mark.parametrize(("name", "hangs"), [("a.jpg", True), ("a.npy", False)])
def test_only_images_hang(name: str, hangs: bool) -> None:
    """A large array may well take long."""
    assert as_question((name, None), 7) == {"path": name, "max_pixels": 7, "hangs": hangs}
    assert as_question({"first": 3}, 7) == {"first": 3, "max_pixels": 7}
