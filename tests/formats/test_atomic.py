"""Files that are whole or not there: what a failure leaves, and what a full disk says."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kloaders.formats import atomic
from kloaders.formats.atomic import check_writable, remove_leftovers, sync_folder, whole_file

posix = pytest.mark.skipif(sys.platform == "win32", reason="links, modes and locks of POSIX")


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
    with pytest.raises(OSError, match=r"free some space, and run the same again.*'.*/a'") as caught:
        write_half(tmp_path / "a", full)
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path) == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that the system gives at the flush is the one that is told."""
    real = open
    monkeypatch.setattr(atomic, "open", lambda path, mode: real("/dev/full", mode), raising=False)
    with pytest.raises(OSError, match="free some space, and run the same again"):
        write_half(tmp_path / "a")


def test_what_can_be_made_again_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand indexes most of the time would be spent so; all else is on the disk."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for on_disk, times in ((False, 0), (True, 1 if sys.platform == "win32" else 2)):
        synced.clear()
        with whole_file(str(tmp_path / "a"), on_disk) as file:
            file.write(b"1")
        assert len(synced) == times
        assert contents(tmp_path) == {"a": b"1"}


def test_a_folder_is_synced_or_named(tmp_path: Path) -> None:
    """A folder that is gone is an error; one that is there is left as it was."""
    (tmp_path / "a").write_bytes(b"1")
    sync_folder(str(tmp_path))
    assert contents(tmp_path) == {"a": b"1"}
    with pytest.raises(FileNotFoundError, match="gone"):
        sync_folder(str(tmp_path / "gone"))


# ---------------------------------------------------------------- what a killed process leaves


_WRITER = """
import sys
from kloaders.formats.atomic import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer_of(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing this file."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def end(writer: subprocess.Popen[str], by: int | None = None) -> None:
    if by is not None:
        writer.send_signal(by)
    writer.communicate()


def parts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".part"))


@posix
@pytest.mark.parametrize("times", [1, 3])
def test_the_next_one_removes_what_killed_ones_left(tmp_path: Path, times: int) -> None:
    writers = [writer_of(tmp_path / "a") for _ in range(times)]
    for writer in writers:
        end(writer, signal.SIGKILL)
    assert len(parts(tmp_path)) == times
    with whole_file(str(tmp_path / "a")) as file:
        file.write(b"new")
        assert len(parts(tmp_path)) == 1
    assert contents(tmp_path) == {"a": b"new"}


@posix
def test_leftovers_are_removed_without_writing(tmp_path: Path) -> None:
    """When a program starts. Those of another path, and what only looks like one, stay."""
    end(writer_of(tmp_path / "a"), signal.SIGKILL)
    end(writer_of(tmp_path / "b"), signal.SIGKILL)
    (tmp_path / ".a.x.part").write_bytes(b"")
    remove_leftovers(str(tmp_path / "a"))
    assert set(contents(tmp_path)) == {".b.0.part", ".a.x.part"}


@posix
def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """By another process, whose file comes whole; by another thread or a frame above, too."""
    path = tmp_path / "a"
    writer = writer_of(path)
    with whole_file(str(path)) as file:
        file.write(b"ours")
        with whole_file(str(path)) as inner:
            inner.write(b"inner")
            remove_leftovers(str(path))
        assert contents(tmp_path)["a"] == b"inner"
    assert contents(tmp_path)["a"] == b"ours"
    end(writer)
    assert contents(tmp_path) == {"a": b"half"}


@posix
def test_many_may_write_one_path(tmp_path: Path) -> None:
    """More than there are numbers for; none takes another's file."""
    writers = [writer_of(tmp_path / "a") for _ in range(10)]
    assert len(parts(tmp_path)) == 10
    for writer in writers:
        end(writer)
    assert contents(tmp_path) == {"a": b"half"}


@posix
def test_a_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """Another user of the folder could have it point at a file of ours."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / ".a.0.part").symlink_to(other)
    (tmp_path / ".a.1.part").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / ".a.2.part")
    with whole_file(str(tmp_path / "a")) as file:
        file.write(b"new")
    assert other.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "a").read_bytes() == b"new"


@posix
def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none, as some networks: whoever writes cannot be told from the dead."""
    (tmp_path / ".a.0.part").write_bytes(b"theirs")
    monkeypatch.setattr(atomic, "_lock", lambda _: None)
    with whole_file(str(tmp_path / "a")) as file:
        file.write(b"new")
    assert contents(tmp_path) == {".a.0.part": b"theirs", "a": b"new"}


# ---------------------------------------------------------------- what is there stays what it is


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is replaced, in its own folder; also where there is nothing yet."""
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "a", tmp_path / "disk" / "a"
    link.symlink_to(Path("disk") / "a")
    for content in (b"one", b"two"):
        with whole_file(str(link)) as file:
            file.write(content)
            assert parts(tmp_path) == []
        assert link.is_symlink()
        assert contents(target.parent) == {"a": content}


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o400])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """And its content is at no time open to more than may read the file."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    with whole_file(str(path)) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="is not a file: choose another name") as caught:
            write_half(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
    assert set(os.listdir(tmp_path)) == {"pipe", "folder"}


def test_whether_a_path_can_be_written_is_known_before(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    check_writable(str(path))
    assert contents(tmp_path) == {"a": b"old"}
    with pytest.raises(FileNotFoundError):
        check_writable(str(tmp_path / "gone" / "a"))
    with pytest.raises(NotADirectoryError):
        check_writable(str(path / "b"))
