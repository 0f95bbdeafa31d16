"""The engine for remote data: it fetches objects before it makes the batches that need them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from kloaders.engine.lookahead import Build, Engine, Make, build_inline
from kloaders.places.fetching import Claim, giving_up

__all__ = ["AHEAD_SAMPLES", "FetchingEngine"]

#: The number of samples announced ahead of the requested batch; `depth` batches if that is more.
AHEAD_SAMPLES = 1024


class FetchingEngine(Engine):
    """An engine that announces the samples of the next batches.

    It fetches ahead even if few batches are prefetched: hiding the network latency takes many requests
    in flight, but neither cores nor memory for decoded batches.

    Args:
        announce: begins to fetch the data of a batch.
        batch_rows: samples per batch.
        others: as for `Engine`.
    """

    def __init__(
        self,
        *others: Any,
        announce: Callable[[Any], Sequence[Claim]],
        batch_rows: int,
        **options: Any,
    ) -> None:
        super().__init__(*others, **options)
        self._announce = announce
        self._window = max(self.depth, -(-AHEAD_SAMPLES // max(1, batch_rows)))
        self._claims: dict[Hashable, Sequence[Claim]] = {}
        self._claims_lock = threading.Lock()
        self._stopped = threading.Event()

    def get(self, key: Hashable, upcoming: Iterable[Hashable] | None, make: Make) -> Any:
        if upcoming is not None and self.count:
            keys = list(itertools.islice(upcoming, max(self._window, self.depth)))
            self._look_ahead(key, keys[: self._window])
            upcoming = keys
        try:
            return super().get(key, upcoming, lambda k, wait: self._fetching(make(k, wait)))
        except Exception:
            if not self._stopped.is_set():
                raise
            # Another thread closed the engine meanwhile: the cancelled batch is made here.
            build = make(key, True)
            assert build is not None
            return build_inline(build)
        finally:
            self._release([key])

    def _fetching(self, build: Build | None) -> Build | None:
        return None if build is None else _StoppableBuild(build, self._stopped)

    def _look_ahead(self, key: Hashable, keys: list[Hashable]) -> None:
        """Announce these batches, in order, and drop all others."""
        wanted = {key, *keys}
        with self._claims_lock:
            stale = [one for one in self._claims if one not in wanted]
            missing = [one for one in (key, *keys) if one not in self._claims]
            for one in missing:
                self._claims[one] = ()
        self._release(stale)
        for one in missing:
            try:
                claims = self._announce(one)
            except Exception:  # raised again when the batch is made
                return
            with self._claims_lock:
                if one in self._claims:
                    self._claims[one] = claims
                    continue
            for claim in claims:
                claim.release()

    def _release(self, keys: Iterable[Hashable]) -> None:
        with self._claims_lock:
            found = [claim for key in keys for claim in self._claims.pop(key, ())]
        for claim in found:
            claim.release()

    def _here(self, build: Build) -> Any:
        # The caller waits in its own thread, which Ctrl-C can interrupt.
        return super()._here(build.plain if isinstance(build, _StoppableBuild) else build)

    def cancel(self) -> None:
        super().cancel()  # first: a waiting thread then makes the batch itself
        self._stopped.set()
        with self._claims_lock:
            keys = list(self._claims)
        self._release(keys)


class _StoppableBuild:
    """A batch that stops fetching when the engine is closed."""

    def __init__(self, build: Build, stopped: threading.Event) -> None:
        self.plain, self._stopped, self.rows = build, stopped, build.rows

    def fill(self, start: int, stop: int) -> None:
        with giving_up(lambda: not self._stopped.is_set()):
            self.plain.fill(start, stop)

    def finish(self) -> Any:
        with giving_up(lambda: not self._stopped.is_set()):
            return self.plain.finish()
