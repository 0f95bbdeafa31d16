"""Where a loader's cache is, and which samples it may hold."""

from __future__ import annotations

import functools

from kloaders.core.options import CacheOptions, TransformOptions, WorkOptions
from kloaders.core.structure import flatten
from kloaders.sources.cache.columns import HookCache, Place, leaf_store
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.keys import SampleKey
from kloaders.sources.cache.ram import Budget, spare_ram
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.columns import PathColumn, inner_column
from kloaders.sources.source import Source

__all__ = ["cached_in_ram", "cached_whole", "check_single_samples", "folder_of", "place_of"]


def place_of(options: CacheOptions) -> Place:
    """Where the cache is, and its maximum size."""
    place, budget = options.place, options.budget_bytes
    if place in ("auto", "ram"):
        if budget is not None:
            return Budget(budget)
        return spare_ram if place == "auto" else Budget(None)
    assert place is not None
    return place, budget


def folder_of(options: CacheOptions) -> str | None:
    """The folder of the cache; None if there is none, or it is in RAM."""
    return None if options.place in ("auto", "ram") else options.place


def check_single_samples(source: Source, options: CacheOptions, work: WorkOptions) -> None:
    """Raise ValueError if a hook's samples cannot be cached one by one."""
    if source.whole_batches:
        raise ValueError(
            f"cache={options.cache!r:.80} stores single samples, but load_batch returns whole batches: "
            "override load_sample instead, or leave cache= out."
        )
    if source.random:
        raise ValueError(f"cache={options.cache!r:.80}: {source.not_kept}")
    if options.cache == "ram" and work.processes:
        raise ValueError(
            'cache="ram" is in the memory of this process, but processes=True reads in other processes: '
            "use cache=<folder>, which processes share."
        )


def cached_in_ram(source: Source, options: CacheOptions, work: WorkOptions) -> Source:
    """A source that does not read files, with a cache in front of it if the options ask for one.

    Raises:
        ValueError: the samples are arrays in memory, or the cache is a folder.
    """
    if options.cache in (None, "auto"):
        return source
    if source.columns is not None and not source.runs_user_code:
        raise ValueError(
            f"cache={options.cache!r:.80}: the samples are arrays already. preload(loader) copies a "
            "memory map into RAM; otherwise leave cache= out."
        )
    if options.cache != "ram":
        raise _no_folder(options)
    check_single_samples(source, options, work)
    make = functools.partial(leaf_store, place_of(options), len(source), None)
    return CachedSource(source, HookCache(make, SampleFiles([]), ""), SampleKey("", ()).watched)


def _no_folder(options: CacheOptions) -> ValueError:
    return ValueError(
        f"cache={options.cache!r:.80}: a folder outlives the loader, and only files show whether "
        'a sample has changed. Use cache="ram", or a PathSequenceLoader.'
    )


def cached_whole(
    source: Source, options: CacheOptions, work: WorkOptions, transforms: TransformOptions
) -> Source:
    """The samples after `preprocess=`, with a cache in front of them.

    Args:
        source: the source of the samples.
        options: where to cache, in RAM or in a folder.
        work: the worker options, which say which processes read.
        transforms: `preprocess`, and the dtype before it.

    Raises:
        ValueError: such samples cannot be cached there.
    """
    check_single_samples(source, options, work)
    folder, columns = folder_of(options), flatten(source.columns or ())
    inner = [inner_column(column) for column in columns]
    paths = [column.paths for column in inner if isinstance(column, PathColumn)]
    if folder is not None and not paths:
        raise _no_folder(options)
    others = [c for c, last in zip(columns, inner, strict=True) if not isinstance(last, PathColumn)]
    files = SampleFiles(paths, others if paths else (), folder=None if folder else "")
    make = functools.partial(leaf_store, place_of(options), len(source), files)
    readers = [c.read_path for c in inner if isinstance(c, PathColumn)]
    functions = {
        f"decode= of file {k}": getattr(read, "decode", None) for k, read in enumerate(readers)
    }
    functions["preprocess="] = transforms.preprocess
    from kloaders.formats.images import decoders  # OpenCV is already imported if there are files

    options_of = (getattr(read, "options", None) for read in readers)
    made_by = (transforms.dtype, *decoders(), *options_of)
    key = SampleKey(folder or "", made_by, functions, options.cache_key)
    return CachedSource(source, HookCache(make, files, None if folder else ""), key.watched)
