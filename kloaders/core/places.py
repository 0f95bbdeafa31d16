"""How a path is interpreted, in words, for messages: URLs, `~`, and relative paths."""

from __future__ import annotations

import os
import re

__all__ = ["check_place", "where_of"]

# A letter alone is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def where_of(path: str) -> str:
    """Where a path that is not there was looked for, and what to pass instead; one sentence.

    >>> where_of("https://example.org/a.jpg")
    'https:// begins a URL, and this is read and written on local disks only: copy what is there, and pass a path of this machine.'
    """
    return _unusual(path) or f"Relative paths start at {os.getcwd()}."


def check_place(path: str, name: str, url: bool = False) -> str:
    """The path of something that is written, as it was given; with `url`, that of an object too.

    Raises:
        ValueError: it would make a folder that is called "https:" or "~" below the current one.
    """
    address = _ADDRESS.match(path) if url else None
    problem = None if address and address[1].lower() != "file" else _unusual(path)
    if problem is not None:
        raise ValueError(f"{name}={path!r:.80}: {problem}")
    return path


def _unusual(path: str) -> str | None:
    address = _ADDRESS.match(path)
    if address is not None:
        scheme = address[1]
        if scheme.lower() == "file":
            return f"Paths have no {scheme}:// before them: leave it out."
        return (
            f"{scheme}:// begins a URL, and this is read and written on local disks only: copy what "
            "is there, and pass a path of this machine."
        )
    if path.startswith("~"):
        return (
            f"~ is read as the name of a file or folder in {os.getcwd()}: pass "
            "os.path.expanduser(path) for a place in your home folder."
        )
    return None
