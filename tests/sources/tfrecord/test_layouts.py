"""Rows read in place: those that are parsed, whatever lies between them."""

import importlib
import os

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.tfrecord.examples import array_features, encode_example
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.sources.tfrecord import layouts
from tests.support.recording import numbers_of, picture_of
from tests.support.tfrecords import everything, raw_records

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("features", [None, {"x": {"a": "x"}, "y": ("label", "label")}])
def test_rows_read_in_place_are_those_that_are_parsed(write, keep, dtype, features):
    path = raw_records(write, 300)
    loader = keep(kl.TFRecordSequenceLoader(path, features, 32, dtype=dtype, seed=1))
    for epoch in range(2):
        x, y = everything(loader, shuffle=True, epoch=epoch)
        x, y = (x["a"], y[0]) if features else (x, y)
        assert numbers_of(x) == y.tolist()
        assert sorted(y.tolist()) == list(range(300))
        assert x.dtype == (dtype or "uint8")
    if features is None:
        assert loader.records._layouts
        assert {bool(layout.direct) for layout in loader.records._layouts.values()} == {
            dtype is None
        }


def test_rows_of_numbers(write, keep):
    """Small records: floats, integers of one to ten bytes, booleans, in any order."""
    rng = np.random.default_rng(2)
    floats = rng.normal(size=(200, 3, 2)).astype(np.float32)
    integers = rng.integers(-(2**40), 2**40, (200, 3)) >> rng.integers(0, 40, (200, 3))
    flags = rng.random((200, 5)) < 0.5
    path = write(
        [
            {
                **array_features("f", floats[n]),
                **array_features("i", integers[n]),
                **array_features("b", flags[n]),
                "label": n,
            }
            for n in range(200)
        ]
    )
    loader = keep(
        kl.TFRecordSequenceLoader(path, {"x": {k: k for k in "fib"}, "y": "label"}, 16, seed=3)
    )
    for epoch in range(3):
        x, y = everything(loader, shuffle=True, epoch=epoch)
        assert sorted(y.tolist()) == list(range(200))
        np.testing.assert_array_equal(x["f"], floats[y])
        np.testing.assert_array_equal(x["i"], integers[y])
        np.testing.assert_array_equal(x["b"], flags[y])
    assert loader.records._layouts


def test_records_of_another_form_in_between(write, keep):
    """The same size, and yet other features, another order or another shape."""
    samples = []
    for n in range(40):
        sample = encode_example({**array_features("x", picture_of(n, 32)), "label": n})
        if n % 4 == 1:  # the features the other way round
            found = tf.train.Example.FromString(sample).features.feature
            sample = b"".join(
                tf.train.Example(
                    features=tf.train.Features(feature={k: found[k]})
                ).SerializeToString()
                for k in sorted(found, reverse=True)
            )
        if n % 4 == 2:  # another feature of the same size in front, which nobody wants
            sample = encode_example(
                {**array_features("x", picture_of(n, 32)), "label": n, "a": "", "z": "w" * (n % 3)}
            )
        samples.append(sample)
    loader = keep(kl.TFRecordSequenceLoader(write(samples), {"x": "x", "y": "label"}, 8))
    for _ in range(3):
        x, y = everything(loader)
        assert numbers_of(x) == y.tolist() == list(range(40))


def test_neighbours_are_one_read(write, keep, monkeypatch):
    path = raw_records(write, 64)
    loader = keep(kl.TFRecordSequenceLoader(path, None, 64, workers=0))
    loader[0]
    sizes = []
    real = layouts.read_many
    monkeypatch.setattr(layouts, "read_many", lambda *a: sizes.append(len(a[2])) or real(*a))
    x, y = loader[0]
    assert numbers_of(x) == y.tolist()
    assert 0 < sum(sizes) <= 4


@pytest.mark.parametrize("place", ["length", "its sum", "form", "small value", "payload", "sum"])
def test_damage_in_rows_that_are_read_in_place(write, keep, place):
    """A flip anywhere is found by the quick way, too."""
    path = raw_records(write, 40)
    keep(kl.TFRecordSequenceLoader(path, None, 8))[0]
    starts = RecordFiles([path])._offsets
    with open(path, "rb") as file:
        raw = bytearray(file.read())
    start, end = int(starts[20]), int(starts[21])
    at = {
        "length": start,
        "its sum": start + 9,
        "form": raw.index(b"label", start),
        "small value": raw.index(b"label", start) + 11,
        "payload": start + 1500,
        "sum": end - 1,
    }[place]
    raw[at] ^= 0x20
    with open(path, "wb") as file:
        file.write(raw)
    loader = keep(kl.TFRecordSequenceLoader(path, None, 8, on_error="skip"))
    for _ in range(2):
        x, y = everything(loader)
        assert numbers_of(x) == y.tolist() == [n for n in range(40) if n != 20]
    (error,) = loader.errors
    assert f"{path}, record 20 at byte {start}" in error.name


def test_a_checksum_is_compared_again_when_the_file_has_changed(write, keep, monkeypatch):
    """Once for a record, and once more behind a change, even of a file that is open already."""
    path = raw_records(write, samples=20)
    settled = os.stat(path).st_mtime - 3600
    os.utime(path, (settled, settled))
    loader = keep(kl.TFRecordSequenceLoader(path, {"x": "x", "y": "label"}, 5, workers=0))
    summed = []

    def counted(pieces):
        summed.append(len(pieces))
        return checksum(pieces)

    checksum = layouts._checksum
    monkeypatch.setattr(layouts, "_checksum", counted)
    want = everything(loader)
    everything(loader)  # those that were parsed, as no form was known yet
    before = len(summed)
    assert before == 20
    assert sorted(everything(loader, shuffle=True, epoch=1)[1].tolist()) == want[1].tolist()
    assert len(summed) == before
    with open(path, "r+b") as file:  # one byte of the pixels of a record in the middle
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(kl.SampleError, match="has changed since"):
        everything(loader)


def test_without_the_wheel(write, keep, monkeypatch, said):
    """Checksums computed byte by byte are the same ones, and it says what is faster."""
    slow = importlib.import_module("google_crc32c.python")
    monkeypatch.setattr("google_crc32c.extend", slow.extend)
    for module in ("crc32c", "files"):
        monkeypatch.setattr(f"kloaders.formats.tfrecord.{module}.HARDWARE", False)
    loader = keep(kl.TFRecordSequenceLoader(raw_records(write, 40), None, 8))
    for _ in range(2):
        x, y = everything(loader)
        assert numbers_of(x) == y.tolist() == list(range(40))
    assert said().count("install a wheel of it") == 1
