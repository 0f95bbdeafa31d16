"""Converts batches for Keras: texts to tensors on TensorFlow, float64 to float32 on Apple's GPUs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from kloaders.core.messages import warn
from kloaders.core.structure import flatten, is_text, map_structure
from kloaders.keras_api import private

__all__ = ["for_keras"]

# The dtypes that may need a change, as `np.dtype.char`: texts and float64.
_CHANGED = frozenset("Od")


def for_keras(batch: Any) -> Any:
    """Convert a batch if Keras asks for it; any other caller gets it unchanged.

    Raises:
        TypeError: the batch has texts, and the backend does not support them.
    """
    kinds = {leaf.dtype.char for leaf in flatten(batch) if isinstance(leaf, np.ndarray)}
    if kinds.isdisjoint(_CHANGED):
        return batch
    texts, doubles = "O" in kinds, "d" in kinds and _on_apple()
    if not (texts or doubles) or not private.asker(with_call=False).by_keras:
        return batch
    if doubles:
        warn(
            "float64 is cast to float32, since this GPU (MPS) does not support float64. Pass "
            "dtype={'x': 'float32', 'y': 'float32'} to cast samples when they are read.",
            once="float64 on MPS",
        )
        batch = map_structure(_single, batch)
    return map_structure(_tensor, batch) if texts else batch


def _on_apple() -> bool:
    """Whether PyTorch puts tensors on an Apple GPU."""
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
            "the samples have texts, and Keras supports texts on the TensorFlow backend only (this is "
            f"{backend}): convert them to numbers in the loader, for example with a StringLookup or "
            "TextVectorization layer and batch_transform=kl.keras_transform(layer)."
        )
    import tensorflow as tf

    with tf.device("CPU:0"):  # TensorFlow supports strings on the CPU only
        return tf.constant(array)
