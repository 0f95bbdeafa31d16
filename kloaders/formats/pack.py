"""The manifest of a pack, pack.json: which .npy files hold its samples.

For each array of a sample there is one .npy file that `np.load` reads, with a row for each sample;
a shard is a range of its rows. If a shard's samples differ in shape from the others, the shard has its
own file. It contains rows if all samples of the shard have the same shape. Otherwise it contains the
values of all samples one after another, and a second file, `NAME.index.npy`, has an int64 row per
sample: where its values begin, and its shape (padded with -1). In version 1 of the format each shard
had its own files.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from kloaders.core.messages import visible
from kloaders.core.places import where_of
from kloaders.core.structure import Structure, flatten
from kloaders.core.version import __version__
from kloaders.formats.files import open_to_read
from kloaders.places import access
from kloaders.places.urls import is_url, join

__all__ = [
    "File",
    "Manifest",
    "Part",
    "Shard",
    "dtype_named",
    "files_of",
    "form_of",
    "manifest_changed",
    "nested",
    "path_in",
    "read_manifest",
    "shard_of",
]

# All later versions read old packs. A format that older versions cannot read gets a new number.
FORMAT, VERSION = "kloaders pack", 2
MANIFEST, JOURNAL = "pack.json", "unfinished.jsonl"
#: The folder inside a pack's folder that holds its parts until all are finished.
PARTS = "unfinished"
#: A regular expression for the names of all files of a pack.
FILES = r"pack\.json|[xyw]\d*\.npy(\.unfinished)?|[xyw]\d*-\d{5,}(\.index)?\.npy"


@dataclass(frozen=True)
class File:
    """One .npy file, or the rows of one shard in it.

    Attributes:
        name: the name of the file in the pack's folder.
        shape: the shape of the file's array, or of the shard's rows.
        crc32: the CRC-32 (as in zlib) of the bytes of these values.
        first: the number of the shard's first row, in a file that shards share; None: the file
            belongs to this shard alone.
    """

    name: str
    shape: tuple[int, ...]
    crc32: int
    first: int | None = None


@dataclass(frozen=True)
class Part:
    """One array of the samples of one shard. index: None if all samples have the same shape."""

    values: File
    index: File | None = None

    @property
    def files(self) -> list[File]:
        """The file of values, and the index if there is one."""
        return [self.values] if self.index is None else [self.values, self.index]


@dataclass(frozen=True)
class Shard:
    """Consecutive samples, with one `Part` for each of their arrays."""

    samples: int
    parts: list[Part]


@dataclass(frozen=True)
class Manifest:
    """The content of pack.json.

    structure: how the arrays of a sample are nested, as written by `form_of`; leaves: their dtypes.
    weights: whether the last of `leaves` is the samples' weights.
    job: what the pack was made from, and how.
    """

    samples: int
    structure: Any
    leaves: list[str]
    weights: bool
    shards: list[Shard]
    class_names: Any  # a list of strings, a dict of lists by output, or None
    job: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The text of pack.json."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps({**content, "crc32": crc_of(content)}, indent=1)


def crc_of(content: dict[str, Any]) -> int:
    """The CRC-32 of a JSON value, independent of its formatting."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def form_of(structure: Structure, count: Iterator[int]) -> Any:
    """The nesting of a sample, for JSON; a leaf is its number.

    >>> import itertools
    >>> form_of(({"a": 0, "b": (0, 0)}, 0), itertools.count())
    {'tuple': [{'dict': {'a': 0, 'b': {'tuple': [1, 2]}}}, 3]}
    """
    if isinstance(structure, dict):
        for key in structure:
            if not isinstance(key, str):
                raise TypeError(
                    f"the key {key!r:.80} of a sample is {type(key).__name__}, expected str: a pack "
                    "names its arrays by strings. Rename it in the loader or its transform."
                )
        return {"dict": {key: form_of(value, count) for key, value in structure.items()}}
    if isinstance(structure, tuple):
        return {"tuple": [form_of(value, count) for value in structure]}
    return next(count)


def nested(form: Any, leaves: list[Any]) -> Structure:
    """The structure that `form_of` described, with these leaves."""
    if isinstance(form, int):
        return leaves[form]
    if set(form) == {"dict"}:
        return {key: nested(value, leaves) for key, value in form["dict"].items()}
    return tuple(nested(value, leaves) for value in form["tuple"])


def dtype_named(name: str) -> np.dtype[Any]:
    """A numeric dtype by its name; ValueError, TypeError or AttributeError for any other name."""
    try:
        dtype: np.dtype[Any] = np.dtype(name)
    except TypeError:  # NumPy knows dtypes such as bfloat16 only after ml_dtypes is imported
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, name))
    if dtype.kind not in "biufc" and dtype.isbuiltin != 2:
        raise ValueError(f"dtype {name!r:.80}")
    return dtype


def shard_of(note: dict[str, Any]) -> Shard:
    """A shard from its JSON value; KeyError, TypeError or ValueError if this is invalid."""

    def file(found: dict[str, Any]) -> File:
        name, shape, crc32 = found["name"], tuple(found["shape"]), found["crc32"]
        first = found.get("first")  # missing in version 1
        numbers = (*shape, crc32, *([] if first is None else [first]))
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"shape {shape}, crc32 {crc32}, first {first}")
        if not isinstance(name, str):
            raise TypeError(f"name {name!r:.80}")
        return File(name, shape, crc32, first)

    def part(found: dict[str, Any]) -> Part:
        index = found["index"]
        return Part(file(found["values"]), None if index is None else file(index))

    if type(note["samples"]) is not int or note["samples"] < 0:
        raise ValueError(f"samples {note['samples']!r:.80}")
    return Shard(note["samples"], [part(found) for found in note["parts"]])


def files_of(
    shards: Iterable[Shard], dtypes: list[np.dtype[Any]]
) -> dict[str, tuple[File, np.dtype[Any]]]:
    """Each file of a pack by its name, with the shape of its whole array, and its dtype.

    Raises ValueError if shards contradict each other about a file that they share.
    """
    found: dict[str, tuple[File, np.dtype[Any]]] = {}
    for shard in shards:
        for part, dtype in zip(shard.parts, dtypes, strict=True):
            for file in part.files:
                kind = np.dtype(np.int64) if file is part.index else dtype
                rows = file.shape[0] + (file.first or 0)
                before = found.get(file.name)
                if before is not None:
                    other, other_kind = before
                    alike = (other.shape[1:], other_kind) == (file.shape[1:], kind)
                    if not alike or file.first is None or other.first is None:
                        raise ValueError(
                            f"its shards contradict each other about {visible(file.name)}"
                        )
                    rows = max(rows, other.shape[0])
                whole = File(file.name, (rows, *file.shape[1:]), file.crc32, file.first)
                found[file.name] = whole, kind
    return found


def path_in(folder: str, name: str) -> str:
    """The path, or URL, of a file in a pack's folder."""
    return join(folder, name) if is_url(folder) else os.path.join(folder, name)


def _bytes_of(path: str) -> bytes:
    if is_url(path):
        return access.read(path)
    with open(path, "rb", opener=open_to_read) as file:
        return file.read()


def manifest_changed(folder: str) -> bool:
    """Whether the manifest differs from what `write_pack` wrote, because of an edit or damage."""
    content = json.loads(_bytes_of(path_in(folder, MANIFEST)))
    return bool(content.pop("crc32", None) != crc_of(content))


def read_manifest(folder: str) -> Manifest:
    """The manifest of a pack; FileNotFoundError or ValueError, with advice, if it cannot be read."""
    path = path_in(folder, MANIFEST)
    try:
        text = _bytes_of(path)
    except NotADirectoryError:
        raise NotADirectoryError(
            f"{visible(folder)} is a file, expected the folder that write_pack(loader, folder) made."
        ) from None
    except FileNotFoundError:
        if is_url(folder):
            problem = f"contains no pack (no {MANIFEST}): check the bucket and the folder."
        elif os.path.exists(os.path.join(folder, JOURNAL)):
            problem = "contains an unfinished pack: run the same write_pack again to continue."
        elif os.path.isdir(os.path.join(folder, PARTS)):
            problem = "contains parts of a pack: when all are written, call finish_pack(folder)."
        elif os.path.isdir(folder):
            problem = f"contains no pack (no {MANIFEST}): make one with write_pack(loader, folder)."
        else:
            problem = f"does not exist. {where_of(folder)}"
        raise FileNotFoundError(f"{visible(folder)} {problem}") from None
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r:.80}")
        version = content["version"]
        if version in (1, VERSION):
            return _parsed(content)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(
            f"{visible(path)} is damaged ({type(error).__name__}: {error}). Restore it from an "
            "intact copy, or write the pack again."
        ) from error
    raise ValueError(
        f"{visible(path)} has version {version!r:.80}, but kloaders {__version__} reads up to {VERSION}: "
        "upgrade kloaders, or write the pack again."
    )


def _parsed(content: dict[str, Any]) -> Manifest:
    """The manifest, after checking that it is consistent."""
    shards = [shard_of(shard) for shard in content["shards"]]
    leaves, samples = list(content["leaves"]), content["samples"]
    if sum(shard.samples for shard in shards) != samples or samples < 1:
        raise ValueError(f"its shards do not add up to {samples} samples")
    for shard in shards:
        if len(shard.parts) != len(leaves):
            raise ValueError(f"a shard has {len(shard.parts)} arrays for {len(leaves)} leaves")
        for part in shard.parts:
            first = part.values.shape if part.index is None else part.index.shape
            axes = 1 if part.index is None else 2
            if len(first) < axes or first[0] != shard.samples:
                raise ValueError(f"{visible(part.values.name)} is not of {shard.samples} samples")
            if part.index is not None and len(part.values.shape) != 1:
                raise ValueError(f"{visible(part.values.name)} has an index and more than one axis")
            if part.index is not None and (part.values.first, part.index.first) != (None, None):
                raise ValueError(f"{visible(part.values.name)} has an index and is shared")
    structure, weights = content["structure"], bool(content["weights"])
    numbers = flatten(nested(structure, list(range(len(leaves)))))
    parts = structure["tuple"]
    if numbers != list(range(len(leaves) - weights)) or len(parts) not in (1, 2, 3):
        raise ValueError("its structure does not fit its leaves")
    files_of(shards, [dtype_named(name) for name in leaves])
    if weights and any(shard.parts[-1].index is not None for shard in shards):
        raise ValueError("its sample weights differ in shape")
    names = content["class_names"]
    for those in names.values() if isinstance(names, dict) else [names or []]:
        if not all(isinstance(name, str) for name in those):
            raise ValueError(f"class_names {names!r:.40}")
    return Manifest(samples, structure, leaves, weights, shards, names, content["job"])
