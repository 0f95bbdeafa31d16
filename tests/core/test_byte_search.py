"""Where bytes of some values are."""

import numpy as np
import pytest

from kloaders.core import byte_search
from kloaders.core.byte_search import found_at


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
def test_every_place_is_found_once(block, monkeypatch):
    monkeypatch.setattr(byte_search, "_BLOCK", block)
    content = np.random.default_rng(1).integers(0, 5, 100).astype(np.uint8)
    assert found_at(content, 3).tolist() == np.flatnonzero(content == 3).tolist()
    both = found_at(content, 1, 4)
    assert both.tolist() == np.flatnonzero(np.isin(content, [1, 4])).tolist()
    assert both.dtype == np.int64


def test_nothing_is_found_in_nothing():
    assert found_at(np.empty(0, np.uint8), 1).tolist() == []
    assert found_at(np.zeros(9, np.uint8), 1).tolist() == []
