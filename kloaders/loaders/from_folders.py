"""Loaders of files in several folders that belong together, such as images and masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from kloaders.core.checks import Transform
from kloaders.core.messages import inform
from kloaders.core.structure import flatten, unflatten
from kloaders.loaders.from_files import wanted_suffixes
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.splits import check_validation, made, parts_of
from kloaders.sources.folders import READABLE
from kloaders.sources.matched_folders import matched, warn_of_proportions

__all__ = ["from_folders"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Both parts are of the class that `loader=` names or returns.
    L = TypeVar("L", bound=SequenceLoader, default=PathSequenceLoader)


@overload
def from_folders(
    inputs: Any,
    labels: Any = None,
    *,
    validation: float = 0.2,
    extensions: Any = None,
    follow_links: bool = False,
    groups: Callable[[str], Any] | Any = None,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, L]: ...
@overload
def from_folders(
    inputs: Any,
    labels: Any = None,
    *,
    validation: None,
    loader: Callable[..., L] = ...,
    **options: Any,
) -> tuple[L, None]: ...
def from_folders(
    inputs: Any,
    labels: Any = None,
    *,
    validation: float | None = 0.2,
    extensions: Any = None,
    follow_links: bool = False,
    groups: Callable[[str], Any] | Any = None,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    batch_size: int = 32,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]  # mypy: a default binds L
    **options: Any,
) -> tuple[L, Any]:
    """Loaders of files in several folders that belong together, such as images and their masks.

    Partners have the same path in their folders, except for the suffix: `images/a/1.jpg` and
    `masks/a/1.png`. Files without a partner are left out, with a warning that lists them. Another
    warning lists the first images and masks whose proportions differ.

    Args:
        inputs: a folder, or a dict or tuple of folders for several inputs.
        labels: a folder, or several in the same form; label images are resized by "nearest", see
            `label_options` of `PathSequenceLoader`. None: no labels.
        validation: the share of the samples for validation; None or 0: none.
        extensions: read only files with these suffixes, in all folders.
        follow_links: read linked folders.
        groups: one value per sample, or a function that takes the path of the first input: samples
            with the same value stay on the same side.
        validation_transform: `transform=` of the validation loader, instead of the training one.
        seed: fixes the split and the order of both loaders.
        batch_size: samples per batch.
        loader: the class of both loaders, or a function that makes one.
        **options: options of `loader`; see `split`.

    Returns:
        (train, validation), or (train, None) without validation.

    Raises:
        NotADirectoryError, FileNotFoundError: the folder does not exist.
        ValueError: no file has a partner, or two files of one folder have the same partner.
    """
    check_validation(validation, validation_transform)
    x, y = _folders(inputs, "inputs"), None if labels is None else _folders(labels, "labels")
    folders = [*flatten(x), *([] if y is None else flatten(y))]
    if len(folders) < 2:
        raise ValueError(
            f"from_folders() got one folder, {folders[0]}, expected two or more that belong together: "
            "from_folders('images', 'masks'). For a folder with a folder per class use "
            "from_directory()."
        )
    count = len(flatten(x))
    wanted = [wanted_suffixes(extensions, loader, options)] * count
    own = extensions is None and "decode" in (options.get("label_options") or {})
    of_labels = None if own else wanted_suffixes(extensions, None, {}) or READABLE
    files = matched(folders, wanted + [of_labels] * (len(folders) - count), follow_links)
    for others in files[1:]:
        warn_of_proportions(files[0], others)
    if callable(groups):
        groups = [groups(path) for path in files[0]]
    paths = unflatten(x, files[:count])
    targets = None if y is None else unflatten(y, files[count:])
    whole = made(loader, paths, targets, batch_size, seed=seed, **options)
    found = f"{' and '.join(folders)}: {whole.samples:,} samples"
    if not validation:
        inform(f"{found}, all for training.")
        return whole, None
    train, val = parts_of(whole, validation, None, groups, seed, None, validation_transform)
    inform(f"{found}, {train.samples:,} for training and {val.samples:,} for validation.")
    return train, val


def _folders(given: Any, what: str) -> Any:
    """Folders as strings, in a dict or tuple if there are several."""
    if isinstance(given, dict):
        found: Any = {name: _folders(one, what) for name, one in given.items()}
    elif isinstance(given, (list, tuple)):
        found = tuple(_folders(one, what) for one in given)
    elif isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    else:
        raise TypeError(
            f"{what} contains {given!r:.80} ({type(given).__name__}), expected the path of a folder, "
            "or a dict of folders."
        )
    if not found:
        raise ValueError(f"{what} is empty, expected a folder, or a dict of folders.")
    return found
