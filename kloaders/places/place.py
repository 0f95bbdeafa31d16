"""What a place is: objects by name, in a bucket, on a server or in another file system.

This protocol is all that the rest of the package knows of a cloud. Local files have none: they are read
by the system calls that they were always read by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ["PART_BYTES", "Entry", "Place"]

#: What is larger is written in parts, several at a time.
PART_BYTES = 16 * 2**20


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

    def delete(self, name: str) -> None:
        """Delete an object; nothing where there is none."""

    def inside(self, prefix: str) -> Iterator[Entry]:
        """The objects of a folder, without those of folders in it, in any order."""

    def put(
        self, name: str, parts: Sequence[bytes], only_if_absent: bool = False, etag: str = ""
    ) -> None:
        """Write an object, which is there as a whole or not at all.

        Raises:
            FileExistsError: only_if_absent, and there is one of this name.
            ChangedError: there is none with this ETag ("" for any, or none).
        """

    def put_file(self, name: str, path: str) -> None:
        """Make a local file, of any size, an object, which is there as a whole or not at all."""
