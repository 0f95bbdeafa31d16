"""Files that are whole or not there: what a failure leaves, and what a full disk says."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kloaders.formats import atomic
from kloaders.formats.atomic import sync_folder, whole_file


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def write_half(path: Path, error: BaseException | None = None) -> None:
    with whole_file(str(path)) as file:
        file.write(b"half")
        if error is not None:
            raise error


def test_a_whole_file_has_its_name_at_the_end(tmp_path: Path) -> None:
    """Until then what was there before is untouched, and nothing is left beside it."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with whole_file(str(path)) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2
    assert contents(tmp_path) == {"a": b"new"}


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_file_that_fails_leaves_nothing(tmp_path: Path, kind: Any) -> None:
    """Whatever is raised, Ctrl-C too."""
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(kind):
        write_half(tmp_path / "a", kind())
    assert contents(tmp_path) == {"a": b"old"}


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    """The file is named, and the advice is that of a conversion, which goes on."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"free some, and run the same again.*'.*/a'") as caught:
        write_half(tmp_path / "a", full)
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path) == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that the system gives at the flush is the one that is told."""
    real = open
    monkeypatch.setattr(atomic, "open", lambda path, mode: real("/dev/full", mode), raising=False)
    with pytest.raises(OSError, match="free some, and run the same again"):
        write_half(tmp_path / "a")


def test_a_folder_is_synced_or_named(tmp_path: Path) -> None:
    """A folder that is gone is an error; one that is there is left as it was."""
    (tmp_path / "a").write_bytes(b"1")
    sync_folder(str(tmp_path))
    assert contents(tmp_path) == {"a": b"1"}
    with pytest.raises(FileNotFoundError, match="gone"):
        sync_folder(str(tmp_path / "gone"))
