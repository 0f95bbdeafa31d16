"""A loader over a map-style torch Dataset. torch itself is not imported here."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core import forks
from kloaders.keras_api.base import WORKER
from kloaders.loaders.sequence import Options, SequenceLoader, _flag, check_names, report_at
from kloaders.plan.epoch import Draw, sample_rng
from kloaders.sources.columns import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["from_torch"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]

# Options of DataLoader, and what to write instead.
_DATALOADER = {
    "collate_fn": "samples are stacked. Change a single one in select= or transform=, and pad there "
    "where shapes differ",
    "num_workers": "pass processes=True, and workers=N for their number",
    "sampler": "the order is the loader's own: seed=, shuffle= and sample_weights=. For some of the "
    "samples give torch.utils.data.Subset",
    "batch_sampler": "give batch_size=, seed= and shuffle=",
    "generator": "give seed=",
    "worker_init_fn": "random numbers are seeded for each sample, so that leave it out",
    "pin_memory": "leave it out",
    "prefetch_factor": "give max_queue_size=, in batches for all workers together",
    "persistent_workers": "they stay until loader.close(), so that leave it out",
    "timeout": "leave it out: a worker that dies is replaced",
    "multiprocessing_context": "processes are started fresh, so that leave it out",
}


def from_torch(
    dataset: Any,
    batch_size: int = 32,
    *,
    select: Callable[[Any], Any] | None = None,
    seeded: bool = True,
    **options: Unpack[Options],
) -> SequenceLoader:
    """A loader over a map-style torch Dataset, or anything else with `len(d)` and `d[i]`.

    A sample is what `dataset[i]` gives: x, or a tuple (x, y). Tensors, NumPy arrays, PIL pictures,
    numbers, and tuples, lists and dicts of these become arrays of their own dtype; a list of numbers
    is one array. Nothing is permuted: pictures that torchvision made channels-first stay so.

    A Dataset is written to be called once at a time, so one thread reads ahead of the model. Give
    processes=True where that is too slow: each of `workers` processes has a copy of the dataset.

    Args:
        dataset: has `__len__` and `__getitem__`.
        batch_size: samples a batch.
        select: a function of `dataset[i]` that gives x or (x, y), for samples of another form:
            `lambda item: (item["image"], item["label"])`.
        seeded: while `dataset[i]` runs, the global generators of torch (its CPU one), NumPy and
            `random` are seeded from seed, epoch and i, and then set back: what it draws is the same
            with any number of workers, and another in each epoch. Loaders that do so take turns:
            in one process, one of them reads at a time. Any other thread that uses the generators
            at that moment sees the seeded ones; processes=True keeps them apart.
            False leaves them alone: quicker, for a dataset that draws nothing, whose samples can
            then be kept by `cache="ram"`.
        **options: see `SequenceLoader`. workers=N without processes needs seeded=False, and a
            dataset that may be called from N threads at once.

    Raises:
        TypeError: it is an IterableDataset or a DataLoader, an option is DataLoader's, or (when
            it is read) a sample holds texts.
        ValueError: an option is out of range.
    """
    for name, instead in _DATALOADER.items():
        if name in options:
            raise TypeError(f"from_torch() has no {name}=: {instead}.")
    return _TorchLoader(dataset, batch_size, select=select, seeded=seeded, **options)


class _TorchLoader(SequenceLoader):
    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        select: Callable[[Any], Any] | None,
        seeded: bool,
        **options: Unpack[Options],
    ) -> None:
        check_names(self, options, Options.__annotations__)
        _check(dataset)
        if select is not None and not callable(select):
            raise TypeError(f"select={select!r} is not a function of dataset[i].")
        self.dataset, self.select = dataset, select
        self.seeded = _flag(seeded, "seeded")
        threads = 0 if options.get("processes") else options.get("workers") or 0
        if self.seeded and threads > 1:
            raise ValueError(
                f"workers={threads} threads would wait for each other, since random numbers are "
                "seeded for each sample in turn: pass processes=True, or seeded=False for a dataset "
                "that draws nothing and may be called from several threads."
            )
        if self.seeded and options.get("cache", "auto") not in ("auto", None):
            raise ValueError(
                f"cache={options['cache']!r} keeps what was drawn at first, for all epochs: pass "
                "seeded=False if the dataset draws no random numbers, or leave cache= out."
            )
        if not options.get("processes") and options.get("workers") is None:
            options["workers"] = 1
        self._one_at_a_time = _generators if self.seeded else _Lock(not threads > 1)
        super().__init__(len(dataset), batch_size, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        torch = sys.modules.get("torch")
        if torch is not None and os.environ.get(WORKER):
            torch.set_num_threads(1)  # else each process would use all cores

    def load_sample(self, index: int) -> Any:
        """The sample, with the random numbers of the epoch that is being filled; else of epoch 0."""
        epoch, draw = getattr(_filling, "now", (0, 0))
        rng = sample_rng(self.seed, epoch, index, draw) if self.seeded else None
        with self._one_at_a_time, _seeded(rng):
            item = self.dataset[index]
            if self.select is not None:
                item = self.select(item)
        return _plain(item)

    def _fill(
        self,
        indices: Indices,
        out: list[Array],
        epoch: int,
        draw: Draw,
        raw: bool,
        report: Report,
    ) -> None:
        if not isinstance(draw, int):  # a sample that comes twice in a batch draws twice
            for row in range(len(indices)):
                here = slice(row, row + 1)
                one, rows = int(draw[row]), [leaf[here] for leaf in out]
                told = functools.partial(report_at, report, row)
                self._fill(indices[here], rows, epoch, one, raw, told)
            return
        # Not as an argument: the samples of a part are asked of the whole, by the whole's numbers.
        _filling.now = (0, 0) if raw else (epoch, draw)
        try:
            super()._fill(indices, out, epoch, draw, raw, report)
        finally:
            del _filling.now

    def _name(self, index: int) -> str:
        return f"{type(self.dataset).__name__}[{index}]"


# Epoch and draw of what this thread is filling.
_filling = threading.local()


def _check(dataset: Any) -> None:
    """TypeError for what has no samples by number."""
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if "DataLoader" in kinds:
        raise TypeError(
            "this is a DataLoader, which makes batches: give its dataset, "
            "from_torch(dataloader.dataset, batch_size=...)."
        )
    if (
        "IterableDataset" in kinds
        or not hasattr(dataset, "__getitem__")
        or not hasattr(dataset, "__len__")
    ):
        raise TypeError(
            f"{type(dataset).__name__} has no samples by number (len(d) and d[i]), which a shuffle of "
            "all needs: from_torch(list(dataset)) if it fits in RAM; otherwise write its samples to "
            "files once, and read these."
        )


class _Lock:
    """A lock, or none, that pickles as a fresh one."""

    def __init__(self, locks: bool) -> None:
        self.locks = locks
        self._forked()
        forks.watch(self)

    def _forked(self) -> None:
        self._lock: Any = threading.RLock() if self.locks else contextlib.nullcontext()

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def __reduce__(self) -> Any:
        return _Lock, (self.locks,)


class _GlobalLock(_Lock):
    """One lock for all loaders of the process, whose datasets draw from the same generators."""

    def __reduce__(self) -> str:
        return "_generators"


_generators = _GlobalLock(True)


@contextlib.contextmanager
def _seeded(rng: np.random.Generator | None) -> Iterator[None]:
    """Seed the global generators meanwhile; not at all without `rng`."""
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
    """What a dataset gives, with arrays for tensors and pictures, and tuples for lists of such."""
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
        # NumPy has no bfloat16 of its own.
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # a PIL picture
        return np.asarray(value)
    return value
