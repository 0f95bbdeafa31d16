"""to_tf_dataset alone: signatures, orders, errors, and that it ends with its loader."""

import gc
import logging

import numpy as np
import pytest

import kloaders as kl
from kloaders.core import messages
from kloaders.interop.tf_dataset import _Generator, _Source

tf = pytest.importorskip("tensorflow")

SAMPLES, BATCH = 10, 4
X = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
Y = np.arange(SAMPLES)


def loader_of(x=X, y=Y, **options):
    return kl.ArraySequenceLoader(x, y, BATCH, **{"seed": 3, "workers": 0, **options})


def numbers(dataset):
    """The labels of each batch."""
    return [batch[1].numpy().tolist() for batch in dataset]


def planned(loader, epoch, shuffle=None):
    return [y.tolist() for _, y, *_ in loader.epoch_batches(epoch, shuffle)]


# ---------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    ("x", "y", "options", "expected"),
    [
        (X, None, {}, tf.TensorSpec((None, 1), tf.float32)),
        (
            X,
            Y,
            {},
            (tf.TensorSpec((None, 1), tf.float32), tf.TensorSpec((None,), tf.int64)),
        ),
        (
            X,
            Y,
            {"pad_last": True},
            (
                tf.TensorSpec((4, 1), tf.float32),
                tf.TensorSpec((4,), tf.int64),
                tf.TensorSpec((4,), tf.float32),
            ),
        ),
        (
            X.astype(np.uint8),
            Y,
            {"dtype": "float16"},
            (tf.TensorSpec((None, 1), tf.float16), tf.TensorSpec((None,), tf.int64)),
        ),
        (
            X,
            np.stack([Y, Y], 1),
            {"sample_weights": np.ones((SAMPLES, 2))},
            (
                tf.TensorSpec((None, 1), tf.float32),
                tf.TensorSpec((None, 2), tf.int64),
                tf.TensorSpec((None, 2), tf.float32),
            ),
        ),
    ],
    ids=["x", "(x, y)", "padded", "dtype", "weights of two"],
)
def test_the_signature_is_that_of_a_batch(x, y, options, expected):
    dataset = kl.to_tf_dataset(loader_of(x, y, **options), shuffle=False)
    assert dataset.element_spec == expected
    assert sum(1 for _ in dataset) == 3


def test_a_batch_transform_is_in_it():
    def two(x, y, rng):
        return {"a": x, "b": np.concatenate([x, x], axis=1)}, y

    spec, _ = kl.to_tf_dataset(loader_of(batch_transform=two), shuffle=False).element_spec
    assert spec == {
        "a": tf.TensorSpec((None, 1), tf.float32),
        "b": tf.TensorSpec((None, 2), tf.float32),
    }


def test_dimensions_that_differ_are_open():
    """Of a list of arrays, which bucket_by_length pads."""
    arrays = [np.full(n + 1, n, np.float32) for n in range(SAMPLES)]
    loader = kl.bucket_by_length(loader_of(arrays, Y), boundaries=(4, 16))
    x, _ = (dataset := kl.to_tf_dataset(loader, shuffle=False)).element_spec
    assert x.shape.as_list() == [None, None]
    assert sorted(n for batch in numbers(dataset) for n in batch) == list(range(SAMPLES))


class Growing(kl.SequenceLoader):
    """Batches of unlike shape, each of one."""

    def load_sample(self, index):
        return np.zeros(1 + index // BATCH, np.float32), np.int64(index)


def test_a_batch_of_another_shape_is_told_what_to_do_about():
    loader = Growing(8, BATCH, workers=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch 1 has an array of shape") as e:
        numbers(kl.to_tf_dataset(loader, shuffle=False))
    assert "(4, 2)" in str(e.value)
    assert "pass output_signature= to to_tf_dataset()" in str(e.value)


def test_a_signature_of_ones_own_is_taken():
    own = (tf.TensorSpec((None, None), tf.float32), tf.TensorSpec((None,), tf.int64))
    dataset = kl.to_tf_dataset(Growing(8, BATCH, workers=0), False, own)
    assert dataset.element_spec == own
    assert numbers(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7]]


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize("native", [False, True])
def test_shuffle_says_which_order(native):
    for own, asked in ((None, True), (True, None), (True, True), (False, None), (None, False)):
        loader = loader_of(shuffle=own)
        dataset = kl.to_tf_dataset(loader, shuffle=asked, native=native)
        shuffled = bool(own if asked is None else asked)
        for epoch in range(2):
            assert numbers(dataset) == planned(loader, epoch, shuffled)


def test_an_order_that_nobody_chose_is_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(messages, "_logged", set())  # it is logged once in a process
    caplog.set_level(logging.WARNING, logger="kloaders")
    loader = loader_of()
    assert numbers(kl.to_tf_dataset(loader)) == planned(loader, 0, shuffle=False)
    assert [text for text in caplog.messages if "for training pass shuffle=True" in text]
    caplog.clear()
    kl.to_tf_dataset(loader, shuffle=False)
    assert not caplog.messages


def test_another_order_than_a_sampled_one_is_refused():
    loader = loader_of(class_balance=Y % 2)
    with pytest.raises(
        ValueError, match="contradicts the order of this loader, which draws samples"
    ):
        kl.to_tf_dataset(loader, shuffle=False)


def test_the_loader_keeps_its_own_position():
    """The Dataset reads a view: a loop over the loader in the meantime is epoch 0 of the loader."""
    loader = loader_of(shuffle=True)
    dataset = kl.to_tf_dataset(loader)
    first = numbers(dataset)
    assert [y.tolist() for _, y in loader] == first
    assert numbers(dataset) == planned(loader, 1)


@pytest.mark.parametrize("epochs", [1, 3])
def test_cardinality_is_known_but_in_the_middle_of_an_epoch(epochs):
    loader = loader_of(shuffle=True)
    assert int(kl.to_tf_dataset(loader).cardinality()) == 3
    loader.load_state_dict(loader.state_dict(epoch=1, batch=2))
    dataset = kl.to_tf_dataset(loader)
    assert int(dataset.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    expected = [planned(loader, 1)[2:], planned(loader, 2), planned(loader, 3)]
    assert [numbers(dataset) for _ in range(epochs)] == expected[:epochs]


def test_a_state_between_epochs_goes_on_with_whole_ones():
    loader = loader_of(shuffle=True)
    loader.load_state_dict(loader.state_dict(epoch=2, batch=0))
    dataset = kl.to_tf_dataset(loader)
    assert int(dataset.cardinality()) == 3
    assert numbers(dataset) == planned(loader_of(shuffle=True), 2)


# ---------------------------------------------------------------- errors and ends


def test_a_sample_that_does_not_load_is_named():
    class Broken(kl.SequenceLoader):
        def load_sample(self, index):
            if index == 6:
                raise ValueError("broken")
            return X[index], Y[index]

    with pytest.raises(tf.errors.OpError, match=r"index 6.*broken"):
        numbers(kl.to_tf_dataset(Broken(8, BATCH, workers=0), shuffle=False))
    dataset = kl.to_tf_dataset(Broken(8, BATCH, workers=0, on_error="skip"), shuffle=False)
    assert numbers(dataset) == [[0, 1, 2, 3], [4, 5, 7]]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_that_are_ignored_cost_their_batches_only(workers):
    """And the Dataset ends, each time."""

    class Broken(kl.SequenceLoader):
        def load_sample(self, index):
            if index in (6, 13):
                raise ValueError("broken")
            return np.float32([index]), np.float32(index)

    dataset = kl.to_tf_dataset(Broken(20, BATCH, workers=workers), shuffle=False)
    assert len(dataset) == 5
    expected = [[4 * k + j for j in range(4)] for k in (0, 2, 4)]
    for _ in range(2):
        assert numbers(dataset.ignore_errors().take(30)) == expected


def test_batches_that_do_not_fit_can_be_ignored():
    """Of another shape than the first sample, or of another structure than the signature."""
    loader = kl.ArraySequenceLoader([np.zeros(1 + k // 4) for k in range(8)], None, BATCH)
    dataset = kl.to_tf_dataset(loader, False, tf.TensorSpec((None, 1), tf.float64))
    assert len(list(dataset.ignore_errors().take(30))) == 1
    dataset = kl.to_tf_dataset(loader, False, (tf.TensorSpec((None, 1), tf.float64),) * 2)
    assert list(dataset.ignore_errors().take(30)) == []


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda: X, {}, TypeError, r"to_tf_dataset\(ndarray\): expected a loader"),
        (
            loader_of,
            {"native": True, "output_signature": tf.TensorSpec((None,), tf.int64)},
            ValueError,
            "leave output_signature out",
        ),
        (
            lambda: loader_of(transform=lambda x, y, rng: (x, y)),
            {"native": True},
            ValueError,
            "transform",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(make, options, error, words):
    with pytest.raises(error, match=words):
        kl.to_tf_dataset(make(), False, **options)


def test_native_over_files_is_refused(npy, keep):
    loader = keep(kl.PathSequenceLoader(npy, np.arange(len(npy)), BATCH))
    with pytest.raises(TypeError, match="native=True"):
        kl.to_tf_dataset(loader, False, native=True)


def test_what_is_made_of_a_dataset_keeps_it():
    dataset = kl.to_tf_dataset(loader_of(), shuffle=False)
    mapped = dataset.map(lambda x, y: (x, y + 1))
    del dataset
    gc.collect()
    assert numbers(mapped) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_a_generator_whose_dataset_is_gone_says_so():
    """TensorFlow's registry outlives the Dataset and keeps the generator, which keeps no loader."""
    source = _Source(loader_of(), False)
    generator = _Generator(source, lambda loader, order, first: loader.runner.batches(order, first))
    assert [y.tolist() for _, y in generator()] == planned(loader_of(), 0, shuffle=False)
    del source
    gc.collect()
    with pytest.raises(RuntimeError, match="keep a reference to it as long as it is used"):
        generator()
