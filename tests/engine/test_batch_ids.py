"""Which samples are in a batch: known by its arrays, and no longer than these live."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from kloaders.engine.batch_ids import BatchIds


def test_a_batch_is_known_by_identity() -> None:
    ids, x = BatchIds(), {"a": np.zeros(3), "b": np.ones(3)}
    ids.note(x, np.array([5, 2, -1]))
    for batch in (x, (x, np.zeros(3)), x["a"]):
        assert ids.of(batch).tolist() == [5, 2, -1]
    ids.of(x)[0] = 9
    assert ids.of(x)[0] == 5
    for other in (x["a"].copy(), x["b"], x["a"][:], (), None, "x"):
        with pytest.raises(ValueError, match="as this loader delivered it"):
            ids.of(other)


def test_what_nobody_holds_is_forgotten() -> None:
    ids = BatchIds()
    for k in range(100):
        ids.note(np.zeros(3), np.array([k]))
    gc.collect()
    assert not ids._known


def test_the_same_array_again_is_the_later_batch() -> None:
    ids, x = BatchIds(), np.zeros(2)
    ids.note(x, np.array([1, 2]))
    ids.note(x, np.array([3, 4]))
    assert ids.of(x).tolist() == [3, 4]
