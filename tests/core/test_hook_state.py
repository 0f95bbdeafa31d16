"""What a function reads: assignments are seen, what it does itself is not."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from kloaders.core.hook_state import HookState

SIDE = 32


class Hook:
    """Callable, with state."""

    scale = 1

    def __init__(self, size: Any = 32) -> None:
        self.size, self.calls, self.seen, self.mean = size, 0, [], np.zeros(2)

    def __call__(self, raw: Any) -> Any:
        self.calls += 1
        self.seen.append(raw)
        return self.helped(raw) + self.mean

    def helped(self, raw: Any) -> Any:
        return raw * self.half * self.scale

    @property
    def half(self) -> Any:
        return self.size / 2

    def method(self, raw: Any) -> Any:
        return self(raw)


class Slotted:
    __slots__ = ("size",)

    def __call__(self, raw: Any) -> Any:
        return raw * self.size


def reads_global(raw: Any) -> Any:
    return raw * SIDE


def has_attribute(raw: Any) -> Any:
    return raw * has_attribute.size


def slotted() -> Any:
    made = Slotted()
    made.size = 1
    return made


def closing(size: Any) -> Any:
    def inside(raw: Any) -> Any:
        return raw * size

    def assign(value: Any) -> None:
        nonlocal size
        size = value

    return inside, assign


HOOK = Hook()
WAYS = {
    "object": lambda hook: hook,
    "method": lambda hook: hook.method,
    "partial": functools.partial,
    "argument": lambda hook: functools.partial(Hook.__call__, hook),
    "lambda": lambda hook: lambda raw: hook(raw) + 1,
}


@pytest.mark.parametrize("way", WAYS)
def test_an_attribute_that_is_assigned(way):
    hook = Hook()
    function = WAYS[way](hook)
    before = HookState(function, None)
    assert HookState(function, None) == before
    for name, value in (("size", 64), ("mean", np.ones(2)), ("scale", 2)):
        setattr(hook, name, value)
        after = HookState(function, None)
        assert after != before, name
        before = after
    hook.size = 64  # the same value
    assert HookState(function, None) == before


def test_what_it_does_itself_does_not_count():
    hook = Hook()
    before = HookState(hook)
    hook(1)
    assert hook.calls == 1
    assert HookState(hook) == before


def test_slots_closures_globals_and_attributes_of_functions(monkeypatch):
    hook = slotted()
    before = HookState(hook)
    hook.size = 2
    assert HookState(hook) != before
    inside, assign = closing(1)
    before = HookState(inside)
    assign(2)
    assert HookState(inside) != before
    before = HookState(reads_global)
    monkeypatch.setitem(globals(), "SIDE", 64)
    assert HookState(reads_global) != before
    has_attribute.size = 1
    before = HookState(has_attribute)
    has_attribute.size = 2
    assert HookState(has_attribute) != before


def test_a_counter_of_a_function():
    count = 0

    def function(raw: Any) -> Any:
        nonlocal count
        count += 1
        return raw

    before = HookState(function)
    function(1)
    assert HookState(function) == before


def test_libraries_are_not_searched():
    assert len(HookState(np.sort, np.vectorize(len), functools.partial(np.sort))._found) < 5
