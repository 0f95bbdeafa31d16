"""Settings of the process, as opposed to a loader: environment variables, checked when read."""

from __future__ import annotations

import os

__all__ = ["seconds_from"]

# "inf" becomes eleven days, because system calls accept no longer timeout.
_LONGEST = 1e6


def seconds_from(variable: str, default: float) -> float:
    """The duration set by an environment variable; `default` if it is unset or empty.

    Raises:
        ValueError: not a number of seconds above 0.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found > 0:  # also true for NaN
        raise ValueError(
            f"the environment variable {variable} is {text!r:.80}, expected seconds above 0: set "
            f'{variable}={default:g}, or "inf" for no limit, or unset it (default: {default:g}).'
        )
    return min(found, _LONGEST)
