"""Prefetches objects for the threads that decode them: many requests, a limited number of bytes.

Reads are announced. A thread that needs an object takes the fetched bytes, or fetches them itself if
fetching has not begun. The number of requests in flight follows the demand: it begins at 16, rises while
threads wait for objects and more requests increase the throughput, is halved when the storage asks for
fewer requests, and never exceeds 256. Each request has a thread.
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

#: The maximum number of bytes that are fetched or in transfer, and not yet taken.
HELD_BYTES = 256 * 2**20
_FIRST, _MOST, _LEAST = 16, 256, 4
# More requests are tried if threads waited for objects for this share of the time.
_WAITED = 0.1
# The number of spans that are searched for one that contains certain bytes.
_OVERLAPPING = 8
# The assumed size of an object until some have arrived.
_GUESS = 256 * 2**10
# A number of requests in flight is tried for this many seconds, and this many objects per request. After
# this many trials, more requests are tried again.
_TRIAL_SECONDS, _TRIAL_OBJECTS, _TRIALS = 0.1, 4, 50
# The number of seconds between checks whether a waiting thread should continue to wait.
_LOOK_SECONDS = 0.25
# The minimum gain that justifies twice as many requests: each is a thread that is woken again and again.
_GAIN = 1.2


class Traffic(NamedTuple):
    """Statistics of fetching.

    Attributes:
        objects: the number of answers.
        nbytes: the number of bytes received.
        seconds: the sum of the durations.
        in_flight: the current number of requests in flight.
        limit: the maximum number of requests in flight.
        retries: the number of requests that had to be repeated.
    """

    objects: int
    nbytes: int
    seconds: float
    in_flight: int
    limit: int
    retries: int


#: A byte range of an object, end excluded; () for the whole object.
Span = tuple[int, int] | tuple[()]
#: `read(url, etag)` reads an object with this ETag, `read(url, etag, span)` a byte range: one request.
Read = Callable[..., bytes]


def read_once(url: str, etag: str, span: Span = ()) -> bytes:
    """Read a whole object, or bytes that are known to exist in it, with one request."""
    found = parsed(url)
    if not span:
        return place_of(found).read(found.name, etag)[0]
    start, stop = span
    data = place_of(found).read_range(found.name, start, stop, etag)
    if len(data) != stop - start:
        raise TransientError(f"{len(data)} of {stop - start} bytes arrived", transfer=True)
    return data


class Fetched:
    """An object, or a span of one, that was or will be fetched, for one or more batches.

    claims: the number of batches that will take it. takers: the number of threads that are taking it.
    shared: whether a batch takes it several times, so that it is kept until the batch releases it.
    """

    __slots__ = (
        *("_done", "claims", "data", "error", "etag", "read"),
        *("shared", "span", "state", "takers", "url"),
    )

    def __init__(self, url: str, etag: str, read: Read, span: Span = ()) -> None:
        self.url, self.etag, self.read, self.span = url, etag, read, span
        self.claims = self.takers = 0
        self.shared = False
        self.state = "queued"  # later "begun" and "done"; or "dropped"
        self.data: bytes | None = None
        self.error: Exception | None = None
        self._done: threading.Event | None = None

    def wait(self, wanted: Callable[[], bool]) -> None:
        """Wait until it is done or dropped, or `wanted()` returns False."""
        if self._done is None:
            self._done = threading.Event()
        while self.state not in ("done", "dropped") and wanted():
            self._done.wait(_LOOK_SECONDS)

    def ended(self, state: str) -> None:
        """Set the final state, and wake all waiting threads."""
        self.state = state
        if self._done is not None:
            self._done.set()


def _always() -> bool:
    return True


_waiter = threading.local()


@contextlib.contextmanager
def giving_up(wanted: Callable[[], bool]) -> Iterator[None]:
    """A context in which this thread waits for objects only while `wanted()` returns True."""
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
        """Release objects that were not taken."""
        objects, self._objects = self._objects, []
        self._owner.release(objects)


class Fetcher:
    """The fetching stage of a process.

    Args:
        held_bytes: see `HELD_BYTES`.

    Threads: several may call all methods at once.
    """

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._held_bytes = held_bytes
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """Start with nothing in flight."""
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, Span], Fetched] = {}
        # For each URL, its spans, sorted.
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._queue: deque[Fetched] = deque()
        self._workers = Workers(_MOST)
        self._in_flight = self._held = 0
        self.limit = _FIRST
        self._count = self._bytes = self._retries = 0
        self._seconds = 0.0
        # The trial of the current limit: its start, the number of objects, and the rate before it.
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
        """Fetch these (url, etag) as far as there is room; they are kept until they are taken.

        only_new: skip objects that are already announced.
        """
        return self.announce_spans([(url, etag, (), read) for url, etag in wanted], only_new)

    def announce_spans(
        self, wanted: Sequence[tuple[str, str, Span, Read]], only_new: bool = False
    ) -> Claim:
        """Like `announce`, for (url, etag, span, read); spans are kept until the claim is released."""
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

        It has the same ETag. If it ends before the last of the bytes, other spans may continue it.
        """
        if url not in self._spans:
            return None
        with self._lock:
            spans = self._spans.get(url, [])
            # Spans of two batches may overlap: the first that fits is one of the last few.
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
        """Return the bytes of an object or span; wait for them, or fetch them here if not begun.

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
                # Waiting for the very first objects does not depend on the number of requests.
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
            if not wanted():  # otherwise another loader released it while this thread waited
                raise OutageError(f"no thread waits for {url} any more.")

    # ------------------------------------------------------------------ internal

    def _begun(self, url: str, etag: str, span: Span, read: Read) -> Fetched:
        """A new object, which replaces one with another ETag. The caller holds the lock."""
        if span and (url, span) not in self._objects:
            bisect.insort(self._spans.setdefault(url, []), span)
        found = self._objects[url, span] = Fetched(url, etag, read, span)
        return found

    def _known(self, url: str, etag: str, span: Span) -> Fetched | None:
        """A known object that matches this ETag. The caller holds the lock."""
        found = self._objects.get((url, span))
        if found is not None and etag and found.etag and etag != found.etag:
            return None
        return found

    def _drop(self, one: Fetched) -> None:
        """Forget an object. The caller holds the lock."""
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
        """The objects to fetch next. The caller holds the lock."""
        begun: list[Fetched] = []
        mean = self._bytes / self._count if self._count else _GUESS
        while self._queue and self._in_flight < self.limit:
            if self._held + (self._in_flight + 1) * mean > self._held_bytes and self._in_flight:
                break
            if self._held >= self._held_bytes:
                break
            one = self._queue.popleft()
            if one.state != "queued":  # a waiting thread took it, or it was dropped
                continue
            one.state = "begun"
            self._in_flight += 1
            begun.append(one)
        return begun

    def _start(self, begun: list[Fetched]) -> None:
        for one in begun:
            self._workers.submit(_Job(self, one))

    def _fetch(self, one: Fetched, wanted: Callable[[], bool] = _always) -> list[Fetched]:
        """Fetch an object whose state is "begun", in this thread; return the objects to fetch next."""
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
        except Exception as raised:  # raised again in the thread that takes the object
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
        """Try more requests in flight while this increases the throughput. The caller holds the lock."""
        self._came += 1
        if self._in_flight < self.limit - 1 and not self._queue:
            self._trial(self._settled)  # too few were requested: the measurement means nothing
            return
        seconds = time.monotonic() - self._since
        if seconds < _TRIAL_SECONDS or self._came < _TRIAL_OBJECTS * self.limit:
            return
        rate = self._came / seconds
        if self._waited < _WAITED * seconds:
            self._trial(self._settled)  # more objects per second would not help
        elif self._settled:
            self._best = 0.9 * self._best + 0.1 * rate if self._best else rate
            self._trials += 1
            if self._trials >= _TRIALS and self.limit < _MOST:
                self._more(settled=False)
        elif rate > _GAIN * self._best:
            self._best = rate
            self._more(settled=self.limit == _MOST)
        else:  # the last increase brought no gain
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
    """The job of fetching an object and the ones after it, without passing them to other threads."""

    __slots__ = ("fetcher", "one")

    def __init__(self, fetcher: Fetcher, one: Fetched) -> None:
        self.fetcher, self.one = fetcher, one

    def __call__(self) -> None:
        fetcher, begun = self.fetcher, [self.one]
        while begun and not exiting.is_set():
            self.one, *others = begun
            fetcher._start(others)  # noqa: SLF001  a class of this module
            begun = fetcher._fetch(self.one)  # noqa: SLF001
        for one in begun:
            one.ended("dropped")

    def dropped(self) -> None:
        self.one.ended("dropped")


#: The fetcher of this process: all its loaders share the network.
fetcher = Fetcher()
