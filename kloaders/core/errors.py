"""What to do with samples that fail to load: raise, skip or replace them, up to max_errors times."""

from __future__ import annotations

import enum
import errno
import math
import operator
import os
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from kloaders.core.messages import shortened, visible

__all__ = [
    "Recovery",
    "SampleError",
    "WorkerPoolError",
    "as_sample_error",
    "blames_the_sample",
    "check_limit",
    "check_max_errors",
    "check_policy",
    "line_of_the_user",
    "never_skipped",
    "recovery_of",
    "with_recovery",
    "without_traceback",
]

POLICIES = ("raise", "skip", "replace")


class SampleError(ValueError):
    """One sample could not be loaded.

    index: the sample's number in storage order.
    name: the file, or another name that helps a person to find the sample.
    cause: type and message of the original error.
    where: file, line and function of the user's code that raised the error; None if no user code,
        such as a transform, was involved.
    """

    def __init__(self, index: int, name: str, cause: str) -> None:
        super().__init__(index, name, cause)
        self.index, self.name, self.cause = index, name, cause
        self.where: str | None = None

    def __str__(self) -> str:
        # This comes first: Keras shortens tracebacks, and the line of a transform would be lost.
        first = "" if self.where is None else f"{visible(self.where)}: "
        return (
            f"{first}sample {self.index} ({visible(self.name)}): {visible(self.cause, lines=True)}"
        )


class WorkerPoolError(RuntimeError):
    """Worker processes do not start, or were lost. No sample is to blame, and none is skipped."""


# An error message may contain a video frame or a whole file.
_CAUSE_LENGTH = 1000


def as_sample_error(index: int, name: str, error: BaseException) -> SampleError:
    """A SampleError caused by `error`. It can be pickled, to be sent to another process."""
    if isinstance(error, SampleError):
        return error
    text = shortened(str(error), _CAUSE_LENGTH)
    kind = type(error).__name__
    own = kind in ("DecodeError", "UnsupportedError")
    found = SampleError(index, name, text if own else f"{kind}: {text}")
    found.__cause__ = error
    # An error from another process arrives without its traceback.
    found.where = getattr(error, "line_of_the_user", None) or line_of_the_user(error)
    return found


# Code other than the user's: this package, Python's library and installed packages.
_NOT_THE_USERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")},
)


def line_of_the_user(error: BaseException) -> str | None:
    """The innermost line of an error's traceback that is in the user's own code."""
    found, step = None, error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not code.co_filename.startswith((*_NOT_THE_USERS, "<frozen")):
            found = f"{code.co_filename}, line {step.tb_lineno}, in {code.co_name}"
        step = step.tb_next
    return found


def without_traceback(error: SampleError, on_error: str) -> SampleError:
    """The error without its traceback, to be kept in a list that may grow as long as the data.

    The frames of a traceback keep the unfinished batch alive, and the frames below them all variables
    of the caller, up to `fit` with its model. With `on_error="raise"` the traceback is kept.
    """
    found = SampleError(error.index, error.name, error.cause)
    found.where = error.where
    if on_error == "raise":
        return found
    found.__cause__ = error.__cause__
    chain: list[BaseException | None] = [error]
    for one in chain:
        if one is not None:
            one.__traceback__ = None
            chain += [e for e in (one.__cause__, one.__context__) if e not in chain]
    return found


def check_policy(on_error: Any) -> str:
    """Return `on_error` if it is one of the three values; raise a ValueError that names them otherwise."""
    if on_error not in POLICIES:
        raise ValueError(
            f'on_error={on_error!r:.80} is not known: choose "raise" (stop, naming the sample), '
            '"skip" (leave it out of its batch) or "replace" (load another sample instead).'
        )
    return str(on_error)


class Recovery(enum.Enum):
    """Why a failed sample may load when it is read again."""

    #: The machine is short of a resource at the moment.
    SHORTAGE = "shortage"
    #: A temporary failure of a disk or network.
    WAIT = "wait"
    #: Either the sample or its disk is at fault. Reading other samples shows which.
    ASK = "ask"
    #: All retries failed, but the sample is not to blame: other samples fail as well.
    LOST = "lost"
    #: A storage service refuses every request: no sample is skipped because of that.
    REFUSED = "refused"


# The machine is short of a resource at the moment; other samples would fail as well.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_NO_MEMORY = ("insufficient memory", "outofmemory", "bad_alloc", "cannot allocate memory")
# A path that does not exist, or is not a file, or a missing folder.
_NO_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EINVAL),
}
# Operating system errors are recognized by type, decoding errors by their text.
_ABOUT_CONTENT = {"BadGzipFile", "UnidentifiedImageError"}


def recovery_of(error: BaseException) -> Recovery | None:
    """Why a sample that failed with this error may load on a later try; None if it will not."""
    if isinstance(error, SampleError) and error.__cause__ is not None:
        error = error.__cause__
    if hasattr(error, "recovery"):
        found: Recovery | None = error.recovery
        return found
    if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _NO_MEMORY):
        return Recovery.SHORTAGE
    if not isinstance(error, OSError) or type(error).__name__ in _ABOUT_CONTENT:
        return None
    if error.errno in _SHORTAGES:
        return Recovery.SHORTAGE
    # For damaged data, decoding libraries raise plain OSErrors without an errno.
    plain = error.errno is None and type(error) is OSError
    return Recovery.ASK if plain or error.errno in _NO_FILE else Recovery.WAIT


E = TypeVar("E", bound=Exception)


def with_recovery(error: E, recovery: Recovery | None) -> E:
    """Return the error, marked with the result that `recovery_of` returns for it."""
    error.recovery = recovery  # type: ignore[attr-defined]  # stays with the error
    return error


def blames_the_sample(error: SampleError) -> bool:
    """Whether the sample is to blame, and not a lack of memory or file descriptors, or a disk failure."""
    return recovery_of(error) not in (Recovery.SHORTAGE, Recovery.LOST, Recovery.REFUSED)


def never_skipped(errors: Iterable[SampleError]) -> SampleError | None:
    """The first of these errors that is raised whatever `on_error` says; None if there is none."""
    return next((error for error in errors if recovery_of(error) is Recovery.REFUSED), None)


def check_max_errors(max_errors: Any, on_error: str) -> int | float | None:
    """Return `max_errors` if it is a count, a share or None; raise TypeError or ValueError otherwise."""
    if max_errors is None:
        return None
    example = (
        "Pass a count, as max_errors=100, a share of the samples, as max_errors=0.01, or None."
    )
    checked: int | float
    try:
        if isinstance(max_errors, bool):
            raise TypeError
        checked = operator.index(max_errors)
    except TypeError:
        try:
            checked = float(max_errors) if not isinstance(max_errors, (bool, str)) else math.nan
        except (TypeError, ValueError):
            checked = math.nan
        if math.isnan(checked):
            raise TypeError(f"max_errors={max_errors!r:.80} is not a number. {example}") from None
        if not 0 <= checked <= 1:
            raise ValueError(
                f"max_errors={max_errors!r:.80}: a share must be between 0 and 1. {example}"
            ) from None
    if checked < 0:
        raise ValueError(f"max_errors={max_errors!r:.80} is negative. {example}")
    if on_error == "raise":
        raise ValueError(
            f'max_errors={max_errors!r:.80} has no effect with on_error="raise", which stops at the '
            'first sample that does not load: pass on_error="skip" or "replace" as well.'
        )
    return checked


def check_limit(
    errors: Sequence[SampleError], max_errors: int | float | None, samples: int, quarantine: Any
) -> None:
    """Raise a SampleError if more samples have failed than `max_errors` allows."""
    if max_errors is None:
        return
    share = isinstance(max_errors, float)
    allowed = math.floor(max_errors * samples + 1e-9) if share else int(max_errors)
    if len(errors) <= allowed:
        return
    last = errors[-1]
    said = "".join(f"\n  {error}" for error in errors[-4:-1])
    before = f" Before it:{said}\n" if said else " "
    worth = f", {allowed:,} samples" if share else ""
    listed = "loader.errors" + (f" and {quarantine}" if quarantine else "")
    raise SampleError(
        last.index,
        last.name,
        f"{last.cause} (With it {len(errors):,} of {samples:,} samples did not load, and "
        f"max_errors={max_errors!r:.80}{worth}, allows no more.{before}All are in {listed}. Check "
        "that the data are still there; `kloaders verify` finds every bad file. Repair the bad "
        "files, leave them out with exclude=, or raise max_errors.)",
    )
