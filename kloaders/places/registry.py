"""The places that this process uses: one client for each bucket or server, created on first use."""

from __future__ import annotations

import threading

from kloaders.core import forks
from kloaders.places import settings
from kloaders.places.file_system import FileSystem
from kloaders.places.object_store import ObjectStore
from kloaders.places.place import Place
from kloaders.places.urls import OBJECT_STORES, Url

__all__ = ["place_of"]


class _Places:
    """The places of this process, by URL. A fork and new settings clear them."""

    def __init__(self) -> None:
        self.after_fork()
        forks.watch(self)
        settings.on_change(self.after_fork)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Place] = {}

    def of(self, url: Url) -> Place:
        found = self._known.get(url.place)
        if found is None:
            with self._lock:
                found = self._known.get(url.place)
                if found is None:
                    found = self._known[url.place] = _made(url)
        return found


def _made(url: Url) -> Place:
    found = settings.storage_of(url.place)
    if url.scheme in OBJECT_STORES:
        return ObjectStore(url, found)
    return FileSystem(url, found)


_places = _Places()


def place_of(url: Url) -> Place:
    """The place of a URL; its client is created on first use.

    Raises:
        ImportError: the package for such URLs is not installed; the message has the pip line.
        ValueError: the scheme is unknown, or its settings are wrong.
    """
    return _places.of(url)
