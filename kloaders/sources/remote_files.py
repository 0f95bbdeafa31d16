"""Remote sample files: columns of URLs that are prefetched and decoded like local files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.memory import parse_bytes
from kloaders.core.messages import visible
from kloaders.core.rows import Report, copy_into_row
from kloaders.core.structure import Structure, as_arrays, cast, flatten, map_structure
from kloaders.formats import by_suffix
from kloaders.formats.errors import empty_file
from kloaders.places import access
from kloaders.places.download_cache import DownloadCache
from kloaders.places.fetching import Claim, Read, fetcher, read_once
from kloaders.places.place import Entry
from kloaders.places.registry import place_of
from kloaders.places.settings import check_download_cache
from kloaders.places.urls import is_url, parsed
from kloaders.sources.cache.columns import CachedColumn
from kloaders.sources.cache.store import STAMP_BYTES, Stamp, stamp_of
from kloaders.sources.columns import PathColumn, ReadPath
from kloaders.sources.files import FileReader, takes_empty
from kloaders.sources.path_lists import PackedPaths

__all__ = [
    "CachedRemoteColumn",
    "ListedPaths",
    "RemoteColumn",
    "expanded",
    "fetched",
    "has_urls",
]

# When existence is checked: the number of simultaneous requests, and of checked objects.
_LOOKING, _LOOKED_AT = 32, 32


class ListedPaths(PackedPaths):
    """URLs from a listing, with their ETags: reading an object that has changed is an error.

    total: the size of all objects in bytes.
    """

    def __init__(self, paths: Iterable[Any], etags: Iterable[str], total: int = 0) -> None:
        super().__init__(paths)
        self.etags, self.total = PackedPaths(etags), total

    @classmethod
    def of(cls, found: Sequence[tuple[str, Entry]]) -> ListedPaths:
        """URLs, and their metadata from a listing."""
        total = sum(entry.size for _, entry in found)
        return cls([url for url, _ in found], [entry.etag for _, entry in found], total)

    def take(self, indices: Indices) -> ListedPaths:
        some = indices.tolist()
        total = round(self.total * len(some) / max(1, len(self)))
        return ListedPaths([self[k] for k in some], [self.etags[k] for k in some], total)


def expanded(paths: Any) -> Any:
    """The URLs that a pattern of URLs matches; any other argument is returned unchanged.

    Raises:
        FileNotFoundError: nothing matches.
    """
    if not is_url(paths):
        return paths
    found = access.listed_pattern(paths)
    if found is None:
        return paths
    if not found:
        raise FileNotFoundError(
            f"no object matches '{visible(paths)}': check the bucket and the folders."
        )
    return ListedPaths.of(found)


def has_urls(paths: PackedPaths) -> bool:
    """Whether any of these paths is a URL; a search in the joined text."""
    block = paths.joined()
    # Searching for one character is much faster than for several.
    return b":" in block and b"://" in block and any(map(is_url, paths))


def fetched(columns: Structure, folder: Any = None, budget: Any = None) -> Any:
    """Replace columns of files whose paths are URLs by columns that fetch them.

    Args:
        columns: the columns of a loader.
        folder: the folder of the download cache; None for no cache.
        budget: the maximum size of the download cache.

    Raises:
        ImportError: the package that fetches such URLs is not installed.
        ValueError: a URL is incomplete or contains credentials; the cache's size is 0.
    """
    remote = [c for c in flatten(columns) if isinstance(c, PathColumn) and has_urls(c.paths)]
    check_download_cache(folder, budget, bool(remote))
    for column in remote:
        _check_urls(column)
    cache = None if folder is None else _cache_of(remote, folder, budget)
    found: Any = map_structure(
        lambda c: RemoteColumn(c.paths, c.read_path, cache) if c in remote else c, columns
    )
    return found


def _cache_of(columns: list[Any], folder: Any, budget: Any) -> DownloadCache:
    """The download cache of these columns."""
    size = None if budget is None else parse_bytes(budget, "download_budget")
    digest = hashlib.blake2b(digest_size=8)
    total = 0
    for column in columns:
        digest.update(column.paths.joined())
        if size is not None:
            total += _total_bytes(column.paths)
    return DownloadCache(os.fspath(folder), size, total, digest.hexdigest())


def _total_bytes(paths: PackedPaths) -> int:
    """The size of all objects in bytes, from a listing or estimated from a few of them."""
    if isinstance(paths, ListedPaths):
        return paths.total
    looked = np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).astype(np.int64)).tolist()
    urls = [path for path in (paths[k] for k in looked) if is_url(path)]
    with ThreadPoolExecutor(_LOOKING, "kloaders-head") as threads:
        sizes = list(threads.map(_size_of, urls))
    known = [size for size in sizes if size is not None]
    return round(sum(known) / max(1, len(known)) * len(paths))


def _size_of(url: str) -> int | None:
    try:
        return access.head(url).size
    except FileNotFoundError:  # raised again when it is read
        return None


def _check_urls(column: PathColumn) -> None:
    """Create the clients for the URLs, or raise an error if a URL is invalid."""
    seen = set()
    for path in column.paths:
        if is_url(path):
            url = parsed(path)
            if url.place not in seen:
                seen.add(url.place)
                place_of(url)


class RemoteColumn(PathColumn):
    """One object per sample, by URL. A path that is not a URL is read as a local file.

    Args:
        paths: the URLs.
        read: decodes files; a user's hook is called with the URL instead.
        cache: the download cache; its files are read like local files.
    """

    def __init__(
        self, paths: PackedPaths, read: ReadPath, cache: DownloadCache | None = None
    ) -> None:
        super().__init__(paths, read)
        self.cache = cache

    def with_paths(self, paths: PackedPaths) -> RemoteColumn:
        return RemoteColumn(paths, self.read_path, self.cache)

    def check_objects(self, every: bool) -> None:
        """Check that objects exist, either a few or all of them. Those from a listing are not checked.

        Raises:
            FileNotFoundError: an object does not exist; the message names it.
            PlaceError: the storage service refuses the request.
        """
        if isinstance(self.paths, ListedPaths):
            return
        count = len(self) if every else min(len(self), _LOOKED_AT)
        looked = np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64)).tolist()
        paths = [self.paths[k] for k in looked]
        with ThreadPoolExecutor(_LOOKING, "kloaders-head") as threads:
            for _ in threads.map(_look, paths):
                pass

    def _object(self, index: int) -> tuple[str, str]:
        etags = self.paths.etags if isinstance(self.paths, ListedPaths) else None
        return self.paths[index], "" if etags is None else etags[index]

    def fetch_ahead(self, indices: Indices, only_new: bool = False) -> Claim:
        """Begin to fetch these samples."""
        return self._announced([self._object(index) for index in indices.tolist()], only_new)

    def _announced(self, objects: list[tuple[str, str]], only_new: bool) -> Claim:
        cache = self.cache
        wanted = [
            one
            for one in objects
            if is_url(one[0]) and not (cache is not None and cache.holds(*one))
        ]
        return fetcher.announce(wanted, self._fetch, only_new)

    @property
    def _fetch(self) -> Read:
        """The function that makes one request for an object."""
        return read_once if self.cache is None else self.cache.read

    def read(self, index: int) -> Array:
        return np.asarray(self._read(*self._object(index), None))

    def _read(self, url: str, etag: str, out: Array | None) -> Any:
        if not is_url(url) or not isinstance(self.read_path, FileReader):
            return self.read_path(url, out)
        raw = None if self.cache is None else self.cache.part(url, etag)
        if raw is None:
            raw = fetcher.take(url, etag, self._fetch)
        return _decoded(self.read_path, raw, url, out)

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        objects = [self._object(index) for index in indices.tolist()]
        claim = self._announced(objects, only_new=True)  # those that were not announced
        try:
            for row, index in enumerate(indices.tolist()):
                stall_watch.at(self, index)
                target = out[row, ...]
                try:
                    got = self._read(*objects[row], target)
                except Exception as error:  # a user's decoder failed for this sample
                    report(row, error)
                    continue
                if got is not target:
                    copy_into_row(np.asarray(got), out, row, leaf, report)
        finally:
            claim.release()

    def stamp(self, index: int) -> Stamp:
        """The version of an object: its ETag, if a listing contained it."""
        url, etag = self._object(index)
        if not is_url(url):
            return stamp_of(url)
        return hashlib.blake2b(
            f"{url}\0{etag}".encode("utf-8", "surrogateescape"), digest_size=STAMP_BYTES
        ).digest()


class CachedRemoteColumn(CachedColumn):
    """A column of URLs whose arrays are cached in a store."""

    column: RemoteColumn

    def _stamp_of_file(self, index: int) -> Stamp:
        return self.column.stamp(index)

    def fetch_ahead(self, indices: Indices) -> Claim:
        """Begin to fetch objects that are not cached."""
        return self.column.fetch_ahead(self.store.missing(indices, self._stamp))


def _decoded(reader: FileReader, raw: bytes, url: str, out: Array | None) -> Any:
    """The result of a file reader for an object's content."""
    if reader.decode is None:
        got: Any = by_suffix.decode_sample(raw, url, reader.options, out)
    elif not raw and not takes_empty(reader.decode):
        raise empty_file(url)
    else:
        got = as_arrays(reader.decode(raw))
    dtype = reader.options.dtype
    return got if dtype is None or got is out else cast(got, dtype)


def _look(path: str) -> None:
    if is_url(path):
        access.head(path)
    else:
        os.stat(path)
