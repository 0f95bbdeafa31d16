"""The sample numbers of delivered batches, looked up by the identity of their arrays."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.structure import flatten

__all__ = ["BatchIds"]


class BatchIds:
    """The sample numbers of a loader's batches, for as long as the batches exist.

    Threads: several may use it at once.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Array], Indices]] = {}

    def note(self, x: Any, indices: Indices) -> None:
        """Record a batch with these inputs and sample numbers, one per row; -1 for padding rows."""
        array = flatten(x)[0]
        key = id(array)

        def forget(gone: weakref.ref[Array]) -> None:
            if key in self._known and self._known[key][0] is gone:
                del self._known[key]

        self._known[key] = weakref.ref(array, forget), indices

    def of(self, batch: Any) -> Indices:
        """The sample numbers of a batch, int64, one per row.

        Args:
            batch: a delivered batch, or its x.

        Raises:
            ValueError: it is not a batch of this loader.
        """
        leaves = flatten(batch) if isinstance(batch, (tuple, dict)) else [batch]
        for array in leaves[:1]:
            found = self._known.get(id(array))
            if found is not None and found[0]() is array:
                return found[1].copy()
        shown = type(batch).__name__
        if isinstance(batch, np.ndarray):
            shown = f"an array {batch.dtype}{list(batch.shape)}"
        raise ValueError(
            f"ids_of() got {shown}, expected a batch as this loader delivered it, such as "
            "`for batch in loader: loader.ids_of(batch)`. A copy, a tensor made from it, or a batch of "
            "another loader or view is unknown."
        )
