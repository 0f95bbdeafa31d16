"""tf.train.SequenceExample in bytes, and records of kinds that are none. No files, no TensorFlow.

    SequenceExample {Features context = 1; FeatureLists feature_lists = 2}
    FeatureLists {map<string, FeatureList> feature_list = 1}    FeatureList {repeated Feature = 1}
    ExampleListWithContext {repeated Example examples = 1; Example context = 2}    (TF-Ranking)

An Example is a SequenceExample without lists, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kloaders.formats.errors import DecodeError

__all__ = ["check_no_list_with_context", "list_entries"]

_BLOCK = 2
#: `fields(record, start, stop)`: number, wire type, and where the value lies.
Fields = Callable[[bytes, int, int], Iterator[tuple[int, int, int, int]]]


def list_entries(
    record: bytes, start: int, stop: int, fields: Fields
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The lists in a FeatureLists: the name of each, and where the Feature of each step lies."""
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
    """Raise a DecodeError if what should be a feature's name, without a value, is a feature itself.

    So it looks where an ExampleListWithContext is read as an Example.
    """
    try:
        parts = [(number, wire) for number, wire, _, _ in fields(name, 0, len(name))]
    except DecodeError:
        return
    if sorted(parts) == [(1, _BLOCK), (2, _BLOCK)]:
        raise DecodeError(
            "it is an ExampleListWithContext (TF-Ranking), a list of Examples for one query, and no "
            "Example: pass decode= and features=None, a function of the whole record, or write one "
            "Example for each item."
        )
