"""Records of many files by one number: what is read, and what stays open."""

import os
import pickle
import struct

import numpy as np
import pytest

from kloaders.formats import files as opened
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.tfrecord.crc32c import crc32c, mask
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from tests.support.records import DATA, read_all


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_what_tensorflow_writes_is_read(tmp_path, compression):
    tf = pytest.importorskip("tensorflow")
    path = str(tmp_path / "a")
    with tf.io.TFRecordWriter(path, compression) as writer:
        for data in DATA:
            writer.write(data)
    for asked in (compression, "auto"):
        files = RecordFiles([path], asked)
        assert read_all(files) == DATA
        assert files.compressions == [compression]


def test_numbers_over_many_files(file):
    files = RecordFiles([file(DATA[:2], "a"), file(DATA[2:3], "b"), file(DATA[3:], "c")])
    assert read_all(files) == DATA
    assert files.name(3) == f"{files.paths[2]}, record 0 at byte 0"
    which, starts, ends = files.locate(np.array([0, 1, 2, 6]))
    assert which.tolist() == [0, 0, 1, 2]
    assert (ends - starts).tolist() == [len(DATA[k]) + 16 for k in (0, 1, 2, 6)]


def test_neighbours_are_read_at_once(file, monkeypatch):
    """A run of records in a file is one read, and comes back under the right numbers."""
    files = RecordFiles([file(DATA[:4], "a"), file(DATA[4:], "b")])
    reads = []
    read = OpenFile.read
    monkeypatch.setattr(
        OpenFile, "read", lambda self, size, at: reads.append(size) or read(self, size, at)
    )
    indices = np.array([5, 2, 0, 6, 1, 4])
    found = {int(indices[k]): raw for k, raw in files.read_many(indices)}
    assert found == {k: framed(DATA[k]) for k in (5, 2, 0, 6, 1, 4)}
    assert len(reads) == 2


def test_pickles_light_and_reads_on(file):
    files = RecordFiles([file()])
    files.read(0)
    again = pickle.loads(pickle.dumps(files))
    assert read_all(again) == DATA
    assert len(pickle.dumps(files)) < 2000


def test_few_files_stay_open(file, monkeypatch):
    monkeypatch.setattr(opened, "_OPEN_FILES", 2)
    files = RecordFiles([file([b"x%d" % k], f"{k}") for k in range(6)])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert read_all(files) == [b"x%d" % k for k in range(6)]
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        files.close()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_data_are_not_compared_where_nobody_asks(file):
    raw = bytearray(framed(b"abc"))
    raw[12] ^= 1
    path = file(raw=raw)
    assert RecordFiles([path], check_crc=False).read(0) == b"`bc"
    with pytest.raises(DecodeError, match="3 bytes of data do not match their checksum"):
        RecordFiles([path]).read(0)


def test_a_file_changed_while_it_is_used(file):
    path = file()
    files = RecordFiles([path])
    with open(path, "r+b") as handle:
        handle.truncate(1000)
    with pytest.raises(DecodeError, match="has changed since this loader read its index"):
        files.read(3)


def test_large_offsets(monkeypatch, file, tmp_path):
    """Files beyond 4 GiB: offsets of 8 bytes, in a file with holes instead of data."""
    path = str(tmp_path / "large")
    length = 5 * 2**30
    head = framed(b"")[:0] + struct.pack("<Q", length)
    with open(path, "wb") as handle:
        handle.write(head + struct.pack("<I", mask(crc32c(head))))
        handle.seek(length + 16)
        handle.write(framed(b"behind"))
    for _ in range(2):
        files = RecordFiles([path])
        assert files._offsets.tolist() == [0, length + 16, length + 16 + 22]
        assert files.read(1) == b"behind"


def test_without_positioned_reads(file, monkeypatch):
    """Windows has neither pread nor preadv."""
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "preadv")
    assert read_all(RecordFiles([file()])) == DATA
