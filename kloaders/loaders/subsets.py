"""Loaders over some of another loader's samples, or over them several times; all share one store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from kloaders.core.structure import map_structure
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader, _count, check_loader
from kloaders.plan.sampling import Sampling
from kloaders.sources.columns import PackedPaths, Report, SubsetColumn
from kloaders.sources.labels import codes_of, known_labels

__all__ = ["SubsetPaths", "folds", "part", "repeat", "subset", "take"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, np.dtype[Any]]


class SubsetPaths(PackedPaths):
    """Some of the paths, by number; nothing is copied."""

    def __init__(self, paths: PackedPaths, numbers: Array) -> None:
        self._paths = paths
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: slice | SupportsIndex) -> list[str] | str:
        if isinstance(index, slice):
            return [self._paths[k] for k in self._numbers[index].tolist()]
        try:
            return self._paths[int(self._numbers[index])]
        except IndexError:
            raise IndexError(f"path {index} of {len(self)}") from None

    def joined(self) -> bytes:
        """All paths, each with a NUL character behind it."""
        return b"".join(f"{path}\0".encode("utf-8", "surrogateescape") for path in self)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, the shared paths included."""
        return self._paths.nbytes + self._numbers.nbytes


class _Samples:
    """Samples of a loader, asked for by their number among the chosen ones."""

    def __init__(self, whole: SequenceLoader, numbers: Array) -> None:
        self.whole = whole
        self.numbers = numbers
        columns = whole._columns()
        self.parts = (
            None if columns is None else map_structure(lambda c: SubsetColumn(c, numbers), columns)
        )

    def columns(self) -> Any:
        return self.parts

    def sample(self, index: int) -> tuple[Any, ...]:
        return self.whole._sample(int(self.numbers[index]))

    def batch_parts(self, indices: Indices) -> tuple[Any, ...]:
        return self.whole._batch_parts(self.numbers[indices].astype(np.int64))

    def fill_stored(self, indices: Indices, out: list[Array], report: Report) -> None:
        self.whole._fill_stored(self.numbers[indices].astype(np.int64), out, report)

    def name(self, index: int) -> str:
        return self.whole._name(int(self.numbers[index]))


def part(
    whole: SequenceLoader, numbers: Indices, what: Literal["training", "validation", "chosen"]
) -> Any:
    """A loader of the same kind over some of the samples; hooks are called on the whole.

    A hook may look samples up by number in a store of its own: the number must be the whole's.
    """
    sampling = whole.sampling.of(numbers)  # refuses what has no subset
    small = numbers.astype(np.uint32 if whole.samples < 2**32 else np.int64)
    chosen = _Samples(whole, small)
    new = whole.view()
    # What a loader asks of itself about a sample goes to the whole, under the whole's number.
    own = vars(new)
    own["_sample"], own["_batch_parts"] = chosen.sample, chosen.batch_parts
    own["_name"], own["_columns"] = chosen.name, chosen.columns
    if whole._at_once():
        own["_fill_stored"] = chosen.fill_stored
    own["_parts"] = chosen.parts
    if isinstance(new, PathSequenceLoader):
        new.paths = SubsetPaths(new.paths, small)
    own["samples"] = len(numbers)
    own["sampling"] = Sampling() if what == "validation" else sampling
    if whole.weights is not None:
        new.weights = whole.weights[numbers]
    if whole._buckets is not None:
        own["_buckets"] = whole._buckets.of(small)
    if own.get("_budget") is not None:  # of RAM batches: in proportion, for both together
        own["_budget"] = max(1, own["_budget"] * len(numbers) // whole.samples)
    if what == "validation":
        new.transform = new.batch_transform = None
        own["shuffle"] = None if new.shuffle is None else False
        # Equal parts for several hosts need equal batches; otherwise every sample counts.
        own["drop_last"] = new.drop_last and new.shard[1] > 1
        if "echo" in own:
            own["echo"] = 1
    try:
        new.plan = new._checked_plan()
    except ValueError as error:
        raise ValueError(f"{_SAID[what]}: {error}") from None
    new._set_up()
    return new


_SAID = {
    "training": "the training part",
    "validation": "the validation part",
    "chosen": "the chosen samples",
}


def subset(loader: SequenceLoader, which: Any) -> Any:
    """A loader of the same kind over some of a loader's samples, with all its options.

    Nothing is read or copied: both share one store. Takes 4 bytes of RAM a chosen sample.

    Args:
        loader: any loader.
        which: sample numbers (a sequence or array of integers, in the order that becomes storage
            order; a number may come twice), a slice, or an array of one True or False a sample.

    Raises:
        IndexError: a number is none of the loader's.
        ValueError, TypeError: `which` is empty, or nothing of the above.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(10), batch_size=4)
    >>> subset(loader, [7, 1, 3])[0], subset(loader, slice(0, None, 5))[0]
    (array([7, 1, 3]), array([0, 5]))
    """
    check_loader(loader, "subset")
    return part(loader, _numbers(which, loader.samples), "chosen")


def take(loader: SequenceLoader, samples: int) -> Any:
    """A loader over the first `samples` of a loader, in storage order: for a quick trial.

    Folders and tables are often sorted by class; then `subset` with a random choice is better.

    Raises:
        ValueError: there are fewer.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> take(ArraySequenceLoader(np.arange(10), batch_size=4), 3)[0]
    array([0, 1, 2])
    """
    check_loader(loader, "take")
    if _count(samples, "samples", 1) > loader.samples:
        raise ValueError(f"take(loader, {samples}): the loader has {loader.samples} samples.")
    return part(loader, np.arange(samples, dtype=np.int64), "chosen")


def repeat(loader: SequenceLoader, times: int) -> Any:
    """A loader whose epoch has every sample `times` times.

    Shuffled, they are mixed over the whole epoch, and a transform draws anew each time. In storage
    order all samples come once, then all of them again. Takes 4 bytes of RAM a sample and time.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = repeat(ArraySequenceLoader(np.arange(3), batch_size=4), 2)
    >>> loader[0], loader[1]
    (array([0, 1, 2, 0]), array([1, 2]))
    """
    check_loader(loader, "repeat")
    numbers = np.arange(loader.samples, dtype=np.int64)
    return part(loader, np.tile(numbers, _count(times, "times", 1)), "chosen")


def folds(
    loader: SequenceLoader, splitter: Any, *, labels: Any = None, groups: Any = None
) -> Iterator[tuple[Any, Any]]:
    """(train, validation) loaders for each fold of one of scikit-learn's splitters.

    All share one store. As with `split`, what is for training only stays there: validation loaders
    have no transforms, are not shuffled, sample nothing, and serve every sample.

    Args:
        loader: any loader.
        splitter: `KFold(5, shuffle=True, random_state=7)`, `StratifiedKFold(5)`,
            `GroupKFold(5)`, whatever has `split(X, y, groups)`.
        labels: one class a sample, for splitters that look at it; None takes the loader's own, where
            these are known beforehand.
        groups: one value a sample, for splitters that keep groups together.

    Raises:
        TypeError: `splitter` has no method split.
        ValueError: a fold is empty, or what the splitter itself raises.

    >>> from sklearn.model_selection import KFold
    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(6), batch_size=4)
    >>> [val[0].tolist() for train, val in folds(loader, KFold(3))]
    [[0, 1], [2, 3], [4, 5]]
    """
    check_loader(loader, "folds")
    if not callable(getattr(splitter, "split", None)):
        raise TypeError(
            f"folds(splitter={splitter!r}): expected a splitter of scikit-learn, such as "
            "KFold(5, shuffle=True, random_state=7)."
        )
    everything = np.broadcast_to(np.int8(0), (loader.samples,))
    y = known_labels(loader) if labels is None else codes_of(labels, loader.samples, "labels")[1]
    codes = None if groups is None else codes_of(groups, loader.samples, "groups")[1]
    return _folds(loader, splitter.split(everything, y, codes))


def _folds(loader: SequenceLoader, found: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    for train, validation in found:
        yield part(loader, train, "training"), part(loader, validation, "validation")


def _numbers(which: Any, samples: int) -> Indices:
    """What `subset` was given, as numbers."""
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
        raise ValueError(f"which={which!r} chooses no samples, expected at least one.")
    return numbers
