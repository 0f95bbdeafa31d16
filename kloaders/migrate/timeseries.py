"""A drop-in for Keras' `timeseries_dataset_from_array`: same windows and targets, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.checks import check_names, checked_dtype
from kloaders.core.options import Options
from kloaders.loaders.windows import series_of
from kloaders.migrate.datasets import WindowsDataset, check_format
from kloaders.sources.given_columns import columns_of
from kloaders.sources.windows import Cut, WindowSource

__all__ = ["timeseries_dataset_from_array"]


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool | None = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",  # noqa: A002  (Keras' name)
    **options: Any,
) -> WindowsDataset:
    """Replaces `keras.utils.timeseries_dataset_from_array`: a loader with the same windows.

    For new code use `WindowSequenceLoader`, which takes targets from the series itself.

    Args:
        data: an array with one row per time step; it is never copied, and may be memory-mapped.
        targets: an array: `targets[i]` belongs to the window that begins at row i. None: no targets.
        sequence_length: the number of rows in a window.
        sequence_stride: the number of rows between the beginnings of two windows.
        sampling_rate: use every n-th row of a window.
        batch_size: windows per batch. None: `for` gives single windows, and `fit` has batches of one.
        shuffle: True: a new order of all windows in each epoch. False: chronological, if `fit` is called
            with shuffle=False as well. None: the order that `fit` asks for.
        seed: determines the order, which differs from Keras' own.
        start_index: the first row to use.
        end_index: the row after the last one to use.
        format: "tf" or "grain", which makes no difference: the result is a loader.
        **options: see `SequenceLoader`.

    Raises:
        ValueError: an argument is out of range, or the data is shorter than a window.
    """
    check_names("timeseries_dataset_from_array", options, Options.__annotations__)
    found, _ = series_of(data)
    if len(found) > 1:
        raise TypeError(
            f"data is a list of {len(found)} arrays, expected one: WindowSequenceLoader takes several "
            "series."
        )
    column = found[0]
    rows = len(column)
    start, end = _range(start_index, end_index, rows)
    for name, value in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if value <= 0:
            raise ValueError(f"`{name}` must be higher than 0, and {name}={value!r:.80} is not.")
        if value >= rows:
            raise ValueError(
                f"`{name}` must be lower than the length of the data, {rows}, and {name}={value!r:.80} is "
                "not."
            )
    check_format(format)
    cut = Cut(0, sequence_length, sampling_rate, dtype=checked_dtype(options.get("dtype")))
    # As Keras counts: the last window ends this many steps before the last row.
    count = end - start - (sequence_length - 1) * sampling_rate
    labels = None if targets is None else columns_of(targets, "labels")
    if labels is not None:
        count = min(count, len(labels) - start)
    if count <= 0:
        said = "" if labels is None else f", and {len(labels)} targets"
        raise ValueError(
            f"the data has no window: a window spans {cut.length} rows, but only rows {start} to {end} "
            f"are used{said}. Lower sequence_length."
        )
    # Window k begins at row k, so targets[k] belongs to it.
    whole = WindowSource([column], (cut,), 1, [np.zeros(0, np.int64)], labels)
    source = whole.take(np.arange(start, start + count, sequence_stride, dtype=np.int64))
    return WindowsDataset(source, batch_size, shuffle=shuffle, seed=seed, **options)


def _range(start: int | None, end: int | None, rows: int) -> tuple[int, int]:
    """-> the first row to use and the one after the last; both are checked."""
    if start and not 0 <= start < rows:
        raise ValueError(
            f"`start_index` must be a row of the data, 0 to {rows - 1}, and start_index={start} is not."
        )
    if end is not None and not max(0, start or 0) < end < rows:
        raise ValueError(
            f"`end_index` must be a row of the data after start_index, up to {rows - 1}, and "
            f"end_index={end} is not; None uses all rows."
        )
    return start or 0, end or rows
