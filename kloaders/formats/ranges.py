"""Ranges of bytes of several files: file number, offset and length. Not what the bytes mean."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from kloaders.core import forks
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFiles
from kloaders.formats.opening import LOCAL, Opener
from kloaders.places.ranges import walking

__all__ = ["RangeFile", "RangeFiles"]


class RangeFiles:
    """Ranges of bytes of files, by the number of a file in `paths`.

    A file that changes after this object was made is an error: where things lie in it was looked up
    before. Pickles without open files. Safe for threads.

    Args:
        paths: the files, or their URLs.
        opener: how they are opened.

    Attributes:
        paths: the files.
        stamps: size in bytes and time of modification in nanoseconds of each, when this was made.
    """

    def __init__(self, paths: Sequence[str], opener: Opener = LOCAL) -> None:
        self.paths, self.opener = list(paths), opener
        self.stamps = [opener.stamp(path) for path in self.paths]
        self._set_up()

    def _set_up(self) -> None:
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._files = OpenFiles(self.paths, self.opener.open)

    def size(self, file: int) -> int:
        """Bytes of a file."""
        return self.stamps[file][0]

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a file.

        Raises:
            DecodeError: the file ends before, or has changed.
            OSError: it cannot be read.
        """
        opened = self._files.get(file)
        if opened.stamp() != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} was changed after this loader had looked at it: make the "
                "loader again."
            )
        content: bytes = opened.read(length, offset) if length else b""
        if len(content) < length:
            raise DecodeError(
                f"{self.paths[file]} is truncated: {length} bytes expected at byte {offset}, "
                f"{len(content)} found. Copy or download it again."
            )
        return content

    def reader(self, file: int) -> Callable[[int, int], bytes]:
        """`read` of one file, by offset and length, for who goes through it from its beginning on."""
        opened = walking(self.opener.open(self.paths[file]))
        if self.opener.fetches:
            return lambda offset, length: opened.read(length, offset)
        return functools.partial(self.read, file)

    def close(self) -> None:
        """Close the files; they are opened again when a range is read."""
        self._files.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "stamps": self.stamps, "opener": self.opener}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()


class RangeFile(io.RawIOBase):
    """One of these files as a file object to read and seek, for libraries that take such."""

    def __init__(self, files: RangeFiles, file: int) -> None:
        super().__init__()
        self._files, self._file, self._at = files, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._files.size(self._file)}
        self._at = max(0, base[whence] + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._files.size(self._file) - self._at)
        length = left if size is None or size < 0 else min(size, left)
        content = self._files.read(self._file, self._at, length)
        self._at += length
        return content

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)
