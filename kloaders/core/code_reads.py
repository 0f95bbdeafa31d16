"""The names that a function's code reads from outside. Bytecode only: nothing is run or imported."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

__all__ = ["Import", "Reads", "codes_in", "reads_of", "stored_attributes"]

_GLOBALS = {"LOAD_GLOBAL"}
# In the body of a class that is defined inside a function a name may also be one of its own.
_PERHAPS_GLOBALS = {"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"}


class Import(NamedTuple):
    """An import statement inside a function: `from ..name import ...` has level 2."""

    name: str
    level: int


class Reads(NamedTuple):
    """The names that code reads, including the functions and classes inside it.

    Attributes:
        globals: names that must be globals or builtins.
        perhaps: names that may be such.
        attributes: names that are read of some object; texts that may be such names (`getattr`) too.
        of_self: attributes that are read of the first argument itself.
        imports: modules that are imported when it runs.
    """

    globals: frozenset[str]
    perhaps: frozenset[str]
    attributes: frozenset[str]
    of_self: frozenset[str]
    imports: frozenset[Import]


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """This code, and that of all functions and classes which are defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def reads_of(code: CodeType) -> Reads:
    """The names that a function with this code reads."""
    found: tuple[set[Any], ...] = (set(), set(), set(), set(), set())
    names, perhaps, attributes, of_self, imports = found
    first = code.co_varnames[0] if code.co_argcount else None
    for one in codes_in(code):
        attributes.update(_texts(one.co_consts))
        before: list[dis.Instruction] = []
        for step in dis.get_instructions(one):
            if step.opname in _GLOBALS:
                names.add(step.argval)
            elif step.opname in _PERHAPS_GLOBALS:
                perhaps.add(step.argval)
            elif step.opname in _ATTRIBUTES:
                attributes.add(step.argval)
                if first is not None and before and _loads(before[-1], first):
                    of_self.add(step.argval)
            elif step.opname == "IMPORT_NAME":  # after the level and the list of names
                level = before[-2].argval if len(before) > 1 else 0
                imports.add(Import(step.argval, level if isinstance(level, int) else 0))
                attributes.update(step.argval.split(".")[1:])
            before = [*before[-1:], step]
    return Reads(*map(frozenset, found))


def stored_attributes(code: CodeType) -> set[str]:
    """Attributes that it sets, of whatever object."""
    steps = (step for one in codes_in(code) for step in dis.get_instructions(one))
    return {step.argval for step in steps if step.opname == "STORE_ATTR"}


def _loads(step: dis.Instruction, name: str) -> bool:
    """Whether it puts this variable on top of the stack."""
    if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
        return False
    # Python 3.13 and newer load two variables by one instruction.
    return bool((step.argval[-1] if isinstance(step.argval, tuple) else step.argval) == name)


def _texts(constants: Any) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _texts(constant)
