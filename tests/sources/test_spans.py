"""Which samples share rows, and how they are parted in time: compared with looking at every row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kloaders.sources.spans import Spans

WINDOWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=30)


def spans_of(windows, length):
    series, first = map(np.array, zip(*windows, strict=True))
    return Spans(series.astype(np.int64), first.astype(np.int64), length)


def rows_of(spans, numbers):
    return {
        (int(spans.series[k]), row)
        for k in np.asarray(numbers).tolist()
        for row in range(spans.first[k], spans.first[k] + spans.length)
    }


@given(WINDOWS, st.integers(1, 6), st.floats(0.05, 0.95), st.integers(0, 4))
def test_parts_share_no_row_and_lie_apart(windows, length, share, gap):
    spans = spans_of(windows, length)
    early, late = spans.cut(share, gap)
    assert not set(early.tolist()) & set(late.tolist())
    assert not rows_of(spans, early) & rows_of(spans, late)
    for k in np.unique(spans.series).tolist():
        mine = [spans.first[part[spans.series[part] == k]] for part in (early, late)]
        if len(mine[1]):
            begin = mine[1].min()
            # All that begin later are validated with, and all that end early enough trained on.
            first = spans.first[spans.series == k]
            assert len(mine[1]) == np.count_nonzero(first >= begin)
            assert len(mine[0]) == np.count_nonzero(first + length + gap <= begin)


@given(WINDOWS, st.integers(1, 6), st.data())
def test_sharing_is_what_looking_at_every_row_finds(windows, length, data):
    spans = spans_of(windows, length)
    side = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(windows), max_size=len(windows)))
    )
    numbers, others = np.flatnonzero(side), np.flatnonzero(~side)
    theirs = rows_of(spans, others)
    found = [k for k in numbers.tolist() if rows_of(spans, [k]) & theirs]
    assert spans.sharing(numbers, others).tolist() == found


def test_samples_that_share_nothing_are_cut_in_storage_order():
    early, late = Spans.of_single(10).cut(0.3, 2)
    assert early.tolist() == [0, 1, 2, 3, 4]
    assert late.tolist() == [7, 8, 9]


def test_take():
    spans = spans_of([(0, 5), (1, 6), (2, 7)], 3).take(np.array([2, 0]))
    assert (spans.series.tolist(), spans.first.tolist(), spans.length) == ([2, 0], [7, 5], 3)
