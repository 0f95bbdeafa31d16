"""Packs and TFRecord files return what the loader returned, without any argument."""

import glob
import os

import cv2
import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.core.structure import flatten, map_structure
from kloaders.formats.tfrecord.files import RecordFiles
from tests.support.recording import BACKEND, Received, Recorder, picture_of
from tests.support.tfrecords import said  # noqa: F401 (a fixture)

N = 23


def back(loader, way, folder, **options):
    """The loader's samples, written and read again."""
    if way == "pack":
        kl.write_pack(loader, folder / "pack", progress=False)
        return kl.PackSequenceLoader(folder / "pack", 5, **options)
    compression = "GZIP" if way == "gzip" else None
    written = kl.write_tfrecords(
        loader, out=folder / "a", shards=2, compression=compression, progress=False
    )
    return kl.TFRecordSequenceLoader(written.files, batch_size=5, **options)


WAYS = pytest.mark.parametrize("way", ["pack", "tfrecord", "gzip"])
K = np.arange(N)
SAMPLES = {
    "x": (K[:, None] / 3.0,),
    "a dict, and a tuple of labels": (
        {"b": K[:, None] / 3.0, "a": np.stack([picture_of(n) for n in K])},
        (K.astype(np.int32), K / 7.0),
    ),
    "tuples": ((K.astype(np.float16), K[:, None] * [1, 2]), {"z": K / 3, "k": K % 2 == 0}),
    "one of a tuple": ((K[:, None] / 3.0,), (K.astype(np.uint8),)),
    "nested": ({"in": (K / 9, {"deep": K[:, None]})}, K[:, None, None] / 7 * np.ones((1, 2, 3))),
    "float32": (K.astype(np.float32), K.astype(np.float32)),
    "label rows": (K[:, None], np.eye(5)[K % 5]),
    "one value rows": (K[:, None].astype(np.float32), K[:, None]),
}


def same(a, b):
    assert type(a) is type(b)
    map_structure(lambda m, n: None, a, b)
    for m, n in zip(flatten(a), flatten(b), strict=True):
        np.testing.assert_array_equal(m, n)
        assert (m.dtype, m.shape) == (n.dtype, n.shape)


@WAYS
@pytest.mark.parametrize("kind", SAMPLES)
def test_structure_and_dtypes_are_those_of_the_loader(tmp_path, keep, way, kind):
    loader = keep(kl.ArraySequenceLoader(*SAMPLES[kind], batch_size=5))
    found = keep(back(loader, way, tmp_path))
    assert len(found) == len(loader)
    batches = zip(loader.epoch_batches(0, False), found.epoch_batches(0, False), strict=True)
    for one, other in batches:
        same(one, other)


def weighed():
    one = (K + 0.5).astype(np.float32)
    per_pixel = np.stack([np.full((3, 2), n + 0.25, np.float32) for n in K])
    outputs = {"a": K % 3, "b": K / 7.0}
    given = kl.ArraySequenceLoader

    class Hook(kl.SequenceLoader):
        def load_sample(self, index):
            return np.float32(index), np.int32(index % 3), np.float64(index + 0.5)

    return {
        "one a sample": given(K, K % 3, 5, sample_weights=one),
        "one a pixel": given(K, per_pixel > 4, 5, sample_weights=per_pixel),
        "by output": given(K, outputs, 5, sample_weights={"a": one, "b": one * 2}),
        "of a hook": Hook(N, 5),
    }


@WAYS
@pytest.mark.parametrize("kind", weighed())
def test_weights_come_back_without_an_argument(tmp_path, keep, way, kind):
    loader = keep(weighed()[kind])
    found = keep(back(loader, way, tmp_path))
    batches = zip(loader.epoch_batches(0, False), found.epoch_batches(0, False), strict=True)
    for one, other in batches:
        assert len(one) == 3
        same(one, other)


@WAYS
def test_class_names_and_masks_come_back(tmp_path, keep, way):
    for n in range(N):
        folder = tmp_path / "photos" / ["cat", "dog", "eel"][n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{n:02}.png"), picture_of(n))
    loader, _ = kl.from_directory(tmp_path / "photos", validation=None, batch_size=5)
    found = keep(back(keep(loader), way, tmp_path))
    assert found.class_names == loader.class_names == ["cat", "dog", "eel"]
    same(found[1], loader[1])
    train, val = kl.split(found, validation=0.2, stratify=K % 3, seed=1)
    assert train.class_names == val.class_names == loader.class_names


def test_files_as_they_are_with_labels_of_a_tuple(tmp_path, keep):
    paths = []
    for n in range(N):
        paths.append(str(tmp_path / f"{n:02}.png"))
        cv2.imwrite(paths[-1], picture_of(n))
    labels = (K.astype(np.int32), K / 7.0)
    names = ["a", "b"]
    written = kl.write_tfrecords(
        {"left": paths, "right": paths[::-1]},
        labels,
        tmp_path / "a",
        class_names=names,
        progress=False,
    )
    found = keep(kl.TFRecordSequenceLoader(written.files, batch_size=5))
    assert found.class_names == names
    x, y = found[2]
    same(y, (labels[0][10:15], labels[1][10:15]))
    assert (x["left"][:, 0, 0, 2].tolist(), list(x)) == (list(range(10, 15)), ["left", "right"])
    with pytest.raises(TypeError, match="class_names='cat', expected a list of texts"):
        kl.write_tfrecords(paths, K, tmp_path / "b", class_names="cat")


def test_features_that_are_named_count(tmp_path, keep):
    loader = kl.ArraySequenceLoader({"a": K, "b": K / 2}, K, 5)
    written = kl.write_tfrecords(loader, out=tmp_path / "a", progress=False)
    found = keep(kl.TFRecordSequenceLoader(written.files, {"x": "b"}, 5))
    assert found[0].tolist() == [0, 0.5, 1, 1.5, 2]


def test_each_file_tells_it_and_damage_of_a_record_does_not_matter(tmp_path, keep, said):  # noqa: F811
    loader = kl.ArraySequenceLoader(*SAMPLES["tuples"], batch_size=5)
    written = kl.write_tfrecords(loader, out=tmp_path / "a", shards=3, progress=False)
    os.rename(written.files[1], tmp_path / "alone.tfrecord")  # with another name, alone
    start, _ = RecordFiles([str(tmp_path / "alone.tfrecord")])._span(0, 0)
    with open(tmp_path / "alone.tfrecord", "r+b") as file:
        file.seek(start + 40)
        file.write(b"XXXX")
    found = keep(
        kl.TFRecordSequenceLoader(tmp_path / "alone.tfrecord", batch_size=5, on_error="skip")
    )
    x, y = next(iter(found.epoch_batches(0, False)))
    assert (isinstance(x, tuple), sorted(y)) == (True, ["k", "z"])
    assert len(found.errors) == 1
    assert "x is" not in said()  # nothing is guessed


def test_tensorflow_reads_the_first_records_too(tmp_path):
    tf = pytest.importorskip("tensorflow")
    written = kl.write_tfrecords(
        kl.ArraySequenceLoader(K.astype(np.float32), K / 7.0, 5), out=tmp_path / "a", progress=False
    )
    spec = {
        "x": tf.io.FixedLenFeature([], tf.float32),
        "label": tf.io.FixedLenFeature([], tf.float32),
        "kloaders/form": tf.io.FixedLenFeature([], tf.string, ""),
    }
    records = tf.data.TFRecordDataset(written.files).batch(100)
    found = next(iter(records.map(lambda raw: tf.io.parse_example(raw, spec))))
    assert found["x"].numpy().tolist() == K.tolist()
    np.testing.assert_allclose(found["label"].numpy(), K / 7.0, rtol=1e-6)
    assert [bool(text) for text in found["kloaders/form"].numpy()] == [True] * 3 + [False] * (N - 3)
    ours = kl.TFRecordSequenceLoader(written.files, batch_size=5)
    for native in (False, True):
        x, y = next(iter(kl.to_tf_dataset(ours, native=native)))
        assert (x.dtype, y.dtype) == (tf.float32, tf.float64)
        np.testing.assert_array_equal(y.numpy(), K[:5] / 7.0)


@WAYS
def test_a_model_trains_on_what_comes_back(tmp_path, keep, way):
    """Two inputs by name, two outputs in order: each sample once an epoch, with what is its own."""
    source = kl.ArraySequenceLoader(
        {"number": K.astype(np.float32)[:, None], "half": (K / 2).astype(np.float32)[:, None]},
        ((K * 3).astype(np.float32), (K % 4).astype(np.int32)),
        5,
    )
    loader = keep(back(source, way, tmp_path, seed=3))
    received = Received()
    number, half = keras.Input((1,), name="number"), keras.Input((1,), name="half")
    seen = Recorder(received)(number)
    three = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(seen)
    four = keras.layers.Dense(1)(half)
    model = keras.Model({"number": number, "half": half}, (three, four))

    def own(y, p):
        return keras.ops.abs(keras.ops.reshape(y, (-1,)) - 3 * p[:, 0])

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile(keras.optimizers.SGD(0.0), ["mse", "mse"], metrics=[[own], []], **options)
    history = model.fit(loader, epochs=2, verbose=0).history
    name = next(key for key in history if key.endswith("own"))
    assert max(history[name]) < 1e-5
    trained = [n for batch in received.trained for n in batch]
    assert sorted(trained[:N]) == sorted(trained[N:]) == list(range(N))
    assert not glob.glob(str(tmp_path / "*unfinished*"))
