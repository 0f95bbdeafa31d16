"""A source of every kind, over samples that carry their numbers.

Sample k of a source from `first` on has x, an array whose values all are first + k, and the label
first + k. One sample may be broken, or of another shape than the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from kloaders.core.options import CacheOptions, TransformOptions, WorkOptions
from kloaders.formats.lines import LineFiles
from kloaders.formats.mds import read_index
from kloaders.formats.options import ImageOptions
from kloaders.formats.ranges import RangeFiles
from kloaders.formats.tfrecord.examples import array_features, encode_example, features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.sources.cache.policy import cached_in_ram
from kloaders.sources.cast import CastSource
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn, ListColumn, PathColumn
from kloaders.sources.encoded import fields_of
from kloaders.sources.files import FileReader, FileSource
from kloaders.sources.hooks import HookSource, LabelledSource, NamedSource, PathHookSource
from kloaders.sources.lazy import LazyArray, LazyColumn
from kloaders.sources.lines import CsvSource, LineSource
from kloaders.sources.mds import MDSSource
from kloaders.sources.mixture import MixtureSource
from kloaders.sources.parquet import ParquetSource, ParquetTables
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.records import RecordSource
from kloaders.sources.source import Source
from kloaders.sources.tar import TarSamples, TarSource
from kloaders.sources.tfrecord.features import resolved
from kloaders.sources.tfrecord.leaves import leaves_of
from kloaders.sources.torch_dataset import TorchSource
from kloaders.sources.video import VideoSource
from kloaders.sources.windows import Cut, WindowSource
from kloaders.sources.zipped import ZippedSource
from tests.support.mds_files import write_mds
from tests.support.sources import Numbered, steps_of
from tests.support.tar_files import npy_bytes, write_tar

SAMPLES = 7
#: The number of the sample that is broken, where one is: the last, as in a file that is cut short.
BROKEN = SAMPLES - 1
#: The number of the sample of another shape, where there is one.
ODD = 2


@dataclass(frozen=True)
class Data:
    """The samples of a source.

    Attributes:
        folder: an empty one, for files.
        first: the number of sample 0.
        samples: how many.
        broken: whether sample BROKEN does not load.
        odd: whether x of sample ODD has three values in place of two.
    """

    folder: Path
    first: int = 0
    samples: int = SAMPLES
    broken: bool = False
    odd: bool = False

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.samples)

    def is_broken(self, number: int) -> bool:
        return self.broken and number == self.first + BROKEN

    def x(self, number: int) -> Any:
        """x of the sample of this number; ValueError where it is the broken one."""
        if self.is_broken(number):
            raise ValueError(f"number {number} is broken")
        return steps_of(number, 3 if self.odd and number == self.first + ODD else 2)

    def labels(self) -> Any:
        return np.array(self.numbers, np.int64)

    def files(self, suffix: str = ".npy") -> list[str]:
        """A file for each sample."""
        paths = []
        for number in self.numbers:
            path = self.folder / f"{number:03}{suffix}"
            if self.is_broken(number):
                path.write_bytes(b"no array")
            else:
                np.save(path, self.x(number))
            paths.append(str(path))
        return paths


class OfNumbers(Numbered):
    """A user's own source, which overrides `__len__` and `read`."""

    def __init__(self, data: Data) -> None:
        super().__init__(data.samples)
        self.data = data

    def read(self, index: int) -> Any:
        number = self.data.first + index
        return self.data.x(number), np.int64(number)


class Hooked:
    """The part of a loader that sources with hooks use."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def load_sample(self, index: Any) -> Any:
        number = self.data.first + index
        return self.data.x(number), np.int64(number)

    def load_batch(self, indices: Any) -> Any:
        samples = [self.load_sample(index) for index in indices.tolist()]
        return tuple(map(np.stack, zip(*samples, strict=True)))

    def sample_name(self, index: int) -> str:
        return f"number {self.data.first + index}"

    def replace(self, **changes: Any) -> Hooked:
        return self


class HookedPaths(Hooked):
    """Its hooks read files, and its labels are not theirs."""

    def load_sample(self, path: Any) -> Any:
        return np.load(path)


class Dataset:
    """A map-style dataset, as torch's are."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.samples

    def __getitem__(self, index: int) -> Any:
        number = self.data.first + index
        return self.data.x(number), number


def _arrays(data: Data) -> Source:
    x = np.stack([data.x(number) for number in data.numbers])
    return ColumnSource((ArrayColumn(x), ArrayColumn(data.labels())))


def _memory_map(data: Data) -> Source:
    path = data.folder / "x.npy"
    np.save(path, np.stack([steps_of(number) for number in data.numbers]))
    mapped = np.load(path, mmap_mode="r")
    if data.broken:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 2)
    return ColumnSource((ArrayColumn(mapped), ArrayColumn(data.labels())))


def _lists(data: Data) -> Source:
    x = [data.x(number) for number in data.numbers]
    return ColumnSource((ListColumn(x), ArrayColumn(data.labels())))


def _nested(data: Data) -> Source:
    x = [data.x(number) for number in data.numbers]
    inputs = {"a": ListColumn(x), "b": (ArrayColumn(data.labels() + 0.5),)}
    return ColumnSource((inputs, (ArrayColumn(data.labels()),)))


class Rows:
    """Rows of an external store: a shape, a dtype, and a function that reads some of them."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.shape, self.dtype = (data.samples, 2), np.dtype(np.float32)

    def __getitem__(self, rows: slice) -> Any:
        numbers = range(self.data.first, self.data.first + self.data.samples)[rows]
        return np.stack([self.data.x(number) for number in numbers])

    def __array__(self) -> Any:
        raise AssertionError("read as a whole")


def _lazy(data: Data) -> Source:
    return ColumnSource((LazyColumn(LazyArray(Rows(data))), ArrayColumn(data.labels())))


def _hdf5(data: Data) -> Source:
    with h5py.File(data.folder / "a.h5", "w") as file:
        file["x"] = np.stack([steps_of(number) for number in data.numbers])
        file["y"] = data.labels()
        columns = (LazyColumn(LazyArray(file[name], name)) for name in "xy")
        return ColumnSource(tuple(columns))


#: Two rows of a window, and behind them its label.
CUTS = (Cut(0, 2, 1), Cut(2, 1, 1))


def _windows(data: Data) -> Source:
    """Windows of three rows, that share none: x twice, and the label."""
    series = np.repeat(np.array(data.numbers, np.float32), 3)
    return WindowSource([ArrayColumn(series)], CUTS, 3, [np.zeros(0, np.int64)])


def _windows_of_files(data: Data) -> Source:
    """Two series, one of them mapped, and one read row by row."""
    cut = 4
    path = data.folder / "series.npy"
    np.save(path, np.repeat(np.array(data.numbers[cut:], np.float32), 3))
    mapped = np.load(path, mmap_mode="r")
    if data.broken:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 2)
    with h5py.File(data.folder / "a.h5", "w") as file:
        file["x"] = np.repeat(np.array(data.numbers[:cut], np.float32), 3)
        series = [LazyColumn(LazyArray(file["x"])), ArrayColumn(mapped)]
    return WindowSource(series, CUTS, 3, [np.zeros(0, np.int64)] * 2)


def _files(data: Data) -> Source:
    paths = PackedPaths(data.files())
    column = PathColumn(paths, FileReader(ImageOptions(), None))
    return FileSource((column, ArrayColumn(data.labels())), paths)


def _path_hook(data: Data) -> Source:
    paths = PackedPaths(data.files())
    column = PathColumn(paths, FileReader(ImageOptions(), None))
    base = FileSource((column,), paths, hooked=True)
    loader = HookedPaths(data)
    inner = PathHookSource(loader, column, None, by_batch=False, base=base)
    labels = ArrayColumn(data.labels())
    return LabelledSource(inner, labels, (column, labels)).held()


def _hook(data: Data) -> Source:
    loader = Hooked(data)  # which nothing else keeps alive: so the source does
    return HookSource(loader, data.samples).held()


def _hook_of_batches(data: Data) -> Source:
    loader = Hooked(data)
    return HookSource(loader, data.samples, by_batch=True).held()


def _named(data: Data) -> Source:
    loader = Hooked(data)
    return NamedSource(OfNumbers(data), loader).held()


def _cast(data: Data) -> Source:
    return CastSource(OfNumbers(data), np.float64)


def _cached(data: Data) -> Source:
    return cached_in_ram(OfNumbers(data), CacheOptions(cache="ram"), WorkOptions(workers=0))


def _cached_records(data: Data) -> Source:
    return cached_in_ram(_records(data), CacheOptions(cache="ram"), WorkOptions(workers=0))


def _some(data: Data) -> Source:
    """Every second sample of a source with twice as many samples."""
    whole = _Doubled(data)
    return whole.take(np.arange(1, 2 * data.samples, 2))


class _Doubled(OfNumbers):
    """Each sample twice, where the first of two must not be read."""

    def __len__(self) -> int:
        return 2 * self.samples

    def read(self, index: int) -> Any:
        assert index % 2
        return super().read(index // 2)


def _some_columns(data: Data) -> Source:
    backwards = [data.x(number) for number in reversed(data.numbers)]
    whole = ColumnSource((ListColumn(backwards), ArrayColumn(data.labels()[::-1])))
    return whole.take(np.arange(data.samples)[::-1])


def negated(x: Any, y: Any, rng: Any) -> Any:
    return -x, -y


def _mixture(data: Data) -> Source:
    """Two sources, of which the second is negative and becomes positive in a transform."""
    cut = 3
    ahead = Data(data.folder, data.first, cut, odd=data.odd)
    behind = _Negative(data, cut)
    return MixtureSource(
        [
            SamplePipeline(OfNumbers(ahead)),
            SamplePipeline(behind, TransformOptions(transform=negated), seed=1),
        ]
    )


def _zipped(data: Data) -> Source:
    """x of one source, whose transform makes it positive, and y of another."""
    inputs = _NegativeInputs(data)
    labels = ColumnSource((ArrayColumn(data.labels()),))
    pipelines = [
        SamplePipeline(inputs, TransformOptions(transform=negated_input), seed=1),
        SamplePipeline(labels),
    ]
    return ZippedSource(pipelines, ((0, 0), (1, 0)))


def negated_input(x: Any, y: Any, rng: Any) -> Any:
    return -x, y


class _NegativeInputs(OfNumbers):
    """Inputs alone, with the sign changed."""

    def read(self, index: int) -> Any:
        return -super().read(index)[0]


class _Negative(OfNumbers):
    """The samples after the first few, with the sign changed."""

    def __init__(self, data: Data, cut: int) -> None:
        super().__init__(data)
        self.samples, self.cut = data.samples - cut, cut

    def read(self, index: int) -> Any:
        x, y = super().read(index + self.cut)
        return -x, -y


def _records(data: Data) -> Source:
    path = data.folder / "a.tfrecord"
    with path.open("wb") as file:
        for number in data.numbers:
            x = steps_of(number) if data.is_broken(number) else data.x(number)
            raw = bytearray(framed(encode_example({**array_features("x", x), "y": number})))
            if data.is_broken(number):
                raw[-1] ^= 1  # the checksum
            file.write(raw)
    records = RecordFiles([str(path)], progress=False)
    leaves = leaves_of(resolved({"x": "x", "y": "y"}), ImageOptions(), ImageOptions(), None, None)
    found = features_of(records.read(0))
    for leaf in leaves:
        leaf.settle(records.read(0), found)
    return RecordSource(records, leaves, False, "TFRecordSequenceLoader")


def _fields(x: str, y: str) -> Any:
    return fields_of(x, y, (ImageOptions(), None), (ImageOptions(), None), None)


def _members(data: Data, number: int) -> bytes:
    return b"no array" if data.is_broken(number) else npy_bytes(data.x(number))


def _tar(data: Data) -> Source:
    members: dict[str, bytes] = {}
    for number in data.numbers:
        members[f"{number:03}.npy"] = _members(data, number)
        members[f"{number:03}.cls"] = str(number).encode()
    path = write_tar(data.folder / "a.tar", members)
    return TarSource(TarSamples(RangeFiles([path]), None), _fields("npy", "cls"))


def _parquet(data: Data) -> Source:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    path = str(data.folder / "a.parquet")
    x = [_members(data, number) for number in data.numbers]
    write_table(arrow.table({"x": x, "y": data.labels()}), path, row_group_size=3)
    return ParquetSource(ParquetTables([path], "a test"), _fields("x", "y"), 10**6)


def _mds(data: Data) -> Source:
    samples = [{"x": _members(data, number), "y": number} for number in data.numbers]
    folder = write_mds(data.folder / "mds", {"x": "bytes", "y": "int"}, samples, 3)
    return MDSSource(read_index(folder), _fields("x", "y"))


def parsed(line: str) -> Any:
    """x and y of a line: y, and the values of x."""
    y, *x = map(int, line.split())
    return np.array(x, np.float32), np.int64(y)


def _text(data: Data, mark: str) -> list[str]:
    lines = []
    for number in data.numbers:
        values = ["broken"] * 2 if data.is_broken(number) else map(int, data.x(number))
        lines.append(mark.join(map(str, [number, *values])))
    return lines


def _lines(data: Data) -> Source:
    path = data.folder / "a.txt"
    path.write_text("\n".join(_text(data, " ")))
    return LineSource(LineFiles([str(path)], progress=False), "utf-8", parsed)


def _csv(data: Data) -> Source:
    path = data.folder / "a.csv"
    path.write_text("\n".join(["y,a,b", *_text(data, ",")]) + "\n")
    return CsvSource(
        LineFiles([str(path)], True, '"', True, progress=False),
        [str(path)],
        ["a", "b"],
        "y",
        classes=None,
        missing=None,
        header=True,
        delimiter=",",
        quote='"',
        encoding="utf-8",
        dtype=None,
    )


def _video(data: Data) -> Source:
    """Grey levels of frames are ten times the numbers, which a lossy codec keeps apart."""
    path = str(data.folder / "a.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    assert writer.isOpened()
    for number in data.numbers:
        writer.write(np.full((32, 32, 3), 10 * number, np.uint8))
    writer.release()
    return VideoSource([path], None, None, 1, None, ImageOptions(size=(2, 2), channels=1), None)


def _torch(data: Data) -> Source:
    return TorchSource(Dataset(data), None, False, True, np.dtype(np.float32))


@dataclass(frozen=True)
class Kind:
    """A kind of sources.

    Attributes:
        make: makes one.
        can_break: a sample may not load.
        can_differ: a sample may have another shape.
        known_by: what tells its data from other data: "values", "files", or "names", which are
            those of other data too where there are as many, in files of the same sizes.
        own_names: no two samples have the same name.
        labelled: samples have labels.
    """

    make: Callable[[Data], Source]
    can_break: bool = True
    can_differ: bool = True
    known_by: str = "names"
    own_names: bool = True
    labelled: bool = True

    def number(self, parts: tuple[Any, ...]) -> int:
        """The number that a sample carries; its arrays agree on it."""
        values = parts[0]["a"] if isinstance(parts[0], dict) else parts[0]
        values = np.unique(np.round(values / 10) if not self.labelled else values)
        (number,) = values.tolist()
        if self.labelled:
            label = parts[1][0] if isinstance(parts[1], tuple) else parts[1]
            assert int(np.ravel(label)[0]) == number
        return int(number)


KINDS = {
    "arrays": Kind(_arrays, False, False, "values"),
    "memory map": Kind(_memory_map, True, False, "values"),
    "lazy": Kind(_lazy, True, False, "values"),
    "HDF5": Kind(_hdf5, False, False, "values"),
    "windows": Kind(_windows, False, False, "values"),
    "windows of files": Kind(_windows_of_files, True, False, "values"),
    "lists": Kind(_lists, False, True, "values"),
    "nested": Kind(_nested, False, True, "values"),
    "files": Kind(_files, known_by="files"),
    "hook of paths": Kind(_path_hook, known_by="files"),
    "hook": Kind(_hook),
    "hook of batches": Kind(_hook_of_batches),
    "named": Kind(_named),
    "cast": Kind(_cast),
    "cached": Kind(_cached),
    "cached records": Kind(_cached_records),
    "some": Kind(_some),
    "some columns": Kind(_some_columns, False, True, "values"),
    "mixture": Kind(_mixture, own_names=False),
    "zipped": Kind(_zipped),
    "records": Kind(_records),
    "lines": Kind(_lines, known_by="files"),
    "CSV": Kind(_csv, True, False, "files"),
    "video": Kind(_video, False, False, labelled=False),
    "torch": Kind(_torch),
    "tar": Kind(_tar),
    "Parquet": Kind(_parquet),
    "MDS": Kind(_mds),
    "own": Kind(OfNumbers),
}
