"""Short digests that identify the data and options of a saved position.

Only names and a few rows of arrays are read, and only once: a million paths take 0.3 s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kloaders.core.structure import Structure, flatten
from kloaders.sources.columns import ArrayColumn, Column, ListColumn
from kloaders.sources.path_lists import PackedPaths

__all__ = [
    "VERSION",
    "Digest",
    "checked_state",
    "common_folder",
    "of_columns",
    "of_names",
    "of_parts",
    "spread",
]

# The number of samples that are read, evenly spread, if reading all would be expensive.
_SPREAD = 256
# Arrays in RAM up to this size are read as a whole.
_WHOLE = 64 * 2**20


class Digest:
    """A short digest of much data. The common folder of paths does not count, so data may be moved."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=12)

    def add(self, *values: object) -> None:
        """Add texts, numbers, or tuples of these."""
        for value in values:
            self._hash.update(f"{value!r}\0".encode("utf-8", "surrogateescape"))

    def add_bytes(self, data: Any) -> None:
        """Add bytes, or the bytes of an array."""
        array = np.ascontiguousarray(
            np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        )
        self.add(array.dtype.str, array.shape)
        if array.dtype.hasobject:
            self.add(*array.reshape(-1).tolist())
            return
        self._hash.update(array.reshape(-1).view(np.uint8).data)

    def add_names(self, names: Sequence[str]) -> None:
        """Add names of files or samples, without their common folder."""
        cut = len(_folder(names))
        self.add(*(name[cut:] for name in names))

    def add_paths(self, paths: PackedPaths) -> None:
        """Add all paths, in order."""
        data = b"\0" + paths.joined()
        folder = _folder([paths[k] for k in spread(len(paths))])
        self._hash.update(data.replace(b"\0" + os.fsencode(folder), b"\0"))

    def text(self) -> str:
        """The digest as a short text."""
        return self._hash.hexdigest()


def _folder(names: Sequence[str]) -> str:
    """The common prefix of all names, up to the last separator. The names need not be paths."""
    first, last = min(names), max(names)
    same = next(
        (k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return first[: max(first.rfind("/", 0, same), first.rfind(os.sep, 0, same)) + 1]


def common_folder(*groups: Sequence[str]) -> str:
    """The common folder of all these paths, with a trailing separator; "" if there is none."""
    return _folder([_folder_of(group) for group in groups]) if groups else ""


def _folder_of(paths: Sequence[str]) -> str:
    if not isinstance(paths, PackedPaths):
        return _folder(paths)
    # Guess the folder from a few paths, then verify it on the joined text of all paths: ten
    # million paths take a second.
    folder = _folder([paths[k] for k in spread(len(paths))])
    data = b"\0" + paths.joined()
    while data.count(b"\0" + folder.encode("utf-8", "surrogateescape")) < len(paths):
        folder = _folder([folder[:-1]])
    return folder


def spread(count: int) -> list[int]:
    """Evenly spread sample numbers, including the first and the last."""
    return [int(k) for k in np.unique(np.linspace(0, count - 1, min(count, _SPREAD)).astype(int))]


def of_columns(part: Structure) -> str:
    """A digest of columns, which have one value for each sample."""
    digest = Digest()
    for column in flatten(part):
        _add(digest, column)
    return digest.text()


def of_parts(parts: Sequence[Structure]) -> dict[str, str]:
    """`of_columns` of x, y and weights, as far as they exist, by their key in a saved state."""
    names = ("data", "labels", "weights")
    return {name: of_columns(part) for name, part in zip(names, parts, strict=False)}


def of_names(
    name: Callable[[int], str], samples: int, arrays: Iterable[np.ndarray[Any, Any]] = ()
) -> str:
    """A digest of samples from their names, and from other known arrays."""
    digest = Digest()
    digest.add_names([name(k) for k in spread(samples)])
    for array in arrays:
        digest.add_bytes(array)
    return digest.text()


def _add(digest: Digest, column: Column) -> None:
    for inner in _layers(column):
        digest.add(type(inner).__name__)
        if isinstance(inner, ArrayColumn):
            small = inner.array.nbytes <= _WHOLE and not isinstance(inner.array, np.memmap)
            digest.add(inner.array.shape, inner.array.dtype.str)
            digest.add_bytes(inner.array if small else inner.array[spread(len(inner))])
        elif isinstance(inner, ListColumn):
            for k in spread(len(inner)):
                digest.add_bytes(np.asarray(inner.arrays[k]))
        elif isinstance(paths := getattr(inner, "paths", None), PackedPaths):
            digest.add_paths(paths)
        elif isinstance(numbers := getattr(inner, "numbers", None), np.ndarray):  # a selection
            digest.add_bytes(numbers)
        elif isinstance(parts := getattr(inner, "parts", None), list):  # checksums of a pack
            digest.add(*parts)


def _layers(column: Any) -> Iterator[Any]:
    """A column and the columns inside it, without caches."""
    while column is not None:
        inner = getattr(column, "column", None)
        if not hasattr(column, "store"):
            yield column
        column = inner


#: The version of a state. An incompatible format gets a new number.
VERSION = 1

_LEAST = {
    "epoch": 0,
    "samples": 0,
    "batch": 0,
    "start": 0,
    "head": 0,
    "global_batch": 1,
    "shards": 1,
}
_LEAST_OR_NONE = {"stored": 0, "window": 1, "ram_batch": 1}


def checked_state(state: Any, own: dict[str, Any], whose: str) -> dict[str, Any]:
    """Return a state if it fits a loader with this data and these options.

    Raises:
        TypeError: it is not a dictionary.
        ValueError: it is damaged, or belongs to other data or options; the message says which.
    """
    if not isinstance(state, dict):
        raise TypeError(
            f"a state is {type(state).__name__}, expected the result of state_dict(); decode JSON text "
            "with json.loads first."
        )
    if state.get("version") != VERSION:
        raise ValueError(
            f"this is not a loader's state, or has another version ({state.get('version')!r:.80} "
            f"instead of {VERSION}): pass the result of state_dict()."
        )
    for name, least in (_LEAST | _LEAST_OR_NONE).items():
        value = state.get(name)
        if value is None and name in _LEAST_OR_NONE and name in state:
            continue
        if type(value) is not int or not least <= value < 2**62:
            raise ValueError(
                f"the state is damaged: {name} is {value!r:.80}, expected an integer of at least {least}."
            )
    saved = state.get("made_for")
    if not isinstance(saved, dict):
        raise ValueError(f"the state is damaged: made_for is {saved!r:.80}, expected a dictionary.")
    found = [
        f"{name} was {saved.get(name)!r:.80} and is {own.get(name)!r:.80}"
        for name in [*own, *(name for name in saved if name not in own)]
        if own.get(name) != saved.get(name)
    ]
    if found:
        raise ValueError(
            f"this state belongs to other data or options than those of {whose}: {'; '.join(found)}. "
            "Make the loader as it was, or start again without the state."
        )
    return state
