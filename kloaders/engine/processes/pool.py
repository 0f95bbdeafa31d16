"""Worker processes for hooks that hold the GIL: they fill rows in shared memory, and may die.

A thread of the engine hands its part of a batch to a worker and waits. Everything a worker makes
follows from its arguments, so that a part whose worker died is simply done again by another one.
"""
# ruff: noqa: S301  both ends of what is pickled are ours

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from multiprocessing import process, reduction, spawn
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from kloaders.core.errors import explain
from kloaders.core.memory import ALIGNMENT, aligned, format_bytes
from kloaders.core.messages import say
from kloaders.core.structure import Structure, pack, spec_of
from kloaders.keras_api.base import WORKER
from kloaders.plan.epoch import Draw, part_of
from kloaders.sources.columns import Odd, Report

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["ProcessPool", "check_sendable", "work"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]

# A worker that works on one sample for so long is ended, and the sample tried once more.
TIMEOUT_SECONDS = 60.0
# A worker may take this long to start: it imports the modules of the user's functions.
START_SECONDS = 300.0
# A worker that nobody asks for anything leaves: what Keras keeps alive after fit is light. A new
# one takes a fraction of a second.
IDLE_SECONDS = 60.0
# A sample at which so many workers died is at fault, and not the machine.
_DEATHS = 3
# The same for workers that die before they begin, one after another.
_EARLY_DEATHS = 10
# Arrays below this are copied when a batch is whole: labels that a user collects hold no block.
_SMALL = 1 << 16
# Workers that do nothing may say goodbye properly; after this they are killed.
_GOODBYE_SECONDS = 0.7
# One thread for each worker: others would only compete with the workers beside it.
_SINGLE = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"
)  # fmt: skip

# True in a worker process.
_is_worker = False


class ProcessPool:
    """Up to `count` processes, each with a copy of the loader.

    They start together when the first job comes, stay until `close`, and are replaced when they
    die. The pool refers to the loader's pickled form and never to the loader, so that a forgotten
    loader is collected, and its workers end.

    Threads: all methods may be called from several at once.
    """

    def __init__(self, loader: SequenceLoader, count: int) -> None:
        if _is_worker:
            raise RuntimeError(
                "a worker process, which imports your script again, asked for a batch itself: put "
                "what builds and trains the model under `if __name__ == '__main__':`, or pip "
                "install cloudpickle, with which workers need not import the script."
            )
        self.count = count
        self.memory = SharedBlocks()
        self._crew = _Crew(loader)
        weakref.finalize(self, _Crew.close, self._crew)

    @property
    def usable(self) -> bool:
        """Whether it is open, and this process is not a fork of the one that made it."""
        return not self._crew.closed and self._crew.pid == os.getpid()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers that exist now."""
        return [worker.process.pid for worker in list(self._crew.all)]

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
        self._crew.close()

    # ------------------------------------------------------------------ one job, however often

    def _run(
        self,
        job: Callable[[int, int], tuple[Any, ...]],
        rows: int,
        step: int,
        name: Callable[[int], str],
        report: Report,
        blocks: Sequence[_Block] = (),
    ) -> Any:
        """Have `job(at, step)` done: rows from `at` on, `step` of them at a time."""
        at = 0
        gone: Counter[int] = Counter()
        while True:
            troubles: list[tuple[int, Exception]] = []
            try:
                with self._crew.worker(self.count) as worker:
                    result = worker.ask(job(at, step), troubles, blocks, self.memory.numbers())
            except _Gone as end:
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


class _Gone(Exception):
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


class _Crew:
    """The workers of a pool, and what they start from."""

    def __init__(self, loader: SequenceLoader) -> None:
        self.image = _Image(loader)
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
            if isinstance(error, _Gone) and not worker.ready:
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
                    new = _Worker(self.image, self.life[0])
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
                worker.say_goodbye()
            else:
                worker.process.terminate()
        end = time.monotonic() + _GOODBYE_SECONDS
        for worker in everyone:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - time.monotonic()))
            worker.kill()
            if worker in idle:
                worker.end()
        for fd in (*self.life, self.image.fd):
            os.close(fd)


# ---------------------------------------------------------------------- one process, seen from here


class _Worker:
    """A worker process, its pipe, and the row that it is at."""

    def __init__(self, image: _Image, life: int) -> None:
        self.ready = False
        self._known: set[int] = set()
        cell = _anonymous_file(8)
        self._row = np.frombuffer(mmap.mmap(cell, 8), np.int64)
        self._row[0] = -1
        self.conn, theirs = multiprocessing.Pipe()
        numbers = (theirs.fileno(), cell, life, image.fd)
        # Its own path first: kloaders may be found by nothing else than this process' path.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from kloaders.engine.processes.pool import work; work(*{numbers}, {image.head})"
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
        except _Gone as end:
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
        blocks: Sequence[_Block],
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
            raise self._gone() from None
        while True:
            kind, *rest = self._receive(TIMEOUT_SECONDS)
            if kind == "odd":
                row, leaf, shape, dtype = rest
                array = np.frombuffer(self._bytes(), dtype).reshape(shape)
                troubles.append((row, Odd(row, leaf, array)))
            elif kind == "error":
                troubles.append((rest[0], _unpack_error(rest[1])))
            elif kind == "raised":
                return _Raised(_unpack_error(rest[0]))
            else:
                return rest[0]

    def _receive(self, limit: float) -> Any:
        row, since = self._row[0], time.monotonic()
        while not self.conn.poll(min(0.5, limit / 4)):
            if self.process.poll() is not None and not self.conn.poll():
                raise self._gone()
            if self._row[0] != row:
                row, since = self._row[0], time.monotonic()
            elif time.monotonic() - since > limit:
                how = f"did not answer for {limit:g} seconds"
                raise _Gone(int(self._row[0]), how, hangs=True)
        return pickle.loads(self._bytes())

    def _bytes(self) -> bytes:
        try:
            return self.conn.recv_bytes()
        except (EOFError, OSError):
            raise self._gone() from None

    def _gone(self) -> _Gone:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return _Gone(int(self._row[0]), "closed its pipe")
        if code >= 0:
            return _Gone(int(self._row[0]), f"ended with exit code {code}")
        try:
            return _Gone(int(self._row[0]), f"ended with {signal.Signals(-code).name}")
        except ValueError:
            return _Gone(int(self._row[0]), f"ended with signal {-code}")

    def say_goodbye(self) -> None:
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


# ---------------------------------------------------------------------- shared memory


class SharedBlocks:
    """Memory for batches that workers fill; like `memory.BufferPool`, a block per batch.

    A block is given out again when nobody holds an array of it. Each is a file without a name,
    so that nothing is left whatever happens to the processes.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self._blocks: dict[int, _Block] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def take(self, needs: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[Array]:
        """Arrays of these shapes and types in one block, each on a 64-byte boundary."""
        sizes = [int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in needs]
        starts = [0, *itertools.accumulate(size + -size % ALIGNMENT for size in sizes)]
        with self._lock:
            array = self._free(starts[-1])
            return [
                array[start : start + size].view(dtype).reshape(shape)
                for start, size, (shape, dtype) in zip(starts, sizes, needs, strict=False)
            ]

    def _free(self, nbytes: int) -> Array:
        # The block itself and getrefcount's own argument: 2 references, and nobody else.
        free = [b for b in self._blocks.values() if sys.getrefcount(b.array) == 2]
        for block in free:
            if nbytes <= block.nbytes <= 2 * nbytes + mmap.PAGESIZE and not block.spare:
                return block.array
        for block in free:  # of another size
            if block.spare or len(self._blocks) >= self.limit:
                del self._blocks[id(block.array)]
        block = _Block(next(self._numbers), nbytes, len(self._blocks) >= self.limit)
        self._blocks[id(block.array)] = block
        return block.array

    def locate(self, leaves: list[Array]) -> _Place | None:
        """Where these arrays lie; None if not in one of these blocks."""
        with self._lock:
            block = self._blocks.get(id(leaves[0].base))
        if block is None or not all(
            leaf.base is block.array and leaf.flags.c_contiguous for leaf in leaves
        ):
            return None
        start = _address(block.array)
        offsets = [_address(leaf) - start for leaf in leaves]
        shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        return _Place(block, (block.number, list(zip(offsets, shapes, strict=True))))

    def numbers(self) -> set[int]:
        """Of all blocks that there are."""
        with self._lock:
            return {block.number for block in self._blocks.values()}

    def keep(self, leaves: list[Array]) -> list[Array]:
        """The arrays as they are handed over: small ones are copied, so that they hold no block.

        So are all of a block beyond the limit: a user who keeps every batch of an epoch keeps
        ordinary memory, and not a file descriptor for each.
        """
        return [self._kept(leaf) for leaf in leaves]

    def _kept(self, leaf: Array) -> Array:
        block = self._blocks.get(id(leaf.base))
        if block is None or not (block.spare or leaf.nbytes < _SMALL):
            return leaf
        copy = aligned(leaf.nbytes).view(leaf.dtype).reshape(leaf.shape)
        copy[...] = leaf
        return copy


# Number of a block, and (offset, (shape, dtype)) of the arrays in it.
_Layout = tuple[int, list[tuple[int, tuple[tuple[int, ...], np.dtype[Any]]]]]


class _Place(NamedTuple):
    block: _Block
    layout: _Layout


def _arrays_at(layout: _Layout, blocks: dict[int, Array]) -> list[Array]:
    number, arrays = layout
    return [
        np.ndarray(shape, dtype, buffer=blocks[number], offset=offset)
        for offset, (shape, dtype) in arrays
    ]


class _Block:
    """Memory that other processes can map by its file descriptor."""

    def __init__(self, number: int, nbytes: int, spare: bool) -> None:
        self.number, self.spare = number, spare
        self.nbytes = max(1, nbytes)
        self.fd = _anonymous_file(self.nbytes)
        self.array = np.frombuffer(mmap.mmap(self.fd, self.nbytes), np.uint8)
        weakref.finalize(self, os.close, self.fd).atexit = False


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _anonymous_file(nbytes: int) -> int:
    """A file in memory that has no name, and is gone with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("kloaders")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, nbytes)
        # All of it now: memory that is lacking is an error here, and SIGBUS where it is written to.
        with contextlib.suppress(AttributeError):  # not on macOS
            os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return fd
        os.close(fd)
        raise OSError(
            error.errno,
            f"no shared memory for {format_bytes(nbytes)} more ({error.strerror}): processes=True "
            "passes batches through it. Use a smaller batch_size or max_queue_size, or threads",
        ) from error
    return fd


# ---------------------------------------------------------------------- the loader, sent to workers


class _Image:
    """A loader's pickled form in a file in memory, its arrays beside it: workers share them."""

    def __init__(self, loader: SequenceLoader) -> None:
        buffers: list[Any] = []
        try:
            data, main = _pickled(_worker_form(loader), lambda b: buffers.append(b.raw()))
        except Exception:
            check_sendable(loader)  # says what it is
            raise
        sizes = [view.nbytes for view in buffers]
        starts = [0, *itertools.accumulate(size + -size % ALIGNMENT for size in sizes)]
        head = pickle.dumps((sys.argv, main, data, starts, sizes))
        #: Where the arrays begin.
        self.head = len(head) + -len(head) % mmap.ALLOCATIONGRANULARITY
        self.fd = _anonymous_file(self.head + starts[-1])
        with mmap.mmap(self.fd, self.head + starts[-1]) as mapped:
            mapped[: len(head)] = head
            for view, start in zip(buffers, starts, strict=False):
                mapped[self.head + start : self.head + start + view.nbytes] = view


def _worker_form(loader: SequenceLoader) -> SequenceLoader:
    """The loader without what workers have no use for: whole batches, and the order of samples."""
    new = loader.view()
    new.batch_transform = None
    new.plan = replace(new.plan, stream=None)
    new.sampling = type(new.sampling)()
    return new


def _load_image(fd: int, head: int) -> SequenceLoader:
    # Private pages: a hook that writes to an array of its own does so in its own process.
    mapped = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    argv, main, data, starts, sizes = pickle.loads(mapped)
    spawn.prepare({"sys_argv": argv, **main})
    buffers = [mapped[head + a : head + a + n] for a, n in zip(starts, sizes, strict=False)]
    loader: SequenceLoader = pickle.loads(data, buffers=buffers)
    return loader


def _pickled(value: Any, take_buffer: Callable[[Any], Any]) -> tuple[bytes, dict[str, str]]:
    """Pickled form, and what `spawn.prepare` needs to import the main script, if it is needed."""
    by_value = _cloudpickle()
    if by_value is not None:
        # Functions and classes of the script or notebook travel whole: workers don't import it.
        return by_value.dumps(value, protocol=5, buffer_callback=take_buffer), {}
    data = pickle.dumps(value, protocol=5, buffer_callback=take_buffer)
    return data, _main_script() if b"__main__" in data else {}


def _cloudpickle() -> Any:
    try:
        return import_module("cloudpickle")
    except ImportError:
        return None


def _main_script() -> dict[str, str]:
    main = sys.modules["__main__"]
    name = getattr(main.__spec__, "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):
        raise ValueError("it is defined in an interactive session, which workers cannot import")
    folder = getattr(process, "ORIGINAL_DIR", None) or os.getcwd()
    return {"init_main_from_path": os.path.join(folder, path)}


def check_sendable(loader: SequenceLoader) -> None:
    """Raise a TypeError that names what in this loader cannot be sent to a worker process."""
    if sys.platform == "win32":
        raise ValueError(
            "processes=True is not available on Windows, where processes cannot inherit shared "
            "memory that has no name: leave it out, which uses threads, or use WSL."
        )

    def sendable(value: Any) -> Exception | None:
        try:
            _pickled(value, lambda _: None)  # arrays are not copied
        except Exception as error:  # whatever a user's objects raise
            return error
        return None

    if getattr(loader.transform, "needs_keras", False):
        raise TypeError(
            "processes=True, but transform= applies a Keras layer, and worker processes import no "
            "Keras: give it as batch_transform=, or leave processes out."
        )
    loader = _worker_form(loader)
    error = sendable(loader)
    if error is None:
        return
    what = f"the class {type(loader).__qualname__}"
    for name, value in loader._settings().items():
        found = sendable(value)
        if found is not None:
            what, error = f"{name}={value!r:.100}", found
            break
    if _cloudpickle() is None:
        advice = "Define it at the top level of a module (a .py file), or pip install cloudpickle."
    else:
        advice = "Open files, locks and models inside the function, when it first runs, not before."
    raise TypeError(
        f"processes=True, but {what} cannot be sent to a worker process: {error}. {advice}"
    ) from error


# ---------------------------------------------------------------------- in a worker process


def work(conn_fd: int, row_fd: int, life_fd: int, image_fd: int, head: int) -> None:
    """The life of a worker process."""
    global _is_worker  # noqa: PLW0603
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(life_fd,), daemon=True).start()
    conn: Connection[Any, Any] = Connection(conn_fd)

    def tell(*message: Any, then: Array | None = None) -> None:
        try:
            conn.send(message)
            if then is not None:
                conn.send_bytes(then.data)
        except OSError:
            os._exit(0)  # nobody is there

    row = np.frombuffer(mmap.mmap(row_fd, 8), np.int64)
    try:
        loader = _load_image(image_fd, head)
        loader.processes = False
    except BaseException:  # told to the parent, which raises it
        tell("failed", traceback.format_exc())
        return
    os.environ.pop(WORKER, None)
    blocks: dict[int, Array] = {}
    tell("ready")
    while True:
        try:
            if not conn.poll(IDLE_SECONDS):
                return
            job, stale, new = conn.recv()
            for number in stale:
                del blocks[number]
            for number, nbytes in new:
                fd = reduction.recv_handle(conn)
                blocks[number] = np.frombuffer(mmap.mmap(fd, nbytes), np.uint8)
                os.close(fd)
        except (EOFError, ConnectionError):
            return
        try:
            answer = _do(loader, job, blocks, tell, row)
        except BaseException as error:  # raised in the parent
            tell("raised", _pack_error(loader, None, error))
        else:
            tell("done", answer)


def _leave_with_parent(life_fd: int) -> None:
    os.read(life_fd, 1)
    os._exit(0)


def _do(
    loader: SequenceLoader,
    job: tuple[Any, ...],
    blocks: dict[int, Array],
    tell: Callable[..., None],
    row: Indices,
) -> Any:
    if job[0] == "look":
        _, index, raw = job
        row[0] = 0
        sample = loader._sample(index)
        return spec_of(sample if raw else loader._transformed(index, sample, 0, 0))
    _, (target, source), indices, at, step, epoch, draw, raw, forms = job
    loader._raw_spec, loader._spec = forms
    out = _arrays_at(target, blocks)
    stored = source and _arrays_at(source, blocks)
    for first in range(at, len(indices), step):
        row[0] = first
        part = slice(first, first + step)

        def report(k: int, error: Exception, first: int = first) -> None:
            if isinstance(error, Odd):
                array = error.array
                plain = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                tell("odd", first + k, error.leaf, array.shape, array.dtype, then=plain)
            else:
                index = int(indices[first + k])
                tell("error", first + k, _pack_error(loader, index, error))

        rows = [leaf[part] for leaf in out]
        if stored is None:
            loader._fill(indices[part], rows, epoch, part_of(draw, part), raw, report)
            continue
        try:
            index = int(indices[first])
            sample = pack(loader.raw_spec, [np.array(leaf[first]) for leaf in stored])
            made = loader._transformed(index, sample, epoch, part_of(draw, first))
            loader._place(made, loader.sample_spec, rows, 0, report)
        except Exception as error:  # whatever a user's function raises
            report(0, error)
    return None


def _pack_error(
    loader: SequenceLoader, index: int | None, error: BaseException
) -> tuple[bytes, str]:
    """An error as it crosses to the parent: pickled, or told where it cannot be, and its trace."""
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # an exception class of the user's that does not pickle
        other: Exception = RuntimeError(f"{type(error).__name__}: {error}")
        if index is not None:
            other = explain(index, loader._name(index), error)
        data = pickle.dumps(other)
    return data, told


def _unpack_error(packed: tuple[bytes, str]) -> Any:
    data, told = packed
    error = pickle.loads(data)
    error.__cause__ = _WorkerTraceback(told)
    return error


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker process, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'
