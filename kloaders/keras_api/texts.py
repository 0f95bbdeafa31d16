"""Texts on their way to Keras: tensors of strings on TensorFlow, which alone has such; elsewhere an error."""

from __future__ import annotations

import sys
from typing import Any

from kloaders.core.structure import flatten, is_text, map_structure
from kloaders.keras_api import private

__all__ = ["for_keras"]


def for_keras(batch: Any) -> Any:
    """A batch as whoever asks for it takes it: where Keras does, texts are tensors.

    Raises:
        TypeError: Keras asks, on a backend without texts.
    """
    dtypes = [getattr(leaf, "dtype", None) for leaf in flatten(batch)]
    if not any(dtype is not None and is_text(dtype) for dtype in dtypes):
        return batch
    if not private.asker(with_call=False).by_keras:
        return batch
    backend = sys.modules["keras"].backend.backend()
    if backend != "tensorflow":
        raise TypeError(
            "the samples have texts, and Keras takes texts on TensorFlow only (the backend here is "
            f"{backend}): let the loader make numbers of them, as batch_transform=kl.keras_transform(layer) "
            "does with a StringLookup or TextVectorization layer."
        )
    import tensorflow as tf

    with tf.device("CPU:0"):  # strings live nowhere else
        return map_structure(lambda a: tf.constant(a) if is_text(a.dtype) else a, batch)
