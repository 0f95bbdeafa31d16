"""Ranges of bytes of files: which bytes come, and what is an error."""

import os
import pickle
import threading

import pytest

from kloaders.formats import files as opened
from kloaders.formats.errors import DecodeError
from kloaders.formats.ranges import RangeFile, RangeFiles


@pytest.fixture
def files(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.bin").write_bytes(bytes([k]) * 50 + bytes(range(50)))
    return RangeFiles([str(tmp_path / f"{k}.bin") for k in range(3)])


def test_ranges_of_files(files):
    assert files.read(1, 48, 4) == b"\1\1\0\1"
    assert files.read(2, 100, 0) == b""
    assert files.size(0) == 100


def test_the_end_of_a_file_is_named(files):
    with pytest.raises(DecodeError, match=r"2\.bin is truncated: 10 bytes .* byte 95, 5 found"):
        files.read(2, 95, 10)


def test_a_file_that_changed_is_an_error(files):
    files.read(0, 0, 1)
    with open(files.paths[0], "ab") as file:
        file.write(b"more")
    with pytest.raises(DecodeError, match=r"0\.bin has changed"):
        files.read(0, 0, 1)


def test_it_pickles_and_closes(files):
    files.read(0, 0, 1)
    files.close()
    again = pickle.loads(pickle.dumps(files))
    assert again.read(1, 99, 1) == files.read(1, 99, 1) == b"\x31"


def test_few_files_stay_open(files, monkeypatch):
    monkeypatch.setattr(opened, "_OPEN_FILES", 1)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for k in (0, 1, 2, 0):
        assert files.read(k, 0, 1) == bytes([k])
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_threads_share_it(files):
    wrong = []

    def read():
        wrong.extend(n for n in range(300) if files.read(n % 3, 0, 2) != bytes([n % 3] * 2))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_as_a_file_object(files):
    file = RangeFile(files, 0)
    assert (file.readable(), file.seekable()) == (True, True)
    assert file.seek(-3, os.SEEK_END) == 97
    assert file.read() == bytes([47, 48, 49])
    file.seek(50)
    assert (file.read(2), file.tell()) == (b"\0\1", 52)
    file.seek(1, os.SEEK_CUR)
    buffer = bytearray(2)
    assert (file.readinto(buffer), bytes(buffer)) == (2, b"\3\4")
    file.seek(200)
    assert file.read(5) == b"" == file.readall()
