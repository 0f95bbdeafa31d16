"""Makes batches ahead of their request, on threads, a bounded number at a time."""

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

# What may lie ready ahead of the model: enough to ride out a slow file, small beside a framework.
AHEAD_BYTES = 256 * 2**20

# A batch is cut among the threads where each part then takes at least this long.
CHUNK_SECONDS = 1e-3


class Build(Protocol):
    """A batch under construction: what the engine needs to know of it."""

    rows: int

    def fill(self, start: int, stop: int) -> None:
        """Make these rows. Called once for each part, from several threads at once."""

    def finish(self) -> Any:
        """The batch, when all rows are made. Called once."""


# make(key, wait) -> Build; None where wait is False and the batch can't be begun yet.
Make = Callable[[Any, bool], Build | None]


class Engine:
    """Batches by key, made by threads ahead of their request.

    workers: threads; 0 makes every batch in the caller's thread; None: `cores` threads, the caller's
        among them while batches are cheap, or none but that while they are so cheap that handing
        them over costs more (measured: `inline_trial.py`).
    depth: how many batches may lie ready or be under way besides the one asked for; with workers=None
        fewer while they are cheap.
    kind: what a person would say that the work is done by.
    whole: batches are not cut: each is done by one of them.

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
        self._rows = 0  # of a whole batch: the last one of an epoch may be short
        self._busy_seconds, self._cpu_seconds = 0.0, 0.0
        #: Batches handed out, seconds that callers waited for them, and the most ever ready.
        self.batches, self.wait_seconds, self.peak_ready = 0, 0.0, 0

    def get(self, key: Hashable, upcoming: Iterable[Hashable] | None, make: Make) -> Any:
        """The batch of `key`; those of `upcoming` are begun, in that order.

        None leaves what lies ahead as it is.
        """
        begin = time.perf_counter()
        try:
            return self._get(key, upcoming, make)
        finally:
            self.batches += 1
            self.wait_seconds += time.perf_counter() - begin

    def _get(self, key: Hashable, upcoming: Iterable[Hashable] | None, make: Make) -> Any:
        with self._lock:
            job = self._ahead.pop(key, None)
            if job is not None and job.failed:  # before it was asked for: that may be mended by now
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
        except _Cancelled:  # closed meanwhile, by another thread
            return self._here(_made(make, key))
        finally:
            with self._lock:
                self._awaited.remove(job)
        self._record_delivery(job.rows)
        return batch

    def _shared(self, rows: int) -> bool:
        """Whether who waits for a batch of so many rows works as well, in place of one thread.

        To be woken takes as long as such a batch, and one thread more than there are cores is one
        more that waits for Python's lock: of batches of 5 MB, a sixth more come so.
        """
        seconds = self._row_seconds
        if not self.auto or self.count < 2 or seconds is None:
            return False
        return seconds * max(rows, self._rows) < DEAR_SECONDS

    def _help(self, job: _Job) -> None:
        """Until this batch is there, or all that is queued is begun: make what is next in the queue."""
        while not job.ready and self._shared(job.rows):
            part: Any = self.workers.take()
            if part is None:
                return
            part()
            error = part.job.error
            if error is not None and not isinstance(error, Exception):  # Ctrl-C, meant for who asks
                raise error

    def prepare(self, upcoming: Iterable[Hashable], make: Make) -> None:
        """Begin these batches if there is room; drop those that nobody will ask for."""
        if self.count == 0 or self.depth == 0:
            return
        upcoming, now = iter(upcoming), self._depth_now()
        wanted = list(itertools.islice(upcoming, max(now, len(self._ahead))))
        with self._lock:
            ahead = list(self._ahead)
        if ahead == wanted[: len(ahead)]:  # as ever, where nobody changes their mind
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
            except Exception:  # it is raised again to whoever asks for that batch
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
        """Whether a batch of so many rows is made in the thread that asks for it."""
        if self.count == 0:
            return True
        if not self.auto or self._row_seconds is None:
            return False
        return self.choice.inline(self._row_seconds * max(rows, self._rows))

    def _depth_now(self) -> int:
        """As `depth`, but a few where batches are cheap and nobody said how many threads.

        They come as fast as they are asked for, or no number of them helps. A few are filled, and
        read by the model, in the processor's cache: of 5 MB each, 9 % more come, and with ten ahead
        one takes 15 % more CPU seconds (W3; two cores, medians of 9 interleaved rounds).
        """
        rows = self._rows if self.auto and self._row_seconds is not None else 0
        if rows and (self._row_seconds or 0.0) * rows < DEAR_SECONDS:
            return min(self.depth, max(2, self.count))
        return self.depth

    def _record_delivery(self, rows: int) -> None:
        if self.auto and self.count and self._row_seconds is not None:
            with self._lock:
                self._rows = max(self._rows, rows)
                self.choice.record_delivery(time.perf_counter(), self._row_seconds * self._rows)

    def why(self, rows: int) -> str:
        """What was chosen for batches of so many rows, in words."""
        if self.count == 0:
            return "in the caller's thread (workers=0)"
        if self._row_seconds is None:
            return f"up to {self.count} {self.kind} (nothing measured yet)"
        cost = f"{self._row_seconds * 1e6:.0f} microseconds a sample"
        if self.auto and self.choice.seconds is not None:
            ahead, here = (f"{seconds * 1e6:.0f}" for seconds in self.choice.seconds)
            cost += (
                f"; measured from batch to batch: {ahead} microseconds with them, {here} without"
            )
        if self.inline(rows):
            return f"in the caller's thread, without {self.kind}: a batch is this cheap ({cost})"
        among = ", the one that asks among them" if self._shared(rows) else ""
        return f"{self.count} {self.kind}{among}, {self._depth_now()} batches ahead ({cost})"

    def ready(self) -> int:
        """Batches that lie ready."""
        with self._lock:
            return sum(job.ready for job in self._ahead.values())

    @property
    def cores_busy(self) -> float | None:
        """Cores that the threads kept busy while they worked; None before a second of work.

        Less than there are threads: they waited for a disk, for Python's lock, or for a core.
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
        """A thread made some rows."""
        self._busy_seconds += seconds
        self._cpu_seconds += cpu_seconds
        self.measured(seconds, rows)

    def measured(self, seconds: float, rows: int) -> None:
        """Remember what a row costs; the newest measurement counts a fifth."""
        if rows:
            each, old = seconds / rows, self._row_seconds
            self._row_seconds = each if old is None else 0.8 * old + 0.2 * each

    def cancel(self) -> None:
        """Drop all batches made ahead; who waits for one makes it in its own thread."""
        with self._lock:
            for job in [*self._ahead.values(), *self._awaited]:
                job.cancel()
            self._ahead.clear()

    def close(self) -> None:
        """Free the threads; they come back if another batch is asked for."""
        self.cancel()
        self.workers.close()


def build_inline(build: Build) -> Any:
    """The batch, made in the caller's thread."""
    build.fill(0, build.rows)
    return build.finish()


def _made(make: Make, key: Hashable) -> Build:
    if exiting.is_set():
        raise RuntimeError("the interpreter ends, and with it all loading.")
    build = make(key, True)
    assert build is not None
    return build


class _Cancelled(Exception):
    """The job waited for will not be done."""


class _Job:
    def __init__(self, build: Build, parts: int) -> None:
        self._build: Build | None = build
        self.rows = build.rows
        self._left = parts
        self._lock = threading.Lock()
        self._awaited: threading.Event | None = None  # made by who waits: most find it ready
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
        # No lock, since a finalizer may come here: who waits writes the one and then reads the
        # other, this writes the other and then reads the one.
        self.ready = True
        if (awaited := self._awaited) is not None:
            awaited.set()

    def fill(self, start: int, stop: int) -> None:
        build = self._build
        try:
            if build is not None and not self.cancelled and self.error is None:
                build.fill(start, stop)
        except BaseException as error:  # re-raised in the thread that waits
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
