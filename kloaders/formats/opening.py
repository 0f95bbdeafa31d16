"""How a loader opens its files: local files directly, remote objects by byte ranges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from kloaders.formats.files import OpenFile
from kloaders.places.fetching import Claim
from kloaders.places.ranges import RangeUrls
from kloaders.places.settings import check_download_cache
from kloaders.places.urls import is_url

__all__ = ["LOCAL", "Opener", "opener_of"]


class Opener:
    """Opens local files.

    Attributes:
        fetches: whether some files are remote objects.
    """

    fetches = False

    def open(self, path: str) -> Any:
        """An open file, with `read(size, offset)` and `stamp()`."""
        return OpenFile(path)

    def stamp(self, path: str) -> tuple[int, int]:
        """The size in bytes, and the modification time in nanoseconds or a number for the version."""
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns

    def etag(self, path: str) -> str:
        """The ETag of an object's version; "" for files."""
        return ""

    def index_folder(self, given: str | None) -> str | None:
        """The folder for indexes; None: next to each file."""
        return given

    def fetch_ahead(
        self, ranges: Iterable[tuple[str, int, int]], only_new: bool = False
    ) -> list[Claim]:
        """Begin to fetch ranges of objects (path, start, end excluded)."""
        return []


class _UrlOpener(Opener):
    """Opens objects by URL, and local files."""

    fetches = True

    def __init__(self, urls: RangeUrls) -> None:
        self.urls = urls

    def open(self, path: str) -> Any:
        return self.urls.open(path) if is_url(path) else OpenFile(path)

    def stamp(self, path: str) -> tuple[int, int]:
        return self.urls.open(path).stamp() if is_url(path) else super().stamp(path)

    def etag(self, path: str) -> str:
        return self.urls.entries[path].etag if is_url(path) else ""

    def index_folder(self, given: str | None) -> str | None:
        return self.urls.index_folder(given)

    def fetch_ahead(
        self, ranges: Iterable[tuple[str, int, int]], only_new: bool = False
    ) -> list[Claim]:
        return self.urls.fetch_ahead(ranges, only_new)


#: The opener for local files.
LOCAL = Opener()


def opener_of(files: Sequence[str], folder: Any = None, budget: Any = None) -> Opener:
    """Choose how these files are opened, depending on whether any is a URL.

    Args:
        files: paths and URLs.
        folder: the folder of the download cache; None for no cache.
        budget: the maximum size of the download cache.

    Raises:
        FileNotFoundError: an object does not exist.
        ImportError: the package that fetches such URLs is not installed.
        ValueError: a URL is incomplete or contains credentials; the cache's size is 0.
    """
    remote = any(map(is_url, files))
    check_download_cache(folder, budget, remote)
    return _UrlOpener(RangeUrls(files, folder, budget)) if remote else LOCAL
