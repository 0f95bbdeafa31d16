"""Records read by TensorFlow alone."""

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.tfrecord.examples import array_features
from tests.support.recording import picture_of
from tests.support.tfrecords import SAMPLES, png

tf = pytest.importorskip("tensorflow")


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


@pytest.mark.parametrize("size", [(5, 7), (30, 40), (5, 40), (30, 7)])
def test_native_averages_what_shrinks(write, keep, size):
    """As loaders do by default, each side by itself."""
    noise = np.random.default_rng(0)
    images = [
        cv2.imencode(".png", noise.integers(0, 256, (20, 24, 3), np.uint8))[1].tobytes()
        for _ in range(3)
    ]
    path = write([{"image": raw, "label": n} for n, raw in enumerate(images)])
    loader = keep(kl.TFRecordSequenceLoader(path, None, 3, size=size, drop_last=True))
    ((x, _),) = kl.to_tf_dataset(loader, shuffle=False, native=True)
    assert np.abs(x.numpy().astype(int) - loader[0][0]).max() <= 2


def test_native_brings_16_bits_to_8(write, keep):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), np.uint16)
    raw = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    path = write([{"image": raw, "label": n} for n in range(2)])
    loader = keep(kl.TFRecordSequenceLoader(path, None, 2, depth=8, drop_last=True))
    np.testing.assert_array_equal(loader[0][0][0], deep >> 8)
    ((x, _),) = kl.to_tf_dataset(loader, shuffle=False, native=True)
    np.testing.assert_array_equal(x.numpy(), loader[0][0])


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
