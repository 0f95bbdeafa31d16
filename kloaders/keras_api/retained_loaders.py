"""Frees the memory of an unused loader if TensorFlow keeps the loader object itself for ever.

On the tensorflow backend every `fit`, `evaluate` and `predict` leaves Keras' adapter of the loader
in TensorFlow's registry of Python functions, and the adapter refers to the loader. With the data
in it, each training of a long session would cost its arrays. So after each full garbage collection
(a documented hook, `gc.callbacks`), and when Keras meets a new loader, those that nothing but such
adapters refers to, and that nobody can reach any more, are emptied. A loader that was closed is not
kept by its adapters: it goes with its last other reference, at once.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kloaders.keras_api import base, private

__all__ = ["let_go", "note_adapter"]


@dataclass
class _Retained:
    """A loader that Keras has made adapters for.

    Attributes:
        loader: a reference that does not keep it.
        empty: lets go of all that the loader holds.
        adapters: how many were made.
        made: those of them that are known.
    """

    loader: weakref.ref[Any]
    empty: Callable[[Any], None]
    adapters: int = 0
    made: list[weakref.ref[Any]] = field(default_factory=list)


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
        _empty_forgotten()  # a script with a loader for each fit may fill the memory before a collection
        known = _retained[id(loader)] = _Retained(weakref.ref(loader), empty)
    known.adapters += 1
    adapter = private.adapter_around()
    if adapter is not None:
        known.made.append(weakref.ref(adapter))


def let_go(loader: Any) -> None:
    """The loader is closed: its adapters shall not keep it. They can be used as long as it lives."""
    known = _retained.get(id(loader))
    if known is None or known.loader() is not loader:
        return
    for adapter in [made() for made in known.made]:
        for name, value in list(vars(adapter).items()) if adapter is not None else ():
            if value is loader:
                setattr(adapter, name, weakref.proxy(loader))
                known.adapters -= 1
    known.made.clear()


def _after_collection(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        _empty_forgotten()


def _empty_forgotten() -> None:
    """Empty the loaders that only Keras' adapters refer to."""
    keys, held = [], []
    for key, known in list(_retained.items()):
        held.append(known.loader())
        # But for the list's own reference and getrefcount's argument. References from running functions
        # are counted too, so a loader in use is never taken for a forgotten one.
        references = sys.getrefcount(held[-1]) - 2
        if held[-1] is None:
            _retained.pop(key, None)
        if held[-1] is None or references > known.adapters:  # somebody else has one
            held.pop()
        else:
            keys.append(key)
    for k in _forgotten(held) if held else ():
        forgotten = _retained.pop(keys[k], None)
        if forgotten is not None:
            forgotten.empty(held[k])


def _forgotten(held: list[Any]) -> list[int]:
    """Which of these loaders only Keras' adapters refer to, besides the list `held`."""
    # One search of all objects for all loaders: it takes 50 ms and more.
    asked = tuple(held)
    # Python 3.13 copies the tuple of arguments, and then reports the one that it was given.
    referrers = [r for r in gc.get_referrers(*asked) if r is not held and r is not asked]
    del asked
    numbers = {id(loader): k for k, loader in enumerate(held)}
    counts = [0] * len(held)
    strangers: set[int] = set()
    adapted = _dicts_of_adapters([r for r in referrers if type(r) is dict])
    for referrer in referrers:
        found = [numbers[id(o)] for o in gc.get_referents(referrer) if id(o) in numbers]
        if not (private.is_adapter(referrer) or id(referrer) in adapted):
            strangers.update(found)
        for k in found:
            counts[k] += 1
    return [
        k
        for k, count in enumerate(counts)
        if k not in strangers and count == sys.getrefcount(held[k]) - 2
    ]


def _dicts_of_adapters(dicts: list[dict[Any, Any]]) -> set[int]:
    """The addresses of those that are the attributes of an adapter."""
    owners = gc.get_referrers(*dicts) if dicts else []
    return {id(getattr(o, "__dict__", None)) for o in owners if private.is_adapter(o)}
