"""Type aliases for arrays: any array, sample indices, and masks."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Array", "Indices", "Mask"]

#: An array of any dtype.
Array = np.ndarray[Any, Any]
#: Sample indices, int64.
Indices = np.ndarray[Any, np.dtype[np.int64]]
#: A mask: one bool for each sample or row.
Mask = np.ndarray[Any, np.dtype[np.bool_]]
