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
from dataclasses import dataclass
from typing import Any

from kloaders.keras_api import base, private

__all__ = ["note_adapter"]


@dataclass
class _Retained:
    """A loader that Keras has made adapters for.

    Attributes:
        loader: a reference that does not keep it.
        empty: lets go of all that the loader holds.
        adapters: how many were made.
    """

    loader: weakref.ref[Any]
    empty: Callable[[Any], None]
    adapters: int = 0


_retained: dict[int, _Retained] = {}  # by the address of the loader, which may define ==


def note_adapter(loader: Any, empty: Callable[[Any], None]) -> None:
    """Keras makes an adapter for this loader, and the backend may keep it.

    Args:
        loader: the loader.
        empty: called with it once nobody can reach it any more.
    """
    if not base.keeps_adapters():
        return
    if _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)
    known = _retained.get(id(loader))
    if known is None or known.loader() is not loader:  # another one was there before
        known = _retained[id(loader)] = _Retained(weakref.ref(loader), empty)
    known.adapters += 1


def _after_collection(phase: str, info: dict[str, Any]) -> None:
    if phase != "stop" or info["generation"] != 2:
        return
    for key, known in list(_retained.items()):
        held = [known.loader()]
        if held[0] is None or _forgotten(held, known.adapters):
            _retained.pop(key, None)
            if held[0] is not None:
                known.empty(held[0])


def _forgotten(held: list[Any], adapters: int) -> bool:
    """Whether Keras' adapters have every reference to the loader, besides the list `held`."""
    # Without the list's own reference and getrefcount's argument. References from running
    # functions are counted too, so a loader in use is never taken for a forgotten one.
    references = sys.getrefcount(held[0]) - 2
    if references > adapters:  # somebody else has one: no need for the search, which takes 50 ms
        return False
    others = [r for r in gc.get_referrers(held[0]) if r is not held]
    return len(others) == references and all(map(_belongs_to_adapter, others))


def _belongs_to_adapter(referrer: Any) -> bool:
    if type(referrer) is dict:  # the attributes of some object
        owners = [o for o in gc.get_referrers(referrer) if getattr(o, "__dict__", None) is referrer]
        return any(map(private.is_adapter, owners))
    return private.is_adapter(referrer)
