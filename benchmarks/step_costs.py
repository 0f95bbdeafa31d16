"""Measures the steps of a cheap batch in CPU time: arrays in RAM (W4), small files (W6), cached images (W7).

python benchmarks/step_costs.py

Each step is called in a loop, so that its code and data are in the processor's caches. In `fit` it costs more, which
the rows of `fit` show. Times are CPU times of the thread or process, which depend less on other programs than rates
do; the best of several rounds counts. "Half a core": this process shares one core with another that only
computes (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import machine
import numpy as np

import kloaders as kl
from kloaders.keras_api.texts import for_keras

ROUNDS = 7
Row = tuple[str, list[float]]


def best(call: Callable[[int], Any], count: int) -> float:
    """Microseconds of this thread for each of `count` calls."""
    found = []
    for _ in range(ROUNDS):
        begin = time.thread_time()
        for number in range(count):
            call(number)
        found.append((time.thread_time() - begin) / count)
    return min(found) * 1e6


class Made:
    """A finished batch."""

    def __init__(self, batch: Any, rows: int) -> None:
        self.batch, self.rows = batch, rows

    def fill(self, start: int, stop: int) -> None:
        """Nothing is left to do."""

    def finish(self) -> Any:
        return self.batch


class Same(keras.utils.PyDataset):
    """The least that a PyDataset can do: always the same batch."""

    def __init__(self, batch: Any, batches: int) -> None:
        super().__init__(workers=1)
        self.batch, self.batches = batch, batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return self.batch


def steps_in_ram(batch_size: int, samples: int) -> list[Row]:
    """W4: what each step of a batch costs, and a step of `fit`."""
    x = np.random.default_rng(0).integers(0, 256, (samples, 32, 32, 3), np.uint8)
    y = np.arange(samples)
    loader = kl.ArraySequenceLoader(x, y, batch_size, shuffle=True, seed=1, workers=0)
    runner, count = loader.runner, len(loader)
    loader.on_epoch_begin()
    batch = loader[0]
    request = runner.tickets.locate(1)
    order, plan = request.order, runner.plan
    indices = [plan.indices(order, k) for k in range(count)]
    out, labels = np.empty((batch_size, *x.shape[1:]), x.dtype), np.empty(batch_size, y.dtype)

    def gathered(number: int) -> None:
        rows = indices[number]
        x.take(rows, 0, out[: len(rows)], mode="clip")
        y.take(rows, 0, labels[: len(rows)], mode="clip")

    def allocated(number: int) -> Any:
        return runner.make_alone((order, number), True).leaves

    def filled(number: int) -> None:
        build = runner.make_alone((order, number), True)
        build.fill(0, build.rows)

    engine, made = runner.running(), Made(batch, batch_size)

    def tickets() -> float:
        begin = time.thread_time()
        for number in range(count):
            runner.tickets.locate(number)
        return (time.thread_time() - begin) / count

    def whole() -> float:
        begin = time.thread_time()
        for number in range(1, count):
            loader[number]
        return (time.thread_time() - begin) / (count - 1)

    def of_epochs(measure: Callable[[], float]) -> float:
        found = []
        for _ in range(ROUNDS):
            loader.on_epoch_begin()
            loader[0] if measure is whole else None
            found.append(measure())
            loader.on_epoch_end()
        return min(found) * 1e6

    loader.on_epoch_end()
    build = runner.make_alone((order, 0), True)
    build.fill(0, build.rows)
    planned, prepared = best(lambda k: plan.indices(order, k), count), best(allocated, count)
    full, copied = best(filled, count), best(gathered, count)
    costs = [
        ("finding the batch of the index (tickets)", of_epochs(tickets)),
        ("sample numbers (plan)", planned),
        ("arrays for the rows", prepared - planned),
        ("copying the rows: two calls of NumPy's `take`", copied),
        ("... and the code around them", full - prepared - copied),
        ("making the batch from its arrays", best(lambda _: build.finish(), count)),
        ("checking the dtypes for Keras", best(lambda _: for_keras(batch), count)),
        ("checking whether it was prefetched (engine)",
         best(lambda k: engine.get((order, k), None, lambda *_: made), count)),
        ("**all of `loader[i]`, measured as a whole**", of_epochs(whole)),
    ]  # fmt: skip
    loader.close()
    model = keras.Sequential(
        [
            keras.layers.Input((32, 32, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(loss="mse", optimizer="sgd")
    again = kl.ArraySequenceLoader(x, y, batch_size, seed=1)
    ways = {
        "a step of `fit(x=array)`": {"x": x, "y": y, "batch_size": batch_size},
        "a step of `fit` with a PyDataset that always returns the same batch": {
            "x": Same(batch, count)
        },
        "a step of `fit(loader)`": {"x": again},
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(4):  # the first one compiles
        for way, data in ways.items():
            begin = time.process_time()
            model.fit(**data, epochs=2, verbose=0)
            if turn:
                spent[way].append((time.process_time() - begin) / 2 / count * 1e6)
    costs += [(way, statistics.median(found)) for way, found in spent.items()]
    return [(name, [cost]) for name, cost in costs]


# ---------------------------------------------------------------------- files


def small_files(folder: Path, count: int) -> list[str]:
    draw = np.random.default_rng(0)
    paths = [str(folder / f"{k:05}.npy") for k in range(count)]
    for path in paths:
        np.save(path, draw.random((24, 5, 5, 10)))
    return paths


def photographs(folder: Path, count: int) -> list[str]:
    import cv2

    paths = [str(folder / f"{k:05}.jpg") for k in range(count)]
    for k, path in enumerate(paths):
        cv2.imwrite(path, np.full((240, 240, 3), k % 255, np.uint8))
    return paths


def epoch(loader: Any) -> None:
    loader.on_epoch_begin()
    for number in range(len(loader)):
        loader[number]
    loader.on_epoch_end()


def least_of_files(paths: list[str], threads: int) -> Callable[[], None]:
    """Reading each file's values into a row, in a shuffled order; two opened at a time with two threads."""
    out = np.empty((threads, 32, 24, 5, 5, 10))
    order = np.random.default_rng(1).permutation(len(paths)).tolist()

    def some(thread: int) -> None:
        for at, k in enumerate(order[thread::threads]):
            descriptor = os.open(paths[k], os.O_RDONLY)
            os.preadv(descriptor, [out[thread, at % 32]], 128)
            os.close(descriptor)

    return lambda: in_threads(some, threads)


def least_of_ram(samples: int, threads: int, batches: int = 1) -> Callable[[], None]:
    """Gathering rows of kept images into the same few batches of each thread."""
    images = np.zeros((samples, 224, 224, 3), np.uint8)
    images += 1  # every page is there
    out = np.empty((threads, batches, 32, 224, 224, 3), np.uint8)
    order = np.random.default_rng(1).permutation(samples)

    def some(thread: int) -> None:
        for at, start in enumerate(range(32 * thread, samples, 32 * threads)):
            rows = order[start : start + 32]
            images.take(rows, 0, out[thread, at % batches, : len(rows)], mode="clip")

    return lambda: in_threads(some, threads)


def in_threads(work: Callable[[int], None], count: int) -> None:
    if count == 1:
        work(0)
        return
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


EPOCHS = 5  # of each run in a round; the caches hold the data of the run before it at first


def measured(runs: dict[str, Callable[[], None]], samples: int, rounds: int = 12) -> dict[str, Any]:
    """For each run: microseconds of CPU and of wall time per sample, page faults and context switches per sample; medians."""
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            run()
            before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            cpu = time.process_time()
            for _ in range(EPOCHS):
                run()
            wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
            after = resource.getrusage(resource.RUSAGE_SELF)
            if turn:
                found[name].append([
                    cpu * 1e6, wall * 1e6, after.ru_minflt - before.ru_minflt,
                    after.ru_nvcsw - before.ru_nvcsw,
                ])  # fmt: skip
    return {
        name: [statistics.median(one) / samples / EPOCHS for one in zip(*each, strict=True)]
        for name, each in found.items()
    }


def spin() -> None:
    while True:
        pass


def of_files(kind: str, folder: Path, samples: int) -> list[Row]:
    """W6 or W7: kloaders and the minimum, with one thread, with two, and on half a core."""
    if kind == "W6":
        paths, least = small_files(folder, samples), least_of_files
        ours: Any = {"cache": None}
    else:
        paths, ours = photographs(folder, samples), {"size": (224, 224)}

        def least(paths: list[str], threads: int) -> Callable[[], None]:
            return least_of_ram(len(paths), threads)

    labels = np.arange(samples)

    def run(workers: int | None) -> Callable[[], None]:
        loader = kl.PathSequenceLoader(
            paths, labels, 32, shuffle=True, seed=1, workers=workers, **ours
        )
        epoch(loader)
        return lambda: epoch(loader)

    runs = {
        "minimum, 1 thread": least(paths, 1), "kloaders, workers=0": run(0),
        "minimum, 2 threads": least(paths, 2), "kloaders, workers=2": run(2),
        "kloaders, the default": run(None),
    }  # fmt: skip
    if kind == "W7":  # as many as a loader needs whose caller holds one while others are filled
        runs["minimum, 2 threads, 3 batches for each"] = least_of_ram(len(paths), 2, 3)
    rows: list[Row] = [(name, cost) for name, cost in measured(runs, samples).items()]
    usual = sys.getswitchinterval()
    for interval in (0.0005, 0.05):
        sys.setswitchinterval(interval)
        name = "kloaders, workers=2"
        rows.append((f"... with a switch interval of {interval * 1e3:g} ms (default: 5 ms)",
                     measured({name: runs[name]}, samples)[name]))  # fmt: skip
    sys.setswitchinterval(usual)
    if hasattr(os, "sched_setaffinity"):
        every = os.sched_getaffinity(0)
        one = {min(every)}
        for task in os.listdir("/proc/self/task"):  # threads that there are keep their own cores
            os.sched_setaffinity(int(task), one)
        other = multiprocessing.get_context("fork").Process(target=spin, daemon=True)
        other.start()
        rows += [
            (f"on half a core: {name}", cost) for name, cost in measured(runs, samples).items()
        ]
        other.kill()
        for task in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(task), every)
    each = {
        "W6": [
            (
                "included: opening and closing a file",
                lambda k: os.close(os.open(paths[k], os.O_RDONLY)),
            ),
            ("included: extracting the path from the list", lambda k: loader_paths[k]),
        ],
        "W7": [("the stat of a file, at most every two seconds", lambda k: os.stat(paths[k]))],
    }[kind]
    loader_paths = kl.PathSequenceLoader(paths, labels, 32).paths
    rows += [(name, [best(call, samples)]) for name, call in each]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["W4", "W6", "W7"], default=["W4", "W6", "W7"])
    parser.add_argument("--quick", action="store_true", help="few samples: does it run?")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    tables: dict[str, Any] = {}
    if "W4" in args.only:
        arrays = 1024 if args.quick else 20_000
        by_size = [dict(steps_in_ram(size, arrays)) for size in (32, 256)]
        tables["W4"] = [(name, [table[name][0] for table in by_size]) for name in by_size[0]]
        print("| us of CPU per batch | 32 samples | 256 samples |\n| --- | --- | --- |")
        for name, costs in tables["W4"]:
            print(f"| {name} | {' | '.join(f'{cost:.1f}' for cost in costs)} |")
        print()
    for kind in ("W6", "W7"):
        if kind in args.only:
            samples = 320 if args.quick else {"W6": 5000, "W7": 1000}[kind]
            with tempfile.TemporaryDirectory(prefix="kloaders-steps-") as folder:
                tables[kind] = of_files(kind, Path(folder), samples)
            print(
                f"| {kind}, per sample | us of CPU | us of wall time | page faults | context switches |"
            )
            print("| --- |" + " --- |" * 4)
            for name, costs in tables[kind]:
                said = [f"{cost:.2f}" for cost in costs] + [""] * (4 - len(costs))
                print(f"| {name} | {' | '.join(said)} |")
            print()
    print(machine.in_words())
    if args.json:
        Path(args.json).write_text(
            json.dumps({"about": machine.describe(), **tables}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
