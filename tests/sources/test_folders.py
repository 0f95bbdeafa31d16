"""Files below folders: which are found, in which order, and what is said of those that are not."""

import logging
import os

import pytest

from kloaders.core import messages
from kloaders.sources.folders import (
    READABLE,
    LeftOut,
    class_folders,
    files_below,
    folders_and_files,
)


@pytest.fixture(autouse=True)
def each_message(monkeypatch):
    """Messages that come once a process come once a test."""
    monkeypatch.setattr(messages, "_logged", set())


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
    with pytest.raises(ValueError, match=r"contains 2 files and no folders"):
        class_folders(str(root / "a"), None)
    with pytest.raises(ValueError, match=r"contains nothing and no folders"):
        class_folders(str(root / ".git"), None)
    with pytest.raises(ValueError, match=r"class_names holds 'c', but .* it has a, b"):
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


# ---------------------------------------------------------------- what lies about in real folders


def test_links_to_folders_are_told(root, tmp_path_factory, caplog):
    other = tmp_path_factory.mktemp("other")
    (other / "9.png").touch()
    (root / "b" / "linked").symlink_to(other)
    assert "b/linked/9.png" not in found(root)
    assert "b/linked is left out" in caplog.text
    assert "follow_links=True enters them" in caplog.text
    assert "b/linked/9.png" in found(root, follow_links=True)


def test_a_link_to_above_the_class_is_not_followed(root):
    """Files of other classes are none of this one."""
    for name, target in (("up", root), ("here", root / "b"), ("self", root / "b" / "self")):
        (root / "b" / name).symlink_to(target)
    (root / "b" / "a" / "up").symlink_to(root / "b" / "a")
    names = sorted(found(root / "b", follow_links=True))
    assert names == ["10.png", "2.png", "a/1.PNG"]


def test_classes_that_are_links(root, tmp_path_factory, caplog):
    other = tmp_path_factory.mktemp("other")
    (other / "9.png").touch()
    (root / "c").symlink_to(other)
    (root / "me").symlink_to(root)
    (root / "above").symlink_to(root.parent)
    (root / "round").symlink_to(root / "round")
    assert class_folders(str(root), None) == ["a", "b", "c"]
    assert found(root / "c") == ["9.png"]
    assert "me is left out: it is a link to a folder that contains it" in caplog.text
    assert folders_and_files(str(root)) == (["a", "b", "c"], ["round"])


def test_what_is_no_file_is_left_out(root, caplog):
    os.mkfifo(root / "b" / "pipe.png")
    (root / "b" / "also.png").symlink_to(root / "b" / "pipe.png")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    assert found(root / "b") == ["10.png", "2.png", "gone.png", "a/1.PNG"]
    assert "pipe.png is left out: it is a pipe, a socket or a device" in caplog.text
    special = []
    assert len(list(files_below(str(root), None, False, special=special.append))) == 6
    assert sorted(map(os.path.basename, special)) == ["also.png", "pipe.png"]


def test_folders_of_the_system_are_left_out(root, caplog):
    for name in ("__MACOSX/b/2.png", "b/@eaDir/2.png/thumb.png", "$RECYCLE.BIN/1.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    assert class_folders(str(root), None) == ["a", "b"]
    assert class_folders(str(root), ["__MACOSX", "b"]) == ["__MACOSX", "b"]  # it was asked for
    assert found(root / "b") == ["10.png", "2.png", "a/1.PNG"]


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_accents_in_names_of_classes(root, caplog):
    """The name a user types, and the name that an archive of a Mac gives its folder."""
    (root / NFD).mkdir()
    assert class_folders(str(root), [NFC, "a"]) == [NFD, "a"]
    assert not caplog.records
    (root / NFC).mkdir()
    assert class_folders(str(root), [NFC]) == [NFC]
    assert not caplog.records
    assert class_folders(str(root), None) == ["a", "b", NFD, NFC]
    assert "2 classes look like" in caplog.text


def test_a_folder_that_cannot_be_read(root, monkeypatch):
    """An error for a loader; verify is told, and reads on."""
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        found(root)
    told = []
    files = files_below(str(root), None, False, unreadable=lambda *what: told.append(what))
    assert len(list(files)) == 2
    assert sorted(os.path.relpath(path, root) for path, _ in told) == ["a", "b/a"]
