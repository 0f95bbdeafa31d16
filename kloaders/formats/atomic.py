"""Files that are whole or not there, whatever ends the process."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import IO

__all__ = [
    "raise_if_full",
    "sync_folder",
    "whole_file",
]


# What a disk says that takes no more.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when it is whole and on the disk.

    Until then it has another name in the same folder, `.NAME.PROCESS-THREAD.part`; if the block
    raises, whatever it is, that is removed and what was at `path` before is untouched. Several
    processes may write one path at a time: the last to finish stays.

    Raises:
        OSError: as the disk has it; one that is full says what to do.
    """
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise_if_full(error, path)
        raise
    sync_folder(folder)


def raise_if_full(error: OSError, path: str) -> None:
    """Raise another error, with advice, if it is for lack of space."""
    if error.errno in _FULL:
        said = f"{error.strerror}: free some, and run the same again to go on"
        raise OSError(error.errno, said, path) from error


def sync_folder(folder: str) -> None:
    """Let the names in a folder reach the disk."""
    if sys.platform == "win32":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
