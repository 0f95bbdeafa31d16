"""Sources without files, and the parts that make batches of them, for tests of a loader's modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.engine.runner import Runner
from kloaders.loaders.assembly import runner_of
from kloaders.loaders.options import LoaderOptions
from kloaders.sources.source import Source


def steps_of(number: int, steps: int = 2) -> Any:
    """An array whose values all are this number."""
    return np.full(steps, number, np.float32)


class Numbered(Source):
    """Sample k is an array of k, with the label k; notes what is read.

    Args:
        samples: how many.
        broken: samples that do not load.
        make: what x of a sample is.
    """

    def __init__(
        self,
        samples: int,
        broken: Any = (),
        make: Callable[[int], Any] = steps_of,
    ) -> None:
        self.samples, self.broken, self.make = samples, set(broken), make
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.samples

    def read(self, index: int) -> Any:
        self.reads.append(index)
        if index in self.broken:
            raise ValueError(f"number {index} is broken")
        return self.make(index), np.int64(index)


def runner_over(source: Source, batch_size: int = 4, **options: Any) -> Runner:
    """The parts that make the batches of a loader over this source, without the loader.

    The test closes it: see `kept` in tests/engine/conftest.py.
    """
    more = {name: options.pop(name) for name in ("ram", "padding", "echo") if name in options}
    given = {"seed": 3, "workers": 0, **options}
    return runner_of(source, LoaderOptions.of(source, batch_size, given, **more), "Numbered")
