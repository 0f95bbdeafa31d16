"""The connection to a Ray cluster, and what is stored in it once: this package, a pickled pipeline."""

from __future__ import annotations

import io
import os
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kloaders.core.errors import WorkerPoolError
from kloaders.core.messages import inform
from kloaders.core.ray import Ray
from kloaders.engine.processes.pickling import check_sendable
from kloaders.engine.ray import actor
from kloaders.sources.pipeline import SamplePipeline

__all__ = [
    "cannot_load",
    "connect",
    "decoder_class",
    "offers",
    "package",
    "pickled",
    "put",
    "sent_by_value",
]

_connected: int | None = None  # the process that connected; its forks cannot use the connection
_package: tuple[Any, tuple[str, str, Any]] | None = None


def connect(wanted: Ray) -> Any:
    """Connect to the cluster; return the module ray.

    Raises:
        ImportError: Ray is not installed.
        WorkerPoolError: there is no cluster, or this process is a fork of the one that connected.
    """
    global _connected  # noqa: PLW0603  a process has only one connection
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ImportError(
            "Ray(...) needs Ray, which is not installed: pip install 'ray[default]>=2.40'."
        ) from error
    if _connected not in (None, os.getpid()):
        raise WorkerPoolError(
            "this process is a fork of one that is connected to Ray, and cannot use its connection: "
            "start processes with multiprocessing's 'spawn', or leave processes= out here."
        )
    if not ray.is_initialized():
        try:
            ray.init(
                address=wanted.address,
                log_to_driver=False,
                logging_level="ERROR",
                **({} if wanted.address else {"include_dashboard": False}),
            )
        except Exception as error:  # Ray's errors have no common class
            where = f"at {wanted.address!r}" if wanted.address else "on this machine"
            raise WorkerPoolError(
                f"no Ray cluster {where}: {error}. Start one with `ray start --head`, or pass another "
                "address= to Ray()."
            ) from error
        cpus = ray.cluster_resources().get("CPU", 0)
        inform(f"connected to a Ray cluster of {cpus:g} CPUs.")
    _connected = os.getpid()
    return ray


def sent_by_value(ray: Any, what: Any, **options: Any) -> Any:
    """A class or function of `actor` for Ray, pickled by value: nodes need not have this package."""
    # Permanently, because Ray pickles a class when it is first used.
    ray.cloudpickle.register_pickle_by_value(actor)
    options = {"num_cpus": 1, "scheduling_strategy": "SPREAD", **options}
    return ray.remote(**options)(what)


def decoder_class(ray: Any) -> Any:
    """The actor class, with Ray's own retries turned off."""
    return sent_by_value(ray, actor.Decoder, max_restarts=0, max_task_retries=0)


def cannot_load(error: Exception) -> bool:
    """Whether an actor ended because it could not load what was sent to it, as every actor would."""
    # Only some releases of Ray have the attribute; all have the words.
    return bool(getattr(error, "actor_init_failed", False)) or "its creation task" in str(error)


def offers(ray: Any) -> str:
    """A description of the cluster's resources."""
    try:
        total, free = ray.cluster_resources(), ray.available_resources()
    except Exception:  # the cluster no longer exists
        return "The cluster does not answer, either: `ray status` shows more."
    return (
        f"The cluster has {total.get('CPU', 0):g} CPUs, of which {free.get('CPU', 0):g} are free; one is "
        "needed. `ray status` shows more."
    )


def package(ray: Any) -> tuple[str, str, Any]:
    """The package's folder, its digest, and a ZIP file of it in the cluster, stored once."""
    global _package  # noqa: PLW0603  stored once per cluster
    context = ray.get_runtime_context().get_job_id()
    if _package is None or _package[0] != context:
        folder = str(Path(__file__).resolve().parents[3])
        modules, digest = actor.modules_of(folder)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in modules.items():
                opened.writestr(name, content)
        _package = context, (folder, digest, ray.put(archive.getvalue()))
    return _package[1]


def pickled(ray: Any, pipeline: SamplePipeline) -> tuple[Any, tuple[Any, ...], str]:
    """References to a pipeline in the cluster; each of its arrays is stored once.

    Raises:
        TypeError: it cannot be pickled; names the object.
    TypeError: it cannot be pickled; the message names the object.
    """
    try:
        return put(ray, pipeline.for_worker())
    except Exception:
        check_sendable(pipeline)  # raises an error that names the object
        raise


def put(ray: Any, value: Any) -> tuple[Any, tuple[Any, ...], str]:
    """References to a pickled object in the cluster and to its arrays; and the current folder."""
    buffers: list[Any] = []
    data = ray.cloudpickle.dumps(
        value, protocol=5, buffer_callback=lambda b: buffers.append(b.raw())
    )
    arrays = tuple(ray.put(np.frombuffer(view, np.uint8)) for view in buffers)
    return ray.put(data), arrays, os.getcwd()
