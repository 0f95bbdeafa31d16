"""Every sample once, as it is stored."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.loaders.raw_samples import raw_samples


def test_samples_come_once_in_storage_order_before_the_transform(keep):
    def fail(x, y, rng):
        raise AssertionError

    loader = keep(
        kl.ArraySequenceLoader(np.arange(3000), np.arange(3000), 8, transform=fail, shuffle=True)
    )
    found = list(raw_samples(loader, "test", False))
    numbers = np.concatenate([indices for indices, _ in found])
    assert numbers.tolist() == list(range(3000))
    for indices, leaves in found:
        assert [leaf.tolist() for leaf in leaves] == [indices.tolist()] * 2


def test_samples_that_differ_are_lists_and_those_that_do_not_load_are_missing(keep):
    class Some(kl.SequenceLoader):
        def load_sample(self, index):
            if index == 2:
                raise ValueError("broken")
            return np.full(1 + index % 2, index)

    loader = keep(Some(5, on_error="skip"))
    ((indices, (rows,)),) = raw_samples(loader, "test", False)
    assert indices.tolist() == [0, 1, 3, 4]
    assert [row.tolist() for row in rows] == [[0], [1, 1], [3, 3], [4]]


def test_what_is_no_loader_is_refused():
    with pytest.raises(TypeError, match="filter"):
        list(raw_samples([1, 2], "filter", False))
