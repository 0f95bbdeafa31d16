"""Checks of what a user gave: each returns the value to use, or raises an error that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["checked_dtype"]


def checked_dtype(dtype: Any) -> np.dtype[Any] | None:
    """A dtype of numbers in this machine's byte order; TypeError for others."""
    if dtype is None:
        return None
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f'dtype={dtype!r} is no NumPy type. Pass a name such as "uint8" or "float32".'
        ) from None
    if checked.isbuiltin == 2:  # a registered number type, such as ml_dtypes.bfloat16
        return checked
    if checked.kind not in "biuf":
        raise TypeError(
            f"dtype={dtype!r}, expected a type of real numbers. "
            'Pass a name such as "uint8" or "float32".'
        )
    native: np.dtype[Any] = checked.newbyteorder("=")
    return native
