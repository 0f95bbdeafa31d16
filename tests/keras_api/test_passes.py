"""One pass over the data: which batch a request means, and which requests form a loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.keras_api.passes import IndexReads, Pass
from kloaders.plan.epoch import Order


def asked(current, indices, shuffle=None, by_index=True):
    return [current.request(index, shuffle, by_index) for index in indices]


@given(st.integers(1, 9).flatmap(lambda n: st.permutations(range(n))), st.booleans())
def test_each_index_is_a_ticket_for_the_next_batch(indices, shuffle):
    current = Pass(Order(2, 0), len(indices))
    requests = asked(current, indices, shuffle or None)
    assert [request.batch for request in requests] == list(range(len(indices)))
    assert {request.order for request in requests} == {Order(2, 0)}
    assert current.complete
    assert not current.unfinished
    again = asked(current, indices, shuffle or None)
    assert [request.batch for request in again] == list(range(len(indices)))
    assert not any(request.sequential for request in again)


def test_an_order_that_is_left_is_shuffled_from_there():
    """It began as stored, batches 0 and 1; what follows is shuffled, of the same epoch."""
    current = Pass(Order(3, 5), 5)
    requests = asked(current, [0, 1, 4, 2, 3])
    assert [request.order.head for request in requests] == [5, 5, 2, 2, 2]
    assert [request.batch for request in requests] == [0, 1, 2, 3, 4]
    assert current.in_order == 2


def test_by_index_batch_i_is_batch_i():
    current = Pass(Order(0, 4), 4)
    assert [request.batch for request in asked(current, [2, 0, 3], False)] == [2, 0, 3]
    assert current.scattered
    in_order = Pass(Order(0, 4), 4)
    requests = asked(in_order, [0, 1, 2], False)
    assert [request.sequential for request in requests] == [True] * 3
    assert not in_order.scattered


def test_a_loader_of_two_levels_serves_its_own_order():
    current = Pass(Order(0, 4), 4)
    assert [request.batch for request in asked(current, [2, 0, 3], False, False)] == [0, 1, 2]
    assert not current.scattered


def test_a_resumed_pass_has_the_batches_that_are_left():
    current = Pass(Order(1, 0), 3, first=4)
    assert [request.batch for request in asked(current, [1, 0])] == [4, 5]
    assert current.unfinished
    assert [request.batch for request in asked(current, [2])] == [6]
    with pytest.raises(IndexError, match=r"batch 3 .* resumed in the middle and has only 3"):
        current.request(3, None, True)


def test_a_resumed_pass_as_stored_goes_on_as_stored():
    current = Pass(Order(1, 7), 3, first=4)
    assert [request.batch for request in asked(current, [2, 0], False)] == [6, 4]
    left = Pass(Order(1, 7), 3, first=4)
    assert [request.order.head for request in asked(left, [0, 2, 1])] == [7, 5, 5]


@pytest.mark.parametrize(
    ("indices", "looping"),
    [
        ([0, 1], False),
        ([0, 1, 2], True),
        ([5, 6, 7], True),
        ([0, 2, 1], False),
        ([0, 0, 0], False),
        ([0, 1, 0, 1], False),
        ([0, 1, 2, 9], False),
    ],
)
def test_three_in_a_row_are_a_loop(indices, looping):
    """Keras looks at batches 0 and 1 before it begins."""
    reads = IndexReads()
    for index in indices:
        reads.add(index)
    assert reads.looping is looping
    assert len(reads) == len(set(indices))


def test_a_loop_goes_on_into_the_next_pass():
    reads = IndexReads()
    for index in range(3):
        reads.add(index)
    reads.clear()
    assert reads.looping
    assert len(reads) == 0
    reads.end_loop()
    assert not reads.looping
    reads.add(3)
    assert not reads.looping
