"""Fetches objects ahead of those who decode them: many requests in flight, a bounded number of bytes.

What is to be read is announced; whoever needs it takes the bytes that are there, or fetches them itself
where nobody has begun. How many requests are in flight follows from what they bring: 16 at first, more
while that makes more objects come, half of them where a place asks for fewer, at most 256.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kloaders.core import forks
from kloaders.core.threads import Workers
from kloaders.places.access import patiently
from kloaders.places.errors import OutageError, TransientError
from kloaders.places.registry import place_of
from kloaders.places.urls import parsed

__all__ = [
    "HELD_BYTES",
    "Claim",
    "Fetched",
    "Fetcher",
    "Read",
    "Traffic",
    "fetcher",
    "giving_up",
    "read_once",
]

#: Bytes that may lie fetched, and be on their way, before anybody takes them.
HELD_BYTES = 256 * 2**20
_FIRST, _MOST, _LEAST = 16, 256, 4
# An object is taken for so large until some have come.
_GUESS = 256 * 2**10
# How long, and for how many objects, one number of requests in flight is tried.
_TRIAL_SECONDS, _TRIAL_OBJECTS = 0.5, 2
# More requests have to bring at least so much more.
_GAIN = 1.08


class Traffic(NamedTuple):
    """What was fetched so far.

    Attributes:
        objects: how many answers came.
        nbytes: their bytes.
        seconds: how long they took, all together.
        in_flight: requests at the moment.
        limit: how many there may be.
        retries: requests that had to be made again.
    """

    objects: int
    nbytes: int
    seconds: float
    in_flight: int
    limit: int
    retries: int


#: Reads what a URL names, with this ETag: one request.
Read = Callable[[str, str], bytes]


def read_once(url: str, etag: str) -> bytes:
    """All of an object, by one request."""
    found = parsed(url)
    return place_of(found).read(found.name, etag)[0]


class Fetched:
    """An object that is fetched, or will be, for one or more batches."""

    __slots__ = ("_done", "claims", "data", "error", "etag", "read", "state", "url")

    def __init__(self, url: str, etag: str, read: Read) -> None:
        self.url, self.etag, self.read = url, etag, read
        self.claims = 0
        self.state = "queued"  # then "begun", "done"; or "dropped"
        self.data: bytes | None = None
        self.error: Exception | None = None
        self._done: threading.Event | None = None

    def wait(self) -> None:
        """Until it is done, or dropped."""
        if self._done is None:
            self._done = threading.Event()
        if self.state not in ("done", "dropped"):
            self._done.wait()

    def ended(self, state: str) -> None:
        """Wake whoever waits."""
        self.state = state
        if self._done is not None:
            self._done.set()


def _always() -> bool:
    return True


_waiter = threading.local()


@contextlib.contextmanager
def giving_up(wanted: Callable[[], bool]) -> Iterator[None]:
    """Inside, this thread waits for objects only as long as `wanted()`."""
    before = _waiter.__dict__.get("wanted", _always)
    _waiter.wanted = wanted
    try:
        yield
    finally:
        _waiter.wanted = before


class Claim:
    """Objects that one batch will take, until `release`."""

    def __init__(self, owner: Fetcher, objects: list[Fetched]) -> None:
        self._owner, self._objects = owner, objects

    def release(self) -> None:
        """Nobody comes for them any more, if nobody came yet."""
        objects, self._objects = self._objects, []
        self._owner.release(objects)


class Fetcher:
    """The fetching stage of a process.

    Args:
        held_bytes: see `HELD_BYTES`.

    Threads: all methods may be called from several at once.
    """

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._held_bytes = held_bytes
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """Nothing is under way."""
        self._lock = threading.Lock()
        self._objects: dict[str, Fetched] = {}
        self._queue: deque[Fetched] = deque()
        self._workers = Workers(_MOST)
        self._in_flight = self._held = 0
        self.limit = _FIRST
        self._count = self._bytes = self._retries = 0
        self._seconds = 0.0
        # Of the trial of the present limit: since when, how many came, and the rate before it.
        self._since, self._came, self._best = time.monotonic(), 0, 0.0
        self._settled = self._throttled = False

    @property
    def traffic(self) -> Traffic:
        """What was fetched so far."""
        return Traffic(
            self._count, self._bytes, self._seconds, self._in_flight, self.limit, self._retries
        )

    def announce(
        self, wanted: Sequence[tuple[str, str]], read: Read = read_once, only_new: bool = False
    ) -> Claim:
        """Begin to fetch these (url, etag), as far as there is room; they are kept until taken.

        only_new: leave out what is announced already.
        """
        objects = []
        with self._lock:
            for url, etag in wanted:
                found = self._known(url, etag)
                if found is None:
                    found = self._objects[url] = Fetched(url, etag, read)
                    self._queue.append(found)
                elif only_new:
                    continue
                found.claims += 1
                objects.append(found)
            begun = self._startable()
        self._start(begun)
        return Claim(self, objects)

    def release(self, objects: list[Fetched]) -> None:
        """See `Claim.release`."""
        with self._lock:
            for one in objects:
                one.claims -= 1
                if one.claims <= 0:
                    self._drop(one)
            begun = self._startable()
        self._start(begun)

    def take(self, url: str, etag: str = "", read: Read = read_once) -> bytes:
        """The bytes of an object; waits for them, and fetches it here if nobody has begun.

        Raises:
            FileNotFoundError, ChangedError, BrokenTransferError: the object is at fault.
            PlaceError: the place is.
        """
        wanted = _waiter.__dict__.get("wanted", _always)
        while True:
            with self._lock:
                found = self._known(url, etag)
                if found is None:
                    found = self._objects[url] = Fetched(url, etag, read)
                    found.claims = 1
                mine = found.state == "queued"
                if mine:
                    found.state = "begun"
                    self._in_flight += 1
            if mine:
                self._fetch(found, wanted)
            else:
                found.wait()
            with self._lock:
                data, error, state = found.data, found.error, found.state
                if found.claims <= 1:
                    self._drop(found)
                begun = self._startable()
            self._start(begun)
            if state == "dropped" and data is None and error is None:
                if not wanted():
                    raise OutageError(f"nobody waits for {url} any more.")
                continue  # released by another loader while this one waited
            if error is not None:
                raise error
            assert data is not None
            return data

    # ------------------------------------------------------------------ inside

    def _known(self, url: str, etag: str) -> Fetched | None:
        """An object that will do for this ETag. The lock is held."""
        found = self._objects.get(url)
        if found is not None and etag and found.etag and etag != found.etag:
            return None
        return found

    def _drop(self, one: Fetched) -> None:
        """Forget an object. The lock is held."""
        if self._objects.get(one.url) is one:
            del self._objects[one.url]
        if one.data is not None:
            self._held -= len(one.data)
            one.data = None
        if one.state in ("queued", "begun"):
            one.ended("dropped")

    def _startable(self) -> list[Fetched]:
        """Objects whose turn it is. The lock is held."""
        begun = []
        mean = self._bytes / self._count if self._count else _GUESS
        while self._queue and self._in_flight < self.limit:
            if self._held + (self._in_flight + 1) * mean > self._held_bytes and self._in_flight:
                break
            if self._held >= self._held_bytes:
                break
            one = self._queue.popleft()
            if one.state != "queued":  # taken by who waits for it, or dropped
                continue
            one.state = "begun"
            self._in_flight += 1
            begun.append(one)
        return begun

    def _start(self, begun: list[Fetched]) -> None:
        for one in begun:
            self._workers.submit(_Job(self, one))

    def _fetch(self, one: Fetched, wanted: Callable[[], bool] = _always) -> None:
        """Fetch an object that has begun, in this thread."""
        begin = time.perf_counter()
        data: bytes | None = None
        error: Exception | None = None
        try:
            patience = place_of(parsed(one.url)).patience
            data = patiently(
                lambda: one.read(one.url, one.etag),
                one.url,
                patience,
                failed=self._failed,
                wanted=lambda: one.claims > 0 and wanted(),
            )
        except Exception as raised:  # raised to whoever takes it
            error = raised
        with self._lock:
            self._in_flight -= 1
            self._seconds += time.perf_counter() - begin
            if data is not None:
                self._count += 1
                self._bytes += len(data)
                self._adapt()
            if one.state != "dropped":
                one.error = error
                if data is not None:
                    one.data = data
                    self._held += len(data)
                one.ended("done")
            begun = self._startable()
        self._start(begun)

    def _failed(self, error: TransientError) -> None:
        """A request has to be made again."""
        with self._lock:
            self._retries += 1
            if error.throttled:
                self.limit = max(_LEAST, self.limit // 2)
                self._throttled, self._best = True, 0.0
                self._trial(settled=False)

    def _adapt(self) -> None:
        """Try more requests in flight, as long as more comes of it. The lock is held."""
        self._came += 1
        if self._in_flight < self.limit - 1 and not self._queue:
            self._trial(self._settled)  # fewer were asked for: it says nothing
            return
        seconds = time.monotonic() - self._since
        if seconds < _TRIAL_SECONDS or self._came < _TRIAL_OBJECTS * self.limit:
            return
        rate = self._came / seconds
        if self._settled:
            self._best = 0.9 * self._best + 0.1 * rate if self._best else rate
        elif rate > _GAIN * self._best:
            self._best = rate
            self.limit = min(_MOST, self.limit + (_LEAST if self._throttled else self.limit))
            self._settled = self.limit == _MOST
        else:  # the last step brought nothing
            step = _LEAST if self._throttled else self.limit // 2
            self.limit = max(_LEAST if self._throttled else _FIRST, self.limit - step)
            self._settled = True
        self._trial(self._settled)

    def _trial(self, settled: bool) -> None:
        self._since, self._came, self._settled = time.monotonic(), 0, settled


class _Job:
    """An object for a thread to fetch."""

    __slots__ = ("fetcher", "one")

    def __init__(self, fetcher: Fetcher, one: Fetched) -> None:
        self.fetcher, self.one = fetcher, one

    def __call__(self) -> None:
        self.fetcher._fetch(self.one)  # noqa: SLF001  of this module's class

    def dropped(self) -> None:
        self.one.ended("dropped")


#: The fetching stage of this process: all loaders share the network.
fetcher = Fetcher()
