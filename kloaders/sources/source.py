"""The interface of a source: numbered samples, without batches, order or Keras."""

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

    For your own format, store or protocol override `__len__` and `read`; all other methods have
    defaults built on these two. `SequenceLoader(source, batch_size)` makes a loader from it. The page
    "Add a source" has an example.

    Threads: a loader calls all methods from several threads at once. Worker processes get a pickled
    copy, so keep open files in a `PerThread`, or out of `__getstate__`.

    Attributes:
        runs_user_code: reading a sample calls a user's function, which may hold the GIL.
        random: samples depend on the moment that is passed to `sample` and `fill`.
        not_kept: why samples may not be cached or packed as they are read; "" if they may.
        reads_many: `fill` is faster with many samples than with one at a time.
        whole_batches: `fill` needs all samples of a batch in one call, because each call is expensive.
        neighbours: adjacent samples are read together, such as rows of one row group.
        in_order: reading a sample requires reading all samples before it, as in compressed files.
        fetches: samples are remote, and `fetch_ahead` fetches them.
        columns: if each array of a sample comes from its own column, these columns, nested like a
            sample; otherwise None.
        paths: the file of each sample; None if samples are not single files.
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
        """The number of samples."""
        raise NotImplementedError

    def read(self, index: int) -> Any:
        """Read one sample: x, (x, y) or (x, y, weights), of arrays, numbers, or tuples and dicts of them.

        Args:
            index: the sample's number, from 0 to len(self) - 1.

        Raises:
            Exception: any error becomes a SampleError that names the sample, or is handled according
                to the loader's `on_error`.
        """
        if type(self).sample is Source.sample:
            raise NotImplementedError(f"{type(self).__name__} must override read(index).")
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        """Read one sample as a tuple (x,), (x, y) or (x, y, weights) of new arrays. Calls `read` by default.

        Override this instead of `read` if samples differ between epochs (`random`):
        `moment.rng(seed, index)` is the random generator of a sample.
        """
        return as_sample(self.read(index))

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        """Fill row r of `out` with sample indices[r]. By default it calls `sample` for each.

        Override this if many samples are read faster at once. The arrays in `out` belong to this call
        until it returns; several threads call it at the same time, each with its own rows.

        Args:
            indices: sample numbers, int64, in any order, possibly with repetitions.
            out: arrays with a row for each of these samples.
            report: call report(row, error) for a sample that fails to load; its row may then contain
                anything. `out.put` reports samples whose arrays do not fit.
            moment: see `sample`.
        """
        for row, index in enumerate(indices.tolist()):
            stall_watch.at(self, index)
            try:
                out.put(row, self.sample(index, moment.part(row)), report)
            except Exception as error:  # user code failed for this sample
                report(row, error)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        """Yield for each of these samples its number, and a function that returns what `sample` returns.

        Override this if many samples are read faster at once and `fill` cannot be used, because each
        sample goes through a transform.
        """
        for row, index in enumerate(indices.tolist()):
            yield index, functools.partial(self.sample, index, moment.part(row))

    def prefetch(self, indices: Indices) -> None:
        """Called for samples that will be read soon, after those that are being read already."""

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        """Begin to fetch the remote data of these samples; corresponds to `prefetch` for local data.

        Returns:
            Claims, to be released when the samples have been read or are no longer wanted.
        """
        return ()

    def prepare(self) -> None:
        """Called before the first sample is read; raises errors that no single sample causes."""

    # ------------------------------------------------------------------ properties

    def name(self, index: int) -> str:
        """The name of a sample, such as a file or a row, for errors and quarantine files."""
        return f"index {index}"

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        """Advice for an array of a sample whose shape or dtype differs from those of other samples.

        Args:
            index: the sample's number.
            leaf: the position of the array in x, in the order of `flatten`; labels have other advice.
            dtype_differs: whether the dtype differs; otherwise the shape does.
        """
        if dtype_differs:
            return "Pass dtype=, or convert in the hook."
        return (
            "Give them one shape in the hook or in transform=, or use kl.padded_batches(loader) or "
            "batch_size=1."
        )

    def fingerprint(self) -> dict[str, str]:
        """Short digests that identify these samples; a saved position is valid only for the same samples.

        By default they are made from sample names, which is fast and reads no sample.
        """
        return {"data": fingerprint.of_names(self.name, len(self), self.extent())}

    def extent(self) -> Iterable[Array]:
        """Arrays that are part of the fingerprint in addition to names, such as the sizes of files."""
        return ()

    def labels(self) -> Array | None:
        """The labels of all samples, if they are one array that is known without reading samples."""
        return None

    def lengths(self) -> Array | None:
        """The length of x along its first axis for each sample, if known without reading samples."""
        return None

    def spans(self) -> Spans | None:
        """The rows of a series that each sample covers, if samples may share rows; otherwise None."""
        return None

    def delivered(self, spec: Structure) -> Structure:
        """`spec`, the spec of one sample, with None for dimensions that may vary between samples."""
        return spec

    # ------------------------------------------------------------------ derived sources

    def take(self, numbers: Indices) -> Source:
        """A source of the samples with these numbers, in this order; nothing is read or copied."""
        return SubsetSource(self, numbers)

    def without_transforms(self) -> Source:
        """This source for validation: without the transforms of the loaders that it consists of."""
        return self

    def with_seed(self, seed: int) -> Source:
        """This source with a loader's seed, for samples that are `random`."""
        return self

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        """This source with label columns replaced by `change(column)`; None if it has no label columns."""
        return None

    def held(self) -> Source:
        """This source, keeping alive the loader that it reads with; see `owner`."""
        return self

    def rebound(self, old: Any, new: Any) -> Source:
        """This source, calling the hooks of the loader `new` in place of those of `old`."""
        return self

    def owner(self) -> Any:
        """The loader whose hooks are called, and which must live while samples are read; or None."""
        return None

    def for_worker(self) -> Source:
        """The part of this source that a worker process needs."""
        return self

    def _with(self, **attributes: Any) -> Any:
        """A shallow copy with some attributes changed."""
        new = copy.copy(self)
        for name, value in attributes.items():
            setattr(new, name, value)
        return new

    # ------------------------------------------------------------------ resources

    def stores(self) -> list[Store]:
        """The caches in front of this source, and of the sources that it reads from."""
        return []

    def close(self) -> None:
        """Close open files; they are opened again when a sample is read."""


class WrappedSource(Source):
    """A source that changes another one. Methods that it does not override call the inner source's."""

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


# The attributes that a wrapper copies from the inner source.
_FACTS = (
    *("runs_user_code", "random", "not_kept", "reads_many", "whole_batches", "neighbours"),
    *("in_order", "columns", "paths", "fetches"),
)


class SubsetSource(WrappedSource):
    """Some samples of another source, selected by number without copying.

    The inner source is called with its own numbers, because a hook may use them to look samples up.
    Takes 4 bytes of RAM per sample, or 8 if there are more than four billion.
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
