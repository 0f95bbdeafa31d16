"""What a user's function reads: attributes, globals and variables, compared between two epochs.

Old and new values are compared within one process, which is cheaper than a digest. Plain values are
compared by value, anything else by identity. Values that the function itself assigns, such as a
counter, are ignored, and so are changes inside a list, a dict or an array.
"""

from __future__ import annotations

import dis
import functools
import types
import weakref
from typing import Any

from kloaders.core.code_reads import Reads, codes_in, reads_of, stored_attributes
from kloaders.core.modules import is_ours, library_name

__all__ = ["HookState"]

_PLAIN = (bool, int, float, complex, str, bytes)
_STORES = ("STORE_GLOBAL", "STORE_DEREF")


class HookState:
    """The current values that functions read.

    Args:
        functions: any callables; None is ignored.
    """

    def __init__(self, *functions: Any) -> None:
        self._found: dict[tuple[int, str], Any] = {}
        # The owners of these values. Weak references: a loader may hold this object and be an owner.
        self._owners: dict[int, Any] = {}
        self._methods: set[tuple[int, int]] = set()
        for function in functions:
            self._add(function)

    def __eq__(self, other: object) -> bool:
        """Whether nothing was assigned in between."""
        if not isinstance(other, HookState):
            return NotImplemented
        mine, its, owners = self._found, other._found, other._owners
        return (
            mine.keys() == its.keys()
            and all(_known(one) is _known(owners.get(key)) for key, one in self._owners.items())
            and all(_same(mine[key], its[key]) for key in mine)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by ==, never a key

    def _note(self, owner: Any, values: dict[str, Any]) -> None:
        self._owners[id(owner)] = _reference(owner)
        for name, value in values.items():
            self._found[id(owner), name] = value
        for value in values.values():
            self._add(value)

    def _add(self, function: Any) -> None:
        if id(function) in self._owners or not callable(function):
            return
        if isinstance(function, functools.partial):
            arguments = {f"argument {k}": value for k, value in enumerate(function.args)}
            self._note(function, {"": function.func, **arguments, **function.keywords})
        elif isinstance(function, types.MethodType):
            self._add(function.__self__)  # its methods may call it
            self._add_method(function.__self__, function.__func__)
        elif isinstance(function, types.FunctionType):
            self._add_function(function)
        elif not isinstance(function, type) and library_name(type(function)) is None:
            self._add_method(function, type(function).__call__)

    def _add_method(self, owner: Any, method: Any) -> None:
        """Add a method: what it reads of its object, and what other methods that it calls read."""
        if not isinstance(method, types.FunctionType) or (id(owner), id(method)) in self._methods:
            return
        self._methods.add((id(owner), id(method)))
        self._add_function(method)
        if is_ours(method.__module__):
            return
        reads, own = _looked_at(method.__code__)
        for name in reads.attributes - own:
            places = [getattr(owner, "__dict__", {}), *map(vars, type(owner).__mro__)]
            found = next((place[name] for place in places if name in place), None)
            if isinstance(found, types.MemberDescriptorType):  # an entry of __slots__
                found = getattr(owner, name, None)
            if isinstance(found, types.FunctionType):
                self._add_method(owner, found)
            elif isinstance(found, property):
                self._add_method(owner, found.fget)
            self._note(owner, {name: found})

    def _add_function(self, function: types.FunctionType) -> None:
        if id(function) in self._owners:
            return
        self._owners[id(function)] = _reference(function)
        if is_ours(function.__module__) or library_name(function) is not None:
            return
        code, inside, found = function.__code__, function.__globals__, {}
        reads, own = _looked_at(code)
        for name in (reads.globals | reads.perhaps) - own:
            found[f"global {name}"] = inside.get(name)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name not in own:
                found[f"variable {name}"] = _inside(cell)
        for name in vars(function).keys() - own:
            found[f"attribute {name}"] = vars(function)[name]
        self._note(function, found)


def _reference(owner: Any) -> Any:
    try:
        return weakref.ref(owner)
    except TypeError:
        return owner


def _known(reference: Any) -> Any:
    return reference() if isinstance(reference, weakref.ref) else reference


@functools.lru_cache(maxsize=256)
def _looked_at(code: types.CodeType) -> tuple[Reads, frozenset[str]]:
    """The names that code reads, and the variables that it assigns."""
    steps = (step for one in codes_in(code) for step in dis.get_instructions(one))
    own = frozenset(step.argval for step in steps if step.opname in _STORES)
    return reads_of(code), own | stored_attributes(code)


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # defined later
        return None


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, types.MethodType):  # each access creates a new object
        return a.__self__ is b.__self__ and a.__func__ is b.__func__
    return type(a) in _PLAIN and bool(a == b)
