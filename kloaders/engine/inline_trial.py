"""Prefetching threads or the calling thread, whichever delivers batches faster. Clock readings only."""

from __future__ import annotations

__all__ = ["Choice"]

# Passing a batch to a thread and back takes 50 to 100 microseconds while Keras holds the GIL. A batch
# that takes at most the first value is made in the calling thread; one that takes more than the second
# is prefetched. In between, both methods are tried.
CHEAP_SECONDS = 50e-6
DEAR_SECONDS = 2e-3

# Each method is tried twice, because the machine's speed varies, and its better result counts. The
# longest pause of a trial is ignored, because an epoch may have ended. The first batches are not counted,
# because prefetched batches are built up or used up during them.
_TURNS = (False, True, True, False)
_UNCOUNTED, _COUNTED = 14, 32
# A trial with threads lasts at least this long: the system takes some hundredths of a second to spread
# woken threads over the cores.
_UNCOUNTED_SECONDS, _COUNTED_SECONDS = 0.04, 0.06
# A decision holds for this many batches, or until the time between them changes: an epoch read from a
# cache differs from the one before.
_HOLDS, _LOOK = 20_000, 64
_FACTOR = 2.0
# Threads are kept unless the other method is at least this much faster: prefetching hides slow reads.
_MARGIN = 0.97
# Threads are kept at once if the other method is this much slower.
_CLEARLY = 1.2
# They are also kept if the time between batches is more than this multiple of the batches' cost: a trial
# would then measure the model's steps, which hide the cost of a batch.
_HIDDEN = 10


class Choice:
    """Chooses which of two methods makes batches, by the time between deliveries.

    This time includes everything that matters: the work, the cost of sharing the GIL and memory with
    threads, and how much the model's step hides.

    Threads: callers hold a lock.
    """

    def __init__(self) -> None:
        self._begin_trial()

    def _begin_trial(self) -> None:
        self._turn, self._count = 0, 0
        self._since: float | None = None  # start of a trial, then of its counted part
        self._counts = False
        self._last, self._longest = 0.0, 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}
        self._decided: bool | None = None
        self._odd_looks = 0
        #: Seconds between batches, with threads and in the calling thread.
        self.seconds: tuple[float, float] | None = None

    def _in_question(self, seconds: float) -> bool:
        # A batch's measured cost depends on the method: a change of it alone does not end a trial.
        room = 4 if self._turn or self._count else 1
        return CHEAP_SECONDS / room < seconds < DEAR_SECONDS * room

    def inline(self, seconds: float) -> bool:
        """Whether a batch that costs this many seconds is made in the calling thread."""
        if not self._in_question(seconds):
            return seconds < DEAR_SECONDS
        return self._decided if self._decided is not None else _TURNS[self._turn]

    def record_delivery(self, now: float, seconds: float) -> None:
        """Record the delivery of a batch that costs this many seconds."""
        if not self._in_question(seconds):
            if self._count or self._turn:
                self._begin_trial()
            return
        self._count += 1
        self._longest, self._last = max(self._longest, now - self._last), now
        if self._decided is not None:
            self._look(now)
        elif self._since is None:
            self._since = now
        elif not self._counts:
            if self._count >= _UNCOUNTED and self._lasted(now, _UNCOUNTED_SECONDS):
                self._counts, self._count, self._since, self._longest = True, 0, now, 0.0
        elif self._count >= _COUNTED and self._lasted(now, _COUNTED_SECONDS):
            self._times[_TURNS[self._turn]].append(self._each(now, self._count))
            self._turn, self._count, self._counts = self._turn + 1, 0, False
            self._since, self._longest = now, 0.0
            ahead, here = (min(self._times[way], default=0.0) for way in (False, True))
            if self._turn == len(_TURNS) or here > _CLEARLY * ahead:
                self._decided = here < min(_MARGIN * ahead, _HIDDEN * seconds)
                self.seconds = ahead, here

    def _lasted(self, now: float, seconds: float) -> bool:
        return _TURNS[self._turn] or now >= (self._since or 0.0) + seconds

    def _each(self, now: float, batches: int) -> float:
        """Seconds per batch since `_since`, without the longest pause."""
        return (now - (self._since or 0.0) - self._longest) / (batches - 1)

    def _look(self, now: float) -> None:
        """Start a new trial after a while, or when the time between batches changes."""
        assert self._decided is not None
        assert self.seconds is not None
        if self._count % _LOOK:
            return
        change = self._each(now, _LOOK) / max(self.seconds[self._decided], 1e-9)
        self._since, self._longest = now, 0.0
        self._odd_looks = 0 if 1 / _FACTOR < change < _FACTOR else self._odd_looks + 1
        # One check alone may include the end of an epoch.
        if self._count > _HOLDS or self._odd_looks == 2:
            self._begin_trial()
