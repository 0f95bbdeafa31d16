"""Expands patterns with braces, as used by WebDataset and shells: shards-{000..003}.tar."""

from __future__ import annotations

import itertools
import os
import re
from typing import Any

__all__ = ["without_braces"]

_PART = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")


def without_braces(files: Any) -> Any:
    """A list of paths in which each pattern in braces is replaced by all its alternatives.

    A file that exists with exactly that name is used unchanged.

    >>> without_braces("train-{08..10}.tar")
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    if isinstance(files, (str, os.PathLike)):
        return _expanded(os.fspath(files))
    return [
        one for item in files for one in (_expanded(os.fspath(item)) if _is_path(item) else [item])
    ]


def _is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def _expanded(path: str) -> list[str]:
    if os.path.exists(path):
        return [path]
    parts = _PART.split(path)  # text, the content of the braces, text, ...
    choices = [_choices(part) if k % 2 else [part] for k, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(part: str) -> list[str]:
    if "," in part:
        return part.split(",")
    first, last = part.split("..")
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    a, b = int(first), int(last)
    return [f"{n:0{width}}" for n in (range(a, b + 1) if a <= b else range(a, b - 1, -1))]
