"""What a cached array depends on besides files: options, and the functions that make it, by value."""

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

# Raise it when the same options begin to give other pixels.
# 2: functions by value, and names of files below the folder that they have in common.
_FORMAT = 2


def key_of(
    folder: str,
    options: Sequence[Any],
    functions: Mapping[str, Any],
    cache_key: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """The name of the part of a cache folder for arrays that are made like this.

    Args:
        folder: where the cache lies; for messages.
        options: values that decide the arrays.
        functions: those that make them, by what the user calls them ("decode="); None for none. Of a
            method of a loader the attributes of the loader that it reads count, too.
        cache_key: the user's text, which stands for all of the functions.
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
            f"cache={folder!r:.80} cannot tell what {visible(name)} makes from what another one makes: "
            f"{error}, and so samples of before a change could be served after it. Pass "
            f'cache_key="1", a text of your own, and change it whenever what {visible(name)} makes changes.'
        ) from error


def _of_paths(paths: PackedPaths) -> str:
    digest = Digest()
    digest.add_paths(paths)
    return digest.text()


_SPECIAL: dict[type, Callable[[Any], Any]] = {PackedPaths: _of_paths}


@dataclass(frozen=True)
class SampleKey:
    """The key of whole samples of a source, made when the first one is read.

    Not before: users set attributes that their hooks read after `super().__init__()`.

    Attributes:
        folder: where the cache lies; "" for RAM.
        options: values that decide the samples.
        functions: those that make them, beside a hook of the source's owner.
        cache_key: the user's text in place of these.
    """

    folder: str
    options: tuple[Any, ...]
    functions: Mapping[str, Any] = field(default_factory=dict)
    cache_key: str | None = None

    def __call__(self, source: Source) -> str:
        """The key.

        Raises:
            ValueError: a function depends on something that cannot be compared by value.
        """
        functions, settings, owner = self._functions(source), {}, source.owner()
        if owner is not None:
            settings = {**owner.options.flat, "paths": source.paths}
        return key_of(self.folder, self.options, functions, self.cache_key, settings)

    def watched(self, source: Source) -> MadeBy:
        """The key, and whether it is another one later. In RAM only the latter matters.

        Raises:
            ValueError: as the key itself.
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
    """Whether functions come to read something else.

    Args:
        functions: gives them.
        key: of what they make, in a folder; None in RAM, where all of before is forgotten.
    """
    count = itertools.count()
    return MadeBy(lambda: HookState(*functions()), key or (lambda: str(next(count))))
