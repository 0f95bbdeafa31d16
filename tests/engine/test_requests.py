"""What `loader[i]` means, and what is said, once, about the order of requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kloaders.engine.requests import Requests
from tests.support.sources import Numbered

SAMPLES = 22  # five batches of four, and one of two


@pytest.fixture
def requests(runner):
    """requests(shuffle=..., sampling=..., other options) -> Requests."""

    def _requests(sampling: str = "", samples: int = SAMPLES, **options: Any) -> Requests:
        made = runner(Numbered(samples), **options)
        return Requests(made, options.get("shuffle"), sampling, "Numbered")

    return _requests


def numbers(batch: Any) -> list[int]:
    x, y = batch
    assert x[:, 0].tolist() == y.tolist()
    return y.tolist()


def begin(requests: Requests) -> None:
    requests.runner.tickets.begin()


def warnings(caplog: Any) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_a_number_is_a_batch_of_storage_order(requests, kind):
    asked = requests()
    assert numbers(asked.batch(kind(1))) == [4, 5, 6, 7]
    assert numbers(asked.batch(kind(5))) == [20, 21]


@pytest.mark.parametrize("index", [-1, 6, 2**40, np.int64(6)])
def test_a_batch_that_is_not_there(requests, index):
    with pytest.raises(IndexError, match=rf"batch {index} of Numbered: .* from 0 to 5"):
        requests().batch(index)


@pytest.mark.parametrize("index", [1.0, "1", None, slice(2), [1]])
def test_what_is_no_number(requests, index):
    with pytest.raises(TypeError, match="indexed by a batch number, got "):
        requests().batch(index)


def test_a_pass_has_as_many_batches_as_it_begins_with(requests):
    asked = requests()
    asked.runner.resting = True
    assert asked.starting() == 6
    assert not asked.runner.resting


def test_an_epoch_has_each_sample_once_whatever_is_asked(requests):
    """Indices are tickets: shuffled requests get all batches of the loader's own order."""
    asked = requests(shuffle=True)
    epochs = []
    for order in ([3, 1, 5, 0, 2, 4], [0, 1, 2, 3, 4, 5]):
        begin(asked)
        epochs.append([n for k in order for n in numbers(asked.batch(k))])
        asked.runner.tickets.end()
        assert sorted(epochs[-1]) == list(range(SAMPLES))
    assert epochs[0] != epochs[1]


def test_shuffled_requests_for_a_fixed_order_are_said_once(requests, caplog):
    """shuffle=False gives batch i for i, and says what permutes them."""
    asked = requests(shuffle=False)
    for _ in range(2):
        begin(asked)
        found = {k: numbers(asked.batch(k)) for k in (3, 1, 5, 0, 2, 4)}
        assert all(rows[0] == 4 * k for k, rows in found.items())
        asked.runner.tickets.end()
    (said,) = warnings(caplog)
    assert "batches of Numbered(shuffle=False) are requested in a random order" in said


def test_requests_in_order_say_nothing(requests, caplog):
    for shuffle in (None, True, False):
        asked = requests(shuffle=shuffle)
        begin(asked)
        for k in range(6):
            asked.batch(k)
    assert not warnings(caplog)


def test_a_shard_cannot_be_shuffled_by_requests(requests):
    """Each process would be asked for another order."""
    asked = requests(shard=(0, 2), samples=48)
    begin(asked)
    with pytest.raises(ValueError, match="pass shuffle=True to the loader"):
        asked.batch(3)
    for shuffle in (True, False):
        asked = requests(shard=(0, 2), samples=48, shuffle=shuffle)
        begin(asked)
        assert len({n for k in (3, 1, 5, 0, 2, 4) for n in numbers(asked.batch(k))}) == 24
