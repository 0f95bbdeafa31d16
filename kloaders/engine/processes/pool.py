"""Worker processes for hooks that hold the GIL: they fill rows in shared memory, and may die.

A thread of the engine hands its part of a batch to a worker and waits. Everything a worker makes
follows from its arguments, so that a part whose worker died is simply done again by another one.
"""
# ruff: noqa: S301  both ends of what is pickled are ours

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import reduction, spawn
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import say
from kloaders.core.structure import Structure
from kloaders.engine.processes.pickling import PickledLoader
from kloaders.engine.processes.shared_memory import Block, SharedBlocks, anonymous_file
from kloaders.engine.processes.worker import is_worker, unpack_error
from kloaders.keras_api.base import WORKER
from kloaders.plan.rng import Draw
from kloaders.sources.columns import Odd, Report

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["ProcessPool", "WorkerLost"]

# A worker that works on one sample for so long is ended, and the sample tried once more.
TIMEOUT_SECONDS = 60.0
# A worker may take this long to start: it imports the modules of the user's functions.
START_SECONDS = 300.0
# A sample at which so many workers died is at fault, and not the machine.
_DEATHS = 3
# The same for workers that die before they begin, one after another.
_EARLY_DEATHS = 10
# Workers that do nothing may leave by themselves; after this they are killed.
_SHUTDOWN_SECONDS = 0.7
# One thread for each worker: others would only compete with the workers beside it.
_SINGLE = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"
)  # fmt: skip


class ProcessPool:
    """Up to `count` processes, each with a copy of the loader.

    They start together when the first job comes, stay until `close`, and are replaced when they
    die. The pool refers to the loader's pickled form and never to the loader, so that a forgotten
    loader is collected, and its workers end.

    Threads: all methods may be called from several at once.
    """

    def __init__(self, loader: SequenceLoader, count: int) -> None:
        if is_worker():
            raise RuntimeError(
                "a worker process, which imports your script again, asked for a batch itself: put "
                "what builds and trains the model under `if __name__ == '__main__':`, or pip "
                "install cloudpickle, with which workers need not import the script."
            )
        self.count = count
        self.memory = SharedBlocks()
        self._group = _WorkerGroup(loader)
        weakref.finalize(self, _WorkerGroup.close, self._group)

    @property
    def usable(self) -> bool:
        """Whether it is open, and this process is not a fork of the one that made it."""
        return not self._group.closed and self._group.pid == os.getpid()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers that exist now."""
        return [worker.process.pid for worker in list(self._group.all)]

    def fill(
        self,
        loader: SequenceLoader,
        indices: Indices,
        out: list[Array],
        epoch: int,
        draw: Draw,
        raw: bool,
        report: Report,
        stored: list[Array] | None = None,
    ) -> None:
        """What `loader._fill` does, in a worker process.

        A sample that ends its worker again and again, or never ends, is reported like one that
        does not load. Blocks until all rows are done; the GIL is free meanwhile.

        stored: the samples' arrays before the transform, where they need not be read.
        """
        rows = len(indices)
        target = self.memory.locate(out)
        if target is None:  # not shared memory: filled there, and copied
            inner = self.memory.take([(leaf.shape, leaf.dtype) for leaf in out])
            self.fill(loader, indices, inner, epoch, draw, raw, report, stored)
            for leaf, made in zip(out, inner, strict=True):
                leaf[...] = made
            return
        blocks, source = [target.block], None
        if stored is not None:
            given = self.memory.take([(leaf.shape, leaf.dtype) for leaf in stored])
            for leaf, rows_of in zip(given, stored, strict=True):
                leaf[...] = rows_of
            source = self.memory.locate(given)
            assert source is not None
            blocks.append(source.block)
        where = target.layout, source and source.layout
        forms = loader._raw_spec, loader._spec

        def job(at: int, step: int) -> tuple[Any, ...]:
            return "fill", where, indices, at, step, epoch, draw, raw, forms

        def name(row: int) -> str:
            return f"sample {indices[row]} ({loader._name(int(indices[row]))})"

        # The load_batch hook wants many samples at once; else the worker tells each one it is at.
        step = rows if stored is None and loader._overrides("load_batch") else 1
        self._run(job, rows, step, name, report, blocks)

    def look(self, loader: SequenceLoader, index: int, raw: bool) -> Structure:
        """The specs of one sample; raises what went wrong with it."""

        def report(row: int, error: Exception) -> NoReturn:
            raise error

        def name(row: int) -> str:
            return f"sample {index} ({loader._name(index)})"

        def job(at: int, step: int) -> tuple[Any, ...]:
            return "look", index, raw

        return self._run(job, 1, 1, name, report)

    def close(self) -> None:
        """End the workers, within about a second. Jobs under way fail."""
        self._group.close()

    # ------------------------------------------------------------------ one job, however often

    def _run(
        self,
        job: Callable[[int, int], tuple[Any, ...]],
        rows: int,
        step: int,
        name: Callable[[int], str],
        report: Report,
        blocks: Sequence[Block] = (),
    ) -> Any:
        """Have `job(at, step)` done: rows from `at` on, `step` of them at a time."""
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
                # What is before that row is done; of the row itself parts may have come.
                for trouble in [t for t in troubles if 0 <= t[0] < row]:
                    report(*trouble)
                at = max(at, row)
                if row < 0:
                    if gone[row] >= _EARLY_DEATHS:
                        raise RuntimeError(
                            f"worker processes end before they do anything ({end}); "
                            f"{gone[row]} were tried."
                        ) from None
                    continue
                alone = step == 1
                step = 1 if end.hangs or gone[row] > 1 else step
                if not alone or gone[row] < (2 if end.hangs else _DEATHS):
                    say(f"a worker process {end} at {name(row)}; another one tries again.")
                    continue
                report(row, end.as_error(gone[row]))
                at = row + 1
                if at >= rows:
                    return None
            else:
                for trouble in troubles:
                    report(*trouble)
                if isinstance(result, _Raised):
                    raise result.error
                return result


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class WorkerLost(Exception):
    """A worker ended, or was ended, at a row of its job; -1: before the first."""

    def __init__(self, row: int, how: str, hangs: bool = False) -> None:
        super().__init__(how)
        self.row, self.hangs = row, hangs

    def as_error(self, times: int) -> Exception:
        if self.hangs:
            return TimeoutError(
                f"not loaded after {TIMEOUT_SECONDS:g} seconds in a worker process, {times} "
                "times. If a sample may take longer, set "
                "kloaders.engine.processes.pool.TIMEOUT_SECONDS."
            )
        return RuntimeError(
            f"the worker process that loaded it {self}, {times} times: a crash in a library, or "
            "no memory left."
        )


class _WorkerGroup:
    """The workers of a pool, and what they start from."""

    def __init__(self, loader: SequenceLoader) -> None:
        self.pickled = PickledLoader(loader)
        self.all: list[_Worker] = []
        self.free: list[_Worker] = []
        self.closed = False
        self.change = threading.Condition()
        self.pid = os.getpid()
        self.early = 0
        # Workers leave when this pipe closes: however this process ends.
        self.life = os.pipe()

    @contextlib.contextmanager
    def worker(self, count: int) -> Iterator[_Worker]:
        """A free worker, for one job."""
        worker = self._take(count)
        try:
            worker.wait_ready()
            self.early = 0
            yield worker
        except BaseException as error:
            self._drop(worker)
            if self.closed:
                raise RuntimeError("the loader was closed while it made a batch.") from None
            if isinstance(error, WorkerLost) and not worker.ready:
                self.early += 1
                if self.early >= _EARLY_DEATHS:
                    raise RuntimeError(
                        f"worker processes do not start: the last of {self.early} {error}."
                    ) from None
            raise
        with self.change:
            self.free.append(worker)
            self.change.notify()

    def _take(self, count: int) -> _Worker:
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
                # The first job starts all of them, so that they import at the same time.
                for _ in range(1 if self.all else missing):
                    new = _Worker(self.pickled, self.life[0])
                    self.all.append(new)
                    self.free.append(new)
                self.change.notify_all()
            raise RuntimeError("the loader was closed while it made a batch.")

    def _drop(self, worker: _Worker) -> None:
        worker.end()
        with self.change:
            if worker in self.all:
                self.all.remove(worker)
            self.change.notify()

    def close(self) -> None:
        """End all workers: the idle ones by themselves, the busy ones at once."""
        if self.pid != os.getpid():  # in a fork: they are the parent's, and so is the lock
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
        for fd in (*self.life, self.pickled.fd):
            os.close(fd)


# ---------------------------------------------------------------------- one process, seen from here


class _Worker:
    """A worker process, its pipe, and the row that it is at."""

    def __init__(self, pickled: PickledLoader, life: int) -> None:
        self.ready = False
        self._known: set[int] = set()
        cell = anonymous_file(8)
        self._row = np.frombuffer(mmap.mmap(cell, 8), np.int64)
        self._row[0] = -1
        self.conn, theirs = multiprocessing.Pipe()
        numbers = (theirs.fileno(), cell, life, pickled.fd)
        # Its own path first: kloaders may be found by nothing else than this process' path.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from kloaders.engine.processes.worker import work; work(*{numbers}, {pickled.head})"
        )
        environment = {**os.environ, WORKER: "1"}
        for single in _SINGLE:
            environment.setdefault(single, "1")
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [os.fsdecode(spawn.get_executable()), *flags, "-c", code],
                pass_fds=numbers,
                env=environment,
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for this process to decide on.
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(cell)

    def wait_ready(self) -> None:
        """Block until it has loaded the loader."""
        if self.ready:
            return
        try:
            kind, *rest = self._receive(START_SECONDS)
        except WorkerLost as end:
            if not end.hangs:
                raise
            raise RuntimeError(f"a worker process {end} while it started.") from None
        if kind == "failed":
            raise RuntimeError(
                "a worker process could not load this loader; what it says:\n\n" + rest[0]
            )
        self.ready = True

    def ask(
        self,
        job: tuple[Any, ...],
        troubles: list[tuple[int, Exception]],
        blocks: Sequence[Block],
        in_use: set[int],
    ) -> Any:
        """Have a job done; rows that fail come into `troubles`, as soon as they do.

        blocks: what the job works on. in_use: numbers of all that exist; it forgets others.
        """
        self._row[0] = -1
        stale, self._known = self._known - in_use, self._known & in_use
        new = [block for block in blocks if block.number not in self._known]
        try:
            self.conn.send((job, stale, [(block.number, block.nbytes) for block in new]))
            for block in new:
                reduction.send_handle(self.conn, block.fd, self.process.pid)
                self._known.add(block.number)
        except OSError:
            raise self._lost() from None
        while True:
            kind, *rest = self._receive(TIMEOUT_SECONDS)
            if kind == "odd":
                row, leaf, shape, dtype = rest
                array = np.frombuffer(self._bytes(), dtype).reshape(shape)
                troubles.append((row, Odd(row, leaf, array)))
            elif kind == "error":
                troubles.append((rest[0], unpack_error(rest[1])))
            elif kind == "raised":
                return _Raised(unpack_error(rest[0]))
            else:
                return rest[0]

    def _receive(self, limit: float) -> Any:
        row, since = self._row[0], time.monotonic()
        while not self.conn.poll(min(0.5, limit / 4)):
            if self.process.poll() is not None and not self.conn.poll():
                raise self._lost()
            if self._row[0] != row:
                row, since = self._row[0], time.monotonic()
            elif time.monotonic() - since > limit:
                how = f"did not answer for {limit:g} seconds"
                raise WorkerLost(int(self._row[0]), how, hangs=True)
        return pickle.loads(self._bytes())

    def _bytes(self) -> bytes:
        try:
            return self.conn.recv_bytes()
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> WorkerLost:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return WorkerLost(int(self._row[0]), "closed its pipe")
        if code >= 0:
            return WorkerLost(int(self._row[0]), f"ended with exit code {code}")
        try:
            return WorkerLost(int(self._row[0]), f"ended with {signal.Signals(-code).name}")
        except ValueError:
            return WorkerLost(int(self._row[0]), f"ended with signal {-code}")

    def shut_down(self) -> None:
        """Let it see the end of its pipe; it then leaves as any Python process does."""
        end = socket.socket(fileno=os.dup(self.conn.fileno()))
        with end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill it, if it is not gone yet."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel
            self.process.wait(5)

    def end(self) -> None:
        """Kill it and free what belongs to it."""
        self.kill()
        self.conn.close()
