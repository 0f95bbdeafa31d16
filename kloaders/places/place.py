"""What a place is: objects by name, in a bucket, on a server or in another file system.

This protocol is all that the rest of the package knows of a cloud. Local files have none: they are read
by the system calls that they were always read by.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from kloaders.core import forks
from kloaders.places import settings
from kloaders.places.urls import OBJECT_STORES, Url

__all__ = ["Entry", "Place", "place_of"]


class Entry(NamedTuple):
    """An object as a listing has it.

    Attributes:
        name: in its place.
        size: in bytes.
        etag: changes whenever the content does; "" where the place has no such.
    """

    name: str
    size: int
    etag: str


class Place(Protocol):
    """Objects by name. Each method makes its requests once: `access` tries again.

    Threads: all methods may be called from several at once.

    Raises:
        TransientError: it may go when it is tried again.
        FileNotFoundError: there is no such object.
        ChangedError: its ETag is another one.
        PlaceError: the place refuses.
    """

    #: Seconds for which it is asked again where it does not answer.
    patience: float

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below a folder, in any order."""

    def head(self, name: str) -> Entry:
        """What is known of one object."""

    def read(self, name: str, etag: str = "") -> tuple[bytes, str]:
        """All of an object, which must have this ETag ("" for any), and the ETag that it has."""

    def read_range(self, name: str, start: int, stop: int, etag: str = "") -> bytes:
        """Bytes start to stop of an object, fewer at its end."""

    def put(self, name: str, parts: Sequence[bytes], only_if_absent: bool = False) -> None:
        """Write an object, which is there as a whole or not at all.

        Raises:
            FileExistsError: only_if_absent, and there is one of this name.
        """


class _Places:
    """The places of this process, by URL; a fork and new settings begin anew."""

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
        from kloaders.places.object_store import ObjectStore

        return ObjectStore(url, found)
    from kloaders.places.file_system import FileSystem

    return FileSystem(url, found)


_places = _Places()


def place_of(url: Url) -> Place:
    """The place of a URL; its client is made when the first one is asked for.

    Raises:
        ImportError: what reads such URLs is not installed; has the line that installs it.
        ValueError: there is no such scheme, or its settings are wrong.
    """
    return _places.of(url)
