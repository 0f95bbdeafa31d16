"""Compares decoding and packing on a local Ray cluster with the same work without Ray.

python benchmarks/on_ray.py                         # two photographs that come with scikit-learn, varied
python benchmarks/on_ray.py --data ~/photos         # your own photographs

Needs `pip install "kloaders[ray]"`, and for Ray Data pandas and pyarrow. The cluster has two CPUs. Contestants
take turns, one epoch each. Their figures are those of the middle half of the epoch, so that neither the start nor
prefetched samples count. A ratio compares two figures of one round, and the table has the medians. A contestant that
takes longer than `--patience` is stopped, reported, and left out of the medians. `--page FILE` writes the table
between the marks in that file.

"Bare Ray actors" is what Ray allows: two actors that run the same decoding code, and a loop that takes their
batches in order and copies them, without a loader. CPU of all processes is that of this program and of all its
descendants; it stays comparable when other programs use a part of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import data
import machine
import numpy as np
import psutil

import kloaders as kl
from kloaders.core.rows import Rows
from kloaders.core.structure import flatten, without_specs
from kloaders.plan.rng import Moment

SIZE, BATCH, CPUS = (224, 224), 32, 2
# A data set lists each file this many times, so that an epoch is long enough to measure: in the first seconds
# Ray uses new pages of its object store, which costs 2 % of decoding.
TIMES, TIMES_QUICK = 16, 6
MARKS = "<!-- on_ray: begin -->\n", "<!-- on_ray: end -->"
Figures = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="a folder of photographs; by default they are generated")
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: one round with few files"
    )
    parser.add_argument(
        "--patience", type=float, default=60.0, help="time limit of a contestant, in s"
    )
    parser.add_argument("--no-ray-data", action="store_true", help="leave Ray Data out")
    parser.add_argument(
        "--page", metavar="FILE", help="write the table into FILE, between the marks"
    )
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    if given.quick:
        given.files, given.rounds = 64, 1
    times = TIMES_QUICK if given.quick else TIMES
    with tempfile.TemporaryDirectory(prefix="kloaders-on-ray-") as folder:
        paths = data.photographs(f"{folder}/photographs", given.files, given.data)
        found: Figures = {}
        for k in range(min(3, given.rounds)):
            found.setdefault("first", [])
            with _reported(f"the first batch after ray.init, {k}"):
                found["first"].append(_first_batch(paths, given.patience))
        _rounds(paths, times, given, folder, found)
    rows = [("", "median", "goal"), ("---", "---", "---"), *_table(found)]
    said = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    said += f"\n{len(paths) * times:,} photographs, {given.rounds} rounds; {_load()}. {machine.in_words()}\n"
    print(said)
    if given.page:
        page = Path(given.page)
        before, _, rest = page.read_text().partition(MARKS[0])
        page.write_text(before + MARKS[0] + said + MARKS[1] + rest.partition(MARKS[1])[2])
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2))
    if any(row[1] == "failed" for row in rows):
        sys.exit("something failed: see above")


def _load() -> str:
    return f"the load of the last five minutes, this included, was {os.getloadavg()[1]:.1f}"


def _table(found: Figures) -> Iterator[tuple[str, str, str]]:
    def of(name: str, digits: int) -> str:
        values = [value for value in found.get(name, []) if not math.isnan(value)]
        return f"{median(values):,.{digits}f}" if values else "failed"

    def ratio(one: str, other: str) -> str:
        ratios = [
            a / b for a, b in zip(found[one], found[other], strict=True) if not math.isnan(a / b)
        ]
        return f"{median(ratios):.2f}" if ratios else "failed"

    yield "two Ray actors, photographs/s", of("actors", 0), ""
    yield "the same / two worker processes", ratio("actors", "processes"), "at least 0.9"
    yield "bare Ray actors / two worker processes", ratio("bare", "processes"), ""
    yield "two Ray actors / bare Ray actors", ratio("actors", "bare"), "at least 0.95"
    yield "CPU of all processes with Ray actors, ms per photograph", of("actors all cpu", 2), ""
    yield "the same with bare Ray actors", of("bare all cpu", 2), ""
    yield "the same with worker processes", of("processes all cpu", 2), ""
    yield (
        "the CPU of worker processes / of Ray actors",
        ratio("processes all cpu", "actors all cpu"),
        "",
    )
    yield "the caller's CPU with Ray actors, ms per photograph", of("actors cpu", 2), "at most 0.3"
    yield "the caller's CPU with worker processes", of("processes cpu", 2), ""
    for name in ("iter_batches", "to_tf"):
        if name in found:
            yield f"two Ray actors / Ray Data's {name}", ratio("actors", name), "more than 1"
            yield f"the caller's CPU with {name}", of(f"{name} cpu", 2), ""
    yield "first batch after ray.init, s", of("first", 1), "at most 6"
    yield "write_pack with one Ray worker, photographs/s", of("pack 1", 0), ""
    yield "the same / one thread of this process", ratio("pack 1", "pack"), ""
    yield "two Ray workers / one", ratio("pack 2", "pack 1"), ""


def _rounds(
    paths: list[str], times: int, given: argparse.Namespace, folder: str, found: Figures
) -> None:
    """Run each contestant in turn, for the given number of rounds. NaN: it failed."""
    import ray

    many = paths * times
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "actors": lambda: _of_loader(many, processes=kl.Ray(cpus=CPUS)),
        "bare": lambda: _middle_of(_bare(many), len(many)),
        "processes": lambda: _of_loader(many, processes=True, workers=CPUS),
    }
    if not given.no_ray_data:
        contestants["iter_batches"] = lambda: _middle_of(_iter_batches(many), len(many))
        contestants["to_tf"] = lambda: _middle_of(_to_tf(many), len(many))
    contestants["pack"] = lambda: _packed(paths * 3, folder)
    contestants["pack 1"] = lambda: _packed(paths * 3, folder, engine=kl.Ray(cpus=1))
    contestants["pack 2"] = lambda: _packed(paths * 3, folder, engine=kl.Ray(cpus=2))
    try:
        for k in range(given.rounds):
            for name, contestant in contestants.items():
                figures = {"": float("nan"), " cpu": float("nan"), " all cpu": float("nan")}
                with _reported(f"{name}, round {k}"):
                    _start(ray)
                    with _within(given.patience):
                        figures = contestant()
                if math.isnan(figures[""]):
                    ray.shutdown()  # its leftovers must not disturb others
                for what, value in figures.items():
                    found.setdefault(f"{name}{what}", []).append(value)
    finally:
        ray.shutdown()


def _of_loader(paths: list[str], **options: Any) -> dict[str, float]:
    """An epoch of a loader whose workers have started; checks its order."""
    labels = np.arange(len(paths))
    options = {"seed": 1, "shuffle": True, **options}
    order = kl.ArraySequenceLoader(labels, None, BATCH, seed=1, shuffle=True).epoch_batches(1, True)
    with kl.PathSequenceLoader(paths, labels, BATCH, size=SIZE, cache=None, **options) as loader:
        for k in range(2 * CPUS):
            loader[k]
        came: list[Any] = []

        def batches() -> Iterator[int]:
            for _, y in loader.epoch_batches(1, True):
                came.append(y)
                yield len(y)

        figures = _middle_of(batches(), len(paths))
    if not np.array_equal(np.concatenate(came), np.concatenate(list(order))):
        raise RuntimeError("not the order of the plan")
    return figures


def _bare(paths: list[str]) -> Iterator[int]:
    """Batches by two actors with the pipeline of a loader, taken in order."""
    import ray

    labels = np.arange(len(paths))
    with kl.PathSequenceLoader(paths, labels, BATCH, size=SIZE, cache=None) as loader:
        pipeline = loader.runner.pipeline.for_worker()
    form = pipeline.look(0, False)
    specs = [(spec.shape, spec.dtype) for spec in flatten(form)]

    class Decoder:
        def __init__(self, pipeline: Any, form: Any) -> None:
            self.pipeline, self.form = pipeline, form

        def fill(self, indices: Any) -> list[Any]:
            def fail(row: int, error: Exception) -> None:
                raise error

            out = [np.empty((len(indices), *shape), dtype) for shape, dtype in specs]
            self.pipeline.fill(indices, Rows(self.form, out), fail, Moment())
            return out

    make: Any = ray.remote(num_cpus=1)(Decoder)
    actors = [make.remote(pipeline, without_specs(form)) for _ in range(CPUS)]
    try:
        ray.get([actor.fill.remote(labels[:BATCH]) for actor in actors])
        order = np.random.default_rng(1).permutation(labels)
        batches = [order[k : k + BATCH] for k in range(0, len(order), BATCH)]
        copy = [np.empty((BATCH, *shape), dtype) for shape, dtype in specs]
        queue: deque[Any] = deque()
        for k in range(len(batches) + 2 * CPUS):
            if k >= 2 * CPUS:
                arrays = ray.get(queue.popleft())
                for mine, array in zip(copy, arrays, strict=True):
                    mine[: len(array)] = array
                yield len(arrays[0])
                del arrays, array
            if k < len(batches):
                queue.append(actors[k % CPUS].fill.remote(batches[k]))
    finally:
        for actor in actors:
            ray.kill(actor)


def _middle_of(sizes: Iterator[int], samples: int) -> dict[str, float]:
    """Photographs per second, and CPU milliseconds per photograph: of this process, and of all."""
    seen, at = 0, []
    for size in sizes:
        seen += size
        if seen >= samples * (1 + 2 * len(at)) / 4 and len(at) < 2:
            at.append((seen, time.perf_counter(), time.process_time(), _cpu_of_all()))
    (before, begin, cpu, all_cpu), (after, end, cpu_end, all_end) = at
    if seen != samples:
        raise RuntimeError(f"{seen} photographs of {samples} came")
    return {
        "": (after - before) / (end - begin),
        " cpu": 1e3 * (cpu_end - cpu) / (after - before),
        " all cpu": 1e3
        * sum(seconds - all_cpu.get(pid, 0.0) for pid, seconds in all_end.items())
        / (after - before),
    }


def _cpu_of_all() -> dict[int, float]:
    """Seconds of CPU of this process and of all that it has started, by process id."""
    found = {}
    me = psutil.Process()
    for process in (*me.children(recursive=True), me):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def _images(paths: list[str]) -> Any:
    """Decode and resize with Ray Data's own image reader, shuffled as well as it can."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data.read_images(paths, size=SIZE, mode="RGB", shuffle="files")


def _iter_batches(paths: list[str]) -> Iterator[int]:
    for batch in _images(paths).iter_batches(batch_size=BATCH):
        yield len(batch["image"])


def _to_tf(paths: list[str]) -> Iterator[int]:
    labelled = _images(paths).add_column("y", lambda rows: np.zeros(len(rows)))
    for x, _ in labelled.to_tf("image", "y", batch_size=BATCH):
        yield len(x)


def _packed(paths: list[str], folder: str, **engine: Any) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        kl.PathSequenceLoader(paths, None, BATCH, size=SIZE, workers=1) as loader,
    ):
        begin = time.perf_counter()
        kl.write_pack(loader, f"{out}/pack", shard_size="4MiB", progress=False, **engine)
        return {"": len(paths) / (time.perf_counter() - begin)}


def _first_batch(paths: list[str], patience: float) -> float:
    """Seconds from making a loader to its first batch, with actors of a Ray cluster that just started."""
    code = (
        "import sys, time, ray, on_ray, kloaders as kl; on_ray._start(ray);"
        "import keras;"  # any program with a model has done this before
        "begin = time.perf_counter();"
        "paths = sys.stdin.read().splitlines();"
        "kl.PathSequenceLoader(paths, None, 32, size=(224, 224), processes=kl.Ray(cpus=2))[0];"
        "print(time.perf_counter() - begin); ray.shutdown()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        input="\n".join(map(os.path.abspath, paths)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=patience,
    )
    return float(done.stdout.split()[-1])


def _start(ray: Any) -> None:
    if ray.is_initialized():
        return
    for attempt in range(3):  # its own start has a fixed limit, which a busy machine exceeds
        try:
            ray.init(
                address="local",
                num_cpus=CPUS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception:  # its errors have no common class
            ray.shutdown()
            if attempt == 2:
                raise
        else:
            return


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after this many seconds."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"not done in {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Report the failure, and continue."""
    begin = time.perf_counter()
    try:
        yield
    except Exception as error:
        print(f"failed: {what}: {type(error).__name__}: {error!s:.500}", file=sys.stderr)
    else:
        print(f"{what}: {time.perf_counter() - begin:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
