"""Shapes and dtypes of a loader's samples, learnt from the first one that loads."""

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

#: look(index, raw): the specs of one sample.
Look = Callable[[int, bool], Structure]

#: Samples tried for the shape of all, where on_error lets the first ones fail.
FIRST_TRIES = 100


class SampleSpecs:
    """What samples look like, as they are stored and as they are delivered.

    Args:
        pipeline: whose samples.
        log: where samples are recorded that do not load.

    Threads: may be asked from several at once; one of them reads.
    """

    def __init__(self, pipeline: SamplePipeline, log: ErrorLog) -> None:
        self.pipeline, self.log = pipeline, log
        self._elsewhere: weakref.WeakMethod[Callable[[], Look]] | None = None
        self._raw: Structure = None
        self._delivered: Structure = None
        #: The sample whose specs these are.
        self.model_sample = 0
        self.after_fork()

    def after_fork(self) -> None:
        """New locks, in the child of a fork."""
        self.lock = threading.RLock()

    def look_by(self, choose: Callable[[], Look]) -> None:
        """Have samples read by what `choose`, a method, gives: worker processes, where hooks run there.

        It is not kept alive: it belongs to whatever has these specs.
        """
        self._elsewhere = weakref.WeakMethod(choose)

    def looker(self) -> Look:
        """What gives the specs of one sample.

        Raises:
            Exception: no sample can be looked at, whichever it is: worker processes do not start.
        """
        choose = None if self._elsewhere is None else self._elsewhere()
        look = self.pipeline.look if choose is None else choose()
        names = Names(self.log.samples, self.log.name)
        return lambda index, raw: read_patiently(lambda k: look(k, raw), index, names)

    @property
    def raw(self) -> Structure:
        """ArraySpec of each array of a sample before the transform; reads one sample at first."""
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
        """Bytes of one sample as it is stored."""
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
            except Exception as error:  # whatever a user's hook raises
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
