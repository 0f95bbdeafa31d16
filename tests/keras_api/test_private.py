"""Private parts of Keras: they exist as expected, and nothing breaks if they are missing."""

import gc
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.keras_api import private
from tests.support.recording import recording_model, row_of

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH = 23, 4


def rows():
    return np.stack([row_of(k) for k in range(SAMPLES)]), np.arange(SAMPLES, dtype=np.float32)


def joined(batches):
    return [number for batch in batches for number in batch]


class Asked(kl.ArraySequenceLoader):
    """Records its callers."""

    def __init__(self, *args, **options):
        self.asked = []
        super().__init__(*args, **options)

    def note(self, event):
        asked = private.asker()
        method = None if asked.call is None else asked.call.method
        self.asked.append((event, asked.by_keras, method, asked.stream is not None))

    def __getitem__(self, index):
        self.note("i")
        return super().__getitem__(index)

    @property
    def num_batches(self):
        self.note("#")
        return super().num_batches

    def on_epoch_begin(self):
        self.note("B")
        super().on_epoch_begin()

    def on_epoch_end(self):
        self.note("E")
        super().on_epoch_end()


class Look(keras.callbacks.Callback):
    """Does something in the middle of an epoch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.function()


# ---------------------------------------------------------------- they are there


def test_keras_own_calls_are_recognized(keep):
    """All requests of Keras come from its adapter, within a call of the method."""
    loader = keep(Asked(*rows(), BATCH, seed=7))
    model, _ = recording_model()
    for method in ("fit", "evaluate", "predict"):
        loader.asked.clear()
        getattr(model, method)(loader, verbose=0)
        events = {event for event, *_ in loader.asked}
        assert events == {"B", "E", "#", "i"}
        assert all(by_keras for _, by_keras, _, _ in loader.asked)
        # Its thread of TensorFlow's has no method on its stack.
        assert {called for _, _, called, _ in loader.asked} - {None} == {method}
        assert all(called == method for event, _, called, _ in loader.asked if event in "BE")
        assert sum(streamed for event, _, _, streamed in loader.asked if event == "i") >= 6


def test_a_generator_that_asked_before_is_recognized_at_once(keep, monkeypatch):
    """It says the same as looking at the names of modules does, which each batch would pay for."""
    found = []

    class Compared(kl.ArraySequenceLoader):
        def __getitem__(self, index):
            known = private.asker(with_call=False)
            with monkeypatch.context() as patch:
                patch.setattr(private, "_reader", [None])
                found.append((known, private.asker(with_call=False)))
            return super().__getitem__(index)

    loader = keep(Compared(*rows(), BATCH, seed=7))
    model, _ = recording_model()
    for _ in range(2):
        model.fit(loader, verbose=0)
    model.fit(loader, verbose=0, callbacks=[Look(lambda: loader[0])])
    assert all(known == looked for known, looked in found)
    assert {known.by_keras for known, _ in found} == {True, False}
    assert private._reader[0] is not None
    monkeypatch.setattr(private, "_reading_modules", lambda: ("keras.src.trainers.nothing",) * 2)
    assert private.asker(with_call=False).by_keras is False


def test_the_users_own_calls_are_recognized(keep):
    """In a loop, and in a callback of a fit."""
    loader = keep(Asked(*rows(), BATCH, seed=7))
    train = keep(kl.ArraySequenceLoader(*rows(), BATCH))
    model, _ = recording_model()
    loader.asked.clear()
    list(loader)
    model.fit(train, verbose=0, callbacks=[Look(lambda: loader[0])])
    assert not any(by_keras for _, by_keras, _, _ in loader.asked)
    assert {method for _, _, method, _ in loader.asked} == {None, "fit"}


def test_a_sequence_around_a_loader_is_keras(keep):
    """A Sequence around a loader passes on Keras' requests."""

    class Around(keras.utils.PyDataset):
        def __init__(self, loader):
            super().__init__()
            self.loader = loader

        def __len__(self):
            return self.loader.num_batches

        def __getitem__(self, index):
            return self.loader[index]

        def on_epoch_begin(self):
            self.loader.on_epoch_begin()

        def on_epoch_end(self):
            self.loader.on_epoch_end()

    loader = keep(Asked(*rows(), BATCH, seed=7, shuffle=True))
    model, received = recording_model()
    model.fit(Around(loader), epochs=2, verbose=0)
    assert all(by_keras for _, by_keras, _, _ in loader.asked)
    for epoch in (0, 1):
        order = loader.plan.shuffled_order(epoch)
        planned = [loader.plan.indices(order, k).tolist() for k in range(6)]
        assert received.trained[6 * epoch : 6 * epoch + 6] == planned


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_fit_is_seen_from_its_callback(shuffle):
    """Its callbacks, its shuffle=, and its end in an error."""
    found = []

    class Frame(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(private.FitFrame())
            assert self in found[0].callbacks
            assert not found[0].ended()

        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, _ = recording_model()
    with pytest.raises(KeyboardInterrupt) as held:  # and with it the frame
        model.fit(*rows(), verbose=0, shuffle=shuffle, callbacks=[Frame()])
    assert found[0].shuffle is shuffle
    assert found[0].ended()
    del held


# ---------------------------------------------------------------- they are gone


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_ADAPTER", "Gone"),
        ("_EPOCHS", "gone"),
        ("_METHODS", ("gone",)),
        ("_ITERATOR", "gone"),
        ("_RESOURCE", "gone"),
        ("_DATASET", "gone"),
        ("_CALLBACKS", "Gone"),
        ("_STEP", "gone"),
    ],
)
def test_fit_is_exact_without(keep, monkeypatch, name, value):
    """Renamed in Keras or TensorFlow: no exception, and the same samples."""
    monkeypatch.setattr(private, name, value)
    loader = keep(kl.ArraySequenceLoader(*rows(), BATCH, seed=7))
    model, received = recording_model()
    for _ in range(2):
        received.clear()
        callback = kl.LoaderCallback(loader)
        model.fit(loader, epochs=2, validation_data=loader, callbacks=[callback], verbose=0)
        numbers = joined(received.trained)
        assert sorted(numbers[:SAMPLES]) == sorted(numbers[SAMPLES:]) == list(range(SAMPLES))
        assert joined(received.inferred) == [*range(SAMPLES)] * 2
    np.testing.assert_array_equal(model.predict(loader, verbose=0)[:, 1], np.arange(SAMPLES))
    assert sorted(n for x, _ in loader for n in x[:, 0].astype(int)) == list(range(SAMPLES))
    model.fit(loader, verbose=0, callbacks=[Look(lambda: setattr(model, "stop_training", True))])
    received.clear()
    model.stop_training = False
    model.fit(loader, verbose=0)
    assert sorted(joined(received.trained)) == list(range(SAMPLES))
    gc.collect()


def test_a_resumed_fit_without_an_initial_epoch_says_what_to_do(keep, monkeypatch, tmp_path):
    """Without Model._initial_epoch, an error before training names the equivalent argument of fit."""
    monkeypatch.setattr(private, "_INITIAL_EPOCH", "gone")

    def train(**options):
        loader = keep(kl.ArraySequenceLoader(*rows(), BATCH, seed=7, shuffle=True))
        model, received = recording_model()
        ours = kl.LoaderCallback(loader, tmp_path / "state", save_freq=1)
        callbacks = [ours, *options.pop("callbacks", [])]
        model.fit(loader, epochs=3, verbose=0, callbacks=callbacks, **options)
        return received.trained

    class Fail(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(callbacks=[Fail()])
    with pytest.raises(ValueError, match=r"call fit\(initial_epoch=2\)"):
        train()
    assert sorted(joined(train(initial_epoch=2))) == list(range(SAMPLES))


# ---------------------------------------------------------------- they are listed


def test_each_part_has_its_test_and_its_report():
    """The table of private.py names existing tests; docs/upstream.md names each function."""
    functions = set(re.findall(r"[(,] ?`(\w+)`(?=[,)])", private.__doc__))
    exported = {name for name in private.__all__ if name not in ("Asker", "Call")}
    assert functions == exported - {"restore_step"} | ({"without_step"} & exported)
    for test in re.findall(r"\w+/test_\w+\.py", private.__doc__):
        assert (ROOT / "tests" / test).exists(), test
    upstream = (ROOT / "docs" / "upstream.md").read_text()
    assert {name for name in functions if f"`{name}`" not in upstream} == set()


def test_nothing_private_is_touched_elsewhere():
    """No walk over frames, and no name of a private part, in any other module."""
    names = [
        value
        for constant in ("_ADAPTER", "_RESOURCE", "_CALLBACKS", "_INITIAL_EPOCH", "_STEP")
        for value in [getattr(private, constant)]
    ]
    words = [*names, "keras.src", "tensorflow.python", "_getframe", "f_back"]
    allowed = {"engine": {"f_back"}}  # it inspects the current line of a thread
    own = Path(inspect.getfile(private))
    for path in sorted(own.parents[1].rglob("*.py")):
        if path == own:
            continue
        text = path.read_text()
        found = {word for word in words if re.search(rf"\b{re.escape(word)}\b", text)}
        assert not found - allowed.get(path.parent.name, set()), (path, found)
