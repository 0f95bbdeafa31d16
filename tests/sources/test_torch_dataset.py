"""`from_torch` seeds generators that all loaders of a process share: each must have them alone.

torch is not needed for it: NumPy's and Python's generators are global as well.
"""

import os
import pickle
import random
import threading

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources import torch_dataset
from tests.support.threads import in_threads

SAMPLES, BATCH = 40, 4


class Meeting:
    """Sample k is (a number of each global generator, k); readers wait for each other in between.

    `inside` is how many read at this moment, `most` how many at once so far.
    """

    def __init__(self, gate):
        self.gate = gate

    def __len__(self):
        return SAMPLES

    def __getitem__(self, k):
        first = np.random.random()
        with self.gate:  # a second reader, if there can be one, draws here
            pass
        return np.array([first, random.random(), np.random.random(), k])


class Gate:
    """Lets nobody through before two have come, or none has for a while."""

    def __init__(self):
        self.come, self.inside, self.most = threading.Condition(), 0, 0

    def __enter__(self):
        with self.come:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.come.notify_all()
            self.come.wait_for(lambda: self.inside > 1, timeout=0.01)

    def __exit__(self, *error):
        with self.come:
            self.inside -= 1


def rows_of(loader):
    return np.concatenate(list(loader.epoch_batches(0, False)))


def states():
    return random.getstate(), np.random.get_state()[1].tolist()


def test_two_loaders_at_a_time_draw_what_each_draws_alone(keep):
    """Train and validation: all samples are as if the other did not exist, and so are the states."""
    gate = Gate()

    def make(seed):
        return keep(kl.from_torch(Meeting(gate), BATCH, seed=seed))

    expected = [rows_of(make(seed)) for seed in (1, 2)]
    before, gate.most = states(), 0
    loaders, found = [make(seed) for seed in (1, 2)], [None, None]

    def read(k):
        found[k] = rows_of(loaders[k])

    in_threads(read, 2)
    np.testing.assert_array_equal(found, expected)
    assert states() == before
    assert gate.most == 1


def test_the_lock_is_one_for_views_copies_and_forks(keep):
    """It pickles as itself, and a child of a fork can take it whoever held it."""
    loader = keep(kl.from_torch([1.0, 2.0], 2, seed=1))
    copy = keep(pickle.loads(pickle.dumps(loader)))
    assert copy.source._one_at_a_time is loader.source._one_at_a_time is torch_dataset._generators
    other = keep(kl.from_torch([1.0, 2.0], 2, seeded=False))
    assert other.source._one_at_a_time is not torch_dataset._generators


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_need_not_wait():
    """The thread that held the lock is not there."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with torch_dataset._generators:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if torch_dataset._generators._lock.acquire(blocking=False) else 1)
        finally:
            os._exit(2)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_third_part_is_not_taken_for_weights():
    """It often is an index: who means weights says so by select=."""
    items = [(0.0, 1, k) for k in range(3)]
    with pytest.raises(kl.SampleError, match="pass select="):
        kl.from_torch(items, 3)[0]
    chosen = kl.from_torch(items, 3, select=lambda item: item)
    assert [part.tolist() for part in chosen[0]] == [[0, 0, 0], [1, 1, 1], [0, 1, 2]]
