"""Files that hold their number, a loader that reads them into RAM batches, and a record of its reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import numbers_of, row_of

SAMPLES, BATCH, RAM = 24, 4, 8  # three RAM batches of two batches an epoch

DRAWS = pytest.mark.parametrize("draw", ["global", "windows"])
WORKERS = pytest.mark.parametrize("workers", [0, 1, 2, None])


class Reads:
    """A `decode=` hook that notes which files were read; `numbers` are in order of reading.

    width: how many numbers a sample has. broken: files that do not decode. gate: files that are
    read only once it is set.
    """

    def __init__(self, width: int = 2) -> None:
        self.width = width
        self.numbers: list[int] = []
        self.broken: set[int] = set()
        self.gates: dict[int, threading.Event] = {}
        self.changed = threading.Condition()

    def __call__(self, content: bytes) -> Any:
        row = np.frombuffer(content, "<f4")
        number = int(row[0])
        with self.changed:
            self.numbers.append(number)
            self.changed.notify_all()
        if number in self.gates:
            assert self.gates[number].wait(30)
        if number in self.broken:
            raise ValueError("the content is spoilt")
        return np.resize(row, self.width)

    def __reduce__(self) -> Any:
        return Reads, (self.width,)

    def wait_for(self, count: int) -> None:
        """Wait until this many files were read."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.numbers) >= count, timeout=30), (
                f"{len(self.numbers)} files were read, expected {count}"
            )

    def clear(self) -> None:
        self.numbers.clear()


@pytest.fixture(scope="module")
def raw_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files that hold their own number."""
    folder = tmp_path_factory.mktemp("raw")
    found = [str(folder / f"{k:02}.raw") for k in range(SAMPLES)]
    for k, path in enumerate(found):
        row_of(k).tofile(path)
    return found


@pytest.fixture
def two_level(raw_files: list[str], keep: Any) -> Any:
    """two_level(**options) -> (loader, reads), after a first look at a sample."""

    def _two_level(n: int = SAMPLES, width: int = 2, **options: Any) -> tuple[Any, Reads]:
        reads = Reads(width)
        options = {"ram_batch_size": RAM, "seed": 3, "shuffle": True, **options}
        if "ram_budget" in options:
            del options["ram_batch_size"]
        loader = keep(
            kl.RamBatchSequenceLoader(
                raw_files[:n], np.arange(n, dtype=np.float32), BATCH, decode=reads, **options
            )
        )
        assert loader.sample_spec
        reads.clear()
        return loader, reads

    return _two_level


def plain(paths: list[str], **options: Any) -> Any:
    """The same samples from a loader with one level."""
    y = np.arange(len(paths), dtype=np.float32)
    options = {"seed": 3, "shuffle": True, "decode": Reads(), **options}
    return kl.PathSequenceLoader(paths, y, BATCH, **options)


def loop(loader: Any, epochs: int = 1) -> Iterator[Any]:
    """Batches of a hand-written training loop."""
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            yield loader[index]
        loader.on_epoch_end()


def samples(batches: Any) -> list[int]:
    return [number for x, _ in batches for number in numbers_of(x)]
