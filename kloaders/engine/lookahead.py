"""Prefetches a bounded number of batches with threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from kloaders.core import stall_watch
from kloaders.core.threads import Workers, exiting
from kloaders.engine.inline_trial import DEAR_SECONDS, Choice

__all__ = ["AHEAD_BYTES", "Build", "Engine", "build_inline"]

# The default limit of prefetched bytes: enough to hide a slow file, little compared to a framework.
AHEAD_BYTES = 256 * 2**20

# A batch is divided among the threads if each part takes at least this long.
CHUNK_SECONDS = 1e-3


class Build(Protocol):
    """A batch under construction, as the engine sees it."""

    rows: int

    def fill(self, start: int, stop: int) -> None:
        """Fill these rows. Called once for each part, by several threads at once."""

    def finish(self) -> Any:
        """The batch, after all rows are filled. Called once."""


# make(key, wait) -> Build; None if wait is False and the batch cannot begin yet.
Make = Callable[[Any, bool], Build | None]


class Engine:
    """Batches by key, prefetched by threads.

    workers: the number of threads; 0 makes every batch in the caller's thread. None: `cores` threads,
        including the caller's while batches are cheap; or only the caller's while passing batches to
        threads would cost more than making them (measured: `inline_trial.py`).
    depth: the maximum number of prefetched or unfinished batches in addition to the requested one;
        with workers=None fewer while batches are cheap.
    kind: what does the work, in words.
    whole: batches are not divided: each is made by one thread.

    Threads: `get` may be called from several at once.
    """

    def __init__(
        self,
        workers: int | None,
        cores: int,
        depth: int,
        kind: str = "threads",
        whole: bool = False,
    ) -> None:
        self.auto = workers is None
        self.count = cores if workers is None else workers
        self.depth = depth
        self.kind = kind
        self._whole = whole
        self.workers = Workers(self.count)
        self.choice = Choice()
        self._ahead: dict[Hashable, _Job] = {}
        self._awaited: list[_Job] = []
        self._lock = threading.Lock()
        self._row_seconds: float | None = None
        self._rows = 0  # rows of a full batch: the last one of an epoch may be short
        self._busy_seconds, self._cpu_seconds = 0.0, 0.0
        #: The number of delivered batches, the seconds that callers waited, and the most ready batches.
        self.batches, self.wait_seconds, self.peak_ready = 0, 0.0, 0

    def get(self, key: Hashable, upcoming: Iterable[Hashable] | None, make: Make) -> Any:
        """Return the batch of `key`, and start the `upcoming` batches, in that order.

        If `upcoming` is None, the prefetched batches stay as they are.
        """
        begin = time.perf_counter()
        try:
            return self._get(key, upcoming, make)
        finally:
            waited = time.perf_counter() - begin
            with self._lock:
                self.batches += 1
                self.wait_seconds += waited

    def _get(self, key: Hashable, upcoming: Iterable[Hashable] | None, make: Make) -> Any:
        with self._lock:
            job = self._ahead.pop(key, None)
            if (
                job is not None and job.failed
            ):  # failed while prefetched: the cause may be gone by now
                job = None
            if job is not None:
                self._awaited.append(job)
        if job is None:
            build = _made(make, key)
            if self.inline(build.rows):
                batch = self._here(build)
                self._record_delivery(build.rows)
                return batch
            job = self._submit(build)
            with self._lock:
                self._awaited.append(job)
        try:
            if upcoming is not None:
                self.prepare(upcoming, make)
            self._help(job)
            batch = job.wait()
        except _Cancelled:  # another thread closed it meanwhile
            return self._here(_made(make, key))
        finally:
            with self._lock:
                self._awaited.remove(job)
        self._record_delivery(job.rows)
        return batch

    def _shared(self, rows: int) -> bool:
        """Whether a thread that waits for a batch of this many rows also works, in place of another.

        Waking another thread takes as long as making such a batch, and one thread more than there are
        cores is one more that waits for the GIL: batches of 5 MB are delivered a sixth faster this way.
        """
        seconds = self._row_seconds
        if not self.auto or self.count < 2 or seconds is None:
            return False
        return seconds * max(rows, self._rows) < DEAR_SECONDS

    def _help(self, job: _Job) -> None:
        """Make queued batches until this one is ready, or the queue is empty."""
        while not job.ready and self._shared(job.rows):
            part: Any = self.workers.take()
            if part is None:
                return
            part()
            error = part.job.error
            # Not an Exception, such as Ctrl-C, which is meant for the caller.
            if error is not None and not isinstance(error, Exception):
                raise error

    def prepare(self, upcoming: Iterable[Hashable], make: Make) -> None:
        """Start these batches if there is room, and drop batches that are no longer wanted."""
        if self.count == 0 or self.depth == 0:
            return
        upcoming, now = iter(upcoming), self._depth_now()
        wanted = list(itertools.islice(upcoming, max(now, len(self._ahead))))
        with self._lock:
            ahead = list(self._ahead)
        if ahead == wanted[: len(ahead)]:  # the usual case: the order did not change
            missing = wanted[len(ahead) : now]
        else:
            wanted += itertools.islice(upcoming, max(0, self.depth - len(wanted)))
            with self._lock:
                for key in [k for k in self._ahead if k not in wanted]:
                    self._ahead.pop(key).cancel()
                missing = [k for k in wanted[:now] if k not in self._ahead]
        for key in missing:
            try:
                build = make(key, False)
            except Exception:  # raised again when the batch is requested
                return
            if build is None or self.inline(build.rows):
                return
            job = self._submit(build)
            with self._lock:
                if self._ahead.setdefault(key, job) is not job:
                    job.cancel()
        if len(self._ahead) > self.peak_ready:
            self.peak_ready = max(self.peak_ready, self.ready())

    def inline(self, rows: int) -> bool:
        """Whether a batch of this many rows is made in the calling thread."""
        if self.count == 0 or self.workers.refused:
            return True
        if not self.auto or self._row_seconds is None:
            return False
        return self.choice.inline(self._row_seconds * max(rows, self._rows))

    def _depth_now(self) -> int:
        """`depth`, or only a few if batches are cheap and the number of threads was not set.

        Either such batches keep up with any demand, or prefetching more of them does not help: a few
        of them stay in the processor's cache between filling and reading. One more than there are
        threads, so that a thread finds its next batch while the caller makes another one: with 5 MB
        each and two threads, 8 % more are delivered from RAM than with two (W7), and 3 % more from a
        pack (W3; medians of 7 interleaved rounds).
        """
        rows = self._rows if self.auto and self._row_seconds is not None else 0
        if rows and (self._row_seconds or 0.0) * rows < DEAR_SECONDS:
            return min(self.depth, self.count + 1)
        return self.depth

    def _record_delivery(self, rows: int) -> None:
        if self.auto and self.count and self._row_seconds is not None:
            with self._lock:
                self._rows = max(self._rows, rows)
                self.choice.record_delivery(time.perf_counter(), self._row_seconds * self._rows)

    def why(self, rows: int) -> str:
        """A description of the choices for batches of this many rows."""
        if self.count == 0:
            return "in the caller's thread (workers=0)"
        if self._row_seconds is None:
            return f"up to {self.count} {self.kind} (nothing measured yet)"
        cost = f"{self._row_seconds * 1e6:.0f} microseconds per sample"
        if self.auto and self.choice.seconds is not None:
            ahead, here = (f"{seconds * 1e6:.0f}" for seconds in self.choice.seconds)
            cost += (
                f"; measured from batch to batch: {ahead} microseconds with them, {here} without"
            )
        if self.inline(rows):
            return f"in the caller's thread, without {self.kind}: a batch is this cheap ({cost})"
        among = ", including the calling thread" if self._shared(rows) else ""
        return f"{self.count} {self.kind}{among}, {self._depth_now()} batches ahead ({cost})"

    def ready(self) -> int:
        """The number of batches that are ready."""
        with self._lock:
            return sum(job.ready for job in self._ahead.values())

    @property
    def cores_busy(self) -> float | None:
        """The number of cores that the threads kept busy while they worked; None before a second of work.

        If it is less than the number of threads, they waited for a disk, for the GIL, or for a core.
        """
        if self._busy_seconds < 1:
            return None
        return self.count * self._cpu_seconds / self._busy_seconds

    def _submit(self, build: Build) -> _Job:
        rows = build.rows
        parts = 1 if self._whole else max(1, min(self.count, rows))
        if self._row_seconds is not None:
            parts = max(1, min(parts, int(self._row_seconds * rows / CHUNK_SECONDS)))
        cuts = [rows * k // parts for k in range(parts + 1)]
        job = _Job(build, parts)
        most = self.count - 1 if self._shared(rows) else None
        for start, stop in itertools.pairwise(cuts):
            self.workers.submit(_Part(self, job, start, stop), most=most)
        return job

    def _here(self, build: Build) -> Any:
        begin = time.perf_counter()
        batch = build_inline(build)
        self.measured(time.perf_counter() - begin, build.rows)
        return batch

    def worked(self, seconds: float, cpu_seconds: float, rows: int) -> None:
        """Record that a thread filled some rows."""
        with self._lock:
            self._busy_seconds += seconds
            self._cpu_seconds += cpu_seconds
        self.measured(seconds, rows)

    def measured(self, seconds: float, rows: int) -> None:
        """Update the cost of a row; the newest measurement has a weight of one fifth."""
        if rows:
            each, old = seconds / rows, self._row_seconds
            self._row_seconds = each if old is None else 0.8 * old + 0.2 * each

    def cancel(self) -> None:
        """Drop all prefetched batches; a thread that waits for one makes it itself."""
        with self._lock:
            for job in [*self._ahead.values(), *self._awaited]:
                job.cancel()
            self._ahead.clear()

    def close(self) -> None:
        """Stop the threads; the next request starts them again."""
        self.cancel()
        self.workers.close()


def build_inline(build: Build) -> Any:
    """Make a batch in the calling thread."""
    build.fill(0, build.rows)
    return build.finish()


def _made(make: Make, key: Hashable) -> Build:
    if exiting.is_set():
        raise RuntimeError("the interpreter is shutting down: no more samples can be loaded.")
    build = make(key, True)
    assert build is not None
    return build


class _Cancelled(Exception):
    """The awaited job was cancelled."""


class _Job:
    def __init__(self, build: Build, parts: int) -> None:
        self._build: Build | None = build
        self.rows = build.rows
        self._left = parts
        self._lock = threading.Lock()
        self._awaited: threading.Event | None = None  # created by a waiting thread, which is rare
        self._result: Any = None
        self.error: BaseException | None = None
        self.ready = self.cancelled = False

    @property
    def failed(self) -> bool:
        return self.ready and self.error is not None

    def cancel(self) -> None:
        self.cancelled = True
        self._end()

    def _end(self) -> None:
        # Without a lock, because a finalizer may run this: the waiting thread writes one field and then
        # reads the other, and this thread does so in the reverse order.
        self.ready = True
        if (awaited := self._awaited) is not None:
            awaited.set()

    def fill(self, start: int, stop: int) -> None:
        build = self._build
        try:
            if build is not None and not self.cancelled and self.error is None:
                build.fill(start, stop)
        except BaseException as error:  # raised again in the waiting thread
            self.error = error
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            try:
                if build is not None and not self.cancelled and self.error is None:
                    self._result = build.finish()
            except BaseException as error:
                self.error = error
            self._build = None
            self._end()

    def wait(self) -> Any:
        if not self.ready:
            awaited = self._awaited = threading.Event()
            if not self.ready:
                stall_watch.wait(awaited)
        if self.cancelled:
            raise _Cancelled
        if self.error is not None:
            raise self.error
        result, self._result = self._result, None
        return result


class _Part:
    __slots__ = ("engine", "job", "start", "stop")

    def __init__(self, engine: Engine, job: _Job, start: int, stop: int) -> None:
        self.engine, self.job, self.start, self.stop = engine, job, start, stop

    def __call__(self) -> None:
        begin, cpu = time.perf_counter(), time.thread_time()
        self.job.fill(self.start, self.stop)
        if not self.job.cancelled:
            seconds = time.perf_counter() - begin
            self.engine.worked(seconds, time.thread_time() - cpu, self.stop - self.start)

    def dropped(self) -> None:
        self.job.cancel()
