"""A loader over TFRecord files, with random access through an index of where each record lies."""

from __future__ import annotations

import functools
import glob
import os
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from kloaders.core.errors import SampleError, explain
from kloaders.core.messages import say
from kloaders.core.structure import Structure, flatten, map_structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.formats.sidecar_index import COMPRESSIONS, is_index
from kloaders.formats.tfrecord.examples import Found, features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import FOOTER, HEADER
from kloaders.loaders.paths import readings
from kloaders.loaders.ram_batches import TwoLevelLoader
from kloaders.loaders.sequence import _FIRST_TRIES, Options, _flag, check_names
from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import HookCache, leaf_store
from kloaders.sources.cache.folder import key_of
from kloaders.sources.columns import Report, place
from kloaders.sources.quarantine import Quarantine, excluded, record_of, say_left_out
from kloaders.sources.tfrecord.features import guessed, leaves_of, resolved
from kloaders.sources.tfrecord.layouts import Jobs, Layout, learnt, read_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kloaders.loaders.paths import Decode

__all__ = ["TFRecordSequenceLoader", "files_of"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]

# Sizes of records that layouts are learnt for: encoded pictures, which have none, have all sizes.
_SIZES = 4096
# Records of one size that a layout is learnt from, or tried to be.
_TRIES = 256


class TFRecordSequenceLoader(TwoLevelLoader):
    """Batches of records of TFRecord files, in any order: no shuffle buffer, no conversion.

    An index of where each record lies is made when a file is first used (a second for five million
    records), and kept beside it. Records are tf.train.Example, by whatever writer, or anything else
    with `decode=`.

    Args:
        files: a path, a pattern such as `train-*.tfrecord`, or a list of these. Files of a pattern
            are sorted by name.
        features: which features are x and y: {"x": "image_raw", "y": "label"}. In place of a name
            there may be a tuple or dict of them, for several inputs; a `Feature`, or one of
            tf.io's FixedLenFeature, VarLenFeature and RaggedFeature, for a shape, a dtype or a
            default. None looks at the first record, and says what it took.
        batch_size: samples a batch.
        decode: a function of the bytes of an input that gives its array, instead of what they say
            themselves (pictures, .npy, arrays by `write_tfrecords`). If the records are no
            Examples it gets the whole record.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            pictures are decoded; see `PathSequenceLoader`.
        compression: None, "GZIP", "ZLIB", or "auto", which looks at each file. In compressed files
            no record can be found without what lies before it: RAM batches are then filled from
            front to back, and each of them is shuffled.
        check_crc: compare each record's checksum with its data. Lengths are always checked.
        index_folder: where to keep the indexes; None: beside the files, as `.NAME.index`, or in
            a cache folder of the user's where that is not allowed.
        ram_batch_size, ram_budget: serve from RAM batches of this size, for slow disks; see
            `RamBatchSequenceLoader`. Compressed files always are.
        draw: how RAM batches of plain files are drawn; see `RamBatchSequenceLoader`.
        exclude: leave out records that this CSV file lists in its column `path`, as `quarantine=`
            and `kloaders verify --csv` write it; see `PathSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, no TFRecord, or compressed otherwise than said.
        ValueError: the first record has no such features, or does not tell what its bytes are.

    A record that is damaged or cut short is a sample that does not load: `on_error` says what
    becomes of it, and its name is file, number and place. `files` lists the files.
    """

    def __init__(
        self,
        files: Any,
        features: Any = None,
        batch_size: int = 32,
        *,
        decode: Decode | None = None,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        aspect: str = "stretch",
        channels: int | None = 3,
        rescale: float | None = None,
        dct_scaling: bool = False,
        max_pixels: int = ImageOptions.max_pixels,
        label_options: dict[str, Any] | None = None,
        compression: str | None = "auto",
        check_crc: bool = True,
        index_folder: str | os.PathLike[str] | None = None,
        ram_batch_size: int | None = None,
        ram_budget: int | str | None = None,
        draw: Literal["windows", "global"] = "global",
        exclude: Any = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(
            self,
            options,
            (*Options.__annotations__, *(TFRecordSequenceLoader.__init__.__kwdefaults__ or {})),
        )
        images, (masks, decode_label) = readings(
            decode,
            label_options,
            "pictures that this loader decodes, and decode= does so instead",
            size=size,
            interpolation=interpolation,
            aspect=aspect,
            channels=channels,
            dtype=options.get("dtype"),
            rescale=rescale,
            max_pixels=max_pixels,
            dct_scaling=dct_scaling,
        )
        self.image_options, self.decode = images
        given = None if features is None else resolved(features)
        kind = _checked_compression(compression)
        if draw not in ("windows", "global"):
            raise ValueError(f'draw={draw!r} is not known: choose "global" or "windows".')
        #: The files, in the order of their samples.
        self.files = files_of(files)
        folder = None if index_folder is None else os.fspath(index_folder)
        self._records = RecordFiles(self.files, kind, folder, _flag(check_crc, "check_crc"))
        names = excluded(exclude, options.get("quarantine"))
        if names:
            self._leave_out(names, options)
        self._two_levels = (
            self._records.compressed or ram_batch_size is not None or ram_budget is not None
        )
        self._set_levels(
            ram_batch_size,
            ram_budget,
            "front to back" if self._records.compressed else draw,
            1,
            options.get("shuffle"),
        )
        self._layouts: dict[Any, Layout] = {}
        self._tried: dict[int, int] = {}
        self._leaves: tuple[Structure, ...] = ()
        self._encoded = False
        # A hook may do without features; what it gets from super() needs them.
        if len(self._records) and (given or not self._hooked()):
            self._leaves = self._settled(given, masks, decode_label, options)
        if self._records.compressed:
            say(
                f"{self.files[0]} is compressed: records are read front to back, into RAM batches "
                "that are shuffled. Plain files are shuffled as a whole: write_tfrecords(..., "
                "compression=None).",
                once="compressed records",
            )
        super().__init__(len(self._records), batch_size, **options)

    # ------------------------------------------------------------------ hooks

    def load_sample(self, index: int) -> Any:
        """One sample from its record: x, or a tuple (x, y). Override it to parse records yourself.

        `self.read_record(index)` gives the bytes, and `super().load_sample(index)`, if `features`
        are given, the sample by them. Called from several threads at once. Whatever is raised
        becomes a SampleError that names file and record, or is dealt with as `on_error` says.
        """
        parts = self._parsed(index)
        return parts[0] if len(parts) == 1 else parts

    def read_record(self, index: int) -> bytes:
        """The data of one record, checked.

        Raises DecodeError where it is damaged.
        """
        return self._records.read(index)

    def _data_fingerprint(self) -> dict[str, str]:
        return {
            "data": fingerprint.of_names(self._name, self.samples, self._records.extent()),
        }

    # ------------------------------------------------------------------ features

    def _leave_out(self, names: set[str], options: Options) -> None:
        """Do without records among `names`."""
        samples = len(self._records)
        count = self._records.leave_out(filter(None, map(record_of, names)))
        say_left_out(count, samples, names)
        weights = options.get("sample_weights")
        if count and weights is not None and np.shape(weights)[:1] == (samples,):
            options["sample_weights"] = np.asarray(weights)[self._records.kept]
        if count == samples and count:
            raise ValueError(
                f"exclude= leaves out all {samples:,} records, so that none is left to load: look "
                "at what it lists, or leave it out."
            )

    def _settled(
        self, features: Any, masks: ImageOptions, decode_label: Decode | None, options: Options
    ) -> tuple[Structure, ...]:
        """Leaves of a sample, after a look at the first record that can be read."""
        failure: SampleError | None = None
        for index in range(min(len(self._records), _FIRST_TRIES)):
            try:
                record = self._records.read(index)
                parts, said = (features, "") if features else guessed(record, self.decode)
                leaves = leaves_of(parts, self.image_options, masks, self.decode, decode_label)
                found = self._found(record, leaves)
                for leaf in flatten(leaves):
                    leaf.settle(record, found)
            except (OSError, DecodeError) as error:
                failure = explain(index, self._records.name(index), error)
                if options.get("on_error", "raise") == "raise":
                    if (quarantine := options.get("quarantine")) is not None:
                        Quarantine(quarantine).add([(failure.name, failure.cause)])
                    raise failure from error
                continue
            except ValueError as error:
                raise ValueError(f"{self._records.name(index)}: {error}") from None
            self._encoded = any(leaf.encoded for leaf in flatten(leaves))
            if said:
                say(f"{self.files[0]}: {said}. features={{...}} chooses otherwise.", once=said)
            return leaves
        assert failure is not None
        raise failure

    def _found(self, record: bytes, leaves: tuple[Structure, ...]) -> dict[str, Found]:
        # A leaf without a name is the whole record, which then is no Example.
        return features_of(record) if flatten(leaves)[0].name else {}

    # ------------------------------------------------------------------ samples

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(TFRecordSequenceLoader, hook)

    def _hooked(self) -> bool:
        return self._overrides("load_sample") or self._overrides("load_batch")

    def _runs_users_code(self) -> bool:
        return self._decodes_by_user() or super()._runs_users_code()

    def _decodes_by_user(self) -> bool:
        return any(leaf.decode is not None for leaf in flatten(self._leaves))

    def _sample(self, index: int) -> tuple[Any, ...]:
        if self._hooked():
            return super()._sample(index)
        if self._hook_cache is None:
            return self._parsed(index)
        kept: tuple[Any, ...] = self._hook_cache.remember(index, lambda: self._parsed(index))
        return kept

    def _at_once(self) -> bool:
        return not self._hooked()

    def _begin_cache(self) -> None:
        if self.cache is None:
            return
        if self.cache == "auto":
            # Only what is decoded by us: other records are read as fast as a cache is. And worker
            # processes would keep what they read in RAM each for itself.
            users = self._decodes_by_user() or self._hooked()
            if users or not self._encoded or self.processes or self._two_levels:
                return
        else:
            self._check_hook_cache()
        hook = type(self).load_sample if self._overrides("load_sample") else None
        said = [part for leaf in flatten(self._leaves) for part in leaf.described()]
        key = key_of("records", type(self).__qualname__, hook, self.decode, *said, cv2.__version__)
        names = _Names(self._records)
        make = functools.partial(leaf_store, self._cache_place(), key, self.samples, names)
        self._hook_cache = HookCache(make, _Paths(self._records))

    def _parsed(self, index: int) -> tuple[Any, ...]:
        """One sample as `features` say."""
        if not self._leaves:
            raise TypeError(
                f"{type(self).__name__} overrides a hook and has no features: pass features=, or "
                "parse the bytes that read_record(index) gives."
            )
        record = self._records.read(index)
        found = self._found(record, self._leaves)
        sample: tuple[Any, ...] = map_structure(
            lambda leaf: leaf.read(record, found, None), self._leaves
        )
        return sample

    def _fill_stored(self, indices: Indices, out: list[Array], report: Report) -> None:
        if self._hooked():
            super()._fill_stored(indices, out, report)
        elif self._hook_cache is not None:
            self._hook_cache.fill(self._leaves, indices, out, report, self._fill_parsed)
        else:
            self._fill_parsed(indices, out, report)

    def _fill_parsed(self, indices: Indices, out: list[Array], report: Report) -> None:
        """Row r of `out` becomes sample indices[r], as `features` say."""
        leaves = flatten(self._leaves)
        left = self._fill_by_layout(indices, out)
        for k, raw in self._records.read_many(indices[left]):
            row = left[k]
            try:
                if isinstance(raw, Exception):
                    raise raw
                self._records.check(raw, int(indices[row]))
                record = raw[HEADER:-FOOTER]
                found = self._found(record, self._leaves)
                for number, leaf in enumerate(leaves):
                    target = out[number][row, ...]
                    got = leaf.read(record, found, target)
                    if got is not target:
                        place(got, out[number], row, number, report)
                self._learn(int(indices[row]), raw, record, found, out)
            except Exception as error:  # whatever a user's decode raises belongs to the sample
                report(row, error)

    def _fill_by_layout(self, indices: Indices, out: list[Array]) -> list[int]:
        """Read what is of a form met before; the rows that are left."""
        if not self._layouts:
            return list(range(len(indices)))
        files, starts, ends = self._records.locate(indices)
        order = np.lexsort((starts, files))
        places = zip(files[order].tolist(), (ends - starts)[order].tolist(), strict=True)
        get = self._layouts.get
        layouts = [get((file, size)) or get(size) for file, size in places]
        left: list[int] = []
        if None in layouts:
            known = np.array([layout is not None for layout in layouts])
            left, order = order[~known].tolist(), order[known]
            if not len(order):
                return left
        numbers = self._records.numbers(indices)
        where = (numbers[order], files[order], starts[order], ends[order])
        jobs = Jobs(*where, order, [layout for layout in layouts if layout is not None])
        return left + read_rows(self._records, jobs, out)

    def _learn(
        self, index: int, raw: bytes, record: bytes, found: dict[str, Found], out: list[Array]
    ) -> None:
        """Take down the form of a record, so that others like it are read at once."""
        size = len(raw)
        tried = self._tried.get(size, 0)
        if self._records.compressed or tried >= _TRIES or len(self._tried) > _SIZES:
            return
        self._tried[size] = tried + 1
        layout = learnt(raw, record, found, flatten(self._leaves), out)
        if layout is None:
            return
        known = self._layouts.setdefault(size, layout)
        if layout.direct or known.direct:
            # Which one it is must be known before: writers may order features differently, but
            # hardly within a file. Files of one order share theirs, so that records go together.
            file, _ = self._records.where(index)
            self._layouts[file, size] = self._layouts.setdefault((size, *layout.same), layout)
        elif all(one.same != layout.same for one in known.siblings):
            known.siblings.append(layout)

    def _looked_at(self) -> list[int]:
        # The first ones where others cannot be reached without all that is before them.
        return list(range(8)) if self._records.compressed else super()._looked_at()

    def _name(self, index: int) -> str:
        return self._records.name(index)

    def _shape_advice(self, index: int, dtype_differs: bool) -> str:
        if dtype_differs:
            return "Pass dtype=, or kl.Feature(name, dtype=...) in features."
        return "Pass size=(height, width) for pictures; bring lists to one length in transform=."

    def _release(self) -> None:
        super()._release()
        self._records.close()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "_layouts": {}, "_tried": {}}


class _Names:
    """What records are called, by number."""

    def __init__(self, records: RecordFiles) -> None:
        self.records = records

    def __getitem__(self, index: int) -> str:
        return self.records.name(index)


class _Paths(_Names):
    """The files that records are in, by the records' numbers."""

    def __getitem__(self, index: int) -> str:
        return self.records.paths[self.records.where(index)[0]]


def _checked_compression(compression: Any) -> str:
    if compression is None:
        return ""
    if compression not in (*COMPRESSIONS, "auto"):
        raise ValueError(
            f'compression={compression!r} is not known: choose None, "GZIP", "ZLIB" or "auto".'
        )
    return str(compression)


def files_of(
    files: Any, what: str = "TFRecord files", pattern: str = "train-*.tfrecord"
) -> list[str]:
    """Paths, with patterns replaced by what matches."""
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    found: list[str] = []
    for item in files:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"files holds {item!r} ({type(item).__name__}), expected paths of TFRecord files or "
                'patterns such as "train-*.tfrecord".'
            )
        path = os.fspath(item)
        if os.path.exists(path):
            found.append(path)
        elif not glob.has_magic(path):
            raise FileNotFoundError(
                f"{path} does not exist. Relative paths start at {os.getcwd()}."
            )
        else:
            matches = [m for m in sorted(glob.glob(path, recursive=True)) if not is_index(m)]
            if not matches:
                raise FileNotFoundError(
                    f"no file matches {path!r}. Relative patterns start at {os.getcwd()}."
                )
            found += matches
    if not found:
        raise ValueError(f"files is empty, expected at least one of {what}.")
    return found
