"""Rows of an array outside RAM, such as HDF5 or zarr, which is never read as a whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.per_thread import PerThread
from kloaders.core.rows import Report, RowMismatch, copy_into_row

__all__ = ["LazyArray", "LazyColumn", "is_lazy"]

# Labels up to this size are read as a whole when all labels are needed.
_LABELS = 2**26


def is_lazy(values: Any) -> bool:
    """Whether values have to be read in rows: they have a shape, a dtype and `[rows]`, but no memory.

    Objects that share their memory (NumPy, torch, TensorFlow, JAX) are arrays; pandas' rows have labels.
    """
    if isinstance(values, PerThread):
        return True
    kind = type(values)
    if any(hasattr(kind, name) for name in ("__array_interface__", "__dlpack__", "iloc")):
        return False
    if not hasattr(kind, "__getitem__"):
        return False
    try:
        np.dtype(values.dtype)
        return all(int(side) >= 0 for side in values.shape)
    except (AttributeError, TypeError):
        return False


class LazyArray:
    """Rows of an array outside RAM. If possible, each thread reads with its own handle.

    Each thread and process opens h5py datasets again by the name of their file. All threads share a
    zarr array. A `PerThread` calls the user's function. Any other object is shared, and read by one
    thread at a time; worker processes get a pickled copy.

    Raises:
        TypeError: it has no axis of rows, or the PerThread did not open an array.
    """

    def __init__(self, values: Any, what: str = "x") -> None:
        self.what = what
        self._shared, self._lock = None, None
        self._open: PerThread[Any] | None = values if isinstance(values, PerThread) else None
        self._whole_selection = False
        self.place = ""
        found = values
        if self._open is not None:
            found = self._open()
            if not is_lazy(found) and not isinstance(found, np.ndarray):
                raise TypeError(
                    f"{what} is a PerThread that opens a {type(found).__name__}, expected one that opens "
                    'an array of rows, as PerThread(lambda: h5py.File("a.h5")["x"]).'
                )
        module = type(found).__module__.partition(".")[0]
        self._whole_selection = module == "zarr"
        if module == "h5py":
            self.place = f"{found.name} in {found.file.filename}"
            if self._open is None and os.path.isfile(found.file.filename):
                self._open = PerThread(_open_hdf5, os.path.abspath(found.file.filename), found.name)
        elif module == "zarr":
            self.place = str(getattr(found, "store_path", ""))
        if self._open is None:
            self._shared = found
            self._lock = None if module == "zarr" else threading.Lock()
        self.shape = tuple(int(side) for side in found.shape)
        self.dtype: np.dtype[Any] = np.dtype(found.dtype)
        if not self.shape:
            raise TypeError(f"{what} is a single value, expected an array with one row per sample.")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The size of all rows in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> Array:
        """Read consecutive rows.

        Raises:
            ValueError: the array returned fewer rows, or masked values.
            Exception: any error of the library.
        """
        with self._lock or contextlib.nullcontext():
            return self._checked(self._handle()[start:stop], stop - start)

    def take(self, numbers: Indices) -> Array:
        """Read rows by ascending, distinct numbers; each run of consecutive rows is one read."""
        if self._whole_selection and len(numbers) > 1:  # zarr reads many chunks in one call
            return self._checked(self._handle().oindex[numbers], len(numbers))
        cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
        ends = [0, *cuts.tolist(), len(numbers)]
        runs = [
            self.rows(int(numbers[a]), int(numbers[b - 1]) + 1) for a, b in itertools.pairwise(ends)
        ]
        return runs[0] if len(runs) == 1 else np.concatenate(runs)

    def close(self) -> None:
        """Close the handles of all threads; they are opened again when rows are read."""
        if self._open is not None:
            self._open = self._open.again()

    def _handle(self) -> Any:
        return self._shared if self._open is None else self._open()

    def _checked(self, got: Any, count: int) -> Array:
        if isinstance(got, np.ma.MaskedArray):
            if np.ma.is_masked(got):
                raise ValueError(
                    f"{self.what} has masked values, which a batch cannot hold: fill them in the file, "
                    "or in load_sample() of your own loader."
                )
            got = got.data
        array = np.asarray(got)
        if array.shape[:1] != (count,):
            raise ValueError(
                f"{self.what} of shape {self.shape} returned {array.shape} for {count} rows, expected "
                f"{(count, *self.shape[1:])}: was it changed since the loader was made?"
            )
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": self._lock is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock() if state["_lock"] else None)


def _open_hdf5(path: str, name: str) -> Any:
    import h5py

    return h5py.File(path, "r")[name]


class LazyColumn:
    """An array outside RAM with one row per sample."""

    def __init__(self, array: LazyArray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> Array:
        return np.array(self.array.rows(index, index + 1)[0])

    def fill(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        if not len(indices):
            return
        rising, back = np.unique(indices, return_inverse=True)
        stall_watch.at(self, int(rising[0]))
        try:
            rows = self.array.take(rising)
        except Exception:  # an error of the library: read one row at a time to find the bad ones
            self._fill_one_by_one(indices, out, leaf, report)
            return
        if rows.shape[1:] == out.shape[1:]:
            out[...] = rows[back]
            return
        for row, k in enumerate(back.tolist()):
            report(row, RowMismatch(row, leaf, rows[k]))

    def _fill_one_by_one(self, indices: Indices, out: Array, leaf: int, report: Report) -> None:
        for row, index in enumerate(indices.tolist()):
            stall_watch.at(self, index)
            try:
                value = self.read(index)
            except Exception as error:
                report(row, error)
            else:
                copy_into_row(value.astype(out.dtype, copy=False), out, row, leaf, report)

    def name(self, index: int) -> str:
        return f"row {index} of {self.array.place}" if self.array.place else f"row {index}"

    def known_values(self) -> Array | None:
        """The values of all samples if they are small, such as labels."""
        array = self.array
        small = len(array.shape) == 1 or (len(array.shape) == 2 and array.nbytes <= _LABELS)
        return array.rows(0, len(array)) if small else None

    @property
    def parts(self) -> list[Any]:
        """A digest of the array: its shape and dtype, and its first, middle and last row."""
        array, last = self.array, len(self.array) - 1
        found: list[Any] = [array.shape, array.dtype.str]
        for k in sorted({0, last // 2, last}):
            with contextlib.suppress(Exception):  # a row that cannot be read identifies nothing
                found.append(self.read(k).tobytes())
        return found

    def close(self) -> None:
        self.array.close()
