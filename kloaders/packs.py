"""Decoded samples in .npy shards beside a manifest: written once, then read at memory speed.

A folder holds `pack.json` and, for each array of a sample and each shard, one .npy file that
`np.load` reads: rows where all samples of the shard have one shape; else their values one after
another, and beside it `NAME.index.npy`, int64, a row a sample: where its values begin, and its
shape (filled up with -1).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from kloaders import __version__
from kloaders.batches import BatchBuild, in_storage_order, nothing_left
from kloaders.columns import CastColumn, Odd, PathColumn, Report, place
from kloaders.conversion import (
    Advance,
    Journal,
    digest_of_files,
    digest_of_function,
    errors_of,
    say_errors,
    whole_file,
    write_shards,
)
from kloaders.faults import SampleError
from kloaders.formats import checked_dtype
from kloaders.memory import format_bytes, parse_bytes
from kloaders.messages import say
from kloaders.paths import PathSequenceLoader
from kloaders.sequence import SequenceLoader, _flag
from kloaders.structure import ArraySpec, Structure, flatten, map_structure, pack
from kloaders.threads import usable_cores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kloaders.paths import PathOptions
    from kloaders.sequence import Options

__all__ = ["PackColumn", "PackSequenceLoader", "write_pack"]

Array = np.ndarray[Any, np.dtype[Any]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

# Old packs are read for ever: what a later version cannot read as it stands gets another number.
_FORMAT, _VERSION = "kloaders pack", 1
_MANIFEST, _JOURNAL = "pack.json", "unfinished.jsonl"
_FILES = r"pack\.json|[xyw]\d*-\d{5,}(\.index)?\.npy"

# Shards of this size or more; each file of a pack takes a descriptor while it is mapped, and 1024
# is what a process may have.
_SHARD_BYTES, _SHARDS = 2**30, 128
# Samples looked at for their size.
_MEASURED = 8
# Arrays are told apart by so many of their rows: all of them may be more than RAM.
_ROWS_IN_DIGEST = 64
# Magic, version, length and text of an .npy header; it is written last, so its length is fixed.
_HEADER = 256


# ------------------------------------------------------------------------------------ the manifest


@dataclass(frozen=True)
class _File:
    """One .npy file: its shape, and the CRC-32 (as in zlib) of all bytes behind the header."""

    name: str
    shape: tuple[int, ...]
    crc32: int


@dataclass(frozen=True)
class _Part:
    """One array of the samples of one shard. index: None where all have one shape."""

    values: _File
    index: _File | None = None


@dataclass(frozen=True)
class _Shard:
    samples: int
    parts: list[_Part]


@dataclass(frozen=True)
class _Manifest:
    """What pack.json says.

    structure: how the arrays of a sample nest, as `_form` writes it; leaves: their dtypes.
    weights: whether the last of `leaves` is the samples' weights.
    job: what the pack was made of, and how.
    """

    samples: int
    structure: Any
    leaves: list[str]
    weights: bool
    shards: list[_Shard]
    class_names: list[str] | None
    job: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        return json.dumps({**content, "crc32": _crc_of(content)}, indent=1)


def _crc_of(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _form(structure: Structure, count: Iterator[int]) -> Any:
    """How a sample nests, for JSON: a leaf is its number.

    >>> _form(({"a": 0, "b": (0, 0)}, 0), itertools.count())
    {'tuple': [{'dict': {'a': 0, 'b': {'tuple': [1, 2]}}}, 3]}
    """
    if isinstance(structure, dict):
        for key in structure:
            if not isinstance(key, str):
                raise TypeError(
                    f"the key {key!r} of a sample is {type(key).__name__}, expected str: a pack "
                    "names its arrays by texts. Rename it in the loader or its transform."
                )
        return {"dict": {key: _form(value, count) for key, value in structure.items()}}
    if isinstance(structure, tuple):
        return {"tuple": [_form(value, count) for value in structure]}
    return next(count)


def _nested(form: Any, leaves: list[Any]) -> Structure:
    """The inverse of `_form`, with these leaves."""
    if isinstance(form, int):
        return leaves[form]
    if set(form) == {"dict"}:
        return {key: _nested(value, leaves) for key, value in form["dict"].items()}
    return tuple(_nested(value, leaves) for value in form["tuple"])


def _dtype_named(name: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(name)
    except TypeError:  # bfloat16 and its like, known to NumPy once ml_dtypes is imported
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, name))
    if dtype.kind not in "biufc" and dtype.isbuiltin != 2:
        raise ValueError(f"dtype {name!r}")
    return dtype


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What np.load is to see: bfloat16 and its like as integers of their size."""
    return dtype if dtype.kind in "biufc" else np.dtype(f"u{dtype.itemsize}")


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes | None:
    """The header of an .npy file, always of one length; None where the shape has no room in it."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    room = _HEADER - 10 - 1
    if len(text) > room:
        return None
    body = text.ljust(room) + "\n"
    return b"\x93NUMPY\1\0" + len(body).to_bytes(2, "little") + body.encode("ascii")


# ----------------------------------------------------------------------------------------- writing


def write_pack(
    data: Any,
    folder: str | os.PathLike[str],
    *,
    labels: Any = None,
    transformed: bool = False,
    shard_size: int | str | None = None,
    overwrite: bool = False,
    progress: bool | None = True,
    **options: Unpack[PathOptions],
) -> list[SampleError]:
    """Decode every sample once and write it to a folder, for `PackSequenceLoader`.

    Samples are read once, in storage order, by the loader's threads, and written as they are:
    shape, dtype, nesting of inputs and labels, sample weights and class names are kept. What is
    in memory is a few samples, however large the source.

    Args:
        data: any loader; or paths, as `PathSequenceLoader` takes them.
        folder: where to; made if it is not there.
        labels: with paths, their labels.
        transformed: False writes samples as they are stored, so that a transform can draw anew
            each epoch when the pack is read. True writes them after the loader's transform, with
            the random numbers of epoch 0.
        shard_size: bytes a file is to have at most, or a text such as "1GiB"; rounded to whole
            samples. By default 1 GiB, or more where that would make over 128 files.
        overwrite: replace what another pack has left in the folder.
        progress: show a bar. None: where stderr is a terminal.
        **options: with paths, those of `PathSequenceLoader`: size, channels, dtype, decode,
            workers, on_error and so on.

    Returns:
        The samples that did not load and were left out (on_error="skip").

    Killed or stopped at any moment, the same call goes on: shards that are finished stay. The
    folder is a pack when `pack.json` is there, which is written last.

    Raises:
        SampleError: a sample does not load (on_error="raise").
        ValueError: samples differ in dtype; both are named.
        FileExistsError: the folder holds another pack, or a part of one made with other
            arguments; says which.
        BlockingIOError: another process writes there.
        OSError: the disk is full; what was finished stays.
    """
    source = _source(data, labels, _flag(transformed, "transformed"), options)
    folder = os.fspath(folder)
    with source.view() as loader:
        form = loader.sample_spec if transformed else loader.raw_spec
        structure = _form(form, itertools.count())
        each = _mean_bytes(loader, transformed)
        wanted = max(_SHARD_BYTES, each * loader.samples // _SHARDS)
        if shard_size is not None:
            wanted = parse_bytes(shard_size, "shard_size")
        size = max(1, min(loader.samples, wanted // max(1, each)))
        starts = range(0, loader.samples, size)
        job = {**_job(loader, transformed), "samples_a_shard": size}
        say(
            f"write_pack: {loader.samples:,} samples, about {format_bytes(each * loader.samples)}, "
            f"in {len(starts):,} shards to {folder}"
        )
        pack_of = _Writer(loader, folder, form, transformed, size, each)
        with Journal(os.path.join(folder, _JOURNAL), _FILES, job, overwrite) as journal:
            counts = [min(size, loader.samples - start) for start in starts]
            notes = write_shards(journal, counts, pack_of, progress=progress, name="write_pack")
            errors = errors_of(notes)
            if errors and loader.on_error == "raise":  # finished with "skip", and now told so
                raise errors[0]
            samples = sum(note["samples"] for note in notes)
            if not samples:
                loader.errors = errors
                raise nothing_left(loader, errors[0].index)
            manifest = _Manifest(
                samples,
                structure,
                [leaf.dtype.name for leaf in pack_of.leaves],
                loader.weights is not None,
                [_shard_of(note) for note in notes],
                journal.job["class_names"],
                journal.job,
            )
            with whole_file(os.path.join(folder, _MANIFEST)) as file:
                file.write(manifest.text().encode())
    say_errors(errors, "write_pack", loader.on_error)
    return errors


def _source(data: Any, labels: Any, transformed: bool, options: Any) -> SequenceLoader:
    if isinstance(data, SequenceLoader):
        given = [*(["labels"] if labels is not None else []), *options]
        if given:
            raise TypeError(
                f"write_pack() got a loader, and {', '.join(given)} with it: give these to "
                f"{type(data).__name__}() itself."
            )
        loader = data
    else:
        # A number that is the same when a killed call is made again.
        loader = PathSequenceLoader(data, labels, **{"seed": 0, **options})
        if loader.transform is not None and not transformed:
            raise ValueError(
                "transform= is given, and transformed=False leaves it out: pass transformed=True "
                "to write what it makes, or give it to PackSequenceLoader, to draw anew each epoch."
            )
    if transformed and loader.transform is None:
        raise ValueError("transformed=True, but there is no transform: give the loader one.")
    return loader


def _mean_bytes(loader: SequenceLoader, transformed: bool) -> int:
    """Bytes of a sample, from a few from all over."""
    sizes: list[int] = []
    for index in _looked(loader.samples, _MEASURED):
        with contextlib.suppress(Exception):  # on_error deals with it when its turn comes
            sample = loader._sample(index)
            if transformed:
                sample = loader._transformed(index, sample, 0, 0)
            sizes.append(sum(a.nbytes for a in flatten(sample)))
    return sum(sizes) // max(1, len(sizes))


class _Writer:
    """Writes one shard: what `write_shards` calls."""

    def __init__(
        self,
        loader: SequenceLoader,
        folder: str,
        form: Structure,
        transformed: bool,
        size: int,
        sample_bytes: int,
    ) -> None:
        self.loader, self.folder, self.form, self.transformed = loader, folder, form, transformed
        self.size, self.sample_bytes = size, sample_bytes
        self.leaves: list[ArraySpec] = flatten(form)
        self.names = []
        for letter, part in zip("xy", form, strict=False):
            inner = len(flatten(part))
            alone = not isinstance(part, (tuple, dict))
            self.names += [letter] if alone else [f"{letter}{k}" for k in range(inner)]
        if loader.weights is not None:
            self.leaves.append(ArraySpec(loader.weights.shape[1:], loader.weights.dtype))
            self.names.append("w")

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        start = shard * self.size
        stop = min(start + self.size, self.loader.samples)
        met = len(self.loader.errors)
        reading = in_storage_order(self.loader, start, stop, self.sample_bytes, self._run)
        with contextlib.ExitStack() as stack:
            runs = stack.enter_context(contextlib.closing(reading))
            files = [
                _Values(stack, self.folder, f"{name}-{shard:05}", spec)
                for name, spec in zip(self.names, self.leaves, strict=True)
            ]
            for asked, (indices, leaves) in runs:
                if self.loader.weights is not None:
                    leaves = [*leaves, self.loader.weights[indices]]  # noqa: PLW2901
                for file, rows in zip(files, leaves, strict=True):
                    file.add(rows)
                advance(asked)
            parts = [file.finish() for file in files]
        errors = sorted(self.loader.errors[met:], key=lambda error: error.index)
        note = {
            "samples": files[0].samples,
            "parts": [asdict(part) for part in parts],
            "errors": [(error.index, error.name, error.cause) for error in errors],
        }
        names = [f.name for part in parts for f in (part.values, part.index) if f is not None]
        return names, note

    def _run(self, indices: Indices) -> BatchBuild:
        return _AnyShape(self.loader, indices, 0, raw=not self.transformed)


def _shard_of(note: dict[str, Any]) -> _Shard:
    """From JSON; KeyError, TypeError or ValueError where it is none."""

    def file(found: dict[str, Any]) -> _File:
        name, shape, crc32 = found["name"], tuple(found["shape"]), found["crc32"]
        if not all(type(n) is int and n >= 0 for n in (*shape, crc32)):
            raise ValueError(f"shape {shape}, crc32 {crc32}")
        if not isinstance(name, str):
            raise TypeError(f"name {name!r}")
        return _File(name, shape, crc32)

    def part(found: dict[str, Any]) -> _Part:
        index = found["index"]
        return _Part(file(found["values"]), None if index is None else file(index))

    if type(note["samples"]) is not int or note["samples"] < 0:
        raise ValueError(f"samples {note['samples']!r}")
    return _Shard(note["samples"], [part(found) for found in note["parts"]])


class _AnyShape(BatchBuild):
    """A run of samples as leaves; one whose samples differ in shape is a list of arrays."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lists: dict[int, list[Array]] = {}

    def _fit(self, leaf: int, odd: list[Odd], failed: dict[int, Exception]) -> None:
        spec: ArraySpec = flatten(self.form)[leaf]
        rows = list(self.leaves[leaf])
        for one in odd:
            if one.array.dtype != spec.dtype:
                loader, index = self.loader, int(self.indices[one.row])
                raise ValueError(
                    f"{loader._name(index)} is {one.array.dtype}, but "
                    f"{loader._name(loader._model_sample)} is {spec.dtype}, and a pack has one "
                    f"dtype. {loader._shape_advice(index, True)}"
                )
            rows[one.row] = one.array
        self.lists[leaf] = rows

    def finish(self) -> tuple[Indices, list[Any]]:
        """Sample numbers and leaves of the rows that loaded."""
        keep = self.settle()
        leaves: list[Any] = [self.lists.get(k, leaf) for k, leaf in enumerate(self.leaves)]
        if keep is None:
            return self.indices, leaves
        return self.indices[keep], [
            list(itertools.compress(leaf, keep)) if isinstance(leaf, list) else leaf[keep]
            for leaf in leaves
        ]


class _Values:
    """One array of the samples of a shard, on its way into a file; the header comes last."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: str, name: str, spec: ArraySpec
    ) -> None:
        self.stack, self.folder, self.name = stack, folder, name
        self.dtype = _stored(spec.dtype)
        self.empty = tuple(n or 0 for n in spec.shape)
        self.file = stack.enter_context(whole_file(os.path.join(folder, f"{name}.npy")))
        self.file.write(bytes(_HEADER))
        self.crc, self.samples, self.values = 0, 0, 0
        # (shape, how many samples have it), in order: of few shapes, mostly of one.
        self.shapes: list[tuple[tuple[int, ...], int]] = []

    def add(self, rows: Array | list[Array]) -> None:
        """Append samples."""
        if isinstance(rows, list):
            for row in rows:
                self._append(row, row.shape, 1)
        elif len(rows):
            self._append(rows, rows.shape[1:], len(rows))

    def _append(self, values: Array, shape: tuple[int, ...], count: int) -> None:
        if self.shapes and self.shapes[-1][0] == shape:
            self.shapes[-1] = shape, self.shapes[-1][1] + count
        else:
            self.shapes.append((shape, count))
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self.crc = zlib.crc32(data, self.crc)
        self.file.write(data)
        self.samples += count
        self.values += values.size

    def finish(self) -> _Part:
        """Write the header, and the index where shapes differ."""
        rows = (self.samples, *(self.shapes[0][0] if self.shapes else self.empty))
        one_shape = len(self.shapes) <= 1 and _header(rows, self.dtype) is not None
        shape = rows if one_shape else (self.values,)
        values = _File(f"{self.name}.npy", shape, self.crc)
        _write_header(self.file, shape, self.dtype)
        if one_shape:
            return _Part(values)
        axes = max(len(shape) for shape, _ in self.shapes)
        index = np.full((self.samples, 1 + axes), -1, np.int64)
        row = start = 0
        for shape, count in self.shapes:
            size = math.prod(shape)
            index[row : row + count, 0] = start + size * np.arange(count)
            index[row : row + count, 1 : 1 + len(shape)] = shape
            row, start = row + count, start + count * size
        name = f"{self.name}.index.npy"
        file = self.stack.enter_context(whole_file(os.path.join(self.folder, name)))
        _write_header(file, index.shape, index.dtype)
        file.write(index.data)
        return _Part(values, _File(name, index.shape, zlib.crc32(index.data)))


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = _header(shape, dtype)
    assert header is not None
    file.seek(0)
    file.write(header)


# ----------------------------------------------------------------------- what a pack is made of


def _job(loader: SequenceLoader, transformed: bool) -> dict[str, Any]:
    """What decides the content of a pack, by name: a call that goes on must have the same."""
    columns = loader._columns()
    job: dict[str, Any] = {"loader": type(loader).__name__, "samples": loader.samples}
    if columns is not None:
        job["data"] = [_digest_of_column(column) for column in flatten(columns)]
    else:
        looked = "\0".join(map(loader._name, _looked(loader.samples, _ROWS_IN_DIGEST)))
        job["data"] = _digest(np.frombuffer(looked.encode("utf-8", "surrogateescape"), np.uint8))
    for hook in ("load_sample", "load_batch"):
        if loader._overrides(hook):
            job[hook] = digest_of_function(getattr(type(loader), hook))
    images = getattr(loader, "image_options", None)
    if images is not None:
        job |= {name: _plain(value) for name, value in asdict(images).items()}
    job["decode"] = digest_of_function(getattr(loader, "decode", None))
    job["dtype"] = _plain(loader.dtype)
    job["transform"] = digest_of_function(loader.transform) if transformed else None
    if transformed or loader.on_error == "replace":
        job["seed"] = loader.seed
    job["replace"] = loader.on_error == "replace"
    if loader.weights is not None:
        job["sample_weights"] = _digest(loader.weights)
    names = loader.class_names
    job["class_names"] = None if names is None else [str(name) for name in names]
    return job


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, np.dtype) else value


def _digest_of_column(column: Any) -> str:
    inner = column
    while hasattr(inner, "column"):  # a part of a column, or a cast one
        inner = inner.column
    if isinstance(inner, PathColumn):
        return f"{len(column)} files {digest_of_files(map(column.name, range(len(column))))}"
    rows = []
    for index in _looked(len(column), _ROWS_IN_DIGEST):
        with contextlib.suppress(Exception):  # a function of the user's
            rows.append(column.read(index))
    files = digest_of_files(inner.files) if isinstance(inner, PackColumn) else ""
    return f"{len(column)} values {_digest(*rows)} {files}".rstrip()


def _looked(samples: int, count: int) -> list[int]:
    """So many sample numbers from all over."""
    found: list[int] = np.unique(np.linspace(0, samples - 1, count).astype(np.int64)).tolist()
    return found


def _digest(*arrays: Array) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------- reading


class PackColumn:
    """One array of every sample of a pack, mapped when it is first read.

    starts: the first sample of each shard, and their number at the end. shape: None in the
    dimensions in which samples differ, or altogether if their number differs.
    """

    # Rows smaller than this are gathered for each shard in one call, and copied once more in the
    # cache: a microsecond less than a call a row.
    _SMALL_ROW = 2048

    def __init__(
        self, folder: str, parts: list[_Part], starts: Indices, dtype: np.dtype[Any]
    ) -> None:
        self.folder, self.parts, self.starts, self.dtype = folder, parts, starts, dtype
        self.shape = self._common_shape()
        self._maps: dict[str, Array] = {}

    def _common_shape(self) -> tuple[int | None, ...] | None:
        """As far as the manifest tells: what an index holds is not looked at."""
        full = [part for k, part in enumerate(self.parts) if self.starts[k] < self.starts[k + 1]]
        if any(part.index is not None for part in full):
            shapes = {part.values.shape[1:] for part in full if part.index is None}
            axes = {p.index.shape[1] - 1 for p in full if p.index is not None}
            axes |= {len(shape) for shape in shapes}
            return (None,) * axes.pop() if len(axes) == 1 else None
        shapes = {part.values.shape[1:] for part in full}
        if len({len(shape) for shape in shapes}) > 1:
            return None
        return tuple(
            sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def files(self) -> list[str]:
        """Paths of all files of this column."""
        return [
            os.path.join(self.folder, file.name)
            for part in self.parts
            for file in (part.values, part.index)
            if file is not None
        ]

    def read(self, index: int) -> Array:
        return np.array(self._row(index))

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        shape = self.shape
        if shape is None or None in shape or out.shape[1:] != shape or out.dtype != self.dtype:
            for row, index in enumerate(indices.tolist()):
                try:
                    place(self._row(index), out, row, leaf, report)
                except ValueError as error:  # the index is damaged
                    report(row, error)
            return
        if len(self.parts) == 1:
            # The default mode="raise" would go through a buffer and take twice as long.
            np.take(self._values(0), indices, axis=0, out=out, mode="clip")
            return
        shards = np.searchsorted(self.starts, indices, "right") - 1
        rows = indices - self.starts[shards]
        if out.nbytes < self._SMALL_ROW * len(out):
            for shard in np.unique(shards).tolist():
                here = np.flatnonzero(shards == shard)
                out[here] = self._values(shard)[rows[here]]
            return
        maps = {shard: self._values(shard) for shard in set(shards.tolist())}
        for target, shard, row in zip(out, shards.tolist(), rows.tolist(), strict=True):
            target[...] = maps[shard][row]

    def name(self, index: int) -> str:
        shard, row = self._place(index)
        return f"row {row} of {os.path.join(self.folder, self.parts[shard].values.name)}"

    def all(self) -> Array:
        """The values of all samples, in RAM; they have one shape."""
        assert self.shape is not None
        out = np.empty((len(self), *(n or 0 for n in self.shape)), self.dtype)
        self.fill(np.arange(len(self)), out, 0, _raise)
        return out

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return shard, index - int(self.starts[shard])

    def _row(self, index: int) -> Array:
        """The value of one sample, a view of the map."""
        shard, row = self._place(index)
        values, part = self._values(shard), self.parts[shard]
        if part.index is None:
            return values[row, ...]
        start, *sides = self._map(part.index, np.dtype(np.int64))[row].tolist()
        shape = tuple(itertools.takewhile(lambda side: side >= 0, sides))
        size = math.prod(shape)
        if not 0 <= start <= start + size <= len(values):
            raise ValueError(
                f"{os.path.join(self.folder, part.index.name)}, row {row}, is damaged: it places "
                f"{size} values at {start}, and there are {len(values)}. Write the pack again."
            )
        return values[start : start + size].reshape(shape)

    def _values(self, shard: int) -> Array:
        return self._map(self.parts[shard].values, self.dtype)

    def _map(self, file: _File, dtype: np.dtype[Any]) -> Array:
        found = self._maps.get(file.name)
        if found is None:
            path = os.path.join(self.folder, file.name)
            try:
                mapped = np.memmap(path, _stored(dtype), "r", _HEADER, file.shape)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise OSError(
                    error.errno,
                    f"{error.strerror}: a pack keeps its files open, and this one has many. Raise "
                    "the limit (ulimit -n 4096), or write it again with a larger shard_size",
                    path,
                ) from error
            # A row of an ordinary array is made twice as fast as one of np.memmap.
            found = self._maps[file.name] = mapped.view(np.ndarray).view(dtype)
        return found

    def close(self) -> None:
        """Let go of the files; they are mapped again when they are read."""
        self._maps = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def _raise(row: int, error: Exception) -> None:
    raise error


class PackSequenceLoader(SequenceLoader):
    """Batches of decoded samples from a folder that `write_pack` made.

    Files are mapped into memory: what does not fit in RAM stays on the disk, and a row is copied
    once, into the batch. Shuffling is over all samples.

    Args:
        folder: holds pack.json.
        batch_size: samples a batch.
        **options: see `SequenceLoader`. sample_weights=None takes those in the pack, if any.

    Samples of different shape come in batches where all of one batch have the same; else bring
    them to one shape in transform=, or use batch_size=1.

    `class_names` and `job`, what the pack was made of and how, are those of the pack. Pickled, it
    is names of files.

    Raises:
        FileNotFoundError: no pack, or none that is finished, or a file of it is gone.
        ValueError: pack.json is damaged, or does not match its files; names the file.
    """

    def __init__(
        self, folder: str | os.PathLike[str], batch_size: int = 32, **options: Unpack[Options]
    ) -> None:
        #: Where the pack is; absolute.
        self.folder = os.path.abspath(os.fspath(folder))
        manifest = _read_manifest(self.folder)
        dtypes = [_dtype_named(name) for name in manifest.leaves]
        _check_files(self.folder, manifest.shards, dtypes)
        starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)], dtype=np.int64)
        columns = [
            PackColumn(self.folder, [shard.parts[k] for shard in manifest.shards], starts, dtype)
            for k, dtype in enumerate(dtypes)
        ]
        if manifest.weights and options.get("sample_weights") is None:
            options["sample_weights"] = columns[-1].all()
            columns[-1].close()
        self._pack_columns = columns
        self._shards = manifest.shards
        self._dtypes = dtypes
        dtype = checked_dtype(options.get("dtype"))
        x, *rest = _nested(manifest.structure, columns)
        if dtype is not None:
            x = map_structure(lambda column: CastColumn(column, dtype), x)
        self._parts = (x, *rest)
        super().__init__(manifest.samples, batch_size, **options)
        self.class_names = manifest.class_names
        #: What the pack was made of and how, as `write_pack` noted it.
        self.job = manifest.job

    def verify(self, progress: bool | None = None) -> None:
        """Read every byte of the pack and compare the sums that were noted when it was written.

        Args:
            progress: show a bar. None: where stderr is a terminal.

        Raises:
            ValueError: names the files that differ.
            OSError: a file is gone or cannot be read.
        """
        _check_files(self.folder, self._shards, self._dtypes)
        files = [
            (os.path.join(self.folder, file.name), file.crc32)
            for shard in self._shards
            for part in shard.parts
            for file in (part.values, part.index)
            if file is not None
        ]
        total = sum(os.path.getsize(path) - _HEADER for path, _ in files)
        disable = None if progress is None else not progress
        with (
            tqdm(total=total, unit="B", unit_scale=True, disable=disable, desc="verify") as bar,
            ThreadPoolExecutor(usable_cores(), "kloaders-verify") as pool,
        ):
            found = pool.map(lambda file: _crc_of_file(file[0], bar.update), files)
            wrong = [path for (path, crc), got in zip(files, found, strict=True) if got != crc]
        path = os.path.join(self.folder, _MANIFEST)
        content = json.loads(_bytes_of(path))
        if content.pop("crc32", None) != _crc_of(content):
            wrong.append(path)
        if wrong:
            more = f" and {len(wrong) - 10:,} others" if len(wrong) > 10 else ""
            raise ValueError(
                f"{', '.join(wrong[:10])}{more} changed since the pack was written: copy it from "
                "where it is whole, or write the pack again."
            )

    def close(self) -> None:
        """Free threads, batches made ahead and maps. The loader can be used again."""
        super().close()
        for column in self.__dict__.get("_pack_columns", ()):
            column.close()

    def delivered_spec(self) -> Structure:
        """`sample_spec`, with None for the dimensions in which samples differ."""
        spec = super().delivered_spec()
        if self.transform is not None:
            return spec

        def delivered(leaf: ArraySpec, column: Any) -> ArraySpec:
            while not isinstance(column, PackColumn):  # a part of it, or cast
                column = column.column
            return leaf if column.shape is None else ArraySpec(column.shape, leaf.dtype)

        columns = self._columns()
        leaves = map(delivered, flatten(spec), flatten(columns))
        return pack(spec, list(leaves))

    def _columns(self) -> tuple[Any, ...]:
        return self._parts

    def _shape_advice(self, index: int, dtype_differs: bool) -> str:
        return (
            "Bring them to one shape in transform=, use batch_size=1, or write the pack with size=."
        )


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_manifest(folder: str) -> _Manifest:
    path = os.path.join(folder, _MANIFEST)
    try:
        text = _bytes_of(path)
    except NotADirectoryError:
        raise NotADirectoryError(
            f"{folder} is a file, expected the folder that write_pack(loader, folder) made."
        ) from None
    except FileNotFoundError:
        if os.path.exists(os.path.join(folder, _JOURNAL)):
            problem = "holds a pack that is not finished: run the same write_pack again to go on."
        elif os.path.isdir(folder):
            problem = f"holds no pack (no {_MANIFEST}): make one with write_pack(loader, folder)."
        else:
            problem = f"does not exist. Relative paths start at {os.getcwd()}."
        raise FileNotFoundError(f"{folder} {problem}") from None
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}")
        version = content["version"]
        if version == _VERSION:
            return _parsed(content)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}). Copy it from where it is "
            "whole, or write the pack again."
        ) from error
    raise ValueError(
        f"{path} has version {version!r}, and kloaders {__version__} reads {_VERSION}: upgrade "
        "kloaders, or write the pack again."
    )


def _parsed(content: dict[str, Any]) -> _Manifest:
    """What the manifest says, if it agrees with itself."""
    shards = [_shard_of(shard) for shard in content["shards"]]
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
                raise ValueError(f"{part.values.name} is not of {shard.samples} samples")
            if part.index is not None and len(part.values.shape) != 1:
                raise ValueError(f"{part.values.name} has an index and more than one axis")
    structure, weights = content["structure"], bool(content["weights"])
    numbers = flatten(_nested(structure, list(range(len(leaves)))))
    parts = structure["tuple"]
    if numbers != list(range(len(leaves) - weights)) or len(parts) not in (1, 2):
        raise ValueError("its structure does not fit its leaves")
    for name in leaves:
        _dtype_named(name)
    names = content["class_names"]
    return _Manifest(samples, structure, leaves, weights, shards, names, content["job"])


def _check_files(folder: str, shards: Iterable[_Shard], dtypes: list[np.dtype[Any]]) -> None:
    """Each file is there, with the size and the header that the manifest says."""
    for shard in shards:
        for part, dtype in zip(shard.parts, dtypes, strict=True):
            _check_file(folder, part.values, dtype)
            if part.index is not None:
                _check_file(folder, part.index, np.dtype(np.int64))


def _check_file(folder: str, file: _File, dtype: np.dtype[Any]) -> None:
    path = os.path.join(folder, file.name)
    # A manifest from elsewhere is not to lead out of its folder.
    if (
        os.path.basename(file.name) != file.name
        or "\\" in file.name
        or not file.name.endswith(".npy")
    ):
        raise ValueError(
            f"{os.path.join(folder, _MANIFEST)} names the file {file.name!r}, expected the plain "
            "name of an .npy file in its own folder. Write the pack again."
        )
    again = "Copy it from where it is whole, or write the pack again."
    size = _HEADER + math.prod(file.shape) * dtype.itemsize
    try:
        with open(path, "rb") as stream:
            found = os.fstat(stream.fileno()).st_size
            header = stream.read(_HEADER)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing, which {_MANIFEST} names. {again}") from None
    if found != size:
        raise ValueError(f"{path} has {found:,} bytes, and {_MANIFEST} says {size:,}. {again}")
    if header != _header(file.shape, _stored(dtype)):
        raise ValueError(
            f"{path} has another header than {_MANIFEST} says: {dtype} of shape {file.shape}. "
            f"{again}"
        )


def _crc_of_file(path: str, advance: Callable[[int], Any]) -> int:
    """CRC-32 of all behind the header."""
    crc = 0
    block = bytearray(2**22)
    with open(path, "rb") as file:
        file.seek(_HEADER)
        while count := file.readinto(block):
            crc = zlib.crc32(memoryview(block)[:count], crc)
            advance(count)
    return crc
