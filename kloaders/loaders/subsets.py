"""Loaders of some of another loader's samples, or of several copies of them; all share one source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import Transform, checked_count
from kloaders.core.messages import warn
from kloaders.core.structure import flatten
from kloaders.engine.ram_batches import RamRunner
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.time_splits import warn_where_parts_share_rows
from kloaders.sources.labels import codes_of, known_labels

__all__ = ["folds", "part", "repeat", "subset", "take", "warn_where_parts_differ"]

L = TypeVar("L", bound=SequenceLoader)


def part(
    whole: L,
    numbers: Indices,
    what: Literal["training", "validation", "chosen"],
    transform: Transform | None = None,
) -> L:
    """A loader of the same kind for some of the samples. Hooks are called with the whole's numbers.

    A hook may use sample numbers to look samples up, so it must get the numbers of the whole.

    Args:
        whole: the loader.
        numbers: the numbers of the samples, int64.
        what: "validation" leaves out training options: transforms, shuffling, sampling.
        transform: the transform for validation.

    Raises:
        ValueError: these samples make no batch, or cannot be selected.
    """
    options = whole.options
    runner = whole.runner
    if isinstance(runner, RamRunner) and options.ram is not None and runner.size.budget:
        budget = None if options.ram.ram_batch_size else runner.size.budget
        options = replace(options, ram=replace(options.ram, ram_budget=budget))
    options = options.take(numbers, whole.samples)
    source = whole.source
    if what == "validation":
        options, source = options.for_validation(transform), source.without_transforms()
    try:
        return whole.replace(source.take(numbers), options)
    except ValueError as error:
        raise ValueError(f"{_SAID[what]}: {error}") from None


_SAID = {
    "training": "the training part",
    "validation": "the validation part",
    "chosen": "the selected samples",
}


def subset(loader: L, which: Any) -> L:
    """A loader of the same kind for some of a loader's samples, with all its options.

    Nothing is read or copied: both share the data. Takes 4 bytes of RAM per selected sample.

    Args:
        loader: any loader.
        which: sample numbers (a sequence or array of integers, in the new storage order, possibly
            with repetitions), a slice, or an array with True or False for each sample.

    Raises:
        IndexError: a number is not one of the loader's sample numbers.
        ValueError, TypeError: `which` is empty, or none of these.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(10), batch_size=4)
    >>> subset(loader, [7, 1, 3])[0], subset(loader, slice(0, None, 5))[0]
    (array([7, 1, 3]), array([0, 5]))
    """
    check_loader(loader, "subset")
    return part(loader, _numbers(which, loader.samples), "chosen")


def take(loader: L, samples: int) -> L:
    """A loader of the first `samples` samples of a loader, in storage order: for a quick trial.

    Folders and tables are often sorted by class; then `subset` with a random choice is better.

    Raises:
        ValueError: the loader has fewer samples.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> take(ArraySequenceLoader(np.arange(10), batch_size=4), 3)[0]
    array([0, 1, 2])
    """
    check_loader(loader, "take")
    if checked_count(samples, "samples", 1) > loader.samples:
        raise ValueError(f"take(loader, {samples}): the loader has {loader.samples} samples.")
    return part(loader, np.arange(samples, dtype=np.int64), "chosen")


def repeat(loader: L, times: int) -> L:
    """A loader whose epoch has every sample `times` times.

    With shuffling, the copies are mixed over the whole epoch, and each gets different random numbers in
    the transform. In storage order, all samples are delivered once, then all of them again. Takes 4
    bytes of RAM per sample and copy.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = repeat(ArraySequenceLoader(np.arange(3), batch_size=4), 2)
    >>> loader[0], loader[1]
    (array([0, 1, 2, 0]), array([1, 2]))
    """
    check_loader(loader, "repeat")
    numbers = np.arange(loader.samples, dtype=np.int64)
    return part(loader, np.tile(numbers, checked_count(times, "times", 1)), "chosen")


def folds(
    loader: L,
    splitter: Any,
    *,
    labels: Any = None,
    groups: Any = None,
    validation_transform: Transform | None = None,
) -> Iterator[tuple[L, L]]:
    """(train, validation) loaders for each fold of a cross-validation.

    All share the data. As with `split`, training options apply to training only: validation loaders
    have no transform except `validation_transform`, are not shuffled, draw no samples, and deliver every
    sample.

    Args:
        loader: any loader.
        splitter: the number of folds, such as 5; or a scikit-learn splitter, such as
            `StratifiedKFold(5)` or `GroupKFold(5)`, or any object with `split(X, y, groups)`; or the
            folds themselves, a list of (train, validation), each in a form that `subset` accepts. A
            number of folds shuffles with the loader's seed, keeps each class's share if `labels` are
            passed, and keeps groups together if `groups` are.
        labels: one class per sample, for splitters that use them; None uses the loader's labels, if
            these are known without reading samples.
        groups: one value per sample, for splitters that keep groups together.
        validation_transform: `transform=` of the validation loaders.

    Raises:
        TypeError: `splitter` is none of these.
        ValueError: a fold is empty, a sample is on both sides of a given fold, or any error that the
            splitter raises.
        IndexError: a sample number in a given fold is not one of the loader's.

    >>> from sklearn.model_selection import KFold
    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(6), batch_size=4)
    >>> [val[0].tolist() for train, val in folds(loader, KFold(3))]
    [[0, 1], [2, 3], [4, 5]]
    """
    check_loader(loader, "folds")
    if isinstance(splitter, (int, np.integer)) and not isinstance(splitter, bool):
        splitter = _splitter(int(splitter), loader, labels is not None, groups is not None)
    elif isinstance(splitter, (list, tuple)):
        if labels is not None or groups is not None:
            raise ValueError(
                "folds() got the folds themselves, but also labels or groups, which only splitters use: "
                "leave these out."
            )
        return _folds(loader, iter(_given(splitter, loader.samples)), validation_transform)
    if isinstance(splitter, (str, bytes)) or not callable(getattr(splitter, "split", None)):
        raise TypeError(
            f"folds(splitter={splitter!r:.80}): expected the number of folds, a scikit-learn splitter, "
            "such as KFold(5, shuffle=True, random_state=7), or a list of (train, validation)."
        )
    everything = np.broadcast_to(np.int8(0), (loader.samples,))
    y = (
        known_labels(loader.source)
        if labels is None
        else codes_of(labels, loader.samples, "labels")[1]
    )
    codes = None if groups is None else codes_of(groups, loader.samples, "groups")[1]
    return _folds(loader, splitter.split(everything, y, codes), validation_transform)


def _splitter(count: int, loader: SequenceLoader, labels: bool, groups: bool) -> Any:
    """The splitter for this number of folds."""
    from sklearn import model_selection

    if not 2 <= count <= loader.samples:
        raise ValueError(
            f"folds(loader, {count}): expected 2 to {loader.samples:,} folds, with at least one sample each."
        )
    seed = loader.seed % 2**32
    if groups and not labels:  # only the groups' sizes determine its folds
        return model_selection.GroupKFold(count)
    name = "KFold" if not labels else "StratifiedGroupKFold" if groups else "StratifiedKFold"
    return getattr(model_selection, name)(count, shuffle=True, random_state=seed)


def _given(pairs: Sequence[Any], samples: int) -> list[tuple[Indices, Indices]]:
    """The folds that a user listed, as sample numbers."""
    found = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError(
                f"fold {number} is {pair!r:.80}, expected (train, validation), the sample numbers of each."
            )
        train, validation = (_numbers(side, samples) for side in pair)
        both = np.intersect1d(train, validation)
        if both.size:
            raise ValueError(
                f"fold {number} has sample {both[0]} in both parts, and {both.size - 1:,} others: "
                "do not validate a model with samples that it was trained on."
            )
        found.append((train, validation))
    if not found:
        raise ValueError("folds(loader, []): expected at least one (train, validation).")
    return found


def _folds(loader: L, found: Iterator[Any], transform: Transform | None) -> Iterator[tuple[L, L]]:
    for number, (first, second) in enumerate(found):
        train = part(loader, first, "training")
        validation = part(loader, second, "validation", transform)
        if number == 0:  # it is the same for all others
            warn_where_parts_share_rows(loader, first, second)
            warn_where_parts_differ(train, validation)
        yield train, validation


def _numbers(which: Any, samples: int) -> Indices:
    """The argument of `subset` as sample numbers."""
    if isinstance(which, slice):
        numbers = np.arange(*which.indices(samples), dtype=np.int64)
    else:
        array = np.asarray(which)
        if array.dtype == bool and array.shape == (samples,):
            numbers = np.flatnonzero(array)
        elif array.dtype.kind in "iu" and array.ndim == 1:
            numbers = array.astype(np.int64)
        elif array.size:
            raise TypeError(
                f"which is {array.dtype} of shape {array.shape}, expected sample numbers, a slice, "
                f"or one True or False for each of {samples} samples."
            )
        else:
            numbers = np.empty(0, np.int64)
    wrong = numbers[(numbers < 0) | (numbers >= samples)]
    if wrong.size:
        raise IndexError(f"sample {wrong[0]}: samples are numbered from 0 to {samples - 1}.")
    if not numbers.size:
        raise ValueError(f"which={which!r:.80} selects no samples, expected at least one.")
    return numbers


def warn_where_parts_differ(train: SequenceLoader, validation: SequenceLoader) -> None:
    """Log if training options change shapes or dtypes, which would fail late, in a model."""
    functions = (train.transform, train.batch_transform, validation.transform)
    if all(function is None for function in functions):
        return
    try:
        forms = train.runner.row_spec, validation.runner.row_spec
    except Exception:
        return
    if forms[0] == forms[1]:
        return
    said = [", ".join(f"{s.dtype}{list(s.shape)}" for s in flatten(form)) for form in forms]
    warn(
        f"the training part delivers {said[0]}, but the validation part {said[1]}: transform= and "
        "batch_transform= are for training, and are left out of validation. Put processing of the data, "
        "such as scaling, into preprocess=, which both parts have, and processing for validation alone "
        "into validation_transform=."
    )
