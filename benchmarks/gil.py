"""How long a sample holds Python's lock: what one process can feed, however many cores it has.

python benchmarks/gil.py

The CPU time of one thread that makes batches, less the time inside the calls that release the lock
(decoding, resizing, reading, opening). What is left is Python, plus what these measurements cost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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

FREE: list[tuple[Any, str]] = [(cv2, name) for name in ("imdecode", "resize", "cvtColor")]
FREE += [(np, "take")]
with suppress(ImportError):
    import simplejpeg

    FREE += [(simplejpeg, "decode_jpeg")]
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


def sources(folder: str, count: int, given: str | None) -> Iterator[tuple[str, Any]]:
    """A loader of each kind of source; workers=0: everything in the thread that asks."""
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    cv2.setNumThreads(0)  # its own threads would do work that this thread's clock does not see
    results = {}
    with tempfile.TemporaryDirectory(prefix="kloaders-gil-") as folder:
        for name, loader in sources(folder, args.files, args.data):
            results[name] = measure(loader, args.rounds)
    print(
        "| us per sample | all | lock released | lock held | cores that one process can feed "
        "| samples/s of 16 cores, at most |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in results.items():
        feeds = row["us"] / row["held_us"]
        print(
            f"| {name} | {row['us']:.0f} | {row['lock_free_us']:.0f} | {row['held_us']:.0f} "
            f"| {feeds:.1f} | {min(16 / row['us'], 1 / row['held_us']) * 1e6:,.0f} |"
        )
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "results": results}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
