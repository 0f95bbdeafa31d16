"""Samples become TFRecord files, which TensorFlow's own reader takes as well as ours."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import numpy as np

from kloaders.convert.digests import (
    digest_of_array,
    digest_of_files,
    digest_of_function,
    digest_of_texts,
    job_of,
    spread,
)
from kloaders.convert.journal import (
    Advance,
    Journal,
    Written,
    errors_of,
    say_errors,
    write_shards,
)
from kloaders.core.checks import checked_count, checked_flag
from kloaders.core.errors import SampleError, as_sample_error, without_traceback
from kloaders.core.rows import RowMismatch
from kloaders.core.structure import Structure, flatten
from kloaders.core.threads import usable_cores
from kloaders.engine.batches import BatchBuild, in_storage_order
from kloaders.engine.retries import read_patiently
from kloaders.formats.atomic import whole_file
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, read_bytes, suffix_of
from kloaders.formats.images import check_picture
from kloaders.formats.npy import read_array
from kloaders.formats.sidecar_index import save_index
from kloaders.formats.tfrecord.examples import array_features, encode_example
from kloaders.formats.tfrecord.framing import framed
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader, check_own_batches
from kloaders.loaders.splits import sides
from kloaders.plan.rng import Moment
from kloaders.sources.columns import PathColumn
from kloaders.sources.tables import array_of

__all__ = ["write_tfrecords"]

Array = np.ndarray[Any, Any]
Indices = np.ndarray[Any, np.dtype[np.int64]]

# The names that features have where the user gives none.
_INPUT, _ARRAY, _LABEL, _ID, _WEIGHT = "image_raw", "x", "label", "id", "weight"
# Samples that a thread reads and encodes at a time, with at most so many bytes, and how many such
# runs lie ready for each file.
_RUN, _RUN_BYTES, _RUNS_AHEAD = 16, 4 << 20, 4


def write_tfrecords(
    paths_or_loader: Any,
    labels: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    shards: int = 1,
    compression: str | None = None,
    features: Mapping[str, Any] | None = None,
    validation: float | None = None,
    stratify: Any = None,
    groups: Any = None,
    shuffle: bool = False,
    seed: int | None = None,
    workers: int | None = None,
    on_error: str = "raise",
    overwrite: bool = False,
    progress: bool | None = True,
) -> Written:
    """Write samples to TFRecord files as tf.train.Example, for `TFRecordSequenceLoader` or tf.data.

    Of paths, `image_raw` is the content of the file as it is (of .npy files the array), `label` the
    label and `id` the path. Of a loader, the samples are written as they are stored, before the
    transform: `x` and `label`, or the names of a dict; `id` is the number of the sample. Labels that are integers become int64, others float32; labels that are paths the
    content of the file. Arrays keep shape and dtype, in features beside them (`NAME/shape`,
    `NAME/dtype`); float32 values and int64 lists are TensorFlow's own.

    Args:
        paths_or_loader: files, as `PathSequenceLoader` takes them; or any loader; or None where
            `features` is all.
        labels: with paths, their labels, as `PathSequenceLoader` takes them.
        out: how the files' names begin: "out/train" -> out/train-00000-of-00003.tfrecord. With
            `validation`, "-train" and "-validation" follow it. Folders are made.
        shards: files to write; of the validation part as many as its share.
        compression: None, "GZIP" or "ZLIB". Such files are smaller, and can only be read from
            front to back: nothing is gained for JPEGs.
        features: more features by name: a value for each sample in a list or an array (texts,
            bytes, integers, floats, arrays of any shape), or a function of the path.
        validation: the share of the samples to write to files of their own. scikit-learn draws.
        stratify: keep the share of every class the same in both parts, as for `split`.
        groups: one value a sample; those of one value stay together, as for `split`.
        shuffle: write in a random order; else in the order given. For readers that only shuffle
            in a buffer, and for compressed files, if the samples lie sorted by class.
        seed: fixes the split and that order; 0.
        workers: threads that read and encode; as many as the process may use cores.
        on_error: "raise" stops at a file that cannot be read, or is no whole picture by its
            header; "skip" leaves it out and names it at the end. Of a loader its own word counts.
        overwrite: replace files of this name.
        progress: show a bar. None: where stderr is a terminal.

    Returns:
        The files of both parts, how many samples are in them, and the errors of those that were
        left out.

    Killed or stopped at any moment, the same call goes on: files that are finished stay. Each file
    gets its index at once (`.NAME.index`).

    Raises:
        SampleError: a sample does not load (on_error="raise").
        FileExistsError: there are files of this name, or a part of them made with other arguments.
        BlockingIOError: another process writes them.
        OSError: the disk is full; what was finished stays.
        ValueError, TypeError: an argument is out of range, or lengths differ.
    """
    shards = checked_count(shards, "shards", 1)
    if compression not in (None, "", "GZIP", "ZLIB"):
        raise ValueError(
            f'compression={compression!r} is not known: choose None, "GZIP" or "ZLIB".'
        )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error={on_error!r} is not known here: choose "raise" or "skip".')
    if out is None:
        raise TypeError(
            'out is missing: how the names of the files begin, as in out="folder/train".'
        )
    seed = 0 if seed is None else checked_count(seed, "seed", 0)
    if not validation and (stratify is not None or groups is not None):
        raise ValueError("stratify and groups are for validation=, the share of the second part.")
    source = _source(paths_or_loader, labels, features, on_error, seed)
    threads = usable_cores() if workers is None else max(1, checked_count(workers, "workers", 0))
    writing = _Writing(source, compression or "", threads)
    mix = (
        np.random.default_rng(seed).permutation if checked_flag(shuffle, "shuffle") else np.asarray
    )
    if validation:
        first, second = sides(source.loader, validation, stratify, groups, seed)
        files = writing.add(_prefix(out, "train"), mix(first), shards)
        share = max(1, round(shards * len(second) / len(first)))
        others = writing.add(_prefix(out, "validation"), mix(second), share)
    else:
        files, others = writing.add(_prefix(out, ""), mix(np.arange(source.samples)), shards), []
    notes = writing.run(overwrite, progress)
    errors = errors_of(notes)
    say_errors(errors, "write_tfrecords", source.on_error)
    return Written(files, others, sum(note["samples"] for note in notes), errors)


def _prefix(out: str | os.PathLike[str], part: str) -> str:
    """How the names of the files of one part begin; in a folder, by the name of the part."""
    text = os.fspath(out)
    if text.endswith(("/", os.sep)) or os.path.isdir(text):
        return os.path.join(text, part or "records")
    return f"{text}-{part}" if part else text


# --------------------------------------------------------------------------------- what is written


def _source(data: Any, labels: Any, features: Any, on_error: str, seed: int) -> _Source:
    if features is not None and not isinstance(features, Mapping):
        raise TypeError(
            f"features is a {type(features).__name__}, expected a dict: names, and for each a list "
            "or array of one value a sample."
        )
    if data is None:
        if not features or labels is not None:
            raise TypeError(
                "there is nothing to write: give paths, a loader, or features={...} without labels."
            )
        values = next(iter(features.values()))
        samples = len(values) if hasattr(values, "__len__") else 0
        return _Samples(_Numbers(samples, seed=seed), features, on_error, alone=True)
    if isinstance(data, SequenceLoader):
        check_own_batches(data, "write_tfrecords")
        if labels is not None:
            raise TypeError(
                f"write_tfrecords() got a {type(data).__name__}, and labels with it: the loader "
                "has its own."
            )
        return _Samples(data, features, data.on_error)
    # No decoder has to know a file whose content is written as it is, and nothing is kept of it.
    loader = PathSequenceLoader(data, labels, 1, decode=_never, seed=seed, cache=None)
    return _Files(loader, features, on_error)


def _never(raw: bytes) -> Array:
    raise AssertionError("files are written as they are")


class _Numbers(SequenceLoader):
    """Samples of which there is nothing but a number."""

    def load_sample(self, index: int) -> Array:
        return np.array(index)


def _names(structure: Structure, alone: str) -> list[str]:
    """What the features of an input or label are called.

    >>> _names({"a": 0, "b": (0, 0)}, "x"), _names((0, 0), "x"), _names(0, "x")
    (['a', 'b/0', 'b/1'], ['x/0', 'x/1'], ['x'])
    """
    if isinstance(structure, dict):
        return [name for key, value in structure.items() for name in _names(value, str(key))]
    if isinstance(structure, tuple):
        return [n for k, value in enumerate(structure) for n in _names(value, f"{alone}/{k}")]
    return [alone]


def _features_of(name: str, value: Any) -> dict[str, Any]:
    """The features of one value that a user gave."""
    if isinstance(value, (str, bytes)):
        return {name: value}
    array = np.asarray(value)
    if array.dtype.kind in "SUO":
        return {name: value}
    if array.dtype == np.float64 and not isinstance(value, np.ndarray):
        array = array.astype(np.float32)  # Python's floats carry no choice of precision
    return array_features(name, array)


def _label(value: Array) -> Array:
    """A label as TensorFlow's parsers expect it: int64 or float32."""
    return value.astype(np.int64 if value.dtype.kind in "biu" else np.float32)


class _Source:
    """Samples by number, as records. Threads share it.

    loader: whose samples. extras: more features by name: values, or functions of the path.
    """

    def __init__(self, loader: SequenceLoader, extras: Any, on_error: str) -> None:
        self.loader, self.on_error = loader, on_error
        self.samples = loader.samples
        self.extras: dict[str, Any] = {}
        for name, values in (extras or {}).items():
            if not callable(values):
                found = values if isinstance(values, (list, np.ndarray)) else array_of(values)
                if len(found) != self.samples:
                    raise ValueError(
                        f"lengths differ: features[{name!r}] has {len(found)} values, and there "
                        f"are {self.samples} samples. Every sample needs one."
                    )
                self.extras[name] = found
            elif not isinstance(loader, PathSequenceLoader):
                raise TypeError(
                    f"features[{name!r}] is a function, and {type(loader).__name__} has no paths "
                    "to call it with: give a list or an array of one value a sample."
                )
            else:
                self.extras[name] = values

    def job(self) -> dict[str, Any]:
        """What decides the content of the files; see `Journal`."""
        extras = {}
        for name, values in self.extras.items():
            if callable(values):
                extras[name] = digest_of_function(values, f"features[{name!r}]")
            else:
                looked = spread(self.samples, 64)
                extras[name] = digest_of_texts(repr(values[k]) for k in looked)
        return {"source": job_of(self.loader, False), "features": extras, "on_error": self.on_error}

    def more(self, number: int) -> dict[str, Any]:
        """The features that the user gave for a sample."""
        found: dict[str, Any] = {}
        for name, values in self.extras.items():
            value = values(self.loader.source.name(number)) if callable(values) else values[number]
            found |= _features_of(name, value)
        return found

    def files(self, numbers: Indices) -> str | None:
        """A digest of the files that these samples are read from, as they are now."""
        return None

    def close(self) -> None:
        """Free threads and processes."""

    def runs(self, numbers: Indices, threads: int) -> Iterator[list[bytes | SampleError]]:
        """Records of these samples in this order, some at a time; or what is wrong with one."""
        raise NotImplementedError


class _Files(_Source):
    """Files as they are, and what belongs to them."""

    def __init__(self, loader: PathSequenceLoader, extras: Any, on_error: str) -> None:
        super().__init__(loader, extras, on_error)
        self.paths = loader.paths
        parts = loader.source.columns or ()
        names = _names(parts[0], _INPUT)
        self.inputs = list(zip(names, flatten(parts[0]), strict=True))
        self.labels: list[tuple[str, Any]] = []
        if len(parts) > 1:
            names += _names(parts[1], _LABEL)
            self.labels = list(zip(_names(parts[1], _LABEL), flatten(parts[1]), strict=True))
        _check_names([*names, _ID])
        sizes = []
        for k in spread(self.samples, 8):
            with contextlib.suppress(OSError):
                sizes.append(os.path.getsize(self.paths[k]))
        each = sum(sizes) // max(1, len(sizes)) + 1
        self.run = max(1, min(_RUN, _RUN_BYTES // each))

    def files(self, numbers: Indices) -> str | None:
        columns = [c for _, c in (*self.inputs, *self.labels) if isinstance(c, PathColumn)]
        return digest_of_files(column.paths[n] for column in columns for n in numbers.tolist())

    def runs(self, numbers: Indices, threads: int) -> Iterator[list[bytes | SampleError]]:
        cuts = range(0, len(numbers), self.run)
        with ThreadPoolExecutor(threads, "kloaders-read") as pool:
            waiting: deque[Future[list[bytes | SampleError]]] = deque()
            try:
                for cut in cuts:
                    run = numbers[cut : cut + self.run].tolist()
                    waiting.append(pool.submit(lambda run: [self.record(n) for n in run], run))
                    if len(waiting) > threads + _RUNS_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def record(self, number: int) -> bytes | SampleError:
        """One sample with its frame."""
        try:
            return read_patiently(
                self._framed, number, len(self.paths), lambda k: str(self.paths[k])
            )
        except Exception as error:  # a function of the user's may raise anything
            return as_sample_error(number, self.paths[number], error)

    def _framed(self, number: int) -> bytes:
        features: dict[str, Any] = {_ID: self.paths[number]}
        for name, column in self.inputs:
            if isinstance(column, PathColumn):
                features |= _content(name, column.paths[number])
            else:
                features |= array_features(name, column.read(number))
        for name, column in self.labels:
            if isinstance(column, PathColumn):
                features |= _content(name, column.paths[number])
            else:
                features |= array_features(name, _label(column.read(number)))
        return framed(encode_example(features | self.more(number)))


def _content(name: str, path: str) -> dict[str, Any]:
    if suffix_of(path) in ARRAY_SUFFIXES:
        return array_features(name, read_array(path))
    raw = read_bytes(path)
    if suffix_of(path) in IMAGE_SUFFIXES:
        check_picture(raw, path)
    return {name: raw}


class _Samples(_Source):
    """Samples of a loader, before its transform. alone: write nothing of them but `extras`."""

    def __init__(
        self, loader: SequenceLoader, extras: Any, on_error: str, alone: bool = False
    ) -> None:
        super().__init__(loader, extras, on_error)
        self.alone = alone
        self.view = loader.view()
        self.inputs: list[str] = []
        self.labels: list[str] = []
        if not alone:
            spec = self.view.raw_spec
            self.inputs = _names(spec[0], _ARRAY)
            self.labels = _names(spec[1], _LABEL) if len(spec) > 1 else []
            _check_names([*self.inputs, *self.labels, _ID, _WEIGHT])
        self.each = sum(s.nbytes for s in flatten(self.view.raw_spec))

    def runs(self, numbers: Indices, threads: int) -> Iterator[list[bytes | SampleError]]:
        met = len(self.view.errors)
        reading = in_storage_order(
            self.view.runner,
            0,
            len(numbers),
            self.each,
            lambda rows: _Run(self.view.runner, numbers[rows], Moment(), raw=True),
            self.view.thread_count,
        )
        with contextlib.closing(reading) as runs:
            for _, samples in runs:
                yield [self._record(number, arrays) for number, arrays in samples]
        yield list(self.view.errors[met:])

    def close(self) -> None:
        self.view.close()

    def _record(self, number: int, arrays: list[Array]) -> bytes:
        if self.alone:
            return framed(encode_example(self.more(number)))
        features: dict[str, Any] = {_ID: number}
        inputs = len(self.inputs)
        for name, array in zip(self.inputs, arrays, strict=False):
            features |= array_features(name, np.asarray(array))
        for name, array in zip(self.labels, arrays[inputs:], strict=True):
            features |= array_features(name, _label(np.asarray(array)))
        if self.view.weights is not None:
            features |= array_features(_WEIGHT, self.view.weights[number])
        return framed(encode_example(features | self.more(number)))


class _Run(BatchBuild):
    """Some samples as they are stored, of whatever shape: pairs of number and arrays."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.odd: dict[tuple[int, int], Array] = {}

    def _fit(self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]) -> None:
        self.odd |= {(leaf, one.row): one.array for one in odd}

    def finish(self) -> list[tuple[int, list[Array]]]:
        """Numbers and arrays of the samples that loaded."""
        keep = self.settle()
        rows = range(self.rows) if keep is None else np.flatnonzero(keep).tolist()
        return [
            (
                int(self.indices[row]),
                [self.odd.get((k, row), a[row]) for k, a in enumerate(self.leaves)],
            )
            for row in rows
        ]


def _check_names(names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two features would be called {twice!r}: rename one in the dict of inputs or labels."
        )


# --------------------------------------------------------------------------------------- the files

_WINDOW_BITS = {"GZIP": 31, "ZLIB": 15}


class _Writing:
    """All files of a call: what `write_shards` calls for each."""

    def __init__(self, source: _Source, compression: str, threads: int) -> None:
        self.source, self.compression, self.threads = source, compression, threads
        self.folder = ""
        self.names: list[str] = []
        self.paths: list[str] = []
        self.numbers: list[Indices] = []

    def add(self, prefix: str, numbers: Indices, shards: int) -> list[str]:
        """Files for these samples, in this order, as equal as may be; gives their paths."""
        if shards > len(numbers):
            raise ValueError(
                f"shards={shards} for {len(numbers)} samples: a file would be empty. Pass a "
                "smaller shards=."
            )
        self.folder, name = os.path.split(os.path.abspath(prefix))
        self.names.append(name)
        paths = [f"{prefix}-{k:05}-of-{shards:05}.tfrecord" for k in range(shards)]
        self.paths += paths
        self.numbers += np.array_split(numbers, shards)
        return paths

    def run(self, overwrite: bool, progress: bool | None) -> list[dict[str, Any]]:
        """Write what is not finished; the notes of all files."""
        job = {
            **self.source.job(),
            "files": [os.path.basename(path) for path in self.paths],
            "order": digest_of_array(np.concatenate(self.numbers)),
            "compression": self.compression,
        }
        names = "|".join(map(re.escape, self.names))
        pattern = rf"({names})-\d{{5,}}-of-\d{{5,}}\.tfrecord"
        # One for both parts: a call that goes on must find the finished files of either.
        record = os.path.join(self.folder, f".{self.names[0]}.unfinished.jsonl")
        # A loader has threads of its own; files are read by `threads` for each shard.
        workers = 1 if isinstance(self.source, _Samples) else min(4, self.threads)
        sizes = [len(numbers) for numbers in self.numbers]

        def current(shard: int, note: dict[str, Any]) -> bool:
            return bool(note["files"] == self.source.files(self.numbers[shard]))

        journal = Journal(record, pattern, job, checked_flag(overwrite, "overwrite"), current)
        with contextlib.closing(self.source), journal:
            return write_shards(
                journal, sizes, self, workers=workers, progress=progress, name="write_tfrecords"
            )

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        path, numbers = self.paths[shard], self.numbers[shard]
        offsets, errors = [0], []
        files = self.source.files(numbers)  # before they are read: one that changes shows later
        with whole_file(path) as file, _Squeezed(file, self.compression) as squeezed:
            for run in self.source.runs(numbers, self.threads):
                for record in run:
                    if isinstance(record, SampleError):
                        if self.source.on_error == "raise":
                            raise record
                        errors.append(without_traceback(record, self.source.on_error))
                    else:
                        squeezed.write(record)
                        offsets.append(offsets[-1] + len(record))
                advance(len(run))
            if len(offsets) == 1:
                raise SampleError(
                    errors[0].index,
                    errors[0].name,
                    f"{errors[0].cause} (and so for all {len(errors)} samples of {path})",
                )
        save_index(path, np.array(offsets, np.uint64), self.compression)
        note = {
            "samples": len(offsets) - 1,
            "files": files,
            "errors": [(error.index, error.name, error.cause) for error in errors],
        }
        return [os.path.basename(path)], note


class _Squeezed:
    """Writes to a file, compressed or not."""

    def __init__(self, file: IO[bytes], compression: str) -> None:
        self._file = file
        bits = _WINDOW_BITS.get(compression)
        self._deflate = None if bits is None else zlib.compressobj(wbits=bits)

    def write(self, content: bytes) -> None:
        self._file.write(content if self._deflate is None else self._deflate.compress(content))

    def __enter__(self) -> _Squeezed:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and self._deflate is not None:
            self._file.write(self._deflate.flush())
