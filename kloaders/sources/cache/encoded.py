"""A cache in front of samples that are decoded from rows of files, which hold many samples each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kloaders.core.options import CacheOptions, WorkOptions
from kloaders.formats.images import decoders
from kloaders.sources.cache.columns import HookCache, leaf_store
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.keys import SampleKey
from kloaders.sources.cache.policy import check_single_samples, folder_of, place_of
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.fingerprint import common_folder
from kloaders.sources.source import Source

__all__ = ["cached_rows"]


class _ByNumber:
    """Something of each sample, as a list of them would give it."""

    def __init__(self, get: Callable[[int], str], etag: Callable[[str], str] | None = None) -> None:
        self.get = get
        #: Of files that are objects elsewhere: which versions these are.
        self.etags = None if etag is None else _EtagByNumber(get, etag)

    def __getitem__(self, index: int) -> str:
        return self.get(index)


class _EtagByNumber:
    """The version of the file of each sample."""

    def __init__(self, file_of: Callable[[int], str], etag: Callable[[str], str]) -> None:
        self.file_of, self.etag = file_of, etag

    def __getitem__(self, index: int) -> str:
        return self.etag(self.file_of(index))


def cached_rows(
    source: Source,
    cache: CacheOptions,
    work: WorkOptions,
    *,
    decoded: bool,
    name: Callable[[int], str],
    file_of: Callable[[int], str] | None,
    paths: Sequence[str],
    etag: Callable[[str], str] | None = None,
    made_by: tuple[Any, ...],
    functions: Mapping[str, Any],
) -> Source:
    """The source, with a cache in front of it where the options ask for one.

    Args:
        source: gives the samples.
        cache: option of the loader.
        work: likewise.
        decoded: whether "auto" keeps samples, since decoding them takes time.
        name: what a sample is called.
        file_of: the file that it is in; None: in none.
        paths: all files.
        etag: the version of a file that is an object elsewhere.
        made_by: values that decide the samples.
        functions: those that make them, by what the user calls them.
    """
    if cache.cache is None:
        return source
    if cache.cache == "auto":
        # Not where a user's function runs, which may draw random numbers; and worker processes would
        # each cache their own copy in RAM.
        if not decoded or source.runs_user_code or work.processes:
            return source
    else:
        check_single_samples(source, cache, work)
    folder = folder_of(cache)
    files = SampleFiles(
        [] if file_of is None else [_ByNumber(file_of, etag)],
        names=_ByNumber(name),
        folder=common_folder(paths) if folder and paths else "",
    )
    make = functools.partial(leaf_store, place_of(cache), len(source), files)
    key = SampleKey(folder or "", (*made_by, *decoders()), functions, cache.cache_key)
    return CachedSource(source, HookCache(make, files, None if folder else ""), key.watched)
