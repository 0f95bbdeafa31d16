"""The position of the next batch, in every phase, and the error if it is unknown."""

import pytest

from kloaders.keras_api.passes import Position
from kloaders.keras_api.tickets import Tickets
from kloaders.plan.epoch import Order
from tests.support.recorded_keras import unknown

BATCHES = 5


def tickets_of(shuffle=True):
    return Tickets(BATCHES, shuffle, asker=unknown)


def loop(tickets, reads):
    """A custom loop that requests this many batches."""
    tickets.begin()
    for index in range(reads):
        tickets.locate(index)


def test_before_anything_is_read():
    assert tickets_of().position() == (Order(0, 0), 0)
    assert tickets_of(False).position() == (Order(0, BATCHES), 0)
    assert tickets_of(None).position() == (Order(0, BATCHES), 0)


@pytest.mark.parametrize("reads", range(BATCHES + 1))
def test_in_a_loop_what_was_read_is_done(reads):
    tickets = tickets_of()
    loop(tickets, reads)
    expected = (Order(1, 0), 0) if reads == BATCHES else (Order(0, 0), reads)
    assert tickets.position() == expected


def test_behind_a_loop_comes_the_next_epoch():
    """Also after an epoch that ended early: its remaining batches are not trained on."""
    for reads in (BATCHES, 2):
        tickets = tickets_of()
        loop(tickets, reads)
        tickets.end()
        assert tickets.position() == (Order(1, 0), 0)


def test_a_loop_that_was_left_stands_where_it_was_left():
    tickets = tickets_of()
    loop(tickets, 4)
    tickets.leave(tickets.mark, 3)  # one was made ahead
    assert tickets.position() == (Order(0, 0), 3)
    tickets.begin()
    tickets.locate(0)
    assert tickets.position() == (Order(1, 0), 1)


def test_keras_reads_ahead_of_the_model():
    tickets = tickets_of()
    tickets.begin()
    tickets.starting()
    tickets.locate(2)
    with pytest.raises(ValueError, match=r"how much of this pass .* is not known.*LoaderCallback"):
        tickets.position()


def test_a_callback_counts_what_was_trained_on():
    tickets = tickets_of()
    tickets.fit_begin(3)
    tickets.epoch_begin(0, BATCHES)
    tickets.begin()
    tickets.starting()
    for read, index in enumerate((3, 1, 4)):
        tickets.locate(index)
        tickets.consumed(1 if read else 0)
    assert tickets.position() == (Order(0, 0), 2)
    tickets.fit_end()  # stopped, in the middle of the epoch
    assert tickets.position() == (Order(0, 0), 2)


def test_batches_scattered_by_index_are_no_position():
    tickets = tickets_of(False)
    tickets.fit_begin(3)
    tickets.epoch_begin(0, BATCHES)
    tickets.begin()
    tickets.starting()
    for index in (3, 1):
        tickets.locate(index)
        tickets.consumed(1)
    with pytest.raises(ValueError, match=r"in the middle of such an epoch is not a single number"):
        tickets.position()


def test_batches_read_by_number_move_no_position():
    tickets = tickets_of()
    for index in range(3):
        tickets.locate(index)
    with pytest.raises(ValueError, match=r"outside an epoch, which does not change .* position"):
        tickets.position()
    for index in range(3, BATCHES):
        tickets.locate(index)
    assert tickets.position() == (Order(0, 0), 0)
    tickets.end()
    assert tickets.position() == (Order(1, 0), 0)


@pytest.mark.parametrize("first", [0, 2])
def test_a_position_that_was_loaded_comes_next(first):
    tickets = tickets_of()
    tickets.resume_at(Position(Order(6, 0), first, BATCHES - first))
    assert tickets.position() == (Order(6, 0), first)
    loop(tickets, 1)
    assert tickets.position() == (Order(6, 0), first + 1)
    for index in range(1, BATCHES - first):
        tickets.locate(index)
    assert tickets.position() == (Order(7, 0), 0)
