"""Argument checks. Each returns the value to use, or raises an error with advice."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kloaders.core.calls import Call
from kloaders.core.meant import meant_by
from kloaders.core.places import check_place

__all__ = [
    "Transform",
    "call_of",
    "check_names",
    "checked_cache",
    "checked_class_names",
    "checked_count",
    "checked_dtype",
    "checked_flag",
    "checked_shard",
    "checked_shuffle",
    "dtypes_of",
    "no_samples",
]

#: `transform(x, y, rng)` -> `(x, y)` or `(x, y, w)`; it may also take `w` and `epoch`.
Transform = Callable[..., tuple[Any, ...]]

_EXAMPLES = {
    "batch_size": 32,
    "seed": 7,
    "workers": 2,
    "ram_batch_size": 4096,
    "echo": 2,
    "samples_per_file": 4,
}


def check_names(owner: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise TypeError for an unknown option, and suggest the one that was probably meant.

    owner: what has these options, such as a class name.
    """
    known = list(known)
    for name in options:
        if name not in known:
            # Shared by all classes with these options; their first arguments differ.
            meant = meant_by(name, [*known, "batch_size"]) or f"it has {', '.join(known)}."
            raise TypeError(f"{owner} has no option {name}=: {meant}")


def checked_count(value: Any, name: str, least: int) -> int:
    """Return `value` as an integer of at least `least`."""
    example = f", as in {name}={_EXAMPLES[name]}" if name in _EXAMPLES else ""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r:.80} is {type(value).__name__}, expected an integer of at least {least}"
            f"{example}."
        ) from None
    if number < least:
        raise ValueError(f"{name}={number} is too small, expected at least {least}{example}.")
    return number


def checked_flag(value: Any, name: str) -> bool:
    """Return `value` as True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}={value!r:.80}: choose True or False.")


def checked_class_names(names: Any) -> list[str]:
    """Return class names as a list of unique strings."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names={names!r:.80}, expected a list of texts, one for each class.")
    found = list(names)
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"class_names holds {twice!r:.80} twice, expected each name once.")
    return found


def checked_shuffle(shuffle: Any) -> bool | None:
    """Return `shuffle`, which must be None, True or False."""
    if shuffle is None or isinstance(shuffle, (bool, np.bool_)):
        return None if shuffle is None else bool(shuffle)
    raise TypeError(
        f"shuffle={shuffle!r:.80}: choose None (do what Keras asks), True (always shuffled) or False "
        "(storage order)."
    )


def checked_shard(shard: Any) -> tuple[int, int]:
    """Return a shard as (k, n) with 0 <= k < n; None becomes (0, 1)."""
    if shard is None:
        return 0, 1
    try:
        k, n = (operator.index(v) for v in shard)
    except (TypeError, ValueError):
        raise TypeError(
            f'shard={shard!r:.80}, expected (k, n), which is part k of n, or "auto".'
        ) from None
    if not 0 <= k < n:
        raise ValueError(f"shard={shard!r:.80}: k counts from 0 to n - 1, so that 0 <= k < n.")
    return k, n


def checked_cache(cache: Any) -> str | None:
    """Return a cache as "auto", "ram", a folder or None; True means "ram", False means None."""
    if isinstance(cache, (bool, np.bool_)):
        return "ram" if cache else None
    if cache is None:
        return None
    if isinstance(cache, (str, os.PathLike)):
        return check_place(str(os.fspath(cache)), "cache")
    raise TypeError(
        f'cache={cache!r:.80}: choose "auto", "ram" or True, a folder, or None or False for no cache.'
    )


def checked_dtype(dtype: Any) -> np.dtype[Any] | None:
    """Return a numeric dtype for inputs, in native byte order; TypeError for any other."""
    return dtypes_of(dtype)[0]


def dtypes_of(dtype: Any) -> tuple[np.dtype[Any] | None, np.dtype[Any] | None]:
    """The input and label dtypes that `dtype=` sets; None keeps the stored dtype.

    Raises:
        TypeError: not a numeric dtype, or a key other than "x" and "y".
    """
    if not isinstance(dtype, Mapping):
        return _checked_dtype(dtype), None
    wrong = [name for name in dtype if name not in ("x", "y")]
    if wrong or not dtype:
        raise TypeError(
            f"dtype={dtype!r:.80}, expected one dtype for inputs, or a dict for inputs and labels: "
            'dtype={"x": "float32", "y": "int32"}. Weights are float32.'
        )
    return _checked_dtype(dtype.get("x")), _checked_dtype(dtype.get("y"))


def _checked_dtype(dtype: Any) -> np.dtype[Any] | None:
    if dtype is None:
        return None
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f'dtype={dtype!r:.80} is not a NumPy dtype. Pass a name such as "uint8" or "float32".'
        ) from None
    if checked.isbuiltin == 2:  # a registered numeric type, such as ml_dtypes.bfloat16
        return checked
    if checked.kind not in "biuf":
        raise TypeError(
            f"dtype={dtype!r:.80}, expected a type of real numbers. "
            'Pass a name such as "uint8" or "float32".'
        )
    native: np.dtype[Any] = checked.newbyteorder("=")
    return native


def call_of(transform: Any, name: str) -> Call:
    """Check a transform, and return how to call it.

    Raises:
        TypeError: it is not a function of x, y and rng.
    """
    other = _other_library(transform, name)
    if other is not None:
        raise TypeError(f"{name}={transform!r:.80} is {other}")
    if name == "preprocess":
        call = Call(transform, name, ("x", "y", "rng"), ("w", "epoch"), optional=1)
        if call.takes("epoch"):
            raise TypeError(
                f"preprocess={transform!r:.80} takes epoch, but its result must be the same in each "
                "epoch: leave epoch out, or pass the function as transform=."
            )
        return call
    return Call(transform, name, ("x", "y", "rng"), ("w", "epoch"))


def _other_library(transform: Any, name: str) -> str | None:
    """Recognize transforms of other libraries, which have another signature and would fail late."""
    kinds = [kind for kind in type(transform).__mro__ if kind is not object]
    owners = {kind.__module__.partition(".")[0] for kind in kinds}
    if callable(getattr(transform, "stateless_call", None)):
        return (
            f"a Keras layer: pass batch_transform=keras_transform(layer), or put it into the model. To "
            f"prepare inputs with a model, call it in a function {name}(x, y, rng)."
        )
    if "albumentations" in owners:
        return (
            "an albumentations pipeline: pass transform=albumentations_transform(pipeline); "
            'with y="mask" it transforms the masks, too.'
        )
    taken = _takes_three(getattr(transform, "forward", None))
    if owners & {"tf_keras", "torchvision"} or ("torch" in owners and not taken):
        return (
            f"a module of {min(owners & {'tf_keras', 'torch', 'torchvision'})}, which needs its own "
            f"tensors: call it in a function {name}(x, y, rng) that returns (x, y) as arrays."
        )
    return None


def _takes_three(function: Any) -> bool:
    try:
        inspect.signature(function).bind(0, 0, 0)
    except (TypeError, ValueError):
        return False
    return True


def no_samples(owner: str, advice: str) -> str:
    """The error message for a loader without samples; `owner` is its class."""
    return f"{owner} got no samples: {advice}, and check where the data are."
