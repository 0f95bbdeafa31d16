"""The options of a loader, in groups. Each group is a frozen dataclass that checks its values.

An option is one field of one group, with its default; a line in `Options`, for editors and type
checkers; and a line in the docstring of `SequenceLoader`. tests/core/test_options.py checks that
the three agree with each other and with the table in the docs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np

from kloaders.core.calls import Call
from kloaders.core.checks import (
    Transform,
    call_of,
    checked_cache,
    checked_count,
    checked_flag,
    checked_shard,
    checked_shuffle,
    dtypes_of,
)
from kloaders.core.errors import check_max_errors, check_policy
from kloaders.core.memory import parse_bytes
from kloaders.core.places import check_place
from kloaders.core.ray import Ray

__all__ = [
    "CHANGEABLE",
    "GROUPS",
    "NO_MULTIPROCESSING",
    "CacheOptions",
    "FaultOptions",
    "Options",
    "OrderOptions",
    "RamOptions",
    "SamplingOptions",
    "TransformOptions",
    "WorkOptions",
    "defaults",
    "shows_options",
]


class Options(TypedDict, total=False):
    """The options that every loader takes; see `SequenceLoader`."""

    shuffle: bool | None
    seed: int | None
    drop_last: bool
    pad_last: bool
    with_ids: bool
    shard: tuple[int, int] | Literal["auto"] | None
    sample_weights: Any
    class_weight: Any
    epoch_batches: int | None
    class_balance: Any
    sampling_weights: Any
    replacement: bool
    preprocess: Transform | None
    transform: Transform | None
    batch_transform: Transform | None
    dtype: Any
    workers: int | None
    processes: bool | Ray
    max_queue_size: int
    use_multiprocessing: bool
    on_error: str
    max_errors: int | float | None
    quarantine: str | os.PathLike[str] | None
    cache: str | os.PathLike[str] | bool | None
    cache_budget: int | str | None
    cache_key: str | None


#: The options that `SequenceLoader.set` may change between two epochs.
CHANGEABLE = ("size", "transform", "batch_transform", "class_weight", "sampling_weights")


class _Group:
    """A frozen group of options. Its fields are replaced by their checked values."""

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class OrderOptions(_Group):
    """The order of the samples, and how they are divided into batches."""

    shuffle: bool | None = None
    seed: int | None = None
    drop_last: bool = False
    pad_last: bool = False
    with_ids: bool = False
    shard: tuple[int, int] | None = None
    #: Whether the user left the seed to the loader.
    seed_drawn: bool = field(default=False, metadata={"option": False})

    def __post_init__(self) -> None:
        drawn = self.seed is None or self.seed_drawn
        # One draw from the global generator, so that keras.utils.set_random_seed fixes it.
        seed = np.random.randint(2**31) if self.seed is None else self.seed
        self._set(
            shuffle=checked_shuffle(self.shuffle),
            seed=checked_count(seed, "seed", 0),
            drop_last=checked_flag(self.drop_last, "drop_last"),
            pad_last=checked_flag(self.pad_last, "pad_last"),
            with_ids=checked_flag(self.with_ids, "with_ids"),
            shard=checked_shard(self.shard),
            seed_drawn=drawn,
        )
        if self.drop_last and self.pad_last:
            raise ValueError("drop_last=True and pad_last=True contradict each other: choose one.")

    @property
    def part(self) -> tuple[int, int]:
        """The part k of n that this loader delivers, as (k, n)."""
        assert self.shard is not None
        return self.shard

    @property
    def number(self) -> int:
        """The seed."""
        assert self.seed is not None
        return self.seed


@dataclass(frozen=True)
class SamplingOptions(_Group):
    """How often samples are drawn, as the user passed it; `loaders.options` checks it against the data."""

    sample_weights: Any = None
    class_weight: Any = None
    epoch_batches: int | None = None
    class_balance: Any = None
    sampling_weights: Any = None
    replacement: bool = False

    def __post_init__(self) -> None:
        length = self.epoch_batches
        self._set(
            epoch_batches=None if length is None else checked_count(length, "epoch_batches", 1),
            replacement=checked_flag(self.replacement, "replacement"),
        )


@dataclass(frozen=True)
class TransformOptions(_Group):
    """Processing of samples and batches after they are read.

    Attributes:
        calls: how to call the functions that are set, by option name.
    """

    transform: Transform | None = None
    batch_transform: Transform | None = None
    dtype: Any = None
    preprocess: Transform | None = None
    #: The dtype of labels, if `dtype` was a dict.
    label_dtype: Any = field(default=None, metadata={"option": False})
    calls: dict[str, Call] = field(
        init=False, repr=False, compare=False, metadata={"option": False}
    )

    def __post_init__(self) -> None:
        names = ("preprocess", "transform", "batch_transform")
        given = {name: getattr(self, name) for name in names}
        inputs, labels = dtypes_of(self.dtype)
        self._set(
            dtype=inputs,
            label_dtype=self.label_dtype if labels is None else labels,
            calls={name: call_of(f, name) for name, f in given.items() if f is not None},
        )

    def takes_weights(self, name: str) -> bool:
        """Whether the function of this name is set and takes weights."""
        return name in self.calls and self.calls[name].takes("w")


@dataclass(frozen=True)
class WorkOptions(_Group):
    """How batches are made, and how many are prefetched."""

    workers: int | None = None
    processes: bool | Ray = False
    max_queue_size: int = 10
    use_multiprocessing: bool = False

    def __post_init__(self) -> None:
        if self.use_multiprocessing:
            raise ValueError(NO_MULTIPROCESSING)
        count = self.workers
        self._set(
            workers=None if count is None else checked_count(count, "workers", 0),
            processes=self.processes
            if isinstance(self.processes, Ray)
            else checked_flag(self.processes, "processes"),
            max_queue_size=checked_count(self.max_queue_size, "max_queue_size", 0),
        )
        if isinstance(self.processes, Ray) and self.workers is not None:
            raise ValueError(
                f"workers={self.workers} and processes={self.processes} are both set: with Ray, cpus= "
                "is the number of workers. Leave workers= out."
            )
        if self.processes and self.workers == 0:
            raise ValueError("processes=True needs workers=1 or more, got workers=0.")


@dataclass(frozen=True)
class FaultOptions(_Group):
    """Handling of samples that do not load."""

    on_error: str = "raise"
    max_errors: int | float | None = None
    quarantine: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        policy = check_policy(self.on_error)
        path = self.quarantine
        path = None if path is None else check_place(os.fspath(path), "quarantine", url=True)
        self._set(
            on_error=policy, max_errors=check_max_errors(self.max_errors, policy), quarantine=path
        )


@dataclass(frozen=True)
class CacheOptions(_Group):
    """Where samples are cached after they are read."""

    cache: str | os.PathLike[str] | bool | None = "auto"
    cache_budget: int | str | None = None
    cache_key: str | None = None

    def __post_init__(self) -> None:
        budget, key = self.cache_budget, self.cache_key
        if key is not None and not isinstance(key, str):
            raise TypeError(
                f"cache_key={key!r:.80} is {type(key).__name__}, expected a string that changes whenever "
                'the cached samples change, such as "v2".'
            )
        if key == "":
            raise ValueError(
                'cache_key="" is empty, expected a string that changes whenever the cached samples '
                'change, such as "v2", or None to compare functions by their code and data.'
            )
        self._set(
            cache=checked_cache(self.cache),
            cache_budget=None if budget is None else parse_bytes(budget, "cache_budget"),
        )

    @property
    def place(self) -> str | None:
        """Where the cache is: "auto", "ram", a folder, or None."""
        return None if self.cache is None else str(self.cache)

    @property
    def budget_bytes(self) -> int | None:
        """The maximum size of the cache in bytes; None if the user set no limit."""
        assert not isinstance(self.cache_budget, str)
        return self.cache_budget


#: The groups that every loader has, by their attribute name in `loaders.options.LoaderOptions`.
GROUPS: dict[str, type[Any]] = {
    "order": OrderOptions,
    "sampling": SamplingOptions,
    "transforms": TransformOptions,
    "work": WorkOptions,
    "faults": FaultOptions,
    "cache": CacheOptions,
}


@dataclass(frozen=True)
class RamOptions(_Group):
    """RAM batches: a large part of the data is held in RAM, and batches are served from it.

    most_batches: the maximum number of batches for which a budget is used; None: no maximum.
    """

    ram_batch_size: int | None = None
    ram_budget: int | str | None = None
    draw: Literal["windows", "front to back", "global"] = "global"
    most_batches: int | None = None

    def __post_init__(self) -> None:
        size, budget = self.ram_batch_size, self.ram_budget
        if size is not None and budget is not None:
            raise ValueError(
                f"ram_batch_size={size} and ram_budget={budget!r:.80} are both set: choose one, "
                "the other is computed from it."
            )
        if self.draw not in ("windows", "front to back", "global"):
            raise ValueError(f'draw={self.draw!r:.80} is not known: choose "global" or "windows".')
        self._set(
            ram_batch_size=None if size is None else checked_count(size, "ram_batch_size", 1),
            ram_budget=None if budget is None else parse_bytes(budget, "ram_budget"),
        )

    @property
    def budget_bytes(self) -> int | None:
        """The maximum size in bytes of RAM batches and prefetched batches together."""
        assert not isinstance(self.ram_budget, str)
        return self.ram_budget


def defaults() -> dict[str, Any]:
    """The options that every loader has, with their defaults."""
    return {
        option.name: option.default
        for group in GROUPS.values()
        for option in fields(group)
        if option.metadata.get("option", True)
    }


F = TypeVar("F", bound=Callable[..., Any])


def shows_options(options: type[Any], *others: Callable[..., Any]) -> Callable[[F], F]:
    """Show the keys of a TypedDict one by one in the signature that `help` and Sphinx read.

    The function itself keeps its `**options: Unpack[options]`, which type checkers and editors read.

    Args:
        options: the TypedDict.
        others: functions that have some of these options, with their defaults, in addition to those
            that every loader has.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        known = defaults()
        for other in others:
            known |= {p.name: p.default for p in inspect.signature(other).parameters.values()}
        named = {p.name for p in own}
        own += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=known[name],
                # "bool | None", and not ForwardRef("bool | None", module="kloaders.core.options")
                annotation=getattr(annotation, "__forward_arg__", annotation),
            )
            for name, annotation in options.__annotations__.items()
            if name not in named
        ]
        function.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]  # for inspect
        return function

    return decorate


NO_MULTIPROCESSING = (
    "use_multiprocessing=True is Keras' process pool, which repeats and loses batches with some "
    "backends and is rebuilt every epoch. This loader has its own threads (workers=, on by "
    "default) and processes: leave use_multiprocessing out, or pass processes=True instead."
)
