"""How cost grows: with the number of samples, the batch, the picture, and the threads.

python benchmarks/growth.py            # all four tables
python benchmarks/growth.py samples    # one of them
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import data
import machine
import numpy as np

import kloaders as kl
from kloaders.plan.epoch import EpochPlan, Order

Rows = list[dict[str, Any]]
BATCH = 32


def samples() -> Rows:
    """The plan alone, at 1,000 to 100 million samples: no step of it may grow with them."""
    rows = []
    for power in range(3, 9):
        count = 10**power
        row: dict[str, Any] = {"samples": count}
        for words, options in {
            "shuffled": {},
            "RAM batches": {"window": 1024},
        }.items():
            if options and count <= 1024:
                continue
            plan = EpochPlan(count, BATCH, seed=1, **options)
            row[f"{words}, us per batch"] = per_batch(plan)
            row[f"{words}, KiB"] = memory(plan) / 1024
        rows.append(row)
    return rows


def per_batch(plan: EpochPlan) -> float:
    """Microseconds a batch, one after another, over new epochs."""
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
    """What a loader asks of the plan for a batch."""
    if plan.window is None:
        plan.indices(order, batch)
    else:
        plan.read_window(order, plan.window_of(order, batch)).rows_of(batch)


def memory(plan: EpochPlan) -> int:
    """Bytes that the plan needed at its peak, for batches from all over an epoch."""
    tracemalloc.start()
    order = plan.shuffled_order(10**6)
    for batch in np.linspace(0, plan.batches - 1, 64).astype(int).tolist():
        serve(plan, order, batch)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


def rate(loader: Any, seconds: float = 2) -> float:
    """Samples a second of warm epochs, taken in a loop."""
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


def batches(paths: list[str]) -> Rows:
    """JPEG files in batches of 1 to 512."""
    return [
        {"batch size": size, "samples/s": rate(files(paths, size))} for size in (1, 8, 32, 128, 512)
    ]


def pictures(paths: list[str]) -> Rows:
    """JPEG files resized to squares of 32 to 512 pixels."""
    return [
        {"pixels a side": side, "samples/s": rate(files(paths, side=side))}
        for side in (32, 64, 128, 224, 384, 512)
    ]


def threads(paths: list[str]) -> Rows:
    """JPEG files on 0 (the caller's own) to twice as many threads as there are cores."""
    found: Rows = []
    for workers in (0, *sorted({1, machine.cores(), 2 * machine.cores()}), None):
        row = {"workers": "not said" if workers is None else workers}
        row["samples/s"] = rate(files(paths, workers=workers))
        found.append(row)
    return found


def table(rows: Rows) -> str:
    heads = list(rows[-1])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row.get(head, "-") for head in heads]
        shown = [f"{c:,.0f}" if isinstance(c, (int, float)) and c >= 100 else c for c in cells]
        shown = [f"{c:.1f}" if isinstance(c, float) else str(c) for c in shown]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


TABLES: dict[str, Callable[..., Rows]] = {
    "samples": samples,
    "batches": batches,
    "pictures": pictures,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="|".join(TABLES))
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kloaders-growth-") as folder:
        paths: list[str] = []
        found = {}
        for name in args.tables:
            if name != "samples" and not paths:
                paths = data.photographs(f"{folder}/jpegs", args.files, args.data)
            found[name] = TABLES[name](*([] if name == "samples" else [paths]))
            print(f"\n{TABLES[name].__doc__}\n\n{table(found[name])}", flush=True)
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "tables": found}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
