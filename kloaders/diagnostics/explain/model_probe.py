"""Measures a model: its step on a batch that is there, and a fit. The model is left as it was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.core.structure import flatten

__all__ = ["measure_model"]


def measure_model(model: Any, view: Any, seconds: float) -> dict[str, Any]:
    """Seconds per batch: a step alone, and a step of a fit on `view`. The model is as before."""
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is a {type(model).__name__}, expected the keras.Model that fit() is called on."
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            "the model is not compiled, so it has no step: call model.compile() first."
        )
    batch = view[0]

    class Same(keras.utils.PyDataset):
        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

        def __len__(self) -> int:
            return self.steps

        def __getitem__(self, index: int) -> Any:
            return batch

    with _unchanged(keras, model, batch):
        first = _epochs(keras, model, Same(2), 2)
        # As many steps an epoch for both: what an epoch itself costs is then in both.
        steps = int(min(200, len(view), max(2, seconds / 6 / max(1e-6, first[-1][0] / 2))))
        if steps * (4 + 60 // steps) > len(view):  # parts of a pass must not run over its end
            steps = len(view)
        epochs = 4 + 60 // steps
        alone = _middle(_epochs(keras, model, Same(steps), epochs)[1:])
        part = steps if steps < len(view) else None
        together = _middle(_epochs(keras, model, view, epochs, part)[1:])
        moved = _moving(keras, batch)
    return {
        "step_s": alone[0] / steps,
        "step_cpu_s": alone[1] / steps,
        "to_device_s": moved,
        "fit_s": together[0] / steps,
        "model_from": "model",
    }


def _middle(epochs: list[tuple[float, float]]) -> tuple[float, float]:
    """The median of each: what else the machine does makes single epochs slow."""
    walls, cpus = zip(*epochs, strict=True)
    return float(np.median(walls)), float(np.median(cpus))


def _epochs(
    keras: Any, model: Any, data: Any, epochs: int, steps: int | None = None
) -> list[tuple[float, float]]:
    """Seconds, and seconds of processor time, of each epoch of a fit."""
    found: list[tuple[float, float]] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            wall, cpu = self.began
            found.append((time.perf_counter() - wall, time.process_time() - cpu))

    model.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=[Clock()])
    return found


@contextlib.contextmanager
def _unchanged(keras: Any, model: Any, batch: Any) -> Iterator[None]:
    """Give the model, its optimizer and its history back as they were."""
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
    """Seconds to make tensors of the backend of one batch, on its device."""
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
