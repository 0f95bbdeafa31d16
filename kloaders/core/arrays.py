"""Names of array types, as hints: any array, and numbers of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Array", "Indices", "Mask"]

#: An array of any dtype.
Array = np.ndarray[Any, Any]
#: Numbers of samples, int64.
Indices = np.ndarray[Any, np.dtype[np.int64]]
#: One True or False for each sample or row.
Mask = np.ndarray[Any, np.dtype[np.bool_]]
