"""TFRecord files: framing, checksums, the index, and damage of every kind."""

import gzip
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.formats import sidecar_index
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.sidecar_index import is_index
from kloaders.formats.tfrecord import crc32c as checksums
from kloaders.formats.tfrecord import files as records
from kloaders.formats.tfrecord import inflate, scan
from kloaders.formats.tfrecord.crc32c import crc32c, mask
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.formats.tfrecord.scan import index_of

# RFC 3720, B.4, and the usual check value.
VECTORS = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(  # an iSCSI read command
            "01c00000 00000000 00000000 00000000 14000000 00000400"
            "00000014 00000018 28000000 00000000 02000000 00000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
]
DATA = [b"first", b"", bytes(300), os.urandom(70_000), b"middle" * 9, os.urandom(40_000), b"last"]


@pytest.fixture
def file(tmp_path):
    """file(records, name) -> the path of a file of them."""

    def _file(data=DATA, name="a.tfrecord", raw=None):
        path = tmp_path / name
        path.write_bytes(b"".join(map(framed, data)) if raw is None else raw)
        return str(path)

    return _file


def read_all(files):
    """Data, or the message, of each record."""
    found = []
    for k in range(len(files)):
        try:
            found.append(files.read(k))
        except DecodeError as error:
            found.append(str(error))
    return found


# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize("extend", [checksums._extend, checksums._in_numpy])
@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_vectors_of_rfc_3720(extend, data, crc):
    assert extend(0, data) == crc


def test_hardware_is_used_where_it_is_installed():
    pytest.importorskip("google_crc32c")
    assert checksums.HARDWARE


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_numpy_agrees_and_goes_on(first, second):
    """Without the wheel the sums are the same, in one piece or in two."""
    whole = crc32c(first + second)
    assert checksums._in_numpy(checksums._in_numpy(0, first), second) == whole
    assert crc32c(second, crc32c(first)) == whole


@pytest.mark.parametrize("size", [47, 48, 49, 4095, 4096, 4097, 150_528])
def test_numpy_agrees_on_long_data(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert checksums._in_numpy(7, data) == crc32c(data.tobytes(), 7)


def test_rows_at_once():
    rows = np.random.default_rng(0).integers(0, 256, (20, 8), np.uint8)
    sums = [crc32c(row.tobytes()) for row in rows]
    assert checksums.of_rows(rows).tolist() == sums
    assert checksums.mask_all(checksums.of_rows(rows)).tolist() == [mask(crc) for crc in sums]


# ---------------------------------------------------------------- reading


def test_tensorflow_reads_what_is_framed(file):
    tf = pytest.importorskip("tensorflow")
    assert [r.numpy() for r in tf.data.TFRecordDataset(file())] == DATA


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
    monkeypatch.setattr(records, "_OPEN_FILES", 2)
    files = RecordFiles([file([b"x%d" % k], f"{k}") for k in range(6)])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert read_all(files) == [b"x%d" % k for k in range(6)]
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        files.close()
        assert len(os.listdir("/proc/self/fd")) <= before


# ---------------------------------------------------------------- damage

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


def test_data_are_not_compared_where_nobody_asks(file):
    raw = bytearray(framed(b"abc"))
    raw[12] ^= 1
    path = file(raw=raw)
    assert RecordFiles([path], check_crc=False).read(0) == b"`bc"
    with pytest.raises(DecodeError, match="3 bytes of data do not match their checksum"):
        RecordFiles([path]).read(0)


@pytest.mark.parametrize("cut", [1, 3, 5, 11, 19])
def test_a_file_cut_short_loses_its_last_record(file, cut, caplog):
    caplog.set_level("INFO", "kloaders")
    raw = b"".join(map(framed, [b"one", b"two", b"three"]))[:-cut]
    files = RecordFiles([file(raw=raw)])
    found = read_all(files)
    assert found[:2] == [b"one", b"two"]
    assert len(found) == 3
    assert "truncated" in found[2]
    assert "record 2 at byte 38 is damaged in its length, or cut short" in caplog.text


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
    with pytest.raises(DecodeError, match="is no TFRecord file: it begins with"):
        index_of(file(raw=raw))


def test_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="give a pattern"):
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


def test_compressed_and_damaged(file):
    squeezed = gzip.compress(b"".join(map(framed, DATA)))
    with pytest.raises(DecodeError, match=r"truncated: its GZIP data end after"):
        index_of(file(raw=squeezed[:-5000]))
    broken = bytearray(squeezed)
    broken[len(broken) // 2] ^= 0xFF
    with pytest.raises(DecodeError, match=r"a.tfrecord.* (damaged|not a whole record|cut short)"):
        index_of(file(raw=bytes(broken)))
    with pytest.raises(DecodeError, match="record 0 at byte 0 of its decompressed content"):
        index_of(file(raw=gzip.compress(b"no record at all")))


def test_a_file_changed_while_it_is_used(file):
    path = file()
    files = RecordFiles([path])
    with open(path, "r+b") as handle:
        handle.truncate(1000)
    with pytest.raises(DecodeError, match="was changed after this loader had read its index"):
        files.read(3)


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


# ---------------------------------------------------------------- compressed files


@pytest.mark.parametrize("order", ["in order", "a bit out of order", "far apart", "random"])
def test_streams_in_any_order(file, monkeypatch, order):
    """Quick only in order, and right in every other."""
    monkeypatch.setattr(inflate, "_BLOCK", 1000)
    monkeypatch.setattr(inflate, "_BLOCKS_KEPT", 4)
    rng = np.random.default_rng(1)
    data = [rng.bytes(int(n)) for n in rng.integers(0, 700, 300)]
    files = RecordFiles([file(raw=gzip.compress(b"".join(map(framed, data))))])
    numbers = {
        "in order": np.arange(300),
        "a bit out of order": np.arange(300).reshape(-1, 10)[:, ::-1].ravel(),
        "far apart": np.arange(300).reshape(2, 150).T.ravel(),
        "random": rng.permutation(300),
    }[order]
    assert all(files.read(k) == data[k] for k in numbers.tolist())


def test_in_order_decompresses_once(file, monkeypatch):
    monkeypatch.setattr(inflate, "_BLOCK", 1000)
    begun = []
    real = inflate.Inflate
    data = [bytes(100)] * 500
    files = RecordFiles([file(raw=gzip.compress(b"".join(map(framed, data))))])
    monkeypatch.setattr(inflate, "Inflate", lambda *a: begun.append(a) or real(*a))
    for k in np.arange(500).reshape(-1, 20)[:, ::-1].ravel().tolist():
        assert files.read(k) == data[k]
    assert len(begun) == 1


def test_several_streams_in_one_file(file):
    """gzip's own `cat a.gz b.gz`, with zeros behind as tape drives leave them."""
    parts = [gzip.compress(framed(b"one")), gzip.compress(framed(b"two") + framed(b"three"))]
    assert read_all(RecordFiles([file(raw=b"".join(parts) + bytes(512))])) == [
        b"one",
        b"two",
        b"three",
    ]


# ---------------------------------------------------------------- the index


def index_path(path):
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.index")


@pytest.fixture
def walks(monkeypatch):
    """How often a file was walked."""
    count = []
    for name in ("_walk", "_walk_stream"):
        real = getattr(scan, name)
        monkeypatch.setattr(scan, name, lambda *a, real=real: count.append(a) or real(*a))
    return count


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_the_index_is_made_once(file, walks, squeeze):
    path = file(raw=squeeze(b"".join(map(framed, DATA))))
    first = index_of(path)
    again = index_of(path)
    assert len(walks) == 1
    assert again.offsets.tolist() == first.offsets.tolist()
    assert again.compression == first.compression
    assert os.path.getsize(index_path(path)) == 60 + 4 * (len(DATA) + 1)
    assert is_index(index_path(path))
    assert not is_index(path)


def test_a_stale_index_is_made_anew(file, walks):
    path = file()
    index_of(path)
    file([b"other", b"records"])
    assert len(index_of(path)) == 2
    os.utime(path, ns=(1, 1))
    index_of(path)
    assert len(walks) == 3


def test_the_index_of_another_file(file, walks):
    """One of the same size and time is told by what the files begin and end with."""
    a, b = file([b"aaaa", b"bb"], "a"), file([b"cc", b"dddd"], "b")
    for path in (a, b):
        os.utime(path, ns=(10**18, 10**18))
    index_of(a)
    shutil.copy(index_path(a), index_path(b))
    assert read_all(RecordFiles([b])) == [b"cc", b"dddd"]
    assert len(walks) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "text"])
def test_a_damaged_index_is_made_anew(file, walks, damage):
    path = file()
    index_of(path)
    with open(index_path(path), "rb") as handle:
        raw = handle.read()
    for at in range(len(raw)) if damage == "flip" else [0]:
        broken = {
            "flip": raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :],
            "cut": raw[:-3],
            "empty": b"",
            "longer": raw + bytes(4),
            "text": b"no index at all, but long enough to have a header in front of it, "
            b"as one may see by counting",
        }[damage]
        before = len(walks)
        with open(index_path(path), "wb") as handle:
            handle.write(broken)
        assert len(index_of(path)) == len(DATA)
        # Two bytes of padding say nothing.
        assert len(walks) == before + 1 or at in (38, 39)


@pytest.mark.parametrize(
    "offsets", [[0, 2**31, 40], [0, 2**50, 2**60], [5, 10, 20], [0, 70, 2**40]]
)
def test_an_index_that_lies_is_made_anew(file, walks, offsets):
    """Its sums are right, and its offsets impossible."""
    path = file([b"one", b"two"])
    found = index_of(path)
    lie = sidecar_index.Index(
        np.array(offsets, np.uint64), found.compression, found.size, found.modified, found.ends
    )
    sidecar_index.save(lie, [index_path(path)])
    assert read_all(RecordFiles([path])) == [b"one", b"two"]
    assert len(walks) == 2


def test_a_folder_for_indexes(file, tmp_path, walks):
    path = file()
    folder = str(tmp_path / "kept" / "here")
    index_of(path, folder=folder)
    assert not os.path.exists(index_path(path))
    assert len(os.listdir(folder)) == 1
    index_of(path, folder=folder)
    assert len(walks) == 1


def unwritable(monkeypatch, folders):
    real = sidecar_index.whole_file

    def refuse(path):
        if any(path.startswith(folder) for folder in folders):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(sidecar_index, "whole_file", refuse)


def test_where_data_cannot_be_written_a_cache_folder_is_used(file, tmp_path, walks, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    path = file()
    unwritable(monkeypatch, [index_path(path)])
    index_of(path)
    index_of(path)
    assert len(walks) == 1
    assert len(os.listdir(cache / "kloaders" / "indexes")) == 1


def test_where_nothing_can_be_written_it_says_so(file, tmp_path, walks, monkeypatch, caplog):
    caplog.set_level("INFO", "kloaders")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("kloaders.core.messages._said", set())
    unwritable(monkeypatch, [str(tmp_path)])
    path = file()
    assert len(index_of(path)) == len(index_of(path)) == len(DATA)
    assert len(walks) == 2
    assert caplog.text.count("give index_folder=, a folder that can be written") == 1


def test_two_processes_make_one_index_at_a_time(file):
    """Many at once, and whoever reads gets a whole one."""
    path = file([b"%d" % k for k in range(3000)])
    code = (
        "import sys, os; from kloaders.formats.tfrecord import files, scan\n"
        "for k in range(30):\n"
        "    try: os.unlink(sys.argv[2])\n"
        "    except FileNotFoundError: pass\n"
        "    assert len(scan.index_of(sys.argv[1])) == 3000\n"
        "    assert files.RecordFiles([sys.argv[1]]).read(2999) == b'2999'\n"
    )
    command = [sys.executable, "-c", code, path, index_path(path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said.decode()
    assert sorted(os.listdir(os.path.dirname(path))) == [".a.tfrecord.index", "a.tfrecord"]


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


AT_EXIT = """
import os, sys
from kloaders.formats import files

file = files.OpenFile(sys.argv[1])
number = file.number
for name in vars(files):  # as the interpreter leaves a module behind
    setattr(files, name, None)
del file
try:
    os.fstat(number)
except OSError:
    print("closed")
"""


def test_files_are_closed_when_the_module_is_gone(file):
    """A loader that outlives its module at exit says nothing on stderr."""
    command = [sys.executable, "-c", AT_EXIT, file([b"0"])]
    environment = {**os.environ, "KLOADERS_WORKER": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert (done.stdout.split(), done.stderr) == ([b"closed"], b"")
