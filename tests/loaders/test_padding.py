"""Samples of unequal length: which come together, what is refused, what the model receives."""

import keras
import numpy as np
import pytest
from keras import ops

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder, loss
from tests.support.sequences import BOUNDARIES, LENGTHS, bucketed, sequence_of, sequences

# ---------------------------------------------------------------- batches


def test_storage_order_stays_for_predictions():
    loader = bucketed()
    y = np.concatenate([y for _, y in loader.epoch_batches()])
    assert y.tolist() == list(range(len(LENGTHS)))


def test_shards_make_the_batches_of_one_loader_with_one_length():
    whole = bucketed(shuffle=True, drop_last=True, given=LENGTHS)
    parts = [
        kl.bucket_by_length(
            kl.ArraySequenceLoader(
                sequences(LENGTHS),
                np.arange(37),
                2,
                seed=7,
                shuffle=True,
                shard=(k, 2),
                drop_last=True,
            ),
            boundaries=BOUNDARIES,
        )
        for k in range(2)
    ]
    both = [list(part.epoch_batches()) for part in parts]
    assert len({len(batches) for batches in both}) == 1
    seen = []
    for a, b in zip(*both, strict=True):
        assert a[0].shape == b[0].shape
        seen += [*a[1], *b[1]]
    assert len(set(seen)) == len(seen) == 36
    assert len(whole) == 7


def test_boundaries_are_chosen_so_that_padding_is_little():
    loader = bucketed(np.arange(1, 801), boundaries=None)
    assert loader.options.padding.buckets.boundaries.tolist() == list(range(100, 900, 100))
    assert "padding" in loader.summary()


def test_split_keeps_the_buckets():
    train, val = kl.split(bucketed(), validation=0.3)
    seen = []
    for part in (train, val):
        for x, y in part.epoch_batches(shuffle=part is train):
            assert np.all(x[:, 0, 0] == y + 1)
            assert x.shape[1] in BOUNDARIES
            seen += y.tolist()
    assert sorted(seen) == list(range(len(LENGTHS)))


def test_lengths_of_files_are_read_where_they_are_not_given(tmp_path, caplog):
    caplog.set_level("INFO", logger="kloaders")
    paths = []
    for k, n in enumerate(LENGTHS[:9]):
        np.save(tmp_path / f"{k}.npy", sequence_of(k, n))
        paths.append(tmp_path / f"{k}.npy")
    loader = kl.bucket_by_length(kl.PathSequenceLoader(paths, batch_size=4), mask=True)
    assert "read once" in caplog.text
    ((_, mask),) = loader[0]
    assert mask.sum(axis=1).tolist() == LENGTHS[:4].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundaries": (8, 16)}, r"row \d+ has 29 steps, and the last boundary is 16"),
        ({"boundaries": (8, 8)}, "expected 1 to 255 rising lengths"),
        ({"boundaries": ()}, "rising lengths"),
        ({"boundaries": "ab"}, "rising lengths"),
        ({"given": [1, 2]}, "expected one integer for each of 37 samples"),
        ({"given": np.ones(37)}, "float64"),
        ({"given": -np.arange(37)}, "expected 0 or more"),
    ],
)
def test_what_is_wrong_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        bucketed(**change)


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_goes_on_where_it_was_left(shuffle):
    loader = bucketed(shuffle=shuffle)
    want = list(loader.epoch_batches(1))
    again = bucketed(shuffle=shuffle)
    again.load_state_dict(loader.state_dict(1, 3))
    again.on_epoch_begin()
    got = [again[k] for k in range(len(again))]
    assert len(got) == len(want) - 3
    for (x, y), (x_want, y_want) in zip(got, want[3:], strict=True):
        np.testing.assert_array_equal(x, x_want)
        np.testing.assert_array_equal(y, y_want)


def test_a_state_for_other_buckets_is_refused():
    state = bucketed(shuffle=True).state_dict(1, 3)
    with pytest.raises(ValueError, match="buckets"):
        bucketed(shuffle=True, boundaries=(10, 30)).load_state_dict(state)


def test_two_levels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    loader = kl.RamBatchSequenceLoader([tmp_path / "a.npy"] * 4, batch_size=2, ram_batch_size=2)
    with pytest.raises(ValueError, match="a loader of one level"):
        kl.bucket_by_length(loader)


# ---------------------------------------------------------------- models


class FirstStep(keras.layers.Layer):
    """The number of the sample, which stands in its first step."""

    def call(self, x):
        return x[:, 0, :1] - 1.0


def model_of_sequences():
    received = Received()
    inputs = keras.Input((None, 2))
    number = Recorder(received)(FirstStep()(inputs))
    masked = keras.layers.Masking(0.0)(inputs)
    steps = keras.layers.GlobalAveragePooling1D()(masked)  # of the steps that are there
    outputs = keras.layers.Concatenate()([keras.layers.Dense(1)(steps), number, steps[:, :1]])
    model = keras.Model(inputs, outputs)

    def mismatch(y, p):
        """Zero if the label is that of the input, and padding is not averaged."""
        y = ops.reshape(ops.cast(y, "float32"), (-1, 1))
        return ops.abs(y - p[:, 1:2]) + ops.abs(y + 1.0 - p[:, 2:3]) / 100

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", loss, metrics=[mismatch], **options)
    return model, received


@pytest.mark.parametrize("shuffle", [None, True])
def test_a_model_receives_each_sequence_once_with_its_label(shuffle):
    """The first two batches of storage order are of one length, which TensorFlow must not fix."""
    lengths = np.concatenate([[30] * 10, LENGTHS])
    loader = bucketed(lengths, shuffle=shuffle)
    model, received = model_of_sequences()
    for _ in range(2):  # a second fit looks at batches again
        history = model.fit(loader, epochs=2, verbose=0).history
        assert max(history["mismatch"]) < 1e-4
    model.evaluate(loader, verbose=0)
    trained = received.trained
    per = len(loader)
    assert len(trained) == 4 * per
    for epoch in range(4):
        got = [n for batch in trained[epoch * per : (epoch + 1) * per] for n in batch]
        assert sorted(got) == list(range(47))
    if shuffle is None:
        got = model.predict(loader, verbose=0)
        assert np.rint(got[:, 1]).astype(int).tolist() == list(range(47))


def test_as_a_dataset():
    if BACKEND != "tensorflow":
        pytest.skip("a part of TensorFlow")
    dataset = kl.to_tf_dataset(bucketed(pad={"mask": True}), shuffle=True)
    (words, mask), labels = dataset.element_spec
    assert words.shape.as_list() == [None, None, 2]
    assert mask.shape.as_list() == [None, None]
    seen = [int(n) for _, y in dataset for n in y]
    assert sorted(seen) == list(range(37))
    assert labels.shape.as_list() == [None]
