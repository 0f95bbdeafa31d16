"""Decoding and packing on a Ray cluster of this machine, beside what does the same without it.

python benchmarks/on_ray.py                         # two photographs that come with scikit-learn, varied
python benchmarks/on_ray.py --data ~/photos         # your own

Needs `pip install "kloaders[ray]"`, and for Ray Data pandas and pyarrow. Contestants take turns in rounds
of a few seconds; a ratio is of the two figures of one round, and the table has the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import data
import machine
import numpy as np

import kloaders as kl

SIZE, BATCH = (224, 224), 32
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder of photographs; by default they are made")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in a round")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kloaders-on-ray-") as folder:
        paths = data.photographs(f"{folder}/photographs", given.files, given.data)
        first = median(_first_batch(paths) for _ in range(min(3, given.rounds)))
        found = _rounds(paths, given.rounds, given.seconds, folder)
    rows = [*_table(found), ("first batch after ray.init, s", f"{first:.1f}", "at most 6")]
    print("| | median | goal |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n{len(paths)} photographs, {given.rounds} rounds. {machine.in_words()}")
    if given.json:
        Path(given.json).write_text(json.dumps({**found, "first batch": first}, indent=2))


def _table(found: dict[str, list[float]]) -> list[tuple[str, str, str]]:
    def ratio(one: str, other: str) -> str:
        pairs = zip(found[one], found[other], strict=True)
        return f"{median(a / b for a, b in pairs):.2f}"

    rows = [
        ("two Ray actors, photographs/s", f"{median(found['ray']):,.0f}", ""),
        ("/ two worker processes", ratio("ray", "processes"), "0.9"),
        ("caller's CPU, ms a photograph", f"{median(found['ray cpu ms']):.2f}", "at most 0.3"),
    ]
    rows += [
        (f"/ Ray Data, {name}", ratio("ray", name), "more than 1")
        for name in ("iter_batches", "to_tf")
        if name in found
    ]
    rows += [
        ("packing with one Ray worker / with one thread", ratio("pack ray 1", "pack 1"), ""),
        ("packing with two Ray workers / with one", ratio("pack ray 2", "pack ray 1"), ""),
    ]
    return rows


def _rounds(paths: list[str], rounds: int, seconds: float, folder: str) -> dict[str, list[float]]:
    import ray

    _start(ray, 2)
    labels = np.arange(len(paths))

    def loader(**options: Any) -> Any:
        return kl.PathSequenceLoader(paths, labels, BATCH, size=SIZE, seed=1, cache=None, **options)

    found: dict[str, list[float]] = {}
    sources: dict[str, Callable[[], contextlib.AbstractContextManager[Iterator[Any]]]] = {
        "ray": lambda: _endless(loader(processes=kl.Ray(cpus=2))),
        "processes": lambda: _endless(loader(processes=True, workers=2)),
    }
    with contextlib.suppress(ImportError):
        import pyarrow as pa  # noqa: F401  Ray Data needs it

        sources["iter_batches"] = lambda: _ray_data(paths, "iter_batches")
        sources["to_tf"] = lambda: _ray_data(paths, "to_tf")
    for k in range(rounds):
        for name, source in sources.items():
            figures = _driven(source, seconds)
            found.setdefault(name, []).append(figures["rate"])
            found.setdefault(f"{name} cpu ms", []).append(figures["cpu ms"])
        for name, options in (
            ("pack 1", {}),
            ("pack ray 1", {"engine": kl.Ray(cpus=1)}),
            ("pack ray 2", {"engine": kl.Ray(cpus=2)}),
        ):
            with kl.PathSequenceLoader(paths, labels, BATCH, size=SIZE, workers=1) as source_files:
                begin = time.perf_counter()
                out = f"{folder}/{name} {k}"
                kl.write_pack(source_files, out, shard_size="8MiB", progress=False, **options)
                rate = len(paths) / (time.perf_counter() - begin)
            found.setdefault(name, []).append(rate)
    ray.shutdown()
    return found


def _driven(
    source: Callable[[], contextlib.AbstractContextManager[Iterator[Any]]], seconds: float
) -> Figures:
    """Photographs per second, and the processor time of this process for each; the start is not counted."""
    with source() as batches:
        for _ in range(4):
            next(batches)
        begin, cpu, samples = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < seconds:
            samples += len(next(batches))
        wall, spent = time.perf_counter() - begin, time.process_time() - cpu
    return {"rate": samples / wall, "cpu ms": 1e3 * spent / samples}


@contextlib.contextmanager
def _endless(loader: Any) -> Iterator[Iterator[Any]]:
    def batches() -> Iterator[Any]:
        while True:
            for x, _ in loader:
                yield x

    with loader:
        yield batches()


@contextlib.contextmanager
def _ray_data(paths: list[str], how: str) -> Iterator[Iterator[Any]]:
    """Decoded and resized by Ray Data's own reader of images, shuffled as it can."""
    import ray

    def batches() -> Iterator[Any]:
        while True:
            images = ray.data.read_images(paths, size=SIZE, mode="RGB", shuffle="files")
            if how == "iter_batches":
                for batch in images.iter_batches(batch_size=BATCH):
                    yield batch["image"]
            else:
                numbered = images.add_column("y", lambda rows: np.zeros(len(rows)))
                for x, _ in numbered.to_tf("image", "y", batch_size=BATCH):
                    yield x

    ray.data.DataContext.get_current().enable_progress_bars = False
    yield batches()


def _start(ray: Any, cpus: int) -> None:
    for attempt in range(5):  # its own start has a fixed limit, which a busy machine exceeds
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception:  # its errors have no common class
            ray.shutdown()
            if attempt == 4:
                raise
        else:
            return


def _first_batch(paths: list[str]) -> float:
    """Seconds from a loader's making to its first batch, by actors of a Ray that has just started."""
    code = (
        "import sys, time, ray, on_ray, kloaders as kl, numpy as np; on_ray._start(ray, 2);"
        "begin = time.perf_counter();"
        "paths = sys.stdin.read().splitlines();"
        "kl.PathSequenceLoader(paths, None, 32, size=(224, 224), processes=kl.Ray(cpus=2))[0];"
        "print(time.perf_counter() - begin)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        input="\n".join(map(os.path.abspath, paths)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
