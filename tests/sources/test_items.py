"""Items that are dictionaries: which item is which, and by how many calls they are read."""

import pickle

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import fields_of
from kloaders.sources.items import ItemSource


class Items:
    def __init__(self, broken=()):
        self.broken, self.calls = broken, 0

    def __len__(self):
        return 9

    def __getitem__(self, k):
        if k in self.broken:
            raise OSError(f"item {k} is gone")
        return {"n": k, "box": {"x": k / 2}, "row": np.full(2, k)}


class Many(Items):
    def __getitems__(self, numbers):
        self.calls += 1
        return [self[k] for k in numbers]


def source_of(items, x="n", y=None):
    options = (ImageOptions(), None)
    return ItemSource(items, fields_of(x, y, options, options, None), "items of a test")


def numbers(source, indices):
    found = {}
    for rows, block in source.blocks(np.array(indices)):
        for k, row in enumerate(rows):
            found[row] = block if isinstance(block, Exception) else int(block["n"][k])
    return [found[row] for row in range(len(indices))]


@pytest.mark.parametrize("items", [Items, Many])
def test_items_come_by_number(items):
    source = source_of(items(), {"n": "n", "x": "box:x", "row": "row"})
    (x,) = source.sample(5, Moment())
    assert (x["n"].dtype, x["n"], x["x"], x["row"].tolist()) == (np.int64, 5, 2.5, [5, 5])
    assert numbers(source, [8, 0, 3]) == [8, 0, 3]
    assert source.name(3) == "items of a test 3"
    assert len(pickle.loads(pickle.dumps(source))) == 9


def test_many_are_read_by_one_call_and_the_one_at_fault_is_found():
    items = Many()
    assert numbers(source_of(items), [1, 2, 3]) == [1, 2, 3]
    assert items.calls == 1
    found = numbers(source_of(Many(broken={2})), [1, 2, 3])
    assert (found[0], str(found[1]), found[2]) == (1, "item 2 is gone", 3)


def test_a_name_that_is_not_there():
    with pytest.raises(DecodeError, match="it has no 'm', it has 'box', 'n', 'row'"):
        source_of(Items(), "m").sample(0, Moment())
    with pytest.raises(DecodeError, match="'box' has no 'z', it has 'x'"):
        source_of(Items(), "box:z").sample(0, Moment())
