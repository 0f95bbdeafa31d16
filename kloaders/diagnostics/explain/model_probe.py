"""Measures a model: a step on a batch in memory, and a step in a fit. The model stays unchanged."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from kloaders.core.structure import flatten
from kloaders.keras_api import base, tf_iterators

__all__ = ["measure_model"]

# The step alone and the fit are measured in turn, and the fastest of each counts, since other work on
# the machine can only slow them down. More rounds follow as long as the step alone is slower.
_ROUNDS, _MOST_ROUNDS = 2, 5
# Steps are counted only after this share of a run's time.
_BEGINNING = 0.3
# With this many steps, a few batches that were prefetched before do not matter.
_MANY = 500


def measure_model(model: Any, view: Any, seconds: float) -> dict[str, Any]:
    """Measure the seconds per batch of a step alone, and of a step of a fit on `view`.

    The model stays unchanged.

    Args:
        model: a compiled model.
        view: a view of a loader.
        seconds: total time to measure, without compiling. At least two steps of each are measured.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is a {type(model).__name__}, expected the keras.Model that fit() is called on."
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            "the model is not compiled, so it has no training step: call model.compile() first."
        )
    batch = view[0]
    view.runner.release()  # no prefetching while the step alone is measured

    class Same(keras.utils.PyDataset):
        """One batch, repeated in epochs of the loader's length that end like the loader's."""

        def __len__(self) -> int:
            return len(view)

        def __getitem__(self, index: int) -> Any:
            return batch

        def on_epoch_end(self) -> None:
            if base.keeps_adapters():
                tf_iterators.free_beside()

    same = Same()
    with _unchanged(keras, model, batch):
        _run(keras, model, same, 0.0)  # compiles
        each = seconds / (2 * _ROUNDS)
        alone = together = math.inf, math.inf
        began = time.perf_counter()
        for number in range(1, _MOST_ROUNDS + 1):
            alone = min(alone, _run(keras, model, same, each))
            together = min(together, _run(keras, model, view, each))
            view.runner.release()
            slow = number == 1 and time.perf_counter() - began > seconds
            if (number >= _ROUNDS or slow) and alone[0] <= 1.1 * together[0]:
                break
        moved = _moving(keras, batch)
    return {
        "step_s": alone[0],
        "step_cpu_s": alone[1],
        "to_device_s": moved,
        "fit_s": together[0],
        "model_from": "model",
    }


def _run(keras: Any, model: Any, data: Any, seconds: float) -> tuple[float, float]:
    """Seconds, and CPU seconds, per step of a fit that runs for about this many seconds.

    The time of an epoch is from its beginning to the end of its last step. Steps on batches that were
    prefetched before counting began, here or in tf.data, do not measure the loader: so the loader must
    also make as many batches while steps are counted.
    """

    def made() -> float:
        """The number of batches that a loader has made so far; infinite for data without a loader."""
        engine = getattr(getattr(data, "runner", None), "engine", None)
        return math.inf if engine is None else engine.batches + engine.ready()

    class Clock(keras.callbacks.Callback):
        wall = cpu = 0.0
        steps, began, before, counting = 0, 0.0, 0.0, False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.last, self.at = -1, (time.perf_counter(), time.process_time())

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            last, self.at = self.at, (time.perf_counter(), time.process_time())
            done, self.last = batch - self.last, batch
            if not self.counting:
                self.began = self.began or self.at[0]
                self.counting = self.at[0] - self.began >= _BEGINNING * seconds
                self.before = made()
                return
            self.steps += done
            over = self.at[0] - self.began >= seconds and self.counted() >= 2
            if over or batch + 1 >= (self.params.get("steps") or 0):
                _settle(logs)
                self.at = time.perf_counter(), time.process_time()
            self.wall += self.at[0] - last[0]
            self.cpu += self.at[1] - last[1]
            if over:
                self.each = self.wall / self.counted(), self.cpu / self.counted()
                self.model.stop_training = True

        def counted(self) -> float:
            now = made()
            many = self.steps > _MANY or math.inf in (now, self.before)
            return self.steps if many else min(self.steps, now - self.before)

    clock = Clock()
    model.fit(data, epochs=2**31, verbose=0, callbacks=[clock])
    return clock.each


def _settle(logs: Any) -> None:
    """Wait until the device has finished its queued steps."""
    for value in (logs or {}).values():
        with contextlib.suppress(TypeError, ValueError):
            float(value)


@contextlib.contextmanager
def _unchanged(keras: Any, model: Any, batch: Any) -> Iterator[None]:
    """Restore the model, its optimizer and its history."""
    if not model.built:
        model.predict_on_batch(batch[0] if isinstance(batch, tuple) else batch)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    history, stopped = getattr(model, "history", None), model.stop_training
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        model.reset_metrics()
        model.history, model.stop_training = history, stopped


def _moving(keras: Any, batch: Any) -> float:
    """Seconds to convert one batch to the backend's tensors on its device."""
    leaves = flatten(batch)

    def move() -> None:
        for leaf in leaves:
            tensor = keras.ops.convert_to_tensor(leaf)
            if hasattr(tensor, "block_until_ready"):
                tensor.block_until_ready()

    move()
    begin = time.perf_counter()
    for _ in range(5):
        move()
    return (time.perf_counter() - begin) / 5
