"""A Dataset with a known number of batches, which ends whatever errors occur. Not its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["with_cardinality"]


def with_cardinality(dataset: tf.data.Dataset, batches: int, errors: int) -> tf.data.Dataset:
    """The Dataset, with a known number of batches.

    `assert_cardinality` alone answers the end of one that has fewer with an error, again and again:
    `ignore_errors()` after it would ask for ever. So requests are counted, including errors.

    Args:
        dataset: batches.
        batches: how many there are, if all is well.
        errors: the most that may come in place of batches.
    """
    import tensorflow as tf

    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    asked = tf.data.Dataset.range(batches + errors + 1)
    # An error of the first does not stop the second, which defines the end of both.
    return tf.data.Dataset.zip((dataset, asked)).map(lambda batch, _: batch)
