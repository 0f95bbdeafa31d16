"""Loaders over files, one a sample."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kloaders.core.structure import Structure, flatten, map_structure
from kloaders.formats import by_suffix
from kloaders.formats.files import IMAGE_SUFFIXES, check_suffix, read_bytes, suffix_of
from kloaders.formats.options import ImageOptions
from kloaders.loaders.sequence import (
    Options,
    SequenceLoader,
    _arrays,
    _columns_checked,
    check_names,
)
from kloaders.sources.cache.columns import CachedColumn, HookCache, leaf_store, store_at
from kloaders.sources.cache.folder import key_of
from kloaders.sources.columns import CallColumn, Column, PathColumn, columns_of, taken
from kloaders.sources.quarantine import excluded, numbers_of, say_left_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "PathOptions",
    "PathSequenceLoader",
    "readings",
]

# How many paths are looked at before the first epoch: 0.2 s on a local disk.
_CHECKED = 2000

Decode = Callable[[bytes], Any]
# How files become arrays: options of pictures, and a user's function that does it instead.
Reading = tuple[ImageOptions, "Decode | None"]


class PathOptions(Options, total=False):
    """The options of loaders over files; see `PathSequenceLoader`."""

    size: tuple[int, int] | None
    interpolation: str
    aspect: str
    channels: int | None
    rescale: float | None
    dct_scaling: bool
    max_pixels: int
    decode: Decode | None
    label_options: dict[str, Any] | None
    check_paths: bool | str
    exclude: Any


class PathSequenceLoader(SequenceLoader):
    """Batches read from files, one file a sample.

    JPEG, PNG, BMP, WebP, TIFF, GIF (first frame), .npy and .npz are read by their suffix. For
    anything else give `decode=`, or override `load_sample(path)` or `load_batch(indices)`.

    Args:
        paths: files, as str or pathlib.Path. A tuple or dict of these, and of arrays, makes
            several inputs.
        labels: one for each path: integers, floats, one-hot rows, an array a sample; paths again
            (a mask beside an image); a tuple or dict of these; or a function of the path. None
            for none.
        batch_size: samples a batch.
        size: (height, width) to which images are resized; None keeps them as they are.
        interpolation: "bilinear", "nearest", "bicubic", "area" or "lanczos", as OpenCV has them; or
            "pillow-bilinear", "pillow-bicubic", "pillow-lanczos", "pillow-hamming" or "pillow-box",
            which need Pillow and average, as "area" does, where pictures get smaller.
        aspect: "stretch" distorts pictures whose sides are not in the ratio of `size`; "crop" takes
            the largest part of that ratio from the middle; "pad" puts zeros on both sides.
        channels: 3 (RGB), 1 (grey), 4 (RGBA), or None for what the file has.
        rescale: multiply images by this, as Keras' Rescaling does; float32. Arrays from .npy and
            .npz stay as they are.
        dct_scaling: decode JPEGs at 1/2, 1/4 or 1/8 of their size where that is still as large as
            `size`. 1.2 to 1.4 times as fast for pictures twice as large, and slightly other
            pixels: 5.8 levels of 255 on average with "bilinear", 2.4 with "area", which then is
            the smoother of the two.
        max_pixels: images with more than this are refused before they are decoded.
        decode: a function of a file's bytes that gives its array, instead of the suffix's. Labels
            that are paths have their own, in label_options.
        label_options: these image options, or decode, for labels that are paths; by default those
            of the inputs' size, as many channels as stored, and "nearest", which invents no class.
        check_paths: "sample" looks at up to 2,000 paths, True at all, False at none.
        exclude: leave out the samples with a file that this CSV file lists in its column `path`,
            as `quarantine=` and `kloaders verify --csv` write it; or a list of such files.
            Labels and sample_weights are given for all. It may be the file that `quarantine=`
            names, and not be there yet: then each run leaves out what the ones before it met.
        **options: see `SequenceLoader`. dtype=None keeps the uint8 of images, and the uint16 of
            16-bit ones.

    Raises:
        FileNotFoundError: a path does not exist; names it, and says how many others.
        IsADirectoryError: a path is a folder.
        ValueError: a suffix without a decoder, lengths that differ, string labels.

    >>> PathSequenceLoader(["a.xyz"], check_paths=False)
    Traceback (most recent call last):
        ...
    ValueError: a.xyz ends in '.xyz', and the suffixes known are .bmp ...
    """

    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int = 32,
        *,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        aspect: str = "stretch",
        channels: int | None = 3,
        rescale: float | None = None,
        dct_scaling: bool = False,
        max_pixels: int = ImageOptions.max_pixels,
        decode: Decode | None = None,
        label_options: dict[str, Any] | None = None,
        check_paths: bool | str = "sample",
        exclude: Any = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(self, options, PathOptions.__annotations__)
        images, masks = readings(
            decode,
            label_options,
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
        read = _Read(*images)
        x = columns_of(paths, "paths", read, dtype=self.image_options.dtype)
        store = next((c.paths for c in flatten(x) if isinstance(c, PathColumn)), None)
        y = None
        if labels is not None:
            y = columns_of(labels, "labels", _Read(*masks), store)
        if label_options and not any(isinstance(c, PathColumn) for c in flatten(y or ())):
            raise ValueError(
                "label_options are for labels that are files, and there are none: leave them out."
            )
        self._parts, samples = _columns_checked(self, x, y, ("paths", "labels"))
        if store is None:
            raise TypeError(
                "paths holds no path of a file, expected str or pathlib.Path. For arrays use "
                "ArraySequenceLoader."
            )
        #: The files, a sequence of str; of the first input where there are several.
        self.paths = store
        self._included: np.ndarray[Any, np.dtype[np.bool_]] | None = None
        names = excluded(exclude, options.get("quarantine"))
        if names:
            samples = self._leave_out(names, samples, options)
        self._hooked = self._is_hooked()
        self._check(check_paths)
        super().__init__(samples, batch_size, **options)

    # ------------------------------------------------------------------ hooks

    def load_sample(self, path: str) -> Any:  # type: ignore[override]
        """The input of one sample from its file. Override it for a format of your own.

        Where there are several inputs, it is called for each one that is a file. Called from several threads at once. Returns an array, or a tuple or dict of arrays; the
        label is added by the loader. Whatever is raised becomes a SampleError that names the
        file, or is dealt with as `on_error` says.
        """
        return _Read(self.image_options, self.decode)(path, None)

    def load_batch(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        """The inputs of several samples, for formats that read many at once.

        `self.paths[i]` is the file of sample i. Labels, where the loader has some, are added;
        without labels a tuple (x, y) may be returned. See `SequenceLoader.load_batch`.
        """
        return super().load_batch(indices)

    # ------------------------------------------------------------------ samples

    def _columns(self) -> tuple[Any, ...] | None:
        return self._parts

    def _is_hooked(self) -> bool:
        kind = type(self)
        return (
            kind.load_sample is not PathSequenceLoader.load_sample
            or kind.load_batch is not PathSequenceLoader.load_batch
        )

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(PathSequenceLoader, hook)

    def _runs_users_code(self) -> bool:
        return self.decode is not None or super()._runs_users_code()

    def _sample(self, index: int) -> tuple[Any, ...]:
        if not self._overrides("load_sample") or self._overrides("load_batch"):
            return super()._sample(index)

        def load() -> tuple[Any, ...]:
            return self._from_hook(self._hooked_input(index))

        parts = load() if self._hook_cache is None else self._hook_cache.remember(index, load)
        return parts if len(self._parts) == 1 else (*parts, self._label(index))

    def _hooked_input(self, index: int) -> Any:
        """What load_sample gives for a sample: for each of its files, where it has several."""
        if not isinstance(self._parts[0], (tuple, dict)):
            return self.load_sample(self.paths[index])

        def value(column: Column) -> Any:
            if isinstance(column, PathColumn):
                return self.load_sample(column.paths[index])
            return column.read(index)

        return map_structure(value, self._parts[0])

    def _label(self, index: int) -> Structure:
        return map_structure(lambda column: column.read(index), self._parts[1])

    def _from_hook(self, loaded: Any) -> tuple[Any, ...]:
        x = _arrays(loaded)
        several = isinstance(self._parts[0], (tuple, dict))
        whole = len(self._parts) == 1 and not several and isinstance(x, tuple) and len(x) == 2
        return self._cast(x if whole else (x,))

    def _batch_parts(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Any, ...]:
        parts = self._from_hook(self.load_batch(indices))
        if len(self._parts) == 1:
            return parts
        labels = [self._label(index) for index in indices.tolist()]
        return *parts, map_structure(lambda *values: np.stack(values), *labels)

    def _fill(self, indices: Any, out: Any, epoch: Any, draw: Any, raw: Any, report: Any) -> None:
        plain = self.transform is None or raw
        if plain and self._overrides("load_sample") and not self._overrides("load_batch"):
            for row, index in enumerate(indices.tolist()):
                try:
                    self._place(self._sample(index), self.raw_spec, out, row, report)
                except Exception as error:  # whatever a user's hook raises
                    report(row, error)
        else:
            super()._fill(indices, out, epoch, draw, raw, report)

    def _begin_cache(self) -> None:
        if self.cache is None:
            return
        if self._hooked and self.cache != "auto":
            self._check_hook_cache()
            kind = type(self)
            key = key_of(kind.__qualname__, kind.load_sample, self.image_options, cv2.__version__)
            make = functools.partial(leaf_store, self._cache_place(), key, self.samples, self.paths)
            self._hook_cache = HookCache(make, self.paths)
        # Worker processes would keep what they read in RAM each for itself.
        if self.cache == "ram" and self.processes:
            self._check_hook_cache()
        if self.cache != "auto" or not self.processes:
            hooked = self._parts[:1] if self._hooked else ()  # the hook reads these files
            rest = self._parts[len(hooked) :]
            self._parts = (*hooked, *(map_structure(self._kept, part) for part in rest))

    def _kept(self, column: Column) -> Column:
        """A column with a store in front of it, if there is to be one."""
        read = getattr(column, "read_path", None)
        if not isinstance(column, PathColumn) or not isinstance(read, _Read):
            return column
        if self.cache == "auto" and read.decode is not None:  # it may draw random numbers
            return column
        key = key_of(read.options, read.decode, cv2.__version__)
        store = store_at(self._cache_place(), key, len(column), column.paths)
        return CachedColumn(column, store)

    def _name(self, index: int) -> str:
        return self.paths[index]

    def _shape_advice(self, index: int, dtype_differs: bool) -> str:
        hook = "load_sample()" if self.decode is None else "decode="
        if dtype_differs:
            return f"Pass dtype=, or convert in {hook}."
        suffix = suffix_of(self.paths[index])
        if self.decode is None and not self._hooked and suffix in IMAGE_SUFFIXES:
            return "Pass size=(height, width), or resize in load_sample()."
        return f"Bring them to one shape in {hook} or in transform=."

    # ------------------------------------------------------------------ checks

    def _leave_out(self, names: set[str], samples: int, options: Options) -> int:
        """Do without samples with a file among `names`; how many are left."""
        files = [c for c in flatten(self._parts) if isinstance(c, PathColumn)]
        keep = np.ones(samples, bool)
        for column in files:
            keep[numbers_of(names, column.paths)] = False
        kept = np.flatnonzero(keep)
        say_left_out(samples - len(kept), samples, names)
        if not len(kept):
            raise ValueError(
                f"exclude= leaves out all {samples:,} samples, so that none is left to load: look "
                "at what it lists, or leave it out."
            )
        if len(kept) < samples:
            weights = options.get("sample_weights")
            if weights is not None and np.shape(weights)[:1] == (samples,):
                options["sample_weights"] = np.asarray(weights)[kept]
            first = next(k for k, c in enumerate(files) if c.paths is self.paths)
            self._parts = map_structure(lambda column: taken(column, kept), self._parts)
            columns = flatten(self._parts)
            self.paths = [c for c in columns if isinstance(c, PathColumn)][first].paths
            for column in columns:  # one block of paths, as before
                if isinstance(column, CallColumn):
                    column.paths = self.paths
            self._included = keep  # front doors have values of all samples in hand
        return len(kept)

    def _check(self, check_paths: bool | str) -> None:
        if check_paths not in (True, False, "sample"):
            raise ValueError(f'check_paths={check_paths!r}: choose "sample", True or False.')
        own = self.decode is None and not self._hooked
        for column in flatten(self._parts):
            if isinstance(column, PathColumn) and len(column):
                count = len(column) if check_paths is True else min(len(column), _CHECKED)
                # Spread over all: the first few are rarely the ones that are wrong.
                looked = np.unique(np.linspace(0, len(column) - 1, count).astype(np.int64))
                files = [column.paths[k] for k in looked.tolist()]
                if check_paths:
                    _check_files(files, len(column))
                by_suffix = own
                if column.paths is not self.paths and isinstance(column.read_path, _Read):
                    by_suffix = column.read_path.decode is None
                for file in files if by_suffix else ():
                    check_suffix(file)


def readings(
    decode: Any,
    label_options: Any,
    meant: str = "pictures that are read by their suffix, and decode= reads these files instead",
    **images: Any,
) -> tuple[Reading, Reading]:
    """How the files of inputs and those of labels are read, of the user's words, checked.

    images: fields of `ImageOptions`. meant: what these are for, where `decode` makes the arrays.
    """
    given = ImageOptions(**images)
    if decode is not None:
        _check_decode(decode)
        _refuse_image_options(given, meant)
    masks: dict[str, Any] = {"size": given.size, "interpolation": "nearest", "channels": None}
    masks |= {"max_pixels": given.max_pixels, **_checked_label_options(label_options)}
    masks.setdefault("aspect", "stretch" if masks["size"] is None else given.aspect)
    decode_label = masks.pop("decode", None)
    return (given, decode), (ImageOptions(**masks), decode_label)


def _check_decode(decode: Any) -> None:
    if not callable(decode):
        raise TypeError(f"decode={decode!r} is not a function of a file's bytes.")


def _checked_label_options(options: Any) -> dict[str, Any]:
    known = [*(field.name for field in dataclasses.fields(ImageOptions)), "decode"]
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise TypeError(
            f"label_options={options!r}, expected a dict of options of images: {', '.join(known)}."
        )
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"label_options has {unknown[0]!r}, which is no option of images: {', '.join(known)}."
        )
    return options


def _refuse_image_options(given: ImageOptions, meant: str) -> None:
    """ValueError for an option of pictures where `decode` makes the arrays."""
    for field in dataclasses.fields(ImageOptions):
        value = getattr(given, field.name)
        if value != field.default and field.name not in ("dtype", "max_pixels"):
            raise ValueError(
                f"{field.name}={value!r} is for {meant}: do it in there, and leave it out here."
            )


def _check_files(files: list[str], total: int) -> None:
    missing = []
    for file in files:
        try:
            mode = os.stat(file).st_mode
        except OSError:
            missing.append(file)
            continue
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(
                f"{file} is a folder, expected a file: list its files, or use "
                "from_directory(folder)."
            )
    if missing:
        others = len(missing) - 1
        of = f"{len(files):,} looked at" + (f" of {total:,}" if total > len(files) else "")
        more = f" ({of})"
        if others:
            more = f", and {others:,} other{'s do' if others > 1 else ' does'} not either ({of})"
        raise FileNotFoundError(
            f"{missing[0]} does not exist{more}. Relative paths start at {os.getcwd()}; "
            "check_paths=False leaves this check out."
        )


class _Read:
    """Reads one file into a row; pickles with the loader."""

    def __init__(self, options: ImageOptions, decode: Decode | None) -> None:
        self.options = options
        self.decode = decode

    def __call__(self, path: str, out: np.ndarray[Any, Any] | None) -> Any:
        if self.decode is None:
            got = by_suffix.read_sample(path, self.options, out)
        else:
            got = _arrays(self.decode(read_bytes(path)))
        dtype = self.options.dtype
        if dtype is None or got is out:
            return got
        return map_structure(lambda a: a.astype(dtype, copy=False), got)
