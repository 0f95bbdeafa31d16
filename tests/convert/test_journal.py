"""Files of many samples are complete or absent, and a kill loses no finished shard."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kloaders.convert import journal as conversion
from kloaders.convert.journal import Journal
from kloaders.formats.atomic import whole_file

PATTERN = r"s\d\.bin"
SIZES = [3, 3, 2]


def journal(folder: Path, overwrite: bool = False, **job: Any) -> Journal:
    return Journal(str(folder / "journal"), PATTERN, {"seed": 1, **job}, overwrite)


def write_into(folder: Path, written: list[int] | None = None) -> Any:
    """A `write` for `write_shards`: shard k is its samples' numbers, in two files."""

    def write(shard: int, advance: Any) -> Any:
        if written is not None:
            written.append(shard)
        with whole_file(str(folder / f"s{shard}.bin")) as file:
            for k in range(SIZES[shard]):
                file.write(bytes([10 * shard + k]))
                advance(1)
        return [f"s{shard}.bin"], {"first": 10 * shard}

    return write


def convert(folder: Path, written: list[int] | None = None, **job: Any) -> Any:
    with journal(folder, **job) as entered:
        return conversion.write_shards(
            entered, SIZES, write_into(folder, written), progress=False, workers=job.get("n", 1)
        )


def contents(folder: Path) -> dict[str, bytes]:
    shown = (p for p in folder.iterdir() if not p.name.endswith(".finished.jsonl"))
    return {p.name: p.read_bytes() for p in shown}


WHOLE = {"s0.bin": b"\0\1\2", "s1.bin": b"\n\x0b\x0c", "s2.bin": b"\x14\x15"}


# -------------------------------------------------------------------------------------- journals


@pytest.mark.parametrize("workers", [1, 3])
def test_all_shards_are_written(tmp_path: Path, workers: int) -> None:
    """Notes come in the shards' order, and the journal is gone."""
    notes = convert(tmp_path, n=workers)
    assert [note["first"] for note in notes] == [0, 10, 20]
    assert contents(tmp_path) == WHOLE


def stopped(folder: Path, after: int, **job: Any) -> None:
    """A conversion that fails when `after` shards are finished."""
    real = write_into(folder)

    def write(shard: int, advance: Any) -> Any:
        if shard == after:
            raise RuntimeError("stop")
        return real(shard, advance)

    with pytest.raises(RuntimeError, match="stop"), journal(folder, **job) as entered:
        conversion.write_shards(entered, SIZES, write, progress=False)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_finished_shards_are_kept(tmp_path: Path, after: int) -> None:
    """Finished shards are not written again and keep their notes; all others are written."""
    stopped(tmp_path, after)
    written: list[int] = []
    notes = convert(tmp_path, written)
    assert written == list(range(after, 3))
    assert [note["first"] for note in notes] == [0, 10, 20]
    assert contents(tmp_path) == WHOLE


def test_a_shard_that_changed_its_size_is_written_again(tmp_path: Path) -> None:
    """As is one that is gone."""
    stopped(tmp_path, 2)
    (tmp_path / "s0.bin").write_bytes(b"cut")
    (tmp_path / "s0.bin").write_bytes(b"c")
    (tmp_path / "s1.bin").unlink()
    written: list[int] = []
    convert(tmp_path, written)
    assert written == [0, 1, 2]
    assert contents(tmp_path) == WHOLE


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_journal_that_was_cut(tmp_path: Path, cut: int) -> None:
    """An incomplete line after a kill is ignored and overwritten."""
    stopped(tmp_path, 2)
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data[:-cut])
    stopped(tmp_path, 2)
    for line in (tmp_path / "journal").read_bytes().splitlines():
        json.loads(line)
    convert(tmp_path)
    assert contents(tmp_path) == WHOLE


def test_left_overs_of_a_kill_are_removed(tmp_path: Path) -> None:
    """Half files of this conversion, and whole ones that the journal does not know; no others."""
    stopped(tmp_path, 1)
    for name in (".s1.bin.12-34.part", "s7.bin", ".s7.bin.1-2.part"):
        (tmp_path / name).write_bytes(b"half")
    others = ("other.bin", ".other.bin.12-34.part", "s1.bin.part")
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    convert(tmp_path)
    assert contents(tmp_path) == {**WHOLE, **dict.fromkeys(others, b"mine")}


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    """The message says which; the same ones go on, and overwrite=True begins anew."""
    stopped(tmp_path, 1, size=[64, 64])
    with pytest.raises(
        FileExistsError, match=r"size was \[64, 64\], is \[32, 32\]\. Pass the same"
    ):
        convert(tmp_path, size=(32, 32))
    written: list[int] = []
    convert(tmp_path, written, size=(64, 64))
    assert written == [1, 2]


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    """Nothing of the other conversion stays, and a finished one gives way too."""
    stopped(tmp_path, 1, size=1)
    (tmp_path / "s9.bin").write_bytes(b"of the other")
    written: list[int] = []
    with journal(tmp_path, size=2, overwrite=True) as entered:
        conversion.write_shards(entered, SIZES, write_into(tmp_path, written), progress=False)
    assert written == [0, 1, 2]
    assert contents(tmp_path) == WHOLE
    with pytest.raises(FileExistsError, match=r"s0\.bin already exists.*overwrite=True"):
        convert(tmp_path, size=2)
    assert contents(tmp_path) == WHOLE
    with journal(tmp_path, size=2, overwrite=True) as entered:
        conversion.write_shards(entered, SIZES, write_into(tmp_path, written), progress=False)
    assert written == [0, 1, 2] * 2


def test_overwrite_goes_on_with_its_own(tmp_path: Path) -> None:
    """The same command after a kill keeps what it has, overwrite=True or not."""
    stopped(tmp_path, 2)
    written: list[int] = []
    with journal(tmp_path, overwrite=True) as entered:
        conversion.write_shards(entered, SIZES, write_into(tmp_path, written), progress=False)
    assert written == [2]


def test_arguments_may_change_while_nothing_is_finished(tmp_path: Path) -> None:
    """No finished shard is lost."""
    stopped(tmp_path, 0, size=1)
    convert(tmp_path, size=2)
    assert contents(tmp_path) == WHOLE


def test_a_journal_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is the same, and the finished shards are kept."""
    real = os.fsync
    path = tmp_path / "journal"

    def fsync(descriptor: int) -> None:
        if path.exists() and b'"shard": 1' in path.read_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(conversion.os, "fsync", fsync)
    with pytest.raises(OSError, match=r"free some space, and run the same again.*journal"):
        convert(tmp_path)
    monkeypatch.undo()
    convert(tmp_path)
    assert contents(tmp_path) == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_at_once(tmp_path: Path) -> None:
    """The second is refused, with the process of the first, and disturbs nothing."""
    with journal(tmp_path) as first:
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} is writing to"):
            convert(tmp_path)
        conversion.write_shards(first, SIZES, write_into(tmp_path), progress=False)
    assert contents(tmp_path) == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_the_lock_of_a_dead_process_is_none(tmp_path: Path) -> None:
    """The system takes it back; half files and a half journal line are left, and cleared."""
    code = (
        "import os, sys; from kloaders.convert.journal import Journal\n"
        "from kloaders.formats.atomic import whole_file\n"
        f"journal = Journal({str(tmp_path / 'journal')!r}, {PATTERN!r}, {{'seed': 1}})\n"
        "with journal:\n"
        f"  with whole_file({str(tmp_path / 's0.bin')!r}) as file:\n"
        "    file.write(b'half'); file.flush(); journal._file.write(b'{half'); \n"
        "    journal._file.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(p.name.endswith(".part") for p in tmp_path.iterdir())
    convert(tmp_path)
    assert contents(tmp_path) == WHOLE


def test_where_locks_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some network disks have no locks: this is logged, and the conversion continues."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    convert(tmp_path)
    assert contents(tmp_path) == WHOLE


# ---------------------------------------------------------------------------------------- shards


@pytest.mark.parametrize("workers", [2, 3])
def test_an_error_ends_the_other_shards(tmp_path: Path, workers: int) -> None:
    """The error is raised, threads are gone, what was finished stays, and nothing is left in half."""
    begun = threading.Barrier(2, timeout=30)
    real = write_into(tmp_path)

    def write(shard: int, advance: Any) -> Any:
        if shard == 0:
            begun.wait()
            raise ValueError("s0 does not read")
        with whole_file(str(tmp_path / f"s{shard}.bin")) as file:
            file.write(b"half")
            if shard == 1:
                begun.wait()
                while True:  # until told to stop
                    advance(0)
        return real(shard, advance)

    with pytest.raises(ValueError, match="s0 does not read"), journal(tmp_path) as entered:
        conversion.write_shards(entered, SIZES, write, progress=False, workers=workers)
    assert not [t for t in threading.enumerate() if t.name.startswith("kloaders-write")]
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
    convert(tmp_path)
    assert contents(tmp_path) == WHOLE


def test_the_bar_counts_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was finished before counts; None shows no bar where stderr is no terminal."""
    stopped(tmp_path, 2)
    with journal(tmp_path) as entered:
        conversion.write_shards(entered, SIZES, write_into(tmp_path), name="packing")
    said = capsys.readouterr().err
    assert "packing: 100%" in said
    assert "8/8" in said
    with journal(tmp_path, overwrite=True) as entered:
        conversion.write_shards(entered, SIZES, write_into(tmp_path), progress=None)
    assert "8/8" not in capsys.readouterr().err
