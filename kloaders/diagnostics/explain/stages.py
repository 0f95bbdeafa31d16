"""Measures the cost of each stage for single samples, in the calling thread."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from kloaders.core.memory import aligned
from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten, map_structure
from kloaders.diagnostics.explain.file_columns import (
    image_options,
    paths_of,
    uncached,
    with_dct_scaling,
)
from kloaders.diagnostics.explain.loader_probe import evict
from kloaders.formats.files import read_bytes, suffix_of
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source

__all__ = ["Stages", "measure_stages"]

# The maximum decoded bytes that are held while measuring, and the maximum number of samples.
_HELD_BYTES, _LOOKED_AT = 2**27, 256


class Stages:
    """The costs of samples that were read one by one, in this thread.

    Args:
        view: a view of the loader.
        tried: the numbers of the samples to read. `indices` gets those that load, and `samples` the
            samples.
    """

    def __init__(self, view: Loader, tried: list[int]) -> None:
        self.view = view
        self.tried = tried
        self.indices: list[int] = []
        self.samples: list[Any] = []
        self.times: dict[str, float] = {}
        self.cpu = self.wall = 0.0
        self.remote = view.source.fetches
        self.paths = None if self.remote else paths_of(view)
        self.stored = 0

    def add(self, name: str, seconds: float) -> None:
        self.times[name] = self.times.get(name, 0.0) + seconds

    def found(self) -> dict[str, Any]:
        """The fields of `Measured`."""
        n = max(1, len(self.samples))
        each = {name: seconds / n for name, seconds in self.times.items()}
        if self.paths is None and each.get("read_s", 0.0) < 0.05 * each.get("decode_s", 0.0):
            each.pop("read_s", None)  # nothing was waited for
        busy = min(1.0, self.cpu / self.wall) if self.wall > 0 else 1.0
        return {**each, "alone_busy": max(0.05, busy)}

    def arrays(self) -> Any:
        """The stored samples, stacked; None if they differ in shape."""
        try:
            return map_structure(lambda *leaves: np.stack(leaves), *self.samples)
        except ValueError:
            return None


def measure_stages(view: Loader, seconds: float, transform: bool = True) -> Stages:
    """Read samples for about this many seconds; at least four, if that takes at most twice the time.

    Samples that fail to load are left out if the loader skips or replaces them.

    Raises:
        SampleError: a sample fails to load (on_error="raise"), or all samples that were read do.
    """
    stages = Stages(view, _some(view))
    form = flatten(view.sample_spec if transform else view.raw_spec)
    rows = [aligned(max(1, s.nbytes)) for s in form]
    held, failure = 0, None
    begin = time.perf_counter()
    for index in stages.tried:
        spent = time.perf_counter() - begin
        enough = spent > seconds or held > _HELD_BYTES
        if enough and (
            len(stages.samples) >= 4 or (stages.samples and spent > max(0.5, 2 * seconds))
        ):
            break
        try:
            sample = _take(stages, index, transform, rows)
        except Exception as error:  # a user's hook or transform may raise anything
            failure = view.runner.log.explained(index, error)
            if view.on_error == "raise":
                raise failure from error
            continue
        held += sum(np.asarray(leaf).nbytes for leaf in flatten(sample))
        stages.samples.append(sample)
        stages.indices.append(index)
    if not stages.samples and failure is not None:
        raise failure
    if stages.paths is not None:
        _try_dct(stages, seconds / 4)
    return stages


def _take(stages: Stages, index: int, transform: bool, rows: list[Any]) -> Any:
    """Read one stored sample, and add its costs if it loads."""
    view = stages.view
    source: Source = view.source
    cost, stored = _read_alone(stages, index)
    cached = cost.get("read_cached_s", 0.0)
    begin, cpu = time.perf_counter(), time.thread_time()
    # Other threads make the requests, as in training.
    claims = source.fetch_ahead(np.array([index])) if stages.remote else ()
    sample = source.sample(index, Moment())
    for claim in claims:
        claim.release()
    wall, used = time.perf_counter() - begin, time.thread_time() - cpu
    if stages.paths is None:  # the waiting time of a hook, and its CPU time
        cost |= {"read_s": max(0.0, wall - used), "decode_s": used}
    else:
        cost["decode_s"] = max(0.0, wall - cached)
    done = sample
    if transform and view.transform is not None:
        begin = time.perf_counter()
        done = view.runner.pipeline.transformed(index, sample, Moment())
        cost["transform_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    for leaf, row in zip(flatten(done), rows, strict=False):
        a = np.asarray(leaf)
        if a.nbytes <= row.nbytes and not a.dtype.hasobject:
            np.copyto(row[: a.nbytes], np.ascontiguousarray(a).reshape(-1).view(np.uint8))
    cost["copy_s"] = time.perf_counter() - begin
    stages.wall += wall
    stages.cpu += used
    stages.stored += stored
    for name, seconds in cost.items():
        stages.add(name, seconds)
    return sample


def _some(view: Loader) -> list[int]:
    """Sample numbers in the order of a shuffled epoch, so that they come from the whole data set."""
    found: list[int] = []
    order = view.plan.shuffled_order(0)
    for batch in range(view.plan.count(order)):
        found += view.plan.indices(order, batch).tolist()
        if len(found) >= _LOOKED_AT:
            break
    return found[:_LOOKED_AT]


def _read_alone(stages: Stages, index: int) -> tuple[dict[str, float], int]:
    """Read a sample's files from disk, then from the page cache. -> seconds of both, and bytes."""
    if stages.paths is None:
        return {}, 0
    names = stages.paths(index)
    evict(names)
    begin = time.perf_counter()
    stored = sum(len(read_bytes(name)) for name in names)
    read = time.perf_counter() - begin
    begin = time.perf_counter()
    for name in names:
        read_bytes(name)
    return {"read_s": read, "read_cached_s": time.perf_counter() - begin}, stored


def _try_dct(stages: Stages, seconds: float) -> None:
    """Decode the same JPEGs at a fraction of their size, if the loader resizes them."""
    if stages.view.source.runs_user_code:
        return
    columns = stages.view.source.columns
    options = [image_options(column) for column in flatten(columns) if columns is not None]
    if not any(o is not None and o.size is not None and not o.dct_scaling for o in options):
        return
    assert stages.paths is not None
    jpegs = (".jpg", ".jpeg", ".jpe", ".jfif")
    if not any(suffix_of(name) in jpegs for k in stages.indices[:8] for name in stages.paths(k)):
        return
    scaled = map_structure(with_dct_scaling, columns)
    count, spent, end = 0, 0.0, time.perf_counter() + seconds
    for index in stages.indices:
        if count >= 4 and time.perf_counter() > end:
            break
        for name in stages.paths(index):  # into the page cache, as for the first decoding
            read_bytes(name)
        begin = time.perf_counter()
        map_structure(lambda column, index=index: uncached(column).read(index), scaled)
        spent += time.perf_counter() - begin
        count += 1
    n = max(1, len(stages.samples))
    each = spent / max(1, count) - stages.times.get("read_cached_s", 0.0) / n
    stages.times["dct_decode_s"] = max(1e-9, each) * n
