"""The usual ways in: a folder of classes, a table, a split. Each gives (train, validation)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.messages import say
from kloaders.core.structure import flatten
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.subsets import part
from kloaders.sources.columns import OneHotColumn
from kloaders.sources.folders import READABLE, LeftOut, class_folders, files_below
from kloaders.sources.labels import classes_of, codes_of
from kloaders.sources.tables import Table, array_of, listed

__all__ = [
    "from_dataframe",
    "from_directory",
    "one_hot",
    "sides",
    "split",
]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Both parts are of the class that `loader=` names, or makes.
    L = TypeVar("L", bound=SequenceLoader, default=PathSequenceLoader)
    S = TypeVar("S", bound=SequenceLoader)


@overload
def split(
    paths: S,
    *,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    seed: int | None = None,
) -> tuple[S, S]: ...
@overload
def split(
    paths: Any,
    labels: Any = None,
    batch_size: int | None = None,
    *,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    seed: int | None = None,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, L]: ...
def split(
    paths: Any,
    labels: Any = None,
    batch_size: int | None = None,
    *,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    seed: int | None = None,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]
    **options: Any,
) -> tuple[L, L]:
    """Two loaders over the same data: one to train on, one to validate with.

    Both share one store: paths, labels and arrays are there once. Each sample is in one of the
    two, in storage order, and scikit-learn draws which.

    Args:
        paths: what `loader` takes as its first argument; or a loader that is made already, and
            then no labels, batch_size or options.
        labels: as `loader` takes them.
        batch_size: samples a batch; 32.
        validation: the share of the samples (with `groups`: of the groups) to validate with.
        stratify: True keeps the share of every class the same on both sides; an array of one
            class a sample does so for labels that are not classes. None draws at random.
        groups: one value a sample; samples of one value stay together (patients, videos).
        seed: fixes the split, and the order of both loaders unless a ready-made loader is given.
        loader: the class of both loaders, or a function that makes one.
        **options: of `loader`. What is for training only stays there: the validation loader has
            no transform, is not shuffled, and serves every sample, the short last batch too. A
            `ram_budget` is for both together.

    Returns:
        (train, validation)

    Raises:
        ValueError: a side would be empty, a class has a single sample, lengths differ.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> train, validation = split(
    ...     np.arange(10), np.arange(10) % 2, 4, stratify=True, seed=1, loader=ArraySequenceLoader
    ... )
    >>> train.samples, validation.samples, sorted(validation[0][1].tolist())
    (8, 2, [0, 1])
    """
    if isinstance(paths, SequenceLoader):
        given = {"labels": labels, "batch_size": batch_size, **options}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise TypeError(
                f"split() got a loader, and {', '.join(extra)} with it: give these to "
                f"{type(paths).__name__}() itself."
            )
        whole: Any = paths
    else:
        size = 32 if batch_size is None else batch_size
        whole = _made(loader, paths, labels, size, seed=seed, **options)
    return _split(whole, validation, stratify, groups, seed)


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
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]
    **options: Any,
) -> tuple[L, Any]:
    """Loaders over a folder that has one folder of files for each class.

    Classes are numbered in the sorted order of their folders' names, and files are in the same
    order, as `keras.utils.image_dataset_from_directory` has them. Files in folders inside a
    class belong to the class. Names that begin with a dot are left out.

    Args:
        folder: holds `class/file`.
        validation: the share of the files to validate with; None or 0: none.
        class_names: the folders to take, in the order of their numbers; None for all.
        label_mode: "int" numbers classes (int32); "categorical" makes one-hot rows and "binary"
            0 and 1 of two classes (float32); None leaves labels out.
        extensions: take files with these suffixes only, such as (".jpg", ".png"). None takes
            those that can be read, and says how many others there were; all of them with
            `decode=`, or with a loader of your own that overrides load_sample or load_batch.
        follow_links: look into links to folders, inside classes. A class may be a link anyway.
        stratify: keep the share of every class the same on both sides.
        seed: fixes the split and the order of both loaders.
        batch_size: samples a batch.
        loader: the class of both loaders, or a function that makes one.
        **options: of `loader`; see `split`. Not RamBatchSequenceLoader's draw="windows": runs of
            neighbouring files are of one class here, and a model that sees one class at a time
            forgets the others.

    Returns:
        (train, validation), or (train, None) without validation. Both have `class_names`, a
        list: `class_names[number]`.

    Raises:
        NotADirectoryError, FileNotFoundError: no such folder.
        ValueError: no folders of classes in it, or no files in these.
    """
    root = os.fspath(folder)
    if "labels" in options:
        raise TypeError(
            "from_directory() numbers classes by their folders and takes no labels=: choose "
            "label_mode=, or use split(paths, labels)."
        )
    if label_mode not in ("int", "categorical", "binary", None):
        raise ValueError(
            f'label_mode={label_mode!r} is not known: choose "int", "categorical", "binary" or '
            "None."
        )
    names = class_folders(root, class_names)
    if label_mode == "binary" and len(names) != 2:
        raise ValueError(
            f'label_mode="binary" is for two classes, {root} has {len(names)}: '
            f'{listed(names)}. Use "int" or "categorical".'
        )
    wanted = _wanted_suffixes(extensions, loader, options)
    paths: list[str] = []
    counts, left_out = [], LeftOut()
    for name in names:
        before = len(paths)
        paths += files_below(os.path.join(root, name), wanted, follow_links, left_out.add)
        counts.append(len(paths) - before)
    if left_out.count and extensions is None:
        left_out.tell(root)
    if not paths:
        kinds = " ".join(sorted(wanted)) if wanted else "any suffix"
        raise ValueError(
            f"{root} has {len(names)} folders of classes ({listed(names)}), but no file of "
            f"{kinds} in them. Give extensions=(...) and decode=, a function of a file's bytes, "
            "for a format of your own."
        )
    for name, count in zip(names, counts, strict=True):
        if not count:
            say(f"class {name!r} has no files in {os.path.join(root, name)}; it keeps its number.")
    codes = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    labels = {None: None, "binary": codes.astype(np.float32)}.get(label_mode, codes)
    whole = _made(loader, paths, labels, batch_size, seed=seed, **options)
    if label_mode == "categorical":
        whole = one_hot(whole, len(names))
    whole.class_names = names
    codes = _of_kept(whole, codes)
    found = f"{root}: {whole.samples:,} files of {len(names)} classes"
    if not validation:
        say(f"{found}, all for training.")
        return whole, None
    train, val = _split(whole, validation, codes if stratify else None, None, seed, names)
    say(f"{found}, {train.samples:,} for training and {val.samples:,} for validation.")
    return train, val


@overload
def from_dataframe(
    frame: Any,
    path_column: str,
    label_column: str | list[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    weight_column: str | None = None,
    class_names: list[str] | None = None,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, L]: ...
@overload
def from_dataframe(
    frame: Any,
    path_column: str,
    label_column: str | list[str] | None = None,
    *,
    validation: None,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, None]: ...
def from_dataframe(
    frame: Any,
    path_column: str,
    label_column: str | list[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    weight_column: str | None = None,
    class_names: list[str] | None = None,
    validation: float | None = 0.2,
    stratify: Any = None,
    groups: Any = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]
    **options: Any,
) -> tuple[L, Any]:
    """Loaders over the files that a table lists.

    Args:
        frame: a pandas or polars DataFrame, a dict of lists, whatever else gives a column for
            `frame[name]`, or the path of a CSV file with a header. pandas is not needed.
        path_column: the column of paths.
        label_column: of labels. Texts are numbered in sorted order, and their names kept in
            `class_names`. A list of columns of numbers gives a float32 row a sample. None: no
            labels.
        folder: where relative paths start; by default the current folder.
        weight_column: of sample weights.
        class_names: the texts of `label_column` in the order of their numbers.
        validation: the share of the rows to validate with; None or 0: none.
        stratify: keep the share of every class the same on both sides: True, the name of a
            column, or an array. None does so where labels are texts; False draws at random.
        groups: a column, or an array: rows of one value stay on one side.
        seed: fixes the split and the order of both loaders.
        batch_size: samples a batch.
        loader: the class of both loaders, or a function that makes one.
        **options: of `loader`; see `split`.

    Returns:
        (train, validation), or (train, None) without validation. Both have `class_names`, None
        where labels are numbers.

    Raises:
        ValueError: a column is not there (names those that are), or a value is missing (names
            the row).
    """
    table = Table(frame)
    paths = table.paths(path_column, None if folder is None else os.fspath(folder))
    labels, names = None, None
    if isinstance(label_column, (list, tuple)):
        if not label_column:
            raise ValueError("label_column is an empty list: name columns, or None for no labels.")
        columns = [table.numbers(column) for column in label_column]
        labels = np.stack(columns, axis=1).astype(np.float32)
    elif label_column is not None:
        labels, names = table.labels(label_column, class_names)
    if weight_column is not None:
        options["sample_weights"] = table.numbers(weight_column)
    whole = _made(loader, paths, labels, batch_size, seed=seed, **options)
    whole.class_names = names
    if not validation:
        return whole, None
    if isinstance(groups, str):
        groups = table.column(groups)
    if stratify is None and groups is None:
        stratify = names is not None
    if stratify is True and names is not None:
        return _split(whole, validation, labels, groups, seed, names)
    if isinstance(stratify, str):
        stratify = table.column(stratify)
    return _split(whole, validation, stratify, groups, seed)


# --------------------------------------------------------------------------------------- splitting


def _made(make: Callable[..., S], *data: Any, **options: Any) -> S:
    if not callable(make):
        raise TypeError(
            f"loader={make!r} makes no loaders, expected a class such as "
            "loader=RamBatchSequenceLoader. A ready-made one goes first: split(loader)."
        )
    whole = make(*data, **options)
    if not isinstance(whole, SequenceLoader):
        raise TypeError(
            f"loader={make!r} gave a {type(whole).__name__}, expected a loader such as "
            "loader=RamBatchSequenceLoader."
        )
    return whole


def _of_kept(whole: SequenceLoader, values: Any) -> Any:
    """Values given for all samples, of those that `exclude` left in `whole`."""
    kept = getattr(whole, "included", None)
    if kept is None or values is None or isinstance(values, bool):
        return values
    array = array_of(values)
    return array[kept] if array.shape[:1] == kept.shape else values


def _split(
    whole: S,
    validation: float,
    stratify: Any,
    groups: Any,
    seed: int | None,
    names: list[str] | None = None,
) -> tuple[S, S]:
    """Both parts, loaders over one store."""
    stratify, groups = _of_kept(whole, stratify), _of_kept(whole, groups)
    first, second = sides(whole, validation, stratify, groups, seed, names)
    train, validation_part = part(whole, first, "training"), part(whole, second, "validation")
    _warn_where_parts_differ(train, validation_part)
    return train, validation_part


def _warn_where_parts_differ(train: SequenceLoader, validation: SequenceLoader) -> None:
    """Log where what is for training only changes shapes or dtypes, which a model would notice late."""
    if train.transform is None and train.batch_transform is None:
        return
    try:
        forms = train.runner.row_spec, validation.runner.row_spec
    except Exception:
        return
    if forms[0] == forms[1]:
        return
    said = [", ".join(f"{s.dtype}{list(s.shape)}" for s in flatten(form)) for form in forms]
    say(
        f"the training part delivers {said[0]}, and the validation part {said[1]}: transform= and "
        "batch_transform= are for training, and are left out of validation. What belongs to the data, "
        "such as scaling, goes into decode=, size=, rescale= or dtype=, or into the model."
    )


def sides(
    whole: SequenceLoader,
    validation: float,
    stratify: Any,
    groups: Any,
    seed: int | None,
    names: list[str] | None = None,
) -> tuple[Indices, Indices]:
    """Sample numbers of both parts, sorted. `split` says what the arguments are.

    names: what the classes in `stratify`, then numbers, are called.
    """
    if stratify is True:
        stratify = classes_of(whole.source, "stratify")
    share = _share(validation)
    by_class = stratify is not None and stratify is not False
    if by_class and groups is not None:
        raise ValueError(
            "stratify and groups are both given: choose one, since groups that stay together "
            "fix the share of the classes."
        )
    random_state = (whole.seed if seed is None else seed) % 2**32
    everything = np.arange(whole.samples)
    if groups is not None:
        from sklearn.model_selection import GroupShuffleSplit

        values, codes = codes_of(groups, whole.samples, "groups")
        _check_sides(share, len(values), "groups")
        splitter = GroupShuffleSplit(1, test_size=share, random_state=random_state)
        first, second = next(splitter.split(everything, groups=codes))
    else:
        from sklearn.model_selection import train_test_split

        codes = None
        sizes = _check_sides(share, whole.samples, "samples")
        if by_class:
            values, codes = codes_of(stratify, whole.samples, "stratify")
            _check_classes(values, codes, sizes, share, names)
        first, second = train_test_split(
            everything, test_size=share, random_state=random_state, stratify=codes
        )
    # Sorted, so that neighbours in storage stay neighbours, and rows line up with `paths`.
    return np.sort(first), np.sort(second)


def _share(validation: Any) -> float:
    if isinstance(validation, (int, float, np.number)) and 0 < validation < 1:
        return float(validation)
    raise ValueError(
        f"validation={validation!r}, expected a share between 0 and 1: 0.2 is a fifth of the "
        "samples."
    )


def _check_sides(share: float, count: int, what: str) -> tuple[int, int]:
    """How many go to each side, as scikit-learn rounds."""
    second = math.ceil(share * count)
    if second == count:
        raise ValueError(
            f"validation={share:g} of {count} {what} leaves none to train on: lower validation, or "
            f"add {what}."
        )
    return count - second, second


def _check_classes(
    values: list[Any],
    codes: Indices,
    sizes: tuple[int, int],
    share: float,
    names: list[str] | None,
) -> None:
    counts = np.bincount(codes)
    lone = np.flatnonzero(counts == 1)
    if len(lone):
        value = values[lone[0]]
        name = value if names is None else names[value]
        others = f", and so have {len(lone) - 1} others" if len(lone) > 1 else ""
        raise ValueError(
            f"class {name!r} has one sample{others}; stratify needs two of each, one for either "
            "side. Add samples, leave the class out, or pass stratify=False."
        )
    if min(sizes) < len(values):
        raise ValueError(
            f"validation={share:g} makes {sizes[0]} samples to train on and {sizes[1]} to validate "
            f"with, too few to hold each of {len(values)} classes. Change validation, or pass "
            "stratify=False."
        )


def one_hot(whole: S, classes: int) -> S:
    """A loader whose labels are one-hot rows, of one whose labels are numbers of classes."""
    source = whole.source.with_labels(lambda labels: OneHotColumn(labels, classes))
    if source is None:
        raise ValueError(
            f"{type(whole).__name__} makes its samples in a hook, which does not tell their labels "
            'beforehand: pass label_mode="int".'
        )
    return whole.replace(source=source)


def _wanted_suffixes(
    extensions: Any, loader: Any, options: dict[str, Any]
) -> frozenset[str] | None:
    """Suffixes in lower case; None for any."""
    if extensions is not None:
        given = [extensions] if isinstance(extensions, str) else list(extensions)
        return frozenset("." + text.lower().removeprefix(".") for text in given)
    hooks = ("load_sample", "load_batch")
    hooked = isinstance(loader, type) and any(
        getattr(loader, hook, None) is not getattr(PathSequenceLoader, hook) for hook in hooks
    )
    return None if hooked or options.get("decode") is not None else READABLE
