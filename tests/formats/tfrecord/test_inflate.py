"""Compressed files of records, in any order."""

import gzip
import tracemalloc

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord import inflate
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.formats.tfrecord.scan import index_of
from tests.support.records import DATA, read_all


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


def peak_of(function):
    """The most bytes that are allocated at a time meanwhile, and what the function gives."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


LONG = 24 << 20


def test_a_long_record_takes_its_memory_once(file):
    """As long as it is decompressed; what is given to the caller is a copy without the frame."""
    path = file(raw=gzip.compress(framed(bytes(LONG)), 1))
    stream = inflate.Stream(path, "GZIP", np.array([0, LONG + 16]))
    peak, found = peak_of(lambda: stream.read(0))
    assert len(found) == LONG + 16
    assert peak < 1.4 * LONG


def test_long_records_are_not_all_kept(file):
    """What is kept is bounded by its bytes, not by its number."""
    path = file(raw=gzip.compress(b"".join(framed(bytes(LONG)) for _ in range(12)), 1))
    stream = inflate.Stream(path, "GZIP", np.arange(13) * (LONG + 16))
    peak, _ = peak_of(lambda: [len(stream.read(k)) for k in range(12)])
    assert peak < (128 << 20) + 2.5 * LONG


def test_a_record_above_the_bound_is_refused_before_it_is_decompressed(file):
    """Its neighbours come, and take no memory for it."""
    path = file(raw=gzip.compress(b"".join(map(framed, [b"a", bytes(LONG), b"b"])), 1))
    files = RecordFiles([path], max_bytes=1000)

    def read():
        with pytest.raises(DecodeError, match=rf"has {LONG + 16:,} bytes.*max_bytes={LONG + 16}"):
            files.read(1)
        return files.read(2), files.read(0)

    peak, found = peak_of(read)
    assert found == (b"b", b"a")
    assert peak < 8 << 20
    assert len(RecordFiles([path], max_bytes=LONG + 16).read(1)) == LONG


def test_any_order_with_long_records(file, monkeypatch):
    monkeypatch.setattr(inflate, "_BLOCK", 100)
    data = [bytes([k]) * (3 if k % 5 else 777) for k in range(60)]
    files = RecordFiles([file(raw=gzip.compress(b"".join(map(framed, data))))])
    for k in np.random.default_rng(1).permutation(60).tolist():
        assert files.read(k) == data[k]


def test_several_streams_in_one_file(file):
    """gzip's own `cat a.gz b.gz`, with zeros behind as tape drives leave them."""
    parts = [gzip.compress(framed(b"one")), gzip.compress(framed(b"two") + framed(b"three"))]
    assert read_all(RecordFiles([file(raw=b"".join(parts) + bytes(512))])) == [
        b"one",
        b"two",
        b"three",
    ]
