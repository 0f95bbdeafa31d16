"""Reads all of a data set before it is trained on, and says by name what would break, or is odd."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kloaders import __version__
from kloaders.core.threads import usable_cores
from kloaders.diagnostics.verify.worker import Answer, Inspector, inspect
from kloaders.formats import pack as pack_format
from kloaders.formats.atomic import whole_file
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.formats.options import ImageOptions
from kloaders.formats.pack import MANIFEST
from kloaders.formats.pack_files import check_file, pieces_of, size_of
from kloaders.formats.sidecar_index import is_index
from kloaders.formats.tfrecord.examples import features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.sources import quarantine
from kloaders.sources.tables import Table

__all__ = ["ERRORS", "WARNINGS", "Finding", "Report", "summary", "told", "verify"]

# Kinds of findings, the worst first: what does not load, or lies about what it is; and what does
# load and may be meant.
ERRORS = ("unreadable", "empty", "truncated", "broken", "bomb", "misnamed")
WARNINGS = ("two classes", "duplicate", "odd")

_READABLE = IMAGE_SUFFIXES | ARRAY_SUFFIXES
_RECORDS = re.compile(r"\.tfrec(ord)?s?([.-]|$)", re.IGNORECASE)
# Records and bytes of one task: enough to be worth a line each way.
_TASK_RECORDS, _TASK_BYTES = 256, 2**26
# Nothing is odd unless nearly all others are alike, and there are a few of them.
_ODD_SHARE, _ALIKE = 0.1, 3


@dataclass(frozen=True)
class Finding:
    """One thing found: of which file or record, of what kind (see `Report`), and in words."""

    path: str
    kind: str
    message: str

    @property
    def is_error(self) -> bool:
        """Whether it would break a training, or another reader."""
        return self.kind in ERRORS


@dataclass
class Report:
    """What `verify` found.

    source: what was verified. files: how many files, or records, were read. findings: the worst
    kinds first. left_out: files of a folder that nothing here reads.

    Kinds of errors: "unreadable" (missing, or permission denied), "empty", "truncated", "broken",
    "bomb" (more pixels than max_pixels), "misnamed" (PNG bytes in a .jpg). Of warnings: "two
    classes" (the same content with two labels), "duplicate" (the same content again), "odd"
    (another shape or type than nearly all others).
    """

    source: str
    files: int = 0
    findings: list[Finding] = field(default_factory=list)
    left_out: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> list[Finding]:
        """Findings that would break a training, or another reader."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that may be meant."""
        return [finding for finding in self.findings if not finding.is_error]

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def counts(self) -> dict[str, int]:
        """How many findings of each kind, the worst kinds first."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in (*ERRORS, *WARNINGS) if found[kind]}

    def to_json(self) -> str:
        """All of it as a JSON object."""
        content = {
            "version": __version__,
            "source": self.source,
            "ok": self.ok,
            "files": self.files,
            "left_out": self.left_out,
            "seconds": self.seconds,
            "counts": self.counts(),
            "findings": [
                {**asdict(one), "severity": "error" if one.is_error else "warning"}
                for one in self.findings
            ],
        }
        return json.dumps(content, indent=2)

    def write_csv(self, path: str | os.PathLike[str], warnings: bool = False) -> int:
        """Write the errors as a list that `exclude=` of loaders takes; how many rows.

        The file is replaced; what was in it and is found again keeps its first_seen. warnings: also
        write these (of duplicates, all but the first).

        Raises ValueError where there is a file that is none of this kind.
        """
        before = quarantine.first_seen(path)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        rows: dict[str, tuple[str, str, str]] = {}
        for finding in self.findings if warnings else self.errors:
            name = quarantine.whole_name(finding.path)
            text = " ".join(f"{finding.kind}: {finding.message}".split())
            rows.setdefault(name, (name, text, before.get(name, now)))
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with whole_file(os.fspath(path)) as file:
            file.write(quarantine.lines([quarantine.FIELDS, *rows.values()]))
        return len(rows)


def verify(
    source: Any,
    *,
    path_column: str = "path",
    label_column: str | None = "label",
    folder: str | os.PathLike[str] | None = None,
    max_pixels: int = ImageOptions.max_pixels,
    duplicates: bool = True,
    workers: int | None = None,
    progress: bool | None = True,
) -> Report:
    """Read every file, all of it, and report those that would break a training, by name.

    Args:
        source: a folder (of files, of folders of classes, of TFRecord files), a CSV file, a TFRecord
            file or a pattern of such, the folder of a pack, a picture or array; or a list of these.
        path_column: of a CSV file.
        label_column: of a CSV file; one that is not there is no error.
        folder: where relative paths of a CSV file start; by default the current folder.
        max_pixels: pictures with more are a "bomb", by their header: they are not decoded. The
            default is that of the loaders.
        duplicates: compare files by content (BLAKE2b).
        workers: processes that read; None: one a core. 0: this process, where a file that ends the
            decoder ends everything.
        progress: show a bar. None: where stderr is a terminal.

    Files of other suffixes, and names that begin with a dot, are left out of folders. Takes about
    twice the time of decoding every file once, and 400 bytes of memory a file.

    Raises:
        FileNotFoundError: no such source.
        ValueError: nothing in it to read, or a CSV file without such a column.
    """
    begin = time.perf_counter()
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    names = [os.fspath(one) for one in sources]
    found = _Found(Report(", ".join(names)))
    tasks: list[_Task] = []
    for name in names:
        _plan(name, (path_column, label_column, folder), found, tasks)
    total = sum(map(_size_of, tasks))
    if not total and not found.report.findings:
        raise ValueError(
            f"{found.report.source} holds nothing that is read here: expected files such as .jpg, "
            ".png, .npy or .tfrecord, a pack, or a CSV file of paths."
        )
    disable = None if progress is None else not progress
    with tqdm(total=total, unit=" files", desc="verify", disable=disable, smoothing=0.1) as bar:
        count = usable_cores() if workers is None else workers
        for task, answers in _answers(tasks, count, max_pixels):
            found.take(task, answers)
            bar.update(_size_of(task))
            if found.report.findings and not disable:
                bar.set_postfix(found=len(found.report.findings), refresh=False)
    found.finish(duplicates)
    found.report.seconds = time.perf_counter() - begin
    return found.report


# ------------------------------------------------------------------------------------ what to read

# A file and its class, as there may be millions; or what `inspect` takes, for others.
_Task = tuple[str, "str | None"] | dict[str, Any]


def _size_of(task: _Task) -> int:
    """Files or records."""
    return task.get("count", 1) if isinstance(task, dict) else 1


def _asked(task: _Task, max_pixels: int) -> dict[str, Any]:
    """A task as `inspect` takes it."""
    if isinstance(task, dict):
        return {**task, "max_pixels": max_pixels}
    # An array is read in blocks, and may well take long.
    hangs = suffix_of(task[0]) not in ARRAY_SUFFIXES
    return {"path": task[0], "max_pixels": max_pixels, "hangs": hangs}


def _plan(
    name: str, columns: tuple[str, str | None, Any], found: _Found, tasks: list[_Task]
) -> None:
    """Append the tasks of one source."""

    def file(path: str, label: str | None = None) -> None:
        if _RECORDS.search(os.path.basename(path)):
            _plan_records(path, found, tasks)
        else:
            tasks.append((path, None if label is None else sys.intern(label)))

    if os.path.isdir(name):
        if os.path.exists(os.path.join(name, MANIFEST)):
            _plan_pack(name, found, tasks)
            return
        for path, label in _files_in(name, found.report):
            file(path, label)
    elif suffix_of(name) in (".csv", ".tsv") and os.path.exists(name):
        paths, labels = _table(name, *columns)
        for path, label in zip(paths, labels, strict=True):
            file(path, label)
    elif os.path.exists(name):
        if suffix_of(name) in _READABLE:
            file(name)
        else:
            _plan_records(name, found, tasks)
    else:
        matches = [path for path in sorted(glob.glob(name, recursive=True)) if not is_index(path)]
        if not matches:
            raise FileNotFoundError(
                f"{name} does not exist. Relative paths start at {os.getcwd()}."
            )
        for path in matches:
            _plan(path, columns, found, tasks)


def _files_in(root: str, report: Report) -> Iterator[tuple[str, str | None]]:
    """Files below a folder that are read here, sorted; the folder right below it is the class."""
    seen = {os.path.realpath(root)}
    for top, folders, names in os.walk(root, followlinks=True):
        shown = sorted(name for name in folders if not name.startswith("."))
        folders.clear()
        for name in shown:
            real = os.path.realpath(os.path.join(top, name))
            if real not in seen:  # a link to above would never end
                seen.add(real)
                folders.append(name)
        inside = os.path.relpath(top, root).split(os.sep)[0]
        label = None if inside == os.curdir else inside
        for name in sorted(names):
            if name.startswith("."):
                continue
            if suffix_of(name) in _READABLE or _RECORDS.search(name):
                yield os.path.join(top, name), label
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


def _plan_records(path: str, found: _Found, tasks: list[_Task]) -> None:
    try:
        files = RecordFiles([path], progress=False)
    except (OSError, DecodeError) as error:
        found.add(path, _kind_of(error), str(error))
        return
    examples, count = _examples_in(files), len(files)
    # Nothing in a compressed file is reached without what lies before it.
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
    """Whether the first record that can be read is a tf.train.Example."""
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


def _plan_pack(folder: str, found: _Found, tasks: list[_Task]) -> None:
    """The sums of a pack's files, after their sizes and headers."""
    manifest_path = os.path.join(folder, MANIFEST)
    try:
        manifest = pack_format.read_manifest(folder)
        if pack_format.manifest_changed(folder):
            found.add(manifest_path, "broken", f"{manifest_path} changed since it was written")
    except (OSError, ValueError) as error:
        found.add(manifest_path, _kind_of(error), str(error))
        return
    dtypes = [pack_format.dtype_named(name) for name in manifest.leaves]
    damaged = set()
    for file, dtype in pack_format.files_of(manifest.shards, dtypes).values():
        path = os.path.join(folder, file.name)
        try:
            check_file(folder, file, dtype)
        except (OSError, ValueError) as error:
            damaged.add(path)
            found.report.files += 1
            cut = _is_shorter(path, size_of(file, dtype))
            found.add(path, "truncated" if cut else _kind_of(error), str(error))
    counted = set(damaged)
    for piece in pieces_of(folder, manifest.shards, dtypes):
        if piece.path not in damaged:
            count = int(piece.path not in counted)  # a file is read in pieces, and is one file
            counted.add(piece.path)
            tasks.append({**piece._asdict(), "count": count})


def _is_shorter(path: str, size: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.getsize(path) < size
    return False


def _kind_of(error: Exception) -> str:
    said = str(error)
    if isinstance(error, OSError):
        return "unreadable"
    return "truncated" if "truncated" in said else "empty" if "is empty" in said else "broken"


# ---------------------------------------------------------------------------------------- reading


def _answers(tasks: list[_Task], workers: int, max_pixels: int) -> Iterator[tuple[_Task, Answer]]:
    """Each task with its answer, as they come, done by so many processes."""
    if workers <= 0:
        opened: dict[str, RecordFiles] = {}
        for task in tasks:
            yield task, inspect(_asked(task, max_pixels), opened)
        return
    done: queue.SimpleQueue[tuple[_Task, Any]] = queue.SimpleQueue()
    left = iter(tasks)
    lock = threading.Lock()
    stopped = threading.Event()
    inspectors = [Inspector() for _ in range(min(workers, len(tasks)))]

    def work(inspector: Inspector) -> None:
        while not stopped.is_set():
            with lock:
                task = next(left, None)
            if task is None:
                break
            try:
                done.put((task, inspector.ask(_asked(task, max_pixels))))
            except Exception as error:  # raised in the thread that waits
                done.put((task, error))
        inspector.close()

    threads = [
        threading.Thread(target=work, args=(one,), daemon=True, name="kloaders-verify")
        for one in inspectors
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            task, answer = done.get()
            if isinstance(answer, Exception):
                raise answer
            yield task, answer
    finally:  # Ctrl-C too
        stopped.set()
        for inspector in inspectors:
            inspector.close()
        for thread in threads:
            thread.join(10)


class _Found:
    """Answers as they come, and what only shows when all are there."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._names: list[str] = []
        self._digests: list[bytes] = []
        self._classes: list[str | None] = []
        self._forms: dict[tuple[str, ...], int] = {}
        self._form_of: list[int] = []

    def add(self, path: str, kind: str, message: str) -> None:
        self.report.findings.append(Finding(path, kind, message))

    def take(self, task: _Task, answers: Answer) -> None:
        """Take down the answer to a task."""
        self.report.files += _size_of(task)
        for answer in answers:
            name, label = answer["name"], answer["class"]
            if not isinstance(task, dict):
                name, label = task  # what is in memory already
            bad = False
            for kind, message in answer["problems"]:
                self.add(name, kind, message)
                bad = bad or kind != "misnamed"
            if bad or not answer["digest"]:
                continue
            self._names.append(name)
            self._digests.append(bytes.fromhex(answer["digest"]))
            self._classes.append(None if label is None else sys.intern(label))
            form = tuple(answer["form"])
            self._form_of.append(self._forms.setdefault(form, len(self._forms)))

    def finish(self, duplicates: bool) -> None:
        """Compare all files with each other, and sort what was found."""
        # Answers come in any order: the first of some alike is the first by name.
        order = sorted(
            range(len(self._names)), key=lambda k: (self._names[k], self._classes[k] or "")
        )
        if duplicates:
            self._find_duplicates(order)
        self._find_odd(order)
        rank = {kind: k for k, kind in enumerate((*ERRORS, *WARNINGS))}
        self.report.findings.sort(key=lambda one: (rank[one.kind], one.path, one.message))

    def _find_duplicates(self, order: list[int]) -> None:
        first_of: dict[bytes, int] = {}
        for k in order:
            first = first_of.setdefault(self._digests[k], k)
            if first == k:
                continue
            here, there = self._classes[k], self._classes[first]
            name, other = self._names[k], self._names[first]
            if here != there:
                said = f"{name} (class {here}) has the content of {other} (class {there})"
                self.add(name, "two classes", said)
            else:
                self.add(name, "duplicate", f"{name} has the content of {other}")

    def _find_odd(self, order: list[int]) -> None:
        """Of pictures sides and channels, of arrays shape and type, each by itself."""
        forms = list(self._forms)
        for what in ("picture", "array"):
            chosen = [k for k in order if forms[self._form_of[k]][:1] == (what,)]
            for aspect in (1, 2) if what == "picture" else (1,):
                count = Counter(forms[self._form_of[k]][aspect] for k in chosen)
                if len(count) < 2:
                    continue
                usual, alike = count.most_common(1)[0]
                others = len(chosen) - alike
                if alike < _ALIKE or others > max(1, _ODD_SHARE * len(chosen)):
                    continue
                for k in chosen:
                    form = forms[self._form_of[k]][aspect]
                    if form != usual:
                        name = self._names[k]
                        self.add(name, "odd", f"{name} is {form}, and {alike:,} others are {usual}")


def told(report: Report, most: int = 100) -> Iterable[str]:
    """The report in lines for people, so many of each kind at most."""
    shown: Counter[str] = Counter()
    for finding in report.findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= most:
            yield f"{finding.kind}: {finding.message}"
        elif shown[finding.kind] == most + 1:
            more = report.counts()[finding.kind] - most
            yield f"{finding.kind}: and {more:,} others; --json FILE and --csv FILE list all"


def summary(report: Report) -> str:
    """How much was read and found, in a line."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in report.counts().items())
    left = f" {report.left_out:,} files of other suffixes were left out." if report.left_out else ""
    return (
        f"{report.source}: {report.files:,} read in {report.seconds:.1f} s, "
        f"{counts or 'all sound'}.{left}"
    )
