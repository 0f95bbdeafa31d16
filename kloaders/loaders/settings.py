"""What may not be set on a loader that is made: its options, and names that are nearly one."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any

__all__ = ["refuse_setting"]

# As alike as this, a name is taken for a misspelt option: "lables", "sufle", "batchsize".
_ALIKE = 0.8


def refuse_setting(loader: Any, name: str, value: Any) -> None:
    """AttributeError if `name` is an option of the loader, or looks like one.

    Other names are the user's own, for hooks of a subclass.
    """
    options = _options_of(type(loader))
    known = name in options or name in loader.options.flat or name in _LIVE
    if known:
        raise AttributeError(
            f"{name} of a loader is fixed when it is made: make another one, with "
            f"{name}={value!r:.80}."
        )
    if name.startswith("_") or name in vars(loader) or hasattr(type(loader), name):
        return
    close = difflib.get_close_matches(name, options, 1, _ALIKE)
    if close:
        raise AttributeError(
            f"{type(loader).__name__} has no attribute {name}: did you mean {close[0]}? That is fixed "
            f"when a loader is made; an attribute of your own needs a name that is less alike."
        )


_LIVE = ("samples", "plan", "errors", "quarantine", "source", "runner", "options")


@functools.lru_cache(maxsize=256)
def _options_of(kind: type[Any]) -> tuple[str, ...]:
    """Names of all arguments of our class that this one is, or is derived from."""
    ours = next(c for c in kind.__mro__ if c.__module__.split(".")[0] == "kloaders")
    names = inspect.signature(ours).parameters
    return tuple(name for name in names if name not in ("self", "samples"))
