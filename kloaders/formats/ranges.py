"""Reads byte ranges of several files, by file number, offset and length."""

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
    """Byte ranges of files, by the number of a file in `paths`.

    If a file changes after this object was made, reading it is an error, because the known positions
    may be wrong. Pickles without open files. Thread-safe.

    Args:
        paths: the files, or their URLs.
        opener: how the files are opened.

    Attributes:
        paths: the files.
        stamps: the size in bytes and modification time in nanoseconds of each file at the beginning.
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
        """The size of a file in bytes."""
        return self.stamps[file][0]

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Read `length` bytes of a file.

        Raises:
            DecodeError: the file ends earlier, or has changed.
            OSError: it cannot be read.
        """
        opened = self._files.get(file)
        if opened.stamp() != self.stamps[file]:
            raise DecodeError(
                f"{self.paths[file]} has changed since this loader examined it: make a new loader."
            )
        content: bytes = opened.read(length, offset) if length else b""
        if len(content) < length:
            raise DecodeError(
                f"{self.paths[file]} is truncated: {length} bytes expected at byte {offset}, "
                f"{len(content)} found. Copy or download it again."
            )
        return content

    def reader(self, file: int) -> Callable[[int, int], bytes]:
        """`read` for one file, by offset and length, for callers that read it from start to end."""
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
    """One of these files as a seekable file object, for libraries that need one."""

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
