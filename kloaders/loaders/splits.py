"""Splits a loader into a training part and a validation part."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import Transform, check_names
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.subsets import part, warn_where_parts_differ
from kloaders.loaders.time_splits import check_apart, checked_order, sides_in_time
from kloaders.sources.labels import classes_of, codes_of
from kloaders.sources.tables import array_of

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Both parts are of the class that `loader=` names or returns.
    L = TypeVar("L", bound=SequenceLoader, default=PathSequenceLoader)
    S = TypeVar("S", bound=SequenceLoader)

__all__ = ["check_validation", "made", "of_kept", "parts_of", "sides", "split"]


@overload
def split(
    paths: S,
    *,
    validation: float = 0.2,
    stratify: Any = None,
    groups: Any = None,
    order: Literal["random", "time"] | None = None,
    gap: int = 0,
    validation_transform: Transform | None = None,
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
    order: Literal["random", "time"] | None = None,
    gap: int = 0,
    validation_transform: Transform | None = None,
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
    order: Literal["random", "time"] | None = None,
    gap: int = 0,
    validation_transform: Transform | None = None,
    seed: int | None = None,
    loader: Callable[..., L] = PathSequenceLoader,  # type: ignore[assignment]  # mypy: a default binds L
    **options: Any,
) -> tuple[L, L]:
    """Two loaders of the same data: one for training, one for validation.

    Both share paths, labels and arrays, without copies. Each sample is in exactly one of the two, in
    storage order. scikit-learn selects the samples of each.

    Args:
        paths: the first argument of `loader`; or an existing loader, without labels, batch_size or
            options.
        labels: as for `loader`.
        batch_size: samples per batch; the default is 32.
        validation: the share of the samples (with `groups`: of the groups) for validation, as 0.2;
            or their number, an integer of at least 1.
        stratify: True keeps the share of every class the same on both sides; for labels that are not
            classes, pass an array with one class per sample. None splits at random.
        groups: one value per sample; samples with the same value stay together (patients, videos).
        order: "time" validates with the last samples in storage order; for windows, with the last
            ones of each series, and trains on windows that end before these begin; windows in between
            are left out. "random" splits at random. None also splits at random, but raises an error
            if windows of both parts would share rows.
        gap: with order="time", how many rows of a series (for other data: samples) to leave out
            between both parts.
        validation_transform: `transform=` of the validation loader, instead of the training one.
        seed: fixes the split, and the order of both loaders unless a ready-made loader is given.
        loader: the class of both loaders, or a function that makes one.
        **options: options of `loader`. Some are for training only: the validation loader has no
            transform except `validation_transform` and no class_weight, is not shuffled, and
            delivers every sample, including a smaller last batch. `preprocess` applies to both; a
            `ram_budget` is shared by both.

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
            check_names("split()", {n: 0 for n in extra if n not in _names_of(paths)}, _OWN)
            raise TypeError(
                f"split() got a loader together with {', '.join(extra)}: pass these to "
                f"{type(paths).__name__}() itself."
            )
        whole: Any = paths
    else:
        size = 32 if batch_size is None else batch_size
        whole = made(loader, paths, labels, size, seed=seed, **options)
    return parts_of(
        whole,
        validation,
        stratify,
        groups,
        seed,
        order=order,
        gap=gap,
        transform=validation_transform,
    )


# The arguments of split itself.
_OWN = ("validation", "stratify", "groups", "validation_transform", "order", "gap", "seed")


def _names_of(loader: SequenceLoader) -> list[str]:
    """The arguments that a loader's class takes, and those that split takes in their place."""
    return ["labels", "batch_size", *inspect.signature(type(loader)).parameters]


# --------------------------------------------------------------------------------------- splitting


def made(make: Callable[..., S], *data: Any, **options: Any) -> S:
    if not callable(make):
        raise TypeError(
            f"loader={make!r:.80} makes no loaders, expected a class such as "
            "loader=RamBatchSequenceLoader. A ready-made one goes first: split(loader)."
        )
    whole = make(*data, **options)
    if not isinstance(whole, SequenceLoader):
        raise TypeError(
            f"loader={make!r:.80} returned a {type(whole).__name__}, expected a loader such as "
            "loader=RamBatchSequenceLoader."
        )
    return whole


def check_validation(validation: float | None, transform: Any) -> None:
    """Raise ValueError for a transform of a validation part that will not exist."""
    if not validation and transform is not None:
        raise ValueError(
            f"validation_transform= is for the validation part, but validation={validation} makes none: "
            "leave one of them out."
        )


def of_kept(whole: SequenceLoader, values: Any) -> Any:
    """Values for the samples that `exclude` kept in `whole`, given values for all samples."""
    kept = getattr(whole, "included", None)
    if kept is None or values is None or isinstance(values, bool):
        return values
    array = array_of(values)
    return array[kept] if array.shape[:1] == kept.shape else values


def parts_of(
    whole: S,
    validation: float,
    stratify: Any,
    groups: Any,
    seed: int | None,
    names: list[str] | None = None,
    transform: Transform | None = None,
    order: Literal["random", "time"] | None = None,
    gap: int = 0,
) -> tuple[S, S]:
    """Both parts, as loaders that share the data; `transform` is for validation."""
    stratify, groups = of_kept(whole, stratify), of_kept(whole, groups)
    checked_order(order, gap, stratify=stratify, groups=groups)
    if order == "time":
        first, second = sides_in_time(whole, _share(validation), gap)
    else:
        first, second = sides(whole, validation, stratify, groups, seed, names)
    if order is None:
        check_apart(whole, first, second)
    train = part(whole, first, "training")
    validation_part = part(whole, second, "validation", transform)
    warn_where_parts_differ(train, validation_part)
    return train, validation_part


def sides(
    whole: SequenceLoader,
    validation: float,
    stratify: Any,
    groups: Any,
    seed: int | None,
    names: list[str] | None = None,
) -> tuple[Indices, Indices]:
    """The sample numbers of both parts, sorted. For the arguments see `split`.

    names: the class names, if `stratify` contains numbers.
    """
    if stratify is True:
        stratify = classes_of(whole.source, "stratify")
    share = _share(validation)
    by_class = stratify is not None and stratify is not False
    if by_class and groups is not None:
        raise ValueError(
            "stratify and groups are both set: choose one, since groups that stay together "
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
    # Sorted, so that adjacent samples stay adjacent, and rows line up with `paths`.
    return np.sort(first), np.sort(second)


def _share(validation: Any) -> float | int:
    """A share, or a number of samples."""
    if isinstance(validation, (int, np.integer)) and not isinstance(validation, bool):
        if validation >= 1:
            return int(validation)
    elif isinstance(validation, (float, np.floating)) and 0 < validation < 1:
        return float(validation)
    raise ValueError(
        f"validation={validation!r:.80}, expected a share between 0 and 1, where 0.2 is a fifth of the "
        "samples, or a number of samples, as 500."
    )


def _check_sides(share: float, count: int, what: str) -> tuple[int, int]:
    """The number of samples on each side, rounded like scikit-learn does."""
    second = share if isinstance(share, int) else math.ceil(share * count)
    if second >= count:
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
        others = f", and so do {len(lone) - 1} others" if len(lone) > 1 else ""
        raise ValueError(
            f"class {name!r:.80} has one sample{others}; stratify needs two of each, one for each "
            "side. Add samples, leave the class out, or pass stratify=False."
        )
    if min(sizes) < len(values):
        raise ValueError(
            f"validation={share:g} makes {sizes[0]} samples to train on and {sizes[1]} to validate "
            f"with, too few to include each of {len(values)} classes. Change validation, or pass "
            "stratify=False."
        )
