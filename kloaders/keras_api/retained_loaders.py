"""Frees what a forgotten loader holds, where TensorFlow keeps the loader itself for ever.

On the tensorflow backend every `fit`, `evaluate` and `predict` leaves Keras' adapter of the loader
in TensorFlow's registry of Python functions, and the adapter refers to the loader. With the data
in it, each training of a long session would cost its arrays. So after each full garbage collection
(a documented hook, `gc.callbacks`) the loaders that nothing but such adapters refers to, and that
nobody can reach any more, are emptied.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

from kloaders.keras_api.base import keeps_adapters

__all__ = ["note_adapter"]

# What keeps a loader alive; a name, since the class is private. If Keras renames it, a forgotten
# loader stays as it was, and tests/contract/test_contract.py fails.
_ADAPTER = "PyDatasetAdapter"


class _Watched:
    """A loader that Keras has made adapters for."""

    def __init__(self, loader: Any, empty: Callable[[Any], None]) -> None:
        self.loader, self.empty = weakref.ref(loader), empty
        self.adapters = 0


_watched: dict[int, _Watched] = {}


def note_adapter(loader: Any, empty: Callable[[Any], None]) -> None:
    """Keras makes an adapter of a loader. empty: lets go of what a loader holds."""
    if not keeps_adapters():
        return
    if _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)
    found = _watched.get(id(loader))
    if found is None or found.loader() is not loader:
        found = _watched[id(loader)] = _Watched(loader, empty)
    found.adapters += 1


def _after_collection(phase: str, info: dict[str, Any]) -> None:
    if phase != "stop" or info["generation"] != 2:
        return
    for key, watched in list(_watched.items()):
        held = [watched.loader()]
        if held[0] is None:
            _watched.pop(key, None)
        elif _forgotten(held, watched.adapters):
            _watched.pop(key, None)
            watched.empty(held[0])


def _forgotten(held: list[Any], adapters: int) -> bool:
    """Whether Keras' adapters have every reference to the loader, besides the list `held`."""
    # Without the list's own reference and getrefcount's argument. References from running
    # functions are counted too, so a loader in use is never taken for a forgotten one.
    references = sys.getrefcount(held[0]) - 2
    if references > adapters:  # somebody else has one: no need for the search, which takes 50 ms
        return False
    others = [r for r in gc.get_referrers(held[0]) if r is not held]
    return len(others) == references and all(map(_is_adapter, others))


def _is_adapter(referrer: Any) -> bool:
    if type(referrer) is dict:  # the attributes of some object
        owners = [o for o in gc.get_referrers(referrer) if getattr(o, "__dict__", None) is referrer]
        return any(type(o).__name__ == _ADAPTER for o in owners)
    return type(referrer).__name__ == _ADAPTER
