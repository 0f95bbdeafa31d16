"""Trains with one loader of the demo, in a separate process: `python -m kloaders.cli.demo_training TASK`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Tell", "train"]

#: Receives progress: a phase, a total, and the number done.
Tell = Callable[[dict[str, Any]], None]

_SEED, _SIZE, _BATCH = 7, (64, 64), 32


def train(method: str, folder: str, epochs: int, tell: Tell) -> dict[str, Any]:
    """Train with one method, in a separate process. -> the fields of a Result, except memory."""
    tell({"phase": "importing Keras"})
    import keras

    from kloaders.training.callback import LoaderCallback

    tf_data = method == "tf.data"
    if tf_data:
        try:
            import tensorflow  # noqa: F401, ICN001
        except ImportError as error:
            return {"skipped": f"TensorFlow cannot be imported ({error})"}
    keras.utils.set_random_seed(_SEED)
    loader, _ = _open("files", folder)
    shape, classes, steps = (*_SIZE, 3), len(loader.class_names), len(loader)
    model = _model(keras, shape, classes)
    tell({"phase": "measuring the step alone"})
    alone = _seconds_alone(keras, model, shape, steps)

    tell({"phase": "training", "total": epochs * loader.samples})
    begin = time.perf_counter()
    loader, validation = _open(method, folder)
    source = loader
    if tf_data:
        from kloaders.interop.tf_dataset import to_tf_dataset

        source = to_tf_dataset(loader)
        next(iter(source))
        # Each iteration over a Dataset is an epoch. With a new Dataset the model gets the first epoch
        # too, in the same order as with the other methods.
        source = to_tf_dataset(loader)
    else:
        source[0]
    first_batch = time.perf_counter() - begin
    clock = _clock(keras, tell, loader.samples, steps)
    callbacks = [clock] if tf_data else [clock, LoaderCallback(loader)]
    model.fit(source, epochs=epochs, shuffle=not tf_data, verbose=0, callbacks=callbacks)
    step = _fastest(clock.seconds) / steps
    tell({"phase": "validating"})
    accuracy = model.evaluate(validation, verbose=0, return_dict=True)["accuracy"]
    return {
        "backend": keras.backend.backend(),
        "samples_per_second": loader.samples / (step * steps),
        "first_batch_seconds": first_batch,
        "step_seconds": step,
        "step_alone_seconds": alone,
        "accuracy": float(accuracy),
    }


def _open(method: str, folder: str) -> tuple[Any, Any]:
    """The same files, split and order for every method."""
    from kloaders.loaders.arrays import preload
    from kloaders.loaders.from_files import from_directory
    from kloaders.loaders.paths import PathSequenceLoader
    from kloaders.loaders.ram_batches import RamBatchSequenceLoader

    options: dict[str, Any] = {"loader": PathSequenceLoader}
    if method == "two-level":
        options = {"loader": RamBatchSequenceLoader, "ram_batch_size": 16 * _BATCH}
    train, validation = from_directory(
        folder, size=_SIZE, batch_size=_BATCH, seed=_SEED, shuffle=True, **options
    )
    if method == "preload":
        return preload(train, progress=False), preload(validation, progress=False)
    if method == "TFRecord":
        # A hidden folder, since it is among the folders of classes but is not a class.
        records = Path(folder, ".records")
        return _converted(train, records / "train"), _converted(validation, records / "validation")
    return train, validation


def _converted(loader: Any, out: Path) -> Any:
    """The same samples from TFRecord files."""
    from kloaders.convert.tfrecords import write_tfrecords
    from kloaders.loaders.tfrecords import TFRecordSequenceLoader
    from kloaders.sources.columns import values_of

    labels = values_of(loader.source.columns[1])
    written = write_tfrecords(loader.paths, labels, out, overwrite=True, progress=False)
    features = {"x": "image_raw", "y": "label"}
    return TFRecordSequenceLoader(
        written.files, features, _BATCH, size=_SIZE, seed=_SEED, shuffle=loader.shuffle
    )


def _model(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 8, strides=4, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def _seconds_alone(keras: Any, model: Any, shape: tuple[int, ...], steps: int) -> float:
    """Seconds per step on one batch in memory; the model's weights are restored afterwards."""
    rng = np.random.default_rng(_SEED)
    batch = rng.integers(256, size=(_BATCH, *shape)).astype(np.uint8), np.zeros(_BATCH, np.int32)

    class Same(keras.utils.PyDataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return batch

    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    clock = _clock(keras, lambda _: None, 0, steps)
    model.fit(Same(), epochs=8, verbose=0, callbacks=[clock])
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return _fastest(clock.seconds) / steps


def _fastest(seconds: list[float]) -> float:
    # The first epoch compiles the model. Other work on the machine can only make an epoch slower.
    return min(seconds[1:] or seconds)


def _clock(keras: Any, tell: Tell, samples: int, steps: int) -> Any:
    """A callback that measures the time of epochs, and reports progress at most ten times per second."""

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.began = self.reported = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            if now - self.reported > 0.1:
                self.reported = now
                tell({"done": (len(self.seconds) * steps + batch + 1) * samples // steps})

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.began)
            tell({"done": len(self.seconds) * samples})

    return Clock()


def _main() -> None:
    """The entry point: takes a task as JSON in its argument, and prints lines of JSON."""

    def tell(said: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    tell({"result": train(**json.loads(sys.argv[1]), tell=tell)})


if __name__ == "__main__":
    _main()
