"""Gives a Dataset a known number of batches, and makes it end even if errors occur."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["with_cardinality"]


def with_cardinality(dataset: tf.data.Dataset, batches: int, errors: int) -> tf.data.Dataset:
    """The Dataset, with a known number of batches.

    If a Dataset has fewer batches, `assert_cardinality` alone raises an error at its end, on every
    further request: `ignore_errors()` after it would never end. So requests are counted, including
    those that raise errors.

    Args:
        dataset: the Dataset of batches.
        batches: the number of batches, without errors.
        errors: the maximum number of errors in place of batches.
    """
    import tensorflow as tf

    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    asked = tf.data.Dataset.range(batches + errors + 1)
    # An error in `dataset` does not stop `asked`, which ends both.
    return tf.data.Dataset.zip((dataset, asked)).map(lambda batch, _: batch)
