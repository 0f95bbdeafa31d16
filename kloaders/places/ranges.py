"""Reads remote objects by byte ranges: files of records, lines or members, by URL.

Announced ranges that are close together become one request, which serves later reads. With a download
cache, its blocks of 4 MiB are fetched and stored as a whole, and then read from disk. All requests are for
the same version of the object: the first one that the loader used.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kloaders.core.memory import parse_bytes
from kloaders.places import access
from kloaders.places.download_cache import BLOCK_BYTES, DownloadCache
from kloaders.places.fetching import Claim, Read, Span, fetcher, read_once
from kloaders.places.place import Entry
from kloaders.places.registry import place_of
from kloaders.places.urls import is_url, parsed

__all__ = ["RangeUrls", "RemoteFile", "Walk", "walking"]

# Ranges with smaller gaps become one request: reading the gap takes less time than a request.
_GAP = 2**16
# Sequential reads also get the bytes between their ranges, up to this many.
_SKIPPED = 2**20
# The size of a sequential reader's first read, and the number of blocks that it fetches ahead.
_FIRST_WINDOW, _WINDOWS_AHEAD = 2**16, 3
# The number of objects whose metadata is requested at a time.
_LOOKING = 32

# A piece of an object that is fetched as a whole: (url, etag, span, read).
_Piece = tuple[str, str, Span, Read]


class RemoteFile:
    """A remote object with the interface of `OpenFile`.

    Args:
        url: the URL of the object.
        size: its size in bytes.
        etag: the version to read; "" if the storage has no ETags.
        cache: stores blocks of the object; None for no cache.

    Thread-safe.
    """

    __slots__ = ("_stamp", "cache", "etag", "size", "url")

    #: Not a descriptor, because system calls cannot read it.
    number = -1

    def __init__(self, url: str, size: int, etag: str, cache: DownloadCache | None) -> None:
        self.url, self.size, self.etag = url, size, etag
        self.cache = cache if etag else None
        digest = hashlib.blake2b(etag.encode("utf-8", "surrogateescape"), digest_size=7)
        self._stamp = size, int.from_bytes(digest.digest(), "little")

    def stamp(self) -> tuple[int, int]:
        """The size, and a number that changes with the version."""
        return self._stamp

    def read(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the object.

        Raises:
            ChangedError: the object has changed.
            BrokenTransferError: it never arrives completely.
            PlaceError: the storage is at fault.
        """
        at, end = max(0, offset), min(offset + size, self.size)
        if end - at <= BLOCK_BYTES:
            return self._read(at, end)
        claim = fetcher.announce_spans(self.pieces([(at, end)]), only_new=True)
        try:
            return self._read(at, end)
        finally:
            claim.release()

    def _read(self, at: int, end: int) -> bytes:
        parts: list[bytes] = []
        while at < end:
            block = self._block(at)
            if self._kept(block):
                stop = min(end, block[1])
                assert self.cache is not None
                found = self.cache.part(self.url, self.etag, block, at, stop)
                if found is None:
                    whole = fetcher.take(self.url, self.etag, self.cache.read, block)
                    found = whole[at - block[0] : stop - block[0]]
            else:
                if self.cache is not None:
                    self.cache.note_asked()
                stop = self._stop(at, end)
                span = fetcher.covering(self.url, self.etag, at, stop) or (
                    at,
                    min(stop, at + BLOCK_BYTES),
                )
                stop = min(stop, span[1])
                whole = fetcher.take(self.url, self.etag, read_once, span)
                found = whole[at - span[0] : stop - span[0]]
            parts.append(found)
            at = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, at: int) -> tuple[int, int]:
        """The block that contains a byte."""
        start = at - at % BLOCK_BYTES
        return start, min(start + BLOCK_BYTES, self.size)

    def _kept(self, block: tuple[int, int]) -> bool:
        """Whether the cache stores this block."""
        return self.cache is not None and self.cache.keeps(self.url, self.etag, block)

    def _stop(self, at: int, end: int) -> int:
        """The end of the bytes that are in none of the cache's blocks."""
        if self.cache is None:
            return end
        stop = at
        while stop < end and not self._kept(self._block(stop)):
            stop = self._block(stop)[1]
        return min(stop, end)

    def pieces(self, ranges: Iterable[tuple[int, int]]) -> list[_Piece]:
        """The requests for these ranges (start, end excluded); close ranges are joined."""
        found: list[_Piece] = []
        spans: list[list[int]] = []
        blocks: dict[tuple[int, int], None] = {}
        for first, last_of_range in sorted(ranges):
            at, end = max(0, first), min(last_of_range, self.size)
            while at < end:
                block = self._block(at)
                if self._kept(block):
                    blocks[block] = None
                    at = min(end, block[1])
                    continue
                stop = self._stop(at, end)
                last = spans[-1] if spans else [0, -_GAP - 1]
                if at <= last[1] + _GAP and max(stop, last[1]) - last[0] <= BLOCK_BYTES:
                    last[1] = max(stop, last[1])
                else:
                    stop = min(stop, at + BLOCK_BYTES)
                    spans.append([at, stop])
                at = stop
        for block in blocks:
            assert self.cache is not None
            if not self.cache.holds(self.url, self.etag, block):
                found.append((self.url, self.etag, block, self.cache.read))
        return found + [(self.url, self.etag, (a, z), read_once) for a, z in spans]


class Walk:
    """Reads an object from front to back, in a few large ranges that are fetched ahead.

    For readers that search for positions. Small gaps between reads are read as well; large ones are
    skipped. Several threads may use it; they wait for each other.
    """

    number = -1

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._start, self._data, self._window = 0, b"", _FIRST_WINDOW
        self._ahead: Claim | None = None

    def stamp(self) -> tuple[int, int]:
        return self.file.stamp()

    def read(self, size: int, offset: int) -> bytes:
        """Like `RemoteFile.read`."""
        if size >= BLOCK_BYTES:
            return self.file.read(size, offset)
        with self._lock:
            parts, at, end = [], offset, min(offset + size, self.file.size)
            while at < end:
                if not self._start <= at < self._start + len(self._data):
                    self._move(at)
                part = self._data[at - self._start : end - self._start]
                parts.append(part)
                at += len(part)
            return b"".join(parts)

    def _move(self, at: int) -> None:
        """Read the part that contains a byte."""
        end = self._start + len(self._data)
        on = end <= at <= end + _SKIPPED
        self._window = min(2 * self._window, BLOCK_BYTES) if on else _FIRST_WINDOW
        large = self._window == BLOCK_BYTES
        start = at - at % BLOCK_BYTES if large else at
        if start < end <= at:
            start = end
        stop = (start // BLOCK_BYTES + 1) * BLOCK_BYTES if large else start + self._window
        before = self._ahead
        ahead = range(stop, stop + _WINDOWS_AHEAD * BLOCK_BYTES, BLOCK_BYTES) if large else ()
        blocks = [(start, stop), *((first, first + BLOCK_BYTES) for first in ahead)]
        pieces = [piece for block in blocks for piece in self.file.pieces([block])]
        self._ahead = fetcher.announce_spans(pieces)
        if before is not None:
            before.release()
        self._data = self.file.read(stop - start, start)
        self._start = start

    def close(self) -> None:
        """Stop reading."""
        with self._lock:
            if self._ahead is not None:
                self._ahead.release()
            self._ahead, self._data = None, b""

    def __del__(self) -> None:
        self.close()


def walking(file: Any) -> Any:
    """A file for sequential reading; a remote object is read in a few large ranges."""
    return Walk(file) if isinstance(file, RemoteFile) else file


class RangeUrls:
    """Opens the objects of a list, with the sizes and versions that they have at the beginning.

    Args:
        urls: the URLs of the objects; local paths among them are left to the caller.
        folder: the folder of the download cache; None for no cache.
        budget: the maximum size of the download cache.

    Pickles without open files and credentials. Thread-safe.
    """

    def __init__(self, urls: Sequence[str], folder: Any = None, budget: Any = None) -> None:
        wanted = list(dict.fromkeys(filter(is_url, urls)))
        for place in {parsed(url).place: parsed(url) for url in wanted}.values():
            place_of(place)
        with ThreadPoolExecutor(_LOOKING, "kloaders-head") as threads:
            self.entries: dict[str, Entry] = dict(
                zip(wanted, threads.map(access.head, wanted), strict=True)
            )
        self.cache: DownloadCache | None = None
        if folder is not None:
            size = None if budget is None else parse_bytes(budget, "download_budget")
            total = sum(entry.size for entry in self.entries.values())
            digest = hashlib.blake2b("\0".join(wanted).encode("utf-8", "surrogateescape"))
            self.cache = DownloadCache(os.fspath(folder), size, total, digest.hexdigest()[:16])

    def open(self, url: str) -> RemoteFile:
        """Open an object of the list."""
        entry = self.entries[url]
        return RemoteFile(url, entry.size, entry.etag, self.cache)

    def index_folder(self, given: str | None) -> str | None:
        """The folder for indexes of the objects: next to the download cache, if there is one."""
        if given is not None or self.cache is None:
            return given
        return os.path.join(self.cache.folder, "indexes")

    def fetch_ahead(
        self, ranges: Iterable[tuple[str, int, int]], only_new: bool = False
    ) -> list[Claim]:
        """Begin to fetch these ranges (url, start, end excluded)."""
        by_url: dict[str, list[tuple[int, int]]] = {}
        for url, start, stop in ranges:
            if url not in self.entries:
                continue
            etag = self.entries[url].etag
            span = fetcher.covering(url, etag, start, stop) if only_new else None
            if span is None or span[1] < stop:
                by_url.setdefault(url, []).append((start, stop))
        pieces = [p for url, some in by_url.items() for p in self.open(url).pieces(some)]
        return [fetcher.announce_spans(pieces, only_new)] if pieces else []
