"""Loaders from a folder of classes, or from a table. Each function returns (train, validation)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from kloaders.core.checks import Transform
from kloaders.core.messages import inform, visible, warn
from kloaders.core.structure import flatten, map_structure
from kloaders.formats.audio import Audio
from kloaders.formats.files import suffix_of
from kloaders.formats.texts import Text
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.splits import check_validation, made, of_kept, parts_of
from kloaders.places.urls import is_url
from kloaders.sources.columns import OneHotColumn
from kloaders.sources.folders import READABLE, LeftOut, class_folders, files_below
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.remote_folders import RemoteFolder
from kloaders.sources.table_columns import column_weights, inputs_of, outputs_of
from kloaders.sources.tables import Table, listed

__all__ = [
    "from_dataframe",
    "from_directory",
    "one_hot",
    "wanted_suffixes",
]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Both parts are of the class that `loader=` names or returns.
    L = TypeVar("L", bound=SequenceLoader, default=PathSequenceLoader)
    S = TypeVar("S", bound=SequenceLoader)


@overload
def from_directory(
    folder: str | os.PathLike[str],
    *,
    validation: float = 0.2,
    class_names: list[str] | None = None,
    label_mode: Literal["int", "categorical", "binary"] | None = "int",
    extensions: Any = None,
    follow_links: bool = False,
    stratify: bool = True,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, L]: ...
@overload
def from_directory(
    folder: str | os.PathLike[str],
    *,
    validation: None,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, None]: ...
def from_directory(
    folder: str | os.PathLike[str],
    *,
    validation: float | None = 0.2,
    class_names: list[str] | None = None,
    label_mode: Literal["int", "categorical", "binary"] | None = "int",
    extensions: Any = None,
    follow_links: bool = False,
    stratify: bool = True,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]  # mypy: a default binds L
    **options: Any,
) -> tuple[L, Any]:
    """Loaders over a folder that has one folder of files for each class.

    Classes are numbered in the sorted order of their folders' names, and files are in the same
    order, as in `keras.utils.image_dataset_from_directory`. Files in folders inside a class
    belong to the class. Names that begin with a dot are ignored; system folders (`__MACOSX`,
    `@eaDir`), links to folders inside classes, and pipes are left out with a warning.
    `verify(folder)` reads the same files.

    Args:
        folder: contains a folder for each class: `folder/class/file`.
        validation: the share of the files for validation, or their number, as 500; None or 0: none.
        class_names: the folders to take, in the order of their numbers; None for all.
        label_mode: "int" numbers the classes (int32); "categorical" makes one-hot rows, and
            "binary" 0 and 1 for two classes (float32); None: no labels.
        extensions: read only files with these suffixes, such as (".jpg", ".png"). None reads all
            images and arrays, and logs the number of other files; if there are none, it reads audio
            files (.wav, .flac) as stored (`decode=kl.Audio(...)` resamples them and gives them one
            length). If all files are .txt, x is their text, in UTF-8; use `decode=kl.Text(...)` for
            other encodings. With any other `decode=`, or a loader of your own that overrides
            load_sample or load_batch, None reads all files.
        follow_links: read linked folders inside classes. The folder of a class may always be a link.
        stratify: keep the share of every class the same on both sides.
        validation_transform: `transform=` of the validation loader, instead of the training one.
        seed: fixes the split and the order of both loaders.
        batch_size: samples per batch.
        loader: the class of both loaders, or a function that makes one.
        **options: options of `loader`; see `split`. The default here is depth=8, as in Keras: 16-bit
            images are converted to 8 bits like the others; depth=None keeps the stored depth. Do not
            use RamBatchSequenceLoader's draw="windows": neighbouring files are of one class here, and
            a model that sees one class at a time forgets the others.

    Returns:
        (train, validation), or (train, None) without validation. Both have `class_names`, a
        list: `class_names[number]`.

    Raises:
        NotADirectoryError, FileNotFoundError: the folder does not exist.
        ValueError: no folders of classes in it, or no files in these.
    """
    root = os.fspath(folder)
    check_validation(validation, validation_transform)
    if "labels" in options:
        raise TypeError(
            "from_directory() numbers classes by their folders and takes no labels=: choose "
            "label_mode=, or use split(paths, labels)."
        )
    if label_mode not in ("int", "categorical", "binary", None):
        raise ValueError(
            f'label_mode={label_mode!r:.80} is not known: choose "int", "categorical", "binary" or '
            "None."
        )
    remote = RemoteFolder(root) if is_url(root) else None
    names = class_folders(root, class_names) if remote is None else remote.classes(class_names)
    if label_mode == "binary" and len(names) != 2:
        raise ValueError(
            f'label_mode="binary" is for two classes, but {visible(root)} has {len(names)}: '
            f'{listed(names)}. Use "int" or "categorical".'
        )
    wanted = wanted_suffixes(extensions, loader, options)
    if remote is None and wanted is READABLE:
        decode = _decoder_of(root, names, follow_links)
        if decode is not None:
            options["decode"], wanted = decode, frozenset(decode.suffixes)
    paths: Any = []
    counts, left_out = [], LeftOut()
    for name in names:
        before = len(paths)
        if remote is None:
            paths += files_below(os.path.join(root, name), wanted, follow_links, left_out.add)
        else:
            paths += remote.files(name, wanted, left_out.add)
        counts.append(len(paths) - before)
    if left_out.count and extensions is None:
        left_out.tell(root)
    if not paths:
        kinds = " ".join(sorted(wanted)) if wanted else "any suffix"
        raise ValueError(
            f"{visible(root)} has {len(names)} folders of classes ({listed(names)}), but no file of "
            f"{kinds} in them. For your own format pass extensions=(...) and decode=, a "
            "function that takes the bytes of a file."
        )
    for name, count in zip(names, counts, strict=True):
        if not count:
            warn(
                f"class {name!r:.80} has no files in {os.path.join(root, name)}; it keeps its number."
            )
    if remote is not None:
        paths = remote.listed(paths)
    codes = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    labels = {None: None, "binary": codes.astype(np.float32)}.get(label_mode, codes)
    if options.get("decode") is None and _takes_depth(loader):
        options.setdefault("depth", 8)
    whole = made(loader, paths, labels, batch_size, seed=seed, **options)
    if label_mode == "categorical":
        whole = one_hot(whole, len(names))
    whole.class_names = names if class_names is None else list(class_names)
    codes = of_kept(whole, codes)
    found = f"{root}: {whole.samples:,} files of {len(names)} classes"
    if not validation:
        inform(f"{found}, all for training.")
        return whole, None
    by = codes if stratify else None
    train, val = parts_of(whole, validation, by, None, seed, names, validation_transform)
    inform(f"{found}, {train.samples:,} for training and {val.samples:,} for validation.")
    return train, val


@overload
def from_dataframe(
    frame: Any,
    path_column: str | list[Any] | dict[str, Any],
    label_column: str | list[str] | dict[str, Any] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    weight_column: str | dict[str, str] | None = None,
    class_names: list[str] | dict[str, list[str]] | None = None,
    label_mode: Any = None,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, L]: ...
@overload
def from_dataframe(
    frame: Any,
    path_column: str | list[Any] | dict[str, Any],
    label_column: str | list[str] | dict[str, Any] | None = None,
    *,
    validation: None,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, None]: ...
def from_dataframe(
    frame: Any,
    path_column: str | list[Any] | dict[str, Any],
    label_column: str | list[str] | dict[str, Any] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    weight_column: str | dict[str, str] | None = None,
    class_names: list[str] | dict[str, list[str]] | None = None,
    label_mode: Any = None,
    validation: float | None = 0.2,
    stratify: Any = None,
    groups: Any = None,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]  # mypy: a default binds L
    **options: Any,
) -> tuple[L, Any]:
    """Loaders over the files that a table lists.

    Args:
        frame: a pandas or polars DataFrame, a dict of lists, anything else that returns a column for
            `frame[name]`, or the path of a CSV file with a header, or of a Parquet file (needs
            pyarrow). pandas is not required.
        path_column: the column of paths. For several inputs a list of columns (x is a tuple), or a
            dict by input. Texts are paths, numbers are delivered unchanged, and a list of number
            columns inside makes a float32 row: `{"photo": "file", "facts": ["age", "size"]}`.
        label_column: the column of labels. Texts are numbered in sorted order (categorical columns
            in their own order), and their names are in `class_names`. A list of number columns
            makes a float32 row per sample. If each value is a list of texts or of class numbers,
            labels are rows of 0 and 1. For several outputs, a dict of these. None: no labels.
        label_mode: "int" numbers the classes (int32); "categorical" makes one-hot rows, and
            "multi_label" rows of 0 and 1 from lists or from texts such as "a,b" (float32). None
            chooses by the values. For several outputs, a dict.
        folder: where relative paths start; by default the current folder.
        weight_column: the column of sample weights; for several outputs also a dict of columns by
            output, where outputs left out have weight 1.
        class_names: the texts of `label_column` in the order of their numbers; for several outputs
            a dict.
        validation: the share of the rows for validation, or their number, as 500; None or 0: none.
        stratify: keep the share of every class the same on both sides: True, the name of a
            column, or an array. None does so if labels are texts; False splits at random.
        groups: a column, or an array: rows with the same value stay on the same side.
        validation_transform: `transform=` of the validation loader, instead of the training one.
        seed: fixes the split and the order of both loaders.
        batch_size: samples per batch.
        loader: the class of both loaders, or a function that makes one.
        **options: options of `loader`; see `split`.

    Returns:
        (train, validation), or (train, None) without validation. Both have `class_names`, None
        if labels are numbers, and a dict of lists for several outputs.

    Raises:
        ValueError: the column does not exist (the message lists the columns), or a value is missing
            (the message names the row).
    """
    check_validation(validation, validation_transform)
    table = Table(frame)
    # A user's loader may depend on paths being a list.
    packed = _reads_files(loader) and loader.__init__.__module__.startswith("kloaders.")
    inputs = inputs_of(table, path_column, None if folder is None else os.fspath(folder), packed)
    kinds = (list, PackedPaths)
    if _reads_files(loader) and not any(isinstance(one, kinds) for one in flatten(inputs)):
        raise TypeError(
            f"path_column={path_column!r:.80} names no column of paths, but {loader.__name__} reads "
            "files: pass loader=kl.ArraySequenceLoader for a table of numbers."
        )
    outputs: Any = None
    if label_column is not None:
        outputs = outputs_of(table, label_column, class_names, label_mode)
    labels = map_structure(lambda one: one.values, outputs) if outputs else None
    if weight_column is not None:
        options["sample_weights"] = column_weights(table, weight_column, label_column)
    whole = made(loader, inputs, labels, batch_size, seed=seed, **options)
    whole, names = _with_classes(whole, outputs)
    if not validation:
        return whole, None
    if isinstance(groups, str):
        groups = table.column(groups)
    if stratify is None and groups is None:
        stratify = names is not None
    if stratify is True and names is not None:
        return parts_of(
            whole, validation, outputs.values, groups, seed, names, validation_transform
        )
    if isinstance(stratify, str):
        stratify = table.column(stratify)
    return parts_of(whole, validation, stratify, groups, seed, None, validation_transform)


def _reads_files(loader: Any) -> bool:
    return isinstance(loader, type) and issubclass(loader, PathSequenceLoader)


def _with_classes(whole: S, outputs: Any) -> tuple[S, list[str] | None]:
    """The loader with one-hot rows and class names, and the class names for the split."""
    if outputs is None:
        return whole, None
    each = flatten(outputs)
    if any(one.one_hot for one in each):
        whole = one_hot(whole, *(one.one_hot for one in each))
    if isinstance(outputs, dict):
        named = {name: one.names for name, one in outputs.items() if one.names is not None}
        whole.class_names = named or None  # type: ignore[assignment]  # one list per output
        return whole, None
    whole.class_names = outputs.names
    return whole, outputs.names if outputs.values.ndim == 1 else None


def one_hot(whole: S, *classes: int | None) -> S:
    """Convert labels that are class numbers to one-hot rows, made when they are read.

    classes: the number of classes, for each array of the labels; None leaves an array unchanged.
    """
    left = iter(classes)

    def change(labels: Any) -> Any:
        count = next(left)
        return labels if count is None else OneHotColumn(labels, count)

    source = whole.source.with_labels(change)
    if source is None:
        raise ValueError(
            f"{type(whole).__name__} makes its samples in a hook, so that their labels are not known in "
            'advance: pass label_mode="int".'
        )
    return whole.replace(source=source)


def _takes_depth(loader: Any) -> bool:
    """Whether it is a class of loaders of image files that has all their options."""
    if not _reads_files(loader):
        return False
    known = inspect.signature(loader).parameters
    return "depth" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def _decoder_of(root: str, names: list[str], follow_links: bool) -> Audio | Text | None:
    """The decoder for the files, if none of them needs `decode=`.

    Audio files may have text files next to them that describe their content; a text file next to any
    other kind of file is hardly the sample.
    """
    found = set()
    for name in names:
        folder = os.path.join(root, name)
        if os.path.isdir(folder):
            for path in files_below(folder, None, follow_links, special=lambda _: None):
                suffix = suffix_of(path)
                if suffix in READABLE:
                    return None
                found.add(suffix)
    if found & set(Audio.suffixes):
        return Audio()
    return Text() if found and found <= set(Text.suffixes) else None


def wanted_suffixes(extensions: Any, loader: Any, options: dict[str, Any]) -> frozenset[str] | None:
    """The suffixes in lower case; None for any suffix."""
    if extensions is not None:
        given = [extensions] if isinstance(extensions, str) else list(extensions)
        return frozenset("." + text.lower().removeprefix(".") for text in given)
    own = getattr(options.get("decode"), "suffixes", None)
    if own is not None:  # a decoder of this package, such as Audio
        return frozenset(own)
    hooks = ("load_sample", "load_batch")
    hooked = isinstance(loader, type) and any(
        getattr(loader, hook, None) is not getattr(PathSequenceLoader, hook) for hook in hooks
    )
    return None if hooked or options.get("decode") is not None else READABLE
