"""A loader over TFRecord files, with random access through an index of record positions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from kloaders.core.checks import check_names, checked_class_names, checked_dtype, checked_flag
from kloaders.core.errors import SampleError, as_sample_error, blames_the_sample
from kloaders.core.messages import inform, visible, warn
from kloaders.core.options import Options, RamOptions, shows_options
from kloaders.core.structure import Structure, flatten
from kloaders.engine.retries import Names, read_patiently
from kloaders.engine.specs import FIRST_TRIES
from kloaders.formats.errors import DecodeError
from kloaders.formats.opening import Opener, opener_of
from kloaders.formats.options import ImageOptions
from kloaders.formats.sidecar_index import COMPRESSIONS
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.loaders.encoded import encoded_options
from kloaders.loaders.options import PICTURES, LoaderOptions, ReadingOptions
from kloaders.loaders.ram_batches import TwoLevelLoader
from kloaders.places.urls import local_path
from kloaders.plan.rng import Moment
from kloaders.sources.cache.encoded import cached_rows
from kloaders.sources.files import Decode, readings_by_input
from kloaders.sources.given_files import files_of
from kloaders.sources.hooks import HookSource, NamedSource, default_hook, overrides
from kloaders.sources.quarantine import excluded, record_of, say_left_out
from kloaders.sources.ranged import ranged
from kloaders.sources.records import RecordSource, found_in
from kloaders.sources.remote_quarantine import quarantine_at
from kloaders.sources.source import Source
from kloaders.sources.tfrecord.features import resolved
from kloaders.sources.tfrecord.forms import Form, form_among
from kloaders.sources.tfrecord.guesses import guessed
from kloaders.sources.tfrecord.leaves import leaves_of
from kloaders.sources.weights import taken, weights_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TFRecordSequenceLoader"]


class TFRecordSequenceLoader(TwoLevelLoader):
    """Batches of records of TFRecord files, in any order: no shuffle buffer, no conversion.

    An index of record positions is built when a file is first used (a second per five million
    records), and stored next to it. Records are tf.train.Example, by any writer, or anything else with
    `decode=`.

    Args:
        files: a path, a pattern such as `train-*.tfrecord`, or a list of these; or URLs, from which
            only the needed records are fetched. Files of a pattern are sorted by name.
        features: which features are x and y: {"x": "image_raw", "y": "label"}. For several inputs,
            use a tuple or dict of names; to set a shape, a dtype or a default, use a `Feature`, or
            tf.io's FixedLenFeature, VarLenFeature or RaggedFeature. None uses the structure that
            `write_tfrecords` stored in its files; for other files it is inferred from the first
            record, and logged.
        batch_size: samples per batch.
        decode: a function of the bytes of an input that returns its array, instead of the built-in
            decoding (images, .npy, arrays by `write_tfrecords`). If the records are not Examples it
            gets the whole record.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, depth, label_options:
            how images are decoded; see `PathSequenceLoader`. If x is a dict, size, interpolation and
            channels may be dicts by input. With a dict as size, labels that are images keep their
            stored size, unless `label_options={"size": ...}`.
        compression: None, "GZIP", "ZLIB", or "auto", which checks each file. Compressed files have no
            random access: RAM batches are filled from front to back, and each of them is shuffled.
        max_bytes: maximum decompressed size of a record of a compressed file; larger ones are an error;
            bytes, or a text such as "4GB".
        check_crc: compare each record's checksum with its data. Lengths are always checked.
        index_folder: folder for indexes; None: next to the files, as `.NAME.index`. For URLs, and if
            that is not writable, in the user's cache folder; with download_cache= in its folder
            `indexes`.
        ram_batch_size, ram_budget: serve from RAM batches of this size, for slow disks; see
            `RamBatchSequenceLoader`. Compressed files always are.
        draw: how RAM batches of plain files are drawn; see `RamBatchSequenceLoader`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index in
            this list.
        exclude: leave out records that this CSV file lists in its column `path`, as `quarantine=`
            and `kloaders verify --csv` write it; see `PathSequenceLoader`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, not a TFRecord file, or compressed in another way.
        ValueError: the first record lacks the features, or the format of their bytes is unknown.

        A damaged or truncated record is a sample that does not load: `on_error` applies, and the sample's
        name is file, number and offset. `files` lists the files; `class_names` come from the loader that
        was passed to `write_tfrecords`.
    """

    @shows_options(ReadingOptions, encoded_options)
    def __init__(
        self,
        files: Any,
        features: Any = None,
        batch_size: int = 32,
        *,
        max_bytes: int | str = ImageOptions.max_bytes,
        compression: str | None = "auto",
        check_crc: bool = True,
        index_folder: str | os.PathLike[str] | None = None,
        ram_batch_size: int | None = None,
        ram_budget: int | str | None = None,
        draw: Literal["windows", "global"] = "global",
        class_names: Sequence[str] | None = None,
        exclude: Any = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[ReadingOptions],
    ) -> None:
        check_names(
            type(self).__name__,
            options,
            (
                *ReadingOptions.__annotations__,
                *(TFRecordSequenceLoader.__init__.__kwdefaults__ or {}),
            ),
        )
        given_options = cast("dict[str, Any]", options)
        self.decode = given_options.pop("decode", None)
        label_options = given_options.pop("label_options", None)
        defaults = encoded_options.__kwdefaults__ or {}
        images = {name: given_options.pop(name, defaults[name]) for name in PICTURES}
        images |= {"max_bytes": max_bytes, "dtype": checked_dtype(options.get("dtype"))}
        given = None if features is None else resolved(features)
        kind = _checked_compression(compression)
        if draw not in ("windows", "global"):
            raise ValueError(f'draw={draw!r:.80} is not known: choose "global" or "windows".')
        #: The files, in the order of their samples.
        self.files = files_of(files)
        opener = opener_of(self.files, download_cache, download_budget)
        if options.get("on_error", "raise") != "raise":
            self.files = _without_empty(self.files, opener)
        self._names = None if class_names is None else checked_class_names(class_names)
        folder = None if index_folder is None else local_path(index_folder, "index_folder")
        most = ImageOptions(max_bytes=max_bytes).most_bytes
        check = checked_flag(check_crc, "check_crc")
        records = RecordFiles(
            self.files, kind, opener.index_folder(folder), check, max_bytes=most, opener=opener
        )
        form = _form_in(records)
        names = excluded(exclude, options.get("quarantine"))
        if names:
            _leave_out(records, names, options)
        two_levels = records.compressed or ram_batch_size is not None or ram_budget is not None
        drawn: Any = "front to back" if records.compressed else draw
        ram = RamOptions(ram_batch_size, ram_budget, drawn) if two_levels else None
        self._levels = {"ram": ram}
        leaves: tuple[Structure, ...] = ()
        # A hook may work without features, which only super() needs.
        hooked = overrides(type(self), "load_sample") or overrides(type(self), "load_batch")
        if given is None and form is not None and not hooked:
            given = form.parts
        named = features if isinstance(features, dict) else given or {"x": features}
        inputs, (masks, decode_label), self.input_options = readings_by_input(
            named["x"], "features['x']", self.decode, label_options, **images
        )
        #: The image options; if inputs have separate options, those of the first one.
        self.image_options = next(iter(inputs.values()))
        if len(records) and (given or not hooked):
            leaves = self._settled(records, given, inputs, masks, decode_label, options)
        if records.compressed:
            warn(
                f"{self.files[0]} is compressed: its records are read from front to back, into RAM batches "
                "that are shuffled. Uncompressed files are shuffled as a whole: write_tfrecords(..., "
                "compression=None).",
                once="compressed records",
            )
        encoded = any(leaf.encoded for leaf in flatten(leaves))
        self.records = RecordSource(records, leaves, encoded, type(self).__name__)
        self._begin(self.records, batch_size, options)
        self.class_names = self._names or (None if form is None else form.class_names)

    # ------------------------------------------------------------------ hooks

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One sample from its record: x, or a tuple (x, y). Override it to parse records yourself.

        `self.read_record(index)` returns the bytes, and `super().load_sample(index)` the sample according
        to `features`, if there are any. Several threads call it at once. Any exception becomes a
        SampleError that names file and record, or is handled according to `on_error`.
        """
        parts = self.records.sample(index, Moment())
        return parts[0] if len(parts) == 1 else parts

    def read_record(self, index: int) -> bytes:
        """The data of one record, verified.

        Raises DecodeError if it is damaged.
        """
        return self.records.records.read(index)

    # ------------------------------------------------------------------ the source

    def _sourced(self, samples: int | Source, options: LoaderOptions) -> Source:
        kind, records = type(self), self.records
        by_batch, by_sample = overrides(kind, "load_batch"), overrides(kind, "load_sample")
        files = records.records
        source: Source = ranged(records, files.opener, files.fetch_ahead)
        if by_batch or by_sample:
            dtype = options.transforms.dtype
            source = HookSource(self, len(records), dtype, by_batch=by_batch, base=source)
        leaves = flatten(records.leaves)
        functions = {f"decode= of array {k}": leaf.decode for k, leaf in enumerate(leaves)}
        source = cached_rows(
            source,
            options.cache,
            options.work,
            # Reading records without decoding is as fast as reading a cache.
            decoded=records.encoded and options.ram is None,
            name=records.name,
            file_of=files.file_of,
            paths=files.paths,
            etag=files.opener.etag,
            made_by=("records", *(leaf.described() for leaf in leaves)),
            functions={"decode=": self.decode, **functions},
        )
        return NamedSource(source, self) if overrides(kind, "sample_name") else source

    def _guessed(self, record: bytes) -> tuple[dict[str, Structure], str]:
        return guessed(record, self.decode, self._names is not None)

    def _settled(
        self,
        records: RecordFiles,
        features: Any,
        inputs: dict[Any, ImageOptions],
        masks: ImageOptions,
        decode_label: Decode | None,
        options: Options,
    ) -> tuple[Structure, ...]:
        """The leaves of a sample, settled with the first readable record."""
        failure: SampleError | None = None
        names = Names(len(records), records.name)
        for index in range(min(len(records), FIRST_TRIES)):
            try:
                record = read_patiently(records.read, index, names)
                parts, said = (features, "") if features else self._guessed(record)
                leaves = leaves_of(parts, inputs, masks, self.decode, decode_label, self._names)
                found = found_in(record, leaves)
                for leaf in flatten(leaves):
                    leaf.settle(record, found)
            except (OSError, DecodeError) as error:
                failure = as_sample_error(index, records.name(index), error)
                if options.get("on_error", "raise") == "raise":
                    quarantine = options.get("quarantine")
                    if quarantine is not None and blames_the_sample(failure):
                        quarantine_at(quarantine).add([(failure.name, failure.cause)])
                    raise failure from error
                continue
            except ValueError as error:
                raise ValueError(f"{visible(records.name(index))}: {error}") from None
            if said:
                inform(f"{self.files[0]}: {said}. features={{...}} changes this.", once=said)
            return leaves
        assert failure is not None
        raise failure


def _without_empty(files: list[str], opener: Opener) -> list[str]:
    """The files that are not empty; all files if all are empty."""
    empty = [path for path in files if not opener.stamp(path)[0]]
    if not empty or len(empty) == len(files):
        return files
    warn(
        f"{empty[0]} {f'and {len(empty) - 1} other files are' if len(empty) > 1 else 'is'} empty (0 "
        "bytes) and left out."
    )
    return [path for path in files if path not in set(empty)]


def _form_in(records: RecordFiles) -> Form | None:
    """The structure stored by `write_tfrecords`, from the first readable file."""
    for first, end in itertools.pairwise(records.firsts.tolist()):
        try:
            if end > first:
                return form_among(records.read, first, end - first)
        except ValueError as error:
            raise ValueError(f"{visible(records.name(first))}: {error}") from None
    return None


def _leave_out(records: RecordFiles, names: set[str], options: Options) -> None:
    """Exclude records among `names`."""
    samples = len(records)
    count = records.leave_out(filter(None, map(record_of, names)))
    say_left_out(count, samples, names)
    weights = weights_of(options.get("sample_weights"), samples)
    options["sample_weights"] = taken(weights, records.kept if count else None)
    if count == samples and count:
        raise ValueError(
            f"exclude= leaves out all {samples:,} records, so that none is left to load: check "
            "its content, or leave exclude= out."
        )


def _checked_compression(compression: Any) -> str:
    if compression is None:
        return ""
    if compression not in (*COMPRESSIONS, "auto"):
        raise ValueError(
            f'compression={compression!r:.80} is not known: choose None, "GZIP", "ZLIB" or "auto".'
        )
    return str(compression)
