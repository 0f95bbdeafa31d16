"""Measures how long a sample holds the GIL, which limits the throughput of one process on any number of cores.

python benchmarks/gil.py

One thread makes batches. Every 97 microseconds a timer interrupts it, and C code checks whether it holds the GIL
(needs Linux and `cc`). The result is the fraction of checks that found it held, times the thread's CPU time. The
first two rows are calls with known results. For a comparison, set PYTHONPATH to another checkout.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import cv2
import data
import machine
import numpy as np

import kloaders as kl

# A timer interrupts the thread, and its signal handler checks whether the thread holds the GIL. So a NumPy
# search that releases the GIL counts as free, as it is for other threads, and no list of calls is needed.
SAMPLER = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
int PyGILState_Check(void);
static volatile long total, held;
static timer_t timer;
static void tick(int number) { (void)number; total++; held += PyGILState_Check(); }
int begin(long nanoseconds) {
    struct sigaction action; struct sigevent event;
    struct itimerspec every = {{0, nanoseconds}, {0, nanoseconds}};
    memset(&action, 0, sizeof action); memset(&event, 0, sizeof event);
    action.sa_handler = tick; action.sa_flags = SA_RESTART;
    event.sigev_notify = SIGEV_THREAD_ID; event.sigev_signo = SIGPROF;
    event.sigev_notify_thread_id = syscall(SYS_gettid);
    total = held = 0;
    return sigaction(SIGPROF, &action, 0) || timer_create(CLOCK_MONOTONIC, &event, &timer)
        || timer_settime(timer, 0, &every, 0);
}
void end(long *out) { timer_delete(timer); out[0] = total; out[1] = held; }
"""
EVERY = 97_000  # nanoseconds; a prime number of microseconds avoids synchronizing with anything
CORES = 16  # for which the throughput is projected


def sampler(folder: str) -> Any:
    """Compile the functions above."""
    source, library = f"{folder}/sampler.c", f"{folder}/sampler.so"
    Path(source).write_text(SAMPLER)
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-lrt"]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise SystemExit("gil.py needs a C compiler, and Linux: apt-get install gcc") from None
    return ctypes.CDLL(library)


def measure(timer: Any, call: Callable[[], int], seconds: float) -> dict[str, float]:
    """CPU microseconds per sample, and those with the GIL held. `call` returns its number of samples."""
    call()
    found, samples, begin = (ctypes.c_long * 2)(), 0, time.thread_time()
    if timer.begin(ctypes.c_long(EVERY)):
        raise SystemExit("This system has no timer for a thread; gil.py needs Linux.")
    while time.thread_time() - begin < seconds:
        samples += call()
    used = (time.thread_time() - begin) * 1e6 / samples
    timer.end(found)
    return {"us": used, "held_us": used * found[1] / found[0], "times_looked": found[0]}


def epoch(loader: Any) -> int:
    for batch in range(len(loader)):
        loader[batch]
    return int(loader.samples)


def python_loop() -> int:
    for _ in range(10_000):
        pass
    return 1


def checksum(content: bytes = bytes(2**20)) -> int:
    hashlib.sha256(content)
    return 1


# Calls with known results: the first always holds the GIL, the second never.
KNOWN = {"a loop in Python": python_loop, "SHA-256 of 1 MiB": checksum}


def sources(folder: str, count: int, given: str | None) -> Iterator[tuple[str, Any]]:
    """Yield a loader for each kind of source; with workers=0 the calling thread does everything."""
    jpegs = data.photographs(f"{folder}/jpegs", count, given)
    arrays = data.small_arrays(f"{folder}/arrays", count)
    labels = np.arange(count)
    alone: dict[str, Any] = {"workers": 0, "cache": None}
    resized = {"size": (data.SIDE, data.SIDE), **alone}
    photographs = kl.PathSequenceLoader(jpegs, labels, **resized)
    yield "JPEG, resized to 224 x 224", photographs
    pngs = [f"{folder}/{k}.png" for k in range(count)]
    for k, path in enumerate(pngs):
        cv2.imwrite(path, np.ascontiguousarray(photographs[k // 32][0][k % 32]))
    yield "PNG of 224 x 224", kl.PathSequenceLoader(pngs, labels, **alone)
    small = kl.PathSequenceLoader(arrays, labels, **alone)
    yield ".npy of 48 KB", small
    kl.write_tfrecords(small, out=f"{folder}/records", progress=False)
    features = {"x": "x", "y": "label"}
    records = sorted(str(path) for path in Path(folder).glob("records-*.tfrecord"))
    yield "TFRecord, 48 KB", kl.TFRecordSequenceLoader(records, features, **alone)
    kl.write_pack(photographs, f"{folder}/pack", progress=False)
    yield "row of a pack, 150 KB", kl.PackSequenceLoader(f"{folder}/pack", workers=0)
    with tarfile.open(f"{folder}/photographs.tar", "w") as archive:
        for k, path in enumerate(jpegs):
            archive.add(os.path.realpath(path), f"{k:06}.jpg")
            label = tarfile.TarInfo(f"{k:06}.cls")
            label.size = len(str(k))
            archive.addfile(label, io.BytesIO(str(k).encode()))
    tar = kl.TarSequenceLoader(f"{folder}/photographs.tar", x="jpg", y="cls", **resized)
    yield "JPEG in a tar, resized", tar
    with suppress(ImportError):
        import pyarrow as pa
        from pyarrow import parquet

        raws = [Path(path).read_bytes() for path in jpegs]
        table = pa.table({"image": raws, "label": labels})
        parquet.write_table(table, f"{folder}/photographs.parquet", row_group_size=64)
        file = f"{folder}/photographs.parquet"
        yield (
            "JPEG in Parquet, resized",
            kl.ParquetSequenceLoader(file, x="image", y="label", **resized),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=320, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="prints median and range")
    parser.add_argument(
        "--seconds", type=float, default=3, help="CPU seconds for each kind of source"
    )
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    cv2.setNumThreads(0)  # the CPU clock of this thread does not count OpenCV's own threads
    results = {}
    with tempfile.TemporaryDirectory(prefix="kloaders-gil-") as folder:
        timer = sampler(folder)
        for name, call in KNOWN.items():
            results[name] = measure(timer, call, 0.5)
        for name, loader in sources(folder, args.files, args.data):
            runs = [
                measure(timer, functools.partial(epoch, loader), args.seconds / args.rounds)
                for _ in range(args.rounds)
            ]
            runs.sort(key=lambda row: row["held_us"])
            ends = {"least": runs[0]["held_us"], "most": runs[-1]["held_us"]}
            # Not the minimum: with a few hundred checks per run it would be too small by chance.
            results[name] = runs[len(runs) // 2] | ends
    print(
        "| us per sample | CPU | GIL held (range) | share | cores that one process can feed "
        f"| samples/s of {CORES} cores, at most |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in results.items():
        held = max(row["held_us"], 1e-3)
        spread = f" ({row['least']:,.1f} to {row['most']:,.1f})" if "least" in row else ""
        first = f"| {name} | {row['us']:,.1f} | {held:,.1f}{spread} | {held / row['us']:.1%} |"
        if name in KNOWN:
            print(f"{first} | |")
        else:
            at_most = min(CORES / row["us"], 1 / held) * 1e6
            print(f"{first} {row['us'] / held:.1f} | {at_most:,.0f} |")
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "results": results}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
