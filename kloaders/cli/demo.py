"""One small model, the same image files, five ways to feed it: what each way costs.

Each way trains in a process of its own (`python -m kloaders.cli.demo`), so that its memory is its own;
this process draws the bars and watches. It imports no Keras.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
from tqdm.auto import tqdm

from kloaders.core.memory import format_bytes

__all__ = ["WAYS", "Result", "compare", "plot", "table", "write_images"]

#: The ways, and what they use.
WAYS = {
    "preload": "preload(loader): every sample in RAM",
    "files": "PathSequenceLoader: files read per batch, then kept in spare RAM",
    "two-level": "RamBatchSequenceLoader: batches out of RAM batches, each of 512 samples",
    "TFRecord": "TFRecordSequenceLoader: the same files, put into TFRecord files at the start",
    "tf.data": "to_tf_dataset(PathSequenceLoader)",
}
SEED, SIZE, BATCH = 7, (64, 64), 32
# Photographs are cut into so many pieces each, of so many pixels.
CROPS, CROP = 300, 256
# Memory is looked at so often; a peak shorter than this may be missed.
_SAMPLE_SECONDS = 0.01

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Result:
    """What one way cost; None where it was skipped."""

    way: str
    backend: str | None = None
    samples_per_second: float | None = None
    first_batch_seconds: float | None = None
    peak_ram_bytes: int | None = None
    step_seconds: float | None = None
    step_alone_seconds: float | None = None
    wait_share: float | None = None
    accuracy: float | None = None
    skipped: str | None = None


def compare(
    ways: list[str], epochs: int, crops: int = CROPS, progress: bool = True
) -> list[Result]:
    """Train each way on the same files, one after another."""
    with tempfile.TemporaryDirectory(prefix="kloaders-demo-") as folder:
        write_images(folder, crops, progress)
        return _shares([_in_its_own_process(way, folder, epochs, progress) for way in ways])


def _shares(results: list[Result]) -> list[Result]:
    """Add what share of a step was waiting: beyond the step on a batch that is there already."""
    # The model is the same: one figure for all, the least disturbed one.
    alone = min((r.step_alone_seconds for r in results if r.step_alone_seconds), default=0.0)
    return [
        replace(r, wait_share=max(0.0, 1 - alone / r.step_seconds)) if r.step_seconds else r
        for r in results
    ]


def write_images(folder: str, crops: int = CROPS, progress: bool = True) -> int:
    """Files in a folder a class: scikit-learn's digits as PNG, pieces of its photographs as JPEG.

    Pieces of a photograph overlap, so that these two classes are easy; the digits are not.
    """
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    # sklearn.datasets.load_sample_images() reads the same two files, and needs Pillow for it.
    stored = resources.files("sklearn.datasets") / "images"
    photographs: dict[str, Any] = {
        name: cv2.imdecode(np.frombuffer((stored / f"{name}.jpg").read_bytes(), np.uint8), 1)
        for name in ("china", "flower")
    }
    total = len(digits.images) + crops * len(photographs)
    rng = np.random.default_rng(SEED)

    def images() -> Iterator[tuple[str, str, Any]]:
        for k, (image, number) in enumerate(zip(digits.images, digits.target, strict=True)):
            yield str(number), f"{k:04}.png", (image * 255 / 16).astype(np.uint8)
        for name, photograph in photographs.items():
            height, width = photograph.shape[:2]
            for k in range(crops):
                top, left = rng.integers(height - CROP + 1), rng.integers(width - CROP + 1)
                yield name, f"{k:04}.jpg", photograph[top : top + CROP, left : left + CROP]

    with _bar("writing files", total, progress) as bar:
        for name, file, image in images():
            target = Path(folder, name, file)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(
                cv2.imencode(target.suffix, np.ascontiguousarray(image))[1].tobytes()
            )
            bar.update()
    return total


# ------------------------------------------------------------------------------------- one training


def train(way: str, folder: str, epochs: int, tell: Tell) -> dict[str, Any]:
    """Train one way; the figures of a Result but for its memory. Runs in a process of its own."""
    tell({"phase": "importing Keras"})
    import keras

    from kloaders.training.callback import LoaderCallback

    tf_data = way == "tf.data"
    if tf_data:
        try:
            import tensorflow  # noqa: F401, ICN001
        except ImportError as error:
            return {"skipped": f"TensorFlow cannot be imported ({error})"}
    keras.utils.set_random_seed(SEED)
    loader, _ = _open("files", folder)
    shape, classes, steps = (*SIZE, 3), len(loader.class_names), len(loader)
    model = _model(keras, shape, classes)
    tell({"phase": "measuring the step alone"})
    alone = _seconds_alone(keras, model, shape, steps)

    tell({"phase": "training", "total": epochs * loader.samples})
    begin = time.perf_counter()
    loader, validation = _open(way, folder)
    source = loader
    if tf_data:
        from kloaders.interop.tf_dataset import to_tf_dataset

        source = to_tf_dataset(loader)
        next(iter(source))
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


def _open(way: str, folder: str) -> tuple[Any, Any]:
    """The same files, split and order for every way."""
    from kloaders.loaders.arrays import preload
    from kloaders.loaders.from_files import from_directory
    from kloaders.loaders.paths import PathSequenceLoader
    from kloaders.loaders.ram_batches import RamBatchSequenceLoader

    options: dict[str, Any] = {"loader": PathSequenceLoader}
    if way == "two-level":
        options = {"loader": RamBatchSequenceLoader, "ram_batch_size": 16 * BATCH}
    train, validation = from_directory(
        folder, size=SIZE, batch_size=BATCH, seed=SEED, shuffle=True, **options
    )
    if way == "preload":
        return preload(train, progress=False), preload(validation, progress=False)
    if way == "TFRecord":
        # Hidden: a folder among those of the classes, and no class.
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
        written.files, features, BATCH, size=SIZE, seed=SEED, shuffle=loader.shuffle
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
    """Seconds a step on one batch that is there already; the model is left as it was."""
    rng = np.random.default_rng(SEED)
    batch = rng.integers(256, size=(BATCH, *shape)).astype(np.uint8), np.zeros(BATCH, np.int32)

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
    # The first epoch compiles the model. What else the machine does can only make one slower.
    return min(seconds[1:] or seconds)


def _clock(keras: Any, tell: Tell, samples: int, steps: int) -> Any:
    """A callback that takes the time of epochs, and tells how far it is ten times a second."""

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.began = self.told = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            if now - self.told > 0.1:
                self.told = now
                tell({"done": (len(self.seconds) * steps + batch + 1) * samples // steps})

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.began)
            tell({"done": len(self.seconds) * samples})

    return Clock()


# ------------------------------------------------------------------------------- watching a process


def _in_its_own_process(way: str, folder: str, epochs: int, progress: bool) -> Result:
    task = json.dumps({"way": way, "folder": folder, "epochs": epochs})
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    with tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(  # noqa: S603 (this very module)
            [sys.executable, "-m", "kloaders.cli.demo", task],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        )
        assert child.stdout is not None
        try:
            with _Watch(child.pid) as watch, _bar(way, None, progress) as bar:
                result = _follow(child.stdout, watch, bar)
            child.wait()
        finally:
            child.kill()
            child.stdout.close()
            child.wait()
        if result is None:
            complaints.seek(0)
            raise RuntimeError(_last_words(way, child.returncode, complaints.read()))
    if "skipped" in result:
        return Result(way, skipped=result["skipped"])
    return Result(way, peak_ram_bytes=watch.added(), **result)


def _follow(lines: IO[str], watch: _Watch, bar: Any) -> dict[str, Any] | None:
    """Show what the process says, until it says the result."""
    for line in lines:
        if not line.startswith("{"):  # some library's print
            continue
        said = json.loads(line)
        if "result" in said:
            found: dict[str, Any] = said["result"]
            return found
        if "phase" in said:
            watch.phase = said["phase"]
            bar.set_postfix_str(said["phase"])
        if "total" in said:
            bar.reset(said["total"])
        bar.update(said.get("done", bar.n) - bar.n)
    return None


class _Watch:
    """The most memory that a process had in each of its phases."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.phase = ""
        self.peaks: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process)
            while not self._over.wait(_SAMPLE_SECONDS):
                phase, used = self.phase, int(process.memory_info().rss)
                self.peaks[phase] = max(used, self.peaks.get(phase, 0))

    def added(self) -> int:
        """What training with the loader took beyond the same steps on one batch."""
        alone, training = "measuring the step alone", "training"
        return max(0, self.peaks.get(training, 0) - self.peaks.get(alone, 0))

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _last_words(way: str, status: int, complaints: str) -> str:
    lines = [line for line in complaints.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    return f"the training by {way!r} ended with exit code {status}: {last}"


def _bar(name: str, total: int | None, progress: bool) -> Any:
    # disable=None: no bar where stderr is not a terminal.
    return tqdm(total=total, desc=f"{name:13}", unit=" samples", disable=None if progress else True)


# ------------------------------------------------------------------------------------ what came out

_CAPTION = """\
samples/s     in the fastest epoch after the first, which compiles the model
first batch   from nothing to the first batch in hand: folder listed, loader made, samples read
peak RAM      beyond what the same training takes on one batch that is always there
step waited   share of a step's time beyond that of a step on that one batch. Without an accelerator
              it includes the cores that loading takes from the model.
accuracy      on the fifth of the files that was held out
The files were just written, so that the system has them in memory: a disk would add its time."""


def table(results: list[Result]) -> str:
    """The figures for people, with what they mean."""
    head = ("way", "samples/s", "first batch", "peak RAM", "step waited", "accuracy")
    rows = [head]
    for r in results:
        if r.skipped is not None:
            continue
        cells = (
            r.way,
            f"{r.samples_per_second:,.0f}",
            f"{r.first_batch_seconds:.2f} s",
            format_bytes(r.peak_ram_bytes or 0),
            f"{r.wait_share:.0%}",
            f"{r.accuracy:.3f}",
        )
        rows.append(cells)
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    skipped = [f"{r.way}: skipped, {r.skipped}" for r in results if r.skipped is not None]
    ways = [f"{r.way:13} {WAYS[r.way]}" for r in results]
    return "\n".join([*lines, *skipped, "", *ways, "", _CAPTION])


def failed(result: Result, wanted: float) -> bool:
    """Whether a way trained, and not well enough."""
    return result.accuracy is not None and result.accuracy < wanted


def summary(results: list[Result]) -> list[dict[str, Any]]:
    """The figures for a script."""
    return [asdict(result) for result in results]


def plot(results: list[Result], file: str) -> None:
    """The figures as a picture. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    shown = [r for r in results if r.skipped is None][::-1]
    panels: list[tuple[str, str, list[float]]] = [
        ("samples a second", "{:,.0f}", [r.samples_per_second or 0 for r in shown]),
        ("seconds to the first batch", "{:.2f}", [r.first_batch_seconds or 0 for r in shown]),
        ("peak RAM, MiB", "{:,.0f}", [(r.peak_ram_bytes or 0) / 2**20 for r in shown]),
        ("share of a step that waited", "{:.0%}", [r.wait_share or 0 for r in shown]),
    ]
    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle("The same model on the same files")
    for axes, (title, form, values) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        bars = axes.barh([r.way for r in shown], values, color="#3b6ea5")
        axes.bar_label(bars, [form.format(value) for value in values], padding=4)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlim(0, 1.2 * max([*values, 1e-9]))
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.xaxis.set_visible(False)
    figure.savefig(file, dpi=120)


def _main() -> None:
    """The process that trains: a task in JSON as its argument, a line of JSON for what it tells."""

    def tell(said: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    tell({"result": train(**json.loads(sys.argv[1]), tell=tell)})


if __name__ == "__main__":
    _main()
