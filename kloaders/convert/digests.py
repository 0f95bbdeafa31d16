"""Computes short digests of a conversion's inputs: it resumes only if all of them are unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from types import CodeType
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.structure import flatten
from kloaders.core.value_digest import NotComparable, digest_of, digest_of_method
from kloaders.places.urls import is_url
from kloaders.sources.columns import (
    CallColumn,
    ListColumn,
    OneHotColumn,
    PathColumn,
    in_ram,
    inner_column,
)
from kloaders.sources.hooks import overrides

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = [
    "digest_of_array",
    "digest_of_files",
    "digest_of_function",
    "digest_of_texts",
    "is_files",
    "job_of",
    "not_compared",
    "spread",
]

# Arrays in files may be larger than RAM, so only this many of their rows are compared, and the size and
# modification time of the file. This many bytes are read at a time.
_ROWS_IN_DIGEST, _BYTES_IN_DIGEST = 64, 2**26
# Marks, in the digest of a function, objects that could not be compared by value.
_BUT_FOR = ", but for "


def digest_of_texts(texts: Iterable[str]) -> str:
    """One digest of many texts, such as file names."""
    digest = hashlib.blake2b(digest_size=12)
    for text in texts:
        digest.update(f"{text}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def digest_of_files(paths: Iterable[str]) -> str:
    """A digest of names, sizes and modification times of files. Takes about 3 us per file, if cached."""

    def described(path: str) -> str:
        try:
            status = os.stat(path)
        except OSError:
            return f"{path}\0missing"
        return f"{path}\0{status.st_size} {status.st_mtime_ns}"

    return digest_of_texts(map(described, paths))


def digest_of_function(function: Any, what: str = "the function") -> str | None:
    """The name of a user's function, and a digest of everything that it depends on (`value_digest`).

    If it depends on objects that cannot be compared by value, only its code is compared, and the text
    names these objects; see `not_compared`.
    """
    return None if function is None else _digest(function, what, lambda: digest_of(function, what))


def _digest(function: Any, what: str, by_value: Callable[[], str]) -> str:
    owner = getattr(function, "func", function)  # of a functools.partial
    name = getattr(owner, "__qualname__", type(owner).__qualname__)
    try:
        return f"{name} {by_value()[:12]}"
    except NotComparable as error:
        code = getattr(owner, "__code__", getattr(type(owner).__call__, "__code__", None))
        text = (
            "" if code is None else hashlib.blake2b(_code(code).encode(), digest_size=6).hexdigest()
        )
        return f"{name} {text}{_BUT_FOR}{error.where} ({error.kind})"


def not_compared(job: Any) -> list[str]:
    """The objects that a job's functions depend on and that cannot be compared by value."""
    if isinstance(job, dict):
        job = list(job.values())
    if isinstance(job, list):
        return [text for value in job for text in not_compared(value)]
    return [job.partition(_BUT_FOR)[2]] if isinstance(job, str) and _BUT_FOR in job else []


def _code(code: CodeType) -> str:
    constants = [
        _code(c)
        if isinstance(c, CodeType)
        # The order of a set of strings differs between processes.
        else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def job_of(loader: SequenceLoader, transformed: bool) -> dict[str, Any]:
    """The settings that determine a loader's samples, by name. A resumed call must have the same.

    `transformed`: whether samples are taken after the transform.
    """
    columns = loader.source.columns
    job: dict[str, Any] = {"loader": type(loader).__name__, "samples": loader.samples}
    if columns is not None:
        job["data"] = [_digest_of_column(column) for column in flatten(columns)]
    else:
        looked = spread(loader.samples, _ROWS_IN_DIGEST)
        said = sorted(loader.source.fingerprint().items())
        job["data"] = digest_of_texts([*map(loader.source.name, looked), *map(str, said)])
        if not any(True for _ in loader.source.extent()):
            job["data"] += f"{_BUT_FOR}data behind {type(loader).__name__}"
    for hook in ("load_sample", "load_batch"):
        if overrides(type(loader), hook):
            job[hook] = _digest_of_hook(loader, hook)
    images = getattr(loader, "image_options", None)
    if images is not None:
        job |= {name: _plain(value) for name, value in asdict(images).items()}
    if (by_input := getattr(loader, "input_options", None)) is not None:
        job["input_options"] = _plain(str(by_input))
    job["decode"] = digest_of_function(getattr(loader, "decode", None), "decode=")
    job["dtype"] = _plain(loader.dtype)
    if (label_dtype := loader.options.transforms.label_dtype) is not None:
        job["label_dtype"] = _plain(label_dtype)
    if loader.options.transforms.preprocess is not None:
        job["preprocess"] = digest_of_function(loader.options.transforms.preprocess, "preprocess=")
    job["transform"] = digest_of_function(loader.transform, "transform=") if transformed else None
    if transformed or loader.on_error == "replace":
        job["seed"] = loader.seed
    job["replace"] = loader.on_error == "replace"
    if loader.weights is not None:
        job["sample_weights"] = digest_of_array(loader.weights)
    job["class_names"] = _as_texts(loader.class_names)
    return job


def _as_texts(names: Any) -> Any:
    if isinstance(names, dict):  # by output
        return {str(output): _as_texts(those) for output, those in names.items()}
    return None if names is None else [str(name) for name in names]


def _digest_of_hook(loader: SequenceLoader, hook: str) -> str:
    function = getattr(type(loader), hook)
    settings = loader.options.flat
    return _digest(function, hook, lambda: digest_of_method(loader, hook, settings=settings))


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, np.dtype) else value


def is_files(column: Any) -> bool:
    """Whether each value of a column is read from its own file."""
    return isinstance(inner_column(column), PathColumn)


def _names_of(column: Any) -> Iterable[str]:
    return map(column.name, range(len(column)))


def _digest_of_column(column: Any) -> str:
    count = len(column)
    if is_files(column):  # the note of each shard has the state of its files
        unseen = f"{_BUT_FOR}objects at URLs" if any(map(is_url, _names_of(column))) else ""
        return f"{count} files {digest_of_texts(_names_of(column))}{unseen}"
    if isinstance(column, OneHotColumn):
        return f"{column.classes} classes of {_digest_of_column(column.column)}"
    inner = inner_column(column)
    known = in_ram(column)
    if known is not None:
        return f"{count} values {_digest_of_rows(*known)}"
    if isinstance(inner, ListColumn):
        return f"{count} values {digest_of_texts(digest_of_array(column.read(k)) for k in range(count))}"
    rows = []
    if isinstance(inner, CallColumn):
        rows.append(str(digest_of_function(inner.function, "the labels function")))
    with contextlib.suppress(Exception):  # user code
        few = max(2, min(_ROWS_IN_DIGEST, _BYTES_IN_DIGEST // max(1, column.read(0).nbytes)))
        rows = [digest_of_array(column.read(index)) for index in spread(count, few)]
    mapped = getattr(getattr(inner, "file", None), "path", None)
    files = digest_of_files(getattr(inner, "files", [mapped] if mapped else []))  # of a pack
    return f"{count} values {digest_of_texts([*rows, files])}"


def _digest_of_rows(array: Array, numbers: Any) -> str:
    """A digest of all these rows, so that a change in any row counts as another data set."""
    step = max(1, _BYTES_IN_DIGEST // max(1, array[:1].nbytes))
    count = len(array) if numbers is None else len(numbers)
    cuts = (slice(k, k + step) for k in range(0, count, step))
    rows = (array[cut] if numbers is None else array[numbers[cut]] for cut in cuts)
    return digest_of_texts(map(digest_of_array, rows))


def spread(samples: int, count: int) -> list[int]:
    """This many sample numbers, evenly spread over all samples."""
    found: list[int] = np.unique(np.linspace(0, samples - 1, count).astype(np.int64)).tolist()
    return found


def digest_of_array(array: Array) -> str:
    """A digest of values, shape and dtype of an array."""
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=12)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
