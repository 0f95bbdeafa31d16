"""Measures how costs grow with samples, storage speed, batch size, image size, threads and loaders alive.

python benchmarks/growth.py            # all curves in one table
python benchmarks/growth.py samples    # only some curves

A curve bends at the first value that differs from the median of the earlier values by a factor of 1.5.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import data
import machine
import numpy as np
import psutil

import kloaders as kl
from kloaders.plan.epoch import EpochPlan, Order

BATCH = 32
THREADS = 16  # for slow storage


class Curve(NamedTuple):
    """One quantity as a function of another that grows."""

    grows: str
    measured: str
    points: list[tuple[float, float]]
    why: str  # why it bends or does not


def samples(_: str) -> Iterator[Curve]:
    for words, options, why in (
        (
            "shuffled",
            {},
            "an order is computed block by block; 1,000 samples have 32 batches, and each epoch begins anew",
        ),
        (
            "RAM batches",
            {"window": 1024},
            "one RAM batch's order at a time, whatever the epoch has",
        ),
    ):
        plans = {
            10**k: EpochPlan(10**k, BATCH, seed=1, **options)
            for k in range(4 if options else 3, 10)
        }
        yield Curve(
            "samples",
            f"plan, {words}: us per batch",
            [(n, per_batch(p)) for n, p in plans.items()],
            why,
        )
        room = [(n, memory(p) / 1024) for n, p in plans.items()]
        yield Curve(
            "samples", f"plan, {words}: KiB at the peak", room, "blocks have a largest size"
        )


def per_batch(plan: EpochPlan) -> float:
    """Microseconds per batch, one after another, over new epochs."""
    runs = []
    for number in range(5):
        taken, begin = 0, time.perf_counter()
        for epoch in range(number * 1000, number * 1000 + 1000):
            order = plan.shuffled_order(epoch)
            for batch in range(min(plan.batches, 1024 - taken)):
                serve(plan, order, batch)
                taken += 1
            if taken >= 1024:
                break
        runs.append((time.perf_counter() - begin) / taken * 1e6)
    return median(runs)


def serve(plan: EpochPlan, order: Order, batch: int) -> None:
    """The calls of the plan that a loader makes for a batch."""
    if plan.window is None:
        plan.indices(order, batch)
    else:
        plan.read_window(order, plan.window_of(order, batch)).rows_of(batch)


def memory(plan: EpochPlan) -> int:
    """Peak memory of the plan in bytes, for batches from the whole epoch."""
    tracemalloc.start()
    order = plan.shuffled_order(10**6)
    for batch in np.linspace(0, plan.batches - 1, 64).astype(int).tolist():
        serve(plan, order, batch)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


def rate(loader: Any, seconds: float = 1) -> float:
    """Samples per second of warm epochs, in a loop."""
    taken, begin = 0, 0.0
    while not begin or time.perf_counter() - begin < seconds:
        loader.on_epoch_begin()
        for batch in range(len(loader)):
            loader[batch]
        loader.on_epoch_end()
        if begin:
            taken += loader.samples
        else:  # the first epoch fills caches
            begin = time.perf_counter()
    seconds = time.perf_counter() - begin
    loader.close()
    return taken / seconds


def files(paths: list[str], batch_size: int = BATCH, side: int = data.SIDE, **options: Any) -> Any:
    labels, size = np.arange(len(paths)), (side, side)
    return kl.PathSequenceLoader(
        paths, labels, batch_size, size=size, shuffle=True, cache=None, **options
    )


def batches(folder: str) -> Iterator[Curve]:
    paths = photographs(folder)
    points = [(size, rate(files(paths, size))) for size in (1, 8, 32, 128, 512)]
    yield Curve("batch size", "JPEG files: samples/s", points, "decoding is nearly all of it")
    rows = np.zeros((20_000, 32, 32, 3), np.uint8)
    sizes = (1, 8, 32, 128, 512)
    points = [(n, 1e6 * n / rate(kl.ArraySequenceLoader(rows, batch_size=n))) for n in sizes]
    yield Curve(
        "batch size",
        "arrays in RAM: us per batch",
        points,
        "from there on copying rows is most of it",
    )


def pictures(folder: str) -> Iterator[Curve]:
    paths = photographs(folder)
    points = [(side, rate(files(paths, side=side))) for side in (32, 64, 128, 224, 384, 512)]
    yield Curve(
        "pixels a side",
        "JPEG files: samples/s",
        points,
        "all of a file is decoded, whatever is kept",
    )


def threads(folder: str) -> Iterator[Curve]:
    paths = photographs(folder)
    counts = sorted({1, machine.cores(), 2 * machine.cores()})
    points = [(workers, rate(files(paths, workers=workers))) for workers in counts]
    yield Curve("workers", "JPEG files: samples/s", points, f"{machine.cores()} cores; see gil.py")


def storage(folder: str) -> Iterator[Curve]:
    """Files from storage that delivers 1 to 1,000 files per second to one reader."""
    paths = arrays(folder)
    points = []
    for each in (1, 10, 100, 1000):

        def slow(raw: bytes, seconds: float = 1 / each) -> Any:
            time.sleep(seconds)
            return np.frombuffer(raw, np.uint8, 64)

        chosen = paths[: THREADS * (2 if each == 1 else 8)]
        loader = kl.PathSequenceLoader(
            chosen, np.arange(len(chosen)), THREADS, decode=slow, workers=THREADS, cache=None
        )
        points.append((each, rate(loader, 1) / each))
    yield Curve(
        "files/s to one reader",
        f"samples/s with workers={THREADS}, as a multiple of that",
        points,
        f"{THREADS} readers wait at a time; an epoch here has 8 files a reader, and the last wait alone",
    )


def loaders(folder: str) -> Iterator[Curve]:
    paths = arrays(folder)
    alive: list[Any] = []
    kept, running, cost = [], [], []
    for count in (1, 10, 50, 200):
        before, had = process.memory_info().rss, len(alive)
        while len(alive) < count:
            alive.append(kl.PathSequenceLoader(paths, np.arange(len(paths)), BATCH, workers=1))
            alive[-1][0]
        kept.append((count, (process.memory_info().rss - before) / 2**20 / (count - had)))
        running.append((count, threading.active_count()))
        begin = time.thread_time()
        for loader in alive * (200 // count):
            loader[1]
        cost.append((count, (time.thread_time() - begin) / 200 * 1e6))
    for loader in alive:
        loader.close()
    say = "each has its own buffers and cache"
    yield Curve("loaders alive", "MiB for each new one, after its first batch", kept, say)
    yield Curve(
        "loaders alive", "threads of the process", running, "one worker each at the most: workers=1"
    )
    yield Curve(
        "loaders alive", "us of the caller per batch, all in turn", cost, "none looks at others"
    )


process = psutil.Process()


def photographs(folder: str) -> list[str]:
    return data.photographs(f"{folder}/jpegs", GIVEN.files, GIVEN.data)


def arrays(folder: str) -> list[str]:
    return data.small_arrays(f"{folder}/arrays", 256)


def bend(points: list[tuple[float, float]]) -> str:
    """The first point that differs from the median of the earlier ones by a factor of 1.5, and the factor."""
    for k, (x, value) in enumerate(points[1:], 1):
        before = median(earlier for _, earlier in points[:k])
        if before and not 1 / 1.5 < value / before < 1.5:
            return f"{said(x)} ({value / before:.2g} times)"
    return "nowhere"


def said(value: float) -> str:
    if value >= 10**4 and value == 10 ** round(math.log10(value)):
        return f"10^{round(math.log10(value))}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def row(curve: Curve) -> str:
    shown = ", ".join(f"{said(x)}: {said(value)}" for x, value in curve.points)
    return f"| {curve.grows} | {curve.measured} | {shown} | {bend(curve.points)} | {curve.why} |"


CURVES = (samples, storage, batches, pictures, threads, loaders)
GIVEN = argparse.Namespace(files=500, data=None)


def main() -> None:
    names = [curves.__name__ for curves in CURVES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", nargs="*", default=names, metavar="|".join(names))
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(namespace=GIVEN)
    found: list[Curve] = []
    print("| what grows | what is measured | at | bends at | why |\n" + "| --- " * 5 + "|")
    with tempfile.TemporaryDirectory(prefix="kloaders-growth-") as folder:
        for curves in CURVES:
            for curve in curves(folder) if curves.__name__ in args.curves else ():
                print(row(curve), flush=True)
                found.append(curve)
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "curves": [curve._asdict() for curve in found]}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
