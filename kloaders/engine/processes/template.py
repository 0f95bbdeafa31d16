"""Where worker processes come from: forks of one process that has imported all, once a program.

To import NumPy, OpenCV and this package takes a second of processor time, to fork what has done so a
few milliseconds. The template runs no thread and none of the user's code, so a fork of it is a fresh
process. Where it cannot be had, each worker is a Python of its own.
"""
# ruff: noqa: S301  both ends of what is pickled are ours

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
# What workers import; what is not installed is left out.
_PRELOADED = (
    "cv2", "simplejpeg", "cloudpickle", "numpy.random", "kloaders.loaders.paths",
    "kloaders.loaders.arrays", "kloaders.sources.column_source",
)  # fmt: skip
# A process number or an exit code, as the template tells it.
_NUMBER = struct.Struct("<q")
# A template that is there answers at once.
_ANSWER_SECONDS = 10.0
_MOST_BYTES, _MOST_FDS = 1 << 18, 16


class Process(Protocol):
    """A process that was started, as `subprocess.Popen` has it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; TimeoutExpired if that takes longer."""

    def kill(self) -> None:
        """End it at once."""

    def terminate(self) -> None:
        """Ask it to end."""


# ---------------------------------------------------------------------- in the template


def serve(number: int, idle: float) -> None:
    """The life of the template, which ends with its program, or `idle` seconds after its last worker.

    Returns in workers only, when their life is over.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _PRELOADED:
        with contextlib.suppress(Exception):  # told by the worker that needs it
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here is shared with workers, as long as nobody writes to it
    conn = socket.socket(fileno=number)
    # Of a fork only one thread is left, whatever the others held: then there is to be none.
    with contextlib.suppress(OSError):  # the program has ended meanwhile
        conn.send(_NUMBER.pack(len(os.listdir("/proc/self/task"))))
    work(*_next_worker(conn, idle))


def _next_worker(conn: socket.socket, idle: float) -> tuple[Any, ...]:
    """Fork until this is the fork. -> the arguments of `work`."""
    ends: dict[int, tuple[int, int]] = {}  # by a descriptor of each worker, its number and pipe
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
                _tell(status, code)
                os.close(status)
                os.close(number)
                continue
            try:
                message, fds, _, _ = socket.recv_fds(conn, _MOST_BYTES, _MOST_FDS)
            except OSError:
                message, fds = b"", []
            if not message:  # the program has ended, or wants no more of them
                wanted.unregister(conn)
                asked = False
                continue
            status = fds.pop()
            try:
                pid = os.fork()
            except OSError as error:
                _tell(status, -(error.errno or 1))
                os.close(status)
            else:
                if pid == 0:
                    conn.close()
                    for other, (_, pipe) in ends.items():
                        os.close(other)
                        os.close(pipe)
                    os.close(status)
                    return _begun(message, fds)
                told = _tell(status, pid)
                if not told:
                    os.kill(pid, signal.SIGKILL)
                end = os.pidfd_open(pid)
                ends[end] = pid, status
                wanted.register(end, select.POLLIN)
            for fd in fds:
                os.close(fd)
    os._exit(0)


def _tell(pipe: int, number: int) -> bool:
    try:
        os.write(pipe, _NUMBER.pack(number))
    except BrokenPipeError:
        return False
    return True


def _begun(message: bytes, fds: list[int]) -> tuple[Any, ...]:
    """This process is a worker: it becomes what a Python started by the program would be."""
    path, arguments, streams = pickle.loads(message)
    os.setsid()
    *fds, folder = fds
    os.fchdir(folder)
    os.close(folder)
    for stream in reversed(streams):
        os.dup2(given := fds.pop(), stream)
        os.close(given)
    sys.path[:] = path
    importlib.invalidate_caches()  # files may have come since
    random.seed()
    if (drawn := sys.modules.get("numpy.random")) is not None:
        drawn.seed()
    return (*fds, *arguments)


# ---------------------------------------------------------------------- in the program


class _Forked:
    """A worker that the template forked; the template is its parent, and tells how it ended."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status, self._told = status, True
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, status).atexit = False

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and self._told and _readable(self._status, 0):
                told = os.read(self._status, _NUMBER.size)
                if told:
                    (self.returncode,) = _NUMBER.unpack(told)
                else:  # the template was killed
                    self._told = False
            if self.returncode is None and not self._told and not _runs(self.pid):
                self.returncode = -signal.SIGKILL
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = 0.5 if end is None else min(0.5, end - time.monotonic())
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            if self._told:
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
    """A process that forks workers, started for a program that is in this state."""

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
        """Whether it forks workers; blocks until it has imported all. None: not within that time."""
        if self.threads is None and _readable(self.conn.fileno(), limit):
            told = self.conn.recv(_NUMBER.size)
            self.threads = _NUMBER.unpack(told)[0] if told else 0
        return None if self.threads is None else self.threads == 1

    def fork(self, fds: Sequence[int], arguments: tuple[Any, ...]) -> _Forked | None:
        """A worker; None where the template has ended. OSError where the system has no more of them."""
        folder = os.open(".", os.O_PATH)
        ours, theirs = os.pipe()
        try:
            streams = [fd for fd in (1, 2) if _is_open(fd)]
            message = pickle.dumps((sys.path, arguments, streams))
            sent = [*fds, *streams, folder, theirs]
            socket.send_fds(self.conn, [message], sent)
            os.close(theirs)
            theirs = -1
            told = os.read(ours, _NUMBER.size) if _readable(ours, _ANSWER_SECONDS) else b""
            number = _NUMBER.unpack(told)[0] if told else 0
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
        """Have it leave after its last worker."""
        self.conn.close()


class _Templates:
    """The template that is there."""

    def __init__(self) -> None:
        self.possible = _tells_ends()
        self.old: list[Template] = []
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        for one in [*self.old, *filter(None, [getattr(self, "current", None)])]:
            one.process.returncode = 0  # it is the parent's
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
                except OSError:  # told by who starts a worker, if it meets the same
                    return None
            there = now.wait_ready(timeouts.start)
            if there is False:  # it has ended, or runs threads: so would the next one
                self.possible = False
                self.retire()
            return now if there else None

    def retire(self) -> None:
        """Do without the template that is there."""
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
    """A process that does `work(*fds, *arguments)`.

    Raises:
        OSError: the system has no more processes, or no memory.
    """
    for _ in range(2):  # it may have left just now, as nobody had asked for anything
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
    """Have the template there, so that workers start at once; blocks until it is."""
    _templates.ready(timeouts)


def shut_down() -> None:
    """End the template; the next worker starts another one. Only where no worker is left."""
    _templates.shut_down()


def pids() -> set[int]:
    """Process numbers of the templates that are there: this one's, and those that leave."""
    with _templates.lock:
        every = [*_templates.old, *filter(None, [_templates.current])]
        return {one.process.pid for one in every if one.process.poll() is None}


def _python(code: str, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """A Python that runs this, in the environment of workers."""
    executable, flags, environment, *_ = _state()
    # The package's own path first: it may be importable only through this process's path.
    code = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    return subprocess.Popen(  # noqa: S603  this interpreter, our module
        [executable, *flags, "-c", code],
        pass_fds=fds,
        env=environment,
        stdin=subprocess.DEVNULL,
        # This process handles Ctrl-C.
        start_new_session=True,
    )


def _state() -> tuple[Any, ...]:
    """What a process takes over from the one that starts it, and cannot be told later."""
    environment = {**os.environ, WORKER: "1", **exported()}
    for single in _SINGLE:
        environment.setdefault(single, "1")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  -X and -W have no public form
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
    """Whether the system has descriptors that tell of the end of a process."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a container that forbids it
        return False
    return True


def _runs(pid: int) -> bool:
    """Whether a process that is not ours to wait for has not ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in (b"Z", b"X")  # its new parent need not look, as in a container without init


_templates = _Templates()


def _end() -> None:
    _templates.possible = False  # a thread may ask for a worker still
    shut_down()


# At the end of the program it goes after all pools, since it was here before them.
weakref.finalize(_templates, _end)
