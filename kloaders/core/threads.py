"""Threads that run small jobs in order, and end by themselves when idle."""

from __future__ import annotations

import atexit
import gc
import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import psutil

from kloaders.core import stall_watch
from kloaders.core.messages import warn

__all__ = ["ThreadPool", "Workers", "exiting", "started", "usable_cores"]

# An idle thread waits this long for more work: long enough to last through a validation step,
# short enough for a forgotten loader's threads to end soon.
IDLE_SECONDS = 5.0
# At exit, running jobs get this much time to finish.
EXIT_SECONDS = 10.0


# After the system refuses a new thread, wait this long before the next attempt.
REFUSED_SECONDS = 5.0


def started(thread: threading.Thread) -> bool:
    """Start a thread. Return False, and log it once, if the system allows no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        _check_refused(error)
        return False
    return True


def _check_refused(error: RuntimeError) -> None:
    """Log that the system starts no more threads; re-raise any other error."""
    if "start new thread" not in str(error):  # the interpreter exits, or the thread already runs
        raise error
    warn(
        "the system starts no more threads (a limit on processes, such as a container's pids limit "
        "or `ulimit -u`): their work is done in the calling thread, which is "
        "slower. Raise the limit, or pass a smaller workers=.",
        once="no more threads",
    )


class Job(Protocol):
    """The work for a thread; it must not raise."""

    def __call__(self) -> None:
        """Do the work."""

    def dropped(self) -> None:
        """Called instead if the job is cancelled, perhaps in a finalizer: wake the waiting threads."""


class Workers:
    """At most `count` daemon threads that share a queue with two priorities.

    `soon` jobs run before `later` ones; within a priority, jobs run in the order of submission.
    Threads start when there is work, and end after being idle for IDLE_SECONDS. They refer to the
    queue, but never to the object that submits jobs, so that a forgotten loader can be collected.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._state = _State()
        _all.add(self)
        weakref.finalize(self, _State.stop, self._state).atexit = False

    def submit(self, job: Job, later: bool = False, most: int | None = None) -> None:
        """Queue a job, and start a thread if another one is needed.

        If no thread exists and none can be started, the caller runs all queued jobs now.

        most: from now on, the maximum number of threads that run `soon` jobs.
        """
        if self._state.pid != os.getpid():  # forked: the threads exist only in the parent
            self._state = _State()
        state = self._state
        with state.lock:
            (state.later if later else state.soon).append(job)
            if not later:
                state.most = self.count if most is None else most
            wanted = min(len(state.soon), state.most - state.busy) + len(state.later)
            if wanted <= 0:  # a busy thread will take the job
                return
            if state.idle >= wanted or state.alive >= self.count:
                state.ready.notify()
                return
            state.alive += 1
            if started(threading.Thread(target=_run, args=(state,), daemon=True, name="kloaders")):
                return
            state.alive -= 1
            state.refused = time.monotonic()
            if state.alive:  # existing threads will take the job
                state.ready.notify()
                return
            mine = [*state.soon, *state.later]
            state.soon.clear()
            state.later.clear()
        for one in mine:
            one()

    def take(self) -> Job | None:
        """The next `soon` job, for the caller to run; None if there is none."""
        state = self._state
        if state.pid != os.getpid():
            return None
        with state.lock:
            return state.soon.popleft() if state.soon else None

    def close(self) -> None:
        """Drop queued jobs, wait for running ones, and end the threads."""
        old, self._state = self._state, _State()
        old.stop()
        if old.pid != os.getpid():
            return
        # A job that closes its own loader must not wait for itself.
        if threading.current_thread().name != "kloaders":
            old.wait_until_ended(60)

    @property
    def refused(self) -> bool:
        """Whether there is no thread because the system recently refused to start one."""
        state = self._state
        return not state.alive and time.monotonic() - state.refused < REFUSED_SECONDS

    @property
    def alive(self) -> int:
        """The number of threads that exist now."""
        return self._state.alive


class _State:
    def __init__(self) -> None:
        self.pid = os.getpid()
        # Reentrant: a finalizer may stop the threads in a thread that already holds this lock.
        self.lock = threading.RLock()
        self.ready = threading.Condition(self.lock)
        self.soon: deque[Job] = deque()
        self.later: deque[Job] = deque()
        self.alive = 0
        self.idle = 0
        self.busy = 0  # threads that run `soon` jobs
        self.most = 0  # the maximum of `busy`
        self.refused = -math.inf  # when the system last refused to start a thread
        self.stopped = False

    def stop(self) -> None:
        if self.pid != os.getpid():  # forked: a thread of the parent may have held the lock
            return
        with self.lock:
            self.stopped = True
            left = [*self.soon, *self.later]
            self.soon.clear()
            self.later.clear()
            self.ready.notify_all()
        for job in left:
            job.dropped()

    def wait_until_ended(self, seconds: float) -> None:
        """Block until no thread is left, or the time is over."""
        if self.pid == os.getpid():
            with self.lock:
                self.ready.wait_for(lambda: self.alive == 0, timeout=max(0.0, seconds))

    def has_work(self) -> bool:
        return bool(self.later or (self.soon and self.busy < self.most))


def _run(state: _State) -> None:
    with stall_watch.watched():
        _work(state)


def _work(state: _State) -> None:
    soon = False
    while True:
        with state.lock:
            state.busy -= soon
            if not (state.has_work() or state.stopped):
                state.idle += 1
                state.ready.wait_for(
                    lambda: state.stopped or state.has_work(), timeout=IDLE_SECONDS
                )
                state.idle -= 1
            if state.stopped or not state.has_work():
                state.alive -= 1
                state.ready.notify_all()
                return
            soon = bool(state.soon) and state.busy < state.most
            state.busy += soon
            job: Any = (state.soon if soon else state.later).popleft()
        job()
        stall_watch.done()
        # Drop the last job: it must not keep its loader alive while this thread waits.
        del job


T = TypeVar("T")


class ThreadPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor that runs a task in the submitting thread if no thread can be started."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Like ThreadPoolExecutor.submit."""
        task: _Task[T] = _Task(lambda: fn(*args, **kwargs))
        try:
            super().submit(task)
        except RuntimeError as error:
            _check_refused(error)
            task()  # it is also queued, in case other threads exist
        return task.future


class _Task(Generic[T]):
    """A call that is made once, by whichever thread is first."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call: Callable[[], T] | None = call
        self._first = threading.Lock()
        self.future: Future[T] = Future()

    def __call__(self) -> None:
        if not self._first.acquire(blocking=False):
            return
        call, self._call = self._call, None
        assert call is not None
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(call())
            except BaseException as error:  # raised when the caller asks for the result
                self.future.set_exception(error)


_all: weakref.WeakSet[Workers] = weakref.WeakSet()


#: Set when the interpreter exits: no thread should wait for a batch any more.
exiting = threading.Event()


@atexit.register
def _stop_all() -> None:
    exiting.set()
    states = [workers._state for workers in list(_all)]  # noqa: SLF001  a class of this module
    for state in states:
        state.stop()
    # If a thread returns from OpenCV after the interpreter is gone, C++ calls terminate(), and the
    # program ends with "Aborted".
    end = time.monotonic() + EXIT_SECONDS
    for state in states:
        state.wait_until_ended(end - time.monotonic())
    if _all and "tensorflow" in sys.modules:
        # A fit that ended with an exception leaves an iterator behind, whose destructor waits for
        # its thread. It must run while threads still run, and the exception keeps it alive.
        sys.last_value = sys.last_traceback = None
        if hasattr(sys, "last_exc"):
            sys.last_exc = None
        gc.collect()


def usable_cores() -> int:
    """Cores that this process may use, limited by its affinity and the container's CPU quota (cgroup)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        cores = psutil.cpu_count() or 1
    for name in ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
        try:
            with open(name) as file:
                quota = file.read().split()
            if len(quota) == 1:
                with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
                    quota.append(file.read().strip())
            if quota[0] not in ("max", "-1"):
                cores = min(cores, max(1, -(-int(quota[0]) // int(quota[1]))))
        except (OSError, ValueError):
            continue
    return max(1, cores)
