"""Records Keras' requests to a Sequence, and the samples that a model receives, on every backend.

`Recorder` is a layer that notes the sample numbers of each batch that passes through it, in
training and otherwise, eager or compiled. `python tests/support/recording.py` prints the events that the
installed Keras sends to a Sequence; tests/support/recorded_keras.py keeps what it printed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import threading
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])


class Received:
    """Batches of sample numbers that reached a model, in order."""

    def __init__(self):
        self._batches = []
        self._lock = threading.Lock()

    def add(self, training, numbers):
        with self._lock:
            self._batches.append((bool(training), numbers))

    def clear(self):
        wait_for_device()
        with self._lock:
            self._batches.clear()

    @property
    def trained(self):
        """One list of numbers for each batch that was trained on."""
        return self._of(training=True)

    @property
    def inferred(self):
        """One list of numbers for each batch that was evaluated or predicted."""
        return self._of(training=False)

    def _of(self, *, training):
        wait_for_device()
        with self._lock:
            return [numbers for trained, numbers in self._batches if trained == training]


def wait_for_device():
    """Wait until all dispatched operations have run, since JAX does not wait by itself."""
    if BACKEND == "jax":
        import jax

        jax.effects_barrier()


def our_threads():
    """The running threads of kloaders."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("kloaders")]


def numbers_of(x):
    """The sample numbers written into a batch: `row_of` and `picture_of` undone."""
    x = np.asarray(x)
    if x.ndim == 4:  # pictures: two bytes in each pixel
        corner = x[:, 0, 0, :].astype(np.int64)
        return (corner[:, 0] + 256 * corner[:, 1]).tolist()
    return np.rint(x.reshape(len(x), -1)[:, 0]).astype(np.int64).tolist()


def row_of(number):
    """A sample that is a vector, with its number inside."""
    return np.array([number, number % 7], np.float32)


def picture_of(number, side=4):
    """A sample that is a picture, with its number in every pixel (RGB)."""
    pixel = np.array([number % 256, number // 256, 100], np.uint8)
    return np.tile(pixel, (side, side, 1))


class Recorder(keras.layers.Layer):
    """Passes its input on unchanged and notes which samples it held."""

    def __init__(self, received, **options):
        super().__init__(**options)
        self.received = received

    def call(self, x, training=False):
        note = _Note(self.received, training)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            tf.numpy_function(note.count, [x], tf.int64, stateful=True)
        elif BACKEND == "jax":
            import jax

            jax.debug.callback(note, x, ordered=True)
        elif x.device.type != "meta":  # torch works out shapes with tensors that hold nothing
            note(x.detach().cpu().numpy())
        return x

    def compute_output_spec(self, x, training=False):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class _Note:
    def __init__(self, received, training):
        self.received = received
        self.training = training

    def __call__(self, x):
        self.received.add(self.training, numbers_of(x))

    def count(self, x):
        self(x)
        return np.int64(len(x))


def recording_model(shape=(2,), dtype="float32", **compile_options):
    """A small compiled model and the `Received` of what passes through it.

    Its output is (a trained number, the sample's number), so that the metric `mismatch` is zero
    if and only if every x came with its own y.
    """
    received = Received()
    x = inputs = keras.Input(shape, dtype=dtype)
    x = Recorder(received)(x)
    if len(shape) == 3:
        x = ops.cast(x, "float32")
        number = x[:, 0, 0, 0] + 256.0 * x[:, 0, 0, 1]
        number = ops.expand_dims(number, -1)
    else:
        number = x[:, :1]
    scaled = keras.layers.Rescaling(1e-3)(number)
    outputs = keras.layers.Concatenate()([keras.layers.Dense(1)(scaled), number])
    model = keras.Model(inputs, outputs)
    options = {"loss": loss, "metrics": [mismatch], "optimizer": "sgd"}
    if BACKEND == "tensorflow":
        options["jit_compile"] = False  # XLA has no way back to Python
    model.compile(**{**options, **compile_options})
    return model, received


def loss(y, p):
    """A loss to minimise."""
    return ops.mean(ops.square(p[:, :1]), axis=-1)


def mismatch(y, p):
    """Distance between the number in y and that in x."""
    y = ops.reshape(ops.cast(y, "float32"), (-1, 1))
    return ops.abs(y - p[:, 1:2])


class Counts(keras.metrics.Metric):
    """The sum of sample weights for each sample number in y, kept on the device."""

    def __init__(self, samples, **options):
        super().__init__(name="counts", **options)
        self.samples = samples
        self.counts = self.add_variable((samples,), "zeros", dtype="float32", name="counts")

    def update_state(self, y, p, sample_weight=None):
        y = ops.reshape(ops.cast(y, "int32"), (-1,))
        rows = ops.one_hot(y, self.samples)
        if sample_weight is not None:
            rows = rows * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        self.counts.assign(self.counts + ops.sum(rows, axis=0))

    def result(self):
        return ops.convert_to_tensor(self.counts)


# ---------------------------------------------------------------- events of the installed Keras

_SIZE = 4  # batches in an epoch of the recorded Sequence
_ELSEWHERE = 10**6  # numbers of reads from another Sequence start here


class _Events(keras.utils.PyDataset):
    """Records Keras' calls; each batch holds the number of the read that returned it."""

    def __init__(self, batches=_SIZE, base=0):
        super().__init__()
        self.batches = batches
        self.base = base
        self.events = []
        self.lock = threading.Lock()

    def note(self, event):
        with self.lock:
            self.events.append(event)
            return len(self.events) - 1

    def where(self):
        return "" if threading.current_thread() is threading.main_thread() else "t"

    @property
    def num_batches(self):
        self.note("#" + self.where())
        return self.batches

    def __getitem__(self, index):
        number = self.base + self.note(str(index) + self.where())
        threading.Event().wait(0.002)  # the pace of a real loader: prefetching runs as it would
        return np.tile(row_of(number), (2, 1)), np.full((2, 1), number, np.float32)

    def on_epoch_begin(self):
        self.note("B")

    def on_epoch_end(self):
        self.note("E")


class _Noting(keras.callbacks.Callback):
    """What a callback is told."""

    def __init__(self, events, stop=None, fail=None, call=None):
        super().__init__()
        self.events = events
        self.stop, self.fail, self.inner = stop, fail, call

    def on_train_begin(self, logs=None):
        self.events.note(f"T{self.params['steps']}")

    def on_train_end(self, logs=None):
        self.events.note("X")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.note(f"c{epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.events.note(f".{batch}")
        if self.stop == batch:
            self.model.stop_training = True
        if self.fail == batch:
            raise KeyboardInterrupt
        if self.inner and batch == 1:
            self.inner(self.model)  # this model: on JAX its weights are where they belong


def _record(run, batches=_SIZE, **compile_options):
    """Events of `run(model, dataset, fit)`; reads that were trained on end in *, inferred in v."""
    model, received = recording_model(**compile_options)
    events = _Events(batches)

    def fit(data=events, stop=None, fail=None, call=None, **options):
        events.note("|")
        noted = _Noting(events, stop, fail, call)
        model.fit(data, verbose=0, callbacks=[noted], **options)

    run(model, events, fit)
    for mark, numbers in (("*", received.trained), ("v", received.inferred)):
        for number, *_ in numbers:
            if number < _ELSEWHERE:
                events.events[number] += mark
    return " ".join(events.events)


def _stop(m, s, fit):
    fit(epochs=2, stop=1)
    fit(epochs=2)


def _fail(m, s, fit):
    with contextlib.suppress(KeyboardInterrupt):
        fit(epochs=2, fail=1)
    fit(epochs=2)


def _three(m, s, fit):
    fit(), fit(), fit()


def _evaluate(m, s, fit):
    fit()
    s.note("|")
    m.evaluate(s, verbose=0)
    s.note("|")
    m.evaluate(s, steps=2, verbose=0)
    fit()


def _predict(m, s, fit):
    fit()
    s.note("|")
    m.predict(s, verbose=0)
    fit()
    s.note("|")
    m.predict(s, steps=2, verbose=0)


def _unbuilt_predict(m, s, fit):
    s.note("|")
    m.predict(s, verbose=0)
    fit(epochs=2)


SCENARIOS = {
    "two epochs": (lambda m, s, fit: fit(epochs=2), {}),
    "three fits": (_three, {}),
    "not shuffled": (lambda m, s, fit: fit(epochs=2, shuffle=False), {}),
    "3 steps of 4": (lambda m, s, fit: fit(epochs=4, steps_per_epoch=3), {}),
    "2 steps of 4": (lambda m, s, fit: fit(epochs=4, steps_per_epoch=2), {}),
    "1 step of 4": (lambda m, s, fit: fit(epochs=5, steps_per_epoch=1), {}),
    "4 steps of 4": (lambda m, s, fit: fit(epochs=2, steps_per_epoch=4), {}),
    "6 steps of 4": (lambda m, s, fit: fit(epochs=2, steps_per_epoch=6), {}),
    "initial epoch 2": (lambda m, s, fit: fit(epochs=4, initial_epoch=2), {}),
    "stopped, fitted again": (_stop, {}),
    "failed, fitted again": (_fail, {}),
    "validated on itself": (lambda m, s, fit: fit(epochs=2, validation_data=s), {}),
    "validated on 2 steps": (
        lambda m, s, fit: fit(
            _Events(3, _ELSEWHERE), epochs=2, validation_data=s, validation_steps=2
        ),
        {},
    ),
    "evaluated": (_evaluate, {}),
    "predicted": (_predict, {}),
    "predicted before built": (_unbuilt_predict, {}),
    "evaluated in fit": (
        lambda m, s, fit: fit(epochs=2, call=lambda model: model.evaluate(s, verbose=0)),
        {},
    ),
    "1 batch": (lambda m, s, fit: fit(epochs=4), {"batches": 1}),
    "2 batches": (lambda m, s, fit: fit(epochs=4), {"batches": 2}),
    "3 batches": (lambda m, s, fit: fit(epochs=3), {"batches": 3}),
    "3 steps at once": (lambda m, s, fit: fit(epochs=2), {"steps_per_execution": 3}),
}


def main():
    """Print a line for each scenario."""
    warnings.simplefilter("ignore")
    lines = [f"== {keras.__version__} {BACKEND}"]
    for name, (run, options) in SCENARIOS.items():
        if BACKEND == "torch" and "steps_per_execution" in options:
            continue
        line = f"{name}: {_record(run, **options)}"
        lines.append(textwrap.fill(line, 98, subsequent_indent="    "))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
