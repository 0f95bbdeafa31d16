"""How often samples come, on loaders: epochs of any length, balanced classes and weights."""

import json
import pickle

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, numbers_of, recording_model, row_of
from tests.support.sampled import (
    CLASSES,
    LOADERS,
    epochs_of,
    flat,
    noisy,
    numbered,
    options,
    rows,
    served_by,
)

# ---------------------------------------------------------------- on loaders


@options
@pytest.mark.parametrize("kind", LOADERS)
def test_every_loader_samples_alike(npy, keep, kind, options):
    """The batches are those of the stream, epoch after epoch, for any kind of reader."""
    loader = keep(LOADERS[kind](npy, seed=3, **options))
    same = keep(LOADERS["array"](npy, seed=3, **options))
    assert len(loader) == options.get("epoch_batches", 6)
    found = epochs_of(loader, 3)
    assert found == epochs_of(same, 3)
    assert {len(batch) for batch in found} == {4}
    stream = same.plan.stream
    assert flat(found) == stream.samples(0, 4 * len(found)).tolist()


@options
def test_keras_gets_it_whoever_asks(npy, keep, options):
    """fit serves epoch after epoch of the stream, and Keras' permuted numbers do not matter."""
    model, received = recording_model((2,), "float32")
    loader = keep(LOADERS["ram"](npy, seed=3, **options))
    model.fit(loader, epochs=3, verbose=0)
    trained = received.trained
    assert trained == epochs_of(keep(LOADERS["array"](npy, seed=3, **options)), 3)


def test_two_fits_and_a_validation_go_on_in_the_stream(keep):
    """Nothing is lost between fits, and a validation loader takes nothing away."""
    model, received = recording_model((2,), "float32")
    loader = keep(numbered(23, epoch_batches=3))
    val = keep(numbered(5))
    model.fit(loader, validation_data=val, epochs=2, verbose=0)
    model.fit(loader, validation_data=val, epochs=2, verbose=0)
    assert received.trained == epochs_of(loader.view(), 4)
    assert sorted(flat(received.trained)[:23]) == list(range(23))
    assert flat(received.inferred) == 4 * list(range(5))


def test_the_epoch_of_keras_counts(keep):
    """fit(initial_epoch=2) with a callback begins where two epochs end."""
    model, received = recording_model((2,), "float32")
    loader = keep(numbered(23, epoch_batches=3))
    callback = kl.LoaderCallback(loader)
    model.fit(loader, initial_epoch=2, epochs=4, callbacks=[callback], verbose=0)
    assert received.trained == epochs_of(loader.view(), 4)[6:]


@pytest.mark.parametrize("length", [1, 4, 6, 17])
def test_storage_order_goes_on_too(keep, length):
    """shuffle=False with epoch_batches goes through the data in order, over and over."""
    loader = keep(numbered(23, epoch_batches=length, shuffle=False))
    found = flat(epochs_of(loader, 3))
    assert found == [k % 23 for k in range(3 * length * 4)]
    loader.on_epoch_begin()
    assert [numbers_of(loader[k][0]) for k in range(length)] == epochs_of(loader.view(), 1)


@options
def test_shards_agree(npy, options):
    """Two processes deliver what one with a batch twice as large does."""
    wide = kl.ArraySequenceLoader(rows(23), np.arange(23.0), 8, seed=3, **options)
    parts = [
        kl.ArraySequenceLoader(rows(23), np.arange(23.0), 4, seed=3, shard=(k, 2), **options)
        for k in range(2)
    ]
    ram = LOADERS["ram"](npy, seed=3, shard=(1, 2), **options)
    with ram:
        assert epochs_of(ram, 2) == epochs_of(parts[1], 2)
    both = zip(*(epochs_of(part, 2) for part in parts), strict=True)
    assert [a + b for a, b in both] == epochs_of(wide, 2)


@pytest.mark.parametrize("more", [{"drop_last": True}, {"pad_last": True}])
def test_no_batch_is_short(more):
    """drop_last and pad_last have no effect, except that pad_last still adds weights."""
    loader = numbered(23, epoch_batches=7, **more)
    assert len(loader) == 7
    assert epochs_of(loader, 2) == epochs_of(numbered(23, epoch_batches=7), 2)
    assert len(loader[0]) == (3 if "pad_last" in more else 2)
    assert len(numbered(23, class_balance=CLASSES, drop_last=True)) == 5


def test_a_sample_that_comes_again_is_augmented_anew(npy, keep):
    """Even in one batch; and alike on every loader, in any number of threads or processes."""

    for kind, more in [("array", {}), ("ram", {"workers": 2}), ("paths", {"workers": 0})]:
        loader = keep(LOADERS[kind](npy, seed=3, class_balance=CLASSES, transform=noisy, **more))
        x = np.concatenate([batch[0] for batch in loader.epoch_batches(1)])
        rare = [row[1] for row in x.tolist() if row[0] >= 21]
        assert len(rare) >= 8
        assert len(set(rare)) == len(rare)
        if kind == "array":
            first = x
        np.testing.assert_array_equal(x, first)


def test_processes_draw_the_same(npy, keep):
    options = {"seed": 3, "class_balance": CLASSES, "transform": noisy}
    many = keep(LOADERS["ram"](npy, processes=True, workers=2, **options))
    one = keep(LOADERS["paths"](npy, **options))
    for a, b in zip(many.epoch_batches(0), one.epoch_batches(0), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_a_sample_that_is_skipped_shortens_its_batch(npy, keep, tmp_path):
    """Rows of RAM batches do not share random numbers."""
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"no array")
    paths = [*npy[:5], str(bad), *npy[6:]]
    for make in (kl.PathSequenceLoader, kl.RamBatchSequenceLoader):
        more = {"ram_batch_size": 8} if make is kl.RamBatchSequenceLoader else {}
        loader = keep(
            make(
                paths,
                np.arange(23.0),
                4,
                seed=3,
                on_error="skip",
                epoch_batches=6,
                transform=noisy,
                **more,
            )
        )
        found = epochs_of(loader, 1)
        want = epochs_of(numbered(23, seed=3, epoch_batches=6), 1)
        assert found == [[k for k in batch if k != 5] for batch in want]


def test_labels_at_hand_are_balanced(tmp_path):
    """From integers, one-hot rows, a folder of classes; and through a split."""
    import cv2

    for name, many in [("cat", 9), ("dog", 3), ("owl", 4)]:
        (tmp_path / name).mkdir()
        for k in range(many):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.zeros((2, 2, 3), np.uint8))
    for mode in ("int", "categorical"):
        train, val = kl.from_directory(
            tmp_path, validation=0.25, seed=1, batch_size=6, class_balance=True, label_mode=mode
        )
        assert train.sampling
        assert not val.sampling
        for _, y in train.epoch_batches(1):
            codes = y if mode == "int" else y.argmax(axis=1)
            assert np.bincount(codes).tolist() == [2, 2, 2]
    texts = numbered(6, 3, class_balance=["b", "a", "c", "c", "c", "c"])
    assert all({0, 1} < set(numbers_of(x)) for x, _ in texts.epoch_batches(0))


def test_predict_in_order_of_a_loader_that_samples_is_told(keep, caplog):
    """Rows do not line up then, which is logged once, unless shuffle=True was passed."""
    model, _ = recording_model((2,), "float32")
    caplog.set_level("INFO", "kloaders")
    loader = keep(numbered(40, epoch_batches=10, shuffle=True))
    model.predict(loader, verbose=0)
    assert "rows do not line up" not in caplog.text
    loader = keep(numbered(40, epoch_batches=10))
    model.predict(loader, verbose=0)
    model.predict(loader, verbose=0)
    assert caplog.text.count("rows do not line up with the data") == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a part of TensorFlow")
def test_a_dataset_is_the_stream(npy, keep):
    loader = keep(LOADERS["ram"](npy, seed=3, class_balance=CLASSES, epoch_batches=5))
    dataset = kl.to_tf_dataset(loader)
    assert dataset.cardinality() == 5
    found = [numbers_of(x.numpy()) for _ in range(2) for x, _ in dataset]
    assert found == epochs_of(loader, 2)
    with pytest.raises(ValueError, match="shuffle=False contradicts the order of this loader"):
        kl.to_tf_dataset(loader, shuffle=False)


def test_summary_pickle_and_view_know_it():
    loader = numbered(23, class_balance=CLASSES, epoch_batches=5)
    assert "3 classes in equal parts; epochs of 5 batches" in loader.summary()
    again = pickle.loads(pickle.dumps(loader))
    assert epochs_of(again, 2) == epochs_of(loader.view(), 2) == epochs_of(loader, 2)
    with pytest.raises(AttributeError, match="fixed when it is made"):
        loader.epoch_batches = 3


class Weighted(kl.SequenceLoader):
    def load_sample(self, index):
        return row_of(index), np.float32(index)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epoch_batches": 0}, ValueError, "epoch_batches=0 is too small"),
        ({"epoch_batches": 2.5}, TypeError, "epoch_batches=2.5 is float"),
        ({"class_balance": True}, ValueError, "in a hook.*pass class_balance=, an array"),
        ({"class_balance": [1, 2]}, ValueError, "class_balance has 2 values, but there are 5"),
        ({"class_balance": np.zeros((5, 2))}, ValueError, "class_balance has shape"),
        ({"sampling_weights": [1, 2]}, ValueError, r"sampling_weights has shape \(2,\)"),
        ({"sampling_weights": [1, 2, -1, 1, 1]}, ValueError, r"sampling_weights\[2\] is -1"),
        ({"sampling_weights": [0] * 5}, ValueError, "all sampling_weights are 0"),
        ({"sampling_weights": ["a"] * 5}, TypeError, "expected one number for each of 5"),
        ({"replacement": True}, ValueError, "there are none: for equal weights"),
        (
            {"sampling_weights": np.ones(5), "class_balance": [0, 0, 1, 1, 1]},
            ValueError,
            "choose one. To balance classes",
        ),
        (
            {"sampling_weights": np.ones(5), "shuffle": False},
            ValueError,
            "sampling_weights= draws samples, which shuffle=False forbids",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        Weighted(5, 2, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"echo": 2}, "echo=2 serves a RAM batch several times"),
        ({"draw": "windows"}, 'reads runs of adjacent samples.*draw="global"'),
    ],
)
def test_what_ram_batches_cannot_do(npy, options, words):
    with pytest.raises(ValueError, match=words):
        LOADERS["ram"](npy, epoch_batches=3, **options)


def test_compressed_records_sample_when_they_fit(tmp_path, keep):
    source = numbered(23)
    kl.write_tfrecords(source, out=tmp_path / "r", shards=1, compression="GZIP", progress=False)
    features = {"x": "x", "y": "label"}
    options = {"seed": 3, "class_balance": CLASSES}
    with pytest.raises(ValueError, match=r"from start to end: use a ram_budget"):
        kl.TFRecordSequenceLoader(str(tmp_path / "r-*"), features, 4, ram_batch_size=8, **options)
    loader = keep(kl.TFRecordSequenceLoader(str(tmp_path / "r-*"), features, 4, **options))
    assert epochs_of(loader, 2) == epochs_of(numbered(23, **options), 2)


# ---------------------------------------------------------------- going on after a stop


@options
@pytest.mark.parametrize("kind", ["array", "ram", "index"])
def test_a_state_goes_on_in_the_stream(npy, keep, kind, options):
    """From the middle of the second epoch, in another loader, with the augmentation of each place."""
    options = {**options, "seed": 3, "transform": noisy}
    whole = keep(LOADERS["array"](npy, **options))
    want = [x for epoch in range(3) for x, _ in whole.epoch_batches(epoch)]
    length = len(whole)
    first = keep(LOADERS[kind](npy, **options))
    served_by(first, 1)
    first.on_epoch_begin()
    for k in range(length // 2):
        first[k]
    state = json.loads(json.dumps(first.state_dict()))
    again = keep(LOADERS[kind](npy, **options))
    again.load_state_dict(state)
    found = []
    for _ in range(2):
        again.on_epoch_begin()
        found += [again[k][0] for k in range(len(again))]
        again.on_epoch_end()
    assert len(found) == 2 * length - length // 2
    np.testing.assert_array_equal(found, want[length + length // 2 :])


@pytest.mark.parametrize(
    "other",
    [
        {"class_balance": CLASSES[::-1]},
        {"class_balance": CLASSES, "epoch_batches": 7},
        {"sampling_weights": np.ones(23)},
        {},
    ],
)
def test_a_state_of_another_sampling_is_refused(other):
    state = numbered(23, class_balance=CLASSES).state_dict()
    numbered(23, class_balance=CLASSES, workers=0).load_state_dict(state)
    with pytest.raises(ValueError, match=r"belongs to other data or options.*stream was"):
        numbered(23, **other).load_state_dict(state)


def test_storage_order_goes_on_after_a_stop(keep):
    def make():
        return keep(numbered(23, epoch_batches=4, shuffle=False))

    one, other = make(), make()
    one.on_epoch_begin()
    one[0], one[1]
    other.load_state_dict(one.state_dict())
    assert flat(served_by(other, 2)) == [k % 23 for k in range(8, 32)]


def test_a_fit_that_stops_goes_on_in_the_stream(keep, tmp_path):
    """With LoaderCallback's file, batch by batch over the stop, in mid-epoch."""
    keras = pytest.importorskip("keras")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1 and self.params["epochs"] and len(received.trained) >= 6:
                raise KeyboardInterrupt

    def make():
        return keep(numbered(23, class_balance=CLASSES, epoch_batches=4))

    model, received = recording_model((2,), "float32")
    loader = make()
    callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(loader, epochs=3, callbacks=[callback, Stop()], verbose=0)
    done = received.trained[:6]
    again, after = recording_model((2,), "float32")
    loader = make()
    callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq=1)
    again.fit(loader, epochs=3, callbacks=[callback], verbose=0)
    assert done + after.trained == epochs_of(make(), 3)
