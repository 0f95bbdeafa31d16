"""Measures the epochs of a fit: waits, speed, prefetching, cache, errors. Imports no Keras.

`LoaderCallback` tells a `Meter` when epochs and steps begin and end, and the loader tells it when a batch
was delivered. From these times the `Meter` computes how long the model waited.
"""

from __future__ import annotations

import math
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten

__all__ = ["LOGGED", "Epoch", "Fit", "Meter"]

#: The names of the logged numbers, and their meaning.
LOGGED = {
    "samples_per_s": "samples that the model trained on per second",
    "data_wait_s": "seconds of the epoch in which the model waited for a batch",
    "batches_ahead": "batches that were ready when the model took one, on average",
    "cache_hits": "share of arrays that came from the cache, from 0 to 1",
    "sample_errors": "samples that failed to load so far, each counted once",
}

# Counting the ready batches is the most expensive part, and for an average every 8th batch is enough.
_LOOK_EACH = 8


@dataclass(frozen=True)
class Epoch:
    """The measurements of one epoch's training steps, without validation."""

    steps: int
    samples: int
    seconds: float
    wait_seconds: float
    batches_ahead: float
    cache_hits: float
    sample_errors: int

    @property
    def samples_per_s(self) -> float:
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    def logs(self) -> dict[str, float]:
        """The numbers for Keras' logs; always the same names, since CSVLogger cannot add columns later."""
        values = (
            self.samples_per_s,
            self.wait_seconds,
            self.batches_ahead,
            self.cache_hits,
            float(self.sample_errors),
        )
        return dict(zip(LOGGED, values, strict=True))


@dataclass
class Fit:
    """The epochs of one call of fit, for `explain`."""

    epochs: list[Epoch] = field(default_factory=list)

    def steady(self) -> Epoch | None:
        """All epochs as one, without the first, which compiles the model and fills the cache."""
        rest = self.epochs[1:] or self.epochs
        rest = [epoch for epoch in rest if epoch.steps and epoch.seconds > 0]
        if not rest:
            return None
        steps = sum(epoch.steps for epoch in rest)

        def mean(values: list[float]) -> float:
            weighed = (v * e.steps for v, e in zip(values, rest, strict=True))
            return math.fsum(weighed) / steps

        return Epoch(
            steps,
            sum(epoch.samples for epoch in rest),
            math.fsum(epoch.seconds for epoch in rest),
            math.fsum(epoch.wait_seconds for epoch in rest),
            mean([epoch.batches_ahead for epoch in rest]),
            mean([epoch.cache_hits for epoch in rest]),
            rest[-1].sample_errors,
        )


class Meter:
    """Measures a fit that trains on `loader`.

    The model waits for a batch from the end of the previous step (or the beginning of the epoch)
    until the batch is delivered. This is true both if Keras asks for batches in the thread that
    trains (PyTorch, JAX) and if another thread reads ahead (TensorFlow). With steps_per_execution
    above 1, the batches of one execution are counted together.

    Threads: `handed` may be called from another thread than the other methods.
    """

    def __init__(self, loader: Loader, clock: Callable[[], float] | None = None) -> None:
        self._loader = weakref.ref(loader)
        self._clock = clock or time.perf_counter
        self.fit = Fit()
        # Delivery times and sample counts of batches that no step has used yet.
        self._handed: deque[tuple[float, int]] = deque()
        self._epoch_begin(0.0)

    def handed(self, batch: Any, ready: Callable[[], int]) -> None:
        """A batch was delivered to Keras.

        Args:
            batch: the batch.
            ready: returns the number of ready batches; called for every 8th batch only.
        """
        self._handed.append((self._clock(), len(flatten(batch)[0])))
        if self._batches % _LOOK_EACH == 0:
            self._ready += ready()
            self._looks += 1
        self._batches += 1

    def epoch_begin(self, new_pass: bool) -> None:
        """An epoch begins.

        Args:
            new_pass: whether it begins a new pass, so that batches delivered before do not count.
        """
        if new_pass:
            self._handed.clear()
        self._epoch_begin(self._clock())

    def _epoch_begin(self, now: float) -> None:
        self._began = self._ended = now
        self._steps = self._samples = self._batches = self._ready = self._looks = 0
        self._waited = 0.0
        self._kept_before = self._kept()

    def step_end(self, batches: int) -> None:
        """The model has trained on this many more batches."""
        now = self._clock()
        at = self._ended
        for _ in range(min(batches, len(self._handed))):
            at, samples = self._handed.popleft()
            self._samples += samples
        self._waited += max(0.0, min(at, now) - self._ended)
        self._steps += batches
        self._ended = now

    def epoch_end(self) -> Epoch:
        """The measurements of the epoch."""
        loader = self._loader()
        hits, asked = (
            now - before for now, before in zip(self._kept(), self._kept_before, strict=True)
        )
        epoch = Epoch(
            self._steps,
            self._samples,
            self._ended - self._began,
            self._waited,
            self._ready / max(1, self._looks),
            hits / max(1, asked),
            0 if loader is None else len(loader.errors),
        )
        self.fit.epochs.append(epoch)
        return epoch

    def _kept(self) -> tuple[int, int]:
        """-> (arrays served by the cache, arrays requested from the cache)."""
        loader = self._loader()
        counts = [] if loader is None else [store.counts for store in loader.source.stores()]
        return sum(hits for hits, _ in counts), sum(asked for _, asked in counts)
