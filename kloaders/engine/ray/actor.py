"""The code that runs on the cluster: an actor that holds a pipeline and fills rows with samples.

Pickled by value. Its top imports only the standard library, because kloaders may not be installed there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

__all__ = ["Decoder", "Worker", "modules_of", "node", "write_shard"]


def modules_of(folder: str) -> tuple[dict[str, bytes], str]:
    """The modules of a kloaders package in a folder, by file name, and their digest."""
    found: dict[str, bytes] = {}
    for place, _, names in sorted(os.walk(os.path.join(folder, "kloaders"))):
        for name in sorted(names):
            if name.endswith((".py", ".typed")):
                path = os.path.join(place, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, folder)] = file.read()
    digest = hashlib.sha256()
    for name, content in found.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return found, digest.hexdigest()[:16]


def _loaded(package: tuple[str, str, Any], pickled: Any) -> Any:
    """Import kloaders, and load the pickled object from its references; see `Decoder`."""
    ray: Any = import_module("ray")
    os.environ["KLOADERS_WORKER"] = "1"  # do not import Keras
    folder, digest, archive = package
    if modules_of(folder)[1] != digest:  # a machine with no kloaders, or another version
        here = os.path.join(tempfile.gettempdir(), f"kloaders-{os.getuid()}-{digest}")
        if not os.path.isdir(here):
            whole = tempfile.mkdtemp(prefix="kloaders-")
            with open(f"{whole}.zip", "wb") as file:
                file.write(ray.get(archive))
            with zipfile.ZipFile(f"{whole}.zip") as opened:
                opened.extractall(whole)
            os.unlink(f"{whole}.zip")
            with contextlib.suppress(OSError):  # another actor was faster
                os.rename(whole, here)
        folder = here
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import pickle

    head, buffers, current = pickled
    with contextlib.suppress(OSError):  # make the program's relative paths valid here
        os.chdir(current)
    return pickle.loads(ray.get(head), buffers=ray.get(list(buffers)))  # noqa: S301  ours


def node() -> str:
    """Where this runs, for messages."""
    ray: Any = import_module("ray")
    return f"{os.uname().nodename} ({ray.util.get_node_ip_address()}, process {os.getpid()})"


def write_shard(
    package: tuple[str, str, Any], pickled: Any, journal: str, shard: int
) -> Iterator[Any]:
    """Write one shard of a conversion, as a task.

    Yields where it runs, when it begins; and then (True, (names, note)), or (False, the error).

    Args:
        package: as for `Decoder`.
        pickled: references to the pickled writer.
        journal: the path of the journal, which shows whether this node sees the output folder.
        shard: the shard's number.
    """
    yield node()
    if not os.path.isfile(journal):
        raise FileNotFoundError(
            f"{os.uname().nodename} does not see {os.path.dirname(journal)}: a conversion on a cluster "
            "needs a file system that all nodes share."
        )
    write = _loaded(package, pickled)
    try:
        names, note = write(shard, lambda _: None)
    except (Exception, KeyboardInterrupt) as error:  # a user's function may raise anything
        from kloaders.core.errors import SampleError

        if not isinstance(error, SampleError):
            raise
        yield False, error
    else:
        yield True, (names, note)


class Decoder:
    """Fills the rows of whole batches, one call at a time."""

    def __init__(self, package: tuple[str, str, Any], pickled: Any) -> None:
        """Import kloaders and load the pipeline.

        Args:
            package: the folder of kloaders in the program that started this actor, the digest of its
                files, and a reference to a ZIP file of them.
            pickled: references to the pickled pipeline, and to its arrays.
        """
        self.pipeline = _loaded(package, pickled)

    def ready(self) -> str:
        """Where it runs; answers once the pipeline is loaded."""
        return node()

    def look(self, index: int, raw: bool) -> Any:
        """The specs of one sample, or a packed error."""
        from kloaders.engine.ray import rows

        return rows.look(self.pipeline, index, raw)

    def fill(self, *job: Any) -> Any:
        """The arrays of some rows, and their problems."""
        from kloaders.engine.ray import rows

        return rows.fill(self.pipeline, *job)


class Worker:
    """Holds a function, which it calls for one job at a time."""

    def __init__(self, package: tuple[str, str, Any], pickled: Any) -> None:
        """Import kloaders and load the function; arguments as for `Decoder`."""
        self.function = _loaded(package, pickled)

    def ready(self) -> str:
        """Where it runs; answers once the function is loaded."""
        return node()

    def call(self, job: Any) -> Any:
        """Call the function."""
        return self.function(job)
