"""Threads or the thread that asks: whichever hands out batches faster. Clock readings only."""

from __future__ import annotations

__all__ = ["Choice"]

# Handing a batch to a thread and back costs 50 to 100 microseconds while Keras holds the GIL: a
# batch that takes no longer than the first is made where it is asked for, and one that takes longer
# than the second is made ahead. What is in between is tried.
CHEAP_SECONDS = 50e-6
DEAR_SECONDS = 2e-3

# Each way is tried twice, as machines change their speed, and its better turn counts. In each the
# longest pause is left out: an epoch may have ended. The first batches of a turn are not counted:
# the look-ahead fills, or is used up.
_TURNS = (False, True, True, False)
_UNCOUNTED, _COUNTED = 14, 32
# With threads a turn takes at least so long: some hundredths of a second go by until the system has
# spread those that woke over cores.
_UNCOUNTED_SECONDS, _COUNTED_SECONDS = 0.04, 0.06
# What is decided holds for so many batches, or until the time between them becomes another: an
# epoch from a cache is another matter than the one before it.
_HOLDS, _LOOK = 20_000, 64
_FACTOR = 2.0
# Threads are kept unless the other way is that much faster: their look-ahead rides out what is slow.
_MARGIN = 0.97
# ... and at once if that is found so much slower.
_CLEARLY = 1.2
# ... and where batches follow one another in more than so many times what one costs: there a trial
# compares the model's steps, and what it takes to make a batch is hidden behind them.
_HIDDEN = 10


class Choice:
    """Which of two ways batches are made, by the time from one batch handed out to the next.

    That time has everything in it that matters: the work, what the GIL and the memory cost where
    threads share them, and what of it hides behind the model's step.

    Threads: callers lock.
    """

    def __init__(self) -> None:
        self._begin_trial()

    def _begin_trial(self) -> None:
        self._turn, self._count = 0, 0
        self._since: float | None = None  # the beginning of a turn, and then of what counts in it
        self._counts = False
        self._last, self._longest = 0.0, 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}
        self._decided: bool | None = None
        self._odd_looks = 0
        #: Seconds from batch to batch, with threads and in the caller's thread.
        self.seconds: tuple[float, float] | None = None

    def _in_question(self, seconds: float) -> bool:
        # What a batch seems to cost depends on where it is made: a trial is not left for that.
        room = 4 if self._turn or self._count else 1
        return CHEAP_SECONDS / room < seconds < DEAR_SECONDS * room

    def inline(self, seconds: float) -> bool:
        """Whether to make a batch that costs so many seconds of work where it is asked for."""
        if not self._in_question(seconds):
            return seconds < DEAR_SECONDS
        return self._decided if self._decided is not None else _TURNS[self._turn]

    def record_delivery(self, now: float, seconds: float) -> None:
        """A batch was handed out; such a one costs so many seconds of work."""
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
        """Seconds from batch to batch since `_since`, the longest pause left out."""
        return (now - (self._since or 0.0) - self._longest) / (batches - 1)

    def _look(self, now: float) -> None:
        """Try anew after a while, or where batches follow one another at another speed."""
        assert self._decided is not None
        assert self.seconds is not None
        if self._count % _LOOK:
            return
        change = self._each(now, _LOOK) / max(self.seconds[self._decided], 1e-9)
        self._since, self._longest = now, 0.0
        self._odd_looks = 0 if 1 / _FACTOR < change < _FACTOR else self._odd_looks + 1
        if self._count > _HOLDS or self._odd_looks == 2:  # one look may have met an epoch's end
            self._begin_trial()
