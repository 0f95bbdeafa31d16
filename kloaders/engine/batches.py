"""One batch under construction: rows are filled by threads, then checked, repaired and delivered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

import numpy as np

from kloaders.core.arrays import Array, Indices, Mask
from kloaders.core.errors import SampleError, never_skipped
from kloaders.core.memory import BufferPool
from kloaders.core.rows import Report, RowMismatch, Rows
from kloaders.core.structure import Structure, flatten, unflatten
from kloaders.core.threads import usable_cores
from kloaders.engine.delivery import Delivery
from kloaders.engine.lookahead import Build, Engine
from kloaders.engine.retries import Names, read_again
from kloaders.engine.specs import SampleSpecs
from kloaders.plan.rng import Moment, sample_rng
from kloaders.sources.cache.columns import paused
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["AnyShapeBuild", "BatchBuild", "Maker", "Pool", "in_storage_order"]

# The number of bytes read at a time if all samples are read in order: 32 MiB, enough for a few threads.
_RUN_BYTES, _RUN_SAMPLES = 2**25, 1024

# A replacement that fails to load is replaced this many times; after that the data are at fault.
_REPLACEMENTS = 20


class Pool(Protocol):
    """Makes samples outside this process: `ProcessPool` in worker processes, `RayPool` on Ray actors."""

    kind: str
    count: int
    memory: Any

    @property
    def usable(self) -> bool: ...
    def fill(
        self,
        pipeline: SamplePipeline,
        indices: Indices,
        out: Rows,
        report: Report,
        moment: Moment,
        raw: bool,
        stored: Rows | None = None,
    ) -> None: ...
    def look(self, pipeline: SamplePipeline, index: int, raw: bool) -> Structure: ...
    def close(self) -> None: ...


class Maker(Protocol):
    """What a batch under construction needs from its maker (`runner.Runner`)."""

    pipeline: SamplePipeline
    specs: SampleSpecs
    log: ErrorLog
    pool: BufferPool
    delivery: Delivery

    def process_pool(self) -> Pool | None:
        """The worker processes or actors; None if this process reads the samples itself."""


class BatchBuild:
    """Fills the arrays of one batch; the engine's unit of work (`lookahead.Build`).

    Args:
        maker: loads the samples.
        indices: sample numbers, int64.
        moment: the samples' random numbers are derived from it.
        raw: whether to leave out the transform.
        leaves: arrays to fill, one row per sample; allocated if not given.
        batch: the batch number in the epoch, for batch_transform; None leaves that out.
    """

    def __init__(
        self,
        maker: Maker,
        indices: Indices,
        moment: Moment,
        raw: bool = False,
        leaves: list[Array] | None = None,
        batch: int | None = None,
    ) -> None:
        self.maker = maker
        self.pipeline, self.log = maker.pipeline, maker.log
        self.indices = indices
        self.rows = len(indices)
        self.moment, self.raw, self.batch = moment, raw, batch
        self.form: Structure = maker.specs.raw if raw else maker.specs.delivered
        self.processes = maker.process_pool()
        self.keeps_alive = self.pipeline.source.owner()  # until the batch is made
        self._leaves = leaves
        self.troubles: list[tuple[int, Exception]] = []
        self._lock = threading.Lock()

    @property
    def leaves(self) -> list[Array]:
        """The arrays, allocated when the first row is filled.

        Memory allocated ten batches earlier would have left the processor's cache by then.
        """
        if self._leaves is None:
            with self._lock:
                if self._leaves is None:
                    self._leaves = self._fresh()
        return self._leaves

    def _fresh(self) -> list[Array]:
        needs = [((self.rows, *s.fixed), s.dtype) for s in flatten(self.form)]
        if self.processes is not None:
            taken: list[Array] = self.processes.memory.take(needs)
            return taken
        return [self.maker.pool.take(shape, dtype) for shape, dtype in needs]

    def _load(self, indices: Indices, rows: slice, out: list[Array], report: Report) -> None:
        """Fill rows with these samples, in worker processes if there are any."""
        target, moment = Rows(self.form, out), self.moment.part(rows)
        if self.processes is None:
            self.pipeline.fill(indices, target, report, moment, self.raw)
        else:
            self.processes.fill(self.pipeline, indices, target, report, moment, self.raw)

    def fill(self, start: int, stop: int) -> None:
        """Fill rows start to stop."""
        rows, out, indices = slice(start, stop), self.leaves, self.indices
        if stop - start < self.rows:
            out, indices = [leaf[rows] for leaf in out], indices[rows]
        self._load(indices, rows, out, self._report_from(start))

    def _report_from(self, start: int) -> Report:
        """A report function that records problems in rows counted from `start`."""

        def report(row: int, error: Exception) -> None:
            if isinstance(error, RowMismatch):
                error.row += start
            with self._lock:
                self.troubles.append((start + row, error))

        return report

    def finish(self) -> Any:
        """The complete batch, as Keras accepts it."""
        indices, leaves = self.finish_leaves()
        if not len(indices):  # Keras does not accept an empty batch
            indices, leaves = self.one_instead()
        parts = self.transformed(unflatten(self.form, leaves), indices)
        return self.maker.delivery(parts, indices)

    def transformed(self, parts: tuple[Any, ...], indices: Indices) -> tuple[Any, ...]:
        """The parts of the batch after `batch_transform`, if it applies."""
        if self.batch is None or self.pipeline.transforms.batch_transform is None:
            return parts
        made: tuple[Any, ...] = self.pipeline.batch_transformed(
            parts, self.moment.epoch, self.batch, indices
        )
        return made

    def finish_leaves(self) -> tuple[Indices, list[Array]]:
        """Sample numbers and arrays of the final rows; may be empty."""
        keep = self.settle()
        if keep is None:
            if self.processes is not None:
                self._leaves = self.processes.memory.keep(self.leaves)
            return self.indices, self.leaves
        return self.indices[keep], [leaf[keep] for leaf in self.leaves]

    def settle(self) -> Mask | None:
        """Handle rows that failed or do not fit; return the rows to keep, None for all."""
        if not self.troubles:
            return None
        self.troubles.sort(key=lambda trouble: trouble[0])
        failed = {row: e for row, e in self.troubles if not isinstance(e, RowMismatch)}
        self.troubles = [t for t in self.troubles if isinstance(t[1], RowMismatch)]
        gone: dict[int, Exception] = {}
        for again in range(_REPLACEMENTS):  # a replacement may not fit, either
            if failed:
                self._mend(failed, again)
                gone |= failed
            odd = [e for row, e in self.troubles if isinstance(e, RowMismatch) and row not in gone]
            self.troubles, failed = [], {}
            for leaf in sorted({e.leaf for e in odd}):
                there = [e for e in odd if e.leaf == leaf and e.row not in failed]
                if there:
                    failed |= self._fit(leaf, there, gone | failed)
            if not failed:
                kept = np.array([row not in gone for row in range(self.rows)])
                return kept if gone else None
            if self.log.policy == "raise":
                break
        raise failed[min(failed)]

    # ------------------------------------------------------------------ samples that failed

    def _mend(self, failed: dict[int, Exception], again: int) -> None:
        """Apply on_error; samples that remain in `failed` are left out of the batch.

        again: the number of earlier rounds of replacements.
        """
        log = self.log
        self._read_again(failed)
        if not failed:
            return
        errors = {
            row: log.explained(int(self.indices[row]), error) for row, error in failed.items()
        }
        if refused := never_skipped(errors.values()):
            raise refused
        for error in errors.values():
            log.record(error)
        if log.policy == "raise":
            raise next(iter(errors.values()))
        if log.policy == "replace":
            self.indices = self.indices.copy()
            for row, error in errors.items():
                self._replace(row, error, again)
            failed.clear()

    def _read_again(self, failed: dict[int, Exception]) -> None:
        """Read rows with temporary errors again; rows that load are removed from `failed`."""

        def number(row: int) -> int:
            return int(self.indices[row])

        def read(row: int) -> Exception | None:
            return self._load_one(number(row), row)

        def read_other(index: int) -> Exception | None:
            scratch = [np.empty((1, *leaf.shape[1:]), leaf.dtype) for leaf in self.leaves]
            return self._load_one(index, 0, scratch)

        read_again(failed, read, read_other, number, Names(self.log.samples, self.log.name))

    def _load_one(
        self, index: int, row: int, scratch: list[Array] | None = None
    ) -> Exception | None:
        """Read one sample into a row, or into other arrays; return its error, if any."""
        wrong: list[Exception] = []

        def report(_: int, found: Exception) -> None:
            wrong.append(found)

        rows = slice(row, row + 1)
        if scratch is None:  # earlier problems of the row no longer count
            self.troubles = [trouble for trouble in self.troubles if trouble[0] != row]
        out = [leaf[rows] for leaf in self.leaves] if scratch is None else scratch
        self._load(np.array([index], np.int64), rows, out, report)
        for odd in wrong if scratch is None else ():
            if isinstance(odd, RowMismatch):
                odd.row = row
                self.troubles.append((row, odd))
        return next((error for error in wrong if not isinstance(error, RowMismatch)), None)

    def one_instead(self) -> tuple[Indices, list[Array]]:
        """A batch of one other sample, for a batch in which all samples were skipped."""
        first = int(self.indices[0])
        error = next((e for e in self.log.errors if e.index == first), None)
        self.troubles.clear()
        self.indices = self.indices.copy()
        self._replace(0, error or self.log.nothing_left(first))
        odd = [trouble for _, trouble in self.troubles if isinstance(trouble, RowMismatch)]
        rest: dict[int, Exception] = dict.fromkeys(range(1, self.rows), LookupError())
        for leaf in sorted({e.leaf for e in odd}):
            self._fit(leaf, [e for e in odd if e.leaf == leaf], rest)
        return self.indices[:1], [leaf[:1] for leaf in self.leaves]

    def _replace(self, row: int, error: SampleError, again: int = 0) -> None:
        """Load a replacement sample, the same one in every thread and process."""
        log = self.log
        rng = sample_rng(self.pipeline.seed, self.moment.epoch, error.index, draw=2**32 + again)
        for _ in range(_REPLACEMENTS):
            self.indices[row] = int(rng.integers(log.samples))
            failure = self._load_one(int(self.indices[row]), row)
            failed = {} if failure is None else {row: failure}
            self._read_again(failed)
            if not failed:
                return
            log.record(log.explained(int(self.indices[row]), failed[row]))
        raise SampleError(
            error.index,
            error.name,
            f"{error.cause} (and {_REPLACEMENTS} samples drawn to replace it did not load either)",
        )

    # ------------------------------------------------------------------ samples that do not fit

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        """Change the array of a leaf so that rows fit; return an error for each row that still does not.

        Rows that fit stay. If none fits, the batch uses the most frequent shape and dtype.
        """
        by_row = {o.row: o.array for o in odd}
        rows = [r for r in range(self.rows) if r not in failed]
        model = next((r for r in rows if r not in by_row), None)
        if model is None:
            forms = [(by_row[r].shape, by_row[r].dtype) for r in rows]
            model = rows[max(range(len(rows)), key=lambda k: forms.count(forms[k]))]
            first = by_row[model]
            new = self.maker.pool.take((self.rows, *first.shape), first.dtype)
            for row, array in list(by_row.items()):
                if (array.shape, array.dtype) == (first.shape, first.dtype):
                    new[row] = by_row.pop(row)
            self.leaves[leaf] = new
        like = self.leaves[leaf][model]
        return {row: self._misfit(leaf, row, array, model, like) for row, array in by_row.items()}

    def _misfit(self, leaf: int, row: int, got: Array, model: int, like: Array) -> SampleError:
        """The error for a row whose array differs from another row's."""
        index, other = int(self.indices[row]), self.log.name(int(self.indices[model]))
        before_labels, before_weights = (len(flatten(self.form[:k])) for k in (1, 2))
        its, of = ("it", "") if leaf < before_labels else ("its label", "the label of ")
        its, of = (its, of) if leaf < before_weights else ("its weights", "the weights of ")
        return self._differs(
            index,
            leaf,
            got.dtype != like.dtype,
            f"{its} is {got.dtype} of shape {got.shape}, but {of}{other}, in the same batch, is "
            f"{like.dtype} of shape {like.shape}.",
        )

    def _differs(self, index: int, leaf: int, dtype_differs: bool, said: str) -> SampleError:
        """The error for a sample that differs from others, with advice."""
        inputs = len(flatten(self.maker.specs.raw[0]))
        advice = self.pipeline.advice(index, leaf, dtype_differs, self.raw, inputs)
        return SampleError(index, self.log.name(index), f"{said} {advice}")


class AnyShapeBuild(BatchBuild):
    """Several samples as leaves; a leaf whose samples differ in shape is a list of arrays."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lists: dict[int, list[Array]] = {}

    def _fit(
        self, leaf: int, odd: list[RowMismatch], failed: dict[int, Exception]
    ) -> dict[int, Exception]:
        spec = flatten(self.form)[leaf]
        rows = self.lists.get(leaf) or list(self.leaves[leaf])  # views: rows may still be replaced
        unfit: dict[int, Exception] = {}
        for one in odd:
            if one.array.dtype != spec.dtype:
                index, model = int(self.indices[one.row]), self.maker.specs.model_sample
                said = (
                    f"it is {one.array.dtype}, but {self.log.name(model)} is {spec.dtype}, and all "
                    "samples here need one dtype."
                )
                unfit[one.row] = self._differs(index, leaf, True, said)
            else:
                rows[one.row] = one.array
        self.lists[leaf] = rows
        return unfit

    def finish(self) -> tuple[Indices, list[Any]]:
        """Sample numbers and leaves of the rows that loaded."""
        keep = self.settle()
        leaves: list[Any] = [self.lists.get(k, leaf) for k, leaf in enumerate(self.leaves)]
        if keep is None:
            return self.indices, leaves
        return self.indices[keep], [
            list(itertools.compress(leaf, keep)) if isinstance(leaf, list) else leaf[keep]
            for leaf in leaves
        ]


def in_storage_order(
    maker: Maker,
    start: int,
    stop: int,
    sample_bytes: int,
    make: Callable[[Indices], Build],
    threads: int | None = None,
) -> Generator[tuple[int, Any], None, None]:
    """Read samples start to stop in groups, prefetched by threads.

    Args:
        maker: loads the samples.
        start: the first sample.
        stop: the end, excluded.
        sample_bytes: bytes per sample.
        make: makes the build for some sample numbers.
        threads: the number of threads; None for automatic.

    Yields:
        The number of requested samples, and the result of the build.
    """
    size = max(1, min(_RUN_SAMPLES, _RUN_BYTES // max(1, sample_bytes)))
    depth, whole = 2, maker.pipeline.source.whole_batches
    if whole:
        size = min(size, maker.delivery.batch_size)
        depth = max(depth, usable_cores() if threads is None else threads)
    engine = Engine(threads, usable_cores(), depth, whole=whole)

    def begin(first: int, wait: bool) -> Build:
        return make(np.arange(first, min(first + size, stop), dtype=np.int64))

    try:
        with paused(maker.pipeline.source.stores()):  # allocated by the caller
            for first in range(start, stop, size):
                run = engine.get(first, range(first + size, stop, size), begin)
                yield min(size, stop - first), run
    finally:
        engine.close()
