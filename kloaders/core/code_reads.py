"""Names that a function's bytecode reads from outside the function. Nothing is run or imported."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

__all__ = ["Import", "Reads", "codes_in", "reads_of", "stored_attributes"]

_GLOBALS = {"LOAD_GLOBAL"}
# In the body of a class defined inside a function, such a name may also be the class's own.
_PERHAPS_GLOBALS = {"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"}


class Import(NamedTuple):
    """An import statement inside a function: `from ..name import ...` has level 2."""

    name: str
    level: int


class Reads(NamedTuple):
    """The names that code reads. Nested functions and classes are included.

    Attributes:
        globals: names that must be globals or builtins.
        perhaps: names that may be globals or builtins.
        attributes: names read as an attribute of any object, and strings that may name one (`getattr`).
        of_self: attributes read directly from the first argument.
        imports: modules that the code imports when it runs.
    """

    globals: frozenset[str]
    perhaps: frozenset[str]
    attributes: frozenset[str]
    of_self: frozenset[str]
    imports: frozenset[Import]


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """This code object, and those of all functions and classes defined inside it."""
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
            elif step.opname == "IMPORT_NAME":  # its operands: the level and the list of names
                level = before[-2].argval if len(before) > 1 else 0
                imports.add(Import(step.argval, level if isinstance(level, int) else 0))
                attributes.update(step.argval.split(".")[1:])
            before = [*before[-1:], step]
    return Reads(*map(frozenset, found))


def stored_attributes(code: CodeType) -> set[str]:
    """Attributes that the code sets on any object."""
    steps = (step for one in codes_in(code) for step in dis.get_instructions(one))
    return {step.argval for step in steps if step.opname == "STORE_ATTR"}


def _loads(step: dis.Instruction, name: str) -> bool:
    """Whether the instruction pushes this variable onto the stack."""
    if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
        return False
    # Python 3.13 and newer load two variables with one instruction.
    return bool((step.argval[-1] if isinstance(step.argval, tuple) else step.argval) == name)


def _texts(constants: Any) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _texts(constant)
