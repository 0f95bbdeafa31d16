"""Splits a source into tasks: one for each file, or for some records of a file."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.core.messages import visible
from kloaders.core.places import where_of
from kloaders.diagnostics.verify.report import Report
from kloaders.formats import pack as pack_format
from kloaders.formats.errors import DecodeError, UnsupportedError
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.formats.opening import opener_of
from kloaders.formats.pack import MANIFEST
from kloaders.formats.pack_files import check_file, pieces_of
from kloaders.formats.pack_files import size_of as bytes_of
from kloaders.formats.sidecar_index import is_index
from kloaders.formats.tfrecord.examples import features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.videos import VIDEO_SUFFIXES
from kloaders.places.access import list_below, listed_pattern
from kloaders.places.urls import is_url, join
from kloaders.sources.folders import files_below, folders_and_files, said_alike, spelt_alike
from kloaders.sources.tables import Table

__all__ = [
    "Task",
    "as_question",
    "kind_of_error",
    "plan_pack",
    "plan_records",
    "plan_rows",
    "plan_source",
    "size_of",
]

_READABLE = IMAGE_SUFFIXES | ARRAY_SUFFIXES | VIDEO_SUFFIXES
_RECORDS = re.compile(r"\.tfrec(ord)?s?([.-]|$)", re.IGNORECASE)
_ROWS = (".tar", ".parquet")
# The index file of an MDS folder.
INDEX = "index.json"
# The maximum records and bytes per task: many, so that the exchange of JSON lines costs little.
_TASK_RECORDS, _TASK_BYTES = 256, 2**26

# (file, class) for a plain file, since there may be millions; a dict, the argument of `inspect`, for others.
Task = tuple[str, "str | None"] | dict[str, Any]


def is_rows(path: str) -> bool:
    """Whether the name is that of a tar or Parquet file, which has rows of values."""
    return suffix_of(path) in _ROWS


def size_of(task: Task) -> int:
    """The number of files or records of a task."""
    return task.get("count", 1) if isinstance(task, dict) else 1


def as_question(task: Task, max_pixels: int) -> dict[str, Any]:
    """A task as the argument of `inspect`."""
    if isinstance(task, dict):
        return {"max_pixels": max_pixels, **task}
    # Large arrays and videos may take long, so these have no time limit.
    hangs = suffix_of(task[0]) not in ARRAY_SUFFIXES | VIDEO_SUFFIXES
    return {"path": task[0], "max_pixels": max_pixels, "hangs": hangs}


def plan_source(
    name: str,
    columns: tuple[str, str | None, Any],
    report: Report,
    tasks: list[Task],
    follow_links: bool = False,
) -> None:
    """Append the tasks of one source."""

    def file(path: str, label: str | None = None) -> None:
        if _RECORDS.search(os.path.basename(path)):
            plan_records(path, report, tasks)
        elif is_rows(path):
            plan_rows(path, report, tasks)
        else:
            tasks.append((path, None if label is None else sys.intern(label)))

    if is_url(name):
        for path, label in _objects_of(name, columns, report):
            if os.path.basename(path) == MANIFEST:
                plan_pack(path.rpartition("/")[0], report, tasks)
            elif os.path.basename(path) == INDEX:
                plan_rows(path.rpartition("/")[0], report, tasks)
            else:
                file(path, label)
    elif os.path.isdir(name):
        if os.path.exists(os.path.join(name, MANIFEST)):
            plan_pack(name, report, tasks)
            return
        if os.path.exists(os.path.join(name, INDEX)):
            plan_rows(name, report, tasks)
            return
        for path, label in _files_in(name, report, follow_links):
            file(path, label)
    elif suffix_of(name) in (".csv", ".tsv") and os.path.exists(name):
        paths, labels = _table(name, *columns)
        for path, label in zip(paths, labels, strict=True):
            file(path, label)
    elif os.path.exists(name):
        if suffix_of(name) in _READABLE or is_rows(name):
            file(name)
        else:
            plan_records(name, report, tasks)
    else:
        matches = [path for path in sorted(glob.glob(name, recursive=True)) if not is_index(path)]
        if not matches:
            raise FileNotFoundError(f"{visible(name)} does not exist. {where_of(name)}")
        for path in matches:
            plan_source(path, columns, report, tasks, follow_links)


def _files_in(root: str, report: Report, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    """The supported files below a folder, sorted, each with its class: the folder directly below `root`.

    These are the files that `from_directory` reads, and those next to the class folders.
    """

    def unreadable(folder: str, error: OSError) -> None:
        report.add(folder, "unreadable", f"{folder} cannot be read: {error.strerror or error}")

    try:
        classes, files = folders_and_files(root)
    except OSError as error:
        unreadable(root, error)
        return
    for alike in spelt_alike(classes).values():
        if len(alike) > 1:
            report.add(os.path.join(root, alike[0]), "inconsistent", f"{root}: {said_alike(alike)}")
    found: list[tuple[str, str | None]] = [(os.path.join(root, name), None) for name in files]
    for name in classes:
        top, special = os.path.join(root, name), list[str]()
        below = files_below(top, None, follow_links, special=special.append, unreadable=unreadable)
        found += [(path, name) for path in below]
        found += [(path, name) for path in special]  # not regular files: reported as unreadable
    for path, label in found:
        if _is_read(path):
            yield path, label
        else:
            report.left_out += 1


def _is_read(path: str) -> bool:
    """Whether files with this name are supported."""
    name = os.path.basename(path)
    return suffix_of(path) in _READABLE or is_rows(path) or bool(_RECORDS.search(name))


def _objects_of(
    name: str, columns: tuple[str, str | None, Any], report: Report
) -> Iterator[tuple[str, str | None]]:
    """The objects of a URL (a table, a pattern, or a folder), each with its class, as in `_files_in`."""
    if suffix_of(name) in (".csv", ".tsv"):
        yield from zip(*_table(name, *columns), strict=True)
        return
    if _is_read(name) and listed_pattern(name) is None:
        yield name, None
        return
    found = listed_pattern(name)
    listed = list_below(name) if found is None else found
    names = {below for below, _ in listed} if found is None else ()
    for whole in (MANIFEST, INDEX):  # the whole folder is one pack, or MDS shards of one index
        if whole in names:
            yield join(name, whole), None
            return
    if not listed:
        raise FileNotFoundError(f"there are no objects at {name}: check its bucket and folder.")
    for below, _ in listed:
        path = join(name, below) if found is None else below
        if any(part.startswith(".") for part in below.split("/")):
            continue
        label = below.partition("/")[0] if found is None and "/" in below else None
        if _is_read(path):
            yield path, None if label is None else sys.intern(label)
        else:
            report.left_out += 1


def _table(
    name: str, path_column: str, label_column: str | None, folder: Any
) -> tuple[list[str], list[str | None]]:
    table = Table(name)
    paths = table.paths(path_column, None if folder is None else os.fspath(folder))
    if label_column is None or label_column not in table.frame:
        return paths, [None] * len(paths)
    return paths, [str(value) for value in table.column(label_column).tolist()]


def plan_records(path: str, report: Report, tasks: list[Task]) -> None:
    """Append the tasks for a TFRecord file."""
    try:
        files = RecordFiles([path], progress=False, opener=opener_of([path]))
    except (OSError, DecodeError) as error:
        report.add(path, kind_of_error(error), str(error))
        return
    examples, count = _examples_in(files), len(files)
    # A compressed file can only be read from the start.
    step = count if files.compressed else _TASK_RECORDS
    first = 0
    while first < count:
        stop = min(first + step, count)
        if not files.compressed:
            indices = np.arange(first, stop, dtype=np.int64)
            _, starts, ends = files.locate(indices)
            within = int(np.searchsorted(ends - starts[0], _TASK_BYTES, side="right"))
            stop = first + max(1, within)
        tasks.append({"path": path, "first": first, "count": stop - first, "examples": examples})
        first = stop


def _examples_in(files: RecordFiles) -> bool:
    """Whether the first readable record is a tf.train.Example."""
    for index in range(min(len(files), 100)):
        try:
            record = files.read(index)
        except (OSError, DecodeError):
            continue
        try:
            return bool(features_of(record))
        except DecodeError:
            return False
    return False


def plan_rows(path: str, report: Report, tasks: list[Task]) -> None:
    """Append the tasks for a tar file, a Parquet file, or an MDS folder."""
    # Imported here, since this imports all sources and Keras.
    from kloaders.diagnostics.verify.rows import RowFile

    try:
        rows = RowFile(path)
    except (OSError, ValueError) as error:
        report.add(path, kind_of_error(error), str(error))
        return
    for first, count in rows.steps(_TASK_RECORDS):
        tasks.append({"path": path, "rows": first, "count": count})


def plan_pack(folder: str, report: Report, tasks: list[Task]) -> None:
    """Check sizes and headers of a pack's files, and append the tasks for their checksums."""
    manifest_path = pack_format.path_in(folder, MANIFEST)
    try:
        manifest = pack_format.read_manifest(folder)
        if pack_format.manifest_changed(folder):
            report.add(manifest_path, "broken", f"{manifest_path} changed since it was written")
    except (OSError, ValueError) as error:
        report.add(manifest_path, kind_of_error(error), str(error))
        return
    dtypes = [pack_format.dtype_named(name) for name in manifest.leaves]
    damaged = set()
    for file, dtype in pack_format.files_of(manifest.shards, dtypes).values():
        path = pack_format.path_in(folder, file.name)
        try:
            check_file(folder, file, dtype, opener_of([path]))
        except (OSError, ValueError) as error:
            damaged.add(path)
            report.files += 1
            cut = _is_shorter(path, bytes_of(file, dtype))
            report.add(path, "truncated" if cut else kind_of_error(error), str(error))
    counted = set(damaged)
    for piece in pieces_of(folder, manifest.shards, dtypes):
        if piece.path not in damaged:
            count = int(piece.path not in counted)  # a file in several pieces counts once
            counted.add(piece.path)
            tasks.append({**piece._asdict(), "count": count})


def _is_shorter(path: str, size: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.getsize(path) < size
    return False


def kind_of_error(error: Exception) -> str:
    """The kind of finding for the error of a file or sample."""
    said = str(error)
    if isinstance(error, OSError):
        return "unreadable"
    if isinstance(error, UnsupportedError) or isinstance(error.__cause__, UnsupportedError):
        return "unsupported"
    if "max_pixels allows" in said:
        return "too many pixels"
    return "truncated" if "truncated" in said else "empty" if "is empty" in said else "broken"
