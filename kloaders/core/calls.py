"""Calls a user's function with the arguments that its signature takes; the signature is read once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

__all__ = ["Call"]


class Call:
    """A user's function, and which arguments it gets in which order.

    Args:
        function: of the user's.
        name: what the user calls it, for messages.
        takes: positional arguments, in this order.
        by_name: keyword arguments, passed if a parameter has this name.
        optional: how many of the last of `takes` it may do without.
        returns: the return value, for messages.

    Raises:
        TypeError: it is no function, or takes something else.
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
            raise TypeError(f"{name}={function!r:.80} is no function, {form}")
        self.function = function
        self.order: tuple[str, ...] = tuple(takes)
        self.by_keyword: tuple[str, ...] = ()
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C have none
            pass
        else:
            found = _arguments(signature, takes, by_name, optional)
            if found is None:
                # A method's repr contains that of its object, which may not be initialized yet.
                said = function.__qualname__ if inspect.ismethod(function) else repr(function)
                raise TypeError(f"{name}={said:.80} takes {signature!s:.80}, {form}")
            self.order, self.by_keyword = found
        #: Whether it gets `takes` and nothing else.
        self.plain = self.order == tuple(takes) and not self.by_keyword

    def takes(self, argument: str) -> bool:
        """Whether it gets this argument."""
        return argument in self.order or argument in self.by_keyword

    def __call__(self, **values: Any) -> Any:
        """Call it with those of these values that it takes; returns its result.

        A parameter that has a default keeps it where the value is None.
        """
        return self.call(self.function, **values)

    def call(self, function: Any, **values: Any) -> Any:
        """The same for another function that takes the same, such as the method of a copy."""
        named = {name: values[name] for name in self.by_keyword if values[name] is not None}
        return function(*[values[name] for name in self.order], **named)

    def form(self) -> Call:
        """The names that it takes, without the function."""
        found = copy.copy(self)
        found.function = None
        return found


def _arguments(
    signature: inspect.Signature, takes: Sequence[str], by_name: Sequence[str], optional: int
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Arguments by position and by keyword; None where the signature takes others."""
    parameters = list(signature.parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name for p in parameters if p.name in by_name}
    left = list(takes)
    needed = [p for p in by_position if p.default is p.empty and p.name not in named]
    weighs = "w" in by_name and "w" not in named and len(needed) == len(takes) + 1
    if weighs and needed[2].name not in takes:
        left.insert(2, "w")  # whatever it calls them
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
                has_default and len(left) <= optional  # a value of its own, as in a closure
            )
        ):
            order.append(left.pop(0))
        elif has_default:
            skipped = True
        else:
            return None
    return None if len(left) > optional else (tuple(order), tuple(by_keyword))
