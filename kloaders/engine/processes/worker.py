"""The main loop of a worker process: waits for jobs, fills rows in shared memory, reports errors."""
# ruff: noqa: S301  both ends unpickle only this package's own messages

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.errors import as_sample_error, line_of_the_user
from kloaders.core.rows import RowMismatch, Rows
from kloaders.core.structure import unflatten
from kloaders.engine.processes.pickling import load_pickled
from kloaders.engine.processes.shared_memory import arrays_at
from kloaders.keras_api.base import WORKER
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["is_worker", "pack_error", "unpack_error", "work"]

_is_worker = False


def is_worker() -> bool:
    """Whether this is a worker process."""
    return _is_worker


def work(conn_fd: int, row_fd: int, life_fd: int, pipeline_fd: int, head: int, idle: float) -> None:
    """Serve jobs until the pipe closes, or for `idle` seconds without a job."""
    global _is_worker  # noqa: PLW0603  one per process
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(RuntimeError):  # no thread available: it exits when it is next idle
        threading.Thread(target=_leave_with_parent, args=(life_fd,), daemon=True).start()
    conn: Connection[Any, Any] = Connection(conn_fd)

    def tell(*message: Any, then: Array | None = None) -> None:
        try:
            conn.send(message)
            if then is not None:
                conn.send_bytes(then.data)
        except OSError:
            os._exit(0)  # the parent is gone

    row = np.frombuffer(mmap.mmap(row_fd, 8), np.int64)
    try:
        pipeline = load_pickled(pipeline_fd, head)
    except BaseException:  # sent to the parent, which raises it
        tell("failed", traceback.format_exc())
        return
    os.environ.pop(WORKER, None)
    blocks: dict[int, Array] = {}
    tell("ready")
    while True:
        try:
            if not conn.poll(idle):
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
            answer = _do(pipeline, job, blocks, tell, row)
        except BaseException as error:  # raised in the parent
            tell("raised", pack_error(pipeline, None, error))
        else:
            tell("done", answer)


def _leave_with_parent(life_fd: int) -> None:
    os.read(life_fd, 1)
    os._exit(0)


def _do(
    pipeline: SamplePipeline,
    job: tuple[Any, ...],
    blocks: dict[int, Array],
    tell: Callable[..., None],
    row: Indices,
) -> Any:
    if job[0] == "look":
        _, index, raw = job
        row[0] = 0
        return pipeline.look(index, raw)
    _, (target, source), indices, at, step, moment, raw, (form, stored_form) = job
    out = Rows(form, arrays_at(target, blocks))
    stored = source and arrays_at(source, blocks)
    # Fetch remote objects all at once, rather than row by row.
    claims = () if stored is not None else pipeline.source.fetch_ahead(indices[at:])
    try:
        for first in range(at, len(indices), step):
            row[0] = first
            part = slice(first, first + step)

            def report(k: int, error: Exception, first: int = first) -> None:
                if isinstance(error, RowMismatch):
                    array = error.array
                    plain = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                    tell("odd", first + k, error.leaf, array.shape, array.dtype, then=plain)
                else:
                    index = int(indices[first + k])
                    tell("error", first + k, pack_error(pipeline, index, error))

            if stored is None:
                pipeline.fill(indices[part], out.part(part), report, moment.part(part), raw)
                continue
            try:
                sample = unflatten(stored_form, [np.array(leaf[first]) for leaf in stored])
                index = int(indices[first])
                pipeline.put(index, sample, out.part(part), 0, report, moment.part(first))
            except Exception as error:  # a user's function may raise anything
                report(0, error)
    finally:
        for claim in claims:
            claim.release()
    return None


def pack_error(
    pipeline: SamplePipeline, index: int | None, error: BaseException
) -> tuple[bytes, str]:
    """An error for the parent: pickled, or as text if that fails, together with its traceback."""
    with contextlib.suppress(AttributeError):  # a class with __slots__
        error.line_of_the_user = line_of_the_user(error)  # type: ignore[attr-defined]  # read by core.errors
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # a user's exception class that cannot be pickled
        other: Exception = RuntimeError(f"{type(error).__name__}: {error}")
        if index is not None:
            other = as_sample_error(index, pipeline.source.name(index), error)
        data = pickle.dumps(other)
    return data, told


def unpack_error(packed: tuple[bytes, str]) -> Any:
    """In the parent: the error that a worker sent, with the worker's traceback as its cause."""
    data, told = packed
    error = pickle.loads(data)
    error.__cause__ = _WorkerTraceback(told)
    return error


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker process, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'
