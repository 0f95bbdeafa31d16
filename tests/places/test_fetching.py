"""The fetching stage: what is announced is fetched once, many at a time, within a bound of bytes."""

import threading
import time

import pytest

from kloaders.core import threads
from kloaders.places import access, fetching
from kloaders.places.errors import OutageError, TransientError
from kloaders.places.fetching import Fetcher, giving_up


class Place:
    """Objects that come when the test says so."""

    def __init__(self, size=10):
        self.size = size
        self.asked, self.lock = [], threading.Lock()
        self.open = threading.Event()
        self.failures = {}
        self.changed = threading.Condition(self.lock)

    def read(self, url, etag):
        with self.changed:
            self.asked.append(url)
            self.changed.notify_all()
        assert self.open.wait(20)
        if url in self.failures:
            raise self.failures[url]
        return url.encode().ljust(self.size)

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, 20)


@pytest.fixture
def place():
    found = Place()
    yield found
    found.open.set()


@pytest.fixture(autouse=True)
def no_client(monkeypatch):
    """The place of every URL is patient and asked for nothing but that."""

    class Patient:
        patience = 20

    monkeypatch.setattr(access, "place_of", lambda url: Patient)
    monkeypatch.setattr(access, "_FIRST_WAIT", 0.001)


def urls(count):
    return [(f"s3://b/{k}", "") for k in range(count)]


def test_what_is_announced_is_fetched_once(place):
    fetcher = Fetcher()
    place.open.set()
    claim = fetcher.announce(urls(40), place.read)
    got = [fetcher.take(url, etag, place.read) for url, etag in urls(40)]
    claim.release()
    assert [data.strip() for data in got] == [url.encode() for url, _ in urls(40)]
    assert sorted(place.asked) == sorted(url for url, _ in urls(40))
    assert fetcher.traffic.objects == 40
    assert fetcher.traffic.in_flight == 0


def test_sixteen_requests_at_first(place):
    fetcher = Fetcher()
    claim = fetcher.announce(urls(40), place.read)
    place.wait_for(16)
    assert len(place.asked) == fetcher.traffic.in_flight == 16
    place.open.set()
    fetcher.take("s3://b/39")
    claim.release()


def test_who_waits_fetches_what_nobody_has_begun(place):
    """A batch that is asked for now does not stand behind a thousand that will be."""
    fetcher = Fetcher()
    claim = fetcher.announce(urls(100), place.read)
    place.wait_for(16)
    thread = threading.Thread(target=fetcher.take, args=("s3://b/99", "", place.read))
    thread.start()
    place.wait_for(17)
    assert "s3://b/99" in place.asked
    place.open.set()
    thread.join(20)
    claim.release()


def test_no_more_bytes_than_the_bound(place):
    """Nobody takes anything: fetching stops, and goes on when there is room."""
    place.size = 1000
    fetcher = Fetcher(held_bytes=20_000)
    place.open.set()
    claim = fetcher.announce(urls(200), place.read)
    deadline = time.monotonic() + 20
    while fetcher.traffic.in_flight and time.monotonic() < deadline:
        threads.exiting.wait(0.01)
    begun = len(place.asked)
    assert 10 <= begun <= 20 + 16
    for url, _ in urls(200):
        fetcher.take(url, "", place.read)
    claim.release()
    assert sorted(place.asked) == sorted(url for url, _ in urls(200))


def test_what_nobody_wants_any_more_is_not_fetched(place):
    fetcher = Fetcher()
    claim = fetcher.announce(urls(100), place.read)
    place.wait_for(16)
    claim.release()
    place.open.set()
    other = fetcher.announce([("s3://b/other", "")], place.read)
    fetcher.take("s3://b/other", "", place.read)
    other.release()
    assert len(place.asked) == 17


def test_two_batches_with_one_sample(place):
    """It is fetched once, and there for both."""
    fetcher = Fetcher()
    place.open.set()
    claims = [fetcher.announce(urls(1), place.read) for _ in range(2)]
    for claim in claims:
        assert fetcher.take("s3://b/0", "", place.read).strip() == b"s3://b/0"
        claim.release()
    assert place.asked == ["s3://b/0"]
    fetcher.take("s3://b/0", "", place.read)
    assert place.asked == ["s3://b/0"] * 2


def test_an_error_is_raised_to_who_takes_it_and_forgotten(place):
    fetcher = Fetcher()
    place.open.set()
    place.failures["s3://b/0"] = FileNotFoundError("s3://b/0 does not exist")
    claim = fetcher.announce(urls(1), place.read)
    with pytest.raises(FileNotFoundError):
        fetcher.take("s3://b/0", "", place.read)
    claim.release()
    place.failures.clear()
    assert fetcher.take("s3://b/0", "", place.read).strip() == b"s3://b/0"


def test_another_version_is_another_object(place):
    fetcher = Fetcher()
    place.open.set()
    claim = fetcher.announce([("s3://b/0", "old")], place.read)
    place.wait_for(1)
    fetcher.take("s3://b/0", "new", place.read)
    claim.release()
    assert place.asked == ["s3://b/0"] * 2


def test_fewer_requests_where_a_place_asks_for_it(place):
    fetcher = Fetcher()
    place.open.set()
    failing = [TransientError("503 SlowDown", throttled=True)] * 2

    def read(url, etag):
        if failing:
            raise failing.pop()
        return b"x"

    assert fetcher.take("s3://b/0", "", read) == b"x"
    assert (fetcher.limit, fetcher.traffic.retries) == (4, 2)


def test_more_requests_where_more_comes_of_it(place):
    """At 20 ms an answer, twice as many in flight bring twice as many; half a second shows it."""
    fetcher = Fetcher()
    pause, limits = threading.Event(), set()

    def read(url, etag):
        limits.add(fetcher.limit)
        pause.wait(0.02)
        return b"x"

    claim = fetcher.announce(urls(400), read)  # as many as 16 in flight bring in half a second
    for url, _ in urls(400):
        fetcher.take(url, "", read)
    claim.release()
    assert 16 < max(limits) <= 256


def test_no_more_requests_than_are_needed(place, monkeypatch):
    """As long as nobody waits, more would bring nothing but more threads."""
    monkeypatch.setattr(fetching, "_TRIAL_SECONDS", 0.0)
    fetcher = Fetcher()
    limits = set()

    def read(url, etag):
        limits.add(fetcher.limit)
        return place.read(url, etag)

    place.open.set()
    claim = fetcher.announce(urls(1000), read)
    place.wait_for(1000)
    for url, _ in urls(1000):
        fetcher.take(url, "", read)
    claim.release()
    assert limits == {16}


def test_a_thread_goes_on_to_the_next_object(place):
    """Without a hand-over to another one, which takes longer than all else that is done for an object."""
    fetcher = Fetcher()
    fetcher.limit = 1
    used = set()

    def read(url, etag):
        used.add(threading.get_ident())
        return place.read(url, etag)

    place.open.set()
    claim = fetcher.announce(urls(50), read)
    place.wait_for(50)
    claim.release()
    assert len(used) == 1


def test_nothing_more_is_fetched_when_the_program_ends(place, monkeypatch):
    ending = threading.Event()
    monkeypatch.setattr(fetching, "exiting", ending)
    fetcher = Fetcher()
    fetcher.limit = 1
    claim = fetcher.announce(urls(50), place.read)
    place.wait_for(1)
    ending.set()
    place.open.set()
    fetcher._workers.close()
    claim.release()
    assert len(place.asked) == 1


def test_more_requests_are_tried_again_after_a_while(place, monkeypatch):
    """A place that was slow when it was tried may not be so any more."""
    monkeypatch.setattr(fetching, "_TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(fetching, "_WAITED", 0.0)  # as if somebody always waited
    fetcher = Fetcher()
    most: list[int] = []

    def read(url, etag):
        most.append(fetcher.limit)
        return b"x"

    fetcher._settled = True
    claim = fetcher.announce(urls(4 * 16 * (fetching._TRIALS + 2)), read)
    for url, _ in urls(4 * 16 * (fetching._TRIALS + 2)):
        fetcher.take(url, "", read)
    claim.release()
    assert max(most) >= 32


@pytest.mark.parametrize("released", [True, False])
def test_who_gives_up_does_not_wait(place, released):
    """A loader that is closed while nothing comes; also what was announced after that."""
    fetcher = Fetcher()
    claim = fetcher.announce(urls(1), place.read)
    place.wait_for(1)
    gone, outcome = threading.Event(), []

    def take():
        with giving_up(lambda: not gone.is_set()):
            try:
                fetcher.take("s3://b/0", "", place.read)
            except OutageError as error:
                outcome.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    gone.set()
    if released:
        claim.release()
    thread.join(20)
    claim.release()
    assert outcome == ["no thread waits for s3://b/0 any more."]


def test_a_fork_begins_anew(place):
    fetcher = Fetcher()
    fetcher.announce(urls(3), place.read)
    fetcher.after_fork()
    assert fetcher.traffic.in_flight == 0
    place.open.set()
    assert fetcher.take("s3://b/0", "", place.read).strip() == b"s3://b/0"
