"""PerThread: one connection for each thread and process, made when it is first needed."""

import gc
import os
import pickle
import threading
import weakref

import pytest

import kloaders as kl


def test_each_thread_opens_its_own():
    opened = kl.PerThread(object)
    mine, theirs = opened(), []
    thread = threading.Thread(target=lambda: theirs.append((opened(), opened())))
    thread.start()
    thread.join()
    assert opened() is mine
    assert theirs[0][0] is theirs[0][1] is not mine


def test_it_pickles_without_what_is_open():
    opened = kl.PerThread(open, os.devnull)
    opened()
    again = pickle.loads(pickle.dumps(opened))
    assert again() is not opened()


class Opened:
    """A connection that notes how it was made."""

    made = 0

    def __init__(self, *args, **options):
        type(self).made += 1
        self.how = args, options


def test_it_is_made_when_it_is_first_needed_with_its_arguments():
    before = Opened.made
    opened = kl.PerThread(Opened, 1, "two", mode="r")
    assert Opened.made == before
    assert opened().how == ((1, "two"), {"mode": "r"})
    assert opened() is opened()
    assert Opened.made == before + 1
    assert pickle.loads(pickle.dumps(opened))().how == ((1, "two"), {"mode": "r"})


def test_it_goes_with_its_thread():
    opened, gone = kl.PerThread(Opened), []
    thread = threading.Thread(target=lambda: gone.append(weakref.ref(opened())))
    thread.start()
    thread.join()
    gc.collect()
    assert gone[0]() is None


def test_it_goes_with_the_per_thread():
    opened = kl.PerThread(Opened)
    gone = weakref.ref(opened())
    del opened
    gc.collect()
    assert gone() is None


def test_an_error_is_raised_again_and_nothing_is_kept():
    """Whoever asks next tries again: a server may be there by then."""
    answers = [OSError("no server"), "connection"]

    def connect():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    opened = kl.PerThread(connect)
    with pytest.raises(OSError, match="no server"):
        opened()
    assert opened() == "connection"


def test_another_one_has_nothing_open():
    """What was opened goes with the first, and the second opens it again."""
    opened = kl.PerThread(open, os.devnull)
    file = opened()
    other = opened.again()
    assert other() is not file
    assert not file.closed
    other().close()
    file.close()
