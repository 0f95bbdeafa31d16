"""Samples made of items that are dictionaries, such as the items of a TFDS data source."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.structure import Structure
from kloaders.formats.errors import DecodeError
from kloaders.sources.encoded import Block, EncodedSource, part_of
from kloaders.sources.tables import listed

__all__ = ["ItemSource"]


class ItemSource(EncodedSource):
    """Items of any object with a length and access by number. Each item is a dictionary.

    Args:
        items: has `__len__` and `__getitem__`, which several threads may call at once. If it also has
            `__getitems__`, which takes a list of numbers, many items are read with one call.
        fields: the values of an item that each array is made of; "name:key" is a part of a value.
        title: what to call the items in messages.
    """

    def __init__(self, items: Any, fields: tuple[Structure, ...], title: str) -> None:
        super().__init__(fields)
        self.items, self.title = items, title

    def __len__(self) -> int:
        return len(self.items)

    def blocks(self, indices: Indices) -> Iterator[tuple[list[int], Block | Exception]]:
        numbers = indices.tolist()
        if len(numbers) > 1 and hasattr(self.items, "__getitems__"):
            block: Block | None = None
            with contextlib.suppress(
                Exception
            ):  # then read one at a time, to find the item at fault
                found = self.items.__getitems__(numbers)
                block = {name: [_value(item, name) for item in found] for name in self.wanted}
            if block is not None:
                yield list(range(len(numbers))), block
                return
        for row, number in enumerate(numbers):
            try:
                item = self.items[number]
                yield [row], {name: [_value(item, name)] for name in self.wanted}
            except Exception as error:
                yield [row], error

    def name(self, index: int) -> str:
        return f"{self.title} {index}"

    @property
    def token(self) -> str:
        return self.title


def _value(item: Any, name: str) -> Any:
    """The value of this name, or a part of it."""
    if name in item:
        value = item[name]
    else:
        top, _, path = name.partition(":")
        if top not in item:
            raise DecodeError(f"it has no {name!r:.80}, it has {listed(sorted(map(repr, item)))}.")
        value = part_of(item[top], path, top)
    # A Python int becomes int64, like a label.
    return np.int64(value) if type(value) is int else value
