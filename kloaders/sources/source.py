"""The interface of a source: numbered samples, and nothing about batches, order or Keras."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import Structure, as_sample, map_structure
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.sources import fingerprint
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import SubsetColumn
from kloaders.sources.path_lists import SubsetPaths
from kloaders.sources.spans import Spans

__all__ = ["Source", "SubsetSource", "WrappedSource"]


class Source:
    """Numbered samples, and everything that is known about them.

    For a format, a store or a protocol of your own override `__len__` and `read`; everything else
    has a default that is built on these two. `SequenceLoader(source, batch_size)` is a loader over
    it. The page "Add a source" has an example.

    Threads: a loader calls all methods from several threads at once. Worker processes get a pickled
    copy, so keep open files in a `PerThread`, or out of `__getstate__`.

    Attributes:
        runs_user_code: reading a sample runs a user's function, which may hold the GIL.
        random: samples depend on the moment that `sample` and `fill` are given.
        not_kept: why samples may not be kept as they are read, in a pack or in RAM; "" where they may.
        reads_many: `fill` is faster for many samples at once than for one after another.
        whole_batches: `fill` wants all samples of a batch in one call: a call has a cost of its own.
        neighbours: samples that lie side by side are read together, as rows of one row group are.
        in_order: to read a sample takes reading all that lie before it, as in compressed files.
        fetches: samples lie elsewhere, and `fetch_ahead` has them fetched.
        columns: where each array of a sample comes from a column of its own, these columns, in the
            structure of a sample; else None.
        paths: the file of each sample; None where samples are not single files.
    """

    runs_user_code = False
    random = False
    not_kept = ""
    reads_many = False
    whole_batches = False
    neighbours = False
    in_order = False
    fetches = False
    columns: tuple[Any, ...] | None = None
    paths: Sequence[str] | None = None

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        """How many samples there are."""
        raise NotImplementedError

    def read(self, index: int) -> Any:
        """One sample: x, (x, y) or (x, y, weights), of arrays, numbers, or tuples and dicts of them.

        Args:
            index: the sample's number, from 0 to len(self) - 1.

        Raises:
            Exception: whatever is raised becomes a SampleError that names the sample, or is dealt
                with as the loader's `on_error` says.
        """
        if type(self).sample is Source.sample:
            raise NotImplementedError(f"{type(self).__name__} has to override read(index).")
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        """One sample as parts, (x,), (x, y) or (x, y, weights), of fresh arrays. By default what `read` gives.

        Override it in place of `read` where samples differ from epoch to epoch (`random`):
        `moment.rng(seed, index)` is their random generator.
        """
        return as_sample(self.read(index))

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        """Row r of `out` becomes sample indices[r]. By default one `sample` after another.

        Override it where many samples are read faster at once. The arrays in `out` belong to this
        call until it returns; several threads call it at the same time, each with rows of its own.

        Args:
            indices: sample numbers, int64, in any order; one may come twice.
            out: arrays with a row for each of them.
            report: to be called as report(row, error) for a sample that does not load. Its row may
                hold anything then. Samples whose arrays do not fit are reported by `out.put`.
            moment: see `sample`.
        """
        for row, index in enumerate(indices.tolist()):
            stall_watch.at(self, index)
            try:
                out.put(row, self.sample(index, moment.part(row)), report)
            except Exception as error:  # errors of user code belong to the sample
                report(row, error)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        """For each of these samples its number, and a function that gives it as `sample` does.

        Override it where many samples are read at once and `fill` does not do, since each of them
        goes through a transform.
        """
        for row, index in enumerate(indices.tolist()):
            yield index, functools.partial(self.sample, index, moment.part(row))

    def prefetch(self, indices: Indices) -> None:
        """These samples will be read soon, after others that are read already."""

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        """Begin to fetch what these samples are read from, as `prefetch` where data lie elsewhere.

        Returns:
            Claims, to be released when the samples are read or are not wanted any more.
        """
        return ()

    def prepare(self) -> None:
        """Called before the first sample is read: raises errors that no single sample causes."""

    # ------------------------------------------------------------------ properties

    def name(self, index: int) -> str:
        """The name of this sample, such as a file or a row, for errors and quarantine files."""
        return f"index {index}"

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        """Advice for an array of a sample whose shape or dtype differs from that of others.

        Args:
            index: the sample's number.
            leaf: which array of x, in the order of `flatten`; labels have advice of their own.
            dtype_differs: the dtype is another one; else the shape is.
        """
        if dtype_differs:
            return "Pass dtype=, or convert in the hook."
        return "Bring them to one shape in the hook or in transform=, take kl.padded_batches(loader), or use batch_size=1."

    def fingerprint(self) -> dict[str, str]:
        """Short texts that tell these samples from others; a saved position belongs to them.

        By default they are made from sample names, which is fast and reads no sample.
        """
        return {"data": fingerprint.of_names(self.name, len(self), self.extent())}

    def extent(self) -> Iterable[Array]:
        """Arrays that belong to the fingerprint in addition to names, such as the sizes of files."""
        return ()

    def labels(self) -> Array | None:
        """The labels of all samples, where they are one array that is known without reading any."""
        return None

    def lengths(self) -> Array | None:
        """The first axis of x for each sample, where that is known without reading any."""
        return None

    def spans(self) -> Spans | None:
        """Which rows of a series each sample covers, where samples may share rows; else None."""
        return None

    def delivered(self, spec: Structure) -> Structure:
        """`spec`, the spec of one sample, with None for the dimensions in which samples may differ."""
        return spec

    # ------------------------------------------------------------------ sources made of it

    def take(self, numbers: Indices) -> Source:
        """The samples of these numbers, in this order, as a source; nothing is read or copied."""
        return SubsetSource(self, numbers)

    def without_transforms(self) -> Source:
        """This source for validation: without transforms of loaders that it is made of."""
        return self

    def with_seed(self, seed: int) -> Source:
        """This source, with the seed of a loader, for samples that are `random`."""
        return self

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        """This source with other label columns, by `change(column)`; None if it has no label columns."""
        return None

    def held(self) -> Source:
        """This source, but keeping alive whatever it reads with; see `owner`."""
        return self

    def rebound(self, old: Any, new: Any) -> Source:
        """This source, calling the hooks of the loader `new` where it calls those of `old`."""
        return self

    def owner(self) -> Any:
        """The object that must live while samples are read: the loader whose hooks are called, or None."""
        return None

    def for_worker(self) -> Source:
        """The part of it that a worker process needs."""
        return self

    def _with(self, **attributes: Any) -> Any:
        """A shallow copy with other attributes."""
        new = copy.copy(self)
        for name, value in attributes.items():
            setattr(new, name, value)
        return new

    # ------------------------------------------------------------------ resources

    def stores(self) -> list[Store]:
        """The caches in front of it, and of the sources that it reads from."""
        return []

    def close(self) -> None:
        """Let go of open files; they are opened again when a sample is read."""


class WrappedSource(Source):
    """A source that changes another one; everything it does not override comes from that one."""

    def __init__(self, inner: Source) -> None:
        self.inner = inner
        for name in _FACTS:
            setattr(self, name, getattr(inner, name))

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, index: int) -> Any:
        return self.inner.read(index)

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self.inner.sample(index, moment)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        self.inner.fill(indices, out, report, moment)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        return self.inner.readers(indices, moment)

    def prefetch(self, indices: Indices) -> None:
        self.inner.prefetch(indices)

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        return self.inner.fetch_ahead(indices)

    def prepare(self) -> None:
        self.inner.prepare()

    def name(self, index: int) -> str:
        return self.inner.name(index)

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        return self.inner.advice(index, leaf, dtype_differs)

    def fingerprint(self) -> dict[str, str]:
        return self.inner.fingerprint()

    def extent(self) -> Iterable[Array]:
        return self.inner.extent()

    def labels(self) -> Array | None:
        return self.inner.labels()

    def lengths(self) -> Array | None:
        return self.inner.lengths()

    def spans(self) -> Spans | None:
        return self.inner.spans()

    def delivered(self, spec: Structure) -> Structure:
        return self.inner.delivered(spec)

    def without_transforms(self) -> Source:
        inner = self.inner.without_transforms()
        changed: Source = self if inner is self.inner else self._with(inner=inner)
        return changed

    def with_seed(self, seed: int) -> Source:
        inner = self.inner.with_seed(seed)
        found: Source = self if inner is self.inner else self._with(inner=inner)
        return found

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        inner = self.inner.with_labels(change)
        if inner is None:
            return None
        found: Source = self._with(inner=inner, columns=inner.columns)
        return found

    def held(self) -> Source:
        found: Source = self._with(inner=self.inner.held())
        return found

    def rebound(self, old: Any, new: Any) -> Source:
        found: Source = self._with(inner=self.inner.rebound(old, new))
        return found

    def owner(self) -> Any:
        return self.inner.owner()

    def for_worker(self) -> Source:
        found: Source = self._with(inner=self.inner.for_worker())
        return found

    def stores(self) -> list[Store]:
        return self.inner.stores()

    def close(self) -> None:
        self.inner.close()


# What a wrapper takes over.
_FACTS = (
    *("runs_user_code", "random", "not_kept", "reads_many", "whole_batches", "neighbours"),
    *("in_order", "columns", "paths", "fetches"),
)


class SubsetSource(WrappedSource):
    """Some samples of another source, by number; nothing is copied.

    What reads them is called with the numbers of the whole: a hook may look samples up by number in
    a store of its own. Takes 4 bytes of RAM per sample, 8 above four billion.
    """

    def __init__(self, inner: Source, numbers: Array) -> None:
        super().__init__(inner)
        self.numbers = numbers.astype(np.uint32 if len(inner) < 2**32 else np.int64)
        if inner.columns is not None:
            self.columns = map_structure(lambda c: SubsetColumn(c, self.numbers), inner.columns)
        if inner.paths is not None:
            self.paths = SubsetPaths(inner.paths, self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def _of_whole(self, indices: Indices) -> Indices:
        return self.numbers[indices].astype(np.int64)

    def read(self, index: int) -> Any:
        return self.inner.read(int(self.numbers[index]))

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self.inner.sample(int(self.numbers[index]), moment)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        self.inner.fill(self._of_whole(indices), out, report, moment)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        found = self.inner.readers(self._of_whole(indices), moment)
        return ((index, read) for index, (_, read) in zip(indices.tolist(), found, strict=True))

    def prefetch(self, indices: Indices) -> None:
        self.inner.prefetch(self._of_whole(indices))

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        return self.inner.fetch_ahead(self._of_whole(indices))

    def name(self, index: int) -> str:
        return self.inner.name(int(self.numbers[index]))

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        return self.inner.advice(int(self.numbers[index]), leaf, dtype_differs)

    def fingerprint(self) -> dict[str, str]:
        if self.columns is None:
            return Source.fingerprint(self)
        return fingerprint.of_parts(self.columns)

    def labels(self) -> Array | None:
        found = self.inner.labels()
        return None if found is None else found[self.numbers]

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        inner = self.inner.with_labels(change)
        return None if inner is None else SubsetSource(inner, self.numbers)

    def lengths(self) -> Array | None:
        found = self.inner.lengths()
        return None if found is None else found[self.numbers]

    def spans(self) -> Spans | None:
        found = self.inner.spans()
        return None if found is None else found.take(self.numbers.astype(np.int64))
