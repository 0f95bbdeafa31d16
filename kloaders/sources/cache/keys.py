"""Cache keys: everything except files that determines an array, with functions compared by value."""

from __future__ import annotations

import functools
import hashlib
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kloaders.core.hook_state import HookState
from kloaders.core.messages import visible
from kloaders.core.value_digest import NotComparable, digest_of, digest_of_method
from kloaders.sources.cache.store import MadeBy
from kloaders.sources.fingerprint import Digest
from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.source import Source

__all__ = ["SampleKey", "key_of", "watched"]

# Increase this when the same options begin to give different pixels.
# 2: functions are compared by value, and file names are relative to the common folder.
_FORMAT = 2


def key_of(
    folder: str,
    options: Sequence[Any],
    functions: Mapping[str, Any],
    cache_key: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """The name of the subfolder of a cache for arrays that are made with these options and functions.

    Args:
        folder: the cache's folder, for error messages.
        options: values that determine the arrays.
        functions: the functions that make the arrays, by the name to use in messages ("decode=");
            None is ignored. For a method of a loader, the loader's attributes that it reads count, too.
        cache_key: a string by the user that replaces all functions in the key.
        settings: attributes of such a loader that count if its method reads them.

    Raises:
        ValueError: a function depends on something that cannot be compared by value.
    """
    parts: list[Any] = [_FORMAT, list(options)]
    if cache_key is not None:
        parts.append(["cache_key", cache_key])
    else:
        given = {name: function for name, function in functions.items() if function is not None}
        parts += [[name, _digest(folder, name, given[name], settings)] for name in sorted(given)]
    return hashlib.blake2b(digest_of(parts).encode(), digest_size=8).hexdigest()


def _digest(folder: str, name: str, function: Any, settings: Mapping[str, Any] | None) -> str:
    try:
        if isinstance(function, types.MethodType) and not isinstance(function.__self__, type):
            return digest_of_method(function.__self__, function.__name__, _SPECIAL, settings)
        return digest_of(function, name, _SPECIAL)
    except NotComparable as error:
        raise ValueError(
            f"cache='{visible(folder)}' cannot detect changes of {visible(name)}: {error}, so that outdated "
            f'samples could be served after a change. Pass cache_key="1", or any other string, and '
            f"choose a new one whenever the result of {visible(name)} changes."
        ) from error


def _of_paths(paths: PackedPaths) -> str:
    digest = Digest()
    digest.add_paths(paths)
    return digest.text()


_SPECIAL: dict[type, Callable[[Any], Any]] = {PackedPaths: _of_paths}


@dataclass(frozen=True)
class SampleKey:
    """The key of a source's whole samples, computed when the first sample is read.

    It is not computed earlier because users set attributes, which their hooks read, after
    `super().__init__()`.

    Attributes:
        folder: the cache's folder; "" for RAM.
        options: values that determine the samples.
        functions: the functions that make them, in addition to the owner's hook.
        cache_key: a string by the user that replaces the functions.
    """

    folder: str
    options: tuple[Any, ...]
    functions: Mapping[str, Any] = field(default_factory=dict)
    cache_key: str | None = None

    def __call__(self, source: Source) -> str:
        """Compute the key.

        Raises:
            ValueError: a function depends on something that cannot be compared by value.
        """
        functions, settings, owner = self._functions(source), {}, source.owner()
        if owner is not None:
            settings = {**owner.options.flat, "paths": source.paths}
        return key_of(self.folder, self.options, functions, self.cache_key, settings)

    def watched(self, source: Source) -> MadeBy:
        """An object that has the key and detects later changes. In RAM only the changes matter.

        Raises:
            ValueError: a function depends on something that cannot be compared by value.
        """
        return watched(
            lambda: list(self._functions(source).values()),
            functools.partial(self, source) if self.folder else None,
        )

    def _functions(self, source: Source) -> dict[str, Any]:
        owner = source.owner()
        hook = {} if owner is None else {"load_sample()": owner.load_sample}
        return {**self.functions, **hook}


def watched(functions: Callable[[], list[Any]], key: Callable[[], str] | None = None) -> MadeBy:
    """Detect when functions begin to read different values.

    Args:
        functions: returns the functions.
        key: computes their key, for a folder; None in RAM, where a change clears the cache.
    """
    count = itertools.count()
    return MadeBy(lambda: HookState(*functions()), key or (lambda: str(next(count))))
