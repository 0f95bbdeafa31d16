"""Reads files of samples: images and arrays by suffix, or with a user's function."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.meant import meant_by
from kloaders.core.messages import visible
from kloaders.core.places import where_of
from kloaders.core.structure import Structure, as_arrays, cast, flatten, map_structure
from kloaders.formats import by_suffix
from kloaders.formats.files import IMAGE_SUFFIXES, check_plain, check_suffix, read_bytes, suffix_of
from kloaders.formats.npy import row_reader
from kloaders.formats.options import ImageOptions
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import PathColumn, inner_column

__all__ = [
    "Decode",
    "FileReader",
    "FileSource",
    "Reading",
    "check_paths_of",
    "each_input",
    "options_by_input",
    "readings",
    "readings_by_input",
    "takes_empty",
]

# The number of paths that are checked before the first epoch: 0.2 s on a local disk.
_CHECKED = 2000

#: A function that returns the array for a file's bytes.
Decode = Callable[[bytes], Any]
#: How files become arrays: image options, and a user's function that replaces the decoder.
Reading = tuple[ImageOptions, "Decode | None"]


class FileSource(ColumnSource):
    """Samples with arrays that are each read from one file.

    Args:
        columns: (x,) or (x, y), nested.
        paths: the files of the first input that is read from files.
        decode: whether a user's function decodes the files.
        hooked: whether a user's hook reads the files.
    """

    def __init__(
        self, columns: tuple[Any, ...], paths: Any, decode: bool = False, hooked: bool = False
    ) -> None:
        super().__init__(columns, paths)
        self.decode, self.hooked = decode, hooked

    def name(self, index: int) -> str:
        assert self.paths is not None
        return self.paths[index]

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        hook = "decode=" if self.decode else "load_sample()"
        suffix = suffix_of(self.name(index))
        image = not self.decode and not self.hooked and suffix in IMAGE_SUFFIXES
        if image and dtype_differs:
            read = getattr(inner_column(self._leaves[leaf]), "read_path", None)
            deep = isinstance(read, FileReader) and read.options.depth is None
            first = (
                "Pass depth=8, which brings images of 16 bits to 8, or scale" if deep else "Scale"
            )
            return (
                f"{first} them in load_sample(): dtype= alone does not scale, and one image would be many "
                "times as bright as the other."
            )
        if dtype_differs:
            return f"Pass dtype=, or convert in {hook}."
        if image:
            return "Pass size=(height, width), resize in load_sample(), or pad: kl.padded_batches(loader)."
        return (
            f"Convert them to one shape in {hook} or transform=, or use kl.padded_batches(loader)."
        )


def check_paths_of(source: FileSource, check_paths: bool | str) -> None:
    """Check before the first epoch that files exist and have a known suffix.

    Raises:
        FileNotFoundError, IsADirectoryError: a path is not a file; the message names it.
        ValueError: a suffix is unknown.
    """
    if check_paths not in (True, False, "sample"):
        raise ValueError(f'check_paths={check_paths!r:.80}: choose "sample", True or False.')
    own = not source.decode and not source.hooked
    for column in flatten(source.columns):
        if isinstance(column, PathColumn) and len(column):
            count = len(column) if check_paths is True else min(len(column), _CHECKED)
            # Spread over all paths: the first few are rarely the wrong ones.
            looked = np.unique(np.linspace(0, len(column) - 1, count).astype(np.int64))
            files = [column.paths[k] for k in looked.tolist()]
            if check_paths and hasattr(column, "check_objects"):
                column.check_objects(check_paths is True)
            elif check_paths:
                _check_files(files, len(column))
            by_suffix_too = own
            if column.paths is not source.paths and isinstance(column.read_path, FileReader):
                by_suffix_too = column.read_path.decode is None
            for file in files if by_suffix_too else ():
                check_suffix(file)


def readings(
    decode: Any,
    label_options: Any,
    meant: str = "images that are read by their suffix, but decode= reads these files instead",
    **images: Any,
) -> tuple[Reading, Reading]:
    """Check the options for reading input files and label files.

    images: fields of `ImageOptions`. meant: what these are for, for the error if `decode` is set.
    """
    given = ImageOptions(**images)
    if decode is not None:
        _check_decode(decode)
        _refuse_image_options(given, meant)
    masks: dict[str, Any] = {"size": given.size, "interpolation": "nearest", "channels": None}
    masks |= {"max_pixels": given.max_pixels, "max_bytes": given.max_bytes}
    masks |= {**_checked_label_options(label_options)}
    masks.setdefault("aspect", "stretch" if masks["size"] is None else given.aspect)
    decode_label = masks.pop("decode", None)
    return (given, decode), (ImageOptions(**masks), decode_label)


def options_by_input(
    inputs: Any, part: str = "paths", **images: Any
) -> dict[Any, dict[str, Any]] | None:
    """Image options for each input, if an option is a dict by input; None if none is.

    Args:
        inputs: the user's argument, a dict if there are several inputs.
        part: the name of that argument.
        images: fields of `ImageOptions`. Inputs missing from a dict get the default.

    Raises:
        TypeError: the inputs have no names.
        ValueError: a dict names an unknown input, or is empty.
    """
    given = {name: value for name, value in images.items() if isinstance(value, dict)}
    for name, value in given.items():
        if not isinstance(inputs, dict):
            raise TypeError(
                f"{name}={value!r:.80} is a dict by input, but {part} is a {type(inputs).__name__}: pass "
                f'{part} as a dict, such as {{"a": ..., "b": ...}}, or one value for all inputs.'
            )
        wrong = next((key for key in value if key not in inputs), None)
        if wrong is not None or not value:
            raise ValueError(
                f"{name}={value!r:.80} names {wrong!r:.80}, expected some of the inputs: "
                f"{', '.join(map(repr, inputs)):.200}."
            )
    default = {field.name: field.default for field in dataclasses.fields(ImageOptions)}
    return (
        {
            key: {
                name: value.get(key, default[name]) if name in given else value
                for name, value in images.items()
            }
            for key in inputs
        }
        if given
        else None
    )


def readings_by_input(
    inputs: Any, part: str, decode: Any, label_options: Any, **images: Any
) -> tuple[dict[Any, ImageOptions], Reading, dict[Any, dict[str, Any]] | None]:
    """Check the options for reading inputs and labels that are values of a record or row.

    Args:
        inputs: the values of the inputs, a dict if there are several inputs.
        part: the name of that argument.
        decode: a user's function of the bytes of an input, or None.
        label_options: how labels are read if not like the inputs, or None.
        images: fields of `ImageOptions`; size, interpolation and channels may be dicts by input.

    Returns:
        The image options by input (under the key None if all are the same); how labels are read; and
        the result of `options_by_input`.
    """
    by_input = options_by_input(inputs, part, **images)
    if isinstance(images["size"], dict) and isinstance(label_options or {}, dict):
        # It is unclear which size the labels would have: keep them as stored by default.
        label_options = {"size": None, **(label_options or {})}
    meant = "images that this loader decodes, but decode= replaces its decoder"
    found: dict[Any, ImageOptions] = {}
    for name, own in ({None: images} if by_input is None else by_input).items():
        (found[name], _), labels = readings(decode, label_options, meant, **own)
    return found, labels, by_input


def each_input(
    make: Callable[[Any, ImageOptions], Any],
    inputs: Structure,
    options: ImageOptions | dict[Any, ImageOptions],
) -> Structure:
    """Call `make` with each part of the inputs and its options; `options` may be a dict by input."""
    if isinstance(options, dict) and None in options:
        options = options[None]
    if isinstance(options, dict):
        return {name: each_input(make, part, options[name]) for name, part in inputs.items()}
    same = options
    return map_structure(lambda part: make(part, same), inputs)


def _check_decode(decode: Any) -> None:
    if not callable(decode):
        raise TypeError(f"decode={decode!r:.80} is not a function of a file's bytes.")


def _checked_label_options(options: Any) -> dict[str, Any]:
    known = [*(field.name for field in dataclasses.fields(ImageOptions)), "decode"]
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise TypeError(
            f"label_options={options!r:.80}, expected a dict of image options: {', '.join(known)}."
        )
    unknown = [name for name in options if name not in known]
    if unknown:
        meant = meant_by(str(unknown[0]), known) or f"they are {', '.join(known)}."
        raise TypeError(
            f"label_options has {unknown[0]!r:.80}, which is not an image option: {meant}"
        )
    return options


def _refuse_image_options(given: ImageOptions, meant: str) -> None:
    """Raise ValueError if an image option is set although `decode` makes the arrays."""
    for field in dataclasses.fields(ImageOptions):
        value = getattr(given, field.name)
        if value != field.default and field.name not in ("dtype", "max_pixels", "max_bytes"):
            raise ValueError(
                f"{field.name}={value!r:.80} is for {meant}: do it in that function, and leave it out here."
            )


def _check_files(files: list[str], total: int) -> None:
    missing = []
    for file in files:
        try:
            mode = os.stat(file).st_mode
        except OSError:
            missing.append(file)
            continue
        check_plain(mode, file)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(
                f"{visible(file)} is a folder, expected a file: list its files, or use "
                "from_directory(folder)."
            )
    if missing:
        others = len(missing) - 1
        of = f"checked {len(files):,}" + (f" of {total:,}" if total > len(files) else "")
        more = f" ({of})"
        if others:
            more = f", and {others:,} other{'s do' if others > 1 else ' does'} not either ({of})"
        raise FileNotFoundError(
            f"{visible(missing[0])} does not exist{more}. {where_of(missing[0])} "
            "check_paths=False skips this check."
        )


def takes_empty(decode: Any) -> bool:
    """Whether a decoder accepts an empty file as a sample, as `Text` does."""
    return bool(getattr(decode, "takes_empty", False))


class FileReader:
    """Reads one file into a row. It is pickled with the loader."""

    def __init__(self, options: ImageOptions, decode: Decode | None) -> None:
        self.options = options
        self.decode = decode

    def __call__(self, path: str, out: Array | None) -> Any:
        if self.decode is None:
            got = by_suffix.read_sample(path, self.options, out)
        else:
            got = as_arrays(self.decode(read_bytes(path, takes_empty(self.decode))))
        dtype = self.options.dtype
        return got if dtype is None or got is out else cast(got, dtype)

    def for_rows(self, out: Array) -> Callable[[str, Array], Any]:
        """A reader for rows of this array, for one thread; faster for small arrays."""
        return (row_reader(out, self) if self.decode is None else None) or self
