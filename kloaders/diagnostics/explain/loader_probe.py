"""Measures a loader alone, and the files that it reads, in samples per second."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Generator, Iterable
from typing import Any

from kloaders.core.ray import Ray
from kloaders.core.structure import flatten
from kloaders.core.threads import ThreadPool
from kloaders.diagnostics.explain.measured import Run
from kloaders.formats import files
from kloaders.formats.files import read_bytes

__all__ = ["drive", "evict", "files_per_second"]

# Seconds to wait until all processes have started; the first one answers earlier.
_PROCESSES_START = 2.0


def drive(view: Any, seconds: float, at_most: int | None = None) -> Run:
    """Read batches for this many seconds, as a custom loop would, without a model.

    Args:
        view: a view of a loader.
        seconds: how long to read.
        at_most: the number of samples after which to stop earlier.
    """
    batches = _forever(view)
    began = time.perf_counter()
    next(batches)  # starts the threads
    started = time.perf_counter()
    # At least two batches, or one if a batch takes longer than `seconds`.
    least = 2 if started - began < seconds else 1
    while view.processes and time.perf_counter() - started < _PROCESSES_START:
        next(batches)
    worked = _worked(view)
    begin, cpu = time.perf_counter(), time.process_time()
    samples = count = 0
    while count < least or time.perf_counter() - begin < seconds:
        samples += len(flatten(next(batches))[0])
        count += 1
        if at_most is not None and samples >= at_most and count >= least:
            break
    wall = time.perf_counter() - begin
    busy = (time.process_time() - cpu) / wall
    engine = view.runner.engine
    inline = engine is not None and engine.inline(view.batch_size)
    decoding = None
    if isinstance(view.processes, Ray) and not view.runner.process_pool().local:
        decoding = min(1.0, (_worked(view) - worked) / wall / view.processes.cpus)
    batches.close()
    view.runner.release()
    return Run(samples / wall, busy, bool(inline), decoding)


def _worked(view: Any) -> float:
    """The seconds for which Ray actors have worked for the loader."""
    return float(getattr(view.runner.process_pool(), "worked", 0.0))


def _forever(view: Any) -> Generator[Any, None, None]:
    while True:
        view.on_epoch_begin()
        for k in range(len(view)):
            yield view[k]
        view.on_epoch_end()


def evict(names: Iterable[str]) -> None:
    """Ask the system to drop these files from its page cache."""
    for name in names:
        files.evict(name)


def files_per_second(names: list[str], threads: int, seconds: float) -> float:
    over = threading.Event()
    done = itertools.count()

    def read(name: str) -> None:
        if not over.is_set():
            with contextlib.suppress(OSError, ValueError):
                read_bytes(name)
            next(done)

    with ThreadPool(threads, "kloaders-probe") as pool:
        begin = time.perf_counter()
        timer = threading.Timer(seconds, over.set)
        timer.start()
        for _ in pool.map(read, names):
            pass
        wall = time.perf_counter() - begin
        timer.cancel()
    return next(done) / wall
