"""Measures whether loading overlaps with the step. Both take 20 ms: together 20 ms if they overlap, else 40.

python benchmarks/overlap.py --backends tensorflow jax torch

Both are sleeps, so the number of cores does not matter: loading sleeps in the loader's hook, and the
step in a callback. The loader has its default options.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

LOAD = STEP = 0.020
BATCH, BATCHES, EPOCHS = 32, 40, 3
AT_MOST = 1.25  # times a step, for the first way
WAYS = {
    "kloaders, load_batch": "kloaders, load_batch()",
    "kloaders, load_sample": "kloaders, load_sample()",
    "PyDataset, workers=1": "Keras' PyDataset, workers=1",
    "PyDataset, workers=2": "Keras' PyDataset, workers=2",
}


def loader_of(way: str) -> Any:
    """A dataset whose batches take LOAD seconds each to load."""
    import keras
    import numpy as np

    import kloaders as kl

    class ByBatch(kl.SequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            time.sleep(LOAD * len(indices) / BATCH)
            return np.zeros((len(indices), 4), np.float32), np.zeros(len(indices), np.float32)

    class BySample(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            time.sleep(LOAD / BATCH)
            return np.zeros(4, np.float32), np.float32(0)

    class Theirs(keras.utils.PyDataset):
        def __len__(self) -> int:
            return BATCHES

        def __getitem__(self, index: int) -> Any:
            time.sleep(LOAD)
            return np.zeros((BATCH, 4), np.float32), np.zeros(BATCH, np.float32)

    if way == "kloaders, load_batch":
        return ByBatch(BATCH * BATCHES, BATCH)
    if way == "kloaders, load_sample":
        return BySample(BATCH * BATCHES, BATCH)
    return Theirs(workers=int(way[-1]))


def measure(way: str) -> dict[str, float]:
    """Seconds per step, in this process, on the backend set by KERAS_BACKEND."""
    import keras

    class Step(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[float] = []
            self.epochs: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append(time.perf_counter())
            self.last = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            time.sleep(STEP)
            now = time.perf_counter()
            if len(self.epochs) > 1:  # in the first epoch the model is compiled
                self.steps.append(now - self.last)
            self.last = now

        def on_train_end(self, logs: Any = None) -> None:
            self.epochs.append(time.perf_counter())

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    clock = Step()
    model.fit(loader_of(way), epochs=EPOCHS, verbose=0, callbacks=[clock])
    whole = (clock.epochs[-1] - clock.epochs[1]) / (BATCHES * (EPOCHS - 1))
    return {"step_ms": median(clock.steps) * 1e3, "epoch_step_ms": whole * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [b for b in ("tensorflow", "jax", "torch") if importlib.util.find_spec(b)]
    parser.add_argument("--backends", nargs="+", default=known, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--way", help=argparse.SUPPRESS)  # the arguments of the children
    args = parser.parse_args()
    if args.way:
        answer = os.dup(1)
        os.dup2(2, 1)
        os.write(answer, json.dumps(measure(args.way)).encode())
        return

    import machine

    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for backend in args.backends:
            for way in WAYS:
                runs.setdefault((backend, way), []).append(child(backend, way))
    print("| ms per step | " + " | ".join(args.backends) + " |")
    print("| --- |" + " --- |" * len(args.backends))
    found, slow = [], []
    for way, words in WAYS.items():
        cells = []
        for backend in args.backends:
            them = runs[backend, way]
            steps, whole = (median(r[k] for r in them) for k in ("step_ms", "epoch_step_ms"))
            cells.append(f"{steps:.1f} ({whole:.1f})")
            found.append({"backend": backend, "way": way, "step_ms": steps, "epoch_step_ms": whole})
            if way.startswith("kloaders") and steps > AT_MOST * STEP * 1e3:
                slow.append(f"{way} on {backend}")
        print(f"| {words} | {' | '.join(cells)} |")
    print(
        f"\nMedian step; in brackets, epochs whole, by their {BATCHES} steps. Perfect: "
        f"{STEP * 1e3:.0f}; no overlap: {(STEP + LOAD) * 1e3:.0f}. {machine.in_words()}"
    )
    if args.json:
        about = {"about": machine.describe(), "results": found}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")
    if slow:
        sys.exit(f"more than {AT_MOST} steps: {', '.join(slow)}")


def child(backend: str, way: str) -> dict[str, float]:
    """Measure in a separate process, since the backend is chosen when Keras is imported."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    answer = subprocess.run(
        [sys.executable, __file__, "--way", way],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(answer.stdout)


if __name__ == "__main__":
    main()
