"""Calls a user's function with the arguments that its signature accepts. The signature is read once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

__all__ = ["Call"]


class Call:
    """A user's function, and the arguments to call it with, in order.

    Args:
        function: the user's function.
        name: the option's name, for error messages.
        takes: positional arguments, in this order.
        by_name: keyword arguments; each is passed only if the function has a parameter of that name.
        optional: how many arguments at the end of `takes` the function may omit.
        returns: the expected return value, for error messages.

    Raises:
        TypeError: it is not a function, or its signature does not fit.
    """

    __slots__ = ("by_keyword", "function", "order", "plain")

    def __init__(
        self,
        function: Any,
        name: str,
        takes: Sequence[str],
        by_name: Sequence[str] = (),
        *,
        optional: int = 0,
        returns: str = "(x, y)",
    ) -> None:
        form = f"expected a function {name}({', '.join(takes)}) that returns {returns}."
        if not callable(function):
            raise TypeError(f"{name}={function!r:.80} is not a function, {form}")
        self.function = function
        self.order: tuple[str, ...] = tuple(takes)
        self.by_keyword: tuple[str, ...] = ()
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C have no signature
            pass
        else:
            found = _arguments(signature, takes, by_name, optional)
            if found is None:
                # The repr of a method contains its object's repr, which may not be initialized yet.
                said = function.__qualname__ if inspect.ismethod(function) else repr(function)
                raise TypeError(f"{name}={said:.80} takes {signature!s:.80}, {form}")
            self.order, self.by_keyword = found
        #: Whether it accepts exactly `takes`, and nothing else.
        self.plain = self.order == tuple(takes) and not self.by_keyword

    def takes(self, argument: str) -> bool:
        """Whether the function accepts this argument."""
        return argument in self.order or argument in self.by_keyword

    def __call__(self, **values: Any) -> Any:
        """Call the function with those of these values that it accepts; return its result.

        If a value is None, a parameter with a default keeps its default.
        """
        return self.call(self.function, **values)

    def call(self, function: Any, **values: Any) -> Any:
        """Call another function that has the same signature, such as the method of a copy."""
        named = {name: values[name] for name in self.by_keyword if values[name] is not None}
        return function(*[values[name] for name in self.order], **named)

    def form(self) -> Call:
        """The accepted argument names, without the function."""
        found = copy.copy(self)
        found.function = None
        return found


def _arguments(
    signature: inspect.Signature, takes: Sequence[str], by_name: Sequence[str], optional: int
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Positional and keyword arguments; None if the signature requires others."""
    parameters = list(signature.parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name for p in parameters if p.name in by_name}
    left = list(takes)
    needed = [p for p in by_position if p.default is p.empty and p.name not in named]
    weighs = "w" in by_name and "w" not in named and len(needed) == len(takes) + 1
    if weighs and needed[2].name not in takes:
        left.insert(2, "w")  # under whatever name
    order: list[str] = []
    by_keyword: list[str] = []
    skipped = False
    for parameter in parameters:
        has_default = parameter.default is not parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            order += left if not skipped else []
            left = []
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif parameter.name in named:
            keyword = has_default or skipped or parameter.kind is parameter.KEYWORD_ONLY
            (by_keyword if keyword else order).append(parameter.name)
            skipped |= keyword
        elif (
            parameter in by_position
            and left
            and not skipped
            and not (
                has_default and len(left) <= optional  # a captured default, as in a closure
            )
        ):
            order.append(left.pop(0))
        elif has_default:
            skipped = True
        else:
            return None
    return None if len(left) > optional else (tuple(order), tuple(by_keyword))
