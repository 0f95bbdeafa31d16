"""Samples of any object with a length and items by number, such as a torch Dataset; imports no torch."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kloaders.core import forks, stall_watch
from kloaders.core.arrays import Indices
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import as_sample, cast
from kloaders.keras_api.base import WORKER
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source

__all__ = ["TorchSource"]


class TorchSource(Source):
    """The results of `dataset[i]`, as arrays.

    Args:
        dataset: has `__len__` and `__getitem__`.
        select: a function of `dataset[i]` that returns x or (x, y); None uses the item itself.
        seeded: whether to seed the global random generators from the loader's seed, the epoch and i.
        one_at_a_time: whether only one thread at a time may call the dataset.
        dtype: the dtype of x; None keeps it.
    """

    runs_user_code = True

    def __init__(
        self,
        dataset: Any,
        select: Callable[[Any], Any] | None,
        seeded: bool,
        one_at_a_time: bool,
        dtype: np.dtype[Any] | None,
    ) -> None:
        self.dataset, self.select, self.dtype = dataset, select, dtype
        self.random = seeded
        self.seed = 0
        self._one_at_a_time = _generators if seeded else _Lock(one_at_a_time)
        self.reads_many = not seeded and hasattr(dataset, "__getitems__")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        torch = sys.modules.get("torch")
        if torch is not None and os.environ.get(WORKER):
            torch.set_num_threads(1)  # otherwise each process would use all cores

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        rng = moment.rng(self.seed, index) if self.random else None
        with self._one_at_a_time, _seeded(rng):
            item = self.dataset[index]
            if self.select is not None:
                item = self.select(item)
        return self._parts(item)

    def _parts(self, item: Any) -> tuple[Any, ...]:
        if self.select is None and isinstance(item, tuple) and len(item) == 3:
            raise TypeError(
                "the dataset returned three parts, and it is unclear whether the third one is weights: "
                "pass select=, as in select=lambda item: item[:2], or a function that returns "
                "(x, y, weights)."
            )
        parts = as_sample(_plain(item))
        return parts if self.dtype is None else (cast(parts[0], self.dtype), *parts[1:])

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        if not self.reads_many:
            super().fill(indices, out, report, moment)
            return
        stall_watch.at(self, int(indices[0]))
        try:
            with self._one_at_a_time:
                items = self.dataset.__getitems__(indices.tolist())
        except Exception:  # read one sample at a time, to find the one at fault
            super().fill(indices, out, report, moment)
            return
        for row, item in enumerate(items):
            try:
                out.put(
                    row, self._parts(item if self.select is None else self.select(item)), report
                )
            except Exception as error:  # user code failed for this sample
                report(row, error)

    def with_seed(self, seed: int) -> Source:
        found: Source = self._with(seed=seed)
        return found

    def name(self, index: int) -> str:
        return f"{type(self.dataset).__name__}[{index}]"


class _Lock:
    """A lock, or none; after unpickling it is a new one."""

    def __init__(self, locks: bool) -> None:
        self.locks = locks
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock: Any = threading.RLock() if self.locks else contextlib.nullcontext()

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def __reduce__(self) -> Any:
        return _Lock, (self.locks,)


class _GlobalLock(_Lock):
    """One lock for all loaders of the process, because their datasets share the global generators."""

    def __reduce__(self) -> str:
        return "_generators"


_generators = _GlobalLock(True)


@contextlib.contextmanager
def _seeded(rng: np.random.Generator | None) -> Iterator[None]:
    """A context in which the global generators are seeded; without `rng` it does nothing."""
    if rng is None:
        yield
        return
    words = rng.integers(0, 2**32, 2, np.uint64).tolist()
    torch = sys.modules.get("torch")
    generator = None if torch is None else torch.default_generator
    before = random.getstate(), np.random.get_state(), generator and generator.get_state()
    random.seed(words[0] << 32 | words[1])
    np.random.seed(words)
    if generator is not None:
        generator.manual_seed(words[0] << 31 ^ words[1])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if generator is not None:
            generator.set_state(before[2])


def _plain(value: Any) -> Any:
    """An item of a dataset, with tensors and images as arrays, and lists of them as tuples."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, list) and any(
        not isinstance(part, (int, float, list, np.generic)) for part in value
    ):
        return tuple(map(_plain, value))
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu()
        # NumPy itself has no bfloat16.
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # a PIL image
        return np.asarray(value)
    return value
