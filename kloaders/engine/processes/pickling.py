"""A loader as it is sent to worker processes: pickled once, its arrays in memory that all share."""
# ruff: noqa: S301  both ends of what is pickled are ours

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from multiprocessing import process, spawn
from typing import TYPE_CHECKING, Any

from kloaders.core.memory import ALIGNMENT
from kloaders.engine.processes.shared_memory import anonymous_file

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["PickledLoader", "check_sendable", "load_pickled"]


class PickledLoader:
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
        #: Where the arrays begin in the file.
        self.head = len(head) + -len(head) % mmap.ALLOCATIONGRANULARITY
        self.fd = anonymous_file(self.head + starts[-1])
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


def load_pickled(fd: int, head: int) -> SequenceLoader:
    """The loader of a PickledLoader with this file and head, in a worker process."""
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
