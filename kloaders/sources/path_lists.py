"""Lists of paths that take little memory: millions of paths in one block, and selections of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, overload

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.byte_search import found_at
from kloaders.core.messages import visible

__all__ = ["PackedPaths", "SubsetPaths"]


class PackedPaths(Sequence[str]):
    """Millions of paths in one block of bytes: 5 bytes per path plus its text (9 above 4 GiB).

    A list of str takes 57 bytes per path plus its characters, and gives the garbage collector as many
    objects to visit.
    """

    def __init__(self, paths: Iterable[Any], what: str = "paths") -> None:
        items = paths if isinstance(paths, (list, tuple)) else list(paths)
        try:
            # One join for the whole list; surrogates represent names that are not UTF-8.
            text = _joined(items)
        except TypeError:  # not all items are str
            for k, item in enumerate(items):
                if not isinstance(item, (str, os.PathLike)):
                    raise TypeError(
                        f"{what}[{k}] is {item!r:.80} ({type(item).__name__}), expected a file's path "
                        "as str or pathlib.Path. For arrays use ArraySequenceLoader."
                    ) from None
            items = [os.fsdecode(item) for item in items]
            text = _joined(items)
        block = text.encode("utf-8", "surrogateescape")
        del text
        self._set(block, found_at(np.frombuffer(block, np.uint8), 0))
        if len(self._ends) != len(items):
            bad_path = next(p for p in items if "\0" in p)
            raise ValueError(
                f"the path '{visible(bad_path)}' contains a NUL character, which no file name can."
            )

    @classmethod
    def of_block(cls, block: bytes, ends: Indices) -> PackedPaths:
        """Paths from `block`, where each is followed by a NUL character at one of the positions `ends`."""
        paths = cls.__new__(cls)
        paths._set(block, ends)  # noqa: SLF001  the same class
        return paths

    def _set(self, block: bytes, ends: Indices) -> None:
        self._bytes = block
        self._ends = ends.astype(np.uint32 if len(block) < 2**32 else np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: slice | SupportsIndex) -> list[str] | str:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k, ends = int(index), self._ends
        if k < 0:
            k += len(ends)
        if not 0 <= k < len(ends):
            raise IndexError(f"path {index} of {len(ends)}")
        start = ends.item(k - 1) + 1 if k else 0
        return self._bytes[start : ends.item(k)].decode("utf-8", "surrogateescape")

    def at(self, indices: Indices) -> list[str]:
        """The paths at these positions, which are not negative; takes a third of the time of `self[k]`."""
        ends, block = self._ends, self._bytes
        starts = ends[indices - 1] + 1
        starts[indices == 0] = 0
        stops = ends[indices].tolist()
        return [
            block[start:stop].decode("utf-8", "surrogateescape")
            for start, stop in zip(starts.tolist(), stops, strict=True)
        ]

    def take(self, indices: Indices) -> PackedPaths:
        """The paths at these positions, packed."""
        return PackedPaths(self.at(indices))

    def joined(self) -> bytes:
        """All paths, each followed by a NUL character."""
        return self._bytes

    @property
    def nbytes(self) -> int:
        """The size in memory in bytes."""
        return len(self._bytes) + self._ends.nbytes


def _joined(paths: Sequence[str]) -> str:
    return "\0".join(paths) + "\0" if paths else ""


class SubsetPaths(Sequence[str]):
    """Some of the paths, selected by number without copying."""

    def __init__(self, paths: Sequence[str], numbers: Array) -> None:
        self._paths = paths
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: slice | SupportsIndex) -> list[str] | str:
        if isinstance(index, slice):
            return [self._paths[k] for k in self._numbers[index].tolist()]
        try:
            return self._paths[int(self._numbers[index])]
        except IndexError:
            raise IndexError(f"path {index} of {len(self)}") from None

    def joined(self) -> bytes:
        """All paths, each followed by a NUL character."""
        return b"".join(f"{path}\0".encode("utf-8", "surrogateescape") for path in self)

    @property
    def nbytes(self) -> int:
        """The size in memory in bytes, including the shared paths."""
        return int(getattr(self._paths, "nbytes", 0)) + self._numbers.nbytes
