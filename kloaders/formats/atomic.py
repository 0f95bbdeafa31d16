"""Writes files atomically: a file is complete or does not exist, however the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from typing import IO

__all__ = [
    "check_writable",
    "raise_if_full",
    "remove_leftovers",
    "sync_folder",
    "whole_file",
]


# Error numbers of a full disk.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

# The number of simultaneous writers of one path whose leftover files can be found by name.
_SLOTS = 8
# In a folder that others can write to, do not follow their links or block on their pipes.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_LEFT = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _NO_LINK


@contextlib.contextmanager
def whole_file(path: str, on_disk: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name once it is complete and on the disk.

    on_disk: False does not wait for the disk; for files that have checksums and can be made again. After
    a loss of power such a file may be empty.

    Until then the file has another name in the same folder, `.NAME.K.part`. If the block raises any
    exception, this file is removed, and a previous file at `path` is unchanged. A link at `path` is kept,
    and its target is replaced. A replaced file keeps its mode. Several processes may write the same path
    at the same time: the last one to finish wins. Files that killed processes left are removed first.

    Raises:
        OSError: any error of the disk; if the disk is full, with advice.
    """
    target = os.path.realpath(path)
    mode = _mode_of(target)
    remove_leftovers(path)
    descriptor, part = _begun(target, mode)
    begun = os.fstat(descriptor)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            if on_disk:
                os.fsync(descriptor)
            if sys.platform != "win32":  # after closing, the file would count as a leftover
                os.replace(part, target)
        if sys.platform == "win32":  # an open file cannot be renamed
            os.replace(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(part), begun):  # not a newer file of another writer
                os.unlink(part)
        if isinstance(error, OSError):
            raise_if_full(error, path)
        raise
    if on_disk:
        sync_folder(os.path.dirname(target))


def check_writable(path: str) -> None:
    """Raise an OSError if `whole_file` could not begin to write here; changes nothing."""
    target = os.path.realpath(path)
    descriptor, part = _begun(target, _mode_of(target))
    os.close(descriptor)
    os.unlink(part)


def remove_leftovers(path: str) -> None:
    """Remove files that processes left when they were killed while writing this path.

    Files of running writers are locked, and a lock ends with its process. On a file system without
    locks, nothing is removed.
    """
    for part in _slots(os.path.realpath(path)):
        if sys.platform == "win32":  # an open file cannot be removed here, so no lock is needed
            with contextlib.suppress(OSError):
                os.unlink(part)
            continue
        try:
            descriptor = os.open(part, _LEFT)
        except OSError:  # usually it does not exist
            continue
        try:
            with contextlib.suppress(OSError):
                if _lock(descriptor) and _is_at(part, descriptor):
                    os.unlink(part)
        finally:
            os.close(descriptor)


def _mode_of(target: str) -> int | None:
    """The mode of the existing file; None if there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(kind, "already exists and is not a file: choose another name", target)
    return stat.S_IMODE(mode)


def _slots(target: str) -> list[str]:
    folder, name = os.path.split(target)
    return [os.path.join(folder, f".{name}.{k}.part") for k in range(_SLOTS)]


def _begun(target: str, mode: int | None) -> tuple[int, str]:
    """Create a temporary file, locked while it is open; return its descriptor and name."""
    folder, name = os.path.split(target)
    mine = f".{name}.{os.getpid()}-{threading.get_ident()}.part"
    for part in [*_slots(target), os.path.join(folder, mine)]:
        try:
            descriptor = os.open(part, _NEW, 0o666 if mode is None else 0o600)
        except FileExistsError:  # used by another writer
            continue
        # A process that removes leftovers may have locked the file first; it then removes it.
        if _lock(descriptor) is not False and _is_at(part, descriptor):
            return descriptor, part
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, "is being written by too many processes at once", target)


def _lock(descriptor: int) -> bool | None:
    """Lock a file until it is closed. Return whether this succeeded; None if locks are unsupported."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def raise_if_full(error: OSError, path: str) -> None:
    """If the error is due to a full disk, raise another one with advice."""
    if error.errno in _FULL:
        said = f"{error.strerror}: free some space, and run the same again to continue"
        raise OSError(error.errno, said, path) from error


def sync_folder(folder: str) -> None:
    """Flush the names in a folder to the disk."""
    if sys.platform == "win32":  # a folder cannot be opened here
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
