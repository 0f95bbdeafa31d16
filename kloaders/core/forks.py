"""Keeps objects usable in a forked child: resets locks that a thread of the parent held.

`os.fork` copies a process's memory, but only one of its threads. A lock that another thread held
stays locked forever in the child, and a batch that another thread was making is never finished.
Therefore objects with locks or threads register a function that resets them (`after_fork`).
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

__all__ = ["watch"]


class Forked(Protocol):
    """An object that is reset after a fork."""

    def after_fork(self) -> None:
        """Called in the child process: create new locks, and drop all work of the parent's threads."""


# Keyed by id: a user's subclass of a loader may compare by value and be unhashable.
_watched: dict[int, weakref.ref[Any]] = {}


def watch(owner: Forked) -> None:
    """Call `owner.after_fork()` in the child of each fork, while the owner is alive."""
    key, watched = id(owner), _watched

    def gone(_: weakref.ref[Any]) -> None:
        watched.pop(key, None)

    watched[key] = weakref.ref(owner, gone)


def _in_the_child() -> None:
    for reference in list(_watched.values()):
        owner = reference()
        if owner is not None:
            owner.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_in_the_child)
