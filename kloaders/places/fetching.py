"""Prefetches objects for the threads that decode them: many requests, a bounded number of bytes.

Reads are announced; a thread that needs an object takes the fetched bytes, or fetches them itself if
nobody has begun. The number of requests in flight follows the throughput: 16 at first, more while that
raises it, half as many when the storage asks for fewer requests, at most 256.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kloaders.core import forks
from kloaders.core.threads import Workers, exiting
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
    "Span",
    "Traffic",
    "fetcher",
    "giving_up",
    "read_once",
]

#: Maximum number of bytes that are fetched or on their way, and not yet taken.
HELD_BYTES = 256 * 2**20
_FIRST, _MOST, _LEAST = 16, 256, 4
# More requests are tried if threads waited for objects for this share of the time.
_WAITED = 0.1
# Number of spans that are searched for one that holds certain bytes.
_OVERLAPPING = 8
# Assumed size of an object until some have arrived.
_GUESS = 256 * 2**10
# Seconds, and objects per request in flight, for which one number of requests in flight is tried; and the
# number of trials after which more requests are tried again.
_TRIAL_SECONDS, _TRIAL_OBJECTS, _TRIALS = 0.1, 4, 50
# Seconds between looks at whether a waiting thread should go on.
_LOOK_SECONDS = 0.25
# The gain of twice as many requests that justifies them: each one is a thread, with its wake-ups.
_GAIN = 1.2


class Traffic(NamedTuple):
    """Statistics of the fetching.

    Attributes:
        objects: number of answers.
        nbytes: their bytes.
        seconds: the sum of their durations.
        in_flight: requests at the moment.
        limit: maximum number of requests in flight.
        retries: requests that had to be repeated.
    """

    objects: int
    nbytes: int
    seconds: float
    in_flight: int
    limit: int
    retries: int


#: A byte range of an object, the end excluded; () for all of it.
Span = tuple[int, int] | tuple[()]
#: `read(url, etag)` reads a URL with this ETag, `read(url, etag, span)` a byte range: one request.
Read = Callable[..., bytes]


def read_once(url: str, etag: str, span: Span = ()) -> bytes:
    """A whole object, or bytes that are known to exist in it, by one request."""
    found = parsed(url)
    if not span:
        return place_of(found).read(found.name, etag)[0]
    start, stop = span
    data = place_of(found).read_range(found.name, start, stop, etag)
    if len(data) != stop - start:
        raise TransientError(f"{len(data)} bytes came of {stop - start}", transfer=True)
    return data


class Fetched:
    """An object, or a span of one, that is or will be fetched, for one or more batches.

    claims: of batches that will take it. takers: number of threads taking it at the moment. shared:
    a batch takes it several times, and it is kept until the batch releases it.
    """

    __slots__ = (
        *("_done", "claims", "data", "error", "etag", "read"),
        *("shared", "span", "state", "takers", "url"),
    )

    def __init__(self, url: str, etag: str, read: Read, span: Span = ()) -> None:
        self.url, self.etag, self.read, self.span = url, etag, read, span
        self.claims = self.takers = 0
        self.shared = False
        self.state = "queued"  # then "begun", "done"; or "dropped"
        self.data: bytes | None = None
        self.error: Exception | None = None
        self._done: threading.Event | None = None

    def wait(self, wanted: Callable[[], bool]) -> None:
        """Wait until it is done or dropped, or `wanted()` is False."""
        if self._done is None:
            self._done = threading.Event()
        while self.state not in ("done", "dropped") and wanted():
            self._done.wait(_LOOK_SECONDS)

    def ended(self, state: str) -> None:
        """Wake all waiting threads."""
        self.state = state
        if self._done is not None:
            self._done.set()


def _always() -> bool:
    return True


_waiter = threading.local()


@contextlib.contextmanager
def giving_up(wanted: Callable[[], bool]) -> Iterator[None]:
    """Inside, this thread waits for objects only while `wanted()` is true."""
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
        """Give up objects that nobody has taken yet."""
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
        """Start with nothing in flight."""
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, Span], Fetched] = {}
        # For each URL, the sorted spans among these.
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._queue: deque[Fetched] = deque()
        self._workers = Workers(_MOST)
        self._in_flight = self._held = 0
        self.limit = _FIRST
        self._count = self._bytes = self._retries = 0
        self._seconds = 0.0
        # The trial of the present limit: its start, the number of objects, and the rate before it.
        self._since, self._came, self._best, self._waited = time.monotonic(), 0, 0.0, 0.0
        self._settled = self._throttled = False
        self._trials = 0

    @property
    def traffic(self) -> Traffic:
        """Statistics so far."""
        return Traffic(
            self._count, self._bytes, self._seconds, self._in_flight, self.limit, self._retries
        )

    def announce(
        self, wanted: Sequence[tuple[str, str]], read: Read = read_once, only_new: bool = False
    ) -> Claim:
        """Fetch these (url, etag) as far as there is room; they are kept until taken.

        only_new: skip what is announced already.
        """
        return self.announce_spans([(url, etag, (), read) for url, etag in wanted], only_new)

    def announce_spans(
        self, wanted: Sequence[tuple[str, str, Span, Read]], only_new: bool = False
    ) -> Claim:
        """As `announce`, for (url, etag, span, read); spans are kept until the claim is released."""
        objects = []
        with self._lock:
            for url, etag, span, read in wanted:
                found = self._known(url, etag, span)
                if found is None:
                    found = self._begun(url, etag, span, read)
                    self._queue.append(found)
                elif only_new:
                    continue
                found.claims += 1
                found.shared |= bool(span)
                objects.append(found)
            begun = self._startable()
        self._start(begun)
        return Claim(self, objects)

    def covering(self, url: str, etag: str, start: int, stop: int) -> tuple[int, int] | None:
        """An announced or fetched span of an object that contains the first of these bytes.

        It has the same version. If it ends before the last of the bytes, other spans may continue it.
        """
        if url not in self._spans:
            return None
        with self._lock:
            spans = self._spans.get(url, [])
            # Spans of two batches may overlap: the first one that fits is among the last few.
            at = bisect.bisect_right(spans, (start, 2**63))
            near = [
                span
                for span in spans[max(0, at - _OVERLAPPING) : at]
                if self._objects[url, span].etag == etag
            ]
        return max((s for s in near if s[1] > start), key=lambda s: min(s[1], stop), default=None)

    def release(self, objects: list[Fetched]) -> None:
        """See `Claim.release`."""
        with self._lock:
            for one in objects:
                one.claims -= 1
                if one.claims <= 0 and not (one.takers and one.state == "done"):
                    self._drop(one)
            begun = self._startable()
        self._start(begun)

    def take(self, url: str, etag: str = "", read: Read = read_once, span: Span = ()) -> bytes:
        """The bytes of an object or span; waits for them, or fetches them here if nobody has begun.

        Raises:
            FileNotFoundError, ChangedError, BrokenTransferError: the object is at fault.
            PlaceError: the storage is at fault.
        """
        wanted = _waiter.__dict__.get("wanted", _always)
        while True:
            with self._lock:
                found = self._known(url, etag, span)
                own = found is None
                if found is None:
                    found = self._begun(url, etag, span, read)
                    found.claims = 1
                found.takers += 1
                # Whoever waits for the first ones of all waits whatever the number of requests.
                begin = 0.0 if found.state == "done" or not self._came else time.monotonic()
                mine = found.state == "queued"
                if mine:
                    found.state = "begun"
                    self._in_flight += 1
            if mine:
                self._start(self._fetch(found, wanted))
            else:
                found.wait(wanted)
            with self._lock:
                data, error = found.data, found.error
                self._waited += time.monotonic() - begin if begin else 0.0
                found.takers -= 1
                found.claims -= own
                last = found.claims == 1 and not own and not found.shared
                if not found.takers and (last or found.claims <= 0):
                    self._drop(found)
                begun = self._startable()
            self._start(begun)
            if error is not None:
                raise error
            if data is not None:
                return data
            if not wanted():  # otherwise another loader released it while this one waited
                raise OutageError(f"nobody waits for {url} any more.")

    # ------------------------------------------------------------------ inside

    def _begun(self, url: str, etag: str, span: Span, read: Read) -> Fetched:
        """A new object, replacing one with another ETag. The lock is held."""
        if span and (url, span) not in self._objects:
            bisect.insort(self._spans.setdefault(url, []), span)
        found = self._objects[url, span] = Fetched(url, etag, read, span)
        return found

    def _known(self, url: str, etag: str, span: Span) -> Fetched | None:
        """An object that matches this ETag. The lock is held."""
        found = self._objects.get((url, span))
        if found is not None and etag and found.etag and etag != found.etag:
            return None
        return found

    def _drop(self, one: Fetched) -> None:
        """Forget an object. The lock is held."""
        if self._objects.get((one.url, one.span)) is one:
            del self._objects[one.url, one.span]
            if one.span:
                spans = self._spans[one.url]
                del spans[bisect.bisect_left(spans, one.span)]
                if not spans:
                    del self._spans[one.url]
        if one.data is not None:
            self._held -= len(one.data)
            one.data = None
        if one.state in ("queued", "begun"):
            one.ended("dropped")

    def _startable(self) -> list[Fetched]:
        """The objects to fetch next. The lock is held."""
        begun: list[Fetched] = []
        mean = self._bytes / self._count if self._count else _GUESS
        while self._queue and self._in_flight < self.limit:
            if self._held + (self._in_flight + 1) * mean > self._held_bytes and self._in_flight:
                break
            if self._held >= self._held_bytes:
                break
            one = self._queue.popleft()
            if one.state != "queued":  # taken by a waiting thread, or dropped
                continue
            one.state = "begun"
            self._in_flight += 1
            begun.append(one)
        return begun

    def _start(self, begun: list[Fetched]) -> None:
        for one in begun:
            self._workers.submit(_Job(self, one))

    def _fetch(self, one: Fetched, wanted: Callable[[], bool] = _always) -> list[Fetched]:
        """Fetch an object that has begun, in this thread; returns those to fetch next."""
        begin = time.perf_counter()
        data: bytes | None = None
        error: Exception | None = None
        try:
            data = patiently(
                lambda: one.read(one.url, one.etag, *((one.span,) if one.span else ())),
                one.url,
                failed=self._failed,
                wanted=lambda: (one.claims > 0 or one.takers > 0) and wanted(),
            )
        except Exception as raised:  # raised in the thread that takes it
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
            return self._startable()

    def _failed(self, error: TransientError) -> None:
        """Count a request that has to be repeated."""
        with self._lock:
            self._retries += 1
            if error.throttled:
                self.limit = max(_LEAST, self.limit // 2)
                self._throttled, self._best = True, 0.0
                self._trial(settled=False)

    def _adapt(self) -> None:
        """Try more requests in flight while that raises the throughput. The lock is held."""
        self._came += 1
        if self._in_flight < self.limit - 1 and not self._queue:
            self._trial(self._settled)  # too few were requested: the measurement says nothing
            return
        seconds = time.monotonic() - self._since
        if seconds < _TRIAL_SECONDS or self._came < _TRIAL_OBJECTS * self.limit:
            return
        rate = self._came / seconds
        if self._waited < _WAITED * seconds:
            self._trial(self._settled)  # more objects a second would be of no use
        elif self._settled:
            self._best = 0.9 * self._best + 0.1 * rate if self._best else rate
            self._trials += 1
            if self._trials >= _TRIALS and self.limit < _MOST:
                self._more(settled=False)
        elif rate > _GAIN * self._best:
            self._best = rate
            self._more(settled=self.limit == _MOST)
        else:  # the last step brought nothing
            step = _LEAST if self._throttled else self.limit // 2
            self.limit = max(_LEAST if self._throttled else _FIRST, self.limit - step)
            self._settled = True
        self._trial(self._settled)

    def _more(self, settled: bool) -> None:
        self.limit = min(_MOST, self.limit + (_LEAST if self._throttled else self.limit))
        self._settled = settled

    def _trial(self, settled: bool) -> None:
        if not settled:
            self._trials = 0
        self._since, self._came, self._settled, self._waited = time.monotonic(), 0, settled, 0.0


class _Job:
    """An object for a thread to fetch, and the next ones after it: without a hand-over to another thread."""

    __slots__ = ("fetcher", "one")

    def __init__(self, fetcher: Fetcher, one: Fetched) -> None:
        self.fetcher, self.one = fetcher, one

    def __call__(self) -> None:
        fetcher, begun = self.fetcher, [self.one]
        while begun and not exiting.is_set():
            self.one, *others = begun
            fetcher._start(others)  # noqa: SLF001  of this module's class
            begun = fetcher._fetch(self.one)  # noqa: SLF001
        for one in begun:
            one.ended("dropped")

    def dropped(self) -> None:
        self.one.ended("dropped")


#: The fetching stage of this process: all loaders share the network.
fetcher = Fetcher()
