"""Samples returned by the hooks of a user's subclass: `load_sample` and `load_batch`."""

from __future__ import annotations

import functools
import inspect
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.calls import Call
from kloaders.core.options import TransformOptions, WorkOptions
from kloaders.core.rows import Report, Rows, copy_into_row, report_at
from kloaders.core.structure import Structure, as_arrays, cast, flatten, map_structure, sample_parts
from kloaders.places.fetching import Claim
from kloaders.plan.rng import Moment
from kloaders.plan.sampling import Sampling
from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import stores_in
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import Column, PathColumn, labels_of
from kloaders.sources.source import Source, WrappedSource
from kloaders.sources.spans import Spans

__all__ = [
    "HookSource",
    "LabelledSource",
    "LoaderGoneError",
    "NamedSource",
    "PathHookSource",
    "default_hook",
    "overrides",
]

F = TypeVar("F", bound=Callable[..., Any])


def default_hook(function: F) -> F:
    """Mark a hook of one of our own classes; a subclass with another hook overrides it."""
    function.is_default_hook = True  # type: ignore[attr-defined]  # the mark
    return function


def overrides(kind: type[Any], hook: str) -> bool:
    """Whether a class has a user's hook in place of ours."""
    return not getattr(getattr(kind, hook), "is_default_hook", False)


class Hooks(Protocol):
    """An object with hooks: a loader."""

    def load_sample(self, index: Any) -> Any: ...
    def load_batch(self, indices: Indices) -> Any: ...
    def sample_name(self, index: int) -> str: ...
    def replace(self, **changes: Any) -> Any: ...


class LoaderGoneError(BaseException):
    """The loader was deleted while samples were read for it, so that nothing waits for them any more.

    It is not an Exception, because it says nothing about the sample.
    """


class LoaderRef:
    """A reference to the loader whose hooks are called; it may or may not keep the loader alive.

    A loader refers to its source. If the source kept the loader alive, a deleted loader and its arrays
    would stay until the next garbage collection. A pickled reference keeps the loader alive.
    """

    def __init__(self, loader: Hooks, keep: bool = False) -> None:
        self.loader: Callable[[], Any] = (
            functools.partial(_same, loader) if keep else weakref.ref(loader)
        )

    def __call__(self) -> Any:
        """The loader."""
        found = self.loader()
        if found is None:
            raise LoaderGoneError
        return found

    def kept(self) -> LoaderRef:
        """A reference that keeps the loader alive."""
        return LoaderRef(self(), keep=True)

    def rebound(self, old: Any, new: Any) -> LoaderRef:
        """A reference to `new`, not keeping it alive, if this one refers to `old`; otherwise this one."""
        return LoaderRef(new) if self.loader() is old else self

    def for_worker(self) -> LoaderRef:
        """A reference to a copy of the loader with only what a worker process needs: hooks, attributes."""
        few = {
            "weights": None,
            "classes": None,
            "sampling": Sampling(),
            "padding": None,
            "ram": None,
            "echo": 1,
            "samples_per_file": 1,
        }
        slim = self().replace(transforms=TransformOptions(), work=WorkOptions(), **few)
        return LoaderRef(slim, keep=True)

    def __reduce__(self) -> Any:
        return LoaderRef, (self(), True)


def _same(loader: Any) -> Any:
    return loader


def _form_of(loader: Hooks, by_batch: bool) -> Call:
    """How to call a loader's hook.

    Raises:
        TypeError: its signature does not fit.
    """
    hook = loader.load_batch if by_batch else loader.load_sample
    if not by_batch:
        return Call(hook, "load_sample", ("sample",), ("rng", "epoch"), returns=_SAMPLE).form()
    if "rng" in inspect.signature(hook).parameters:
        raise TypeError(
            "load_batch takes rng, but each sample has its own random numbers: take rngs, a list with "
            "one generator for each index."
        )
    return Call(hook, "load_batch", ("indices",), ("rngs", "epoch"), returns=_SAMPLE).form()


_SAMPLE = "x, (x, y) or (x, y, weights)"


class HookSource(Source):
    """Samples that a loader's `load_sample(index)` or `load_batch(indices)` returns.

    Args:
        loader: the loader with the hooks.
        samples: the number of samples.
        dtype: the dtype of x; None keeps the hook's.
        by_batch: whether to call `load_batch` instead of `load_sample`.
        base: the source without hooks, which provides sample names and advice.
    """

    runs_user_code = True

    def __init__(
        self,
        loader: Hooks,
        samples: int,
        dtype: np.dtype[Any] | None = None,
        *,
        by_batch: bool = False,
        base: Source | None = None,
    ) -> None:
        self.hooks = LoaderRef(loader)
        self.samples, self.dtype = samples, dtype
        self.by_batch = self.whole_batches = by_batch
        self.base = base
        self.form = _form_of(loader, by_batch)
        self.seed = 0
        if not self.form.plain:
            self.random = True
            self.not_kept = (
                f"{'load_batch' if by_batch else 'load_sample'} takes random numbers or the epoch, so "
                "that a sample differs between epochs and cannot be cached: read all of it there, "
                "and make the random choices in transform=."
            )
        if base is not None:
            self.paths, self.columns, self.in_order = base.paths, base.columns, base.in_order
            # A load_batch hook reads its files itself.
            self.fetches = base.fetches and not (by_batch and base.columns is not None)

    def __len__(self) -> int:
        return self.samples

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        if not self.by_batch:
            return self.load(index, moment)
        rows = self._batch(np.array([index], np.int64), moment)
        found: tuple[Any, ...] = map_structure(lambda a: np.asarray(a)[0, ...], rows)
        return found

    def load(self, index: int, moment: Moment) -> tuple[Any, ...]:
        """The result of `load_sample`, as a tuple of parts."""
        return self._cast(sample_parts(as_arrays(self._loaded(index, index, moment))))

    def _loaded(self, what: Any, index: int, moment: Moment) -> Any:
        """Call `load_sample` with `what` for the sample of this number."""
        hook, form = self.hooks().load_sample, self.form
        if form.plain:
            return hook(what)
        rng = moment.rng(self.seed, index, "load") if form.takes("rng") else None
        return form.call(hook, sample=what, rng=rng, epoch=moment.epoch)

    def _batch(self, indices: Indices, moment: Moment) -> tuple[Any, ...]:
        """The result of `load_batch`, as a tuple of parts."""
        return self._cast(sample_parts(as_arrays(self._loaded_batch(indices, moment))))

    def _loaded_batch(self, indices: Indices, moment: Moment) -> Any:
        hook, form = self.hooks().load_batch, self.form
        if form.plain:
            return hook(indices)
        rngs = None
        if form.takes("rngs"):
            rngs = [
                moment.part(row).rng(self.seed, index, "load")
                for row, index in enumerate(indices.tolist())
            ]
        return form.call(hook, indices=indices, rngs=rngs, epoch=moment.epoch)

    def _cast(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """The parts, with x in the requested dtype."""
        if self.dtype is None:
            return parts
        return cast(parts[0], self.dtype), *parts[1:]

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        if self.by_batch:
            self._fill_by_batch(indices, out, report, moment)
        else:
            super().fill(indices, out, report, moment)

    def _fill_by_batch(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        stall_watch.at(self, int(indices[0]) if len(indices) else 0)
        try:
            leaves = flatten(self._batch(indices, moment))
        except Exception as error:  # a user's hook may raise anything
            if len(indices) == 1:
                report(0, error)
                return
            for row in range(len(indices)):  # one at a time, to find the sample at fault
                one = slice(row, row + 1)
                at = report_at(report, row)
                self._fill_by_batch(indices[one], out.part(one), at, moment.part(one))
            return
        for leaf, rows in enumerate(leaves):
            if len(rows) != len(indices):
                raise ValueError(
                    f"load_batch({len(indices)} indices) returned an array of {len(rows)} rows, "
                    "expected one row for each index, in their order."
                )
            array = out.arrays[leaf]
            if rows.shape[1:] == array.shape[1:] and rows.dtype == array.dtype:
                array[...] = rows
            else:
                for row in range(len(rows)):
                    copy_into_row(rows[row], array, row, leaf, report)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        parts: tuple[Any, ...] | None = None
        if self.by_batch:
            with suppress(Exception):  # then read one at a time, to find the sample at fault
                parts = self._batch(indices, moment)
        if parts is None:
            yield from super().readers(indices, moment)
            return
        for row, index in enumerate(indices.tolist()):
            yield index, functools.partial(map_structure, operator.itemgetter(row), parts)

    def fetch_ahead(self, indices: Indices) -> Sequence[Claim]:
        return () if self.base is None or not self.fetches else self.base.fetch_ahead(indices)

    def name(self, index: int) -> str:
        return super().name(index) if self.base is None else self.base.name(index)

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        if self.base is None:
            return super().advice(index, leaf, dtype_differs)
        return self.base.advice(index, leaf, dtype_differs)

    def fingerprint(self) -> dict[str, str]:
        return super().fingerprint() if self.base is None else self.base.fingerprint()

    def extent(self) -> Iterable[Array]:
        return () if self.base is None else self.base.extent()

    def spans(self) -> Spans | None:
        return None if self.base is None else self.base.spans()

    def with_seed(self, seed: int) -> Source:
        found: Source = self._with(seed=seed) if self.random else self
        return found

    def held(self) -> Source:
        found: Source = self._with(hooks=self.hooks.kept())
        return found

    def rebound(self, old: Any, new: Any) -> Source:
        found: Source = self._with(hooks=self.hooks.rebound(old, new))
        return found

    def owner(self) -> Any:
        return self.hooks.loader()

    def for_worker(self) -> Source:
        base = None if self.base is None else self.base.for_worker()
        found: Source = self._with(hooks=self.hooks.for_worker(), base=base)
        return found

    def stores(self) -> list[Store]:
        return [] if self.base is None else self.base.stores()

    def close(self) -> None:
        if self.base is not None:
            self.base.close()


class PathHookSource(HookSource):
    """Inputs that `load_sample(path)` or `load_batch(indices)` of a loader of files returns.

    Args:
        inputs: columns of x; the hook is called for each column of files.
        base: the loader's source without the hook.
    """

    def __init__(
        self,
        loader: Hooks,
        inputs: Structure,
        dtype: np.dtype[Any] | None,
        *,
        by_batch: bool,
        base: Source,
    ) -> None:
        super().__init__(loader, len(base), dtype, by_batch=by_batch, base=base)
        self.inputs = inputs
        #: Whether the hook returns one of several inputs, rather than a whole sample.
        self.several = isinstance(inputs, (tuple, dict))

    def load(self, index: int, moment: Moment) -> tuple[Any, ...]:
        if not self.several:
            assert self.paths is not None
            return self._cast(
                sample_parts(as_arrays(self._loaded(self.paths[index], index, moment)))
            )

        def value(column: Column) -> Any:
            if isinstance(column, PathColumn):
                return self._loaded(column.paths[index], index, moment)
            return column.read(index)

        return self._cast((as_arrays(map_structure(value, self.inputs)),))

    def _batch(self, indices: Indices, moment: Moment) -> tuple[Any, ...]:
        got = as_arrays(self._loaded_batch(indices, moment))
        return self._cast((got,) if self.several else sample_parts(got))


class LabelledSource(WrappedSource):
    """Samples whose x comes from a source, and whose y comes from columns.

    Args:
        inner: the source of x.
        labels: columns of y, with one value for each sample.
        columns: the loader's own columns of x and y.
    """

    def __init__(self, inner: Source, labels: Structure, columns: tuple[Any, ...]) -> None:
        super().__init__(inner)
        self.label_columns, self.columns = labels, columns

    def read(self, index: int) -> Any:
        return self.sample(index, Moment())

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        return self._labelled(index, self.inner.sample(index, moment))

    def _labelled(self, index: int, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(parts) > 1:
            raise TypeError(
                f"the hook returned a tuple of {len(parts)}, which is a sample (x, y), but the loader "
                "also has labels. For two inputs return a dict, {'a': a, 'b': b}, or a tuple "
                "in a tuple, ((a, b),); if the hook returns inputs and labels, leave labels= out."
            )
        return *parts, map_structure(lambda column: column.read(index), self.label_columns)

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        inputs = len(flatten(out.form[0]))
        self.inner.fill(indices, Rows(out.form[:1], out.arrays[:inputs]), report, moment)
        for leaf, column in enumerate(flatten(self.label_columns), inputs):
            column.fill(indices, out.arrays[leaf], leaf, report)

    def readers(
        self, indices: Indices, moment: Moment
    ) -> Iterator[tuple[int, Callable[[], tuple[Any, ...]]]]:
        for index, read in self.inner.readers(indices, moment):
            yield index, functools.partial(self._read_labelled, index, read)

    def _read_labelled(self, index: int, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        return self._labelled(index, read())

    def fingerprint(self) -> dict[str, str]:
        assert self.columns is not None
        return fingerprint.of_parts(self.columns)

    def labels(self) -> Array | None:
        return labels_of(self.columns)

    def with_labels(self, change: Callable[[Any], Any]) -> Source | None:
        assert self.columns is not None
        labels = map_structure(change, self.label_columns)
        found: Source = self._with(label_columns=labels, columns=(self.columns[0], labels))
        return found

    def stores(self) -> list[Store]:
        return [*super().stores(), *stores_in(self.label_columns)]


class NamedSource(WrappedSource):
    """A source whose sample names come from a loader's `sample_name`."""

    def __init__(self, inner: Source, loader: Hooks) -> None:
        super().__init__(inner)
        self.hooks = LoaderRef(loader)

    def name(self, index: int) -> str:
        return str(self.hooks().sample_name(index))

    def held(self) -> Source:
        found: Source = self._with(inner=self.inner.held(), hooks=self.hooks.kept())
        return found

    def rebound(self, old: Any, new: Any) -> Source:
        found: Source = self._with(
            inner=self.inner.rebound(old, new), hooks=self.hooks.rebound(old, new)
        )
        return found

    def owner(self) -> Any:
        return self.hooks.loader()

    def for_worker(self) -> Source:
        found: Source = self._with(inner=self.inner.for_worker(), hooks=self.hooks.for_worker())
        return found
