"""What a worker process does: it waits for jobs, fills rows in shared memory, reports what fails."""
# ruff: noqa: S301  both ends of what is pickled are ours

from __future__ import annotations

import mmap
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.errors import explain
from kloaders.core.structure import pack, spec_of
from kloaders.engine.processes.pickling import load_pickled
from kloaders.engine.processes.shared_memory import arrays_at
from kloaders.keras_api.base import WORKER
from kloaders.plan.rng import part_of
from kloaders.sources.columns import Odd

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["is_worker", "unpack_error", "work"]

# A worker that nobody asks for anything leaves: what Keras keeps alive after fit is light. A new
# one takes a fraction of a second.
IDLE_SECONDS = 60.0

_is_worker = False


def is_worker() -> bool:
    """Whether this is a worker process."""
    return _is_worker


def work(conn_fd: int, row_fd: int, life_fd: int, loader_fd: int, head: int) -> None:
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
        loader = load_pickled(loader_fd, head)
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
    out = arrays_at(target, blocks)
    stored = source and arrays_at(source, blocks)
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


def unpack_error(packed: tuple[bytes, str]) -> Any:
    """The error that a worker sent, its traceback there as the cause; in the parent."""
    data, told = packed
    error = pickle.loads(data)
    error.__cause__ = _WorkerTraceback(told)
    return error


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker process, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'
