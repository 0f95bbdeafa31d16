"""What besides the files decides a cached array: options, and the functions that make it, by value."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

from kloaders.core.messages import shortened
from kloaders.core.value_digest import NotComparable, digest_of, digest_of_method
from kloaders.sources.columns import PackedPaths
from kloaders.sources.fingerprint import Digest

__all__ = ["check_cache_key", "key_of"]

# Raise it when the same options begin to give other pixels.
# 2: functions by value, and names of files below the folder that they have in common.
_FORMAT = 2


def key_of(
    folder: str,
    options: Sequence[Any],
    functions: Mapping[str, Any],
    cache_key: str | None = None,
) -> str:
    """The name of the part of a cache folder for arrays that are made like this.

    Args:
        folder: where the cache lies; for messages.
        options: values that decide the arrays.
        functions: those that make them, by what the user calls them ("decode="); None for none. Of a
            method of a loader also what it reads of the loader counts.
        cache_key: the user's text, which stands for all of the functions.

    Raises:
        ValueError: a function depends on something that cannot be compared by value.
    """
    parts = [_FORMAT, list(options)]
    if cache_key is not None:
        parts.append(["cache_key", cache_key])
    else:
        given = {name: function for name, function in functions.items() if function is not None}
        parts += [[name, _digest(folder, name, given[name])] for name in sorted(given)]
    return hashlib.blake2b(digest_of(parts).encode(), digest_size=8).hexdigest()


def _digest(folder: str, name: str, function: Any) -> str:
    try:
        if isinstance(function, types.MethodType) and not isinstance(function.__self__, type):
            return digest_of_method(function.__self__, function.__name__, _SPECIAL)
        return digest_of(function, name, _SPECIAL)
    except NotComparable as error:
        raise ValueError(
            f"cache={shortened(folder)!r} cannot tell what {name} makes from what another one makes: "
            f"{error}, and so samples of before a change could be served after it. Pass "
            f'cache_key="1", a text of your own, and change it whenever what {name} makes changes.'
        ) from error


def _of_paths(paths: PackedPaths) -> str:
    digest = Digest()
    digest.add_paths(paths)
    return digest.text()


_SPECIAL = {PackedPaths: _of_paths}


def check_cache_key(cache_key: Any) -> str | None:
    """`cache_key` if it is a text or None, else a TypeError or ValueError."""
    if cache_key is None or (isinstance(cache_key, str) and cache_key):
        return cache_key
    kind = ValueError if isinstance(cache_key, str) else TypeError
    raise kind(
        f"cache_key={cache_key!r:.80}, expected a text that names what is cached, such as "
        '"crops, version 2", or None to have the functions compared.'
    )
