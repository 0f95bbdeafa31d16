"""A loader's options as read-only attributes."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from kloaders.core.options import CHANGEABLE, NO_MULTIPROCESSING
from kloaders.loaders.known import KNOWN
from kloaders.sources.hooks import overrides

__all__ = ["check_own_batches", "drop_contents", "options_of", "refuse_setting", "setting_of"]

# Names at least this similar count as misspelt options: "lables", "sufle", "batchsize".
_ALIKE = 0.8


def setting_of(loader: Any, name: str) -> Any:
    """The value of an attribute that is derived from a loader's options, source and runner.

    Raises:
        AttributeError: there is no such attribute, or the loader is not set up.
    """
    state = vars(loader)
    if "runner" not in state:
        if name in _SET_UP:
            raise AttributeError(
                f"{type(loader).__name__} is not set up: its __init__ must call "
                "super().__init__(samples, batch_size) before anything else is done with it."
            )
    elif name in loader.options.flat:
        return loader.options.flat[name]
    elif name == "samples":
        return loader.runner.log.samples
    elif name == "plan":
        return loader.runner.plan
    elif name in ("errors", "quarantine"):
        return getattr(loader.runner.log, name)
    elif name in KNOWN:
        return KNOWN[name](loader)
    raise AttributeError(f"{type(loader).__name__!r:.80} object has no attribute {name!r:.80}")


def refuse_setting(loader: Any, name: str, value: Any) -> None:
    """Raise AttributeError if `name` is an option of the loader, or looks like one.

    Raise ValueError for use_multiprocessing=True, which no other loader supports either.

    Any other name is the user's own, for hooks of a subclass.
    """
    if name == "use_multiprocessing" and value:
        raise ValueError(NO_MULTIPROCESSING)
    options = options_of(type(loader))
    known = name in options or name in loader.options.flat or name in _LIVE
    if name in CHANGEABLE and known:
        raise AttributeError(
            f"{name} of a loader is fixed when it is made, and cannot be assigned: call "
            f"loader.set({name}=...), which changes it from the next epoch on, or make another loader "
            f"with {name}={value!r:.80}."
        )
    if known:
        raise AttributeError(
            f"{name} of a loader is fixed when it is made: make another loader with "
            f"{'y' if name == 'labels' and 'y' in options else name}={value!r:.80}."
        )
    if name.startswith("_") or name in vars(loader) or hasattr(type(loader), name):
        return
    close = difflib.get_close_matches(name, options, 1, _ALIKE)
    if close:
        raise AttributeError(
            f"{type(loader).__name__} has no attribute {name}: did you mean {close[0]}? It is fixed "
            f"when a loader is made; for your own attribute choose a less similar name."
        )


# Attributes that are missing if a subclass's __init__ did not call that of its base class.
_SET_UP = ("runner", "options", "plan", "shard", "samples", "_source", "_position")
_LIVE = ("samples", "plan", "errors", "quarantine", "source", "runner", "options")


_known: dict[type[Any], tuple[str, ...]] = {}


def options_of(kind: type[Any]) -> tuple[str, ...]:
    """The argument names of the class of this package that `kind` is, or is derived from."""
    if kind in _known:
        return _known[kind]
    ours = next(c for c in kind.__mro__ if c.__module__.split(".")[0] == "kloaders")
    names = [name for name in inspect.signature(ours).parameters if name not in ("self", "samples")]
    if "y" in names:
        names.append("labels")  # other loaders of this package call their targets so
    _known[kind] = tuple(names)
    return _known[kind]


def check_own_batches(loader: Any, what: str) -> None:
    """Raise TypeError if the loader's class overrides `__getitem__`, which `what` does not call."""
    if overrides(type(loader), "__getitem__"):
        raise TypeError(
            f"{type(loader).__name__} overrides __getitem__, which {what}() does not call: it would "
            f"return other data than loader[i]. Do that work in transform= or batch_transform=, or "
            "override load_sample or load_batch instead."
        )


def drop_contents(loader: Any) -> None:
    """Drop the content of a loader that nothing but TensorFlow refers to any more."""
    loader.close()
    if not hasattr(type(loader), "__del__"):  # __del__ might need the content
        vars(loader).clear()
