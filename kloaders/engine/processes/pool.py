"""Worker processes for hooks that hold the GIL. They fill rows in shared memory, and may die.

A thread of the engine passes its part of a batch to a worker and waits. The worker's result depends
only on its arguments, so if a worker dies, another one repeats the part.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from kloaders.core.arrays import Indices
from kloaders.core.errors import WorkerPoolError
from kloaders.core.interrupts import held
from kloaders.core.messages import warn
from kloaders.core.rows import Report, Rows
from kloaders.core.structure import Structure, without_specs
from kloaders.engine.processes import template
from kloaders.engine.processes.handle import Raised, WorkerHandle, WorkerLost
from kloaders.engine.processes.pickling import PickledPipeline
from kloaders.engine.processes.shared_memory import Block, SharedBlocks
from kloaders.engine.processes.timeouts import Timeouts
from kloaders.engine.processes.worker import is_worker
from kloaders.plan.rng import Moment
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["ProcessPool"]

# A sample at which this many workers died is at fault, rather than the machine.
_DEATHS = 3
# The same limit for consecutive workers that die while starting.
_EARLY_DEATHS = 10
# The number of seconds that idle workers get to exit by themselves before they are killed.
_SHUTDOWN_SECONDS = 0.7


class ProcessPool:
    """Up to `count` processes, each with a copy of a pipeline.

    All start with the first job, run until `close`, and are replaced if they die. The pool refers to
    the pickled pipeline and never to a loader, so that an unused loader is garbage-collected and its
    workers end.

    Threads: several may call all methods at once.
    """

    kind = "processes"

    def __init__(self, pipeline: SamplePipeline, count: int) -> None:
        if is_worker():
            raise RuntimeError(
                "a worker process, which imports your script again, requested a batch itself: put "
                "the code that builds and trains the model under `if __name__ == '__main__':`, or pip "
                "install cloudpickle, with which workers need not import the script."
            )
        self.count = count
        self.memory = SharedBlocks()
        self.timeouts = Timeouts.from_environment()
        self._group = _WorkerGroup(pipeline, self.timeouts)
        weakref.finalize(self, _WorkerGroup.close, self._group)

    @property
    def usable(self) -> bool:
        """Whether it is open and this process is not a fork of the one that created it."""
        return not self._group.closed and self._group.pid == os.getpid()

    @property
    def pids(self) -> list[int]:
        """Process ids of the current workers."""
        return [worker.process.pid for worker in list(self._group.all)]

    def fill(
        self,
        pipeline: SamplePipeline,
        indices: Indices,
        out: Rows,
        report: Report,
        moment: Moment,
        raw: bool,
        stored: Rows | None = None,
    ) -> None:
        """Run `pipeline.fill` in a worker process.

        A sample that repeatedly kills its worker, or hangs, is reported like one that does not load.
        Blocks until all rows are done, with the GIL released.

        stored: the samples before the transform, if they need not be read.
        """
        rows = len(indices)
        target = self.memory.locate(out.arrays)
        if target is None:  # not shared memory: fill a shared block, then copy
            needs = [(leaf.shape, leaf.dtype) for leaf in out.arrays]
            inner = Rows(out.form, self.memory.take(needs))
            self.fill(pipeline, indices, inner, report, moment, raw, stored)
            for leaf, made in zip(out.arrays, inner.arrays, strict=True):
                leaf[...] = made
            return
        blocks, source = [target.block], None
        if stored is not None:
            given = self.memory.take([(leaf.shape, leaf.dtype) for leaf in stored.arrays])
            for leaf, rows_of in zip(given, stored.arrays, strict=True):
                leaf[...] = rows_of
            source = self.memory.locate(given)
            assert source is not None
            blocks.append(source.block)
        where = target.layout, source and source.layout
        forms = without_specs(out.form), None if stored is None else without_specs(stored.form)

        def job(at: int, step: int) -> tuple[Any, ...]:
            return "fill", where, indices, at, step, moment, raw, forms

        def name(row: int) -> str:
            return f"sample {indices[row]} ({pipeline.source.name(int(indices[row]))})"

        # load_batch needs many samples at once; otherwise the worker reports each sample.
        step = rows if stored is None and pipeline.source.whole_batches else 1
        self._run(job, rows, step, name, report, blocks)

    def look(self, pipeline: SamplePipeline, index: int, raw: bool) -> Structure:
        """The specs of one sample; raises the sample's error."""

        def report(row: int, error: Exception) -> NoReturn:
            raise error

        def name(row: int) -> str:
            return f"sample {index} ({pipeline.source.name(index)})"

        def job(at: int, step: int) -> tuple[Any, ...]:
            return "look", index, raw

        return self._run(job, 1, 1, name, report)

    def close(self) -> None:
        """End the workers, within about a second. Running jobs fail."""
        self._group.close()

    # ------------------------------------------------------------------ one job, with retries

    def _run(
        self,
        job: Callable[[int, int], tuple[Any, ...]],
        rows: int,
        step: int,
        name: Callable[[int], str],
        report: Report,
        blocks: Sequence[Block] = (),
    ) -> Any:
        """Run `job(at, step)`: rows from `at` on, `step` rows at a time."""
        at = 0
        gone: Counter[int] = Counter()
        while True:
            troubles: list[tuple[int, Exception]] = []
            try:
                with self._group.worker(self.count) as worker:
                    result = worker.ask(job(at, step), troubles, blocks, self.memory.numbers())
            except WorkerLost as end:
                row = end.row
                gone[row] += 1
                # All rows before that row are done; the row itself may be partly done.
                for trouble in [t for t in troubles if 0 <= t[0] < row]:
                    report(*trouble)
                at = max(at, row)
                if row < 0:
                    if gone[row] >= _EARLY_DEATHS:
                        raise WorkerPoolError(
                            f"worker processes end before they do any work ({end}); "
                            f"{gone[row]} were tried."
                        ) from None
                    continue
                alone = step == 1
                step = 1 if end.hangs or gone[row] > 1 else step
                if not alone or gone[row] < (2 if end.hangs else _DEATHS):
                    warn(f"a worker process {end} at {name(row)}; another one tries again.")
                    continue
                report(row, end.as_error(gone[row], self.timeouts))
                at = row + 1
                if at >= rows:
                    return None
            else:
                for trouble in troubles:
                    report(*trouble)
                if isinstance(result, Raised):
                    raise result.error
                return result


class _WorkerGroup:
    """The workers of a pool, and the arguments that start them."""

    def __init__(self, pipeline: SamplePipeline, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.pickled = PickledPipeline(pipeline)
        self.all: list[WorkerHandle] = []
        self.free: list[WorkerHandle] = []
        self.closed = False
        self.change = threading.Condition()
        self.pid = os.getpid()
        self.early = 0
        # When this process ends in any way, this pipe closes, and the workers exit.
        with held():
            self.life = os.pipe()
            self._close_life = weakref.finalize(self, _close_both, *self.life)
            self._close_life.atexit = False

    @contextlib.contextmanager
    def worker(self, count: int) -> Iterator[WorkerHandle]:
        """A free worker for one job."""
        worker = self._take(count)
        try:
            worker.wait_ready()
            self.early = 0
            yield worker
        except BaseException as error:
            self._drop(worker)
            if self.closed:
                raise WorkerPoolError("the loader was closed while it made a batch.") from None
            if isinstance(error, WorkerLost) and not worker.ready:
                self.early += 1
                if self.early >= _EARLY_DEATHS:
                    raise WorkerPoolError(
                        f"worker processes do not start: the last of {self.early} {error}."
                    ) from None
            raise
        with self.change:
            self.free.append(worker)
            self.change.notify()

    def _take(self, count: int) -> WorkerHandle:
        if not (self.all or self.closed):
            template.prepare(self.timeouts)  # outside the lock, because it may take a second
        with self.change:
            while not self.closed:
                for worker in [w for w in self.free if w.process.poll() is not None]:
                    self.free.remove(worker)
                    self.all.remove(worker)
                    worker.end()
                if self.free:
                    return self.free.pop()
                missing = count - len(self.all)
                if not missing:
                    self.change.wait()
                    continue
                # The first job starts all workers, so that they import at the same time.
                try:
                    for _ in range(1 if self.all else missing):
                        with held():
                            new = self._started()
                            self.all.append(new)
                            self.free.append(new)
                except WorkerPoolError as error:
                    if not self.all:
                        raise
                    warn(f"{error} The existing ones do all the work.", once="fewer processes")
                    if not self.free:
                        self.change.wait()
                self.change.notify_all()
            raise WorkerPoolError("the loader was closed while it made a batch.")

    def _started(self) -> WorkerHandle:
        try:
            return WorkerHandle(self.pickled, self.life[0], self.timeouts)
        except OSError as error:
            raise WorkerPoolError(
                f"a worker process cannot be started ({error}), {len(self.all)} exist: pass a "
                "smaller workers=, or leave processes=True out."
            ) from error

    def _drop(self, worker: WorkerHandle) -> None:
        with held():
            worker.end()
        with self.change:
            if worker in self.all:
                self.all.remove(worker)
            self.change.notify()

    def close(self) -> None:
        """End all workers: idle ones by closing their pipe, busy ones at once."""
        with held():
            self._close()

    def _close(self) -> None:
        if self.pid != os.getpid():  # in a fork, workers and lock belong to the parent
            self.closed = True
            for worker in self.all:
                worker.process.returncode = 0
            return
        with self.change:
            if self.closed:
                return
            self.closed = True
            idle, everyone = self.free, self.all
            self.free, self.all = [], []
            self.change.notify_all()
        for worker in everyone:
            if worker in idle and worker.ready:
                worker.shut_down()
            else:
                worker.process.terminate()
        end = time.monotonic() + _SHUTDOWN_SECONDS
        for worker in everyone:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - time.monotonic()))
            worker.kill()
            if worker in idle:
                worker.end()
        self._close_life()
        self.pickled.close()


def _close_both(one: int, other: int) -> None:
    os.close(one)
    os.close(other)
