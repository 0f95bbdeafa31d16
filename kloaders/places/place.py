"""The protocol of remote storage: objects by name, in a bucket, on a server or in a file system.

The rest of the package knows nothing else about clouds. Local files do not use it: they are read
directly with system calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ["PART_BYTES", "Entry", "Place"]

#: Larger objects are written in parts, several at a time.
PART_BYTES = 16 * 2**20


class Entry(NamedTuple):
    """An object as listed.

    Attributes:
        name: the name in its place.
        size: in bytes.
        etag: changes whenever the content does; "" if the storage has no ETags.
    """

    name: str
    size: int
    etag: str


class Place(Protocol):
    """Objects by name. A method makes each request only once; `access` retries.

    Threads: several may call all methods at once.

    Raises:
        TransientError: a retry may succeed.
        FileNotFoundError: the object does not exist.
        ChangedError: the object has another ETag.
        PlaceError: the storage refuses the request.
    """

    #: For this many seconds requests are retried while the storage does not answer.
    patience: float

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below a folder, in any order."""

    def head(self, name: str) -> Entry:
        """Metadata of one object."""

    def read(self, name: str, etag: str = "") -> tuple[bytes, str]:
        """The whole object, which must have this ETag ("" for any), and its ETag."""

    def read_range(self, name: str, start: int, stop: int, etag: str = "") -> bytes:
        """Bytes start to stop of an object, fewer at its end."""

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""

    def inside(self, prefix: str) -> Iterator[Entry]:
        """The objects directly in a folder, in any order."""

    def put(
        self, name: str, parts: Sequence[bytes], only_if_absent: bool = False, etag: str = ""
    ) -> None:
        """Write an object atomically.

        Raises:
            FileExistsError: only_if_absent, and the object exists.
            ChangedError: the object does not have this ETag ("" for any, or none).
        """

    def put_file(self, name: str, path: str) -> None:
        """Upload a local file of any size as one object, atomically."""
