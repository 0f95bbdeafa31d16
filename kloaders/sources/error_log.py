"""Records samples that fail to load: once each, in the log, in the quarantine file and as a count."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kloaders.core.errors import (
    SampleError,
    as_sample_error,
    blames_the_sample,
    check_limit,
    without_traceback,
)
from kloaders.core.messages import warn
from kloaders.core.options import FaultOptions
from kloaders.sources.remote_quarantine import quarantine_at

__all__ = ["ErrorLog"]

# Log this many bad samples one by one, then only the 100th, the 1000th and so on.
_LOGGED_ONE_BY_ONE, _MILESTONES = 10, frozenset(10**k for k in range(2, 12))


class ErrorLog:
    """Records samples that fail to load.

    Args:
        options: the fault options.
        samples: the number of samples.
        name: returns the name of a sample.

    Attributes:
        errors: a SampleError for each sample that failed, in the order of occurrence. The errors have
            no tracebacks, so that a long list keeps no batches alive.
        quarantine: the file that bad samples are written to, or None.
        quiet: if True, no warnings are logged, because the caller reports the errors.

    Threads: several threads may call `record` at once.
    """

    def __init__(self, options: FaultOptions, samples: int, name: Callable[[int], str]) -> None:
        self.options, self.samples, self.name = options, samples, name
        self.errors: list[SampleError] = []
        path = options.quarantine
        self.quarantine = None if path is None else quarantine_at(path)
        self.quiet = False
        self._failed: set[int] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Create new locks, in the child of a fork."""
        self._lock = threading.Lock()

    @property
    def policy(self) -> str:
        """The handling of a bad sample: "raise", "skip" or "replace"."""
        return self.options.on_error

    def explained(self, index: int, error: BaseException) -> SampleError:
        """The error as a SampleError that names the sample."""
        return as_sample_error(index, self.name(index), error)

    def record(self, error: SampleError) -> None:
        """Record a sample that failed to load. Only its first failure counts.

        Raises:
            SampleError: more samples failed than `max_errors` allows.
        """
        kept = without_traceback(error, self.policy)
        with self._lock:
            known = error.index in self._failed
            if not known:
                self._failed.add(error.index)
                self.errors.append(kept)
                count = len(self.errors)
        if not known:
            if self.quarantine is not None and blames_the_sample(error):
                self._append_to_quarantine(error)
            if (
                self.policy != "raise"
                and not self.quiet
                and (count <= _LOGGED_ONE_BY_ONE or count in _MILESTONES)
            ):
                self._log_bad_sample(error, count)
        if self.policy != "raise":
            # Checked for repeated errors, too: a failed prefetched batch is made again on request.
            where = None if self.quarantine is None else self.quarantine.path
            check_limit(self.errors, self.options.max_errors, self.samples, where)

    def _append_to_quarantine(self, error: SampleError) -> None:
        assert self.quarantine is not None
        try:
            self.quarantine.add([(error.name, error.cause)])
        except (OSError, ValueError) as problem:  # an unwritable list must not stop a long run
            warn(
                f"{self.quarantine.path} cannot be written ({problem}): bad samples are listed in "
                "loader.errors only.",
                once=f"quarantine {self.quarantine.path}",
            )

    def _log_bad_sample(self, error: SampleError, count: int) -> None:
        done = "replaced" if self.policy == "replace" else "skipped"
        more = ""
        if count == 1 and self.policy == "skip":
            more = (
                ", and its batch is one sample shorter: the later rows of predict() do not line up "
                'with the data; on_error="replace" keeps them in place'
            )
        elif count == _LOGGED_ONE_BY_ONE:
            more = "; from now on only the 100th, 1000th, ... are logged; all are in loader.errors"
        elif self.quarantine is not None and not blames_the_sample(error):
            more = (
                ", and not listed as bad: it may load when the disk, or memory, is available again"
            )
        elif count > _LOGGED_ONE_BY_ONE:
            more = f", the {count:,}th of {self.samples:,} samples that does not load"
        warn(f"{str(error).rstrip('.')}. It is {done}{more}.")

    def nothing_left(self, index: int) -> SampleError:
        """The error for a batch in which every sample failed: Keras does not accept an empty batch."""
        first = next((error for error in self.errors if error.index == index), None)
        return SampleError(
            index,
            self.name(index),
            f"{first.cause if first else 'did not load'} (and so did every other sample of this "
            "batch, so that nothing is left. Look at loader.errors, or use on_error='replace')",
        )
