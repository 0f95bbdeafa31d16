"""Reads samples again after errors that may be temporary: of a disk, of memory, of file descriptors.

A network folder may be unavailable for a moment, which is not the samples' fault. They are read again
with increasing waits. Adjacent samples are read too, to distinguish a missing file from a missing disk.
Nothing here runs unless a sample fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kloaders.core.errors import Recovery, recovery_of, with_recovery
from kloaders.core.messages import shortened, warn

__all__ = ["Names", "read_again", "read_patiently"]

Loaded = TypeVar("Loaded")

# The number of seconds to wait before each new try.
_WAITS = (0.0, 0.02, 0.1, 0.5, 2.0)
# A process waits at most this many seconds, and after that at most this share of its time, so that a
# lost disk or ten thousand bad sectors do not take all night.
_PATIENCE, _SHARE = 60.0, 0.1
# Distances to the adjacent samples that are read to see whether the disk is available.
_NEAR = (1, -1, 2, -2)


class Names(NamedTuple):
    """Samples by number."""

    samples: int
    name: Callable[[int], str]


class _Patience:
    """Seconds that may still be spent waiting."""

    def __init__(self) -> None:
        self._left, self._since = _PATIENCE, time.monotonic()
        self._lock = threading.Lock()

    def take(self, seconds: float) -> float:
        """Return `seconds`, or the number of seconds that are left."""
        with self._lock:
            now = time.monotonic()
            self._left = min(_PATIENCE, self._left + _SHARE * (now - self._since))
            self._since = now
            granted = min(seconds, self._left)
            self._left -= granted
            return granted


_patience = _Patience()
_sleep = time.sleep


def read_again(
    failed: dict[Any, Exception],
    read: Callable[[Any], Exception | None],
    read_other: Callable[[int], Exception | None],
    number: Callable[[Any], int],
    names: Names,
) -> None:
    """Read samples with temporary errors again; those that load are removed from `failed`.

    The others keep the error of the last try, with `Recovery.LOST` if a sample is not at fault
    because adjacent samples fail as well.

    Args:
        failed: errors by row, or by any other argument of `read`.
        read: reads a sample again; returns its error, or None if it loads.
        read_other: reads the sample with this number; returns only its error.
        number: returns the sample number for a key of `failed`.
        names: the number and names of the samples.
    """

    def others_load(key: Any) -> bool:
        near = [k for k in (number(key) + step for step in _NEAR) if 0 <= k < names.samples]
        near.sort(key={number(k) for k in failed}.__contains__)  # first those not known to fail
        return not near or any(not _again(read_other(k)) for k in near)

    sound: set[Any] = set()  # samples that fail although adjacent samples load
    for wait in _WAITS:
        waiting = [key for key, error in failed.items() if _again(error) and key not in sound]
        if not waiting:
            return
        if wait:
            _sleep(_patience.take(wait))
        for key in waiting:
            if (
                _loads(key, failed, read, number, names)
                or recovery_of(failed[key]) is not Recovery.ASK
            ):
                continue
            # An adjacent sample loads, so the disk is available, and this sample is at fault.
            if others_load(key) and not _loads(key, failed, read, number, names):
                sound.add(key)
    for key in [key for key, error in failed.items() if _again(error) and key not in sound]:
        if recovery_of(failed[key]) is Recovery.SHORTAGE or not others_load(key):
            with_recovery(failed[key], Recovery.LOST)


def read_patiently(load: Callable[[int], Loaded], index: int, names: Names) -> Loaded:
    """`load(index)`, repeated while it raises a temporary error.

    Raises:
        Exception: the error of the last try, as for `read_again`.
    """
    try:
        return load(index)
    except Exception as error:  # a user's function may raise anything
        if not _again(error):
            raise
        failed = {index: error}
    found: dict[int, Loaded] = {}

    def read(k: int) -> Exception | None:
        try:
            found[k] = load(k)
        except Exception as error:  # as above
            return error
        return None

    read_again(failed, read, read, int, names)
    if failed:
        raise failed[index]
    return found[index]


def _loads(
    key: Any,
    failed: dict[Any, Exception],
    read: Callable[[Any], Exception | None],
    number: Callable[[Any], int],
    names: Names,
) -> bool:
    error = read(key)
    if error is not None:
        failed[key] = error
        return False
    before = failed.pop(key)
    warn(
        f"{names.name(number(key))} could not be read at first, but could be read on a later try "
        f"({type(before).__name__}: {shortened(str(before), 200)}). If this happens often, check "
        "the disk or the network.",
        once="read again",
    )
    return True


def _again(error: Exception | None) -> bool:
    """Whether another try may succeed."""
    settled = (None, Recovery.LOST, Recovery.REFUSED)
    return error is not None and recovery_of(error) not in settled
