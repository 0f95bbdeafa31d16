"""File names and whole files: suffixes, opening and reading. The content is not interpreted."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.formats.errors import empty_file
from kloaders.formats.positioned_reads import read_at
from kloaders.places.fetching import fetcher
from kloaders.places.urls import is_url

__all__ = [
    "ARRAY_SUFFIXES",
    "IMAGE_SUFFIXES",
    "OPEN_FLAGS",
    "OpenFile",
    "OpenFiles",
    "check_plain",
    "check_suffix",
    "evict",
    "fits",
    "open_to_read",
    "read_ahead",
    "read_bytes",
    "size_of_file",
    "suffix_of",
]

# The number of files that one reader keeps open, so that a range takes one system call, not three.
_OPEN_FILES = 128

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
)
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})


def suffix_of(path: str) -> str:
    """The suffix in lower case with its dot: "a/B.JPG" -> ".jpg", "a.b/c" -> "", ".npy" -> ""."""
    start = max(path.rfind("/"), path.rfind(os.sep)) + 1
    dot = path.rfind(".", start)
    return path[dot:].lower() if dot > start else ""


def check_suffix(path: str) -> None:
    """Raise ValueError unless `read_sample` supports files with this name."""
    suffix = suffix_of(path)
    if suffix not in IMAGE_SUFFIXES and suffix not in ARRAY_SUFFIXES:
        known = " ".join(sorted(IMAGE_SUFFIXES | ARRAY_SUFFIXES))
        called = f"ends in {suffix!r:.80}" if suffix else "has no suffix"
        raise ValueError(
            f"{visible(path)} {called}, but the known suffixes are {known}. For your own format pass "
            "decode= (a function from bytes to array), or override load_sample(path)."
        )


# O_BINARY exists on Windows, where b"\r\n" would otherwise be read as b"\n". Opening a pipe would
# block until another process writes to it; for files O_NONBLOCK has no effect.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def open_to_read(path: str, flags: int = OPEN_FLAGS) -> int:
    """Open a file or folder for reading; return its descriptor. Also an `opener` for Python's open().

    Raises:
        OSError: any error of the system; or it is a pipe, a socket or a device, which may never end.
    """
    descriptor = os.open(path, flags | OPEN_FLAGS)
    try:
        check_plain(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_plain(mode: int, path: str) -> None:
    """Raise OSError if this is the mode of a pipe, a socket or a character device."""
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
        kind = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        said = f"is a {kind}, expected a file: write its output to a file, or leave it out"
        raise OSError(errno.EINVAL, said, path)


def read_ahead(path: str) -> None:
    """Ask the kernel to begin reading a file in the background, if it can."""
    _advise(path, "POSIX_FADV_WILLNEED")


def evict(path: str) -> None:
    """Ask the kernel to drop a file from its page cache, if it can."""
    _advise(path, "POSIX_FADV_DONTNEED")


def _advise(path: str, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
        with contextlib.suppress(OSError):  # reported when the file is read
            descriptor = os.open(path, OPEN_FLAGS)
            try:
                os.posix_fadvise(descriptor, 0, 0, getattr(os, advice))
            finally:
                os.close(descriptor)


def read_bytes(path: str, empty: bool = False) -> bytes:
    """Read a whole file, or the object at a URL. Raises OSError with the path, or DecodeError if empty.

    empty: whether the file may be empty, as texts may. Takes four system calls, and always closes the file.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except FileNotFoundError:
        if is_url(path):  # tested only after a failure, so that it costs nothing for local files
            return fetcher.take(path)
        raise
    try:
        size = size_of_file(descriptor, path)
        content = os.read(descriptor, size)
        # A read may return less: after a signal, on a network drive, or for more than 2 GiB.
        while 0 < len(content) < size:
            more = os.read(descriptor, size - len(content))
            if not more:
                break
            content += more
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)
    if not content and not empty:
        raise empty_file(path)
    return content


def size_of_file(descriptor: int, path: str) -> int:
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    check_plain(status.st_mode, path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, "is a folder, expected a file; pass the files in it", path
        )
    return status.st_size


def fits(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether a result of this shape and dtype can be written directly to `out`."""
    return (
        out is not None
        and out.shape == shape
        and out.dtype == dtype
        and out.flags.c_contiguous
        and out.flags.writeable
    )


class OpenFile:
    """A file descriptor that is closed when nothing refers to it any more."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, path: str) -> None:
        self.number = open_to_read(path)
        # Not __del__, which may run after the interpreter has cleared this module.
        weakref.finalize(self, os.close, self.number).atexit = False

    def stamp(self) -> tuple[int, int]:
        """The current size in bytes and modification time in nanoseconds."""
        status = os.fstat(self.number)
        return status.st_size, status.st_mtime_ns

    def read(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        if hasattr(os, "pread"):
            content = os.pread(self.number, size, offset)
            while 0 < len(content) < size:  # a signal, a network drive, or more than 2 GiB
                more = os.pread(self.number, size - len(content), offset + len(content))
                if not more:
                    break
                content += more
            return content
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: read_at(self.number, [buffer], offset, size)])


class OpenFiles:
    """A list of files that are opened on first use. The 128 files opened last stay open.

    opened: opens a file; see `Opener`.

    Thread-safe. After a fork, the child must create another one.
    """

    def __init__(self, paths: Sequence[str], opened: Callable[[str], Any] = OpenFile) -> None:
        self._paths, self._opened = paths, opened
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: int) -> Any:
        """The open file with this number in the list. It stays open while any caller refers to it."""
        with self._lock:
            found = self._open.get(file)
            if found is None:
                found = self._open[file] = self._opened(self._paths[file])
                while len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)
            return found

    def close(self) -> None:
        """Close the files; they are opened again on use."""
        with self._lock:
            self._open.clear()
