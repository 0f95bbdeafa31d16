"""Objects that must be opened once per thread: connections, readers of one file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["PerThread"]

Opened = TypeVar("Opened")


class PerThread(Generic[Opened]):
    """A connection or file that each thread and each worker process opens for itself.

    Several threads call the hooks of a loader at once, and with `processes=True` the loader is sent to
    other processes, where open connections and files do not work. Keep a PerThread in the loader, and
    call it wherever the connection is needed.

    Args:
        opening: opens the connection; called once in each thread, when the thread first needs it.
        args, options: the arguments of `opening`.

    An opened object is released, as by `del`, when its thread ends or the PerThread is garbage-collected.

    >>> import sqlite3
    >>> database = PerThread(sqlite3.connect, ":memory:")
    >>> database() is database()
    True
    """

    def __init__(self, opening: Callable[..., Opened], *args: Any, **options: Any) -> None:
        self._call = (opening, args, options)
        self._local = threading.local()

    def __call__(self) -> Opened:
        """The calling thread's own object."""
        try:
            return self._local.value  # type: ignore[no-any-return]  # a local holds Any
        except AttributeError:
            opening, args, options = self._call
            self._local.value = opening(*args, **options)
            return self._local.value  # type: ignore[no-any-return]  # a local holds Any

    def again(self) -> PerThread[Opened]:
        """A copy in which nothing is open yet."""
        opening, args, options = self._call
        return PerThread(opening, *args, **options)

    def __reduce__(self) -> Any:
        opening, args, options = self._call
        return _again, (opening, args, options)


def _again(opening: Any, args: Any, options: Any) -> PerThread[Any]:
    return PerThread(opening, *args, **options)
