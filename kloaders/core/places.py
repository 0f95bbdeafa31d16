"""Explains in messages how a path is interpreted: URLs, `~`, and relative paths."""

from __future__ import annotations

import os
import re

from kloaders.core.messages import visible

__all__ = ["check_place", "where_of"]

# A single letter is a Windows drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def where_of(path: str) -> str:
    """A sentence that says where a missing path was looked for, and what to pass instead.

    >>> where_of("https://example.org/a.jpg")
    'https:// begins a URL, but this works only on local disks: copy the data to one, and pass their local path.'
    """
    return _unusual(path) or f"Relative paths start at {os.getcwd()}."


def check_place(path: str, name: str, url: bool = False) -> str:
    """Return the path of a file or folder to write, unchanged; with `url`, it may be an object's URL.

    Raises:
        ValueError: the path would create a folder called "https:" or "~" in the current folder.
    """
    address = _ADDRESS.match(path) if url else None
    problem = None if address and address[1].lower() != "file" else _unusual(path)
    if problem is not None:
        raise ValueError(f"{name}='{visible(path)}': {problem}")
    return path


def _unusual(path: str) -> str | None:
    address = _ADDRESS.match(path)
    if address is not None:
        scheme = address[1]
        if scheme.lower() == "file":
            return f"Paths have no {scheme}:// before them: leave it out."
        return (
            f"{scheme}:// begins a URL, but this works only on local disks: copy the data to one, "
            "and pass their local path."
        )
    if path.startswith("~"):
        return (
            f"~ is read as the name of a file or folder in {os.getcwd()}: pass "
            "os.path.expanduser(path) for a place in your home folder."
        )
    return None
