"""A loader of the samples that a function selects. The function is called once per sample."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.errors import SampleError
from kloaders.core.messages import inform
from kloaders.core.structure import unflatten
from kloaders.formats.atomic import whole_file
from kloaders.loaders.raw_samples import raw_samples
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.subsets import subset
from kloaders.sources.cache.keys import key_of

__all__ = ["filter"]

L = TypeVar("L", bound=SequenceLoader)


def filter(  # noqa: A001  (as kl.filter it shadows nothing)
    loader: L,
    function: Callable[[Any, Any], Any],
    *,
    cache: str | os.PathLike[str] | None = None,
    cache_key: str | None = None,
    progress: bool = True,
) -> L:
    """A loader of the same kind over the samples for which `function(x, y)` is True.

    Every sample is read once, as it is stored, before the transform. The new loader keeps the sample
    numbers, so the function is not called again in later epochs. If the selection is known in advance,
    no sample needs to be read: `subset(loader, labels == 3)`.

    Args:
        loader: any loader.
        function: takes one sample's x and y (None without labels), and returns True or False.
        cache: a file, "kept.npz", for the numbers: the next run reads them from it, without reading
            samples, if the function is the same (compared by value) and the data are the same
            (compared by file names, not by content).
        cache_key: a string to change whenever the function changes, if the function uses something
            that cannot be compared by value.
        progress: show a bar while reading.

    Raises:
        SampleError: a sample does not load (on_error="raise"), or the function fails for a sample.
        TypeError: the function returns something other than True or False.
        ValueError: no sample is left.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(10), batch_size=4)
    >>> filter(loader, lambda x, y: x % 3 == 0, progress=False)[0]
    array([0, 3, 6, 9])
    """
    if not callable(function):
        raise TypeError(f"filter(function={function!r:.80}), expected a function of x and y.")
    place = None if cache is None else os.fspath(cache)
    made_for = "" if place is None else _made_for(loader, function, place, cache_key)
    numbers = None if place is None else _saved(place, made_for)
    if numbers is None:
        numbers = _chosen(loader, function, progress)
        if place is not None:
            with whole_file(place) as file:
                np.savez(file, numbers=numbers, made_for=np.array(made_for))
    inform(f"filter: {len(numbers):,} of {loader.samples:,} samples are selected.")
    if not len(numbers):
        raise ValueError(
            f"filter() selects none of {loader.samples:,} samples: the function returned False for each."
        )
    return subset(loader, numbers)


def _chosen(loader: SequenceLoader, function: Callable[[Any, Any], Any], progress: bool) -> Indices:
    kept = []
    for indices, leaves in raw_samples(loader, "filter", progress):
        for row, index in enumerate(indices.tolist()):
            parts = unflatten(loader.raw_spec, [rows[row] for rows in leaves])
            try:
                answer = function(parts[0], parts[1] if len(parts) > 1 else None)
            except Exception as error:  # a user's function may raise anything
                cause = f"filter's function failed: {type(error).__name__}: {error}"
                raise SampleError(index, loader.sample_name(index), cause) from error
            if _is_true(answer, loader, index):
                kept.append(index)
    return np.array(kept, np.int64)


def _is_true(answer: Any, loader: SequenceLoader, index: int) -> bool:
    value: Array = np.asarray(answer)
    if value.dtype != bool or value.size != 1:
        raise TypeError(
            f"filter's function returned {answer!r:.80} ({type(answer).__name__}) for "
            f"{loader.sample_name(index)}, expected True or False: bool(...), or .all() of an array."
        )
    return bool(value.reshape(-1)[0])


def _made_for(loader: SequenceLoader, function: Any, place: str, cache_key: str | None) -> str:
    """A digest of the data and the function."""
    data = sorted(loader.source.fingerprint().items())
    return key_of(place, [data, loader.samples], {"the function": function}, cache_key)


def _saved(place: str, made_for: str) -> Indices | None:
    """Numbers stored for the same data and function; None if there are none."""
    try:
        with np.load(place) as file:
            if str(file["made_for"]) == made_for:
                return np.asarray(file["numbers"], np.int64)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        inform(f"filter: {place} is not a file of sample numbers, and will be overwritten.")
        return None
    inform(
        f"filter: {place} was made with other data or another function, and will be overwritten."
    )
    return None
