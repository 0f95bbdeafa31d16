"""Files below folders: which are found, in which order, and what is said of those that are not."""

import logging
import os

import pytest

from kloaders.sources.folders import READABLE, LeftOut, class_folders, files_below


@pytest.fixture
def root(tmp_path):
    for name in ("b/2.png", "b/10.png", "b/a/1.PNG", "a/0.npy", "a/note.txt", "a/.hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".git").mkdir()
    return tmp_path


def found(root, wanted=READABLE, follow_links=False, left_out=None):
    top = str(root)
    return [os.path.relpath(f, top) for f in files_below(top, wanted, follow_links, left_out)]


def test_files_come_folder_by_folder_and_by_name(root):
    assert found(root) == ["a/0.npy", "b/10.png", "b/2.png", "b/a/1.PNG"]


def test_what_is_not_wanted_is_left_out_and_told(root):
    others = []
    assert found(root, frozenset({".npy"}), left_out=others.append) == ["a/0.npy"]
    assert sorted(map(os.path.basename, others)) == ["1.PNG", "10.png", "2.png", "note.txt"]
    assert "a/note.txt" in found(root, None)
    assert not any("hidden" in name for name in found(root, None))


def test_links_are_followed_if_asked_and_never_round(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "9.png").touch()
    (root / "linked").symlink_to(other)
    (root / "again").symlink_to(root)
    assert not any("9.png" in name for name in found(root))
    names = found(root, follow_links=True)
    assert sorted(names) == ["a/0.npy", "b/10.png", "b/2.png", "b/a/1.PNG", "linked/9.png"]


def test_folders_are_classes(root):
    assert class_folders(str(root), None) == ["a", "b"]
    assert class_folders(str(root), ["b", "a"]) == ["b", "a"]
    assert class_folders(str(root), ["b"]) == ["b"]


def test_what_is_wrong_with_folders(root):
    with pytest.raises(FileNotFoundError, match=r"none does not exist. Relative paths start at"):
        class_folders(str(root / "none"), None)
    with pytest.raises(NotADirectoryError, match=r"0.npy is a file, expected a folder"):
        class_folders(str(root / "a/0.npy"), None)
    with pytest.raises(ValueError, match=r"holds 2 files and no folders"):
        class_folders(str(root / "a"), None)
    with pytest.raises(ValueError, match=r"holds nothing and no folders"):
        class_folders(str(root / ".git"), None)
    with pytest.raises(ValueError, match=r"class_names holds 'c', and .* it has a, b"):
        class_folders(str(root), ["a", "c"])
    with pytest.raises(ValueError, match=r"class_names holds 'a' twice"):
        class_folders(str(root), ["a", "b", "a"])


def test_files_left_out_are_told_once(caplog):
    caplog.set_level(logging.WARNING, "kloaders")
    left_out = LeftOut()
    for name in ("x/a.txt", "x/b.txt", "x/README"):
        left_out.add(name)
    left_out.tell("x")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "x: 3 files left out" in caplog.text
    assert ".txt 2, no suffix 1" in caplog.text
    assert "such as x/a.txt" in caplog.text
