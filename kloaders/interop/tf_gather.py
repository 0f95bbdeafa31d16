"""Batches of arrays in RAM by TensorFlow's ops: Python passes sample numbers, TensorFlow gathers the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.memory import available_bytes, format_bytes
from kloaders.core.structure import flatten, map_structure, unflatten
from kloaders.interop.tf_records import refuse
from kloaders.loaders.sequence import SequenceLoader
from kloaders.plan.epoch import Order
from kloaders.sources.columns import in_ram

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Gather", "dataset_of", "index_blocks"]

# The number of batches whose indices are passed at once: each call into Python takes 0.15 ms.
_BLOCK = 64


class Gather:
    """Maps the indices of a batch to the batch that the loader delivers for them, as tensors.

    The arrays are copied into TensorFlow's memory, on the CPU.

    Raises:
        TypeError: an array is not in RAM.
        ValueError: an option of the loader needs Python.
        MemoryError: there is not enough memory for the copy.
    """

    def __init__(self, loader: SequenceLoader) -> None:
        import tensorflow as tf

        source = loader.source
        columns = source.columns
        found = [in_ram(column) for column in flatten(columns or ())]
        arrays = [rows for rows in found if rows is not None]
        if not arrays or len(arrays) < len(found):
            raise TypeError(
                "native=True is for TFRecordSequenceLoader and for arrays in RAM, but this is a "
                f"{type(loader).__name__} with another source: leave native out, or pass "
                "preload(loader)."
            )
        refuse(
            "gathers rows",
            [
                ("transform= is a function in Python", loader.transform is not None),
                ("batch_transform= is a function in Python", loader.batch_transform is not None),
                (
                    "preprocess= is a function in Python",
                    loader.options.transforms.preprocess is not None,
                ),
                (
                    "load_sample or load_batch is overridden",
                    source.runs_user_code,
                ),
                ("class_weight= is looked up in NumPy", loader.options.classes is not None),
                ("padding is done in NumPy", loader.options.padding is not None),
                ("pad_last= pads in NumPy", loader.pad_last),
                (
                    "sample_weights= needs labels",
                    loader.weights is not None and not loader.has_weights,
                ),
            ],
        )
        need, free = sum(_bytes(*rows) for rows in arrays), available_bytes()
        if need > free:
            raise MemoryError(
                f"native=True copies the arrays into TensorFlow's memory: this needs "
                f"{format_bytes(need)}, and {format_bytes(free)} are free. Leave native out."
            )
        with tf.device("CPU:0"):
            self._weights = None if loader.weights is None else tf.constant(loader.weights)
            tensors = [tf.constant(_plain(*rows)) for rows in arrays]
        self._parts = unflatten(columns, tensors)
        self._specs = loader.raw_spec
        self._twice = loader.options.inputs_as_labels and len(self._parts) == 1

    def __call__(self, indices: Any) -> Any:
        """A batch; `indices` is a tensor of int64, of shape (rows,)."""
        import tensorflow as tf

        batch = map_structure(
            lambda values, spec: tf.cast(tf.gather(values, indices), spec.dtype),
            self._parts,
            self._specs,
        )
        if self._twice:
            batch = batch * 2
        if self._weights is not None:
            return batch[0], batch[1], tf.gather(self._weights, indices)
        return batch[0] if len(batch) == 1 and not isinstance(batch[0], tuple) else batch


def index_blocks(loader: SequenceLoader, order: Order, first: int) -> Iterator[Indices]:
    """The sample numbers of an order's batches from `first` on: int64 arrays of shape (batches, rows)."""
    block: list[Indices] = []
    for batch in range(first, loader.plan.count(order)):
        indices = loader.plan.indices(order, batch)
        if block and (len(block) == _BLOCK or len(indices) != len(block[0])):
            yield np.stack(block)
            block = []
        block.append(indices)
    if block:
        yield np.stack(block)


def dataset_of(gather: Gather, blocks: Any, name: str) -> tf.data.Dataset:
    """A Dataset of batches. `blocks` is a generator function that yields indices; `name` is for errors."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(
        blocks, output_signature=tf.TensorSpec((None, None), tf.int64), name=name
    )
    dataset = dataset.prefetch(1).flat_map(tf.data.Dataset.from_tensor_slices)
    return dataset.map(gather)


def _bytes(array: Any, numbers: Any) -> int:
    """The bytes that a copy needs, including the rows that are gathered first for a subset."""
    return int(array.nbytes if numbers is None else 2 * array[:1].nbytes * len(numbers))


def _plain(array: Any, numbers: Any) -> Any:
    """These rows, contiguous and in this machine's byte order."""
    rows = array if numbers is None else array[numbers]
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
