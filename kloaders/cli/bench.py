"""Measures how fast each loader reads a user's files, compared with a limit. Needs no Keras model."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kloaders.cli.demo_images import write_images
from kloaders.convert.packs import write_pack
from kloaders.convert.tfrecords import write_tfrecords
from kloaders.core.arrays import Indices
from kloaders.core.memory import aligned
from kloaders.core.messages import visible, warn
from kloaders.core.progress import Progress
from kloaders.core.structure import flatten
from kloaders.core.threads import usable_cores
from kloaders.diagnostics.explain import loader_probe
from kloaders.diagnostics.explain.variants import silenced
from kloaders.formats.by_suffix import read_sample
from kloaders.formats.files import read_bytes
from kloaders.loaders.arrays import preload
from kloaders.loaders.packs import PackSequenceLoader
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.ram_batches import RamBatchSequenceLoader
from kloaders.loaders.tfrecords import TFRecordSequenceLoader
from kloaders.sources.columns import values_of

__all__ = ["Row", "as_dicts", "compare", "made_or", "table"]


@dataclass(frozen=True)
class Row:
    """The result of one method.

    Attributes:
        name: the name of the method in the table.
        what: a description of the method.
        rate: samples per second.
        of_limit: the rate divided by that of reading and decoding in bare threads.
    """

    name: str
    what: str
    rate: float
    of_limit: float | None = None


@contextlib.contextmanager
def made_or(source: str | None) -> Iterator[str]:
    """The user's source, or a temporary folder of images."""
    if source is not None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="kloaders-bench-") as folder:
        write_images(folder, crops=150, progress=False)
        for name in os.listdir(folder):
            if name.isdigit():  # the small images of digits
                os.rename(os.path.join(folder, name), os.path.join(folder, f".{name}"))
        yield folder


def compare(
    loader: Any,
    files: int,
    seconds: float,
    progress: bool | None = None,
    rates: dict[str, float] | None = None,
) -> list[Row]:
    """Measure each method on the files of a loader.

    Args:
        loader: the loader. With on_error other than "raise", files that fail to load are left out.
        files: the maximum number of files.
        seconds: how long to measure each method.
        progress: whether to show a progress bar; None: if stderr is a terminal.
        rates: a dict that gets the samples per second of each method as soon as it is measured.
    """
    rates = {} if rates is None else rates
    if not isinstance(loader, PathSequenceLoader) or loader.decode is not None:
        raise ValueError(
            f"bench compares methods to read files, but this is a {type(loader).__name__}: pass a folder "
            "of files or a CSV file. `kloaders explain` also takes packs and TFRecord files."
        )
    chosen = np.unique(np.linspace(0, loader.samples - 1, min(files, loader.samples)).astype(int))
    if loader.options.faults.on_error != "raise":
        chosen = _that_load(loader, chosen)
    paths = [loader.paths[k] for k in chosen.tolist()]
    columns = loader.source.columns or ()
    values = values_of(columns[1]) if len(columns) > 1 else None
    labels = None if values is None else values[chosen]
    seconds /= _ROUNDS
    with tempfile.TemporaryDirectory(prefix="kloaders-bench-") as folder:
        methods = _methods(loader, paths, labels, seconds, folder)
        # disable=None: no bar if stderr is not a terminal.
        disable = None if progress is None else not progress
        with Progress(methods * _ROUNDS, unit=" runs", disable=disable) as bar:
            for name, _, measure in bar:
                bar.set_description(name)
                # Other work on the machine can only make a method slower, so the maximum counts.
                rates[name] = max(measure(), rates.get(name, 0.0))
    return [Row(name, what, rates[name], rates[name] / rates[_LIMIT]) for name, what, _ in methods]


def _that_load(loader: Any, chosen: Indices) -> Indices:
    """Those of the chosen files that can be loaded."""
    found = []
    for k in chosen.tolist():
        try:
            read_sample(loader.paths[k], loader.image_options)
        except (OSError, ValueError) as error:
            warn(f"{visible(loader.paths[k])} is left out: {visible(error)}")
        else:
            found.append(k)
    if not found:
        raise ValueError(
            f"none of the {len(chosen):,} files tried can be loaded: run `kloaders verify` on them."
        )
    return np.array(found, np.int64)


_LIMIT = "limit: decode"
# The number of times that each method is measured, in turn with the others; the best figure counts.
_ROUNDS = 2


def _methods(
    loader: Any, paths: list[str], labels: Any, seconds: float, folder: str
) -> list[tuple[str, str, Callable[[], float]]]:
    batch, images = loader.batch_size, loader.image_options
    options: dict[str, Any] = {"seed": 0, "shuffle": True}
    image = {"size": images.size, "channels": images.channels}

    def files(**more: Any) -> Any:
        return PathSequenceLoader(paths, labels, batch, **image, **options, **more)

    def driven(make: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            with make() as made:
                return loader_probe.drive(silenced(made), seconds).rate

        return run

    def cold() -> float:
        loader_probe.evict(paths)
        with files(cache=None) as made:
            return loader_probe.drive(made, seconds, len(paths)).rate

    def packed() -> Any:
        pack = os.path.join(folder, "pack")
        if not os.path.exists(pack):
            with files(cache=None) as made:
                write_pack(made, pack, progress=False)
        return PackSequenceLoader(pack, batch, **options)

    def records() -> Any:
        name = os.path.join(folder, "records")
        if not os.path.exists(f"{name}-00000-of-00001.tfrecord"):
            write_tfrecords(paths, labels, name, progress=False)
        features = {"x": "image_raw"} | ({} if labels is None else {"y": "label"})
        files = f"{name}-*.tfrecord"
        return TFRecordSequenceLoader(files, features, batch, cache=None, **image, **options)

    def two_levels() -> Any:
        size = max(batch, len(paths) // 4)
        return RamBatchSequenceLoader(
            paths, labels, batch, ram_batch_size=size, cache=None, **image, **options
        )

    spec = flatten(loader.sample_spec)[0]

    def read(path: str) -> None:
        read_bytes(path)

    def decode(path: str) -> None:
        rows = getattr(_own, "row", None)
        if rows is None or rows.nbytes != spec.nbytes:
            rows = _own.row = aligned(spec.nbytes)
        read_sample(path, images, rows.view(spec.dtype).reshape(spec.shape))

    return [
        ("limit: read", "files read in bare threads", lambda: _by_threads(paths, read, seconds)),
        (
            _LIMIT,
            "files read and decoded in bare threads, into reused memory",
            lambda: _by_threads(paths, decode, seconds),
        ),
        ("first epoch", "PathSequenceLoader, files not in memory", cold),
        (
            "files",
            "PathSequenceLoader(cache=None), files in memory",
            driven(lambda: files(cache=None)),
        ),
        ("two-level", "RamBatchSequenceLoader", driven(two_levels)),
        ("TFRecord", "TFRecordSequenceLoader, the same files in records", driven(records)),
        ("pack", "PackSequenceLoader, decoded once", driven(packed)),
        (
            "preload",
            "preload(loader): decoded samples in RAM",
            driven(lambda: preload(files(), False)),
        ),
    ]


_own = threading.local()


def _by_threads(paths: list[str], work: Callable[[str], None], seconds: float) -> float:
    """Files per second of all threads together, without the first round."""
    threads = usable_cores()
    end = [0.0]
    done = [0] * threads

    def run(k: int) -> None:
        for path in paths[k::threads]:
            work(path)
        ready.wait()
        while True:
            for path in paths[k::threads]:
                work(path)
                done[k] += 1
                if time.perf_counter() >= end[0]:
                    return

    def begin() -> None:
        end[0] = time.perf_counter() + seconds

    ready = threading.Barrier(threads, begin)
    with ThreadPoolExecutor(threads, "kloaders-bench") as pool:
        list(pool.map(run, range(threads)))
    return sum(done) / (time.perf_counter() - end[0] + seconds)


def table(rows: list[Row]) -> str:
    """The results as a text table."""
    head = ("", "samples/s", "of the limit", "")
    cells = [head]
    for row in rows:
        share = "" if row.of_limit is None else f"{row.of_limit:.2f}"
        cells.append((row.name, f"{row.rate:,.0f}", share, row.what))
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    lines = [
        "   ".join(
            [line[0].ljust(widths[0]), *map(str.rjust, line[1:3], widths[1:3]), line[3]]
        ).rstrip()
        for line in cells
    ]
    return "\n".join(
        [*lines, "", f"On {usable_cores()} cores, without a model; all files fit in memory."]
    )


def as_dicts(rows: list[Row]) -> list[dict[str, Any]]:
    """The results for `--json`."""
    return [asdict(row) for row in rows]
