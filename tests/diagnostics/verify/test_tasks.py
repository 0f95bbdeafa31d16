"""The tasks that verify a source."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("follow_links", [False, True])
def test_the_tree_of_from_directory(photos: Path, tmp_path: Path, follow_links: bool) -> None:
    """Whatever lies about in it: the same files, with the same classes."""
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    sound = (photos / "cat" / "0.jpg").read_bytes()
    for name in ("a.jpg", "deep/b.jpg", "notes.txt"):
        (other / name).write_bytes(sound)
    (photos / "linked").symlink_to(other)  # a class is taken, a link in it is if asked for
    (photos / "again").symlink_to(photos / "cat")
    (photos / "cat" / "more").symlink_to(other)
    for folder in (photos, photos / "cat", photos / "dog"):
        (folder / "me").symlink_to(folder)
        (folder / "up").symlink_to(photos.parent)
        (folder / "round").symlink_to(folder / "round")
        for name in ("__MACOSX", "@eaDir/0.jpg", ".hidden"):
            (folder / name).mkdir(parents=True)
            (folder / name / "1.jpg").write_bytes(sound)
    for name in ("caf\u00e9", "cafe\u0301"):
        (photos / name).mkdir()
        for file in ("\u00e9.jpg", "e\u0301.jpg"):
            (photos / name / file).write_bytes(sound)
    (photos / "dog" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    report, tasks = Report("it"), []
    plan_source(str(photos), ("path", "label", None), report, tasks, follow_links)
    loader, _ = kl.from_directory(
        photos, validation=None, follow_links=follow_links, check_paths=False
    )
    loaded = [(path, Path(path).relative_to(photos).parts[0]) for path in loader.paths]
    assert loader.class_names == sorted({label for _, label in loaded})
    assert tasks == loaded
    assert len(tasks) == 12 + 6 + 2 + 4 + 1 + (4 if follow_links else 0)
    (one,) = report.findings  # both spellings of one name
    assert one.kind == "inconsistent"
    assert "2 classes look like" in one.message


def test_pipes_are_named_and_not_opened(photos: Path) -> None:
    os.mkfifo(photos / "dog" / "pipe.jpg")
    loader, _ = kl.from_directory(photos, validation=None)
    assert loader.samples == 12
    (one,) = kl.verify(photos, progress=False).findings
    assert (one.kind, one.path) == ("unreadable", str(photos / "dog" / "pipe.jpg"))


def test_a_folder_that_cannot_be_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a finding, and the others are read."""
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    tasks, report = planned(photos)
    assert {label for _, label in tasks} == {"dog"}
    (one,) = report.findings
    assert one.message == f"{photos}/cat cannot be read: Permission denied"


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
