"""Reads a whole data set before training, and reports every file that would fail or is inconsistent."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from kloaders.core.progress import Progress
from kloaders.core.protocols import Loader
from kloaders.core.ray import Ray, checked_engine
from kloaders.core.threads import started, usable_cores
from kloaders.diagnostics.verify.comparison import Comparison
from kloaders.diagnostics.verify.report import Report
from kloaders.diagnostics.verify.tasks import Task, as_question, plan_source, size_of
from kloaders.diagnostics.verify.worker import Answer, Inspections, Inspector, inspect
from kloaders.formats.options import ImageOptions
from kloaders.formats.tfrecord.files import RecordFiles

__all__ = ["verify"]

# The number of tasks that are sent to an actor at a time.
_AT_ONCE = 16


def verify(
    source: Any,
    *,
    path_column: str = "path",
    label_column: str | None = "label",
    folder: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
    max_pixels: int = ImageOptions.max_pixels,
    duplicates: bool = True,
    workers: int | None = None,
    engine: Ray | None = None,
    progress: bool | None = True,
) -> Report:
    """Read every file completely, and report the files that would break training.

    Args:
        source: a folder (of files, of folders of classes, of TFRecord files), a CSV file, a TFRecord,
            tar or Parquet file or a pattern of such names, the folder of a pack or of MDS shards, an
            image, array or video; or the URL of one of these. Or a loader: its files are read, and each
            of its samples once as the loader reads it, without caches and transforms, so your own
            formats are verified too. Or a list of these.
        path_column: the column of paths in a CSV file.
        label_column: the column of labels in a CSV file; it may be missing.
        folder: the folder that paths in a CSV file are relative to; by default the current folder.
        follow_links: whether to follow symbolic links to folders inside classes, as in
            `from_directory`.
        max_pixels: images whose header says that they have more are reported as "too many pixels"
            and not decoded. The default is that of the loaders.
        duplicates: whether to compare files by content (BLAKE2b).
        workers: the number of processes that read; None for one per core. With 0 this process reads,
            and a file that crashes the decoder ends it.
        engine: `Ray(cpus=8)` reads files and samples with this many actors of a Ray cluster. All nodes
            must see the files at the same paths. The report is the same.
        progress: whether to show a progress bar; None: only if stderr is a terminal.

    In a folder, the files that `from_directory` reads are read, and those next to the class folders.
    Files with other suffixes and names that begin with a dot are left out. Takes about twice the
    time of decoding every file once, and 400 bytes of memory per file.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: it contains nothing to read, a CSV file lacks the column of paths, or both workers=
            and engine= are passed.
        TypeError: engine= is not a Ray, or a loader cannot be pickled for its cluster.
        ImportError: Ray is not installed.
        WorkerPoolError: no cluster was found, or the same work crashed three actors.
    """
    ray = checked_engine(engine)
    if ray is not None and workers is not None:
        raise ValueError(
            f"workers={workers!r:.80} and engine={ray!r:.80} were both passed: cpus= of Ray is already the "
            "number of actors. Leave workers= out."
        )
    begin = time.perf_counter()
    alone = isinstance(source, (str, os.PathLike)) or is_loader(source)
    sources = [source] if alone else list(source)
    loaders = [one for one in sources if is_loader(one)]
    names = [os.fspath(one) for one in sources if not is_loader(one)]
    report = Report(", ".join([*names, *(f"{type(one).__name__}" for one in loaders)]))
    tasks: list[Task] = []
    for name in names:
        plan_source(name, (path_column, label_column, folder), report, tasks, follow_links)
    samples = sum(loader.samples for loader in loaders)
    total = sum(map(size_of, tasks)) + samples
    comparison = Comparison(report)
    if not total and not report.findings:
        raise ValueError(
            f"{report.source} has no files of a known format: expected files such as .jpg, "
            ".png, .npy or .tfrecord, a pack, or a CSV file of paths."
        )
    disable = None if progress is None else not progress
    try:
        with Progress(
            total=total, unit=" files", desc="verify", disable=disable, smoothing=0.1
        ) as bar:
            count = usable_cores() if workers is None else workers
            for task, answers in _answers(tasks, count, max_pixels, ray):
                comparison.take(task, answers)
                bar.update(size_of(task))
                if report.findings and not disable:
                    bar.set_postfix(found=len(report.findings), refresh=False)
            for loader in loaders:
                _verify_loader(loader, comparison, count, max_pixels, ray, bar)
    except KeyboardInterrupt as stop:
        stop.report = report  # type: ignore[attr-defined]  # the findings so far
        raise
    comparison.finish(duplicates)
    report.seconds = time.perf_counter() - begin
    return report


def is_loader(value: Any) -> bool:
    """Whether the value is a loader."""
    return hasattr(type(value), "sample_spec") and hasattr(type(value), "replace")


def _verify_loader(
    loader: Loader,
    comparison: Comparison,
    workers: int,
    max_pixels: int,
    ray: Ray | None,
    bar: Any,
) -> None:
    """Check the files of a loader, and then each of its samples. The report counts the samples."""
    # This imports all sources, which a loader has already imported.
    from kloaders.diagnostics.verify.samples import check_samples, plan_loader

    report, tasks = comparison.report, list[Task]()
    read = report.files
    plan_loader(loader, report, tasks)
    for task, answers in _answers(tasks, workers, max_pixels, ray):
        comparison.take(task, answers)
    check_samples(loader, report, comparison, bar, ray)
    report.files = read + loader.samples


def _from_cluster(tasks: list[Task], max_pixels: int, ray: Ray) -> Iterator[tuple[Task, Answer]]:
    """-> each task with its answer. Actors also do the tasks in separate processes, with `Inspector`."""
    from kloaders.engine.ray.calls import called

    blocks = (
        (first, [as_question(task, max_pixels) for task in tasks[first : first + _AT_ONCE]])
        for first in range(0, len(tasks), _AT_ONCE)
    )

    def name(block: tuple[int, list[Any]]) -> str:
        return f"one of {len(block[1])} checks, of which the first is of {block[1][0]['path']},"

    for (first, questions), answers in called(ray, Inspections(), blocks, name) if tasks else ():
        yield from zip(tasks[first : first + len(questions)], answers, strict=True)


def _answers(
    tasks: list[Task], workers: int, max_pixels: int, ray: Ray | None
) -> Iterator[tuple[Task, Answer]]:
    """-> each task with its answer, in the order in which processes or a cluster finish them."""
    if ray is not None:
        yield from _from_cluster(tasks, max_pixels, ray)
        return
    if workers <= 0:
        opened: dict[str, RecordFiles] = {}
        for task in tasks:
            yield task, inspect(as_question(task, max_pixels), opened)
        return
    done: queue.SimpleQueue[tuple[Task, Any]] = queue.SimpleQueue()
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
                done.put((task, inspector.ask(as_question(task, max_pixels))))
            except Exception as error:  # raised again in the waiting thread
                done.put((task, error))
        inspector.close()

    threads = [
        threading.Thread(target=work, args=(one,), daemon=True, name="kloaders-verify")
        for one in inspectors
    ]
    # The threads that could be started share the work. If none could, this thread does it.
    threads = [thread for thread in threads if started(thread)]
    if inspectors and not threads:
        work(inspectors[0])
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
