"""Whether a function that takes a loader got one."""

from __future__ import annotations

from typing import Any

from kloaders.loaders.sequence import SequenceLoader

__all__ = ["check_loader"]


def check_loader(value: Any, what: str) -> None:
    """TypeError if `value` is no loader; `what` is who got it."""
    if not isinstance(value, SequenceLoader):
        raise TypeError(
            f"{what}({type(value).__name__}): expected a loader made by kloaders, such as "
            "PathSequenceLoader(paths, labels)."
        )
