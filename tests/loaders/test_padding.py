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
        ({"boundaries": (8, 16)}, r"row \d+ has 29 steps, but the last boundary is 16"),
        ({"boundaries": (8, 8)}, "expected 1 to 255 ascending lengths"),
        ({"boundaries": ()}, "ascending lengths"),
        ({"boundaries": "ab"}, "ascending lengths"),
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


@pytest.mark.parametrize("function", [kl.bucket_by_length, kl.padded_batches])
def test_a_loader_that_pads_is_refused(function):
    with pytest.raises(ValueError, match=r"already pads: pass the loader"):
        function(bucketed())


def test_lengths_by_a_function_are_whole_numbers():
    with pytest.raises(ValueError, match=r"lengths= returned 1.5 for row 0, expected the number"):
        bucketed(given=lambda x, y: 1.5)
    with pytest.raises(ValueError, match=r"lengths= as a function and mask=True"):
        bucketed(given=lambda x, y: len(x), pad={"mask": True})


def test_labels_may_be_longer_than_inputs():
    """With a function of both, none has to fit into what the other is padded to."""
    labels = [np.full(2 * n, k) for k, n in enumerate(LENGTHS)]
    loader = bucketed(
        labels=labels,
        given=lambda x, y: max(len(x), len(y)),
        boundaries=(16, 32, 60),
        pad={"label_pad_value": -1},
        shuffle=True,
    )
    seen = []
    for x, y in loader.epoch_batches():
        np.testing.assert_array_equal(2 * (x[..., 0] > 0).sum(axis=1), (y >= 0).sum(axis=1))
        assert x.shape[1] * 2 == y.shape[1] == (y >= 0).sum(axis=1).max()
        seen += y[:, 0].tolist()
    assert sorted(seen) == list(range(37))


@pytest.mark.parametrize("look", [0, 1, 2.5, "all"])
def test_a_look_that_is_none(look):
    with pytest.raises((ValueError, TypeError), match="look"):
        kl.padded_batches(kl.ArraySequenceLoader(np.zeros(3)), look=look)


@pytest.mark.parametrize("shuffle", [True, False])
def test_padded_batches_go_on_where_they_were_left(shuffle):
    def made():
        return kl.padded_batches(
            kl.ArraySequenceLoader(sequences(LENGTHS), np.arange(37), 5, seed=7, shuffle=shuffle)
        )

    want = list(made().epoch_batches(1))
    again = made()
    again.load_state_dict(made().state_dict(1, 3))
    for (x, y), (x_want, y_want) in zip(again, want[3:], strict=True):
        np.testing.assert_array_equal(x, x_want)
        np.testing.assert_array_equal(y, y_want)


@pytest.mark.parametrize("labels", [False, True])
def test_the_error_of_unequal_shapes_names_what_pads(labels):
    ragged, flat = sequences([1, 2, 3]), np.arange(3)
    loader = kl.ArraySequenceLoader(*((flat, ragged) if labels else (ragged, flat)), batch_size=3)
    with pytest.raises(kl.SampleError, match=r"padded_batches\(loader"):
        loader[0]
    kl.padded_batches(loader, label_pad_value=-1)[0]  # which is right


def test_two_levels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    loader = kl.RamBatchSequenceLoader([tmp_path / "a.npy"] * 4, batch_size=2, ram_batch_size=2)
    with pytest.raises(ValueError, match="a loader without RAM batches"):
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


class Corner(keras.layers.Layer):
    """The number of the sample, which is at the beginning of every array."""

    def call(self, x):
        x = ops.cast(x, "float32")
        return ops.reshape(x[:, 0, 0, 0] if len(x.shape) == 4 else x[:, 0], (-1, 1)) - 1.0


@pytest.mark.parametrize("shuffle", [None, True, False])
def test_a_model_receives_arrays_each_of_its_own_length(shuffle):
    """Encoder, decoder, images and labels that differ along two axes; batches differ in all of them."""
    rng = np.random.default_rng(3)
    words, answers = (
        [np.full(n, k + 1) for k, n in enumerate(rng.integers(1, 9, 37))] for _ in "12"
    )
    images = [np.full((*rng.integers(2, 7, 2), 1), k + 1, np.uint8) for k in range(37)]
    x = {"words": words, "answers": answers, "images": images}
    y = [np.full((rng.integers(1, 5), 2), k) for k in range(37)]
    loader = kl.padded_batches(
        kl.ArraySequenceLoader(x, y, 5, seed=7, shuffle=shuffle), label_pad_value=-1
    )
    received = Received()
    inputs = {
        "words": keras.Input((None,), name="words", dtype="int32"),
        "answers": keras.Input((None,), name="answers", dtype="int32"),
        "images": keras.Input((None, None, 1), name="images", dtype="uint8"),
    }
    numbers = [Corner()(one) for one in inputs.values()]
    first = Recorder(received)(numbers[0])
    trained = keras.layers.Dense(1)(first)
    model = keras.Model(inputs, keras.layers.Concatenate()([trained, first, *numbers]))

    def mismatch(y, p):
        """Zero if all that came together belongs together."""
        y = ops.cast(y, "float32")[:, 0, :1]
        return ops.max(ops.abs(y - p[:, 1:]))

    def no_loss(y, p):
        return 0.0 * ops.mean(p)

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", no_loss, metrics=[mismatch], **options)
    history = model.fit(loader, epochs=2, verbose=0).history
    assert max(history["mismatch"]) < 1e-4
    model.evaluate(loader, verbose=0)
    per = len(loader)
    assert len(received.trained) == 2 * per
    for epoch in range(2):
        got = [n for batch in received.trained[epoch * per : (epoch + 1) * per] for n in batch]
        assert sorted(got) == list(range(37))


@pytest.mark.parametrize("shuffle", [None, True])
def test_a_model_receives_each_array_in_a_bucket_of_its_own(shuffle):
    """Encoder and decoder: the first two batches have one length of each, which later ones have not."""
    rng = np.random.default_rng(3)
    many = np.concatenate([[20] * 10, rng.integers(9, 21, 27)])
    few = np.concatenate([[2] * 10, rng.integers(1, 9, 27)])
    words, answers = ([np.full(n, k + 1) for k, n in enumerate(long)] for long in (many, few))
    loader = kl.bucket_by_length(
        kl.ArraySequenceLoader(
            {"words": words, "answers": answers}, np.arange(37.0), 5, seed=7, shuffle=shuffle
        ),
        boundaries=(4, 8, 16, 20),
    )
    shapes = {
        (x["words"].shape[1], x["answers"].shape[1]) for x, _ in loader.epoch_batches(shuffle=True)
    }
    assert {long for long, _ in shapes} <= {16, 20}
    assert {short for _, short in shapes} == {4, 8}
    received = Received()
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in ("words", "answers")}
    numbers = [Corner()(one) for one in inputs.values()]
    first = Recorder(received)(numbers[0])
    model = keras.Model(
        inputs, keras.layers.Concatenate()([keras.layers.Dense(1)(first), first, *numbers])
    )

    def mismatch(y, p):
        return ops.max(ops.abs(ops.reshape(ops.cast(y, "float32"), (-1, 1)) - p[:, 1:]))

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", lambda y, p: 0.0 * ops.mean(p), metrics=[mismatch], **options)
    history = model.fit(loader, epochs=2, verbose=0).history
    assert max(history["mismatch"]) < 1e-4
    got = [n for batch in received.trained for n in batch]
    assert sorted(got) == sorted([*range(37)] * 2)


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
