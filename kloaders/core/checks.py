"""Checks of what a user gave: each returns the value to use, or raises an error that says what to do."""

from __future__ import annotations

import difflib
import inspect
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = [
    "Transform",
    "check_names",
    "checked_cache",
    "checked_class_names",
    "checked_count",
    "checked_dtype",
    "checked_flag",
    "checked_shard",
    "checked_shuffle",
    "checked_transform",
    "no_samples",
]

#: `transform(x, y, rng)` -> `(x, y)`.
Transform = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]

_EXAMPLES = {"batch_size": 32, "seed": 7, "workers": 2, "ram_batch_size": 4096, "echo": 2}


def check_names(owner: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """TypeError for an option that a loader does not have, with the one that may be meant.

    owner: what has these options, such as the name of a class.
    """
    known = list(known)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.5)
            meant = f"did you mean {close[0]}=?" if close else f"it has {', '.join(known)}."
            raise TypeError(f"{owner} has no option {name}=: {meant}")


def checked_count(value: Any, name: str, least: int) -> int:
    """An integer of at least `least`."""
    example = f", as in {name}={_EXAMPLES[name]}" if name in _EXAMPLES else ""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r} is {type(value).__name__}, expected an integer of at least {least}"
            f"{example}."
        ) from None
    if number < least:
        raise ValueError(f"{name}={number} is too small, expected at least {least}{example}.")
    return number


def checked_flag(value: Any, name: str) -> bool:
    """True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}={value!r}: choose True or False.")


def checked_class_names(names: Any) -> list[str]:
    """Texts, each another one."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names={names!r:.80}, expected a list of texts, one for each class.")
    found = list(names)
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"class_names holds {twice!r:.80} twice, expected each name once.")
    return found


def checked_shuffle(shuffle: Any) -> bool | None:
    """None, True or False."""
    if shuffle is None or isinstance(shuffle, (bool, np.bool_)):
        return None if shuffle is None else bool(shuffle)
    raise TypeError(
        f"shuffle={shuffle!r}: choose None (do what Keras asks), True (always shuffled) or False "
        "(storage order)."
    )


def checked_shard(shard: Any) -> tuple[int, int]:
    """(k, n) with 0 <= k < n; (0, 1) for None."""
    if shard is None:
        return 0, 1
    try:
        k, n = (operator.index(v) for v in shard)
    except (TypeError, ValueError):
        raise TypeError(f"shard={shard!r}, expected (k, n): this is part k of n.") from None
    if not 0 <= k < n:
        raise ValueError(f"shard={shard!r}: k counts from 0 to n - 1, so that 0 <= k < n.")
    return k, n


def checked_cache(cache: Any) -> str | None:
    """A cache: "auto", "ram", a folder, or None."""
    if cache is None or isinstance(cache, str):
        return cache
    if isinstance(cache, os.PathLike):
        return str(os.fspath(cache))
    raise TypeError(f'cache={cache!r}: choose "auto", "ram", a folder, or None for no cache.')


def checked_dtype(dtype: Any) -> np.dtype[Any] | None:
    """A dtype of numbers in this machine's byte order; TypeError for others."""
    if dtype is None:
        return None
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f'dtype={dtype!r} is no NumPy type. Pass a name such as "uint8" or "float32".'
        ) from None
    if checked.isbuiltin == 2:  # a registered number type, such as ml_dtypes.bfloat16
        return checked
    if checked.kind not in "biuf":
        raise TypeError(
            f"dtype={dtype!r}, expected a type of real numbers. "
            'Pass a name such as "uint8" or "float32".'
        )
    native: np.dtype[Any] = checked.newbyteorder("=")
    return native


def checked_transform(transform: Any, name: str) -> Transform | None:
    """A function of x, y and rng, or None."""
    if transform is None:
        return None
    checked: Transform = transform
    form = f"expected a function {name}(x, y, rng) that returns (x, y)."
    if not callable(transform):
        raise TypeError(f"{name}={transform!r} is no function, {form}")
    try:
        signature = inspect.signature(transform)
    except (TypeError, ValueError):  # some functions written in C have none
        return checked
    try:
        signature.bind(0, 0, 0)
    except TypeError:
        raise TypeError(f"{name}={transform!r} takes {signature}, {form}") from None
    return checked


def no_samples(owner: str, advice: str) -> str:
    """The message for a loader without samples; `owner` is its class."""
    return f"{owner} got no samples: {advice}, and check where the data lie."
