"""Frees the memory of unused loaders that TensorFlow keeps alive until the process ends.

On the TensorFlow backend every `fit`, `evaluate` and `predict` leaves Keras' adapter of the loader in
TensorFlow's registry of Python functions, and the adapter refers to the loader. In a long session the
data of every loader would stay in memory. So after each full garbage collection (with `gc.callbacks`,
a documented hook), and when a new loader is first given to Keras, this module empties the loaders that
only such adapters refer to. A closed loader is not kept by its adapters: it is freed as soon as the
last other reference to it is gone.
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
        loader: a weak reference to it.
        empty: drops everything that the loader holds.
        adapters: the number of adapters made.
        made: weak references to those adapters that could be found.
    """

    loader: weakref.ref[Any]
    empty: Callable[[Any], None]
    adapters: int = 0
    made: list[weakref.ref[Any]] = field(default_factory=list)


_retained: dict[int, _Retained] = {}  # by id(loader), since a loader may define ==


def note_adapter(loader: Any, empty: Callable[[Any], None]) -> None:
    """Record that Keras makes an adapter for this loader, which the backend may keep alive.

    Args:
        loader: the loader.
        empty: called with the loader once only adapters refer to it.
    """
    if not base.keeps_adapters():
        return
    if _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)
    known = _retained.get(id(loader))
    if known is None or known.loader() is not loader:  # an older loader had this address
        # A script with a new loader for each fit may fill the memory before a garbage collection runs.
        _empty_forgotten()
        known = _retained[id(loader)] = _Retained(weakref.ref(loader), empty)
    known.adapters += 1
    adapter = private.adapter_around()
    if adapter is not None:
        known.made.append(weakref.ref(adapter))


def let_go(loader: Any) -> None:
    """Make the adapters of a closed loader refer to it weakly. They work as long as the loader lives."""
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
        # Less two: the list's reference and getrefcount's argument. References from running functions
        # count, so a loader in use is never mistaken for an unused one.
        references = sys.getrefcount(held[-1]) - 2
        if held[-1] is None:
            _retained.pop(key, None)
        if held[-1] is None or references > known.adapters:  # something else refers to it
            held.pop()
        else:
            keys.append(key)
    for k in _forgotten(held) if held else ():
        forgotten = _retained.pop(keys[k], None)
        if forgotten is not None:
            forgotten.empty(held[k])


def _forgotten(held: list[Any]) -> list[int]:
    """Which of these loaders only Keras' adapters refer to, besides the list `held`."""
    # One search through all objects for all loaders together: it takes 50 ms and more.
    asked = tuple(held)
    # Python 3.13 copies the tuple of arguments, and then reports the original as a referrer.
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
    """The ids of those dicts that are the `__dict__` of an adapter."""
    owners = gc.get_referrers(*dicts) if dicts else []
    return {id(getattr(o, "__dict__", None)) for o in owners if private.is_adapter(o)}
