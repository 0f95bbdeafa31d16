"""Samples in tar files, as in WebDataset: adjacent members with the same name and different suffixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import Structure, flatten
from kloaders.core.threads import ThreadPool
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import IMAGE_SUFFIXES
from kloaders.formats.ranges import RangeFiles
from kloaders.formats.tar import TarIndex, tar_index
from kloaders.sources.encoded import Block, EncodedSource, json_value
from kloaders.sources.tables import listed

__all__ = ["TarSamples", "TarSource", "guessed"]

# Suffixes of members that are read as text; others are bytes.
_INTEGERS = {"cls", "cls2", "class", "count", "index", "inx", "id"}
_TEXTS = {"txt", "text", "transcript"}
_JSON = {"json", "jsn"}
_NOWHERE = np.empty(0, np.int64), np.empty(0, np.int64)


def _key_and_suffix(name: str) -> tuple[str, str] | None:
    """The key of a member's sample, and its suffix; None if the member is not part of a sample.

    The suffix begins at the first dot after the folders: "a/b.seg.png" -> "a/b", "seg.png".
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    hidden = not stem or not dot
    meta = name.startswith("__") and "__" in name[2:]
    return None if hidden or meta else (folder + slash + stem, suffix.lower())


class TarSamples:
    """The samples of tar files: the members of each sample, and where they are.

    Args:
        files: the tar files.
        index_folder: the folder for indexes; None: next to the files.

    Takes 16 bytes of memory per member, plus the names of samples.
    """

    def __init__(self, files: RangeFiles, index_folder: str | None) -> None:
        self.files = files
        folder = files.opener.index_folder(index_folder)
        count = len(files.paths)
        with ThreadPool(min(count, 16 if files.opener.fetches else 1), "kloaders-index") as pool:
            indexes = list(pool.map(lambda file: tar_index(files, file, folder), range(count)))
        keys: list[str] = []
        firsts = [0]
        tables: list[dict[str, tuple[Array, Array]]] = []
        for index, path in zip(indexes, files.paths, strict=True):
            own, table = _grouped(index, path)
            keys += own
            firsts.append(len(keys))
            tables.append(table)
        self.keys = keys
        #: The first sample of each file, followed by the number of samples.
        self.firsts: Indices = np.array(firsts, np.int64)
        #: All suffixes, in the order of their first occurrence.
        self.suffixes = list(dict.fromkeys(suffix for table in tables for suffix in table))
        #: For each suffix, the offset of its member in each sample (-1 if there is none), and its size.
        self.places: dict[str, tuple[Array, Array]] = {}
        for suffix in self.suffixes:
            offsets = np.full(len(keys), -1, np.int64)
            sizes = np.zeros(len(keys), np.int64)
            for table, first, last in zip(tables, firsts, firsts[1:], strict=False):
                if suffix in table:
                    offsets[first:last], sizes[first:last] = table[suffix]
            self.places[suffix] = offsets, sizes

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, suffixes: Iterable[str]) -> None:
        """Forget the positions of members with other suffixes."""
        self.places = {suffix: self.places[suffix] for suffix in suffixes if suffix in self.places}

    def file_of(self, index: int) -> int:
        """The number of the file that contains a sample."""
        return int(np.searchsorted(self.firsts, index, side="right")) - 1

    def has(self, index: int) -> list[str]:
        """The suffixes of a sample, among those that are read."""
        return [suffix for suffix, (offsets, _) in self.places.items() if offsets[index] >= 0]


def _grouped(index: TarIndex, path: str) -> tuple[list[str], dict[str, tuple[Array, Array]]]:
    """The samples of a file: their keys, and the positions of their members by suffix."""
    keys: list[str] = []
    found: dict[str, list[tuple[int, int]]] = {}
    for number, name in enumerate(index.names):
        parts = _key_and_suffix(name)
        if parts is None:
            continue
        key, suffix = parts
        if not keys or keys[-1] != key:
            keys.append(key)
        members = found.setdefault(suffix, [])
        if members and members[-1][0] == len(keys) - 1:
            raise DecodeError(
                f"{path} has {name} twice in one sample. Write the file again, with a different name "
                "for each sample."
            )
        members.append((len(keys) - 1, number))
    if not keys:
        raise DecodeError(
            f"{path} contains no samples, which are members such as 000.jpg and 000.cls: it has "
            f"{listed(index.names) or 'nothing'}. Leave it out."
        )
    tables = {}
    for suffix, members in found.items():
        samples, numbers = np.array(members, np.int64).T
        offsets, sizes = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.int64)
        offsets[samples], sizes[samples] = index.offsets[numbers], index.sizes[numbers]
        tables[suffix] = offsets, sizes
    return keys, tables


def guessed(samples: TarSamples) -> tuple[str, str | None]:
    """Guess the suffixes of x and y: an image or array, and a class.

    Raises:
        ValueError: no suffix belongs to an image or an array.
    """
    kinds = [(suffix, suffix.rpartition(".")[2]) for suffix in samples.suffixes]
    inputs = [s for s, kind in kinds if f".{kind}" in IMAGE_SUFFIXES]
    inputs += [s for s, kind in kinds if kind == "npy"]
    if not inputs:
        raise ValueError(
            f"{samples.files.paths[0]}: samples have {listed(samples.suffixes)}, none of which is "
            'an image or an array. Name the suffixes: x="SUFFIX", y="SUFFIX", with decode=.'
        )
    labels = [s for s, kind in kinds if kind in _INTEGERS]
    return inputs[0], labels[0] if labels else None


class TarSource(EncodedSource):
    """Samples of tar files.

    Args:
        samples: the files.
        fields: how each array is made. The name of a value is a suffix, or several suffixes
            separated by ";", of which the first that a sample has is used; "json:key" is a part of
            a JSON text.

    Raises:
        ValueError: no sample has a member with this suffix.
    """

    def __init__(self, samples: TarSamples, fields: tuple[Structure, ...]) -> None:
        super().__init__(fields)
        self.samples, self.opener = samples, samples.files.opener
        # decode= gets the stored bytes.
        self._raw = {n for field in flatten(fields) if field.decode for n in field.names}
        self._choices = {name: _choices(name) for name in self.wanted}
        for name, choices in self._choices.items():
            if not any(suffix in samples.places for suffix, _ in choices):
                raise ValueError(
                    f"{samples.files.paths[0]}: no sample has {name!r:.80}, they have "
                    f"{listed(samples.suffixes)}. Select from these with x= and y=."
                )
        samples.only({suffix for choices in self._choices.values() for suffix, _ in choices})

    def __len__(self) -> int:
        return len(self.samples)

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        files = np.searchsorted(self.samples.firsts, indices, side="right") - 1
        # In file order, which is faster on disks.
        for row in np.lexsort((indices, files)).tolist():
            index, file = int(indices[row]), int(files[row])
            try:
                yield [row], {name: [self._value(name, index, file)] for name in self._choices}
            except Exception as error:
                yield [row], error

    def ranges(self, indices: Indices) -> Iterable[tuple[str, int, int]]:
        for index in indices.tolist():
            path = self.file_of(index)
            for choices in self._choices.values():
                for suffix, _ in choices:
                    offsets, sizes = self.samples.places.get(suffix, _NOWHERE)
                    if len(offsets) and offsets[index] >= 0:
                        start = int(offsets[index])
                        yield path, start, start + int(sizes[index])
                        break

    def values(self, index: int) -> dict[str, Any]:
        """A sample's value for each suffix that is read, or the error if it is missing."""
        found: dict[str, Any] = {}
        file = self.samples.file_of(index)
        for suffix in self.samples.has(index):
            try:
                found[suffix] = self._value(suffix, index, file)
            except DecodeError as error:
                found[suffix] = error
        return found

    def _value(self, name: str, index: int, file: int) -> Any:
        for suffix, path in self._choices[name]:
            if suffix not in self.samples.places:
                continue
            offsets, sizes = self.samples.places[suffix]
            if offsets[index] < 0:
                continue
            raw = self.samples.files.read(file, int(offsets[index]), int(sizes[index]))
            return raw if name in self._raw else _meaning(raw, suffix, path)
        raise DecodeError(
            f"it has no {name!r:.80}, it has {listed(self.samples.has(index)) or 'none of those read'}. "
            "on_error='skip' leaves such samples out."
        )

    def name(self, index: int) -> str:
        return f"{self.file_of(index)}, {self.samples.keys[index]}"

    @property
    def file_firsts(self) -> Indices:
        return self.samples.firsts

    def file_of(self, index: int) -> str:
        return self.samples.files.paths[self.samples.file_of(index)]

    @property
    def paths_of_all(self) -> list[str]:
        return self.samples.files.paths

    def extent(self) -> Iterable[Array]:
        sizes = [size for size, _ in self.samples.files.stamps]
        return [self.samples.firsts, np.array(sizes, np.int64)]

    def close(self) -> None:
        self.samples.files.close()


def _choices(name: str) -> list[tuple[str, str]]:
    """The suffixes to try, and the key in a JSON text."""
    found = []
    for choice in name.split(";"):
        suffix, _, path = choice.partition(":")
        found.append((suffix.strip().lstrip(".").lower(), path))
    return found


def _meaning(raw: bytes, suffix: str, path: str) -> Any:
    """Decode a member's bytes according to its suffix."""
    kind = suffix.rpartition(".")[2]
    if kind in _INTEGERS:
        try:
            return np.int64(int(raw))
        except ValueError:
            raise DecodeError(
                f"{suffix!r:.80} holds {raw[:40]!r:.80}, expected an integer."
            ) from None
    if kind in _JSON:
        return json_value(raw, path, suffix)
    if kind in _TEXTS:
        return raw.decode("utf-8")
    return raw
