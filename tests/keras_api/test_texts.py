"""Texts as inputs: tensors of strings on TensorFlow, vectorized in the loader on other backends."""

import importlib.util

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder

N = 24
TEXTS = [f"n{n} is {('odd', 'even')[n % 2 == 0]}" for n in range(N)]
NUMBERS = np.arange(N) % 2

needs_tensorflow_layers = pytest.mark.skipif(
    BACKEND != "tensorflow" and not importlib.util.find_spec("tensorflow"),
    reason="Keras' layers of texts need TensorFlow on every backend",
)


def lookup():
    """The number of a text, plus 1."""
    return keras.layers.StringLookup(vocabulary=TEXTS)


def trained(loader, inputs, numbers):
    """The numbers that a model was trained on in two epochs."""
    received = Received()
    seen = Recorder(received)(keras.layers.Reshape((1,))(numbers))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Rescaling(0.01)(seen)))
    model.compile("sgd", "mse", **({"jit_compile": False} if BACKEND == "tensorflow" else {}))
    model.fit(loader, epochs=2, verbose=0)
    steps = len(loader)
    epochs = received.trained[:steps], received.trained[steps:]
    return [[n - 1 for batch in epoch for n in batch] for epoch in epochs]


@pytest.fixture(params=["list", "str", "object", "files", "hook", "preload"])
def loader(request, tmp_path, keep):
    kind = request.param
    if kind == "files":
        for n, text in enumerate(TEXTS):
            (tmp_path / f"{n:02}.txt").write_text(text)
        return keep(
            kl.PathSequenceLoader(f"{tmp_path}/*.txt", NUMBERS, 5, decode=kl.Text(), seed=1)
        )
    if kind == "hook":

        class Texts(kl.SequenceLoader):
            def load_sample(self, index):
                return TEXTS[index], NUMBERS[index]

        return keep(Texts(N, 5, seed=1))
    given = {"str": np.array(TEXTS), "object": np.array(TEXTS, object)}.get(kind, TEXTS)
    found = keep(kl.ArraySequenceLoader(given, NUMBERS, 5, seed=1))
    return keep(kl.preload(found, progress=False)) if kind == "preload" else found


def test_outside_of_keras_texts_are_str(loader):
    x, y = loader[0]
    assert x.dtype == object
    assert x.tolist() == TEXTS[:5]
    assert all(type(text) is str for text in x)
    assert y.tolist() == NUMBERS[:5].tolist()
    assert "text()" in str(loader.summary())
    assert loader.state_dict()["made_for"] == loader.view().state_dict()["made_for"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras has texts on TensorFlow only")
def test_a_model_has_the_layer(loader):
    import tensorflow as tf

    inputs = keras.Input((), dtype="string")
    for numbers in trained(loader, inputs, lookup()(inputs)):
        assert sorted(numbers) == list(range(N))
    model = keras.Model(inputs, lookup()(inputs))
    assert model.predict(loader, verbose=0).tolist() == list(range(1, N + 1))
    dataset = kl.to_tf_dataset(loader, shuffle=False)
    assert dataset.element_spec[0] == tf.TensorSpec((None,), tf.string)
    texts = [text.decode() for x, _ in dataset.as_numpy_iterator() for text in x]
    assert texts == TEXTS


@needs_tensorflow_layers
def test_the_layer_runs_in_the_loader(loader):
    loader.set(batch_transform=kl.keras_transform(lookup()))
    inputs = keras.Input(())
    for numbers in trained(loader, inputs, inputs):
        assert sorted(numbers) == list(range(N))
    assert loader[0][0].dtype.kind == "i"
    assert loader[0][0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has texts")
def test_elsewhere_a_model_that_gets_texts_is_an_error(loader):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match=rf"\(this is {BACKEND}\): .*keras_transform"):
        model.fit(loader, verbose=0)


@needs_tensorflow_layers
def test_vectorization_of_texts_and_numbers_side_by_side(keep):
    layer = keras.layers.TextVectorization(output_sequence_length=4)
    layer.adapt(TEXTS)
    vectorize = kl.keras_transform(layer)

    def vectorized(x, y, rng):
        return {**x, "text": vectorize(x["text"], None, rng)[0]}, y

    loader = keep(
        kl.ArraySequenceLoader(
            {"text": TEXTS, "n": np.arange(N)},
            batch_size=6,
            dtype="float32",
            batch_transform=vectorized,
        )
    )
    x = loader[1]
    assert x["text"].shape == (6, 4)
    assert x["n"].tolist() == [6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(
        x["text"], keras.ops.convert_to_numpy(layer(np.array(TEXTS[6:12])))
    )


def test_what_holds_numbers_says_so(tmp_path, loader):
    for make, words in [
        (
            lambda: kl.write_pack(loader, tmp_path / "p", progress=False),
            "write_pack.. is for numbers",
        ),
        (
            lambda: kl.write_tfrecords(loader, out=str(tmp_path / "r"), progress=False),
            "write_tfrecords.. of a loader is for numbers, and x of a sample is a text",
        ),
        (lambda: kl.statistics(loader, progress=False), "statistics.. is for numbers"),
    ]:
        with pytest.raises(TypeError, match=words):
            make()


@pytest.mark.parametrize("cache", ["ram", "folder"])
def test_caches_refuse_texts(tmp_path, keep, cache):
    (tmp_path / "a.txt").write_text("abc")
    place = cache if cache == "ram" else tmp_path / "cache"
    loader = keep(kl.PathSequenceLoader([tmp_path / "a.txt"], decode=kl.Text(), cache=place))
    with pytest.raises(Exception, match="cache= stores arrays of numbers, but this is a text"):
        loader[0]


def test_ram_batches_of_texts_have_a_size(tmp_path, keep):
    for n, text in enumerate(TEXTS):
        (tmp_path / f"{n:02}.txt").write_text(text)
    with pytest.raises(TypeError, match="pass ram_batch_size="):
        kl.RamBatchSequenceLoader(
            f"{tmp_path}/*.txt", batch_size=4, decode=kl.Text(), ram_budget="1MB"
        )
    loader = keep(
        kl.RamBatchSequenceLoader(
            f"{tmp_path}/*.txt",
            batch_size=4,
            decode=kl.Text(),
            ram_batch_size=8,
            shuffle=True,
            seed=1,
        )
    )
    texts = [text for x in loader.epoch_batches() for text in x]
    assert sorted(texts) == sorted(TEXTS)
    assert texts != TEXTS


def length(x, y, rng):
    assert type(x) is str
    return np.array(len(x), np.float32), y


@pytest.mark.parametrize("hook", ["transform", "preprocess"])
def test_a_function_of_a_sample_gets_a_str(keep, hook):
    loader = keep(
        kl.ArraySequenceLoader(["a" * n for n in range(6)], batch_size=3, **{hook: length})
    )
    assert loader[1].tolist() == [3, 4, 5]


@pytest.mark.slow
def test_processes_share_no_texts_but_what_is_made_of_them(keep):
    texts = ["a" * n for n in range(6)]
    loader = keep(kl.ArraySequenceLoader(texts, batch_size=3, workers=1, processes=True))
    with pytest.raises(Exception, match="processes cannot share"):
        loader[0]
    loader = keep(
        kl.ArraySequenceLoader(texts, batch_size=3, workers=1, processes=True, transform=length)
    )
    assert loader[1].tolist() == [3, 4, 5]


def test_texts_go_through_tfrecord_files_as_features(tmp_path, keep):
    out = str(tmp_path / "texts")
    features = {"text": TEXTS, "label": NUMBERS}
    kl.write_tfrecords(None, out=out, features=features, progress=False)
    loader = keep(
        kl.TFRecordSequenceLoader(f"{out}*", {"x": "text", "y": "label"}, 5, decode=bytes.decode)
    )
    x, y = loader[1]
    assert x.tolist() == TEXTS[5:10]
    assert y.tolist() == NUMBERS[5:10].tolist()


def test_arrays_of_texts_are_padded_with_empty_ones(keep):
    words = [np.array(text.split()[: 1 + n % 3]) for n, text in enumerate(TEXTS)]
    loader = keep(kl.padded_batches(kl.ArraySequenceLoader(words, batch_size=3)))
    assert loader[0].tolist() == [["n0", "", ""], ["n1", "is", ""], ["n2", "is", "even"]]
    loader = keep(kl.bucket_by_length(kl.ArraySequenceLoader(words, batch_size=3)))
    found = {tuple(row) for x in loader.epoch_batches() for row in x.tolist()}
    assert all(set(row) - {""} <= set(" ".join(TEXTS).split()) for row in found)
    assert {len(row) for row in found} <= {1, 2, 3}
    last = kl.ArraySequenceLoader(TEXTS, NUMBERS, 7, pad_last=True)[3]
    assert last[0].tolist() == [*TEXTS[21:], *TEXTS[21:22] * 4]
    assert last[2].tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (["a", None], None, r"x\[1\] is None .NoneType., expected a text like the others"),
        (["a", 3], None, r"x\[1\] is 3 .int., expected a text"),
        ([b"a", b"b"], None, r"x holds bytes such as \[b'a'\].*decode"),
        (["a.jpg", "b.jpg"], None, "For files use PathSequenceLoader"),
        (["a", "b"], ["c", "d"], "labels are texts such as 'c'.*Encode"),
        (["a", "b"], np.array(["c", "d"]), "labels are texts such as 'c'.*Encode"),
    ],
)
def test_what_is_no_text(x, y, words):
    with pytest.raises((TypeError, ValueError), match=words):
        kl.ArraySequenceLoader(x, y)


def test_a_hook_gives_no_text_as_a_label():
    class Texts(kl.SequenceLoader):
        def load_sample(self, index):
            return np.zeros(2), "cat"

    with pytest.raises(Exception, match=r"a label is the text \['cat'\], expected numbers"):
        Texts(3, 2)[0]


def test_float64_labels_stay_so_and_give_the_loss_of_float32(keep):
    losses = []
    for dtype in (np.float64, np.float32):
        loader = keep(
            kl.ArraySequenceLoader(np.ones((8, 1), np.float32), np.arange(8, dtype=dtype), 4)
        )
        assert loader[0][1].dtype == dtype
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")]
        )
        model.compile("sgd", "mse")
        losses.append(model.fit(loader, epochs=1, verbose=0, shuffle=False).history["loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="a GPU of PyTorch's")
def test_on_a_gpu_without_float64_keras_gets_float32(monkeypatch, caplog, keep):
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    loader = keep(kl.ArraySequenceLoader(np.ones((8, 1)), np.arange(8.0), 4))
    seen = []

    class Model(keras.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            seen.extend(part.dtype for part in data)
            return {}

    model = Model()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(loader, verbose=0)
    assert set(seen) == {torch.float32}
    assert "float64 is cast to float32" in caplog.text
    assert loader[0][1].dtype == np.float64
