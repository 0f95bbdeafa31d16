"""Measures a loader over ten million files: time to make it, memory, and time to the first batch.

python benchmarks/ten_million_paths.py --samples 10000000

The ten million paths differ, and each can be read: they are a thousand files, reached through ten
thousand links to their folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import machine
import numpy as np
from tqdm import tqdm

import kloaders as kl

FILES, SHAPE, BATCH = 1000, (32, 32), 32
# What issue 2 of the project asks for, at ten million.
LIMITS = {
    "construct_seconds": 15.0,
    "kept_bytes_a_sample": 40.0,
    "first_batch_ms": 100.0,
    "fit_first_batch_ms": 100.0,
}
TOLD = {
    "construct_seconds": "seconds to construct",
    "kept_bytes_a_sample": "bytes per sample held, besides the path itself: all arrays, including labels",
    "kept_rss_bytes_a_sample": "the same by the growth of the process: without the user's labels",
    "peak_bytes_a_sample": "bytes per sample in total, at the peak of construction",
    "path_bytes": "bytes of a path itself",
    "first_batch_ms": "ms to the first batch, shuffle=True",
    "second_batch_ms": "ms to the second",
    "fit_first_batch_ms": "ms to the first batch in fit, shuffled",
    "fit_first_step_ms": "ms from calling fit to the end of its first step",
    "fit_step_ms": "ms per step, median",
}


def write_files(folder: str, samples: int) -> list[str]:
    """Make `samples` different paths of existing files."""
    real = Path(folder, "files")
    real.mkdir()
    for k in range(FILES):
        np.save(real / f"{k:04}.npy", np.full(SHAPE, k, np.float32))
    links = -(-samples // FILES)
    for k in tqdm(range(links), desc="linking", unit=" folders"):
        os.symlink(real, f"{folder}/{k:06}", target_is_directory=True)
    return [f"{folder}/{k // FILES:06}/{k % FILES:04}.npy" for k in range(samples)]


def resident() -> int:
    """Bytes of this process in RAM, without mapped libraries."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def measure(samples: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="kloaders-paths-") as folder:
        paths = write_files(folder, samples)
        labels = np.arange(samples, dtype=np.int32)
        own = sum(len(os.fsencode(p)) for p in paths) / samples
        warm_up(paths[:64], labels[:64])
        result = {"samples": samples, "path_bytes": own}

        gc.collect()
        before, top = resident(), reset_peak()
        begin = time.perf_counter()
        loader = kl.PathSequenceLoader(paths, labels, BATCH, shuffle=True, seed=1)
        result["construct_seconds"] = time.perf_counter() - begin
        result["peak_bytes_a_sample"] = (peak() - top) / samples
        gc.collect()
        # The list of paths still exists, so the growth is that of the loader. Its labels are the
        # user's array, which is not copied.
        result["kept_rss_bytes_a_sample"] = (resident() - before) / samples - own
        held = loader.paths.nbytes + labels.nbytes
        result["kept_bytes_a_sample"] = held / samples - own
        del paths

        begin = time.perf_counter()
        x, y = loader[0]
        result["first_batch_ms"] = (time.perf_counter() - begin) * 1e3
        check(x, y)
        begin = time.perf_counter()
        check(*loader[1])
        result["second_batch_ms"] = (time.perf_counter() - begin) * 1e3
        loader.close()
        result |= in_fit(loader)
        return result


def check(x: Any, y: Any) -> None:
    """The first value of a file is the number of the file."""
    assert (x[:, 0, 0] == y % FILES).all()
    assert len(np.unique(y)) == BATCH


class Timed(kl.PathSequenceLoader):
    """Records the time of each batch that `fit` requests."""

    def __getitem__(self, index: int) -> Any:
        begin = time.perf_counter()
        try:
            return super().__getitem__(index)
        finally:
            waits.append((begin, (time.perf_counter() - begin) * 1e3))


waits: list[tuple[float, float]] = []


class Steps(keras.callbacks.Callback):
    """Records when steps end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())


model = keras.Sequential(
    [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)]
)
model.compile("sgd", "mse")


def warm_up(paths: list[str], labels: Any) -> None:
    """Import, compile and start everything that is started once per process."""
    model.fit(kl.PathSequenceLoader(paths, labels, BATCH), verbose=0)


def in_fit(loader: kl.PathSequenceLoader) -> dict[str, float]:
    """The same files through `fit`, with a loader that has not been used before."""
    loader = loader.view()
    loader.__class__ = Timed
    waits.clear()
    steps = Steps()
    begin = time.perf_counter()
    model.fit(loader, steps_per_epoch=50, verbose=0, callbacks=[steps])
    loader.close()
    # Keras takes a batch or two before it begins, so the longest wait of the first step counts.
    return {
        "fit_first_batch_ms": max(wait for at, wait in waits if at < steps.ends[0]),
        "fit_first_step_ms": (steps.ends[0] - begin) * 1e3,
        "fit_step_ms": float(np.median(np.diff(steps.ends))) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    results = [measure(samples) for samples in args.samples]
    print("| | " + " | ".join(f"{r['samples']:,} paths" for r in results) + " | at most |")
    print("| --- |" + " --- |" * (len(results) + 1))
    for name, words in TOLD.items():
        cells = [f"{r[name]:,.2f}" for r in results]
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        print(f"| {words} | {' | '.join(cells)} | {limit} |")
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "results": results}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")
    if any(r[name] > most for r in results for name, most in LIMITS.items()):
        sys.exit("more than allowed")


if __name__ == "__main__":
    main()
