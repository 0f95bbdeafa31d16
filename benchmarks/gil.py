"""How long a sample holds Python's lock: what one process can feed, however many cores it has.

python benchmarks/gil.py

The CPU time of one thread that makes batches, less the time inside the calls that release the lock
(decoding, resizing, reading, opening). What is left is Python, plus what these measurements cost.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import cv2
import data
import machine
import numpy as np

import kloaders as kl

FREE = [(cv2, name) for name in ("imdecode", "resize", "cvtColor")]
FREE += [(os, name) for name in ("open", "fstat", "read", "readv", "preadv", "close")]


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds of CPU inside each of the calls, by name."""
    spent: dict[str, float] = {}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.thread_time() - begin

        return run

    with ExitStack() as stack:
        for module, name in FREE:
            if hasattr(module, name):
                new = timed(name, getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, new))
        yield spent


def measure(loader: Any, rounds: int) -> dict[str, float]:
    """Microseconds a sample: all, inside the calls, and the rest; the round with the least rest."""
    found = []
    for _ in range(rounds):
        with clocks() as spent:
            begin = time.thread_time()
            for batch in range(len(loader)):
                loader[batch]
            whole = time.thread_time() - begin
        scale = 1e6 / loader.samples
        free = sum(spent.values()) * scale
        found.append({"us": whole * scale, "lock_free_us": free, "held_us": whole * scale - free})
    return min(found, key=lambda row: row["held_us"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=320, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    cv2.setNumThreads(0)  # its own threads would do work that this thread's clock does not see
    results = {}
    with tempfile.TemporaryDirectory(prefix="kloaders-gil-") as folder:
        jpegs = data.photographs(f"{folder}/jpegs", args.files, args.data)
        arrays = data.small_arrays(f"{folder}/arrays", args.files)
        labels = np.arange(args.files)
        # workers=0: everything in this thread.
        for name, paths, options in (
            ("JPEG, resized to 224 x 224", jpegs, {"size": (data.SIDE, data.SIDE)}),
            (".npy of 48 KB", arrays, {}),
        ):
            loader = kl.PathSequenceLoader(paths, labels, workers=0, cache=None, **options)
            results[name] = measure(loader, args.rounds)
    print("| us a sample | all | lock released | lock held | cores that one process can feed |")
    print("| --- | --- | --- | --- | --- |")
    for name, row in results.items():
        feeds = row["us"] / row["held_us"]
        print(
            f"| {name} | {row['us']:.0f} | {row['lock_free_us']:.0f} | {row['held_us']:.0f} "
            f"| {feeds:.0f} |"
        )
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "results": results}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
