"""After a fork, what has locks is told in the child, and in nobody else's process."""

import gc
import os
import threading

import pytest

from kloaders.core import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


class Locked:
    """Has a lock that a thread of the parent may hold."""

    def __init__(self):
        self.forked = 0
        self.lock = threading.Lock()
        forks.watch(self)

    def after_fork(self):
        self.forked += 1
        self.lock = threading.Lock()


class Alike(Locked):
    """Compares by value, and so has no hash."""

    def __eq__(self, other):
        return True

    __hash__ = None


def in_a_child(function):
    """Whether `function()` is true in a child of os.fork."""
    pid = os.fork()
    if not pid:
        fine = False
        try:
            fine = function()
        finally:
            os._exit(0 if fine else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("kind", [Locked, Alike])
def test_a_lock_that_is_held_is_new_in_the_child(kind):
    owners = [kind(), kind()]
    with owners[0].lock:
        assert in_a_child(lambda: owners[0].lock.acquire(timeout=10))
        assert not owners[0].lock.acquire(blocking=False)
    assert in_a_child(lambda: [owner.forked for owner in owners] == [1, 1])
    assert [owner.forked for owner in owners] == [0, 0]


def test_a_child_of_a_child_is_told_again():
    owner = Locked()
    assert in_a_child(lambda: in_a_child(lambda: owner.forked == 2) and owner.forked == 1)


def test_watching_keeps_nothing_alive():
    before = len(forks._watched)
    owner = Locked()
    assert len(forks._watched) == before + 1
    del owner
    gc.collect()
    assert len(forks._watched) == before
    assert in_a_child(lambda: len(forks._watched) == before)
