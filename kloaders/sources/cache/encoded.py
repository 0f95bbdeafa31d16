"""A cache for samples that are decoded from rows of files with many samples each."""

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
    """A value for each sample, computed on access; replaces a list of all values."""

    def __init__(self, get: Callable[[int], str], etag: Callable[[str], str] | None = None) -> None:
        self.get = get
        #: For remote objects: the ETags of their current versions.
        self.etags = None if etag is None else _EtagByNumber(get, etag)

    def __getitem__(self, index: int) -> str:
        return self.get(index)


class _EtagByNumber:
    """The ETag of each sample's file."""

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
    """The source, with a cache in front of it if the options ask for one.

    Args:
        source: the source of the samples.
        cache: the loader's cache options.
        work: the loader's worker options.
        decoded: whether "auto" caches these samples because decoding takes time.
        name: returns the name of a sample.
        file_of: returns the file of a sample; None if samples are in no file.
        paths: all files.
        etag: returns the ETag of a file that is a remote object.
        made_by: values that determine the samples.
        functions: the functions that make the samples, by option name.
    """
    if cache.cache is None:
        return source
    if cache.cache == "auto":
        # A user's function may draw random numbers, and each worker process would keep its own
        # copy of the cache in RAM.
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
