"""LoaderCallback: its arguments, what it adds to the logs, and how long it saves and keeps."""

import contextlib
import os

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.keras_api.telemetry import LOGGED
from kloaders.training import state_file
from kloaders.training.callback import _checked_freq, _First

SAMPLES, BATCH = 24, 4
X = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
LOGS = {"samples_per_s", "data_wait_s", "batches_ahead", "cache_hits", "sample_errors"}


def loader_of(**options):
    return kl.ArraySequenceLoader(X, X, BATCH, **{"seed": 3, **options})


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **({"run_eagerly": True} if backend() == "tensorflow" else {}))
    return model


def backend():
    return keras.backend.backend()


class Each(keras.callbacks.Callback):
    """Calls a function with the epoch and a copy of the logs."""

    def __init__(self, function=lambda epoch, logs: None, batch=lambda batch: None):
        super().__init__()
        self.function, self.batch = function, batch
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.batch(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.function(epoch, logs)


class Died(Exception):
    pass


def die_at(last):
    def batch(number):
        if number == last:
            raise Died

    return Each(batch=batch)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("save_freq", "expected"),
    [
        (1, (1, None)),
        (100, (100, None)),
        ("epoch", (None, None)),
        ("30s", (None, 30)),
        ("30sec", (None, 30)),
        ("5min", (None, 300)),
        ("1.5 h", (None, 5400)),
        (" 2h ", (None, 7200)),
    ],
)
def test_how_often_it_saves_is_understood(save_freq, expected):
    assert _checked_freq(save_freq) == expected


@pytest.mark.parametrize(
    "save_freq", [0, -3, 1.0, False, "", "min", "-5min", "0h", "5 days", "1e3s"]
)
def test_how_often_is_refused_where_it_is_not_understood(save_freq):
    with pytest.raises(ValueError, match="is not valid: 100 means every 100 batches") as caught:
        kl.LoaderCallback(loader_of(), save_freq=save_freq)
    assert f"save_freq={save_freq!r}" in str(caught.value)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"LoaderCallback\(ndarray\): expected a loader"):
        kl.LoaderCallback(X)
    with pytest.raises((TypeError, ValueError), match="log='no'"):
        kl.LoaderCallback(loader_of(), log="no")
    with pytest.raises(ValueError, match="is a folder, expected a file's name") as caught:
        kl.LoaderCallback(loader_of(), tmp_path)
    assert repr(os.path.join(str(tmp_path), "state")) in str(caught.value)


def test_a_path_is_any_kind_of_path(tmp_path):
    assert kl.LoaderCallback(loader_of(), tmp_path / "s").path == str(tmp_path / "s")
    assert kl.LoaderCallback(loader_of()).path is None


# ---------------------------------------------------------------- logs


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_other_callbacks_see_the_logs(model, first):
    """Callbacks before and after it in the list see the logs, and History, too."""
    loader, other = loader_of(), Each()
    ours = kl.LoaderCallback(loader)
    callbacks = [other, ours] if first else [ours, other]
    history = model.fit(loader, epochs=2, verbose=0, callbacks=callbacks)
    assert set(history.history) >= {"loss", *LOGS}
    for logs in other.logs:
        assert set(logs) >= {"loss", *LOGS}
        assert logs["samples_per_s"] > 0
        assert logs["data_wait_s"] >= 0
        assert logs["sample_errors"] == 0


def test_the_progress_bar_stays_as_short_as_without(model, capsys):
    """The five numbers are in the logs, and not in the line that Keras prints."""
    loader = kl.ArraySequenceLoader(np.zeros((8, 1), "f4"), np.zeros((8, 1), "f4"), 4)
    for verbose in (1, 2):
        history = model.fit(loader, verbose=verbose, callbacks=[kl.LoaderCallback(loader)])
        assert "data_wait_s" in history.history
        assert "samples_per_s" in history.history
    printed = capsys.readouterr().out
    assert "loss" in printed
    assert not any(name in printed for name in LOGGED)


def test_without_log_nothing_is_added(model):
    loader, other = loader_of(), Each()
    model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader, log=False), other])
    assert not LOGS & set(other.logs[0])


def test_errors_are_counted(model):
    """The count of the whole training, not of one epoch."""

    class Broken(kl.SequenceLoader):
        def load_sample(self, index):
            if index in (3, 7):
                raise ValueError("broken")
            return X[index], X[index]

    loader, other = Broken(SAMPLES, BATCH, on_error="skip"), Each()
    model.fit(loader, epochs=2, verbose=0, callbacks=[kl.LoaderCallback(loader), other])
    assert [logs["sample_errors"] for logs in other.logs] == [2, 2]


def test_the_first_is_asked_once_an_epoch():
    """Twice in an epoch, by Keras and by the callback itself: the epoch is measured once."""

    class Measured:
        calls = 0

        def epoch_end(self):
            self.calls += 1
            return self

        def logs(self):
            return {"samples_per_s": self.calls}

    measured = Measured()
    first, logs = _First(measured), {}
    for epoch in (0, 0, 1, 1):
        first.on_epoch_end(epoch, logs)
    first.on_epoch_end(2, None)
    assert measured.calls == 2
    assert logs == {"samples_per_s": 2}


# ---------------------------------------------------------------- position and end


def test_the_position_is_behind_what_was_trained_on(model):
    """Threads prefetch, but the position is that of the model."""
    loader, found = loader_of(workers=2), []
    look = Each(batch=lambda batch: found.append(loader.state_dict()["batch"]))
    model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader), look])
    assert found == [1, 2, 3, 4, 5, 0]


def test_the_true_epoch_is_known(model):
    """initial_epoch=2: the orders are those of epochs 2 and 3."""
    loader, received = loader_of(shuffle=True), []
    look = Each(batch=lambda batch: received.append(loader.state_dict()["epoch"]))
    model.fit(
        loader,
        initial_epoch=2,
        epochs=4,
        verbose=0,
        callbacks=[kl.LoaderCallback(loader), look],
    )
    assert received == [2] * 5 + [3] * 6 + [4]


def test_evaluate_on_the_same_loader_in_mid_epoch(model):
    """The epoch continues at the same position."""
    loader, found = loader_of(), []

    def evaluate(batch):
        if batch == 2:
            model.evaluate(loader, verbose=0)
        found.append(loader.state_dict()["batch"])

    model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader), Each(batch=evaluate)])
    assert found == [1, 2, 3, 4, 5, 0]


def test_what_only_training_needs_is_freed(model):
    loader = loader_of(workers=2)
    callback = kl.LoaderCallback(loader)
    model.fit(loader, verbose=0, callbacks=[callback])
    assert loader.runner.engine is None
    assert loader.runner.meter is None
    assert loader.runner.last_fit is not None  # for explain()


# ---------------------------------------------------------------- a path


def test_a_state_is_there_until_training_is_over(model, tmp_path):
    path, seen = tmp_path / "deep" / "state", []
    loader = loader_of()
    look = Each(batch=lambda batch: seen.append(path.exists()))
    callback = kl.LoaderCallback(loader, path, save_freq=2)
    model.fit(loader, verbose=0, callbacks=[callback, look])
    assert seen == [False, True, True, True, True, True]
    assert not path.exists()


@pytest.mark.parametrize("last", [0, 2, 5])
def test_it_goes_on_behind_what_was_saved(model, tmp_path, caplog, last):
    """The initial epoch is known in on_train_begin, and what it goes on with is logged."""
    path, loader = tmp_path / "state", loader_of()
    with contextlib.suppress(Died):
        callback = kl.LoaderCallback(loader, path, save_freq=1)
        model.fit(loader, epochs=2, verbose=0, callbacks=[callback, die_at(last)])
    facts, _ = state_file.read(str(path))
    assert (facts["epoch"], facts["epoch_trained"]) == (0, last == 5)
    loader, batches = loader_of(), []
    callback = kl.LoaderCallback(loader, path, save_freq=1)
    look = Each(batch=batches.append)
    model.fit(loader, epochs=2, verbose=0, callbacks=[callback, look])
    assert len(batches) == 5 - last + 6
    done = "all" if last == 5 else f"{4 * (last + 1)}"
    assert (
        f"resuming from {path}: epoch 1 of 2, after {done} of {SAMPLES} samples" in caplog.messages
    )


def test_a_state_in_a_bucket(model):
    """A killed run resumes from an object, and deletes it at the end."""
    pytest.importorskip("fsspec")
    path, loader, batches = "memory://runs/callback", loader_of(), []
    with contextlib.suppress(Died):
        callback = kl.LoaderCallback(loader, path, save_freq=1)
        model.fit(loader, epochs=2, verbose=0, callbacks=[callback, die_at(2)])
    assert state_file.read(path)[0]["epoch"] == 0
    callback = kl.LoaderCallback(loader := loader_of(), path, save_freq=1)
    model.fit(loader, epochs=2, verbose=0, callbacks=[callback, Each(batch=batches.append)])
    assert len(batches) == 3 + 6
    assert not state_file.exists(path)


def test_a_state_between_epochs(model, tmp_path):
    path, loader = tmp_path / "state", loader_of()

    def stop(epoch, logs):
        raise Died

    with contextlib.suppress(Died):
        callback = kl.LoaderCallback(loader, path, save_freq="epoch")
        model.fit(loader, epochs=3, verbose=0, callbacks=[callback, Each(stop)])
    callback = kl.LoaderCallback(loader := loader_of(), path)
    look = Each()
    model.fit(loader, epochs=3, verbose=0, callbacks=[callback, look])
    assert callback.initial_epoch == 1
    assert len(look.logs) == 2


@pytest.mark.parametrize("facts", [{}, {"epoch": -1, "epoch_trained": True}, {"epoch": 1}])
def test_a_state_without_its_facts_is_damaged(model, tmp_path, facts):
    path, loader = str(tmp_path / "state"), loader_of()
    state_file.write(path, facts, {})
    with pytest.raises(ValueError, match="is damaged: delete it to restart training"):
        model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader, path)])


def test_averages_are_not_saved_as_weights(model, tmp_path):
    """SwapEMAWeights before it would have swapped them already."""
    loader = loader_of()
    model.compile(keras.optimizers.SGD(use_ema=True), "mse")
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        kl.LoaderCallback(loader, tmp_path / "state"),
    ]
    with pytest.raises(
        ValueError, match=r"SwapEMAWeights before LoaderCallback.*Put LoaderCallback"
    ):
        model.fit(loader, verbose=0, callbacks=callbacks)
    model.fit(loader, verbose=0, callbacks=callbacks[::-1])


# ---------------------------------------------------------------- a disk that does not take it


@pytest.fixture
def limited():
    """limited(n): files of this process may have n bytes; all, at the end."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_a_save_and_no_training(model, tmp_path, caplog, limited):
    """The previous state stays; the failure is logged once, and so is the next successful save."""
    path, loader, found = tmp_path / "state", loader_of(), []

    def look(batch):
        limited({1: 100, 4: -1}.get(batch, 100 if batch < 4 else -1))
        found.append(state_file.read(str(path))[0]["position"]["batch"])

    callback = kl.LoaderCallback(loader, path, save_freq=1)
    model.fit(loader, verbose=0, callbacks=[callback, Each(batch=look)])
    assert found == [1, 1, 1, 1, 1, 0]
    (failed,) = [m for m in caplog.messages if "cannot be saved" in m]
    assert failed.startswith(f"{path}: the training state cannot be saved (")
    assert "The file keeps the state of epoch 1, after 4 samples. Training continues" in failed
    assert f"{path}: the training state can be saved again." in caplog.messages
    assert not list(tmp_path.iterdir())


def test_a_first_save_that_fails_has_no_state(model, tmp_path, caplog, limited):
    path, loader = tmp_path / "state", loader_of()
    limit = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_, **__: limited(100))
    model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader, path, save_freq=1), limit])
    limited(-1)  # at once: pytest may write to a file
    assert [m for m in caplog.messages if "The file does not exist yet" in m]
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_found_before_training(model, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    loader, trained = loader_of(), []
    callback = kl.LoaderCallback(loader, tmp_path / "file" / "state", save_freq="epoch")
    look = Each(batch=trained.append)
    with pytest.raises(OSError, match="cannot be saved there, choose another path"):
        model.fit(loader, verbose=0, callbacks=[callback, look])
    assert trained == []


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_what_a_killed_run_left_is_gone_when_training_begins(model, tmp_path):
    loader, found = loader_of(), []
    (tmp_path / ".state.0.part").write_bytes(bytes(100))
    look = Each(batch=lambda batch: found.append(os.listdir(tmp_path)))
    callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq="epoch")
    model.fit(loader, verbose=0, callbacks=[callback, look])
    assert found == [[]] * 6


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
def test_a_state_keeps_its_link_and_its_mode(model, tmp_path):
    path, target, found = tmp_path / "state", tmp_path / "disk", []
    path.symlink_to(target)

    def look(batch):
        if batch == 0:
            target.chmod(0o600)
        found.append((path.is_symlink(), target.stat().st_mode & 0o777))

    loader = loader_of()
    callback = kl.LoaderCallback(loader, path, save_freq=1)
    model.fit(loader, verbose=0, callbacks=[callback, Each(batch=look)])
    assert found == [(True, 0o600)] * 6


# ---------------------------------------------------------------- of another loader


@pytest.mark.parametrize("with_path", [True, False])
@pytest.mark.parametrize("other", ["loader", "view"])
def test_a_callback_of_another_loader_is_refused(model, tmp_path, with_path, other):
    """The error comes when training begins: nothing is trained, and nothing is saved."""
    loader, trained = loader_of(), []
    given = loader.view() if other == "view" else loader_of()
    path = tmp_path / "state" if with_path else None
    callbacks = [kl.LoaderCallback(loader, path), Each(batch=trained.append)]
    with pytest.raises(ValueError, match="does not train on the loader of LoaderCallback: it "):
        model.fit(given, verbose=0, callbacks=callbacks)
    assert trained == []
    assert not list(tmp_path.iterdir())


def test_data_of_another_kind_is_refused_after_a_batch(model, tmp_path):
    """With a path, long before the first save."""
    trained = []
    saving = kl.LoaderCallback(loader_of(), tmp_path / "state", save_freq="epoch")
    with pytest.raises(
        ValueError, match=r"does not train on the loader.*Dataset from to_tf_dataset"
    ):
        model.fit(X, X, batch_size=4, verbose=0, callbacks=[saving, Each(batch=trained.append)])
    assert trained == []
