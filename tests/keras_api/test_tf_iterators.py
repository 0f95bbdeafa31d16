"""On TensorFlow, iterators of a finished epoch are freed in parallel to training, not before it."""

import gc
import os
import pathlib
import subprocess
import sys
import threading
import weakref

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, recording_model, row_of

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data has the iterators there")
BESIDE, SAMPLES = "tf.data's finished iterator", 24


@pytest.fixture
def freed(monkeypatch):
    """freed() -> how many iterators of tf.data were freed by threads of that name, and by others."""
    from tensorflow.python.data.ops.iterator_ops import OwnedIterator

    by, references = [], []
    others = set(threading.enumerate())  # may wait for what an earlier test still holds
    create = OwnedIterator._create_iterator

    def note(_):
        by.append(threading.current_thread().name)

    def watched(self, dataset):
        create(self, dataset)
        references.append(weakref.ref(self._iterator_resource, note))

    monkeypatch.setattr(OwnedIterator, "_create_iterator", watched)

    def _freed():
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == BESIDE and thread not in others:
                thread.join(60)
                assert not thread.is_alive()
        assert not any(reference() is not None for reference in references)
        return by.count(BESIDE), len(by) - by.count(BESIDE)

    return _freed


def loader_of(kind=kl.ArraySequenceLoader):
    x = np.stack([row_of(number) for number in range(SAMPLES)])
    return kind(x, np.arange(SAMPLES, dtype=np.float32), 4)


@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
def test_finished_iterators_are_freed_beside_the_training(freed, callback):
    """Those that were read, of each epoch, validation, evaluate and predict; and all samples came."""
    model, received = recording_model()
    train, check = loader_of(), loader_of()
    callbacks = [kl.LoaderCallback(train)] if callback else []
    model.fit(train, epochs=3, validation_data=check, callbacks=callbacks, verbose=0)
    trained = [number for batch in received.trained for number in batch]
    assert sorted(trained) == sorted([*range(SAMPLES)] * 3)
    assert freed()[0] == 6
    model.evaluate(check, verbose=0)
    assert freed()[0] == 7
    model.predict(check, verbose=0)
    assert freed()[0] == 8


def test_a_subclass_with_an_epoch_end_of_its_own(freed):
    """Its frames lie between Keras' and ours."""

    class Mine(kl.ArraySequenceLoader):
        def on_epoch_end(self):
            super().on_epoch_end()

    recording_model()[0].fit(loader_of(Mine), epochs=2, verbose=0)
    assert freed()[0] == 2


def test_an_unfinished_iterator_is_waited_for(freed):
    """More batches may come from it, so its thread ends before fit continues, as without kloaders."""
    model, _ = recording_model()
    loader = loader_of()
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs=None: setattr(model, "stop_training", step == 2)
    )
    model.fit(loader, epochs=2, callbacks=[stop], verbose=0)
    assert freed()[0] == 0
    model.fit(loader, epochs=3, steps_per_epoch=3, verbose=0)  # 9 of 6: one pass, and a half
    assert freed()[0] == 1


PROGRAM = """
import threading
import keras, numpy as np, kloaders as kl
from kloaders.keras_api import tf_iterators

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.zeros((64, 2), np.float32)
model.fit(kl.ArraySequenceLoader(x, x[:, 0], 4), epochs=3, verbose=0)

class Slow:
    def __del__(self):
        threading.Event().wait(0.5)
        print("freed", flush=True)

class Iterator:
    def __init__(self):
        self._iterator_resource, self._dataset = Slow(), None

def fit():
    iterator = Iterator()
    tf_iterators.free_beside()

fit()
print("trained", flush=True)
"""


def test_a_program_that_ends_right_after_fit():
    """The process exits cleanly, after everything that was dropped is freed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(kl.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "trained\nfreed\n"), done.stderr


def test_a_loop_of_ones_own_has_no_iterator(freed):
    """on_epoch_end outside of Keras starts no thread, whatever its caller's variables are called."""

    def fit(loader):
        iterator = object()
        loader.on_epoch_begin()
        assert sum(len(loader[k][0]) for k in range(len(loader))) == SAMPLES
        loader.on_epoch_end()
        return iterator

    assert fit(loader_of()) is not None
    assert freed() == (0, 0)
