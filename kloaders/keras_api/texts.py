"""Converts for Keras: texts to tensors on TensorFlow, float64 to float32 on Apple's GPUs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from kloaders.core.messages import warn
from kloaders.core.structure import flatten, is_text, map_structure
from kloaders.keras_api import private

__all__ = ["for_keras"]

# The dtypes that may have to be changed: texts, float64 (`np.dtype.char`).
_CHANGED = frozenset("Od")


def for_keras(batch: Any) -> Any:
    """A batch in the form that the caller needs; it is changed for Keras only.

    Raises:
        TypeError: Keras asks for texts, on a backend without texts.
    """
    kinds = {leaf.dtype.char for leaf in flatten(batch) if isinstance(leaf, np.ndarray)}
    if kinds.isdisjoint(_CHANGED):
        return batch
    texts, doubles = "O" in kinds, "d" in kinds and _on_apple()
    if not (texts or doubles) or not private.asker(with_call=False).by_keras:
        return batch
    if doubles:
        warn(
            "float64 is cast to float32, since the GPU here (MPS) has no float64: dtype={'x': 'float32', "
            "'y': 'float32'} does so as samples are read.",
            once="float64 on MPS",
        )
        batch = map_structure(_single, batch)
    return map_structure(_tensor, batch) if texts else batch


def _on_apple() -> bool:
    """Whether tensors of PyTorch go to a GPU of Apple's."""
    torch = sys.modules.get("torch")
    if torch is None or sys.modules["keras"].backend.backend() != "torch":
        return False
    return bool(torch.backends.mps.is_available())


def _single(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _tensor(array: Any) -> Any:
    if not is_text(array.dtype):
        return array
    backend = sys.modules["keras"].backend.backend()
    if backend != "tensorflow":
        raise TypeError(
            "the samples have texts, and Keras takes texts on TensorFlow only (the backend here is "
            f"{backend}): let the loader make numbers of them, as batch_transform=kl.keras_transform(layer) "
            "does with a StringLookup or TextVectorization layer."
        )
    import tensorflow as tf

    with tf.device("CPU:0"):  # strings live nowhere else
        return tf.constant(array)
