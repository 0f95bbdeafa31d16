"""Segments of a download cache: entries of any size, as a whole or not at all."""

import errno
import os
import sys

import pytest

from kloaders.places.segments import (
    HEAD_BYTES,
    MARKER,
    append,
    clear,
    content_of,
    damaged_in,
    entries,
    entry_of,
    read_all,
    segments_of,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
KEY = bytes(range(16))


@pytest.fixture
def file(tmp_path):
    (tmp_path / MARKER).touch()
    number = os.open(tmp_path / "data-1.objects", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def test_an_entry_comes_back(file):
    append(file, entry_of(KEY, "etag", b"content"), 0)
    ((key, at),) = entries(file, "data-1.objects", 0)
    assert (key, at.etag, at.size) == (KEY, "etag", 7)
    assert os.fstat(file).st_size == HEAD_BYTES + 4 + 7
    assert content_of(file, at, KEY) == content_of(file, at) == b"content"
    assert content_of(file, at, bytes(16)) is None


def test_an_entry_larger_than_one_call_takes(file, monkeypatch):
    """The system writes and reads at most 2 GiB at a time; here 10 bytes."""
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda number, data, at: write(number, data[:10], at))
    entry = entry_of(KEY, "etag", bytes(range(100)))
    append(file, entry, 0)
    monkeypatch.setattr(os, "pread", lambda number, size, at: read(number, min(size, 10), at))
    assert read_all(file, len(entry), 0) == entry
    assert read_all(file, len(entry) + 5, 0) == entry


def test_nothing_is_left_of_an_entry_that_finds_no_room(file, monkeypatch):
    append(file, entry_of(KEY, "", b"first"), 0)
    size, write = os.fstat(file).st_size, os.pwrite

    def full(number, data, at):
        if at > size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(number, data[:10], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        append(file, entry_of(KEY, "", b"second"), size)
    assert os.fstat(file).st_size == size


def test_damage_and_what_is_deleted(file, tmp_path):
    for k in range(3):
        append(file, entry_of(KEY, "", bytes([k]) * 100), os.fstat(file).st_size)
    (segment,) = segments_of(str(tmp_path))
    os.pwrite(file, b"damage", segment.size // 2)
    assert damaged_in(str(tmp_path), segment) == (2, 1)
    assert clear(str(tmp_path)) == (segment.size, 0)
    assert os.listdir(tmp_path) == [MARKER]
