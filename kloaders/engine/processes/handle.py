"""A worker process as its parent sees it: the pipe, and the current row."""
# ruff: noqa: S301  both ends unpickle only this package's own messages

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any

import numpy as np

from kloaders.core.errors import Recovery, WorkerPoolError, with_recovery
from kloaders.core.rows import RowMismatch
from kloaders.engine.processes import template
from kloaders.engine.processes.pickling import PickledPipeline
from kloaders.engine.processes.shared_memory import Block, anonymous_file
from kloaders.engine.processes.timeouts import SAMPLE, START, Timeouts
from kloaders.engine.processes.worker import unpack_error

__all__ = ["Raised", "WorkerHandle", "WorkerLost"]


class Raised:
    """The answer to a job that raised an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class WorkerLost(Exception):
    """A worker ended, or was killed, at this row of its job; -1: before the first row."""

    def __init__(self, row: int, how: str, hangs: bool = False) -> None:
        super().__init__(how)
        self.row, self.hangs = row, hangs

    def as_error(self, times: int, timeouts: Timeouts) -> Exception:
        """The error for a sample at which this many workers died."""
        if self.hangs:
            error: Exception = TimeoutError(
                f"not loaded after {timeouts.sample:g} seconds in a worker process, {times} "
                f"times. If a sample may take longer, set the environment variable {SAMPLE}, in "
                "seconds, before the first batch."
            )
            return with_recovery(error, None)  # it has already been tried more than once
        error = RuntimeError(
            f"the worker process that loaded it {self}, {times} times: a library crashed, or "
            "there was no memory left."
        )
        # If memory runs out, Linux sends SIGKILL.
        return with_recovery(error, Recovery.LOST if self.args[0].endswith("SIGKILL") else None)


class WorkerHandle:
    """A worker process, its pipe, and the current row."""

    def __init__(self, pickled: PickledPipeline, life: int, timeouts: Timeouts) -> None:
        self.ready = False
        self.timeouts = timeouts
        self._known: set[int] = set()
        cell = anonymous_file(8)
        self._row = np.frombuffer(mmap.mmap(cell, 8), np.int64)
        self._row[0] = -1
        self.conn, theirs = multiprocessing.Pipe()
        fds = (theirs.fileno(), cell, life, pickled.fd)
        try:
            self.process = template.start(fds, (pickled.head, timeouts.idle), timeouts)
        finally:
            theirs.close()
            os.close(cell)

    def wait_ready(self) -> None:
        """Block until the worker has loaded the pipeline."""
        if self.ready:
            return
        try:
            kind, *rest = self._receive(self.timeouts.start)
        except WorkerLost as end:
            if not end.hangs:
                raise
            raise WorkerPoolError(
                f"a worker process {end} while it started. If importing your modules takes "
                f"longer, set the environment variable {START} to more seconds."
            ) from None
        if kind == "failed":
            raise WorkerPoolError(
                "a worker process could not load this loader; its message:\n\n" + rest[0]
            )
        self.ready = True

    def ask(
        self,
        job: tuple[Any, ...],
        troubles: list[tuple[int, Exception]],
        blocks: Sequence[Block],
        in_use: set[int],
    ) -> Any:
        """Run a job; failed rows are added to `troubles` as they occur.

        blocks: the memory for the job. in_use: the numbers of all existing blocks; the worker drops others.
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
            kind, *rest = self._receive(self.timeouts.sample)
            if kind == "odd":
                row, leaf, shape, dtype = rest
                array = np.frombuffer(self._bytes(), dtype).reshape(shape)
                troubles.append((row, RowMismatch(row, leaf, array)))
            elif kind == "error":
                troubles.append((rest[0], unpack_error(rest[1])))
            elif kind == "raised":
                return Raised(unpack_error(rest[0]))
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
        """Close the pipe; the worker then exits normally."""
        end = socket.socket(fileno=os.dup(self.conn.fileno()))
        with end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill it if it is still running."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # if it hangs in the kernel
            self.process.wait(5)

    def end(self) -> None:
        """Kill it and release its resources."""
        self.kill()
        self.conn.close()
