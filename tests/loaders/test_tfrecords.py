"""The loader over TFRecord files, against TensorFlow's own."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats import images
from kloaders.formats.tfrecord.examples import parse_example
from kloaders.formats.tfrecord.files import RecordFiles
from tests.support.recording import numbers_of, picture_of
from tests.support.tfrecords import IMAGE, SAMPLES, everything, png, raw_records

tf = pytest.importorskip("tensorflow")


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
    assert ("compressed: its records are read from front to back" in said()) == bool(compression)


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
    with pytest.raises(
        ValueError, match=r"record 4 at byte \d+\): it is int64 of shape \(3,\), but "
    ):
        mixed[0]


def test_one_number_is_a_number_and_no_list(write, keep):
    path = write([{"v": [1]}, {"v": [1, 2]}])
    with pytest.raises(kl.SampleError, match=r"2 values, but the first record has one. kl.Feature"):
        keep(kl.TFRecordSequenceLoader(path, {"x": "v"}, 2))[0]
    loader = keep(
        kl.TFRecordSequenceLoader(path, {"x": kl.Feature("v", shape=(None,))}, batch_size=1)
    )
    assert loader[0].shape == (1, 1)
    assert loader[1].shape == (1, 2)


def test_raw_pixels(write, keep):
    """What TensorFlow's older examples wrote: tobytes(), and nothing that says so."""
    path = write([{"pixels": picture_of(n).tobytes(), "label": n} for n in range(10)])
    with pytest.raises(ValueError, match="none of which is an image") as caught:
        kl.TFRecordSequenceLoader(path, None)
    assert "kl.Feature(" in str(caught.value) or "label" in str(caught.value)
    with pytest.raises(ValueError, match=r"48 bytes that are not an image; .*kl.Feature\('pixels'"):
        kl.TFRecordSequenceLoader(path, {"x": "pixels"})
    pixels = kl.Feature("pixels", shape=(4, 4, 3), dtype="uint8")
    x, y = everything(keep(kl.TFRecordSequenceLoader(path, {"x": pixels, "y": "label"}, 4)))
    assert numbers_of(x) == y.tolist() == list(range(10))


def test_records_of_another_kind(write, keep):
    """With decode= a record may hold anything."""
    path = write([b"%d,%d" % (n, n * n) for n in range(10)])
    with pytest.raises(ValueError, match=r"not a tf.train.Example"):
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
        kl.SampleError, match="overrides a hook but has no features: pass features="
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
        ({"image": "x"}, r"features is a dict of 'image', expected the features that are x and y"),
        ({"x": "image", "z": "label"}, "features is a dict of 'x', 'z', expected"),
        ({"x": {}}, r"features\['x'\] is empty"),
        (("image", "label"), "expected the features that are x and y"),
    ]:
        with pytest.raises(ValueError, match=words):
            kl.TFRecordSequenceLoader(path, features)
    for features in ({"x": 3}, {"x": tf.io.SparseFeature("i", "v", tf.int64, 3)}):
        with pytest.raises(TypeError, match=r"features: 'x' is .*, expected a feature's name"):
            kl.TFRecordSequenceLoader(path, features)
    with pytest.raises(ValueError, match="at most one of which is None"):
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
    assert loader.source.stores() == []


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
    assert said().count("read from front to back") == 1


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
    with pytest.raises(ValueError, match=r"size=\(8, 8\) is for images that this loader decodes"):
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
    has, has_not = sorted(sides, key=lambda side: "record 0 at" not in side.sample_name(0))
    assert 0 not in everything(has_not)[1]
    with pytest.raises(kl.SampleError, match="not this one"):
        everything(has)


def test_labels_that_are_files_are_written_as_they_are(pictures, tmp_path):
    """A mask is as small in a record as it was in its file."""
    paths, _ = pictures
    written = kl.write_tfrecords(paths, paths[::-1], tmp_path / "m", progress=False)
    label = parse_example(RecordFiles(written.files).read(2))["label"]
    assert label == [Path(paths[-3]).read_bytes()]
