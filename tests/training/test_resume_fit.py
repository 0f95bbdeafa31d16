"""fit resumes where it stopped: LoaderCallback(loader, path), on the installed backend."""

import json
import os
import warnings
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import kloaders as kl
from kloaders.training import state_file as training_state

BACKEND = keras.backend.backend()
SAMPLES, BATCH = 46, 8  # 6 batches, the last of 6
X = np.concatenate(
    [np.arange(SAMPLES)[:, None], np.random.default_rng(0).normal(size=(SAMPLES, 2))], axis=1
).astype(np.float32)
Y = X[:, 1:].sum(axis=1, keepdims=True)


class Tally(keras.layers.Layer):
    """Counts, in a variable, how often each sample was trained on."""

    def build(self, shape):
        self.counts = self.add_weight(shape=(SAMPLES,), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            number = ops.cast(x[:, 0], "int32")
            self.counts.assign(self.counts + ops.sum(ops.one_hot(number, SAMPLES), axis=0))
        return x[:, 1:]


class Died(Exception):
    """The exception that ends a fit in these tests."""


class Die(keras.callbacks.Callback):
    """Ends a fit after this many batches, instead of SIGKILL."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Died


class Epochs(keras.callbacks.Callback):
    """Which epochs began and ended."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended, self.logs = [], [], {}

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(epoch)
        self.logs[epoch] = dict(logs)


def make_model(built=True, width=4, ema=True, compiled=False, **options):
    keras.utils.set_random_seed(3)
    layers = [Tally(), keras.layers.Dense(width), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers] if built else layers)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
    if BACKEND == "tensorflow":  # a trace costs more than the steps of most tests
        options |= {"jit_compile": False, "run_eagerly": not compiled}
    model.compile(keras.optimizers.Adam(rate, use_ema=ema), "mse", metrics=["mae"], **options)
    return model


def make_loader(batch_size=BATCH, **options):
    return kl.ArraySequenceLoader(X, Y, batch_size, **{"seed": 7, **options})


def train(path=None, epochs=3, after=None, callbacks=(), fit=None, loader=None, **options):
    """Train to the end or until it dies; return the model and its epochs."""
    model = make_model(**options)
    loader = make_loader() if loader is None else loader
    epochs_seen = Epochs()
    saving = [] if path is None else [kl.LoaderCallback(loader, path, save_freq=1)]
    more = [] if after is None else [Die(after)]
    try:
        model.fit(
            loader,
            epochs=epochs,
            verbose=0,
            callbacks=[*saving, *callbacks, epochs_seen, *more],
            **(fit or {}),
        )
    except Died:
        assert after is not None
    else:
        assert after is None
    return model, epochs_seen


def weights(model):
    return [ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]


def counts(model):
    return ops.convert_to_numpy(model.layers[0].counts).tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted training."""
    return train(tmp_path_factory.mktemp("whole") / "state", compiled=True)


@pytest.mark.parametrize("stops", [(1,), (6,), (3, 2, 1, 4), (18,)])
def test_fit_goes_on(stops, whole, tmp_path):
    """In mid-epoch, at its last batch, in the last epoch: samples, weights and metrics are equal."""
    path = tmp_path / "state"
    for after in stops:
        train(path, after=after, compiled=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, seen = train(path, compiled=True)
    assert counts(model) == [3] * SAMPLES
    for ours, theirs in zip(weights(model), weights(whole[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert seen.ended == list(range(sum(stops) // 6 - (sum(stops) % 6 == 0), 3))
    for epoch in seen.ended:
        for name in ("loss", "mae"):
            expected = pytest.approx(whole[1].logs[epoch][name], rel=1e-5)
            assert seen.logs[epoch][name] == expected, (epoch, name)
    assert not path.exists()
    assert not list(tmp_path.iterdir())


def test_a_model_that_fit_builds(tmp_path):
    """Layers without an input shape have no variables yet when training begins."""
    path = tmp_path / "state"
    train(path, after=8, built=False, compiled=True)
    model, _ = train(path, built=False, compiled=True)
    assert counts(model) == [3] * SAMPLES


def test_validation_at_the_end_of_an_epoch_that_was_trained(tmp_path):
    """Killed after the last batch of an epoch, before its end: only validation runs again."""
    path = tmp_path / "state"
    fit = {"validation_data": make_loader(shuffle=False)}
    train(path, after=6, fit=fit)
    model, seen = train(path, fit=fit)
    assert counts(model) == [3] * SAMPLES
    assert seen.begun == [0, 1, 2]
    assert set(seen.logs[0]) >= {"loss", "mae", "val_loss", "val_mae"}
    whole, all_seen = train(tmp_path / "other", fit=fit)
    assert seen.logs[0]["loss"] == pytest.approx(all_seen.logs[0]["loss"], rel=1e-5)
    for ours, theirs in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras' torch backend takes one step at a time")
@pytest.mark.parametrize("after", [1, 2])
def test_several_steps_at_once(after, tmp_path):
    """steps_per_execution=4 of 6 batches: positions are those at which Keras reports a step."""
    path = tmp_path / "state"
    train(path, after=after, steps_per_execution=4, compiled=True)
    model, _ = train(path, steps_per_execution=4, compiled=True)
    assert counts(model) == [3] * SAMPLES
    assert int(model.optimizer.iterations) == 18


@pytest.mark.parametrize(("batch_size", "left"), [(5, 8), (46, 1)])
def test_another_batch_size(batch_size, left, tmp_path):
    """8 of 46 samples were trained on: the other 38 come in batches of another size."""
    path = tmp_path / "state"
    train(path, after=1, epochs=1)
    model, _ = train(path, epochs=1, loader=make_loader(batch_size))
    assert counts(model) == [1] * SAMPLES
    assert int(model.optimizer.iterations) == 1 + left


@pytest.mark.parametrize("shuffle", [None, True])
def test_what_keras_asks_for_has_no_say(shuffle, tmp_path):
    """Keras' order of requests differs between processes; with a callback the batches do not."""
    orders = []
    for draw in (1, 2):
        keras.utils.set_random_seed(draw)
        loader, received = make_loader(16, shuffle=shuffle), []

        class Look(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None, loader=loader, received=received):
                received.append(loader.state_dict())

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(loader, epochs=2, verbose=0, callbacks=[kl.LoaderCallback(loader), Look()])
        orders.append(received)
    assert orders[0] == orders[1]
    assert [state["batch"] for state in orders[0]] == [1, 2, 0, 1, 2, 0]
    assert [state["stored"] for state in orders[0]][:2] == [0, 0]


def test_a_fit_in_storage_order_goes_on(tmp_path):
    """fit(shuffle=False): the rest of storage order, not a shuffle."""
    path = tmp_path / "state"
    train(path, after=2, epochs=1, fit={"shuffle": False})
    with zipfile.ZipFile(path) as archive:
        position = json.loads(archive.read("state.json"))["position"]
    assert (position["batch"], position["stored"]) == (2, None)
    model, _ = train(path, epochs=1, fit={"shuffle": False})
    assert counts(model) == [1] * SAMPLES


def test_a_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    """If the disk fills up during a save, the previous state stays, and no other file."""
    path = tmp_path / "state"
    train(path, after=3)
    before = path.read_bytes()
    write = zipfile.ZipFile.open
    calls = []

    def full(self, name, mode="r", **options):
        calls.append(name)
        if mode == "w" and len(calls) == 4:
            raise OSError(28, "No space left on device")
        return write(self, name, mode, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    facts, arrays = {"x": 1}, {"variables": [(str(k), np.zeros(3)) for k in range(9)]}
    with pytest.raises(OSError, match="No space left"):
        training_state.write(str(path), facts, arrays)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state"]


def test_every_damaged_byte_is_found(tmp_path):
    """A state with a changed byte, or a truncated one, is an error, or still the same state."""
    path = tmp_path / "state"
    arrays = {"variables": [("a", np.arange(5.0)), ("b", np.zeros((2, 0), "int8"))], "metrics": []}
    training_state.write(str(path), {"epoch": 3}, arrays)
    good = path.read_bytes()
    facts, _ = training_state.read(str(path))
    assert facts["epoch"] == 3
    rng = np.random.default_rng(1)
    for at in range(len(good)):
        for data in (
            good[:at],
            good[:at] + bytes([good[at] ^ (1 + int(rng.integers(255)))]) + good[at + 1 :],
        ):
            path.write_bytes(data)
            try:
                read_facts, read_arrays = training_state.read(str(path))
            except (ValueError, OSError):
                continue
            assert read_facts == facts
            for kind, named in arrays.items():
                for (name, value), (read_name, read_value) in zip(
                    named, read_arrays[kind], strict=True
                ):
                    assert name == read_name
                    np.testing.assert_array_equal(value, read_value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint32", "bool", "float64"])
def test_dtypes_come_back(dtype, tmp_path):
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    value = np.arange(6).reshape(2, 3).astype(kind)
    training_state.write(str(tmp_path / "state"), {}, {"v": [("x", value), ("s", value[0, 1])]})
    _, arrays = training_state.read(str(tmp_path / "state"))
    (_, read), (_, scalar) = arrays["v"]
    assert (read.dtype, read.shape, scalar.shape) == (kind, (2, 3), ())
    np.testing.assert_array_equal(read.astype(float), value.astype(float))


# ---------------------------------------------------------------- refused, with a reason


def refused(path, error=ValueError, **options):
    with pytest.raises(error) as raised:
        train(path, **options)
    return str(raised.value)


def test_backup_and_restore_is_refused(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    assert "Leave BackupAndRestore out" in refused(tmp_path / "state", callbacks=[backup])
    loader = make_loader()
    model, _ = train(callbacks=[kl.LoaderCallback(loader), backup], loader=loader)  # without a path
    assert counts(model) == [3] * SAMPLES


def test_model_checkpoint_is_welcome(tmp_path):
    kept = str(tmp_path / "best.weights.h5")
    checkpoint = keras.callbacks.ModelCheckpoint(kept, save_weights_only=True)
    train(tmp_path / "state", after=8, callbacks=[checkpoint])
    model, _ = train(tmp_path / "state", callbacks=[checkpoint])
    assert counts(model) == [3] * SAMPLES
    assert os.path.exists(kept)


def test_another_model_or_optimizer_is_refused(tmp_path):
    path = tmp_path / "state"
    train(path, after=4)
    said = refused(path, width=5)
    assert "another model" in said
    assert "(2, 4)" in said
    assert "(2, 5)" in said


def test_other_data_are_refused(tmp_path):
    path = tmp_path / "state"
    train(path, after=4)
    said = refused(path, loader=make_loader(seed=8))
    assert str(path) in said
    assert "seed was 7 and is 8" in said


def test_a_file_that_is_no_state_is_refused(tmp_path):
    path = tmp_path / "state"
    path.write_text("hello")
    assert "is not overwritten: choose another path" in refused(path)
    with pytest.raises(ValueError, match="is a folder"):
        kl.LoaderCallback(make_loader(), tmp_path)


def test_steps_per_epoch_is_refused(tmp_path):
    said = refused(tmp_path / "state", fit={"steps_per_epoch": 4})
    assert "leave steps_per_epoch out" in said


def test_fixed_batches_in_a_mixed_order_are_refused(tmp_path):
    said = refused(tmp_path / "state", loader=make_loader(shuffle=False))
    assert "or shuffle=False to fit()" in said


def test_another_loader_is_refused(tmp_path):
    """An error if fit trains on another loader than the callback's, whose position never changes."""
    callback = kl.LoaderCallback(make_loader(), tmp_path / "state", save_freq=1)
    with pytest.raises(ValueError, match="does not train on the loader"):
        make_model().fit(make_loader(), verbose=0, callbacks=[callback])


@pytest.mark.parametrize("save_freq", [0, -1, 1.5, True, "5", "0s", "5 hours", None])
def test_a_wrong_save_freq_is_refused(save_freq):
    with pytest.raises(ValueError, match="is not valid: 100 means"):
        kl.LoaderCallback(make_loader(), "state", save_freq=save_freq)


def test_how_often_it_saves(tmp_path, monkeypatch):
    """By batches, by time, and at the end of each epoch in any case."""
    written = []
    monkeypatch.setattr(
        training_state, "write", lambda path, facts, arrays: written.append(facts["position"])
    )
    for save_freq, expected in (
        (4, [(0, 4), (1, 0), (1, 4), (2, 0)]),
        ("epoch", [(1, 0), (2, 0)]),
        ("0.0000001s", 12),
    ):
        written.clear()
        loader = make_loader()
        callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq=save_freq)
        make_model().fit(loader, epochs=2, verbose=0, callbacks=[callback])
        got = [(position["epoch"], position["batch"]) for position in written]
        assert len(got) >= expected if isinstance(expected, int) else got == expected


def test_left_in_the_middle_and_stopped_at_the_end(tmp_path):
    """stop_training in mid-epoch keeps the state, at the end of an epoch it is over."""
    path = tmp_path / "state"

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    train(path, callbacks=[Stop()])
    assert path.exists()
    model, _ = train(path)
    assert counts(model) == [3] * SAMPLES

    class Over(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    train(path, callbacks=[Over()])
    assert not path.exists()


def test_one_part_of_several_reads_and_does_not_write(tmp_path):
    """Only process 0 of n writes."""
    path = tmp_path / "state"
    parts = [make_loader(4, shuffle=True, shard=(k, 2)) for k in range(2)]
    train(path, loader=parts[1], epochs=1)
    train(path, loader=parts[0], after=3, epochs=1)
    assert path.exists()
    before = path.read_bytes()
    model, _ = train(path, loader=make_loader(4, shuffle=True, shard=(1, 2)), epochs=1)
    assert int(model.optimizer.iterations) == 6
    assert path.read_bytes() == before


def test_what_was_kept_for_the_fit_is_put_back(tmp_path):
    """The next fit of this model begins at epoch 0, and Keras may warn again."""
    path = tmp_path / "state"
    train(path, after=9, ema=False)  # with it, Keras 3.15 on JAX fails in any second fit
    before = list(warnings.filters)
    model, seen = train(path, ema=False)
    assert seen.begun == [1, 2]
    assert warnings.filters == before
    again = Epochs()
    model.fit(make_loader(), epochs=2, verbose=0, callbacks=[again])
    assert again.begun == [0, 1]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a part of TensorFlow")
def test_a_dataset_goes_on():
    """The first iteration has the rest of the epoch; with another order it is an error."""

    def numbers(dataset):
        return [x[:, 0].numpy().astype(int).tolist() for x, _ in dataset]

    dataset = kl.to_tf_dataset(make_loader(shuffle=True))
    whole = [numbers(dataset) for _ in range(3)]
    loader = make_loader(shuffle=True)
    loader.load_state_dict(loader.state_dict(epoch=1, batch=4))
    dataset = kl.to_tf_dataset(loader)
    assert [numbers(dataset), numbers(dataset)] == [whole[1][4:], whole[2]]
    loader = make_loader()
    loader.load_state_dict(loader.state_dict(epoch=1, batch=4))
    with pytest.raises(ValueError, match="shuffle= in the loader"):
        kl.to_tf_dataset(loader, shuffle=True)
