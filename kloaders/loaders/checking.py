"""Checks that a function's argument is a loader."""

from __future__ import annotations

from typing import Any

from kloaders.loaders.sequence import SequenceLoader

__all__ = ["check_loader"]


def check_loader(value: Any, what: str) -> None:
    """Raise TypeError if `value` is not a loader; `what` is the name of the function."""
    if not isinstance(value, SequenceLoader):
        raise TypeError(
            f"{what}({type(value).__name__}): expected a loader made by kloaders, such as "
            "PathSequenceLoader(paths, labels)."
        )
