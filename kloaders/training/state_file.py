"""Writes and reads the training state: the position in the data and all variables of the model.

The state is a ZIP file without compression, with `state.json` and the bytes of each variable under its
number. It is renamed to its final name when it is complete, so position and weights always belong
together. ZIP's checksums detect later damage. Nothing in the file is ever executed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.formats.atomic import check_writable, remove_leftovers, whole_file
from kloaders.formats.files import open_to_read
from kloaders.formats.pack import dtype_named
from kloaders.places import access
from kloaders.places.urls import is_url

__all__ = [
    "assign",
    "draw_as_between_epochs",
    "exists",
    "metrics_of",
    "prepare",
    "random_state",
    "read",
    "remove",
    "set_random_state",
    "values_of",
    "variables_of",
    "write",
]


_FORMAT, _VERSION = "kloaders training state", 1
_HEAD = "state.json"
# state.json has a few hundred bytes per variable: a larger one is not ours.
_LARGEST_HEAD = 64 * 2**20


# ---------------------------------------------------------------------------------------- the file


def prepare(path: str) -> None:
    """Check that states can be written here, and remove leftovers of killed processes.

    Does nothing for a URL, which has no folder and whose objects are written atomically.

    Raises OSError, with advice, if states cannot be written.
    """
    if is_url(path):
        return
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        remove_leftovers(path)
        check_writable(path)
    except OSError as error:
        said = f"{error.strerror}: the training state cannot be saved there, choose another path"
        raise OSError(error.errno, said, path) from error


def write(path: str, facts: dict[str, Any], arrays: dict[str, list[tuple[str, Array]]]) -> None:
    """Write a state; the previous file at `path` stays until the new one is on disk.

    Args:
        path: the path of a file, or a URL.
        facts: values for JSON.
        arrays: lists of named arrays, each list under its own name.

    Raises:
        OSError: from the disk or the remote storage.
    """
    listed = {
        kind: [{"name": name, "dtype": a.dtype.name, "shape": list(a.shape)} for name, a in named]
        for kind, named in arrays.items()
    }
    head = {"format": _FORMAT, "version": _VERSION, **facts, "arrays": listed}
    everything = [a for named in arrays.values() for _, a in named]
    with _written(path) as file, zipfile.ZipFile(file, "w") as archive:
        # Without dates, so that equal states have equal bytes.
        archive.writestr(zipfile.ZipInfo(_HEAD), json.dumps(head, indent=1))
        for number, array in enumerate(everything):
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            with archive.open(zipfile.ZipInfo(str(number)), "w", force_zip64=True) as member:
                member.write(data.data)


@contextlib.contextmanager
def _written(path: str) -> Iterator[IO[bytes]]:
    """Open a file or object that is written atomically."""
    if is_url(path):
        content = io.BytesIO()
        yield content
        access.put(path, [content.getvalue()])
        return
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with whole_file(path) as file:
        yield file


def exists(path: str) -> bool:
    """Whether a file or object with this name exists."""
    return access.exists(path) if is_url(path) else os.path.exists(path)


def read(path: str) -> tuple[dict[str, Any], dict[str, list[tuple[str, Array]]]]:
    """Read the facts and arrays of a state. It never allocates more memory than the file's size.

    Raises:
        ValueError: it is not a state, or it is damaged; the message names the file.
        OSError: it cannot be read.
    """
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            held = file.seek(0, os.SEEK_END)
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise ValueError("it is compressed, unlike training states")
            if archive.getinfo(_HEAD).file_size > min(held, _LARGEST_HEAD):
                raise ValueError("its header is larger than the file")
            head = json.loads(archive.read(_HEAD))
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise ValueError("it is another kind of file")
            if head.get("version") != _VERSION:
                raise ValueError(f"it has version {head.get('version')!r:.80}, expected {_VERSION}")
            numbers = iter(range(len(archive.namelist())))
            arrays = {
                str(kind): [_array(archive, next(numbers), spec, held) for spec in specs]
                for kind, specs in head["arrays"].items()
            }
            return head, arrays
    except OSError:
        raise
    except Exception as error:  # zipfile, json and NumPy raise many kinds of errors
        why = str(error) or type(error).__name__
        if _begins_as_ours(path):
            said = f"is a damaged training state ({why}): delete it to restart training."
        else:
            said = (
                f"is not a training state ({why}), so it is not overwritten: choose another path."
            )
        raise ValueError(f"{visible(path)} {said}") from error


def _opened(path: str) -> IO[bytes]:
    """Open the file of a state, or the content of its URL."""
    return io.BytesIO(access.read(path)) if is_url(path) else open(path, "rb", opener=open_to_read)


def _begins_as_ours(path: str) -> bool:
    """Whether a file was written by `write`, even if it is damaged."""
    with contextlib.suppress(OSError), open(path, "rb", opener=open_to_read) as file:
        start = file.read(256)
        return start.startswith(b"PK\3\4") and _FORMAT.encode() in start
    return False


def _array(
    archive: zipfile.ZipFile, number: int, spec: dict[str, Any], held: int
) -> tuple[str, Array]:
    info = archive.getinfo(str(number))
    dtype = dtype_named(spec["dtype"])
    shape = tuple(int(n) for n in spec["shape"])
    size = dtype.itemsize
    for n in shape:
        size *= n
    if min(shape, default=0) < 0 or not info.file_size == size <= held:
        raise ValueError(f"{spec['name']} does not have the size that its shape says")
    return str(spec["name"]), np.frombuffer(archive.read(info), dtype).reshape(shape)


# ----------------------------------------------------------------------------------------- a model


def variables_of(model: Any) -> list[Any]:
    """All variables that a training step of this model reads and writes, except metrics.

    These are weights, the seeds of random layers, the optimizer's variables (iterations, learning rate,
    moving averages), and on torch the buffers of modules that are wrapped in layers.
    """
    found = {id(v): v for v in model.variables}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        found |= {id(v): v for v in optimizer.variables}
    for metric in metrics_of(model):
        found.pop(id(metric), None)
    if hasattr(model, "named_buffers"):  # torch
        found |= {id(b): _Buffer(name, b) for name, b in model.named_buffers()}
    return list(found.values())


def metrics_of(model: Any) -> list[Any]:
    """The variables of the metrics that `fit` shows."""
    return list(model.metrics_variables)


class _Buffer:
    """A tensor of a torch module, as a variable."""

    def __init__(self, path: str, tensor: Any) -> None:
        self.path, self._tensor = path, tensor

    def numpy(self) -> Array:
        return np.asarray(self._tensor.detach().cpu().numpy())

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    def assign(self, value: Array) -> None:
        import torch

        with torch.no_grad():
            self._tensor.copy_(torch.from_numpy(np.array(value)))


def values_of(variables: list[Any]) -> list[tuple[str, Array]]:
    """Names and values, as copies."""
    convert = sys.modules["keras"].ops.convert_to_numpy
    return [
        (v.path, np.array(v.numpy() if isinstance(v, _Buffer) else convert(v))) for v in variables
    ]


def random_state() -> list[tuple[str, Array]]:
    """The state of torch's generators, which Keras' random layers use on torch."""
    torch = _torch()
    if torch is None:
        return []
    states = [("cpu", torch.get_rng_state())]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += [(f"cuda:{k}", s) for k, s in enumerate(torch.cuda.get_rng_state_all())]
    return [(name, np.array(state.numpy())) for name, state in states]


def set_random_state(saved: list[tuple[str, Array]]) -> None:
    """Restore torch's generators, for the devices that exist."""
    torch = _torch()
    if torch is None:
        return
    for name, state in saved:
        value = torch.from_numpy(np.array(state))
        if name == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available() and int(name.split(":")[1]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, name)


def draw_as_between_epochs() -> None:
    """Draw the number that Keras draws on torch at the end of an epoch: a seed for a DataLoader's iterator."""
    torch = _torch()
    if torch is not None:
        torch.empty((), dtype=torch.int64).random_()


def _torch() -> Any:
    return sys.modules.get("torch") if sys.modules["keras"].backend.backend() == "torch" else None


def assign(variables: list[Any], saved: list[tuple[str, Array]], path: str) -> None:
    """Restore the saved values of variables.

    Raises ValueError, and leaves the model as it is, if the state belongs to another model.
    """
    if len(variables) != len(saved):
        raise ValueError(
            f"{visible(path)} was saved for a model and an optimizer with {len(saved)} variables, but this "
            f"model has {len(variables)}. {_ADVICE}"
        )
    for variable, (name, value) in zip(variables, saved, strict=True):
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"{visible(path)} was saved for another model or optimizer: {visible(name)} had shape {value.shape}, "
                f"but {variable.path} has {tuple(variable.shape)}. {_ADVICE}"
            )
    for variable, (_, value) in zip(variables, saved, strict=True):
        variable.assign(value)


_ADVICE = "Build and compile the same model as before, or choose another path for a new run."


def remove(path: str) -> None:
    """Delete a state if it exists. If the path is a link, the link stays."""
    if is_url(path):
        access.delete(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.realpath(path))
