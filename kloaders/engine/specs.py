"""Shapes and dtypes of a loader's samples, taken from the first sample that loads."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from kloaders.core.errors import SampleError, WorkerPoolError, never_skipped
from kloaders.core.structure import Structure, flatten
from kloaders.engine.retries import Names, read_patiently
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["FIRST_TRIES", "Look", "SampleSpecs"]

#: look(index, raw) returns the specs of one sample.
Look = Callable[[int, bool], Structure]

#: The number of samples that are tried, if on_error permits the first ones to fail.
FIRST_TRIES = 100


class SampleSpecs:
    """The specs of the samples, as stored and as delivered.

    Args:
        pipeline: loads the samples.
        log: records samples that fail to load.

    Threads: several may use it at once; only one of them reads.
    """

    def __init__(self, pipeline: SamplePipeline, log: ErrorLog) -> None:
        self.pipeline, self.log = pipeline, log
        self._elsewhere: weakref.WeakMethod[Callable[[], Look]] | None = None
        self._raw: Structure = None
        self._delivered: Structure = None
        #: The sample that the specs come from.
        self.model_sample = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Create new locks, in the child of a fork."""
        self.lock = threading.RLock()

    def look_by(self, choose: Callable[[], Look]) -> None:
        """Read samples with the function that `choose`, a method, returns: if hooks run in workers, there.

        `choose` is not kept alive, because it belongs to the owner of these specs.
        """
        self._elsewhere = weakref.WeakMethod(choose)

    def looker(self) -> Look:
        """The function that returns the specs of one sample.

        Raises:
            Exception: no sample can be read, because worker processes do not start.
        """
        choose = None if self._elsewhere is None else self._elsewhere()
        look = self.pipeline.look if choose is None else choose()
        names = Names(self.log.samples, self.log.name)
        return lambda index, raw: read_patiently(lambda k: look(k, raw), index, names)

    @property
    def raw(self) -> Structure:
        """ArraySpec of each array of a sample before the transform; the first call reads one sample."""
        if self._raw is None:
            with self.lock:
                if self._raw is None:
                    self.pipeline.source.prepare()
                    self._raw = self._first(raw=True)
        return self._raw

    @property
    def delivered(self) -> Structure:
        """ArraySpec of each array of a sample after the transform."""
        if self.pipeline.transforms.transform is None:
            return self.raw
        if self._delivered is None:
            raw = self.raw
            with self.lock:
                if self._delivered is None:
                    self._delivered = self._first(raw=False)
                    del raw
        return self._delivered

    @property
    def raw_bytes(self) -> int:
        """The size of one stored sample in bytes."""
        return sum(spec.nbytes for spec in flatten(self.raw))

    def _first(self, raw: bool) -> Structure:
        """The specs of the first sample that loads."""
        failure: SampleError | None = None
        tries = min(self.log.samples, FIRST_TRIES)
        look = self.looker()
        for index in range(tries):
            try:
                found = look(index, raw)
            except WorkerPoolError:
                raise
            except Exception as error:  # a user's hook may raise anything
                failure = self.log.explained(index, error)
                if never_skipped([failure]):
                    raise failure from error
                if self.log.policy == "raise":
                    self.log.record(failure)
                    raise failure from error
            else:
                self.model_sample = index
                return found
        assert failure is not None
        raise SampleError(
            failure.index, failure.name, f"{failure.cause} (nor did the {tries - 1} before it)"
        ) from failure
