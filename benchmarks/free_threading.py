"""Measures what threads and processes gain on a transform in plain Python, on any interpreter.

python benchmarks/free_threading.py

Run it with each interpreter to compare, and on a free-threaded one with PYTHON_GIL=0 and PYTHON_GIL=1. Neither OpenCV
nor a framework is used by what is measured; KERAS_BACKEND chooses the backend that Keras imports. An epoch before
each timed one starts threads and processes. Every epoch must deliver each sample once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import machine
import numpy as np

import kloaders as kl

BATCH = 32
PIXELS = 12_544  # with three channels, as many values as W5 reads


def plain_python(x: Any, y: Any, rng: np.random.Generator) -> Any:
    """The loop of W5: holds the GIL, if there is one, for 1 to 2 ms."""
    total = 0
    for value in x.tobytes():
        total = (total * 3 + value) & 0xFFFF
    return x, y + 0 * total


def measured(loader: Any) -> dict[str, float]:
    """Load an epoch to start everything, and another one; return the seconds and CPU seconds of that.

    Closed, the loader prefetches nothing while the next one is measured.
    """
    epoch(loader)
    took = epoch(loader)
    loader.close()
    return took


def epoch(loader: Any) -> dict[str, float]:
    cpu, begin = _cpu_seconds(), time.perf_counter()
    seen = [y for _, y in loader]
    took = {"seconds": time.perf_counter() - begin, "cpu_seconds": _cpu_seconds() - cpu}
    if sorted(np.concatenate(seen).tolist()) != list(range(loader.samples)):
        raise SystemExit("An epoch did not deliver every sample exactly once.")
    return took


def _cpu_seconds() -> float:
    """Those of this process; worker processes count only once they have ended."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def gil() -> str:
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()  # since Python 3.13
    return "with the GIL" if enabled else "without the GIL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=512, help="default: %(default)s")
    parser.add_argument(
        "--rounds", type=int, default=5, help="prints medians (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=machine.cores(), help="default: the cores")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    heavy = np.random.default_rng(0).integers(0, 256, (args.samples, PIXELS, 3), np.uint8)
    cheap = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    # A long queue would begin the next epoch, or hold a part of it, while one is timed.
    python: dict[str, Any] = {"transform": plain_python, "batch_size": BATCH, "max_queue_size": 2}
    loaders = {
        "plain Python, workers=0": (heavy, python | {"workers": 0}),
        f"plain Python, {args.workers} threads": (heavy, python | {"workers": args.workers}),
        f"plain Python, {args.workers} processes": (
            heavy,
            python | {"workers": args.workers, "processes": True},
        ),
        "W4-32 (small arrays), workers=0": (cheap, {"batch_size": 32, "workers": 0}),
        "W4-256 (small arrays), workers=0": (cheap, {"batch_size": 256, "workers": 0}),
    }
    made = {
        name: kl.ArraySequenceLoader(x, np.arange(len(x)), shuffle=True, seed=0, **options)
        for name, (x, options) in loaders.items()
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    for _ in range(args.rounds):
        for name, loader in made.items():
            runs[name].append(measured(loader))
    print(f"| {gil()} | samples/s (range) | us per batch | CPU us per batch |")
    print("| --- | --- | --- | --- |")
    for name, rows in runs.items():
        samples = made[name].samples
        batches = -(-samples // made[name].batch_size)
        pace = sorted(samples / row["seconds"] for row in rows)
        wall = statistics.median(row["seconds"] for row in rows) / batches * 1e6
        cpu = statistics.median(row["cpu_seconds"] for row in rows) / batches * 1e6
        own = "" if "processes" in name else f"{cpu:,.0f}"
        print(
            f"| {name} | {statistics.median(pace):,.0f} ({pace[0]:,.0f} to {pace[-1]:,.0f}) "
            f"| {wall:,.0f} | {own} |"
        )
    print(f"\n{machine.in_words()}; {gil()}")
    if args.json:
        about = {"about": machine.describe() | {"gil": gil()}, "results": runs}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
