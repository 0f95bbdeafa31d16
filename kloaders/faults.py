"""What happens to a sample that does not load: raise, skip or replace."""

from __future__ import annotations

from typing import Any

__all__ = ["SampleError", "explain"]

POLICIES = ("raise", "skip", "replace")


class SampleError(ValueError):
    """One sample could not be loaded.

    index: the sample's number in storage order.
    name: the file, or another name a person can find it by.
    cause: type and message of what went wrong.
    """

    def __init__(self, index: int, name: str, cause: str) -> None:
        super().__init__(index, name, cause)
        self.index, self.name, self.cause = index, name, cause

    def __str__(self) -> str:
        return f"sample {self.index} ({self.name}): {self.cause}"


def explain(index: int, name: str, error: BaseException) -> SampleError:
    """A SampleError whose cause is `error`; pickles, so that it can cross processes."""
    if isinstance(error, SampleError):
        return error
    text = str(error)
    kind = type(error).__name__
    found = SampleError(index, name, text if kind == "DecodeError" else f"{kind}: {text}")
    found.__cause__ = error
    return found


def check_policy(on_error: Any) -> str:
    """`on_error` if it is one of the three, else a ValueError that names them."""
    if on_error not in POLICIES:
        raise ValueError(
            f'on_error={on_error!r} is not known: choose "raise" (stop, naming the sample), '
            '"skip" (leave it out of its batch) or "replace" (load another sample instead).'
        )
    return str(on_error)
