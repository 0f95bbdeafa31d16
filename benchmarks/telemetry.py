"""Measures the cost of LoaderCallback's logs: fits with and without them, interleaved.

python benchmarks/telemetry.py

A step is a sleep of a given length, which uses no CPU, since the figures are fractions of a step. Both
sides have the callback; one has log=False. The cost per step is also measured without Keras, where
nothing else runs: rely on that figure if other processes use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import machine
import numpy as np

import kloaders as kl
from kloaders.engine.lookahead import _Job
from kloaders.keras_api.telemetry import Meter


def model_of() -> Any:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Pause(keras.callbacks.Callback):
    """Makes each step take this long."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            time.sleep(0)


def fit_seconds(model: Any, loader: Any, log: bool, step: float) -> float:
    """Seconds per step, in the second of two epochs."""
    times: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            times.append(time.perf_counter() - self.began)

    callbacks = [Clock(), kl.LoaderCallback(loader, log=log), Pause(step)]
    model.fit(loader, epochs=2, verbose=0, callbacks=callbacks)
    return times[-1] / len(loader)


def meter_seconds(steps: int) -> float:
    """Seconds per step for the logs alone."""
    loader = kl.ArraySequenceLoader(np.zeros((320, 8), "f4"), np.zeros(320, "f4"), 32)
    meter, batch = Meter(loader), loader[0]
    engine = loader.runner.engine
    build = SimpleNamespace(rows=32)  # a job asks no more of it until it is filled
    engine._ahead = {k: _Job(build, 1) for k in range(10)}  # noqa: SLF001  as many as lie ready in a fit
    begin = time.perf_counter()
    meter.epoch_begin(new_pass=True)
    for _ in range(steps):
        meter.handed(batch, engine.ready)
        meter.step_end(1)
    meter.epoch_end()
    return (time.perf_counter() - begin) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="an epoch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    samples = 32 * args.steps
    loader = kl.ArraySequenceLoader(
        np.zeros((samples, 8), "f4"), np.zeros(samples, "f4"), 32, seed=1
    )
    model = model_of()
    alone = min(meter_seconds(20_000) for _ in range(5))
    fit_seconds(model, loader, True, 0.0)  # compiles
    rows = []
    for step in (0.0, 1e-3, 5e-3):
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(args.rounds):
            for log in (False, True):
                found[log].append(fit_seconds(model, loader, log, step))
        without, with_logs = (statistics.median(found[log]) for log in (False, True))
        rows.append({"without_s": without, "with_s": with_logs, "alone_share": alone / without})
    print("| ms per step without logs | with | more | by the cost alone |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        more = row["with_s"] / row["without_s"] - 1
        print(
            f"| {row['without_s'] * 1e3:.3f} | {row['with_s'] * 1e3:.3f} | {more:+.2%} "
            f"| {row['alone_share']:.2%} |"
        )
    print(f"\nAlone, it takes {alone * 1e6:.1f} microseconds a step.\n{machine.in_words()}")
    if args.json:
        Path(args.json).write_text(
            json.dumps({"about": machine.describe(), "alone_s": alone, "rows": rows}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main()
