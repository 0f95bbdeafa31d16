"""Where records begin, in files that are whole and in those that are not."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.tfrecord import scan
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.formats.tfrecord.scan import index_of
from tests.support.records import DATA, read_all


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=30), st.integers(1, 64))
def test_any_records(tmp_path_factory, data, step):
    """Headers are found however the file is cut into reads."""
    path = tmp_path_factory.mktemp("any") / "a"
    path.write_bytes(b"".join(map(framed, data)))
    found = scan._walk(OpenFile(str(path)), path.stat().st_size, str(path))
    assert found.tolist() == [sum(len(d) + 16 for d in data[:k]) for k in range(len(data) + 1)]


def test_steps_of_all_sizes(file, monkeypatch):
    """Small records in large steps, large ones header by header, and checksums in several goes."""
    monkeypatch.setattr(scan, "_STEP", 1000)
    monkeypatch.setattr(scan, "_LARGE", 400)
    monkeypatch.setattr(scan, "_CHECKED", 7)
    rng = np.random.default_rng(3)
    data = [bytes(int(n)) for n in rng.choice([0, 5, 50, 900, 5000], 200)]
    assert read_all(RecordFiles([file(data)])) == data


FLIPS = {"length": 0, "length, high": 6, "its checksum": 10, "data": 13, "checksum": -1}


@pytest.mark.parametrize("record", [0, 3, len(DATA) - 1])
@pytest.mark.parametrize("place", FLIPS)
def test_one_flipped_byte_costs_one_record(file, record, place):
    """Wherever it lies, it is named, and every other record is read."""
    raw = bytearray(b"".join(map(framed, DATA)))
    starts = np.cumsum([0] + [len(d) + 16 for d in DATA])
    at = FLIPS[place]
    raw[int(starts[record + 1]) - 1 if at < 0 else int(starts[record]) + at] ^= 0x41
    files = RecordFiles([file(raw=raw)])
    found = read_all(files)
    assert len(found) == len(DATA)
    assert [k for k, data in enumerate(found) if data != DATA[k]] == [record]
    assert ("length" if "length" in place or "its" in place else "checksum") in found[record]
    assert f"record {record} at byte {starts[record]}" in files.name(record)


@pytest.mark.parametrize("cut", [1, 3, 5, 11, 19])
def test_a_file_cut_short_loses_its_last_record(file, cut, caplog):
    caplog.set_level("INFO", "kloaders")
    raw = b"".join(map(framed, [b"one", b"two", b"three"]))[:-cut]
    files = RecordFiles([file(raw=raw)])
    found = read_all(files)
    assert found[:2] == [b"one", b"two"]
    assert len(found) == 3
    assert "truncated" in found[2]
    assert "record 2 at byte 38 has a damaged length, or is cut short" in caplog.text


def test_a_single_record_cut_short(file):
    assert (
        "truncated: 21 bytes expected, 20 found"
        in read_all(RecordFiles([file(raw=framed(b"whole")[:-1])]))[0]
    )


def test_a_single_record_with_a_damaged_length(file):
    raw = bytearray(framed(b"whole"))
    raw[1] ^= 255
    assert "length's checksum" in read_all(RecordFiles([file(raw=raw)]))[0]


def test_an_empty_file(file):
    with pytest.raises(DecodeError, match=r"a.tfrecord is empty \(0 bytes\)"):
        index_of(file(raw=b""))


@pytest.mark.parametrize("raw", [b"\x89PNG" + bytes(100), b"14 bytes here.", bytes(5000), b"x"])
def test_no_tfrecord(file, raw):
    with pytest.raises(DecodeError, match="is not a TFRecord file: it begins with"):
        index_of(file(raw=raw))


def test_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="pass a pattern"):
        index_of(str(tmp_path))


def test_compressed_otherwise_than_said(file):
    plain = b"".join(map(framed, DATA))
    with pytest.raises(
        DecodeError, match=r'compressed \(GZIP\), expected a plain TFRecord .*"auto"'
    ):
        index_of(file(raw=gzip.compress(plain)), "")
    with pytest.raises(DecodeError, match=r'not compressed as GZIP .*compression="auto"'):
        index_of(file(), "GZIP")
    with pytest.raises(DecodeError, match="not compressed as GZIP"):
        index_of(file(raw=zlib.compress(plain)), "GZIP")


def test_false_headers_are_passed_over(file):
    """Zeros and small numbers, of which much data consists, are no records."""
    inside = struct.pack("<8Q", *range(8)) * 500 + bytes(5000)
    raw = bytearray(b"".join(map(framed, [inside, b"next"])))
    raw[0] ^= 4
    assert read_all(RecordFiles([file(raw=raw)]))[1] == b"next"


def test_records_inside_of_records(file):
    """Data that are TFRecords themselves are not taken for the file's own."""
    inner = b"".join(map(framed, [b"not", b"these"]))
    raw = bytearray(b"".join(map(framed, [b"one", inner, b"two"])))
    raw[19 + 1] ^= 0x30
    found = read_all(RecordFiles([file(raw=raw)]))
    assert (found[0], found[2]) == (b"one", b"two")
    assert len(found) == 3
