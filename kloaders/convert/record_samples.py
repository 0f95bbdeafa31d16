"""Makes records for TFRecord files: of unchanged files, or of the samples of a loader."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from kloaders.convert.digests import (
    digest_of_array,
    digest_of_files,
    digest_of_function,
    digest_of_texts,
    is_files,
    job_of,
    spread,
)
from kloaders.core.arrays import Array, Indices
from kloaders.core.errors import SampleError, as_sample_error
from kloaders.core.rows import RowMismatch
from kloaders.core.structure import Structure, check_no_texts, flatten, unflatten
from kloaders.core.threads import ThreadPool
from kloaders.engine.batches import BatchBuild, in_storage_order
from kloaders.engine.retries import Names, read_patiently
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, read_bytes, suffix_of
from kloaders.formats.images import check_picture
from kloaders.formats.npy import read_array
from kloaders.formats.tfrecord.examples import array_features, encode_example
from kloaders.formats.tfrecord.framing import framed
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.plan.rng import Moment
from kloaders.sources.columns import PathColumn
from kloaders.sources.tables import array_of
from kloaders.sources.tfrecord.features import Feature
from kloaders.sources.tfrecord.forms import FORM, Form, feature_of, features_for

__all__ = ["LoaderSamples", "RecordSource", "source_of"]

# Default names of features.
_INPUT, _ARRAY, _LABEL, _ID, _WEIGHT = "image_raw", "x", "label", "id", "weight"
# The maximum number of samples that a thread reads and encodes at a time, their maximum bytes, and the
# number of such runs that are prefetched for each file.
_RUN, _RUN_BYTES, _RUNS_AHEAD = 16, 4 << 20, 4


def source_of(data: Any, labels: Any, features: Any, on_error: str, seed: int) -> RecordSource:
    if features is not None and not isinstance(features, Mapping):
        raise TypeError(
            f"features is a {type(features).__name__}, expected a dict from names to lists or arrays "
            "with one value per sample."
        )
    if data is None:
        if not features or labels is not None:
            raise TypeError(
                "there is nothing to write: give paths, a loader, or features={...} without labels."
            )
        values = next(iter(features.values()))
        samples = len(values) if hasattr(values, "__len__") else 0
        return LoaderSamples(_Numbers(samples, seed=seed), features, on_error, alone=True)
    if isinstance(data, SequenceLoader):
        check_own_batches(data, "write_tfrecords")
        if labels is not None:
            raise TypeError(
                f"write_tfrecords() got a {type(data).__name__} together with labels=: the loader "
                "has its own labels, leave labels= out."
            )
        return LoaderSamples(data, features, data.on_error)
    # Files are copied unchanged, so the loader needs no decoder and no cache.
    loader = PathSequenceLoader(data, labels, 1, decode=_never, seed=seed, cache=None)
    return _Files(loader, features, on_error)


def _never(raw: bytes) -> Array:
    raise AssertionError("files are written unchanged")


class _Numbers(SequenceLoader):
    """A loader whose samples are only their numbers."""

    def load_sample(self, index: int) -> Array:
        return np.array(index)


def _names(structure: Structure, alone: str) -> list[str]:
    """The feature names of an input or label.

    >>> _names({"a": 0, "b": (0, 0)}, "x"), _names((0, 0), "x"), _names(0, "x")
    (['a', 'b/0', 'b/1'], ['x/0', 'x/1'], ['x'])
    """
    if isinstance(structure, dict):
        return [name for key, value in structure.items() for name in _names(value, str(key))]
    if isinstance(structure, tuple):
        return [n for k, value in enumerate(structure) for n in _names(value, f"{alone}/{k}")]
    return [alone]


def _features_of(name: str, value: Any) -> dict[str, Any]:
    """The features of one value given by the user."""
    if isinstance(value, (str, bytes)):
        return {name: value}
    array = np.asarray(value)
    if array.dtype.kind in "SUO":
        return {name: value}
    if array.dtype == np.float64 and not isinstance(value, np.ndarray):
        array = array.astype(np.float32)  # Python floats: no precision was chosen
    return array_features(name, array)


def _described(value: Any) -> str:
    return digest_of_array(value) if isinstance(value, np.ndarray) and value.ndim else repr(value)


class RecordSource:
    """Makes the records of samples. Safe for threads.

    Args:
        loader: the samples.
        extras: more features by name: values, or functions of the path.
        on_error: "raise" or "skip".
    """

    def __init__(self, loader: SequenceLoader, extras: Any, on_error: str) -> None:
        self.loader, self.on_error = loader, on_error
        self.samples = loader.samples
        self.class_names = loader.class_names
        self.extras: dict[str, Any] = {}
        for name, values in (extras or {}).items():
            if not callable(values):
                found = values if isinstance(values, (list, np.ndarray)) else array_of(values)
                if len(found) != self.samples:
                    raise ValueError(
                        f"lengths differ: features[{name!r:.80}] has {len(found)} values, but there "
                        f"are {self.samples} samples. Every sample needs one value."
                    )
                self.extras[name] = found
            elif not isinstance(loader, PathSequenceLoader):
                raise TypeError(
                    f"features[{name!r:.80}] is a function of the path, but {type(loader).__name__} has "
                    "no paths: pass a list or an array with one value per sample."
                )
            else:
                self.extras[name] = values

    def job(self) -> dict[str, Any]:
        """The inputs that determine the content of the files; see `Journal`."""
        extras = {}
        for name, values in self.extras.items():
            if callable(values):
                extras[name] = digest_of_function(values, f"features[{name!r:.80}]")
            else:
                extras[name] = digest_of_texts(map(_described, values))
        source = job_of(self.loader, False)
        if isinstance(self.loader, _Numbers):
            source["data"] = "features"
        return {"source": source, "features": extras, "on_error": self.on_error}

    def form(self) -> Form | None:
        """Structure, dtypes and class names of the samples; None if there are only extra features."""
        return None

    def more(self, number: int) -> dict[str, Any]:
        """The extra features of a sample."""
        found: dict[str, Any] = {}
        for name, values in self.extras.items():
            value = values(self.loader.source.name(number)) if callable(values) else values[number]
            found |= _features_of(name, value)
        return found

    def files(self, numbers: Indices) -> str | None:
        """A digest of the current state of the source files of these samples."""
        return None

    def close(self) -> None:
        """Stop threads and processes."""

    def runs(self, numbers: Indices, threads: int) -> Iterator[list[bytes | SampleError]]:
        """Yield the records of these samples in this order, a few at a time; for a bad sample its error."""
        raise NotImplementedError


class _Files(RecordSource):
    """Unchanged files with their labels and extra features."""

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
        _check_names([*names, _ID, FORM])
        sizes = []
        for k in spread(self.samples, 8):
            with contextlib.suppress(OSError):
                sizes.append(os.path.getsize(self.paths[k]))
        each = sum(sizes) // max(1, len(sizes)) + 1
        self.run = max(1, min(_RUN, _RUN_BYTES // each))

    def form(self) -> Form | None:
        parts = self.loader.source.columns or ()
        # In the order of a sample's arrays.
        columns = {"x": self.inputs, "y": self.labels}
        found = {
            part: unflatten(structure, [_feature(*one, part == "y") for one in columns[part]])
            for part, structure in zip("xy", parts, strict=False)
        }
        return Form(found, self.class_names)

    def files(self, numbers: Indices) -> str | None:
        columns = [c for _, c in (*self.inputs, *self.labels) if isinstance(c, PathColumn)]
        return digest_of_files(column.paths[n] for column in columns for n in numbers.tolist())

    def runs(self, numbers: Indices, threads: int) -> Iterator[list[bytes | SampleError]]:
        cuts = range(0, len(numbers), self.run)
        with ThreadPool(threads, "kloaders-read") as pool:
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
        """The record of one sample, with its frame."""
        try:
            return read_patiently(self._framed, number, Names(len(self.paths), self._name))
        except Exception as error:  # user code may raise any exception
            return as_sample_error(number, self.paths[number], error)

    def _name(self, number: int) -> str:
        return str(self.paths[number])

    def _framed(self, number: int) -> bytes:
        features: dict[str, Any] = {_ID: self.paths[number]}
        for name, column in self.inputs:
            if isinstance(column, PathColumn):
                features |= _content(name, column.paths[number])
            else:
                features |= features_for(name, column.read(number))
        for name, column in self.labels:
            if isinstance(column, PathColumn):
                features |= _content(name, column.paths[number])
            else:
                features |= features_for(name, column.read(number), label=True)
        return framed(encode_example(features | self.more(number)))


def _feature(name: str, column: Any, label: bool) -> Feature:
    array = None
    if not isinstance(column, PathColumn):
        with contextlib.suppress(Exception):  # user code: reported when the sample is written
            array = column.read(0)
    return feature_of(name, array, label)


def _content(name: str, path: str) -> dict[str, Any]:
    if suffix_of(path) in ARRAY_SUFFIXES:
        return array_features(name, read_array(path))
    raw = read_bytes(path)
    if suffix_of(path) in IMAGE_SUFFIXES:
        check_picture(raw, path)
    return {name: raw}


class LoaderSamples(RecordSource):
    """Makes records of a loader's samples, before its transform. With `alone`, only of `extras`."""

    def __init__(
        self, loader: SequenceLoader, extras: Any, on_error: str, alone: bool = False
    ) -> None:
        super().__init__(loader, extras, on_error)
        self.alone = alone
        if loader.source.not_kept and not alone:
            raise ValueError(f"write_tfrecords({type(loader).__name__}): {loader.source.not_kept}")
        self.view = loader.view()
        self.inputs: list[str] = []
        self.labels: list[str] = []
        self.weights: list[str] = []
        if not alone:
            spec = self.view.raw_spec
            check_no_texts(
                spec,
                "write_tfrecords() of a loader",
                'write_tfrecords(None, out=..., features={"text": texts, "label": labels}) takes texts, and '
                'TFRecordSequenceLoader(files, {"x": "text", "y": "label"}, decode=bytes.decode) reads them',
            )
            self.inputs = _names(spec[0], _ARRAY)
            self.labels = _names(spec[1], _LABEL) if len(spec) > 1 else []
            if len(spec) > 2:  # weights of a dict are named like labels
                self.weights = [f"{_WEIGHT}/{n}" for n in _names(spec[2], "")]
                if not isinstance(spec[2], (tuple, dict)):
                    self.weights = [_WEIGHT]
            elif self.view.weights is not None:
                self.weights = [_WEIGHT]
            _check_names([*self.inputs, *self.labels, *self.weights, _ID, FORM])
        self.each = sum(s.nbytes for s in flatten(self.view.raw_spec))

    def form(self) -> Form | None:
        if self.alone:
            return None
        spec = self.view.raw_spec
        names = {"x": self.inputs, "y": self.labels, "w": self.weights}
        parts = {
            part: unflatten(
                structure,
                [
                    feature_of(
                        name, np.empty([n or 0 for n in leaf.shape], leaf.dtype), part == "y"
                    )
                    for name, leaf in zip(names[part], flatten(structure), strict=True)
                ],
            )
            for part, structure in zip("xyw", spec, strict=False)
        }
        if self.weights and len(spec) < 3:
            parts["w"] = Feature(_WEIGHT)
        return Form(parts, self.class_names)

    def files(self, numbers: Indices) -> str | None:
        columns = [c for c in flatten(self.loader.source.columns or ()) if is_files(c)]
        wanted = numbers.tolist()
        return digest_of_files(c.name(n) for c in columns for n in wanted) if columns else None

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
        inputs, labels = len(self.inputs), len(self.labels)
        single = self.view.weights
        if single is not None:  # multiplied by the weights that a hook returns
            own = arrays[inputs + labels :] or [np.ones((), np.float32)]
            arrays = [
                *arrays[: inputs + labels],
                *(np.asarray(array * single[number]) for array in own),
            ]
        for name, array in zip(self.inputs, arrays, strict=False):
            features |= features_for(name, np.asarray(array))
        for name, array in zip(self.labels, arrays[inputs:], strict=False):
            features |= features_for(name, np.asarray(array), label=True)
        for name, array in zip(self.weights, arrays[inputs + labels :], strict=True):
            features |= array_features(name, np.asarray(array))
        return framed(encode_example(features | self.more(number)))


class _Run(BatchBuild):
    """Some samples as they are stored, of any shape, as pairs (number, arrays)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.odd: dict[tuple[int, int], Array] = {}

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        self.odd |= {(leaf, one.row): one.array for one in odd}
        return {}

    def finish(self) -> list[tuple[int, list[Array]]]:
        """-> number and arrays of each sample that loaded."""
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
            f"two features would have the name {twice!r:.80}: rename one in the dict of inputs or labels."
        )
