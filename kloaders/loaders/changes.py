"""`loader.set(...)`: options that change between two epochs, and their record in a saved state."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from kloaders.core.checks import check_names
from kloaders.core.options import CHANGEABLE, defaults
from kloaders.core.structure import Structure, flatten, map_structure
from kloaders.core.value_digest import NotComparable, digest_of
from kloaders.engine.class_weights import class_weights_of
from kloaders.formats.options import ImageOptions
from kloaders.keras_api import base, private
from kloaders.loaders.options import LoaderOptions, checked_sampling_weights
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import PathColumn
from kloaders.sources.fingerprint import Digest
from kloaders.sources.source import Source

__all__ = ["changed_by", "follow"]


def changed_by(
    loader: Any, options: LoaderOptions, source: Source, changes: Mapping[str, Any]
) -> tuple[LoaderOptions, Source]:
    """Options and source of a loader after these changes.

    Args:
        loader: the loader.
        options: its options before.
        source: its source before.
        changes: the changes by name, as passed to `SequenceLoader.set`.

    Raises:
        TypeError, ValueError: an option cannot be changed, or the value is invalid.
    """
    for name in changes:
        if name not in CHANGEABLE and name in defaults() | {"batch_size": 32}:
            raise TypeError(
                f"{name} is fixed when a loader is made; set() changes {', '.join(CHANGEABLE)}: make "
                f"another loader with {name}=."
            )
    check_names(f"set() of {type(loader).__name__}", changes, CHANGEABLE)
    said: dict[str, Any] = {}
    functions = {k: v for k, v in changes.items() if k in ("transform", "batch_transform")}
    if functions:
        transforms = dataclasses.replace(options.transforms, **functions)
        options = dataclasses.replace(options, transforms=transforms)
        said |= {name: _text_of(function, name) for name, function in functions.items()}
    if "class_weight" in changes:
        classes = class_weights_of(changes["class_weight"], source)
        options = dataclasses.replace(options, classes=classes)
        said["class_weight"] = None if classes is None else str(classes)
    if "sampling_weights" in changes:
        sampling = options.sampling
        if sampling.weights is None:
            raise ValueError(
                "set(sampling_weights=) is for a loader made with sampling_weights, and this one was "
                "not: make it with sampling_weights=np.ones(samples), then change them."
            )
        weights = checked_sampling_weights(changes["sampling_weights"], loader.samples)
        sampling = type(sampling)(sampling.length, sampling.codes, weights, sampling.replacement)
        options = dataclasses.replace(options, sampling=sampling)
        digest = Digest()
        digest.add_bytes(weights)
        said["sampling_weights"] = digest.text()
    if "size" in changes:
        size = _checked_size(loader, changes["size"])
        source = _resized(source, loader.image_options.size, size)
        said["size"] = None if size is None else list(size)
    return dataclasses.replace(options, changed={**options.changed, **said}), source


def _text_of(function: Any, name: str) -> str | None:
    """The identity of a function for a state; only its name if it cannot be compared by value."""
    if function is None:
        return None
    called = getattr(function, "__qualname__", type(function).__name__)
    try:
        return f"{called} {digest_of(function, f'{name}=')}"
    except NotComparable:
        return str(called)


def _checked_size(loader: Any, size: Any) -> tuple[int, int] | None:
    images = getattr(loader, "image_options", None)
    found = flatten(loader.source.columns or ())
    if not isinstance(images, ImageOptions) or not any(_path_column(c) for c in found):
        raise TypeError(
            f"set(size=) is for loaders of image files, but this is a {type(loader).__name__}: make "
            "another loader, or resize in transform=."
        )
    if getattr(loader, "input_options", None) is not None:
        raise ValueError(
            "set(size=): the inputs of this loader have separate options: make another loader."
        )
    if loader.decode is not None:
        raise ValueError(
            "set(size=): decode= makes the arrays of this loader: change transform= instead."
        )
    call = private.asker().call
    if base.keeps_adapters() and call is not None and call.method == "fit":
        raise ValueError(
            "set(size=) during fit: on TensorFlow all batches of one fit must have the same shape. "
            "Wait until fit returns, call set, and continue with fit(..., initial_epoch=...)."
        )
    return dataclasses.replace(images, size=size).size


def _path_column(column: Any) -> PathColumn | None:
    while column is not None and not isinstance(column, PathColumn):
        column = getattr(column, "column", None)
    found: PathColumn | None = column
    return found


def _resized(source: Source, old: Any, new: Any) -> Source:
    """The source with images of another size, for columns that had the old size; without caches."""
    if isinstance(source, CachedSource):
        return _resized(source.inner, old, new)

    def resized(column: Any) -> Any:
        return _resized_column(column, old, new)

    found = copy.copy(source)
    if isinstance(source, ColumnSource):
        found = source.with_columns(map_structure(resized, source.columns))
    for name in ("inner", "base"):
        inner = getattr(source, name, None)
        if isinstance(inner, Source):
            setattr(found, name, _resized(inner, old, new))
    for name in ("columns", "label_columns", "weights", "inputs"):
        columns: Structure = getattr(source, name, None)
        if columns is not None and not (name == "columns" and isinstance(source, ColumnSource)):
            setattr(found, name, map_structure(resized, columns))
    return found


def _resized_column(column: Any, old: Any, new: Any) -> Any:
    if hasattr(column, "store"):
        return _resized_column(column.column, old, new)
    found = copy.copy(column)
    if hasattr(column, "column"):
        found.column = _resized_column(column.column, old, new)
    elif isinstance(column, PathColumn):
        read: Any = copy.copy(column.read_path)
        options = getattr(read, "options", None)
        if isinstance(options, ImageOptions) and options.size == old:
            read.options = dataclasses.replace(options, size=new)
            found.read_path = read
    return found


def follow(loader: Any, state: Any) -> None:
    """Apply the changes recorded in a state to a loader, as far as the state contains them.

    Raises:
        ValueError: the user has to apply them, because a state contains no functions and weights.
    """
    wanted = state.get("set", {}) if isinstance(state, dict) else {}
    if not isinstance(wanted, dict):
        raise ValueError(f"the state is damaged: set is {wanted!r:.80}, expected a dictionary.")
    own = loader.options.changed
    if wanted.get("size", own.get("size")) != own.get("size"):
        loader.set(size=tuple(wanted["size"]))
        own = loader.options.changed
    for name in {**wanted, **own}:
        if wanted.get(name) != own.get(name):
            if name not in wanted:
                raise ValueError(
                    f"this loader was changed by set({name}=), but the state is from a loader that was "
                    "not: load the state into a new loader before you call set."
                )
            raise ValueError(
                f"the state was taken after set({name}=...), but this loader has another {name}: call "
                f"loader.set({name}=...) with the value of the saved run, then load the state."
            )
