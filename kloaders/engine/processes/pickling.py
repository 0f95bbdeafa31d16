"""A pipeline for worker processes, pickled once, with its arrays in shared memory."""
# ruff: noqa: S301  both ends unpickle only this package's own messages

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from multiprocessing import process, spawn
from typing import Any

from kloaders.core.interrupts import held
from kloaders.core.memory import ALIGNMENT
from kloaders.engine.processes.shared_memory import anonymous_file
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["PickledPipeline", "check_sendable", "load_pickled"]


class PickledPipeline:
    """A pickled pipeline in an in-memory file, followed by its arrays, which workers share."""

    def __init__(self, pipeline: SamplePipeline) -> None:
        buffers: list[Any] = []
        try:
            data, main = _pickled(pipeline.for_worker(), lambda b: buffers.append(b.raw()))
        except Exception:
            check_sendable(pipeline)  # raises an error that names the object
            raise
        sizes = [view.nbytes for view in buffers]
        starts = [0, *itertools.accumulate(size + -size % ALIGNMENT for size in sizes)]
        head = pickle.dumps((sys.argv, main, data, starts, sizes))
        #: The offset of the arrays in the file.
        self.head = len(head) + -len(head) % mmap.ALLOCATIONGRANULARITY
        with held():
            self.fd = anonymous_file(self.head + starts[-1])
            #: Closes the file, when called or when the last reference to this object is gone.
            self.close = weakref.finalize(self, os.close, self.fd)
            self.close.atexit = False
        with mmap.mmap(self.fd, self.head + starts[-1]) as mapped:
            mapped[: len(head)] = head
            for view, start in zip(buffers, starts, strict=False):
                mapped[self.head + start : self.head + start + view.nbytes] = view


def load_pickled(fd: int, head: int) -> SamplePipeline:
    """In a worker process: the pipeline of a PickledPipeline with this file and head."""
    # Private pages: if a hook writes to one of its arrays, only its own process sees the change.
    mapped = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    argv, main, data, starts, sizes = pickle.loads(mapped)
    spawn.prepare({"sys_argv": argv, **main})
    buffers = [mapped[head + a : head + a + n] for a, n in zip(starts, sizes, strict=False)]
    pipeline: SamplePipeline = pickle.loads(data, buffers=buffers)
    return pipeline


def _pickled(value: Any, take_buffer: Callable[[Any], Any]) -> tuple[bytes, dict[str, str]]:
    """The pickled form, and what `spawn.prepare` needs to import the main script, if necessary."""
    by_value = _cloudpickle()
    if by_value is not None:
        # Pickle functions and classes of the script or notebook by value: workers don't import it.
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


def check_sendable(pipeline: SamplePipeline) -> None:
    """Raise a TypeError that names the object in this pipeline that cannot be pickled."""
    if sys.platform == "win32":
        raise ValueError(
            "processes=True is not available on Windows, where processes cannot inherit shared "
            "memory that has no name: leave it out, which uses threads, or use WSL."
        )

    def sendable(value: Any) -> Exception | None:
        try:
            _pickled(value, lambda _: None)  # arrays are not copied
        except Exception as error:  # a user's object may raise anything
            return error
        return None

    given = {name: getattr(pipeline.transforms, name) for name in ("transform", "preprocess")}
    wants = [name for name, function in given.items() if getattr(function, "needs_keras", False)]
    if wants:
        raise TypeError(
            f"processes=True, but {wants[0]}= applies a Keras layer, and worker processes do not import "
            "Keras: pass it as batch_transform=, or leave processes out."
        )
    sent = pipeline.for_worker()
    error = sendable(sent)
    if error is None:
        return
    owner = sent.source.owner()
    what = f"the class {type(owner or sent.source).__qualname__}"
    parts = given
    parts |= vars(sent.source) if owner is None else owner.__getstate__()
    for name, value in parts.items():
        if name == "_source":  # refers to the whole pipeline
            continue
        found = sendable(value)
        if found is not None:
            what, error = f"{name}={value!r:.100}", found
            break
    if _cloudpickle() is None:
        advice = "Define it at the top level of a module (a .py file), or pip install cloudpickle."
    else:
        advice = "Open files, locks and models inside the function, on its first call, not before."
    raise TypeError(
        f"processes=True, but {what} cannot be sent to a worker process: {error}. {advice}"
    ) from error
