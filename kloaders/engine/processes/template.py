"""Starts worker processes as forks of a template process that has already imported the package.

Importing NumPy, OpenCV and this package takes a second of CPU time; forking a process that has imported
them takes milliseconds. The template has a single thread and runs no user code, so a fork of it is as
good as a new process. If no template can be started, each worker is a new Python process.
"""
# ruff: noqa: S301  both ends unpickle only this package's own messages

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from multiprocessing import spawn
from typing import Any, Protocol

from kloaders.core import forks
from kloaders.core.interrupts import held
from kloaders.engine.processes.timeouts import Timeouts
from kloaders.engine.processes.worker import work
from kloaders.keras_api.base import WORKER
from kloaders.places.settings import exported

__all__ = ["Process", "Template", "pids", "prepare", "serve", "shut_down", "start"]

# One thread per worker: more would only compete with the other workers.
_SINGLE = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"
)  # fmt: skip
# Imported by the template; missing packages are skipped.
_PRELOADED = (
    "cv2", "simplejpeg", "cloudpickle", "numpy.random", "kloaders.loaders.paths",
    "kloaders.loaders.arrays", "kloaders.sources.column_source",
)  # fmt: skip
# A process id or an exit code, as sent by the template.
_NUMBER = struct.Struct("<q")
# A running template answers immediately.
_ANSWER_SECONDS = 10.0
_MOST_BYTES, _MOST_FDS = 1 << 18, 16


class Process(Protocol):
    """A started process, with the interface of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code; raises TimeoutExpired after `timeout` seconds."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def terminate(self) -> None:
        """Send SIGTERM."""


# ---------------------------------------------------------------------- in the template


def serve(number: int, idle: float) -> None:
    """Run the template until its program ends, or for `idle` seconds after its last worker.

    Returns only in workers, when they are done.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _PRELOADED:
        with contextlib.suppress(Exception):  # the worker that needs the module reports the error
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the garbage collector must not touch pages that are shared with workers
    conn = socket.socket(fileno=number)
    # A fork keeps only one thread, and locks held by others stay locked, so there must be no others.
    with contextlib.suppress(OSError):  # the program has ended
        conn.send(_NUMBER.pack(len(os.listdir("/proc/self/task"))))
    work(*_next_worker(conn, idle))


def _next_worker(conn: socket.socket, idle: float) -> tuple[Any, ...]:
    """Serve fork requests. Returns in the fork, with the arguments of `work`."""
    ends: dict[int, tuple[int, int]] = {}  # pidfd of a worker -> its process id and status pipe
    wanted = select.poll()
    wanted.register(conn, select.POLLIN)
    asked = True
    while asked or ends:
        ready = wanted.poll(None if ends else 1000 * idle)
        if not ready:
            break
        for number, _ in ready:
            if number in ends:
                wanted.unregister(number)
                pid, status = ends.pop(number)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _send_number(status, code)
                os.close(status)
                os.close(number)
                continue
            try:
                message, fds, _, _ = socket.recv_fds(conn, _MOST_BYTES, _MOST_FDS)
            except OSError:
                message, fds = b"", []
            if not message:  # the program has ended, or retired this template
                wanted.unregister(conn)
                asked = False
                continue
            status = fds.pop()
            try:
                pid = os.fork()
            except OSError as error:
                _send_number(status, -(error.errno or 1))
                os.close(status)
            else:
                if pid == 0:
                    conn.close()
                    for other, (_, pipe) in ends.items():
                        os.close(other)
                        os.close(pipe)
                    os.close(status)
                    return _begun(message, fds)
                if not _send_number(status, pid):
                    os.kill(pid, signal.SIGKILL)
                end = os.pidfd_open(pid)
                ends[end] = pid, status
                wanted.register(end, select.POLLIN)
            for fd in fds:
                os.close(fd)
    os._exit(0)


def _send_number(pipe: int, number: int) -> bool:
    try:
        os.write(pipe, _NUMBER.pack(number))
    except BrokenPipeError:
        return False
    return True


def _begun(message: bytes, fds: list[int]) -> tuple[Any, ...]:
    """Give this fork the folder, streams and module path that a new Python process would have."""
    path, arguments, streams = pickle.loads(message)
    os.setsid()
    *fds, folder = fds
    os.fchdir(folder)
    os.close(folder)
    for stream in reversed(streams):
        os.dup2(given := fds.pop(), stream)
        os.close(given)
    sys.path[:] = path
    importlib.invalidate_caches()  # files may have been added
    random.seed()
    if (drawn := sys.modules.get("numpy.random")) is not None:
        drawn.seed()
    return (*fds, *arguments)


# ---------------------------------------------------------------------- in the program


class _Forked:
    """A worker that the template forked. The template is its parent, and reports its exit code."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status, self._answers = status, True
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, status).atexit = False

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and self._answers and _readable(self._status, 0):
                answer = os.read(self._status, _NUMBER.size)
                if answer:
                    (self.returncode,) = _NUMBER.unpack(answer)
                else:  # the template was killed
                    self._answers = False
            if self.returncode is None and not self._answers and not _runs(self.pid):
                self.returncode = -signal.SIGKILL
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = 0.5 if end is None else min(0.5, end - time.monotonic())
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            if self._answers:
                _readable(self._status, left)
            else:
                time.sleep(min(left, 0.02))
        return code

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Template:
    """A process that forks workers. `state`: what it inherited from the program, see `_state`."""

    def __init__(self, state: tuple[Any, ...], idle: float) -> None:
        self.state = state
        self.threads: int | None = None
        self.conn, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self.conn.close)
            code = f"from kloaders.engine.processes.template import serve; serve({theirs.fileno()}, {idle})"
            self.process = _python(code, (theirs.fileno(),))
            undo.pop_all()

    def wait_ready(self, limit: float) -> bool | None:
        """Wait until it has imported its modules. Return whether it can fork; None after `limit` seconds."""
        if self.threads is None and _readable(self.conn.fileno(), limit):
            answer = self.conn.recv(_NUMBER.size)
            self.threads = _NUMBER.unpack(answer)[0] if answer else 0
        return None if self.threads is None else self.threads == 1

    def fork(self, fds: Sequence[int], arguments: tuple[Any, ...]) -> _Forked | None:
        """Fork a worker; None if the template has ended. Raises OSError if the system refuses."""
        folder = os.open(".", os.O_PATH)
        ours, theirs = os.pipe()
        try:
            streams = [fd for fd in (1, 2) if _is_open(fd)]
            message = pickle.dumps((sys.path, arguments, streams))
            sent = [*fds, *streams, folder, theirs]
            socket.send_fds(self.conn, [message], sent)
            os.close(theirs)
            theirs = -1
            answer = os.read(ours, _NUMBER.size) if _readable(ours, _ANSWER_SECONDS) else b""
            number = _NUMBER.unpack(answer)[0] if answer else 0
            if number > 0:
                worker = _Forked(number, ours)
                ours = -1
                return worker
            if number < 0:
                raise OSError(-number, os.strerror(-number))
        except (BrokenPipeError, ConnectionError):
            return None
        finally:
            for fd in (folder, ours, theirs):
                if fd >= 0:
                    os.close(fd)
        return None

    def close(self) -> None:
        """Let it exit after its last worker."""
        self.conn.close()


class _Templates:
    """The current template, and earlier ones that still have workers."""

    def __init__(self) -> None:
        self.possible = _tells_ends()
        self.old: list[Template] = []
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        for one in [*self.old, *filter(None, [getattr(self, "current", None)])]:
            one.process.returncode = 0  # it belongs to the parent
            one.close()
        self.old.clear()
        self.current: Template | None = None

    def ready(self, timeouts: Timeouts) -> Template | None:
        if not self.possible:
            return None
        with self.lock:
            self.old = [one for one in self.old if one.process.poll() is None]
            state, now = _state(), self.current
            if now is None or now.state != state or now.process.poll() is not None:
                self.retire()
                try:
                    with held():
                        now = self.current = Template(state, timeouts.idle)
                except OSError:  # if it occurs again, starting the worker reports it
                    return None
            there = now.wait_ready(timeouts.start)
            if there is False:  # it has ended, or has threads; the next one would do the same
                self.possible = False
                self.retire()
            return now if there else None

    def retire(self) -> None:
        """Stop using the current template."""
        with self.lock:
            now, self.current = self.current, None
            if now is not None:
                now.close()
                self.old.append(now)

    def shut_down(self) -> None:
        with self.lock:
            self.retire()
            for one in self.old:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(0.5)
                one.process.kill()
                one.process.wait()
            self.old.clear()


def start(fds: Sequence[int], arguments: tuple[Any, ...], timeouts: Timeouts) -> Process:
    """Start a process that runs `work(*fds, *arguments)`.

    Raises:
        OSError: the limit of processes or of memory is reached.
    """
    for _ in range(2):  # an idle template may have just exited
        template = _templates.ready(timeouts)
        worker = template and template.fork(fds, arguments)
        if worker:
            return worker
        if template is None:
            break
        _templates.retire()
    code = (
        "from kloaders.engine.processes.worker import work; "
        f"work(*{tuple(fds)}, *{tuple(arguments)})"
    )
    return _python(code, fds)


def prepare(timeouts: Timeouts) -> None:
    """Start the template and wait for it, so that workers can then start immediately."""
    _templates.ready(timeouts)


def shut_down() -> None:
    """End the template; the next worker starts a new one. Call it only when no worker is left."""
    _templates.shut_down()


def pids() -> set[int]:
    """Process ids of the running templates: the current one and retired ones."""
    with _templates.lock:
        every = [*_templates.old, *filter(None, [_templates.current])]
        return {one.process.pid for one in every if one.process.poll() is None}


def _python(code: str, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """A new Python process that runs this code with the environment of workers."""
    executable, flags, environment, *_ = _state()
    # The package may be importable only through this process's path, so set the path first.
    code = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    return subprocess.Popen(  # noqa: S603  this interpreter, our module
        [executable, *flags, "-c", code],
        pass_fds=fds,
        env=environment,
        stdin=subprocess.DEVNULL,
        # Only this process handles Ctrl-C.
        start_new_session=True,
    )


def _state() -> tuple[Any, ...]:
    """What a process inherits when it is started, and cannot be changed later."""
    environment = {**os.environ, WORKER: "1", **exported()}
    for single in _SINGLE:
        environment.setdefault(single, "1")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  no public API
    executable = os.fsdecode(spawn.get_executable())
    if sys.platform != "linux":
        return executable, flags, environment
    import resource

    limits = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    rights = os.getresuid(), os.getresgid(), os.nice(0), os.sched_getaffinity(0)
    return executable, flags, environment, [resource.getrlimit(one) for one in limits], rights


def _readable(fd: int, seconds: float) -> bool:
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    return bool(ready.poll(1000 * seconds))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _tells_ends() -> bool:
    """Whether the system has pidfds, which report the end of a process."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a container that forbids it
        return False
    return True


def _runs(pid: int) -> bool:
    """Whether a process that is not our child is running."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in (b"Z", b"X")  # in a container without init, zombies may stay


_templates = _Templates()


def _end() -> None:
    _templates.possible = False  # another thread may still request a worker
    shut_down()


# Finalizers run in reverse order, so at exit this one runs after those of all pools.
weakref.finalize(_templates, _end)
