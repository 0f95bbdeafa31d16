"""Settings of the process that are no loader's options: environment variables, checked when read."""

from __future__ import annotations

import os

__all__ = ["seconds_from"]

# "inf" becomes this, eleven days, since the system's calls do not wait for ever longer times.
_LONGEST = 1e6


def seconds_from(variable: str, default: float) -> float:
    """The duration in an environment variable; `default` where it is not set, or empty.

    Raises:
        ValueError: it is no number of seconds above 0.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found > 0:  # NaN too
        raise ValueError(
            f"the environment variable {variable} is {text!r:.80}, expected seconds above 0: set "
            f'{variable}={default:g}, or "inf" for no limit, or unset it ({default:g}).'
        )
    return min(found, _LONGEST)
