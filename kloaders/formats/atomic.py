"""Files that are whole or not there, whatever ends the process."""

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


# Errors of a full disk.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

# Number of processes and threads that may write one path at a time with leftovers found by name.
_SLOTS = 8
# In a folder that others can write to, their files are neither followed nor waited for.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_LEFT = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _NO_LINK


@contextlib.contextmanager
def whole_file(path: str, on_disk: bool = True) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when it is whole and on the disk.

    on_disk: False does not wait for the disk, for what has checksums and can be made again: behind a
    loss of power such a file may be empty.

    Until then it has another name in the same folder, `.NAME.K.part`; if the block raises, whatever
    it is, that is removed and what was at `path` before is untouched. A link at `path` stays one, and
    what it points to is replaced; a file that is replaced keeps its mode. Several processes may write
    one path at a time: the last to finish stays. What a killed process left is removed first.

    Raises:
        OSError: as the disk has it; one that is full says what to do.
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
            if sys.platform != "win32":  # a closed file would count as a leftover
                os.replace(part, target)
        if sys.platform == "win32":  # an open file cannot be renamed
            os.replace(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(part), begun):  # not one that was begun since by another
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
    """Remove what processes left that were killed while they wrote this path.

    They are told from those that write now by a lock, which ends with its process; where a file system
    has no locks, nothing is removed.
    """
    for part in _slots(os.path.realpath(path)):
        if sys.platform == "win32":  # where a file that is open cannot be removed
            with contextlib.suppress(OSError):
                os.unlink(part)
            continue
        try:
            descriptor = os.open(part, _LEFT)
        except OSError:  # mostly it is not there
            continue
        try:
            with contextlib.suppress(OSError):
                if _lock(descriptor) and _is_at(part, descriptor):
                    os.unlink(part)
        finally:
            os.close(descriptor)


def _mode_of(target: str) -> int | None:
    """The mode of the file that is there; None if there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(kind, "is there already and is no file: choose another name", target)
    return stat.S_IMODE(mode)


def _slots(target: str) -> list[str]:
    folder, name = os.path.split(target)
    return [os.path.join(folder, f".{name}.{k}.part") for k in range(_SLOTS)]


def _begun(target: str, mode: int | None) -> tuple[int, str]:
    """A new file to write to, locked while it is open, with its name until it is complete."""
    folder, name = os.path.split(target)
    mine = f".{name}.{os.getpid()}-{threading.get_ident()}.part"
    for part in [*_slots(target), os.path.join(folder, mine)]:
        try:
            descriptor = os.open(part, _NEW, 0o666 if mode is None else 0o600)
        except FileExistsError:  # somebody writes there
            continue
        # Who looks for leftovers may have had the lock first, and then removes it.
        if _lock(descriptor) is not False and _is_at(part, descriptor):
            return descriptor, part
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, "is written by too many at a time", target)


def _lock(descriptor: int) -> bool | None:
    """Lock a file until it is closed. -> whether nobody else has; None where there are no locks."""
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
