"""Verifies a loader: the structure of its files, and each sample as the loader reads it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.messages import shortened
from kloaders.core.protocols import Loader
from kloaders.core.ray import Ray
from kloaders.core.structure import flatten
from kloaders.core.threads import usable_cores
from kloaders.diagnostics.verify.comparison import Comparison
from kloaders.diagnostics.verify.report import Report
from kloaders.diagnostics.verify.tasks import (
    Task,
    kind_of_error,
    plan_pack,
    plan_records,
    plan_rows,
)
from kloaders.formats.files import IMAGE_SUFFIXES, suffix_of
from kloaders.formats.image_window import keep_encoded
from kloaders.plan.rng import Moment
from kloaders.sources.columns import PathColumn, SubsetColumn
from kloaders.sources.files import FileReader
from kloaders.sources.hooks import HookSource
from kloaders.sources.mds import MDSSource
from kloaders.sources.pack import PackColumn
from kloaders.sources.parquet import ParquetSource
from kloaders.sources.records import RecordSource
from kloaders.sources.source import Source
from kloaders.sources.tar import TarSource
from kloaders.sources.video import VideoSource

__all__ = ["check_samples", "plan_loader"]

# The number of neighbouring samples that one thread reads, since they may be in one file.
_AT_ONCE = 32


def plan_loader(loader: Loader, report: Report, tasks: list[Task]) -> None:
    """Append the tasks for files of known formats: images, arrays, videos, records, packs.

    Files of custom formats are read by `check_samples` only.
    """
    source: Source = loader.source
    parts = list(_parts(source))
    seen: set[str] = set()
    for part in parts:
        if isinstance(part, VideoSource):
            tasks += [{"path": path, "video": True} for path in part.files]
        elif isinstance(part, RecordSource):
            for path in part.records.paths:
                plan_records(path, report, tasks)
        elif isinstance(part, (TarSource, ParquetSource)):
            for path in part.paths_of_all:
                plan_rows(path, report, tasks)
        elif isinstance(part, MDSSource):
            for path in dict.fromkeys(shard.folder for shard in part.shards):
                plan_rows(path, report, tasks)
        for column in flatten(part.columns or ()):
            folder = getattr(_inner(column)[0], "folder", None)
            if isinstance(_inner(column)[0], PackColumn) and folder not in seen:
                seen.add(str(folder))
                plan_pack(str(folder), report, tasks)
    if not any(isinstance(part, HookSource) for part in parts):
        _plan_columns(loader, source, tasks)


def _plan_columns(loader: Loader, source: Source, tasks: list[Task]) -> None:
    classes = _classes(loader, source)
    for k, part in enumerate(source.columns or ()):
        for column in flatten(part):
            inner, numbers = _inner(column)
            if not isinstance(inner, PathColumn) or not isinstance(inner.read_path, FileReader):
                continue
            decode = inner.read_path.decode
            if decode not in (None, keep_encoded):
                continue
            most = inner.read_path.options.max_pixels
            rows = range(len(inner)) if numbers is None else numbers.tolist()
            for place, row in enumerate(rows):
                # What is kept encoded may have a format of the user's own.
                if decode is not None and suffix_of(inner.paths[row]) not in IMAGE_SUFFIXES:
                    continue
                tasks.append(
                    {
                        "path": inner.paths[row],
                        "max_pixels": most,
                        # Masks are not compared, since equal masks are normal.
                        "compared": k == 0,
                        "class": None if k or classes is None else classes[place],
                    }
                )


def _classes(loader: Loader, source: Source) -> list[str] | None:
    labels = source.labels()
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "biu":
        return None
    names = loader.class_names
    if isinstance(names, list) and len(labels) and labels.min() >= 0 and labels.max() < len(names):
        return [names[label] for label in labels.tolist()]
    return [str(label) for label in labels.tolist()]


def _parts(source: Source) -> Iterator[Source]:
    """A source, and the sources that it reads from."""
    yield source
    inner = [getattr(source, name, None) for name in ("inner", "base", "rows")]
    inner += [pipeline.source for pipeline in getattr(source, "pipelines", ())]
    for part in inner:
        if isinstance(part, Source):
            yield from _parts(part)


def _inner(column: Any) -> tuple[Any, Any]:
    """-> the underlying column, and the numbers of its selected rows (None for all)."""
    numbers = None
    while not isinstance(column, (PathColumn, PackColumn)):
        if isinstance(column, SubsetColumn):
            numbers = column.numbers if numbers is None else column.numbers[numbers]
        column = getattr(column, "column", None)
        if column is None:
            break
    return column, numbers


def check_samples(
    loader: Loader, report: Report, comparison: Comparison, bar: Any, ray: Ray | None = None
) -> None:
    """Read each sample once, without caches and transforms, and report those that fail to load.

    Raises errors that are not caused by a single sample, such as MemoryError.
    """
    plain = loader.replace(cache=None)
    try:
        source: Source = plain.source
        source.prepare()
        known = {p for one in report.errors for p in (one.path, os.path.abspath(one.path))}
        blocks = [
            np.arange(first, min(first + _AT_ONCE, len(source)), dtype=np.int64)
            for first in range(0, len(source), _AT_ONCE)
        ]
        varies = loader.transform is not None or loader.batch_transform is not None
        for found in _blocks_read(source, blocks, ray):
            for name, form, bad in found:
                bar.update(1)
                if bad is not None:
                    kind, said, whole = bad
                    # If a mask is broken, only the mask is reported, not its image too.
                    reported = os.path.abspath(name) in known or any(p in whole for p in known)
                    if not reported:
                        report.add(name, kind, said)
                elif not varies:
                    comparison.note(name, form)
    finally:
        plain.close()


#: The name and form of a sample, and (kind, message, full text) of its error, or None.
_Found = tuple[str, tuple[str, ...], "tuple[str, str, str] | None"]


def _blocks_read(source: Source, blocks: list[Indices], ray: Ray | None) -> Iterator[list[_Found]]:
    """-> the findings of each block, in order if this process reads them."""
    if ray is not None:
        from kloaders.engine.ray.calls import called

        one_by_one = dataclasses.replace(ray, cpus=1, min_cpus=None) if source.in_order else ray

        def name(block: Indices) -> str:
            first, last = int(block[0]), int(block[-1])
            return f"one of samples {first} to {last} ({source.name(first)} and the next)"

        for _, found in called(one_by_one, partial(_read, source.for_worker()), blocks, name):
            yield found
        return
    workers = 1 if source.in_order else usable_cores()
    with ThreadPoolExecutor(workers, "kloaders-verify") as pool:
        yield from pool.map(partial(_read, source), blocks)


def _read(source: Source, indices: Indices) -> list[_Found]:
    """Read these samples."""
    found: list[_Found] = []
    for index in indices.tolist():
        name = source.name(index)
        try:
            parts = source.sample(index, Moment())
            arrays = [np.asarray(array) for array in flatten(parts)]
        except MemoryError:
            raise
        except Exception as error:  # any error in user code counts as an error of the sample
            found.append((name, (), (kind_of_error(error), _message(name, error), str(error))))
            continue
        form = ", ".join(f"{array.dtype} of shape {array.shape}" for array in arrays)
        found.append((name, ("array", form), None))
    return found


def _message(name: str, error: Exception) -> str:
    said = shortened(" ".join(str(error).split()), 1000) or type(error).__name__
    if name in said:
        return said
    return f"{name} failed to load: {type(error).__name__}: {said}"
