"""Parses tf.train.SequenceExample messages, and detects records of other kinds.

    SequenceExample {Features context = 1; FeatureLists feature_lists = 2}
    FeatureLists {map<string, FeatureList> feature_list = 1} FeatureList {repeated Feature = 1}
    ExampleListWithContext {repeated Example examples = 1; Example context = 2} (TF-Ranking)

An Example is, byte for byte, a SequenceExample without lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kloaders.formats.errors import DecodeError

__all__ = ["check_no_list_with_context", "list_entries"]

_BLOCK = 2
#: `fields(record, start, stop)` yields number, wire type, and the position of the value.
Fields = Callable[[bytes, int, int], Iterator[tuple[int, int, int, int]]]


def list_entries(
    record: bytes, start: int, stop: int, fields: Fields
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The lists in a FeatureLists: the name of each, and the position of each step's Feature."""
    for number, wire, at, end in fields(record, start, stop):
        if number != 1 or wire != _BLOCK:
            continue
        name, steps, valued = b"", list[tuple[int, int]](), False
        for part, part_wire, first, last in fields(record, at, end):
            if part_wire != _BLOCK:
                continue
            if part == 1:
                name = record[first:last]
            elif part == 2:
                valued = True
                steps = [
                    (a, z)
                    for which, its_wire, a, z in fields(record, first, last)
                    if which == 1 and its_wire == _BLOCK
                ]
        if not valued:
            check_no_list_with_context(name, fields)
        yield name.decode("utf-8", "replace"), steps


def check_no_list_with_context(name: bytes, fields: Fields) -> None:
    """Raise a DecodeError if a feature's name has no value and is itself a feature.

    This happens when an ExampleListWithContext is parsed as an Example.
    """
    try:
        parts = [(number, wire) for number, wire, _, _ in fields(name, 0, len(name))]
    except DecodeError:
        return
    if sorted(parts) == [(1, _BLOCK), (2, _BLOCK)]:
        raise DecodeError(
            "it is an ExampleListWithContext (TF-Ranking), a list of Examples for one query, and not an "
            "Example: pass decode=, a function of the whole record, and features=None, or write one "
            "Example for each item."
        )
