"""Loaders over files, one file per sample."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Indices, Mask
from kloaders.core.checks import check_names, checked_count, checked_dtype
from kloaders.core.options import Options, shows_options
from kloaders.core.structure import flatten, map_structure
from kloaders.formats.images import decoders
from kloaders.formats.options import ImageOptions
from kloaders.loaders.options import LoaderOptions, ReadingOptions
from kloaders.loaders.sequence import SequenceLoader
from kloaders.sources.cache.columns import CachedColumn, HookCache, leaf_store, store_at
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.keys import SampleKey, key_of, watched
from kloaders.sources.cache.policy import check_single_samples, folder_of, place_of
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.column_source import checked_columns
from kloaders.sources.columns import ArrayColumn, CallColumn, Column, PathColumn, take_rows
from kloaders.sources.files import (
    Decode,
    FileReader,
    FileSource,
    check_paths_of,
    options_by_input,
    readings,
)
from kloaders.sources.fingerprint import common_folder
from kloaders.sources.given_columns import columns_of
from kloaders.sources.hooks import (
    LabelledSource,
    NamedSource,
    PathHookSource,
    default_hook,
    overrides,
)
from kloaders.sources.quarantine import excluded, numbers_of, say_left_out
from kloaders.sources.remote_files import (
    CachedRemoteColumn,
    RemoteColumn,
    expanded,
    fetched,
)
from kloaders.sources.source import Source
from kloaders.sources.weights import taken, weights_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PathOptions", "PathSequenceLoader"]


class PathOptions(ReadingOptions, total=False):
    """The options of loaders of files; see `PathSequenceLoader`."""

    max_bytes: int | str
    reader: str
    pages: str
    check_paths: bool | str
    exclude: Any
    download_cache: str | os.PathLike[str] | None
    download_budget: int | str | None
    samples_per_file: int


class PathSequenceLoader(SequenceLoader):
    """Batches read from files, one file per sample.

    JPEG, PNG, BMP, WebP, TIFF, GIF (first frame), .npy and .npz are read by their suffix. For
    other formats pass `decode=`, or override `load_sample(path)` or `load_batch(indices)`.

    Args:
        paths: files, as str or pathlib.Path, or their URLs, such as "s3://bucket/a.jpg"; or a pattern
            for either, such as `photos/**/*.jpg`, whose files are sorted by name. For several inputs,
            a tuple or dict of these and of arrays.
        labels: one for each path: integers, floats, one-hot rows, or an array per sample; paths
            (a mask for each image); a tuple or dict of these; or a function that takes the path and
            returns a number, the path of a mask, or a class name: names are numbered in sorted
            order, see `class_names`. None: no labels.
        batch_size: samples per batch.
        size: (height, width), or one number for both, to which images are resized; None keeps the
            stored size. If paths is a dict, size, interpolation and channels may be dicts by input,
            `size={"photo": (224, 224), "plan": 64}`; inputs left out use the default.
        interpolation: "auto" uses "area", which averages, for images that shrink, and "bilinear" for
            images that grow. Or one of OpenCV's "bilinear", "nearest", "bicubic", "area" and
            "lanczos" (only "area" averages); or "pillow-bilinear", "pillow-bicubic",
            "pillow-lanczos", "pillow-hamming" or "pillow-box", which average as well.
        aspect: for images whose aspect ratio differs from that of `size`: "stretch" distorts them,
            "crop" takes the largest part with that ratio from the centre, "pad" adds zeros on both
            sides.
        channels: 3 (RGB), 1 (gray), 4 (RGBA), or None for the channels of the file (all bands of a
            TIFF).
        rescale: multiply images by this number, like Keras' Rescaling; the result is float32. Arrays
            from .npy and .npz are not rescaled.
        dct_scaling: decode JPEGs at 1/2, 1/4 or 1/8 of their size if that is still at least as large
            as `size`. 1.4 times as fast for images twice as large as needed; pixels differ slightly,
            by 2.4 of 255 levels on average, 5.8 with "bilinear".
        max_pixels: images with more pixels are rejected before they are decoded.
        max_bytes: larger arrays in .npz files are rejected before they are decompressed; in bytes,
            or as "4GB".
        depth: 8 converts 16-bit images to 8 bits by keeping the upper bits, like tf.io.decode_image;
            None keeps the stored depth.
        reader: "opencv"; or "pillow" for exactly Pillow's pixels, as in Keras' load_img: 16-bit gray
            images keep their values, colour images are converted to 8 bits.
        pages: for TIFF files with several pages: "first", or "all", which makes images of shape
            (pages, height, width, channels).
        decode: a function that takes the bytes of a file and returns its array, used instead of the
            decoder for the suffix. Labels that are paths have their own decode, in label_options.
        label_options: these image options, or decode, for labels that are paths; the defaults are the
            size of the inputs, the stored channels, and "nearest", which does not mix classes.
        check_paths: whether paths exist: "sample" checks up to 2,000 of them, True all, False none.
        exclude: leave out the samples whose files are in the column `path` of this CSV file,
            as `quarantine=` and `kloaders verify --csv` write it; or a list of such files. Still
            pass labels and sample_weights for all samples. It may be the file of `quarantine=`,
            even before it exists: then each run leaves out the bad files that earlier runs found.
        download_cache: a folder on a local disk that caches downloaded objects of URLs for later
            epochs and runs. Processes and loaders may share it. None: no cache.
        download_budget: the maximum size of this folder, in bytes or as "200GiB"; a larger data set
            is cached in part, the same part in each epoch. None: limited by the disk only.
        samples_per_file: number of samples per file and epoch: a file is read once and transformed
            this many times, each time with other random numbers, as for random crops of large images.
            With shuffling these samples are spread over RAM batches of 32 batches
            (`RamBatchSequenceLoader` allows larger ones); in storage order they follow each other.
            Labels, weights and errors stay one per file; a validation part has one sample per file,
            unless it has a transform.
        **options: see `SequenceLoader`. dtype=None keeps uint8 for images, and uint16 for 16-bit
            images.

    Raises:
        FileNotFoundError: a path does not exist; the message names it and counts the others.
        IsADirectoryError: a path is a folder.
        ValueError: a suffix without a decoder, lengths that differ, string labels.

    >>> PathSequenceLoader(["a.xyz"], check_paths=False)
    Traceback (most recent call last):
        ...
    ValueError: a.xyz ends in '.xyz', but the known suffixes are .bmp ...
    """

    @shows_options(Options)
    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int = 32,
        *,
        size: tuple[int, int] | int | dict[str, Any] | None = None,
        interpolation: str | dict[str, str] = "auto",
        aspect: str = "stretch",
        channels: int | dict[str, Any] | None = 3,
        rescale: float | None = None,
        dct_scaling: bool = False,
        max_pixels: int = ImageOptions.max_pixels,
        max_bytes: int | str = ImageOptions.max_bytes,
        depth: int | None = None,
        reader: str = "opencv",
        pages: str = "first",
        decode: Decode | None = None,
        label_options: dict[str, Any] | None = None,
        check_paths: bool | str = "sample",
        exclude: Any = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        samples_per_file: int = 1,
        **options: Unpack[Options],
    ) -> None:
        self._begin_files(
            paths,
            labels,
            batch_size,
            options,
            images={
                "size": size,
                "interpolation": interpolation,
                "aspect": aspect,
                "channels": channels,
                "rescale": rescale,
                "dct_scaling": dct_scaling,
                "max_pixels": max_pixels,
                "max_bytes": max_bytes,
                "depth": depth,
                "reader": reader,
                "pages": pages,
            },
            decode=decode,
            label_options=label_options,
            check_paths=check_paths,
            exclude=exclude,
            downloads=(download_cache, download_budget),
            samples_per_file=checked_count(samples_per_file, "samples_per_file", 1),
        )

    def _begin_files(
        self,
        paths: Any,
        labels: Any,
        batch_size: int,
        options: Options,
        *,
        images: dict[str, Any],
        decode: Decode | None,
        label_options: dict[str, Any] | None,
        check_paths: bool | str,
        exclude: Any,
        downloads: tuple[Any, Any],
        **more: Any,
    ) -> None:
        """Set up; more: fields of `LoaderOptions`."""
        kind = type(self)
        known = (*PathOptions.__annotations__, *(kind.__init__.__kwdefaults__ or {}))
        check_names(kind.__name__, options, known)
        dtype = checked_dtype(options.get("dtype"))
        by_input = options_by_input(paths, **images)
        first = images if by_input is None else next(iter(by_input.values()))
        reading, masks = readings(decode, label_options, dtype=dtype, **first)
        #: The image options; if inputs have separate options, those of the first one.
        self.image_options, self.decode = reading
        #: Image options by input; None if all inputs have the same.
        self.input_options = by_input
        if isinstance(paths, list) and any(isinstance(one, SequenceLoader) for one in paths[:1]):
            raise TypeError(
                "paths contains a loader, expected paths of files: pass the loader itself, without a "
                "list around it."
            )
        paths = expanded(paths)
        if by_input is None:
            x = columns_of(paths, "paths", FileReader(*reading), dtype=dtype)
        else:
            x = self._columns_by_input(paths, by_input, decode, dtype)
        files = next((c.paths for c in flatten(x) if isinstance(c, PathColumn)), None)
        y = None
        if labels is not None:
            y = columns_of(labels, "labels", FileReader(*masks), files)
        masked = any(isinstance(c, PathColumn) for c in flatten(y or ()))
        if masked and isinstance(images["size"], dict) and "size" not in (label_options or {}):
            raise ValueError(
                "labels are files and size= is a dict by input, so it is unclear which size the labels "
                'have: pass label_options={"size": (height, width)}.'
            )
        if label_options and not masked:
            raise ValueError(
                "label_options= is only for labels that are files, but this loader has none: leave "
                "it out."
            )
        columns = checked_columns(kind.__name__, x, y, ("paths", "labels"))
        if files is None:
            raise TypeError(
                "paths contains no path of a file, expected str or pathlib.Path. For arrays use "
                "ArraySequenceLoader."
            )
        columns = fetched(columns, *downloads)
        hooked = overrides(kind, "load_sample") or overrides(kind, "load_batch")
        source = FileSource(columns, files, decode is not None, hooked)
        #: The numbers of the samples that `exclude` kept; None for all samples.
        self.included: Mask | None = None
        options["sample_weights"] = weights_of(
            options.get("sample_weights"), len(source), FileReader(*masks), files
        )
        names = excluded(exclude, options.get("quarantine"))
        if names:
            source = self._without(names, source, options)
        check_paths_of(source, check_paths)
        self._begin(source, batch_size, options, **more)
        if isinstance(y, ArrayColumn):
            self.class_names = y.class_names

    def _columns_by_input(
        self,
        paths: dict[str, Any],
        by_input: dict[str, dict[str, Any]],
        decode: Decode | None,
        dtype: Any,
    ) -> dict[str, Any]:
        """The columns of inputs with separate image options."""
        kind = type(self)
        if overrides(kind, "load_sample") or overrides(kind, "load_batch"):
            raise ValueError(
                f"size=, interpolation= or channels= is a dict by input, but {kind.__name__} reads files "
                "itself, in load_sample or load_batch: resize images there."
            )
        columns = {}
        for name, own in by_input.items():
            reading, _ = readings(decode, None, dtype=dtype, **own)
            columns[name] = columns_of(paths[name], "paths", FileReader(*reading), dtype=dtype)
        return columns

    # ------------------------------------------------------------------ hooks

    @property
    def paths(self) -> Sequence[str]:
        """The files, a sequence of str; if there are several inputs, those of the first."""
        assert self._source.paths is not None
        return self._source.paths

    @default_hook
    def load_sample(self, path: str) -> Any:  # type: ignore[override]  # a path is this loader's key
        """Read the input of one sample from its file. Override it for your own format.

        With several inputs, it is called for each one that is a file. Several threads call it at
        once. Returns an array, or a tuple or dict of arrays; the loader adds the label. A loader
        without labels may return (x, y). Any exception becomes a SampleError that names the file,
        or is handled according to `on_error`.
        """
        return FileReader(self.image_options, self.decode)(path, None)

    @default_hook
    def load_batch(self, indices: Indices) -> Any:
        """Read the inputs of several samples, for formats that read many at once.

        `self.paths[i]` is the file of sample i. If the loader has labels, they are added;
        without labels a tuple (x, y) may be returned. See `SequenceLoader.load_batch`.
        """
        return super().load_batch(indices)

    # ------------------------------------------------------------------ the source

    def _sourced(self, samples: int | Source, options: LoaderOptions) -> Source:
        assert isinstance(samples, FileSource)
        kind, cache, work = type(self), options.cache, options.work
        source: Source
        columns = samples.columns
        if samples.hooked:
            by_batch = overrides(kind, "load_batch")
            source = hook = PathHookSource(
                self, columns[0], options.transforms.dtype, by_batch=by_batch, base=samples
            )
            if cache.cache not in (None, "auto"):
                check_single_samples(hook, cache, work)
                source = self._with_cache(hook, options)
            if len(columns) > 1:
                (labels,) = self._kept(columns[1:], options)
                source = LabelledSource(source, labels, (columns[0], labels))
        else:
            if cache.cache == "ram" and work.processes:
                check_single_samples(samples, cache, work)
            source = FileSource(self._kept(columns, options), samples.paths, samples.decode)
        return NamedSource(source, self) if overrides(kind, "sample_name") else source

    def _with_cache(self, source: PathHookSource, options: LoaderOptions) -> Source:
        """The results of a hook, with a cache in front of them."""
        cache, folder = options.cache, folder_of(options.cache)
        inputs = flatten(source.inputs)
        paths = [column.paths for column in inputs if isinstance(column, PathColumn)]
        others = [column for column in inputs if not isinstance(column, PathColumn)]
        files = SampleFiles(paths, others, folder=None if folder else "")
        make = functools.partial(leaf_store, place_of(cache), len(source), files)
        made_by = (self.image_options, source.dtype, *decoders())
        key = SampleKey(folder or "", made_by, {"decode=": self.decode}, cache.cache_key)
        return CachedSource(source, HookCache(make, files, None if folder else ""), key.watched)

    def _kept(self, columns: tuple[Any, ...], options: LoaderOptions) -> tuple[Any, ...]:
        """The columns, with caches in front of them if caching is on."""
        cache, folder = options.cache, folder_of(options.cache)
        # Each worker process would cache its own copy in RAM.
        if cache.cache is None or (cache.cache == "auto" and options.work.processes):
            return columns
        # One common folder for all inputs: files with the same name in two folders must differ.
        paths = [c.paths for c in flatten(columns) if isinstance(c, PathColumn)]
        common = common_folder(*paths) if folder else ""

        def kept(column: Column) -> Column:
            read = getattr(column, "read_path", None)
            if not isinstance(column, PathColumn) or not isinstance(read, FileReader):
                return column
            if cache.cache == "auto" and read.decode is not None:  # it may draw random numbers
                return column
            key = None
            if folder is not None:
                facts, functions = (read.options, *decoders()), {"decode=": read.decode}
                key = functools.partial(key_of, folder, facts, functions, cache.cache_key)
            made_by = watched(lambda: [read.decode], key)
            files = SampleFiles([column.paths], folder=common)
            name = made_by.first if folder else ""
            store = store_at(place_of(cache), name, len(column), files)
            store.made_by = made_by
            cached = CachedRemoteColumn if isinstance(column, RemoteColumn) else CachedColumn
            return cached(column, store)

        found: tuple[Any, ...] = map_structure(kept, columns)
        return found

    def _without(self, names: set[str], source: FileSource, options: Options) -> FileSource:
        """The samples, without those that have a file in `names`."""
        samples = len(source)
        files = [c for c in flatten(source.columns) if isinstance(c, PathColumn)]
        keep = np.ones(samples, bool)
        for column in files:
            keep[numbers_of(names, column.paths)] = False
        kept = np.flatnonzero(keep)
        say_left_out(samples - len(kept), samples, names)
        if not len(kept):
            raise ValueError(
                f"exclude= leaves out all {samples:,} samples, so that none is left to load: check "
                "the files that it lists, or leave exclude= out."
            )
        if len(kept) == samples:
            return source
        options["sample_weights"] = taken(options.get("sample_weights"), kept)
        first = next(k for k, c in enumerate(files) if c.paths is source.paths)
        columns = map_structure(lambda column: take_rows(column, kept), source.columns)
        leaves = flatten(columns)
        paths = [c for c in leaves if isinstance(c, PathColumn)][first].paths
        for column in leaves:  # all columns share one block of paths, as before
            if isinstance(column, CallColumn):
                column.paths = paths
        self.included = keep  # callers may have values for all samples
        return FileSource(columns, paths, source.decode, source.hooked)
