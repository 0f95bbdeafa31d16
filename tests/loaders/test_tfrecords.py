"""The loader over TFRecord files and the converter that writes them, against TensorFlow's own."""

import glob
import gzip
import importlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import main as cli
from kloaders.convert import tfrecords as tfrecord_writer
from kloaders.formats import images
from kloaders.formats.tfrecord.examples import array_features, encode_example, parse_example
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.sources.cache import store as stores
from kloaders.sources.tfrecord import layouts
from tests.support.recording import numbers_of, picture_of

tf = pytest.importorskip("tensorflow")

SAMPLES = 23


def png(number, side=4):
    return cv2.imencode(".png", picture_of(number, side)[..., ::-1])[1].tobytes()


@pytest.fixture
def said(caplog, monkeypatch):
    """What was said, as one text."""
    monkeypatch.setattr("kloaders.core.messages._said", set())
    caplog.set_level(logging.INFO, "kloaders")
    return lambda: caplog.text


@pytest.fixture
def write(tmp_path):
    """write(list of features, name) -> the path of a TFRecord file."""

    def _write(samples, name="a.tfrecord", compression=""):
        path = str(tmp_path / name)
        with tf.io.TFRecordWriter(path, compression) as writer:
            for sample in samples:
                writer.write(sample if isinstance(sample, bytes) else encode_example(sample))
        return path

    return _write


@pytest.fixture
def pictures(tmp_path):
    """Files of SAMPLES pictures, and their labels."""
    paths = []
    for number in range(SAMPLES):
        path = tmp_path / f"{number:03}.png"
        path.write_bytes(png(number))
        paths.append(str(path))
    return paths, np.arange(SAMPLES) % 5


def everything(loader, shuffle=False, epoch=0):
    """All batches of an epoch, joined."""
    batches = list(loader.epoch_batches(epoch, shuffle))
    first = batches[0]
    if isinstance(first, tuple):
        return tuple(join([batch[k] for batch in batches]) for k in range(len(first)))
    return join(batches)


def join(parts):
    if isinstance(parts[0], dict):
        return {k: join([part[k] for part in parts]) for k in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(join([part[k] for part in parts]) for k in range(len(parts[0])))
    return np.concatenate(parts)


def tensorflow_example(**features):
    """As TensorFlow's tutorial "TFRecord and tf.train.Example" makes it."""

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    made = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


# ---------------------------------------------------------------- TensorFlow's files


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_pictures_of_tensorflows_tutorial(write, keep, compression, said):
    """Height, width, depth, label and image_raw, inferred and named."""
    path = write(
        [
            tensorflow_example(height=4, width=4, depth=3, label=n % 3, image_raw=png(n))
            for n in range(SAMPLES)
        ],
        compression=compression,
    )
    for features in (None, {"x": "image_raw", "y": "label"}):
        loader = keep(kl.TFRecordSequenceLoader([path], features, 8, shuffle=True, seed=5))
        assert len(loader) == 3
        x, y = everything(loader, shuffle=True)
        numbers = numbers_of(x)
        assert sorted(numbers) == list(range(SAMPLES))
        assert numbers != list(range(SAMPLES))
        assert y.tolist() == [n % 3 for n in numbers]
        assert numbers_of(everything(loader)[0]) == list(range(SAMPLES))
    assert "x is 'image_raw', y is 'label'; left out: depth, height, width." in said()
    assert ("compressed: records are read front to back" in said()) == bool(compression)


def test_features_of_tensorflows_tutorial(write, keep):
    """feature0 ... feature3: a bool, an integer, a text and a float."""
    rng = np.random.default_rng(1)
    rows = [
        (bool(rng.random() < 0.5), int(rng.integers(0, 5000)), float(np.float32(rng.normal())))
        for _ in range(100)
    ]
    path = write(
        [
            tensorflow_example(feature0=int(a), feature1=b, feature2=b"cat", feature3=c)
            for a, b, c in rows
        ]
    )
    x = everything(keep(kl.TFRecordSequenceLoader(path, None, 32)))
    assert list(x) == ["feature0", "feature1", "feature3"]
    assert x["feature1"].tolist() == [row[1] for row in rows]
    assert x["feature3"].tolist() == [row[2] for row in rows]
    names = [b"dog", b"cat"]
    loader = keep(
        kl.TFRecordSequenceLoader(
            path,
            {
                "x": ("feature1", kl.Feature("feature3", dtype="float64")),
                "y": kl.Feature("feature2", decode=lambda text: np.int32(names.index(text))),
            },
        )
    )
    (first, third), y = everything(loader)
    assert (first.dtype, third.dtype, y.dtype) == (np.int64, np.float64, np.int32)
    assert (y == 1).all()


def test_specs_of_tf_io(write, keep):
    """FixedLenFeature, VarLenFeature and RaggedFeature stand for their features."""
    path = write(
        [
            {"grid": np.arange(6) + n, "list": [float(n)] * 3, "image": png(n), "text": "x"}
            for n in range(10)
        ]
    )
    features = {
        "x": {
            "grid": tf.io.FixedLenFeature([2, 3], tf.int64),
            "list": tf.io.VarLenFeature(tf.float32),
            "again": tf.io.RaggedFeature(tf.float32, value_key="list"),
            "image": tf.io.FixedLenFeature([], tf.string),
        },
        "y": {"label": tf.io.FixedLenFeature([], tf.int64, default_value=-1)},
    }
    x, y = everything(keep(kl.TFRecordSequenceLoader(path, features, 4)))
    assert x["grid"].tolist() == [(np.arange(6) + n).reshape(2, 3).tolist() for n in range(10)]
    assert x["list"].tolist() == x["again"].tolist() == [[float(n)] * 3 for n in range(10)]
    assert numbers_of(x["image"]) == list(range(10))
    assert y["label"].tolist() == [-1] * 10


def test_lists_of_any_length(write, keep):
    """As everywhere: a batch of one length is a batch, and two in one are named."""
    path = write([{"v": [n] * (2 + n // 4), "label": n} for n in range(12)])
    loader = keep(kl.TFRecordSequenceLoader(path, {"x": "v", "y": "label"}, 4))
    assert [loader[k][0].shape for k in range(3)] == [(4, 2), (4, 3), (4, 4)]
    mixed = keep(kl.TFRecordSequenceLoader(path, {"x": "v", "y": "label"}, 5))
    with pytest.raises(ValueError, match=r"record 4 at byte \d+ is int64 of shape \(3,\), but "):
        mixed[0]


def test_one_number_is_a_number_and_no_list(write, keep):
    path = write([{"v": [1]}, {"v": [1, 2]}])
    with pytest.raises(kl.SampleError, match=r"2 values, and the first record one. kl.Feature"):
        keep(kl.TFRecordSequenceLoader(path, {"x": "v"}, 2))[0]
    loader = keep(
        kl.TFRecordSequenceLoader(path, {"x": kl.Feature("v", shape=(None,))}, batch_size=1)
    )
    assert loader[0].shape == (1, 1)
    assert loader[1].shape == (1, 2)


def test_raw_pixels(write, keep):
    """What TensorFlow's older examples wrote: tobytes(), and nothing that says so."""
    path = write([{"pixels": picture_of(n).tobytes(), "label": n} for n in range(10)])
    with pytest.raises(ValueError, match="of which none is a picture") as caught:
        kl.TFRecordSequenceLoader(path, None)
    assert "kl.Feature(" in str(caught.value) or "label" in str(caught.value)
    with pytest.raises(ValueError, match=r"48 bytes that are no picture; .*kl.Feature\('pixels'"):
        kl.TFRecordSequenceLoader(path, {"x": "pixels"})
    pixels = kl.Feature("pixels", shape=(4, 4, 3), dtype="uint8")
    x, y = everything(keep(kl.TFRecordSequenceLoader(path, {"x": pixels, "y": "label"}, 4)))
    assert numbers_of(x) == y.tolist() == list(range(10))


def test_records_of_another_kind(write, keep):
    """With decode= a record may hold anything."""
    path = write([b"%d,%d" % (n, n * n) for n in range(10)])
    with pytest.raises(ValueError, match=r"no tf.train.Example"):
        kl.TFRecordSequenceLoader(path)
    loader = keep(
        kl.TFRecordSequenceLoader(
            path, None, 4, decode=lambda raw: np.fromstring(raw, "i4", sep=",")
        )
    )
    assert everything(loader).tolist() == [[n, n * n] for n in range(10)]


class OwnRecords(kl.TFRecordSequenceLoader):
    """A user's own way with a record."""

    def load_sample(self, index):
        features = parse_example(self.read_record(index))
        return features["v"][:2].astype(np.float32), features["v"].sum()


class OwnBatches(kl.TFRecordSequenceLoader):
    def load_batch(self, indices):
        return np.stack([parse_example(self.read_record(int(k)))["v"] for k in indices])


def test_hooks(write, keep):
    path = write([{"v": [n, n + 1, 5]} for n in range(10)])
    x, y = everything(keep(OwnRecords(path, None, 4)))
    assert x.tolist() == [[n, n + 1] for n in range(10)]
    assert y.tolist() == [2 * n + 6 for n in range(10)]
    assert everything(keep(OwnBatches(path, None, 4))).tolist() == [
        [n, n + 1, 5] for n in range(10)
    ]


class Negated(kl.TFRecordSequenceLoader):
    """What features say, and one thing more."""

    def load_sample(self, index):
        x, y = super().load_sample(index)
        return -x, y


def test_hooks_and_features(write, keep):
    path = write([{"v": [n, 1], "label": n} for n in range(6)])
    x, y = everything(keep(Negated(path, {"x": "v", "y": "label"}, 4)))
    assert x[:, 0].tolist() == [-n for n in range(6)]
    assert y.tolist() == list(range(6))
    with pytest.raises(
        kl.SampleError, match="overrides a hook and has no features: pass features="
    ):
        keep(Negated(path, None, 4))[0]


def test_masks(write, keep):
    """A label that is a picture is resized without inventing classes."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 7
    raw = cv2.imencode(".png", mask)[1].tobytes()
    path = write([{"image": png(n, 8), "mask": raw} for n in range(4)])
    x, y = everything(
        keep(kl.TFRecordSequenceLoader(path, {"x": "image", "y": "mask"}, 2, size=(4, 4)))
    )
    assert x.shape == (4, 4, 4, 3)
    assert y.shape == (4, 4, 4, 1)
    assert set(np.unique(y)) == {0, 7}


# ---------------------------------------------------------------- fast rows


def raw_records(write, samples=60, side=32, name="a.tfrecord", **more):
    """Arrays large enough to be read in place, with texts of several lengths beside them."""
    return write(
        [
            {**array_features("x", picture_of(n, side)), "label": n, "id": f"n{n}", **more}
            for n in range(samples)
        ],
        name,
    )


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
        assert loader._layouts
        assert {bool(layout.direct) for layout in loader._layouts.values()} == {dtype is None}


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
    assert loader._layouts


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
    with pytest.raises(kl.SampleError, match="was changed after"):
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


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("record", [0, 9, SAMPLES - 1])
@pytest.mark.parametrize("offset", [3, 9, 20, -2])
def test_policies(pictures, tmp_path, keep, record, offset):
    """raise names file, record and offset; skip loses that record; replace draws another."""
    paths, labels = pictures
    (path,) = kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False).files
    starts = RecordFiles([path])._offsets
    with open(path, "r+b") as file:
        at = int(starts[record]) + offset if offset >= 0 else int(starts[record + 1]) + offset
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x41]))
    features = {"x": "image_raw", "y": "label"}
    named = rf"{path}, record {record} at byte {starts[record]}\)"
    with pytest.raises(kl.SampleError, match=named):
        everything(keep(kl.TFRecordSequenceLoader(path, features, 8)))
    skipping = keep(kl.TFRecordSequenceLoader(path, features, 8, on_error="skip"))
    x, y = everything(skipping)
    left = [n for n in range(SAMPLES) if n != record]
    assert numbers_of(x) == left
    assert y.tolist() == labels[left].tolist()
    assert [error.index for error in skipping.errors] == [record]
    replacing = keep(kl.TFRecordSequenceLoader(path, features, 8, on_error="replace"))
    numbers = numbers_of(everything(replacing)[0])
    assert len(numbers) == SAMPLES
    assert set(left) == set(numbers)


def test_a_damaged_picture_in_a_whole_record(write, keep):
    samples = [{"image": png(n), "label": n} for n in range(6)]
    samples[4]["image"] = samples[4]["image"][:-20]
    path = write(samples)
    with pytest.raises(kl.SampleError, match=r"record 4 .*feature 'image' is truncated: a PNG"):
        everything(keep(kl.TFRecordSequenceLoader(path, None, 3)))


def test_errors_of_features(write):
    path = write([{"image": png(1), "label": 1}])
    for features, words in [
        (
            {"x": "imag"},
            "it has no feature 'imag', it has 'image', 'label'.* Did you mean 'image'?",
        ),
        ({"image": "x"}, r"features is a dict of 'image', expected which features are x and y"),
        ({"x": "image", "z": "label"}, "features is a dict of 'x', 'z', expected"),
        ({"x": {}}, r"features\['x'\] is empty"),
        (("image", "label"), "expected which features are x and y"),
    ]:
        with pytest.raises(ValueError, match=words):
            kl.TFRecordSequenceLoader(path, features)
    for features in ({"x": 3}, {"x": tf.io.SparseFeature("i", "v", tf.int64, 3)}):
        with pytest.raises(TypeError, match=r"features: 'x' is .*, expected a feature's name"):
            kl.TFRecordSequenceLoader(path, features)
    with pytest.raises(ValueError, match="at most one is None"):
        kl.Feature("a", shape=(None, None))


def test_errors_of_files(tmp_path, write):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*none-"):
        kl.TFRecordSequenceLoader(str(tmp_path / "none-*"))
    with pytest.raises(FileNotFoundError, match=r"none.tfrecord does not exist"):
        kl.TFRecordSequenceLoader([tmp_path / "none.tfrecord"])
    with pytest.raises(TypeError, match=r"files holds 3 \(int\)"):
        kl.TFRecordSequenceLoader([3])
    with pytest.raises(ValueError, match="files is empty"):
        kl.TFRecordSequenceLoader([])
    with pytest.raises(ValueError, match="compression='zip' is not known"):
        kl.TFRecordSequenceLoader(write([{"a": 1}]), compression="zip")
    squeezed = write([{"a": 1}], "b", "GZIP")
    with pytest.raises(ValueError, match=r"is compressed .GZIP., expected a plain TFRecord file"):
        kl.TFRecordSequenceLoader(squeezed, compression=None)


def test_a_missing_feature_is_a_sample_that_fails(write, keep):
    path = write([{"x": n, **({"label": n} if n != 3 else {})} for n in range(6)])
    features = {"x": "x", "y": "label"}
    with pytest.raises(kl.SampleError, match=r"record 3 .* it has no feature 'label', it has 'x'"):
        everything(keep(kl.TFRecordSequenceLoader(path, features, 3)))
    filled = {"x": "x", "y": kl.Feature("label", default=-1)}
    _x, y = everything(keep(kl.TFRecordSequenceLoader(path, filled, 3)))
    assert y.tolist() == [0, 1, 2, -1, 4, 5]


# ---------------------------------------------------------------- as a loader


def test_patterns_and_lists(write, keep):
    for k in range(3):
        write([{"x": 10 * k + n} for n in range(4)], f"train-{k}-of-3")
    folder = os.path.dirname(write([{"x": 99}], "other"))
    assert everything(keep(kl.TFRecordSequenceLoader(f"{folder}/train-*"))).tolist() == [
        0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23,
    ]  # fmt: skip
    # The indexes are there by now, and no pattern takes them for data.
    loader = keep(kl.TFRecordSequenceLoader([f"{folder}/train-2*", f"{folder}/*train-0*"]))
    assert everything(loader).tolist() == [20, 21, 22, 23, 0, 1, 2, 3]


def test_pickles_light_and_views(pictures, tmp_path, keep):
    paths, labels = pictures
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    loader = keep(kl.TFRecordSequenceLoader(written.files, None, 8, seed=1))
    want = [loader[k][1].tolist() for k in range(len(loader))]
    raw = pickle.dumps(loader)
    assert len(raw) < 10_000
    for other in (keep(pickle.loads(raw)), keep(loader.view())):
        assert [other[k][1].tolist() for k in range(len(other))] == want
    loader.close()
    assert loader[0][1].tolist() == want[0]


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_split_preload_and_dataset(pictures, tmp_path, keep, compression):
    paths, labels = pictures
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "a", shards=2, compression=compression, progress=False
    )
    loader = keep(kl.TFRecordSequenceLoader(written.files, None, 8, seed=1))
    train, validation = map(keep, kl.split(loader, stratify=labels, seed=3))
    both = [numbers_of(everything(part)[0]) for part in (train, validation)]
    assert sorted(both[0] + both[1]) == list(range(SAMPLES))
    assert len(both[1]) == 5
    loaded = keep(kl.preload(loader, progress=False))
    assert numbers_of(everything(loaded)[0]) == list(range(SAMPLES))
    dataset = kl.to_tf_dataset(loader, shuffle=True)
    numbers = [n for x, _ in dataset for n in numbers_of(x)]
    assert sorted(numbers) == list(range(SAMPLES))
    assert numbers != list(range(SAMPLES))


def test_processes(pictures, tmp_path, keep):
    paths, labels = pictures
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", shards=2, progress=False)
    loader = keep(
        kl.TFRecordSequenceLoader(written.files, None, 8, seed=1, workers=1, processes=True)
    )
    x, y = everything(loader)
    assert numbers_of(x) == list(range(SAMPLES))
    assert y.tolist() == labels.tolist()
    train, validation = map(keep, kl.split(loader, seed=1))
    both = [numbers_of(everything(part)[0]) for part in (train, validation)]
    assert sorted(both[0] + both[1]) == list(range(SAMPLES))


@pytest.mark.parametrize(("cache", "kept"), [("auto", True), ("ram", True), (None, False)])
def test_decoded_pictures_are_kept(pictures, tmp_path, keep, monkeypatch, cache, kept):
    """A later epoch decodes nothing, and has the same samples."""
    paths, labels = pictures
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    loader = keep(kl.TFRecordSequenceLoader(written.files, None, 8, seed=1, cache=cache))
    first = everything(loader)
    decoded = []
    real = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda *a: decoded.append(a) or real(*a))
    x, y = everything(loader, shuffle=True)
    assert sorted(numbers_of(x)) == numbers_of(first[0])
    assert y.tolist() == [labels[n] for n in numbers_of(x)]
    assert bool(decoded) != kept


def test_arrays_are_not_kept_unasked(write, keep):
    """They are read as fast as a cache is."""
    loader = keep(kl.TFRecordSequenceLoader(raw_records(write), None, 8))
    assert everything(loader)[1].tolist() == list(range(60))
    assert loader._stores() == []


def test_transform_sees_the_sample(pictures, tmp_path, keep):
    paths, labels = pictures
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    loader = keep(
        kl.TFRecordSequenceLoader(
            written.files, None, 8, transform=lambda x, y, rng: (x.astype("f4") / 255, y + 1)
        )
    )
    x, y = everything(loader)
    assert x.dtype == np.float32
    assert y.tolist() == (labels + 1).tolist()


@pytest.mark.parametrize("draw", ["windows", "global"])
def test_ram_batches_of_plain_files(pictures, tmp_path, keep, draw):
    paths, labels = pictures
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    loader = keep(
        kl.TFRecordSequenceLoader(
            written.files, None, 4, ram_batch_size=8, draw=draw, shuffle=True, seed=3
        )
    )
    assert loader.plan.window == 8
    assert sorted(numbers_of(everything(loader, True)[0])) == list(range(SAMPLES))


def test_compressed_files_are_read_front_to_back(write, keep, said):
    """RAM batches follow one another as in the files, and are shuffled inside."""
    files = [write([{"x": 50 * k + n} for n in range(50)], f"{k}", "GZIP") for k in range(2)]
    loader = keep(
        kl.TFRecordSequenceLoader(files, None, 5, ram_batch_size=20, shuffle=True, seed=4)
    )
    for epoch in range(3):
        numbers = everything(loader, True, epoch).tolist()
        assert sorted(numbers) == list(range(100))
        windows = [numbers[k : k + 20] for k in range(0, 100, 20)]
        cut = [sorted((n - windows_start(windows)) % 100 for n in window) for window in windows]
        assert [window[0] // 20 for window in cut] == [0, 1, 2, 3, 4]
        assert all(window != sorted(window) for window in windows)
    assert said().count("read front to back") == 1


def windows_start(windows):
    """Where the first window begins: it may go round the end."""
    there = set(windows[0])
    return next(n for n in there if (n - 1) % 100 not in there)


def test_reading_imports_no_tensorflow(pictures, tmp_path):
    paths, _labels = pictures
    code = (
        "import sys, os; os.environ['KLOADERS_WORKER'] = '1'  # Keras may import TensorFlow\n"
        "import kloaders as kl\n"
        "written = kl.write_tfrecords(sys.argv[2:], None, sys.argv[1], progress=False)\n"
        "from kloaders.loaders.tfrecords import TFRecordSequenceLoader\n"
        "x = TFRecordSequenceLoader(written.files)[0]\n"
        "print([m for m in sys.modules if m == 'tensorflow'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a"), *paths],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- by TensorFlow alone


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_native(write, keep, compression):
    """The same signature and content, without a line of Python for a record."""
    rng = np.random.default_rng(0)
    vectors = rng.random((SAMPLES, 3)).astype(np.float32)
    path = write(
        [
            {
                "image": png(n),
                **array_features("raw", picture_of(n, 2).astype(np.int16)),
                "vector": vectors[n],
                "label": n,
            }
            for n in range(SAMPLES)
        ],
        compression=compression or "",
    )
    features = {"x": {"a": "image", "b": "raw", "c": "vector"}, "y": ("label", "label")}
    loader = keep(kl.TFRecordSequenceLoader(path, features, 4, dtype="float32", seed=1))
    native = kl.to_tf_dataset(loader, shuffle=False, native=True)
    ours = kl.to_tf_dataset(loader, shuffle=False)
    assert native.element_spec == ours.element_spec
    assert len(native) == len(ours) == len(loader)
    for one, other in zip(native, ours, strict=True):
        tf.nest.map_structure(
            lambda a, b: np.testing.assert_array_equal(a.numpy(), b.numpy()), one, other
        )
    shuffled = kl.to_tf_dataset(loader, shuffle=True, native=True)
    for _ in range(2):
        numbers = [n for _, y in shuffled for n in y[0].numpy().tolist()]
        assert sorted(numbers) == list(range(SAMPLES))
        assert numbers != list(range(SAMPLES))


def test_native_resizes(write, keep):
    path = write([{"image": png(n, 8), "label": n} for n in range(6)])
    loader = keep(
        kl.TFRecordSequenceLoader(path, None, 4, size=(4, 6), rescale=1 / 255, drop_last=True)
    )
    native = kl.to_tf_dataset(loader, shuffle=False, native=True)
    assert native.element_spec == kl.to_tf_dataset(loader, shuffle=False).element_spec
    ((x, y),) = native
    np.testing.assert_allclose(x.numpy(), loader[0][0], atol=1e-6)
    assert y.numpy().tolist() == [0, 1, 2, 3]


def test_native_trains(write):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a Dataset of TensorFlow")
    path = write([{"x": [float(n), 1.0], "label": n % 2} for n in range(12)])
    dataset = kl.to_tf_dataset(kl.TFRecordSequenceLoader(path, None, 4), True, native=True)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert len(model.fit(dataset, epochs=2, verbose=0, shuffle=False).history["loss"]) == 2


def test_native_refuses_what_takes_python(write, pictures):
    path = write([{"image": png(n), "label": n} for n in range(6)])
    for options, words in [
        ({"transform": lambda x, y, rng: (x, y)}, "transform= is a function in Python"),
        ({"decode": lambda raw: np.zeros(3)}, "decode= is a function in Python"),
        ({"on_error": "skip"}, "on_error='skip' needs the index"),
        ({"shard": (0, 2), "seed": 1}, r"shard= cuts batches \(use Dataset.shard\)"),
        ({"sample_weights": np.ones(6)}, "sample_weights= go by sample number"),
    ]:
        loader = kl.TFRecordSequenceLoader(path, None, 2, **options)
        with pytest.raises(ValueError, match=words):
            kl.to_tf_dataset(loader, True, native=True)
    with pytest.raises(
        TypeError, match=r"native=True is for TFRecord\w+ and for arrays in RAM, .* a Path"
    ):
        kl.to_tf_dataset(kl.PathSequenceLoader(pictures[0]), True, native=True)


# ---------------------------------------------------------------- the converter


@pytest.mark.parametrize("compression", [None, "GZIP", "ZLIB"])
def test_tensorflow_reads_ours(pictures, tmp_path, compression):
    """TFRecordDataset and a FixedLenFeature parser, with equal content."""
    paths, labels = pictures
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "out" / "train", shards=3, compression=compression, progress=False
    )
    assert [os.path.basename(file) for file in written.files] == [
        f"train-{k:05}-of-00003.tfrecord" for k in range(3)
    ]
    assert (written.samples, written.errors, written.validation) == (SAMPLES, [], [])
    spec = {
        "image_raw": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.string),
    }
    dataset = tf.data.TFRecordDataset(written.files, compression or "").map(
        lambda raw: tf.io.parse_single_example(raw, spec)
    )
    found = [{k: v.numpy() for k, v in one.items()} for one in dataset]
    assert [one["image_raw"] for one in found] == [png(n) for n in range(SAMPLES)]
    assert [one["label"] for one in found] == labels.tolist()
    assert [one["id"].decode() for one in found] == paths


def test_what_is_written_of_each_kind(tmp_path, keep, pictures):
    """Texts, bytes, integers, floats, arrays with shape and dtype; labels of several forms."""
    paths, labels = pictures
    rng = np.random.default_rng(0)
    matrix = rng.random((SAMPLES, 2, 3))
    masks = paths[::-1]
    written = kl.write_tfrecords(
        {"left": paths, "vector": matrix[:, 0].astype(np.float32)},
        {"class": labels, "box": rng.random((SAMPLES, 4)), "mask": masks},
        tmp_path / "a",
        features={
            "caption": [f"picture {n}" for n in range(SAMPLES)],
            "matrix": matrix,
            "rating": [n / 2 for n in range(SAMPLES)],
            "tags": [["a", "b"]] * SAMPLES,
            "stem": lambda path: os.path.basename(path)[:3],
        },
        progress=False,
    )
    features = parse_example(RecordFiles(written.files).read(4))
    assert features["caption"] == [b"picture 4"]
    assert features["stem"] == [b"004"]
    assert features["tags"] == [b"a", b"b"]
    assert features["rating"].tolist() == [2.0]
    assert features["matrix/shape"].tolist() == [2, 3]
    assert features["id"] == [paths[4].encode()]
    x, y = everything(
        keep(
            kl.TFRecordSequenceLoader(
                written.files,
                {
                    "x": {"a": "left", "b": "matrix", "c": "vector"},
                    "y": {"class": "class", "mask": "mask"},
                },
                8,
            )
        )
    )
    assert numbers_of(x["a"]) == list(range(SAMPLES))
    np.testing.assert_array_equal(x["b"], matrix)
    np.testing.assert_array_equal(x["c"], matrix[:, 0].astype(np.float32))
    assert y["class"].tolist() == labels.tolist()
    assert numbers_of(y["mask"]) == list(range(SAMPLES))[::-1]


def test_arrays_in_files(tmp_path, keep):
    """Of .npy files the array is written, so that it is read at memory speed."""
    paths = []
    for n in range(10):
        np.save(tmp_path / f"{n}.npy", picture_of(n, 32))
        paths.append(tmp_path / f"{n}.npy")
    written = kl.write_tfrecords(paths, np.arange(10), tmp_path / "a", progress=False)
    loader = keep(kl.TFRecordSequenceLoader(written.files, {"x": "image_raw", "y": "label"}, 4))
    for _ in range(2):
        x, y = everything(loader)
        assert numbers_of(x) == y.tolist() == list(range(10))
    assert loader._layouts


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_a_loader_is_written(tmp_path, keep, dtype):
    x = np.stack([picture_of(n) for n in range(SAMPLES)]).astype(dtype)
    y = np.arange(SAMPLES, dtype=np.int32)
    source = kl.ArraySequenceLoader(x, y, 4, sample_weights=y + 1.0)
    written = kl.write_tfrecords(source, out=tmp_path / "a", shards=2, progress=False)
    found, labels = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))
    np.testing.assert_array_equal(found, x)
    assert (found.dtype, labels.dtype) == (dtype, np.int64)
    assert labels.tolist() == y.tolist()
    assert parse_example(RecordFiles(written.files).read(3))["weight"].tolist() == [4.0]


def test_samples_of_any_shape_are_written(tmp_path):
    source = kl.ArraySequenceLoader([np.full(1 + n % 3, n, np.int32) for n in range(10)], None, 2)
    written = kl.write_tfrecords(source, out=tmp_path / "a", progress=False)
    found = kl.TFRecordSequenceLoader(written.files, {"x": "x"}, 1)
    assert [found[n][0].tolist() for n in range(10)] == [[n] * (1 + n % 3) for n in range(10)]


def test_a_table_without_files(tmp_path, keep):
    written = kl.write_tfrecords(
        out=tmp_path / "a",
        paths_or_loader=None,
        features={"age": [30, 40, 50], "label": np.array([0, 1, 0])},
        progress=False,
    )
    x, y = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 2)))
    assert (x.tolist(), y.tolist()) == ([30, 40, 50], [0, 1, 0])


def test_train_and_validation(pictures, tmp_path, keep):
    paths, labels = pictures
    written = kl.write_tfrecords(
        paths,
        labels,
        str(tmp_path / "out") + "/",
        shards=4,
        validation=0.25,
        stratify=True,
        seed=2,
        progress=False,
    )
    assert next(os.path.basename(p) for p in written.files) == "train-00000-of-00004.tfrecord"
    assert [os.path.basename(p) for p in written.validation] == [
        "validation-00000-of-00001.tfrecord"
    ]
    sides = [
        numbers_of(everything(keep(kl.TFRecordSequenceLoader(part, None, 4)))[0])
        for part in (written.files, written.validation)
    ]
    first, second = kl.split(paths, labels, 4, validation=0.25, stratify=True, seed=2)
    assert sides == [numbers_of(everything(part)[0]) for part in (first, second)]


def test_shuffled(pictures, tmp_path, keep):
    paths, labels = pictures
    numbers = []
    for name in "ab":
        written = kl.write_tfrecords(
            paths, labels, tmp_path / name, shuffle=True, seed=1, progress=False
        )
        numbers.append(
            numbers_of(everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))[0])
        )
    assert numbers[0] == numbers[1] != sorted(numbers[0])


def test_files_that_do_not_read(pictures, tmp_path, keep, said):
    """By name at the end, or at once."""
    paths, labels = pictures
    with open(paths[3], "r+b") as file:
        file.truncate(30)
    os.unlink(paths[7])
    with open(paths[9], "wb"):
        pass
    with pytest.raises(FileNotFoundError, match=r"007.png does not exist"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    paths[7] = paths[6]
    with pytest.raises(kl.SampleError, match=r"sample 3 \(.*003.png\): .* truncated"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "b", shards=2, on_error="skip", progress=False
    )
    assert [error.index for error in written.errors] == [3, 9]
    assert written.samples == SAMPLES - 2
    assert "2 samples do not load and were left out:" in said()
    assert "003.png): " in said()
    _, y = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))
    assert y.tolist() == [label for n, label in enumerate(labels) if n not in (3, 9)]


def test_errors_of_the_converter(pictures, tmp_path):
    paths, labels = pictures
    out = tmp_path / "a"
    for arguments, options, words in [
        ((paths, labels), {}, "out is missing"),
        ((None, None, out), {}, "nothing to write"),
        ((kl.ArraySequenceLoader(labels), labels, out), {}, "and labels with it"),
        ((paths, labels, out), {"features": [1]}, "features is a list, expected a dict"),
        (
            (kl.ArraySequenceLoader(labels), None, out),
            {"features": {"a": len}},
            "is a function, and ArraySequenceLoader has no paths",
        ),
    ]:
        with pytest.raises(TypeError, match=words):
            kl.write_tfrecords(*arguments, **options)
    for options, words in [
        ({"compression": "zip"}, "compression='zip' is not known"),
        ({"on_error": "replace"}, "on_error='replace' is not known here"),
        ({"shards": 0}, "shards=0 is too small"),
        ({"shards": 100}, "shards=100 for 23 samples: a file would be empty"),
        ({"stratify": True}, "stratify and groups are for validation="),
        ({"features": {"a": [1, 2]}}, r"features\['a'\] has 2 values, and there are 23 samples"),
    ]:
        with pytest.raises(ValueError, match=words):
            kl.write_tfrecords(paths, labels, out, **options)
    assert not glob.glob(str(tmp_path / "a*"))


def test_nothing_is_replaced_unasked(pictures, tmp_path):
    paths, labels = pictures
    kl.write_tfrecords(paths, labels, tmp_path / "a", shards=3, progress=False)
    with pytest.raises(FileExistsError, match=r"a-00000-of-00003.tfrecord is there already"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", shards=2, progress=False)
    kl.write_tfrecords(paths, labels, tmp_path / "ab", progress=False)  # another name
    kl.write_tfrecords(paths, labels, tmp_path / "a", shards=2, overwrite=True, progress=False)
    assert len(glob.glob(str(tmp_path / "a-*.tfrecord"))) == 2


def test_the_index_comes_with_the_files(pictures, tmp_path, monkeypatch):
    """Nobody walks through, or decompresses, what was just written."""
    paths, labels = pictures
    written = [
        kl.write_tfrecords(paths, labels, tmp_path / name, compression=kind, progress=False).files
        for name, kind in (("a", None), ("b", "GZIP"))
    ]
    for name in ("_walk", "_walk_stream"):
        monkeypatch.setattr(f"kloaders.formats.tfrecord.scan.{name}", None)
    for files in written:
        assert len(RecordFiles(files)) == SAMPLES


# ---------------------------------------------------------------- the command


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes, ten pictures each."""
    for name, first in (("cat", 0), ("dog", 10)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(first, first + 10):
            (tmp_path / "photos" / name / f"{n:02}.png").write_bytes(png(n))
    return tmp_path / "photos"


def command(*arguments):
    return CliRunner().invoke(cli.cli, ["tfrecord", *map(str, arguments)])


def test_the_command_converts_a_folder(photos, tmp_path, keep):
    out = tmp_path / "records"
    done = command(photos, out, "--shards", 2, "--validation", "0.2", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["samples"] == 20
    assert report["class_names"] == ["cat", "dog"]
    assert report["errors"] == []
    assert report["files"] == [f"{out}/train-{k:05}-of-00002.tfrecord" for k in range(2)]
    x, y = everything(keep(kl.TFRecordSequenceLoader(report["files"], None, 4)))
    assert y.tolist() == [n // 10 for n in numbers_of(x)]
    val = keep(kl.TFRecordSequenceLoader(report["validation"], None, 4))
    assert sorted(everything(val)[1].tolist()) == [0, 0, 1, 1]
    assert parse_example(val.read_record(0))["class"] == [b"cat"]


def test_the_command_converts_a_table(photos, tmp_path, keep):
    table = tmp_path / "train.csv"
    lines = [f"{'dog' if n >= 10 else 'cat'}/{n:02}.png,{n}" for n in range(20)]
    table.write_text("\n".join(["file,number", *lines]))
    arguments = (table, tmp_path / "out", "--path-column", "file", "--folder", photos)
    done = command(*arguments, "--label-column", "number", "--compression", "gzip")
    assert done.exit_code == 0, done.output
    pattern = f"{tmp_path}/out/train-*.tfrecord"
    assert f"kl.TFRecordSequenceLoader({pattern!r}" in done.stdout
    x, y = everything(keep(kl.TFRecordSequenceLoader(pattern, None, 4)))
    assert numbers_of(x) == y.tolist() == list(range(20))
    again = command(*arguments, "--label-column", "")
    assert again.exit_code == 1
    assert "train-00000-of-00001.tfrecord is there already" in again.output
    anew = command(*arguments, "--label-column", "", "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert keep(kl.TFRecordSequenceLoader(pattern, None, 4))[0].shape == (4, 4, 4, 3)


def test_the_command_and_a_broken_file(photos, tmp_path):
    (photos / "cat" / "03.png").write_bytes(b"")
    done = command(photos, tmp_path / "out")
    assert done.exit_code == 1
    assert "03.png is empty (0 bytes)" in done.output
    done = command(photos, tmp_path / "out", "--on-error", "skip", "--json")
    assert done.exit_code == 0
    (error,) = json.loads(done.stdout)["errors"]
    assert error["name"] == str(photos / "cat" / "03.png")


# ---------------------------------------------------------------- killed


_KILLED = """
import sys, kloaders as kl
from kloaders.convert import tfrecords as tfrecord_writer
real = tfrecord_writer._content
def slow(name, path, count=[0]):
    count[0] += 1
    if count[0] == int(sys.argv[2]):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return real(name, path)
tfrecord_writer._content = slow
kl.write_tfrecords(sys.argv[3:], list(range(len(sys.argv) - 3)), sys.argv[1], shards=6,
                   compression={compression!r}, validation=0.3, workers=1, progress=False)
"""


@pytest.mark.parametrize(("compression", "after"), [(None, 1), ("GZIP", 12), (None, 20)])
def test_killed_and_gone_on(pictures, tmp_path, compression, after, monkeypatch):
    """The same files as without the kill; those that were finished are not made again."""
    paths, labels = pictures
    options = {"shards": 6, "compression": compression, "validation": 0.3, "progress": False}
    labels = list(range(SAMPLES))
    want = kl.write_tfrecords(paths, labels, tmp_path / "want", **options)
    out = str(tmp_path / "got")
    code = _KILLED.format(compression=compression)
    done = subprocess.run(
        [sys.executable, "-c", code, out, str(after), *paths],
        env={**os.environ, "KLOADERS_WORKER": "1"},  # without Keras, whose backend is one of many
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    finished = glob.glob(out + "-*.tfrecord")
    times = {path: os.stat(path).st_mtime_ns for path in finished}
    assert bool(finished) == (after > 4)
    got = kl.write_tfrecords(paths, labels, out, workers=1, **options)
    assert {path: os.stat(path).st_mtime_ns for path in finished} == times
    for one, other in zip(want.files + want.validation, got.files + got.validation, strict=True):
        with open(one, "rb") as a, open(other, "rb") as b:
            assert a.read() == b.read()
    assert got.samples == SAMPLES
    left = [name for name in os.listdir(tmp_path) if "part" in name or "unfinished" in name]
    assert left == []


def test_a_source_that_changed_meanwhile_is_read_again(pictures, tmp_path, monkeypatch):
    paths, labels = pictures
    real = tfrecord_writer._content

    def failing(name, path):
        if path == paths[-1]:
            raise KeyboardInterrupt
        return real(name, path)

    monkeypatch.setattr(tfrecord_writer, "_content", failing)
    with pytest.raises(KeyboardInterrupt):
        kl.write_tfrecords(paths, labels, tmp_path / "a", shards=4, workers=1, progress=False)
    assert glob.glob(str(tmp_path / "a-*.tfrecord"))
    monkeypatch.setattr(tfrecord_writer, "_content", real)
    with open(paths[0], "wb") as file:
        file.write(png(500))
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", shards=4, workers=1, progress=False)
    assert parse_example(RecordFiles(written.files).read(0))["image_raw"] == [png(500)]


def test_memory_stays_small(tmp_path):
    """Large files are read a few at a time, whatever their number."""
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(10 << 20))
    source = tfrecord_writer._source([str(path)] * 50, None, None, "raise", 0)
    assert source.run == 1
    runs = source.runs(np.arange(50), 2)
    assert len(next(runs)[0]) > 10 << 20
    runs.close()


def test_gzip_of_others(write, keep):
    """gzip the command, not TensorFlow's writer, made it; and a second member follows."""
    plain = write([{"x": n} for n in range(4)])
    with open(plain, "rb") as file:
        raw = file.read()
    with open(plain + ".gz", "wb") as file:
        file.write(gzip.compress(raw) + gzip.compress(framed(encode_example({"x": 4}))))
    assert everything(keep(kl.TFRecordSequenceLoader(plain + ".gz"))).tolist() == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------ options, as elsewhere


IMAGE = {"x": "image_raw", "y": "label"}


@pytest.fixture
def of_pictures(pictures, tmp_path):
    """TFRecord files of the pictures and their labels."""
    paths, labels = pictures
    return kl.write_tfrecords(paths, labels, tmp_path / "p", shards=2, progress=False).files


def test_labels_may_have_a_decode_of_their_own(write):
    """label_options={"decode": ...} is for labels that are bytes."""
    path = write([{"image_raw": png(k), "name": b"%d" % k} for k in range(SAMPLES)])
    loader = kl.TFRecordSequenceLoader(
        path,
        {"x": "image_raw", "y": "name"},
        4,
        label_options={"decode": np.int64},
    )
    with loader:
        x, y = everything(loader)
    assert y.tolist() == numbers_of(x) == list(range(SAMPLES))


def test_options_that_mean_nothing_are_refused(of_pictures):
    """Options of pictures beside decode=, options that there are not, a signature for TensorFlow's."""
    with pytest.raises(ValueError, match=r"size=\(8, 8\) is for pictures that this loader decodes"):
        kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, decode=len, size=(8, 8))
    with pytest.raises(TypeError, match=r"no option ram_batch=: did you mean ram_batch_size=\?"):
        kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, ram_batch=8)
    loader = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4)
    with pytest.raises(ValueError, match="leave output_signature out"):
        kl.to_tf_dataset(loader, False, tf.TensorSpec((None,)), native=True)


def test_a_side_does_not_care_for_the_others_damage(write):
    """A first record that does not load is the error of the side that has it."""
    path = write([{"image_raw": png(k), "label": k} for k in range(SAMPLES)])

    class Own(kl.TFRecordSequenceLoader):
        def load_sample(self, index):
            if index == 0:
                raise OSError("not this one")
            return super().load_sample(index)

    sides = kl.split(Own(path, IMAGE, 4, seed=1), validation=0.3, seed=1)
    has, has_not = sorted(sides, key=lambda side: "record 0 at" not in side._name(0))
    assert 0 not in everything(has_not)[1]
    with pytest.raises(kl.SampleError, match="not this one"):
        everything(has)


def test_labels_that_are_files_are_written_as_they_are(pictures, tmp_path):
    """A mask is as small in a record as it was in its file."""
    paths, _ = pictures
    written = kl.write_tfrecords(paths, paths[::-1], tmp_path / "m", progress=False)
    label = parse_example(RecordFiles(written.files).read(2))["label"]
    assert label == [Path(paths[-3]).read_bytes()]


# ----------------------------------------------------------------------------------------- the cache


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded, as a list."""
    found = []
    real = images.decode_image

    def decode(raw, *arguments):
        found.append(len(raw))
        return real(raw, *arguments)

    monkeypatch.setattr(images, "decode_image", decode)
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.0)
    return found


@pytest.fixture(params=["auto", "ram", "folder"])
def where(request, tmp_path):
    return tmp_path / "cache" if request.param == "folder" else request.param


def test_each_picture_is_decoded_once(of_pictures, decoded, where):
    """Later epochs decode nothing, in any order, nor does a view; labels come along."""
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where) as loader:
        first = everything(loader)
        decoded.clear()
        for x, y in (everything(loader), everything(loader.view())):
            assert numbers_of(x) == list(range(SAMPLES))
            np.testing.assert_array_equal(y, first[1])
        x, y = everything(loader, shuffle=True)
        np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert not decoded
        assert loader.summary().count("cache:") == 2
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=None) as loader:
        everything(loader)
        assert len(decoded) >= SAMPLES
        assert "cache:" not in loader.summary()


def test_a_split_and_a_transform_share_the_cache(of_pictures, decoded, where):
    """A transform runs anew each time, on what is kept; both sides read one cache."""
    drawn = []

    def transform(x, y, rng):
        drawn.append(np.ndim(y))
        x[:] = 0  # the sample that is kept is another array
        return x, y

    whole = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where, transform=transform)
    with whole, kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where) as plain:
        train, validation = kl.split(whole, validation=0.3, seed=1)
        with train, validation:
            sides = [everything(train, epoch=epoch) for epoch in range(2)]
            decoded.clear()
            everything(train)
            assert len(drawn) - 3 * train.samples in (0, 1)  # one to see what it gives
            assert not sides[1][0].any()
            x, y = everything(validation)
            assert len(decoded) <= validation.samples
            np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert numbers_of(everything(plain)[0]) == list(range(SAMPLES))


def test_numbers_and_users_functions_are_kept_only_by_word(write, decoded, of_pictures):
    """Arrays lie in the file as they are wanted, and a function may draw random numbers."""
    path = write([{"x": np.arange(4.0), "label": k} for k in range(SAMPLES)])
    calls = []

    def decode(raw):
        calls.append(len(raw))
        return np.full(3, len(calls))

    numbers = kl.TFRecordSequenceLoader(path, {"x": "x", "y": "label"}, 4)
    own = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, decode=decode)
    for loader in (numbers, own):
        with loader:
            everything(loader)
            everything(loader)
            assert "cache:" not in loader.summary()
    assert len(calls) >= 2 * SAMPLES
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, decode=decode, cache="ram") as loader:
        first = everything(loader)
        calls.clear()
        np.testing.assert_array_equal(everything(loader)[0], first[0])
        assert not calls

    class Own(kl.TFRecordSequenceLoader):
        def load_sample(self, index):
            calls.append(index)
            return super().load_sample(index)

    for kept, expected in (("auto", SAMPLES), ("ram", 0)):
        with Own(of_pictures, IMAGE, 4, cache=kept) as loader:
            everything(loader)
            calls.clear()
            assert numbers_of(everything(loader)[0]) == list(range(SAMPLES))
            assert len(calls) == expected


def test_a_later_run_finds_what_a_folder_keeps(of_pictures, decoded, tmp_path):
    """With the same options nothing is decoded, with others all of it."""
    for size, more in (((4, 4), SAMPLES), ((4, 4), 0), ((8, 8), SAMPLES)):
        loader = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, size=size, cache=tmp_path / "c")
        decoded.clear()
        with loader:
            assert everything(loader)[0].shape == (SAMPLES, *size, 3)
        assert len(decoded) - more in (0, 1)  # the first one is looked at for what it is


@pytest.mark.parametrize("rows", [7, 7.9, SAMPLES])
def test_a_budget_is_shared_by_the_arrays_of_a_sample(of_pictures, decoded, rows):
    """No picture takes the room of the label without which it could not be served."""
    loader = kl.TFRecordSequenceLoader(
        of_pictures, IMAGE, 4, cache="ram", cache_budget=int(rows * (4 * 4 * 3 + 8))
    )
    with loader:
        for _ in range(2):
            decoded.clear()
            x, y = everything(loader, shuffle=True)
            assert sorted(numbers_of(x)) == list(range(SAMPLES))
            np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert SAMPLES - int(rows) <= len(decoded) <= SAMPLES - int(rows) + 1


def test_a_damaged_record_and_a_changed_file_are_not_served(write, decoded, where):
    """What does not load is met each time; a file that is another one now is read again."""
    samples = [{"image_raw": png(k), "label": k} for k in range(SAMPLES)]
    path = write(samples)
    offsets = RecordFiles([path])._offsets
    content = bytearray(Path(path).read_bytes())
    content[int(offsets[5]) + 20] ^= 1
    Path(path).write_bytes(content)
    loader = kl.TFRecordSequenceLoader(path, IMAGE, 4, cache=where, on_error="skip")
    with loader:
        for _ in range(2):
            assert 5 not in everything(loader)[1]
        assert len(loader.errors) == 1
        write([{**sample, "label": 1} for sample in samples])  # its records lie elsewhere
        os.truncate(path, os.path.getsize(path) - 1)
        os.utime(path, (1, 1))
        assert set(everything(loader)[1][1:].tolist()) <= {0, 1}


def test_what_the_cache_cannot_do_is_refused(of_pictures, tmp_path):
    """RAM batches have a budget of their own; RAM is not shared by processes."""
    with pytest.raises(ValueError, match="cache=<folder>, which processes share"):
        kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache="ram", processes=True)
    loader = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, ram_batch_size=8)
    everything(loader)
    assert loader._stores() == []

    class Many(kl.TFRecordSequenceLoader):
        def load_batch(self, indices):
            return np.zeros((len(indices), 2))

    with pytest.raises(ValueError, match="load_batch gives many"):
        Many(of_pictures, None, 4, cache=tmp_path / "c")
    kept = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache="ram")
    with pytest.raises(ValueError, match=r"cache='ram' is kept in Python"):
        kl.to_tf_dataset(kept, shuffle=False, native=True)


def test_processes_share_a_folder(of_pictures, tmp_path):
    """What workers have decoded is there for a loader without them."""
    folder = tmp_path / "c"
    options = {"cache": folder, "seed": 1}
    with kl.TFRecordSequenceLoader(
        of_pictures, IMAGE, 4, processes=True, workers=2, **options
    ) as loader:
        x, y = everything(loader, shuffle=True)
    np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
    assert list(folder.glob("*/*.segment"))
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, **options) as loader:
        np.testing.assert_array_equal(everything(loader, shuffle=True)[0], x)
